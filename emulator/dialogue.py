"""A conversation as the emulator understands it, whichever version of the API it came through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emulator.schema import Schema


@dataclass(frozen=True, slots=True)
class FunctionCall:
    name: str
    arguments: dict[str, Any]


@dataclass(slots=True)
class Message:
    """One message. `results` are (function name, value) pairs, `files` are ids."""

    role: str
    text: str = ""
    calls: list[FunctionCall] = field(default_factory=list)
    results: list[tuple[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Dialogue:
    """What is asked for.

    Args:
        functions: descriptions of the functions the model may call.
        forced: the name of the function or tool that it must use, or nothing.
        is_silent: no function may be called.
        given: arguments that the caller has fixed already.
        tools: names of built-in tools that may be used.
        schema: the JSON schema that the answer must match, or None.
        regex: the regular expression that the answer must match, or nothing.
        is_filtered: profanity is answered with a polite refusal.
    """

    model: str
    messages: list[Message]
    functions: list[dict[str, Any]] = field(default_factory=list)
    forced: str = ""
    is_silent: bool = False
    given: dict[str, Any] = field(default_factory=dict)
    tools: set[str] = field(default_factory=set)
    schema: Schema | None = None
    regex: str = ""
    has_reasoning: bool = False
    is_filtered: bool = False
    max_tokens: int | None = None

    @property
    def question(self) -> str:
        """What the user said last."""
        return next((message.text for message in reversed(self.messages) if message.role == "user"), "")

    @property
    def instruction(self) -> str:
        """What the system message says."""
        return self.messages[0].text if self.messages[0].role == "system" else ""


@dataclass(slots=True, kw_only=True)
class Reply:
    """What the emulator says to a dialogue.

    Args:
        picture: the id of the file made for it, once it is made.
        is_searched: the web was asked, in pretence.
        state_id: stands for the state of functions and tools.
    """

    text: str = ""
    call: FunctionCall | None = None
    has_picture: bool = False
    picture: str = ""
    is_searched: bool = False
    reasoning: str = ""
    finish: str = "stop"
    state_id: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
