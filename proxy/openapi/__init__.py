"""The description of the service in OpenAPI 3.1, made of the very routes that serve.

    document(About("gigachat-proxy", "0.1.0", has_keys=True, has_operator=False), app.router.routes())

Rule 1: what is described is served, and what is served is described: a route that `operations.py` does not know is left
        out, and a test says so.
Rule 2: shapes are told by the models in `asked.py` and `told.py`, failures by the family in `proxy/errors.py`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from proxy.openapi import failures
from proxy.openapi.headers import ANSWERS, IN_LINE, Described, named
from proxy.openapi.operations import (
    JSON,
    METHODS,
    OF_OPENAI,
    OPERATIONS,
    PARTS,
    PATH_PARAMETERS,
    Body,
    Operation,
    Who,
    operation_for,
)

VERSION: Final = "3.1.0"
REF: Final = "#/components/schemas/{model}"
#: A variable part of a path, with what it may be.
VARIABLE: Final = re.compile(r"{(\w+)(?::[^}]*)?}")
#: How callers send a key of the service, and operators theirs.
KEYS: Final = ("key", "x-api-key", "api-key", "x-goog-api-key")
OPERATOR_KEYS: Final = ("operator", "operator-x-api-key")
TEXT: Final = """\
A waiting line with even pacing before an API that is limited and paid. A trailing slash makes no other path. A method that
a path does not take is a 405 with `Allow`, a path that is not there a 404, in the dialect of the path.

