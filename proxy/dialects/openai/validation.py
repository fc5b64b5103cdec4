"""Does a value fit a schema? What does not is told in a sentence that a model can mend its answer by.

Rule 1: no expression of a caller's is run (`pattern`, `patternProperties`): some take hours on thirty characters.
Rule 2: it ends after MAX_STEPS, whatever the schema and the value are, and only one sentence is ever written.

That is why no library does it: those run expressions, fetch what a schema refers to, and write a sentence with the
value in it for each alternative that does not fit. The tests ask one for a second opinion.
"""

import json
from collections.abc import Callable, Iterable
from itertools import combinations
from math import isclose, isfinite
from typing import Any, Final, NamedTuple

from proxy.dialects.openai.schemas import Schema

#: Half a second on a slow machine; an answer of 100 kB takes a tenth of it.
MAX_STEPS: Final = 300_000
#: Characters of a fault, and of what was asked for in it.
MAX_FAULT: Final = 300
MAX_ASKED: Final = 150


def fault(value: Any, schema: Schema) -> str:
    """What is wrong with the value, and where; nothing if it fits. The schema is written out: see `schemas.py`."""
    try:
        found = Check().fault(value, schema, "$")
        return "" if found is None else f"{found.path}: {found.text}"[:MAX_FAULT]
    except TooLarge:
        return "it is too large to be checked"
    except RecursionError:
        return "it is nested too deeply to be checked"


class TooLarge(Exception):
    """The check takes more than MAX_STEPS."""


class Fault(NamedTuple):
    """What is wrong, and where."""

    path: str
    text: str


