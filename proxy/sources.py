"""Where the values of settings come from: the environment, and env files as people write them."""

from collections.abc import Collection, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from dotenv.parser import Binding, parse_stream

from proxy import gpt2giga


class SettingsError(Exception):
    """Settings that cannot be used: a line for each wrong value with its name, its place and what is allowed."""


class Found(NamedTuple):
    """A value as the user wrote it: for which name, where, and by which flag if on the command line."""

    name: str
    value: str
    where: str
    flag: str = ""

    @property
    def written(self) -> str:
        """What the user called it."""
        return self.flag or self.name

    @property
    def meaning(self) -> Any:
        """What the value means under the name it was given; empty for unset."""
        return gpt2giga.meaning_of(self.name, self.value)


#: By name, aliases too.
Source = dict[str, Found]


def environment(env: Mapping[str, str], known: Collection[str]) -> Source:
    """What the environment gives for names that are known, and for gpt2giga's."""
    source: Source = {}
    for spelt in sorted(env, reverse=True):  # small letters first: who writes a name in both ways means its own
        name, value = gpt2giga.canonical(spelt), env[spelt]
        # For a service named "proxy" Kubernetes sets PROXY_PORT=tcp://10.0.0.1:8078; nobody meant us by it.
        if (name in known or gpt2giga.is_its(name)) and not value.startswith("tcp://"):
            source[name] = Found(name, value.strip(), "in the environment")
    return source


def env_file(path: Path, known: Collection[str]) -> Source:
    """What an env file gives; names that are not known may stand there too. No file gives nothing.

    Raises SettingsError for a file, or a line about a known name, that cannot be read.
    """
    source: Source = {}
    for entry in _entries(path):
        where = f"in {path}:{_line(entry)}"
        name = gpt2giga.canonical(_name(entry))
        if entry.error and name in known:
            raise SettingsError(f"{name} {where} cannot be read; allowed: {name}=value, every quote closed")
        if entry.key is not None and not entry.error:
            source[name] = Found(name, (entry.value or "").strip(), where)
    return source


def _entries(path: Path) -> list[Binding]:
    try:
        return list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig")))) if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}; it must be a readable text file in UTF-8 ({error})") from None


def _line(entry: Binding) -> int:
    """The parser counts blank lines before an entry as its beginning."""
    whole = entry.original.string
    return entry.original.line + whole[: len(whole) - len(whole.lstrip())].count("\n")


def _name(entry: Binding) -> str:
    """Its name, also where the parser finds none."""
    text = entry.original.string.lstrip()
    return entry.key or text.removeprefix("export ").replace("=", " ").replace(":", " ").partition(" ")[0]
