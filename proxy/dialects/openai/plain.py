"""A schema as plain as GigaChat's functions need it.

The API answers 422 to `anyOf`, `allOf`, a missing type, an array without items, an object without properties, and an
`enum` of anything but strings. Descriptions, nested `required`, string enums and bounds stay. Alternatives become one:
the first that is not null; of objects, or of string enums, all of them together.
"""

from typing import Any, Final

import orjson

from proxy.dialects.openai.schemas import Schema

#: What stays as it is.
KEPT: Final = (
    "description",
    "default",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
)
FORMATS: Final = ("date", "date-time", "time")
#: What tells a type that is not said.
HINTS: Final = (
    ("object", ("properties", "additionalProperties", "required")),
    ("array", ("items", "prefixItems", "minItems", "maxItems")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
)
#: Longest description of the values that an `enum` cannot hold.
MAX_VALUES: Final = 500


def parameters(schema: Schema) -> Schema:
    """The parameters of a function: an object, whatever was given."""
    told = plain(schema)
    return told if told["type"] == "object" else {"type": "object", "properties": {}}


def plain(schema: Any) -> Schema:
    """A written-out schema, made plain. One that allows anything becomes a string."""
    one = united(schema)
    kind = kind_of(one)
    told: Schema = {"type": kind} | {name: one[name] for name in KEPT if one.get(name) is not None}
    if one.get("format") in FORMATS:
        told["format"] = one["format"]
    if values := values_of(one):
        tell_values(told, values)
    if kind == "array":
        told["items"] = plain(items_of(one))
    if kind == "object":
        told |= properties_of(one)
    return told


def united(schema: Any) -> Schema:
    """The schema with its alternatives chosen and its parts put together."""
    if not isinstance(schema, dict):
        return {}
    told = {name: value for name, value in schema.items() if name not in ("allOf", "anyOf", "oneOf")}
    for part in schema.get("allOf", []):
        told = both(told, united(part))
    for name in ("anyOf", "oneOf"):
        if name in schema:
            told = both(told, either(schema[name]))
    return told


def both(one: Schema, other: Schema) -> Schema:
    """A schema that asks for both; where they disagree, the first one counts."""
    told = other | one
    if "properties" in one and "properties" in other:
        told["properties"] = other["properties"] | one["properties"]
    if "required" in one and "required" in other:
        told["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return told


def either(alternatives: list[Any]) -> Schema:
    """One schema for them all, as near as can be."""
    found = [each for each in map(united, alternatives) if not is_null(each)]
    if len(found) < 2:
        return found[0] if found else {"type": "null"}
    values = [value for each in found for value in values_of(each)]
    if all(map(values_of, found)):
        return {"enum": values}
    if all(kind_of(each) == "object" for each in found):
        return either_object(found)
    return found[0]


def either_object(found: list[Schema]) -> Schema:
    """An object with the properties of all; required is what all of them require."""
    properties: dict[str, list[Any]] = {}
    for each in found:
        for name, schema in each.get("properties", {}).items():
            properties.setdefault(name, []).append(schema)
    required = [name for name in properties if all(name in each.get("required", ()) for each in found)]
    told = {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in properties.items()}
    return {"type": "object", "properties": told, "required": required}


def is_null(schema: Schema) -> bool:
    return schema.get("type") in ("null", ["null"]) or values_of(schema) == [None]


def values_of(schema: Schema) -> list[Any]:
    """The values that are allowed, if they are listed."""
    return [schema["const"]] if "const" in schema else schema.get("enum", [])


def tell_values(told: Schema, values: list[Any]) -> None:
    """As an `enum` if they are strings, else in words."""
    values = [value for value in values if value is not None and not isinstance(value, list | dict)]
    if not values:
        return
    if told["type"] == "string" and all(isinstance(value, str) for value in values):
        told["enum"] = list(dict.fromkeys(values))
        return
    listed = ", ".join(orjson.dumps(value).decode() for value in values)[:MAX_VALUES]
    told["description"] = f"{told.get('description', '')} One of: {listed}.".strip()


def kind_of(schema: Schema) -> str:
    """Its type: of several the first that is not null; if none is said, what the other keywords tell."""
    said = schema.get("type")
    names = said if isinstance(said, list) else [said]
    name = next((name for name in names if name and name != "null"), None)
    if name:
        return str(name)
    for kind, hints in HINTS:
        if any(hint in schema for hint in hints):
            return kind
    return type_of(next((value for value in values_of(schema) if value is not None), ""))


def type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "string")


def items_of(schema: Schema) -> Any:
    if isinstance(schema.get("items"), dict):
        return schema["items"]
    return {"anyOf": schema["prefixItems"]} if "prefixItems" in schema else {}


def properties_of(schema: Schema) -> Schema:
    properties = {name: plain(part) for name, part in schema.get("properties", {}).items()}
    required = [name for name in schema.get("required", ()) if name in properties]
    return {"properties": properties} | ({"required": required} if required else {})
