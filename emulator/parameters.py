"""Checks of single fields that both versions of chat share, in the API's own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from emulator.errors import ApiError, invalid_json, invalid_params
from emulator.schema import Schema

FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
NAME_RULE = (
    "Invalid function names. Only Latin letters (A-Z or a-z), underscore (_), hyphen (-), dot (.) "
    "and digits (not leading) are allowed."
)

# name, whether whole numbers only, what is allowed, and how the API writes that
RANGES: tuple[tuple[str, bool, Callable[[float], bool], str], ...] = (
    ("temperature", False, lambda value: value > 0, "(0, +inf)"),
    ("top_p", False, lambda value: 0 <= value <= 1, "[0, 1]"),
    ("max_tokens", True, lambda value: value > 0, "(0, +inf)"),
    ("repetition_penalty", False, lambda value: value > 0, "(0, +inf)"),
    ("update_interval", False, lambda value: value >= 0, "[0, +inf)"),
)


def shaped(value: Any, kind: type) -> Any:
    """The value, if it is of that JSON type. Raises the API's 400 otherwise."""
    if not isinstance(value, kind):
        raise invalid_json()
    return value


def optional(body: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    """A field that may be absent or null."""
    value = body.get(name)
    return default if value is None else shaped(value, kind)


def listed(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of objects that may be absent."""
    return [shaped(item, dict) for item in optional(body, name, list, [])]


def check_ranges(body: Mapping[str, Any]) -> None:
    for name, is_whole, is_allowed, written in RANGES:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
            raise invalid_json()
        if not is_allowed(value):
            raise invalid_params(f"{name} must be in range {written}")


def check_names(functions: list[dict[str, Any]]) -> None:
    names = [shaped(function.get("name"), str) for function in functions]
    wrong = [name for name in names if not FUNCTION_NAME.fullmatch(name)]
    if wrong:
        raise invalid_params(f"{NAME_RULE}: [{', '.join(wrong)}]")


def check_forced(name: str, known: set[str]) -> None:
    if name and name not in known:
        raise invalid_params(f"function {name} is not among the functions of the request")


def read_schema(form: Mapping[str, Any], kinds: tuple[str, ...]) -> Schema | None:
    """The schema of a `response_format`, or None if it asks for something else. `kinds` are allowed."""
    kind = form.get("type", "text")
    if kind not in kinds:
        raise ApiError(400, f'Unknown type "{kind}" in response_format')
    if kind != "json_schema":
        return None
    schema = form.get("schema")
    if not schema:
        raise ApiError(400, "Empty schema with json format type is not supported")
    return schema if isinstance(schema, dict) else parsed_schema(schema)


def parsed_schema(text: Any) -> Schema:
    """A schema that came as text."""
    try:
        return dict(shaped(orjson.loads(text), dict))
    except ValueError:
        raise invalid_json() from None


def function_result(text: Any) -> Any:
    """A function's result, which must be JSON in a text; the second version takes an object too."""
    try:
        return text if isinstance(text, dict | list) else orjson.loads(text)
    except ValueError:
        raise invalid_params("invalid function result: JSON parse error") from None
