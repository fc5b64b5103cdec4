"""`/functions/validate`: is a function well described. `/functions/convert`: an OpenAPI text as functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from emulator import yaml
from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import invalid_json
from emulator.parameters import FUNCTION_NAME, shaped
from emulator.schema import Schema, resolved
from emulator.state import State

RULES_VERSION = "1.0.5"
METHODS = {"get", "post", "put", "patch", "delete"}
ROOT = "(root)"

# what must hold, where, and what is said if it does not
Rule = tuple[Callable[[dict[str, Any]], bool], str, str]

ERRORS: tuple[Rule, ...] = (
    (lambda function: bool(function.get("name")), ROOT, "name is required"),
    (lambda function: is_name(function.get("name")), f"{ROOT}.name", "name does not match the pattern"),
    (lambda function: isinstance(function.get("parameters"), dict), ROOT, "parameters is required"),
    (
        lambda function: is_object(function.get("parameters")),
        f"{ROOT}.parameters",
        "parameters must be of type object with properties",
    ),
)
WARNINGS: tuple[Rule, ...] = (
    (lambda function: bool(function.get("description")), ROOT, "description is missing"),
    (lambda function: bool(function.get("few_shot_examples")), ROOT, "few_shot_examples are missing"),
    (lambda function: bool(function.get("return_parameters")), ROOT, "return_parameters are missing"),
)


def is_name(name: Any) -> bool:
    return not name or (isinstance(name, str) and bool(FUNCTION_NAME.fullmatch(name)))


def is_object(parameters: Any) -> bool:
    if not isinstance(parameters, dict):
        return True
    return parameters.get("type") == "object" and isinstance(parameters.get("properties"), dict)


def validate(state: State, call: Call) -> Answer:
    function = shaped(call.json(), dict)
    errors, warnings = broken(ERRORS, function), broken(WARNINGS, function)
    status, message = (400, "Incorrect function syntax") if errors else (200, "Function is valid")
    verdict = {"status": status, "message": message, "json_ai_rules_version": RULES_VERSION}
    return json_answer(verdict | {"errors": errors, "warnings": warnings})


def broken(rules: tuple[Rule, ...], function: dict[str, Any]) -> list[dict[str, str]]:
    return [{"description": said, "schema_location": where} for holds, where, said in rules if not holds(function)]


def convert(state: State, call: Call) -> Answer:
    document = parsed(call.body)
    return json_answer({"functions": list(functions(document))})


def parsed(body: bytes) -> dict[str, Any]:
    """An OpenAPI text, JSON or YAML. Raises the API's 400 if it is neither."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            document = yaml.parsed(body.decode())
        except ValueError:
            raise invalid_json() from None
    shaped(shaped(document, dict).get("paths"), dict)
    return dict(document)


def functions(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One function for each operation."""
    for path, operations in document["paths"].items():
        for method, operation in shaped(operations, dict).items():
            if method in METHODS:
                yield function(document, f"{method} {path}", shaped(operation, dict))


def function(document: dict[str, Any], place: str, operation: dict[str, Any]) -> dict[str, Any]:
    name = operation.get("operationId") or re.sub(r"\W+", "_", place).strip("_")
    description = operation.get("description") or operation.get("summary") or ""
    return {"name": name, "description": description, "parameters": parameters(document, operation)}


def parameters(document: dict[str, Any], operation: dict[str, Any]) -> Schema:
    """The operation's parameters and the fields of its JSON body, as one object."""
    properties: Schema = {}
    required: list[str] = []
    for parameter in operation.get("parameters") or []:
        each = resolved(parameter, document)
        kind = resolved(each.get("schema"), document).get("type", "string")
        properties[each["name"]] = {"type": kind, "description": each.get("description", "")}
        required += [each["name"]] if each.get("required") else []
    body = body_schema(document, operation)
    properties |= body.get("properties", {})
    return {"type": "object", "properties": properties, "required": required + body.get("required", [])}


def body_schema(document: dict[str, Any], operation: dict[str, Any]) -> Schema:
    content = resolved(operation.get("requestBody"), document).get("content", {})
    return resolved(content.get("application/json", {}).get("schema"), document)
