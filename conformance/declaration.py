"""What an author tells the suite about a connector: CHECK in its module, a JSON file, or `--env`."""

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from proxy.connector import Data

#: In a value of `env` it becomes the address of the scripted API, such as http://127.0.0.1:41239.
ADDRESS = "{url}"
#: Variables that would lead calls around the scripted API, in either case.
PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
#: An env value shorter than this is no secret that could be recognized in a text.
SHORTEST_SECRET = 8

SAMPLE: Data = {"messages": [{"role": "user", "content": "Say pong, please"}], "generate_parameters": {}}
ANSWER = {
    "id": "scripted-1",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "scripted",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "pong"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5},
}
CHUNKS = [
    {
        "id": "scripted-1",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": "scripted",
        "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}],
    }
    for piece in ("p", "on", "g")
]


class DeclarationError(Exception):
    """CHECK cannot be understood; the text says where and how to mend it."""


@dataclass(frozen=True)
class Declaration:
    """The keys of CHECK. All may be left out but `env`, without which nobody can be called."""

    #: The connector's settings for the check; `{url}` stands for the address of the scripted API.
    env: Mapping[str, str] = field(default_factory=dict)
    #: A call that is right.
    sample: Data = field(default_factory=lambda: deepcopy(SAMPLE))
    #: Calls that are wrong, each under the word that the complaint must name: generate_parameters, or the whole data.
    invalid: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    #: What the API answers, a JSON value.
    answer: Any = field(default_factory=lambda: deepcopy(ANSWER))
    #: What it streams, at least three: JSON values, sent as events up to [DONE], or strings, sent as they are.
    chunks: list[Any] = field(default_factory=lambda: deepcopy(CHUNKS))
    #: What it answers at other paths, which are no calls: a token at "/oauth", models at "/v1/models".
    also: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names_the_api(self) -> bool:
        return any(ADDRESS in value for value in self.env.values())

    @property
    def secrets(self) -> list[str]:
        """The values that no answer and no error may repeat."""
        return [value for value in self.env.values() if ADDRESS not in value and len(value) >= SHORTEST_SECRET]

    def settings(self, url: str) -> dict[str, str]:
        return {name: value.replace(ADDRESS, url) for name, value in self.env.items()}

    def bare(self, environment: Mapping[str, str]) -> dict[str, str]:
        """This environment without the connector's settings, and with nothing that leads calls elsewhere."""
        unwanted = PROXIES | {name.lower() for name in self.env}
        return {name: value for name, value in environment.items() if name.lower() not in unwanted}

    def wrong_data(self, word: str) -> Data:
        wrong = deepcopy(self.invalid[word])
        return wrong if "messages" in wrong else {**deepcopy(self.sample), "generate_parameters": wrong}

    @property
    def longest_text(self) -> str:
        """The words of the sample that must reach the API."""
        texts = [message.get("content") for message in self.sample["messages"] if isinstance(message, dict)]
        return max((text for text in texts if isinstance(text, str)), key=len, default="")


#: What each key must be, for people and for `isinstance`.
KINDS: dict[str, tuple[type, str]] = {
    "env": (dict, 'an object such as {"MY_API_URL": "{url}/v1", "MY_API_KEY": "any-key-will-do"}'),
    "sample": (dict, 'data such as {"messages": [...], "generate_parameters": {...}}'),
    "invalid": (dict, 'an object such as {"temperature": {"temperature": "hot"}}'),
    "answer": (object, "JSON"),
    "chunks": (list, "a list of at least three objects or strings"),
    "also": (dict, 'an object such as {"/oauth": {"access_token": "..."}}'),
}


def read(told: object, place: str) -> Declaration:
    """CHECK, or what a JSON file holds in its stead. Raises DeclarationError."""
    if not isinstance(told, Mapping):
        raise DeclarationError(f"{place} must be a dict, not {type(told).__name__}")
    for name, value in told.items():
        if name not in KINDS:
            near = get_close_matches(str(name), KINDS, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"it may hold {', '.join(KINDS)}"
            raise DeclarationError(f'{place} has an unknown key "{name}": {hint}')
        kind, told_kind = KINDS[name]
        if not isinstance(value, kind):
            raise DeclarationError(f'{place}: "{name}" must be {told_kind}')
    declared = Declaration(**told)
    _check(declared, place)
    return declared


def _check(declared: Declaration, place: str) -> None:
    if not all(isinstance(text, str) for pair in declared.env.items() for text in pair):
        raise DeclarationError(f'{place}: names and values of "env" must be strings')
    if not isinstance(declared.sample.get("messages"), list):
        raise DeclarationError(f'{place}: "sample" must be {KINDS["sample"][1]}')
    if not all(isinstance(wrong, dict) for wrong in declared.invalid.values()):
        raise DeclarationError(f'{place}: "invalid" must be {KINDS["invalid"][1]}')
    if len(declared.chunks) < 3:
        raise DeclarationError(f'{place}: "chunks" must be {KINDS["chunks"][1]}')
    declared.sample.setdefault("generate_parameters", {})


def declared_by(module: object, name: str, file: Path | None, env: Mapping[str, str]) -> Declaration:
    """What the module's CHECK says; over it what the file says, key by key; over it `env`. Raises DeclarationError."""
    told = getattr(module, "CHECK", {})
    declared = read(told, f"CHECK of {name}")
    if file is not None:
        declared = read({**told, **from_file(file)}, str(file))
    return replace(declared, env={**declared.env, **env})


def from_file(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DeclarationError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DeclarationError(f"{file} is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise DeclarationError(f"{file} must hold an object with any of {', '.join(KINDS)}")
    return told


def put_in_force(declared: Declaration, url: str) -> None:
    """Make this process's environment the one in which the connector is checked."""
    environment = {**declared.bare(os.environ), **declared.settings(url)}
    os.environ.clear()
    os.environ.update(environment)
