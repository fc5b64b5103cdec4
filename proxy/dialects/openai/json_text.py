"""The JSON in what a model says: alone, in a fence, or with words around it."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

#: Brackets that are tried; a text of nothing but brackets must not keep anybody busy.
MAX_BRACKETS: Final = 1000
FENCE: Final = re.compile(r"```[\w-]*[ \t]*\n(.*?)```", re.DOTALL)
BEGIN: Final = re.compile(r"[{\[]")
#: What counts when brackets are counted: a string is passed over as a whole, one without an end to the end.
TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)


class Found(NamedTuple):
    """JSON as it was written, and its value."""

    text: str
    value: Any


def refuse(word: str) -> Any:
    """NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(word)


DECODER: Final = json.JSONDecoder(parse_constant=refuse)


def found_in(text: str) -> Iterator[Found]:
    """The whole JSON objects and arrays in a text; never a part of a broken one, which would say something else."""
    for place in places(text):
        end = 0
        for _ in range(MAX_BRACKETS):
            start = BEGIN.search(place, end)
            if start is None:
                break
            found, end = read(place, start.start())
            if found:
                yield found


def places(text: str) -> Iterator[str]:
    """Where to look: in fences first, as what is said around them may have brackets too."""
    if not text.lstrip().startswith(("{", "[")):
        yield from (match[1] for match in FENCE.finditer(text))
    yield text


def read(place: str, start: int) -> tuple[Found | None, int]:
    """The JSON that begins at a bracket, if it is any, and where the bracket's part of the text ends."""
    try:
        value, end = DECODER.raw_decode(place, start)
    except (ValueError, RecursionError):
        return None, closing(place, start)
    return Found(place[start:end], value), end


def closing(place: str, start: int) -> int:
    """Where the bracket at `start` is closed again; the end if it never is."""
    depth = 0
    for match in TOKEN.finditer(place, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(match[0], 0)
        if depth == 0 and match[0] in "}]":
            return match.end()
    return len(place)