class Check:
    """One value against one schema."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def fault(self, value: Any, schema: Any, path: str) -> Fault | None:
        """The first fault; None if there is none."""
        self.spend(1)
        if isinstance(schema, bool):
            return None if schema else Fault(path, "must not be there")
        for name, asked in schema.items():
            found = self._leaf(name, asked, value, path) or self._inner(name, asked, value, schema, path)
            if found:
                return found
        return None

    def same(self, one: Any, other: Any) -> bool:
        """As JSON has it: 1 is 1.0, and is not true."""
        self.spend(1)
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self.same(part, other[name]) for name, part in one.items())
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self.same, one, other))
        return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)

    def spend(self, steps: int) -> None:
        """Raises TooLarge when there are none left."""
        self._left -= steps
        if self._left < 0:
            raise TooLarge

    def first(self, parts: Iterable[tuple[Any, Any, str]]) -> Fault | None:
        """The first fault of several values, each with its schema and path."""
        return next(filter(None, (self.fault(*part) for part in parts)), None)

    def _leaf(self, name: str, asked: Any, value: Any, path: str) -> Fault | None:
        if name not in LEAVES:
            return None
        kind, fits, text = LEAVES[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is NUMBER) or fits(value, asked):
            return None
        return Fault(path, text.format(shown(asked)))

    def _inner(self, name: str, asked: Any, value: Any, schema: Schema, path: str) -> Fault | None:
        kind, look = INNER.get(name, NOTHING)
        return look(self, value, asked, schema, path) if isinstance(value, kind) else None


def shown(asked: Any) -> str:
    return json.dumps(asked, ensure_ascii=False)[:MAX_ASKED]


# ---- What is said of a value itself ----

NUMBER: Final = (int, float)
TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, NUMBER) and not isinstance(value, bool),
    "integer": lambda value: TYPES["number"](value) and isfinite(value) and value == int(value),
}


def has_type(value: Any, asked: Any) -> bool:
    return any(TYPES[name](value) for name in (asked if isinstance(asked, list) else [asked]))


def is_multiple(value: Any, step: Any) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0  # of any size
    try:
        times = value / step
        return isclose(times, round(times), rel_tol=1e-9)
    except OverflowError:
        return False


#: Of what type a value is that it asks something of, what it asks, and how that is told.
LEAVES: Final[dict[str, tuple[Any, Callable[[Any, Any], bool], str]]] = {
    "type": (object, has_type, "must be of the type {}"),
    "minimum": (NUMBER, lambda value, limit: value >= limit, "must not be below {}"),
    "maximum": (NUMBER, lambda value, limit: value <= limit, "must not be above {}"),
    "exclusiveMinimum": (NUMBER, lambda value, limit: value > limit, "must be above {}"),
    "exclusiveMaximum": (NUMBER, lambda value, limit: value < limit, "must be below {}"),
    "multipleOf": (NUMBER, is_multiple, "must be a multiple of {}"),
    "minLength": (str, lambda value, limit: len(value) >= limit, "must have at least {} characters"),
    "maxLength": (str, lambda value, limit: len(value) <= limit, "must have at most {} characters"),
    "minItems": (list, lambda value, limit: len(value) >= limit, "must have at least {} items"),
    "maxItems": (list, lambda value, limit: len(value) <= limit, "must have at most {} items"),
    "minProperties": (dict, lambda value, limit: len(value) >= limit, "must have at least {} properties"),
    "maxProperties": (dict, lambda value, limit: len(value) <= limit, "must have at most {} properties"),
}


# ---- What is said of its parts, or in other schemas ----


def enum(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    is_one = any(check.same(value, option) for option in asked)
    return None if is_one else Fault(path, f"must be one of {shown(asked)}")


def const(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    return None if check.same(value, asked) else Fault(path, f"must be {shown(asked)}")


def required(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    check.spend(len(asked))
    lacking = [name for name in asked if name not in value]
    return Fault(path, f"lacks {shown(lacking)}") if lacking else None


def properties(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    check.spend(len(value))
    return check.first((part, asked[name], f"{path}.{name}") for name, part in value.items() if name in asked)


def other_properties(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    if "patternProperties" in schema:  # which of them are others only an expression could tell
        return None
    known = schema.get("properties", {})
    check.spend(len(value))
    return check.first((part, asked, f"{path}.{name}") for name, part in value.items() if name not in known)


def property_names(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    return check.first((name, asked, f"{path}.{name} (its name)") for name in value)


def dependent(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    check.spend(len(asked))
    return check.first((value, each, path) for name, each in asked.items() if name in value)


def items_in_a_row(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    row = zip(value, asked, strict=False)
    return check.first((part, each, f"{path}[{number}]") for number, (part, each) in enumerate(row))


def items(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    start = len(schema.get("prefixItems", ()))
    return check.first((part, asked, f"{path}[{number}]") for number, part in enumerate(value[start:], start))


def contains(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    has_one = any(check.fault(part, asked, path) is None for part in value)
    return None if has_one else Fault(path, "must have an item of another form")


def unique(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    if not asked:
        return None
    has_twins = any(check.same(one, other) for one, other in combinations(value, 2))
    return Fault(path, "must not repeat an item") if has_twins else None


def all_of(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    return check.first((value, each, path) for each in asked)


def any_of(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    found: list[Fault] = []
    for each in asked:
        fault = check.fault(value, each, path)
        if fault is None:
            return None
        found.append(fault)
    return deepest(found)


def one_of(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    found = [check.fault(value, each, path) for each in asked]
    if found.count(None) > 1:
        return Fault(path, "must fit one alternative, and fits several")
    return None if None in found else deepest([fault for fault in found if fault])


def deepest(found: list[Fault]) -> Fault:
    """The one that lies deepest inside: most likely it is of the alternative that was meant."""
    return max(found, key=lambda fault: len(fault.path))


def negated(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    return Fault(path, "must not be of this form") if check.fault(value, asked, path) is None else None


def conditional(check: Check, value: Any, asked: Any, schema: Schema, path: str) -> Fault | None:
    branch = "then" if check.fault(value, asked, path) is None else "else"
    return check.fault(value, schema.get(branch, True), path)


Look = Callable[[Check, Any, Any, Schema, str], Fault | None]
NOTHING: Final[tuple[type, Look]] = (object, lambda check, value, asked, schema, path: None)
#: Of what type a value is that has such parts, and who looks at them.
INNER: Final[dict[str, tuple[type, Look]]] = {
    "enum": (object, enum),
    "const": (object, const),
    "required": (dict, required),
    "properties": (dict, properties),
    "additionalProperties": (dict, other_properties),
    "propertyNames": (dict, property_names),
    "dependentSchemas": (dict, dependent),
    "prefixItems": (list, items_in_a_row),
    "items": (list, items),
    "contains": (list, contains),
    "uniqueItems": (list, unique),
    "allOf": (object, all_of),
    "anyOf": (object, any_of),
    "oneOf": (object, one_of),
    "not": (object, negated),
    "if": (object, conditional),
}
