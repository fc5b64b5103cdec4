"""The models of requests and answers as JSON schemas, and where a description refers to them."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from proxy.openapi import failures
from proxy.openapi.examples import Example
from proxy.openapi.headers import Described
from proxy.openapi.operations import JSON, OF_OPENAI, OPERATIONS, Body

REF: Final = "#/components/schemas/{model}"
GIGACHAT: Final = "gigachat"
#: The shapes of requests that another API than GigaChat judges by itself, or its connector.
OF_OTHERS: Final[Mapping[str, Described]] = {
    "Role": {"type": "string"},
    **{name: {"type": "object"} for name in ("Message", "GenerateParameters", "OpenAIChat", "EmbeddingsAsked")},
    "LanguageModelChat": {
        "type": "object",
        "properties": {"messages": {"type": "array"}, "stream": {"enum": [False, None]}},
        "required": ["messages"],
    },
}


def content_of(body: Body, example: Example | None = None) -> Described:
    media = body if isinstance(body, Mapping) else {JSON: body}
    shown = {} if example is None else {"example": example}
    return {kind: {"schema": schema_of(schema), **shown} for kind, schema in media.items()}


def schema_of(schema: Any) -> Any:
    """With references in place of models."""
    if isinstance(schema, type):
        return {"$ref": REF.format(model=schema.__name__)}
    if isinstance(schema, Mapping):
        return {name: schema_of(part) for name, part in schema.items()}
    return [schema_of(part) for part in schema] if isinstance(schema, list) else schema


def schemas(dialect: str) -> Described:
    """All that is asked for and told, by the names of the models, before an API that speaks so."""
    return {**of_models(), **({} if dialect == GIGACHAT else OF_OTHERS)}


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


@cache
def of_models() -> Mapping[str, Described]:
    """It takes most of the time of a description, and is always the same."""
    operations = [*OPERATIONS.values(), *OF_OPENAI.values()]
    bodies = [body for each in operations for body in (each.asked, *each.told.values())]
    models = dict.fromkeys([*failures.DIALECTS.values(), *(model for body in bodies for model in models_in(body))])
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=REF, schema_generator=Shapes)
    definitions: Described = made["$defs"]
    return {name: without_title(definitions[name]) for name in sorted(definitions)}


def without_title(schema: Described) -> Described:
    return {name: part for name, part in schema.items() if name != "title"}
