"""What can be found in a text: JSON, numbers, quotations, names, lists, dates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from emulator.arithmetic import result

NUMBER = re.compile(r"(?<![\w.,])-?\d+(?:[.,]\d+)?(?!\w)")
QUOTED = re.compile(r"«([^»]+)»|“([^”]+)”|\"([^\"\n]+)\"|`([^`\n]+)`|(?<!\w)'([^'\n]+)'(?!\w)")
# A word with a capital letter that does not begin a sentence, and the capitalised words after it.
NAME = re.compile(r"(?<=[\w,;:»)] )[A-ZА-ЯЁ][\w-]*(?: [A-ZА-ЯЁ][\w-]*)*")
# Two or more things with commas between them, after a colon.
LIST = re.compile(r":\s*([^:.!?\n{}\[\]]+,[^:.!?\n{}\[\]]+)")
FORMATS = {
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d\d:\d\d(?::\d\d)?"),
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "uri": re.compile(r"https?://[^\s\"'<>»]+"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "ipv4": re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"),
}
BRACKET = re.compile(r"[{\[]")
DECODER = json.JSONDecoder()


class Found:
    """The things in a text, in the order in which they stand there. `results` are of sums in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values = list(json_values(text))
        self.numbers = [number(match[0]) for match in NUMBER.finditer(text)]
        self.quotations = [next(filter(None, match.groups())) for match in QUOTED.finditer(text)]
        self.names = [match[0] for match in NAME.finditer(text)]
        self.list = [part.strip() for match in LIST.findall(text)[:1] for part in re.split(r",| и | and ", match)]
        self.results = [number(text) for text in [result(text)] if text]

    def mentions(self, thing: Any) -> bool:
        return str(thing).lower() in self.text.lower()

    def under(self, key: str) -> list[Any]:
        """The values that JSON in the text has under this key."""
        return [found for value in self.values for found in values_under(key, value)]

    def said_of(self, key: str) -> str:
        """What follows the key's name in the text: `city: Moscow`, `city is Moscow`, `city = Moscow`."""
        name = r"[ _-]?".join(map(re.escape, words(key)))
        sign = r"[\"']?\s*(?:[:=—]|\bis\b|\bравно\b|\bэто\b)\s*[\"'«]?"
        match = re.search(rf"\b{name}\b{sign}([^\"'»\n,;{{[]+)", self.text, re.IGNORECASE)
        return match[1].strip().rstrip(".!?") if match else ""

    def formatted(self, name: str) -> str:
        """The first thing of that JSON schema format."""
        match = FORMATS[name].search(self.text)
        return match[0].rstrip(".,") if match else ""


def json_values(text: str) -> Iterator[Any]:
    """Every JSON object and array in the text."""
    start = 0
    while (match := BRACKET.search(text, start)) is not None:
        try:
            value, start = DECODER.raw_decode(text, match.start())
        except ValueError:
            start = match.end()
        else:
            yield value


def values_under(key: str, value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from values_under(key, part)


def words(key: str) -> list[str]:
    """The words of a name: `cityName` and `city_name` are two."""
    return re.findall(r"[^\W\d_]+|\d+", re.sub(r"(?<=[a-zа-я])(?=[A-ZА-Я])", "_", key)) or [key]


def number(text: str) -> int | float:
    value = float(text.replace(",", "."))
    return value if "." in text or "," in text else int(value)
