"""A value that fits a schema, made of what a text holds.

Each type has a function in SOURCES that offers values, best first; the first that fits is taken.
The last one offered is of the right type at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from emulator.found import FORMATS, Found
from emulator.pattern import matching
from emulator.schema import Schema, choices, fits, kind, resolved

# Deeper than this only what is required is filled, and twice as deep nothing.
MAX_DEPTH = 8
YES = {"true", "yes", "да", "1", "on"}
RESULTS = {"result", "sum", "total", "answer", "value", "результат", "сумма", "итог", "ответ"}
EXAMPLES = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00",
    "email": "user@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
}


def filled(schema: Schema, text: str) -> Any:
    """A value that fits the schema."""
    return Filling(schema, text).value(schema, "", 0)


class Filling:
    """One schema and the text that it is filled from. What was found is used once."""

    def __init__(self, root: Schema, text: str) -> None:
        self.root = root
        self.found = Found(text)

    def value(self, schema: Any, key: str, depth: int) -> Any:
        """A value for the schema that will stand under `key`."""
        schema = self.chosen(schema)
        value = None
        for value in self._offers(schema, key, depth):
            if fits(schema, value, self.root):
                break
        return value

    def chosen(self, schema: Any) -> Schema:
        """The schema with its first alternative that is not null chosen."""
        plain = resolved(schema, self.root)
        if not choices(plain):
            return plain
        rest = {name: value for name, value in plain.items() if name not in {"anyOf", "oneOf"}}
        alternatives = [resolved(alternative, self.root) for alternative in choices(plain)]
        usual = next((each for each in alternatives if kind(each) != "null"), alternatives[0])
        return {**rest, **self.chosen(usual)}

    def is_evident(self, schema: Any, key: str) -> bool:
        """Does the text say anything of this key?"""
        chosen = self.chosen(schema)
        has_number = kind(chosen) in {"integer", "number"} and bool(self.found.numbers)
        is_named = bool(self.found.under(key) or self.found.said_of(key))
        return has_number or is_named or any(map(self.found.mentions, chosen.get("enum", [])))

    def _offers(self, schema: Schema, key: str, depth: int) -> Iterator[Any]:
        if "const" in schema:
            yield schema["const"]
        yield from self.found.under(key) if key else self._whole(schema)
        options = schema.get("enum", [])
        yield from filter(self.found.mentions, options)
        yield from options
        yield from SOURCES.get(kind(schema), strings)(self, schema, key, depth)

    def _whole(self, schema: Schema) -> list[Any]:
        """JSON in the text that may be the whole answer."""
        names = set(schema.get("properties", {}))
        return [value for value in self.found.values if not isinstance(value, dict) or names.intersection(value)]


def objects(filling: Filling, schema: Schema, key: str, depth: int) -> Iterator[Any]:
    """Its required properties, and the others of which the text speaks."""
    properties: Schema = schema.get("properties", {}) if depth < 2 * MAX_DEPTH else {}
    required = schema.get("required", list(properties))
    yield {
        name: filling.value(part, name, depth + 1)
        for name, part in properties.items()
        if name in required or (depth < MAX_DEPTH and filling.is_evident(part, name))
    }


def arrays(filling: Filling, schema: Schema, key: str, depth: int) -> Iterator[Any]:
    """A list in the text, or as many items as are asked for."""
    items = filling.chosen(schema.get("items"))
    found = filling.found
    yield from (value for value in found.values if isinstance(value, list))
    stock: list[Any] = found.numbers if kind(items) in {"integer", "number"} else []
    if kind(items) == "string":
        stock = found.list or found.quotations or found.names
    if stock:
        yield stock[: schema.get("maxItems")]
    count = max(schema.get("minItems", 0), 1 if depth < MAX_DEPTH else 0)
    yield [filling.value(items, key, depth + 1) for _ in range(count)]


def numbers(filling: Filling, schema: Schema, key: str, depth: int) -> Iterator[Any]:
    found = filling.found
    yield from Found(found.said_of(key)).numbers
    if key.lower() in RESULTS:
        yield from found.results
    yield from taken(found.numbers, schema, filling.root)
    yield from limits(schema)
    yield 0


def limits(schema: Schema) -> Iterator[Any]:
    """Numbers that the limits of the schema suggest."""
    step = schema.get("multipleOf", 1)
    for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        if name in schema:
            nearest = -(-schema[name] // step) * step
            yield from (schema[name], nearest, nearest + step, nearest - step)
    if "exclusiveMinimum" in schema and "exclusiveMaximum" in schema:
        yield (schema["exclusiveMinimum"] + schema["exclusiveMaximum"]) / 2


def booleans(filling: Filling, schema: Schema, key: str, depth: int) -> Iterator[Any]:
    yield filling.found.said_of(key).lower() in YES


def strings(filling: Filling, schema: Schema, key: str, depth: int) -> Iterator[Any]:
    found = filling.found
    shape = schema.get("format")
    if shape in FORMATS:
        yield found.formatted(shape) or EXAMPLES[shape]
    if "pattern" in schema:
        yield matching(schema["pattern"], found.text)
    if key and found.said_of(key):
        yield found.said_of(key)
    yield from taken(found.quotations, schema, filling.root)
    yield from taken(found.names, schema, filling.root)
    yield found.text
    yield found.text[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")


def taken(stock: list[Any], schema: Schema, root: Schema) -> Iterator[Any]:
    """The first thing of the stock that fits; it is used up."""
    for thing in stock:
        if fits(schema, thing, root):
            stock.remove(thing)
            yield thing
            return


SOURCES: dict[str, Callable[[Filling, Schema, str, int], Iterator[Any]]] = {
    "object": objects,
    "array": arrays,
    "string": strings,
    "integer": numbers,
    "number": numbers,
    "boolean": booleans,
    "null": lambda filling, schema, key, depth: iter([None]),
}
