"""The description of the service in OpenAPI 3.1, made of the very routes that serve.

    document(About("gigachat-proxy", "0.1.0", has_keys=True, has_operator=True), routes_of(table.routes(...)))

Rule 1: what is described is served, and what is served is described: a route that `operations.py` does not know is left
        out, and a test says so.
Rule 2: shapes are told by the models in `asked.py` and `told.py`, failures by the family in `proxy/errors.py`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from aiohttp import web

from proxy.openapi import failures
from proxy.openapi.headers import ANSWERS, IN_LINE, PARAMETERS, Described, named, referred
from proxy.openapi.operations import METHODS, PARTS, PATH_PARAMETERS, Body, Operation, operation_for
from proxy.openapi.security import security_of, security_schemes
from proxy.openapi.shapes import GIGACHAT, content_of, schemas

VERSION: Final = "3.1.0"
#: A variable part of a path, with what it may be.
VARIABLE: Final = re.compile(r"{(\w+)(?::[^}]*)?}")
TEXT: Final = """\
A waiting line with even pacing before an API that is limited and paid. A trailing slash makes no other path, and what
takes GET takes HEAD. A method that a path does not take is a 405 with `Allow`, a path that is not there a 404, in the
dialect of the path.

While a request waits, clients that skip them get `102 Processing` as a sign of life, streams a 200 with comments.
Where pages of other origins may call, answers have the `Access-Control-` headers that their browsers ask for.\
"""
#: What is said of an answer, by its status.
DESCRIPTIONS: Final[Mapping[int, str]] = {
    200: "Done.",
    202: "Accepted: it goes on.",
    204: "Done; there is nothing to tell.",
    304: "It is the one that you have.",
    404: "There is nothing at this path.",
    503: "Not now.",
}


class About(NamedTuple):
    """What the description tells of this very service."""

    name: str
    version: str
    has_keys: bool
    has_operator: bool
    #: What the API behind it speaks.
    dialect: str = GIGACHAT


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
            "schemas": schemas(about.dialect),
            "responses": failures.components(),
            "headers": dict(ANSWERS),
            "parameters": PARAMETERS,
            "securitySchemes": security_schemes(),
        },
    }


# ---- An operation ----


def described(about: About, path: str, method: str, operation: Operation) -> Described:
    variables = [PATH_PARAMETERS[name] for name in VARIABLE.findall(path)]
    more: Described = {"description": operation.text} if operation.text else {}
    if operation.asked is not None and method not in ("GET", "DELETE"):
        more["requestBody"] = {
            "required": operation.needs_body,
            "content": content_of(operation.asked, operation.example),
        }
    return {
        "operationId": operation_id(method, path),
        "summary": operation.summary,
        "tags": [operation.part.name],
        "parameters": [*variables, *map(referred, (*operation.parameters, *operation.headers_asked))],
        "responses": responses_of(operation),
        "security": security_of(operation.who, has_keys=about.has_keys, has_operator=about.has_operator),
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
