"""As much of YAML as OpenAPI descriptions are written in: maps, lists, plain and quoted values, text blocks.

Not here: anchors, tags, several documents, flow style other than JSON and simple `[a, b]`.
"""

from __future__ import annotations

import json
import re
from typing import Any

ITEM = re.compile(r"-(?:\s+|$)")
PAIR = re.compile(r"(\"[^\"]*\"|'[^']*'|[^\s#\[{\"'][^#]*?)\s*:(?:\s+(.*))?$")
COMMENT = re.compile(r"\s+#.*$")
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


def parsed(text: str) -> Any:
    """Raises ValueError for what it does not understand."""
    lines = [line.rstrip() for line in text.splitlines()]
    reader = Reader([line for line in lines if line.strip() and not line.lstrip().startswith(("#", "---"))])
    value = reader.block(0)
    if reader.lines:
        raise ValueError(f"not understood: {reader.lines[0]!r}")
    return value


class Reader:
    """Reads from the first line on; `lines` holds what is left."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def block(self, least: int) -> Any:
        """The value that the next lines make, if they are indented by `least` or more."""
        if not self.lines or indent(self.lines[0]) < least:
            return None
        depth = indent(self.lines[0])
        return self._list(depth) if ITEM.match(self.lines[0].lstrip()) else self._map(depth)

    def _list(self, depth: int) -> list[Any]:
        items = []
        while self._is_at(depth) and (mark := ITEM.match(self.lines[0].lstrip())):
            rest = self.lines.pop(0).lstrip()[mark.end() :]
            if PAIR.match(rest):
                # The item is a map whose first pair stands beside the dash.
                self.lines.insert(0, " " * (depth + mark.end()) + rest)
                items.append(self.block(depth + 1))
            else:
                items.append(self._value(rest, depth))
        return items

    def _map(self, depth: int) -> dict[str, Any]:
        pairs = {}
        while self._is_at(depth) and (pair := PAIR.match(self.lines[0].lstrip())):
            self.lines.pop(0)
            pairs[str(scalar(pair[1]))] = self._value(pair[2] or "", depth)
        if not pairs:
            raise ValueError(f"not understood: {self.lines[0]!r}")
        return pairs

    def _value(self, text: str, depth: int) -> Any:
        text = COMMENT.sub("", text)
        if text[:1] in {"|", ">"}:
            return self._text(depth, "\n" if text[0] == "|" else " ")
        if text:
            return scalar(text)
        # A list may stand as deep as its own key.
        is_list = bool(self.lines) and bool(ITEM.match(self.lines[0].lstrip()))
        return self.block(depth if is_list else depth + 1)

    def _text(self, depth: int, joint: str) -> str:
        taken = []
        while self.lines and indent(self.lines[0]) > depth:
            taken.append(self.lines.pop(0).strip())
        return joint.join(taken)

    def _is_at(self, depth: int) -> bool:
        return bool(self.lines) and indent(self.lines[0]) == depth


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def scalar(text: str) -> Any:
    """A value on one line."""
    text = text.strip()
    if text[:1] in {'"', "{"} or text == "[]":
        return json.loads(text)
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    if text[:1] == "[":
        return [scalar(part) for part in text[1:-1].split(",")]
    return WORDS[text] if text in WORDS else number(text)


def number(text: str) -> Any:
    """A number if it is one, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