While a request waits, clients that skip them get `102 Processing` as a sign of life, streams a 200 with comments.\
"""


class About(NamedTuple):
    """What the description tells of this very service."""

    name: str
    version: str
    has_keys: bool
    has_operator: bool


class Route(NamedTuple):
    """A method, or "*" for any, and a path as OpenAPI writes it."""

    method: str
    path: str

    @classmethod
    def of(cls, route: web.RouteDef) -> "Route":
        return cls(route.method, VARIABLE.sub(r"{\1}", route.path).rstrip("/") or "/")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def routes_of(defined: Iterable[web.RouteDef]) -> list[Route]:
    """Each once, without those that only refuse the methods that a path does not take."""
    routes = list(dict.fromkeys(map(Route.of, defined)))
    with_methods = {route.path for route in routes if route.method != "*"}
    return [route for route in routes if route.method != "*" or route.path not in with_methods]


def document(about: About, routes: Iterable[Route]) -> Described:
    """The description of these routes."""
    paths: dict[str, Described] = {}
    for route in routes:
        operation = operation_for(*route)
        if operation is not None:
            for method in METHODS if route.method == "*" else (route.method,):
                paths.setdefault(route.path, {})[method.lower()] = described(about, route.path, method, operation)
    return {
        "openapi": VERSION,
        "info": {"title": about.name, "version": about.version, "description": TEXT},
        "servers": [{"url": "/"}],
        "tags": [{"name": part.name, "description": part.text} for part in PARTS],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": failures.components(),
            "headers": dict(ANSWERS),
            "securitySchemes": security_schemes(),
        },
    }


# ---- An operation ----


def described(about: About, path: str, method: str, operation: Operation) -> Described:
    variables = [PATH_PARAMETERS[name] for name in VARIABLE.findall(path)]
    more: Described = {"description": operation.text} if operation.text else {}
    if operation.asked is not None and method not in ("GET", "DELETE"):
        more["requestBody"] = {"required": operation.needs_body, "content": content_of(operation.asked)}
    return {
        "operationId": operation_id(method, path),
        "summary": operation.summary,
        "tags": [operation.part.name],
        "parameters": [*variables, *operation.parameters],
        "responses": responses_of(operation),
        "security": security_of(about, operation.who),
        **more,
    }


def operation_id(method: str, path: str) -> str:
    """Such as `get-v1-models-id`."""
    return "-".join([method.lower(), *re.findall(r"[\w.]+", path)])


def responses_of(operation: Operation) -> Described:
    answers = {str(status): response_of(operation, status, body) for status, body in operation.told.items()}
    dialect = operation.part.dialect
    refusals = {
        str(status): {"$ref": f"#/components/responses/{failures.name_of(dialect, status)}"}
        for status in operation.failures
    }
    return answers | refusals


def response_of(operation: Operation, status: int | str, body: Body | None) -> Described:
    usual = IN_LINE if operation.in_line else ()
    told: Described = {
        "description": "The API's own answer." if status == "default" else DESCRIPTIONS[int(status)],
        "headers": named(*dict.fromkeys([*usual, *operation.headers.get(status, ())])),
    }
    return told if body is None else {**told, "content": content_of(body)}


DESCRIPTIONS: Final[Mapping[int, str]] = {
    200: "Done.",
    202: "Accepted: it goes on.",
    204: "Done; there is nothing to tell.",
    304: "It is the one that you have.",
    404: "There is nothing at this path.",
    503: "Not now.",
}


def content_of(body: Body) -> Described:
    media = body if isinstance(body, Mapping) else {JSON: body}
    return {kind: {"schema": schema_of(schema)} for kind, schema in media.items()}


def schema_of(schema: Any) -> Any:
    """With references in place of models."""
    if isinstance(schema, type):
        return {"$ref": REF.format(model=schema.__name__)}
    if isinstance(schema, Mapping):
        return {name: schema_of(part) for name, part in schema.items()}
    return [schema_of(part) for part in schema] if isinstance(schema, list) else schema


# ---- Who may ask ----


def security_of(about: About, who: Who) -> list[dict[str, list[str]]]:
    """Ways to be let in; an empty one: without any key."""
    callers = KEYS if about.has_keys else ()
    operators = OPERATOR_KEYS if about.has_operator or about.has_keys else ()
    names = {
        Who.ANYBODY: (),
        Who.CALLER: callers,
        Who.EITHER: (*callers, *operators),
        Who.READER: (*callers, *operators),
        Who.OPERATOR: operators,
    }[who]
    is_free = who is Who.READER or (who is Who.EITHER and not about.has_keys)
    return [*([{}] if is_free and names else []), *({name: []} for name in names)]


def security_schemes() -> Described:
    def header(name: str, text: str) -> Described:
        return {"type": "apiKey", "in": "header", "name": name, "description": text}

    a_key, operators = "A key of PROXY_API_KEYS.", "The operator's key, ADMIN_API_KEY."
    return {
        "key": {"type": "http", "scheme": "bearer", "description": a_key},
        "x-api-key": header("X-API-Key", a_key),
        "api-key": header("api-key", a_key),
        "x-goog-api-key": header("x-goog-api-key", a_key),
        "operator": {"type": "http", "scheme": "bearer", "description": operators},
        "operator-x-api-key": header("X-API-Key", operators),
    }


# ---- Shapes ----


class Shapes(GenerateJsonSchema):
    """Models as shapes: no titles that only repeat names, and no null as a default, for it means absent."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        told = super().default_schema(schema)
        return {name: part for name, part in told.items() if (name, part) != ("default", None)}


def models_in(body: object) -> Iterator[type[BaseModel]]:
    if isinstance(body, type) and issubclass(body, BaseModel):
        yield body
    elif isinstance(body, Mapping):
        for part in body.values():
            yield from models_in(part)
    elif isinstance(body, list):
        for part in body:
            yield from models_in(part)


def schemas() -> Described:
    """All that is asked for and told, by the names of the models."""
    operations = [*OPERATIONS.values(), *OF_OPENAI.values()]
    bodies = [body for each in operations for body in (each.asked, *each.told.values())]
    models = dict.fromkeys([*failures.DIALECTS.values(), *(model for body in bodies for model in models_in(body))])
    _, made = models_json_schema(
        [(model, "validation") for model in models], ref_template=REF, schema_generator=Shapes
    )
    definitions: Described = made["$defs"]
    return {name: without_title(definitions[name]) for name in sorted(definitions)}


def without_title(schema: Described) -> Described:
    return {name: part for name, part in schema.items() if name != "title"}
