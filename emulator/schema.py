"""JSON schemas, as much of them as chat uses: what a schema says, and whether a value fits it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": is_number,
    "integer": lambda value: is_number(value) and value == int(value),
}

# What a keyword asks of a value to which it applies.
KEYWORDS: dict[str, tuple[Callable[[Any], bool], Callable[[Any, Any], bool]]] = {
    "minimum": (is_number, lambda value, limit: value >= limit),
    "maximum": (is_number, lambda value, limit: value <= limit),
    "exclusiveMinimum": (is_number, lambda value, limit: value > limit),
    "exclusiveMaximum": (is_number, lambda value, limit: value < limit),
    "multipleOf": (is_number, lambda value, step: math.isclose(value % step, 0, abs_tol=1e-9)),
    "minLength": (TYPES["string"], lambda value, limit: len(value) >= limit),
    "maxLength": (TYPES["string"], lambda value, limit: len(value) <= limit),
    "pattern": (TYPES["string"], lambda value, pattern: has_pattern(pattern, value)),
    "minItems": (TYPES["array"], lambda value, limit: len(value) >= limit),
    "maxItems": (TYPES["array"], lambda value, limit: len(value) <= limit),
    "required": (TYPES["object"], lambda value, names: all(name in value for name in names)),
    "enum": (lambda value: True, lambda value, choices: value in choices),
    "const": (lambda value: True, lambda value, only: value == only),
}


def has_pattern(pattern: str, text: str) -> bool:
    """An expression that Python does not know, such as `\\p{L}`, matches everything."""
    try:
        return bool(re.search(pattern, text))
    except re.error:
        return True


def resolved(schema: Any, root: Schema) -> Schema:
    """The schema with its `$ref` followed and its `allOf` merged. `true` and nonsense allow everything."""
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        return resolved(target(str(schema["$ref"]), root), root) | rest
    merged = {name: value for name, value in schema.items() if name != "allOf"}
    for part in schema.get("allOf", []):
        merged = joined(merged, resolved(part, root))
    return merged


def target(reference: str, root: Schema) -> Any:
    """What a local reference such as `#/$defs/City` points to."""
    node: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) and step else node
    return node


def joined(one: Schema, other: Schema) -> Schema:
    """Both schemas at once."""
    both = one | other
    for name in ("properties", "required"):
        if name in one and name in other:
            both[name] = one[name] | other[name] if name == "properties" else [*one[name], *other[name]]
    return both


def choices(schema: Schema) -> list[Any]:
    """The alternatives of a schema, or none."""
    return list(schema.get("anyOf") or schema.get("oneOf") or [])


def kind(schema: Schema) -> str:
    """The type that the schema asks for; of several the first that is not null."""
    declared = schema.get("type")
    if isinstance(declared, list):
        declared = next((name for name in declared if name != "null"), "null")
    if declared:
        return str(declared)
    return "object" if "properties" in schema else "array" if "items" in schema else ""


def fits(schema: Any, value: Any, root: Schema) -> bool:
    """Does the value match the schema?"""
    schema = resolved(schema, root)
    alternatives = choices(schema)
    if alternatives and not any(fits(alternative, value, root) for alternative in alternatives):
        return False
    return has_type(schema, value) and keeps_keywords(schema, value) and parts_fit(schema, value, root)


def has_type(schema: Schema, value: Any) -> bool:
    declared = schema.get("type")
    names = declared if isinstance(declared, list) else [declared] if declared else []
    return not names or any(TYPES.get(name, bool)(value) for name in names)


def keeps_keywords(schema: Schema, value: Any) -> bool:
    return all(
        is_kept(value, schema[name])
        for name, (applies, is_kept) in KEYWORDS.items()
        if name in schema and applies(value)
    )


def parts_fit(schema: Schema, value: Any, root: Schema) -> bool:
    if isinstance(value, list):
        return all(fits(schema.get("items"), item, root) for item in value)
    if not isinstance(value, dict):
        return True
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    return all(fits(properties.get(name, others), part, root) for name, part in value.items()) and (
        others is not False or value.keys() <= properties.keys()
    )
