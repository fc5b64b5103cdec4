"""A text that matches a regular expression: a piece of a given text if one matches, else one made up."""

from __future__ import annotations

import re

# The parser of the standard library has no public name; its tree is the only way to read an expression.
from re import _parser  # type: ignore[attr-defined]
from typing import Any

CATEGORIES = {
    "CATEGORY_DIGIT": "1",
    "CATEGORY_NOT_DIGIT": "a",
    "CATEGORY_WORD": "a",
    "CATEGORY_NOT_WORD": " ",
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_SPACE": "a",
}
COMMON = [chr(code) for code in (*range(97, 123), *range(48, 58), *range(65, 91), 32, 45, 95, 46)]


def matching(pattern: str, text: str) -> str:
    """The first piece of the text that matches, or the simplest text that does."""
    try:
        found = next((match[0] for match in re.finditer(pattern, text) if match[0]), "")
        return found or Writer().written(_parser.parse(pattern))
    except (re.error, RecursionError):
        return text


class Writer:
    """Writes the simplest text for a parsed expression, remembering what its groups hold."""

    def __init__(self) -> None:
        self.groups: dict[int, str] = {}

    def written(self, tree: Any) -> str:
        return "".join(self._piece(str(operation), argument) for operation, argument in tree)

    def _piece(self, operation: str, argument: Any) -> str:
        write = getattr(self, f"_{operation.lower()}", None)
        # What has no method, such as the start of a line or a look-ahead, takes no room.
        return str(write(argument)) if write else ""

    def _literal(self, code: int) -> str:
        return chr(code)

    def _not_literal(self, code: int) -> str:
        return "a" if code != ord("a") else "b"

    def _any(self, argument: Any) -> str:
        return "a"

    def _in(self, members: list[tuple[Any, Any]]) -> str:
        return next((char for char in COMMON if is_in(char, members)), None) or first_of(members)

    def _max_repeat(self, argument: tuple[int, int, Any]) -> str:
        least, _, tree = argument
        return "".join(self.written(tree) for _ in range(least))

    _min_repeat = _possessive_repeat = _max_repeat

    def _subpattern(self, argument: tuple[int | None, int, int, Any]) -> str:
        group, _, _, tree = argument
        text = self.written(tree)
        if group is not None:
            self.groups[group] = text
        return text

    def _atomic_group(self, tree: Any) -> str:
        return self.written(tree)

    def _branch(self, argument: tuple[None, list[Any]]) -> str:
        return self.written(argument[1][0])

    def _groupref(self, group: int) -> str:
        return self.groups.get(group, "")


def is_in(char: str, members: list[tuple[Any, Any]]) -> bool:
    """Is the character one of the set?"""
    is_negated = str(members[0][0]) == "NEGATE"
    return is_negated != any(has(char, str(kind), argument) for kind, argument in members)


def has(char: str, kind: str, argument: Any) -> bool:
    if kind == "RANGE":
        return bool(argument[0] <= ord(char) <= argument[1])
    if kind == "CATEGORY":
        return CATEGORIES[str(argument)] == char or same_category(char, str(argument))
    return kind == "LITERAL" and bool(argument == ord(char))


def same_category(char: str, category: str) -> bool:
    letter = {"DIGIT": "d", "WORD": "w", "SPACE": "s"}[category.rpartition("_")[2]]
    return bool(re.match(rf"\{letter.upper() if 'NOT' in category else letter}", char))


def first_of(members: list[tuple[Any, Any]]) -> str:
    kind, argument = members[0]
    return chr(argument[0] if str(kind) == "RANGE" else argument)
