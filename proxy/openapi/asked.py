"""What callers write: the bodies of requests, as the code that reads them checks them. Nothing is checked by these.

Rule 1: a body that a model refuses is refused by the service, and the other way round, as far as a shape can say it:
        the tests hold both together. What only the API can judge is left to it.
Rule 2: null means absent, where it is allowed.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from proxy.dialects.jobs import HEADERS, LONGEST, VALUE
from proxy.dialects.openai.batches import ENDPOINTS, LONGEST_LIFE, NOTE_NAME, NOTE_TEXT, NOTES, SHORTEST_LIFE
from proxy.dialects.openai.embeddings import MAX_TEXTS
from proxy.dialects.openai.shapes import MAX_CHOICES, MAX_STOPS
from proxy.limits import overrides

Anything = dict[str, Any]
#: Of a field that may be missing, and is not null.
MISSING: Any = None
Above0 = Annotated[float, Field(gt=0)]
Not0 = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Whole = Annotated[int, Field(gt=0)]
NotEmpty = Annotated[str, Field(min_length=1)]


class Shape(BaseModel):
    """Nothing is made of it at the start of the service but a description."""

    model_config = ConfigDict(defer_build=True)


class Open(Shape):
    """Other fields may be there: they are the API's to judge, or mean nothing here."""

    model_config = ConfigDict(extra="allow")


class Closed(Shape):
    """There are no other fields."""

    model_config = ConfigDict(extra="forbid")


def one_of(*needed: dict[str, Any]) -> ConfigDict:
    """At least one of these properties must be there, so."""
    return ConfigDict(json_schema_extra={"anyOf": [{"properties": each, "required": [*each]} for each in needed]})


# ---- Chats as GigaChat knows them ----

Role = TypeAliasType(
    "Role", Literal["system", "user", "assistant", "function", "search_result", "function_in_progress"]
)
#: As JSON knows pairs; pydantic's own word for them lacks a type.
Pair = Annotated[
    tuple[Role, str],
    Field(description="A role and a text.", examples=[["user", "Hello"]]),
]


class Message(Open):
    """What somebody said. It must say something: a text, a call, or files."""

    model_config = one_of(
        {"content": {"type": "string"}},
        {"function_call": {"type": "object", "minProperties": 1}},
        {"attachments": {"type": "array", "minItems": 1}},
    )

    role: Role
    content: str | None = None
    attachments: list[str] | None = Field(None, description="Ids of uploaded files.")
    function_call: Anything | None = None
    functions_state_id: str | None = None
    name: str | None = None


class GigaFunction(Open):
    name: str = Field(pattern=r"^[A-Za-z_.\-][A-Za-z0-9_.\-]*$")
    description: str | None = None
    parameters: Anything | None = None


class GenerateParameters(Open):
    """GigaChat's parameters; unknown ones pass as they are."""

    model: str | None = Field(None, pattern=r"\S", examples=["GigaChat-2"])
    temperature: Above0 | None = None
    top_p: Share | None = None
    max_tokens: Whole | None = None
    repetition_penalty: Above0 | None = None
    update_interval: Not0 | None = None
    n: Whole | None = None
    stream: bool | None = Field(None, description="The answer comes in events.")
    profanity_check: bool | None = None
    function_call: Literal["none", "auto"] | Anything | None = None
    functions: list[GigaFunction] | None = None
    response_format: Anything | None = None
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    storage: Anything | None = None
    function_ranker: Anything | None = None
    attachments: list[str] | None = None
    flags: list[Any] | None = None


Messages = Annotated[list[Pair | Message], Field(min_length=1)]


class NativeChat(Closed):
    messages: Messages
    generate_parameters: GenerateParameters | None = None


class LanguageModelChat(GenerateParameters):
    """A conversation that the answer is appended to; parameters stand beside it."""

    messages: Messages
    stream: Literal[False] | None = None  # there are no streams here


# ---- OpenAI's ----

OpenAIRole = Literal["developer", "system", "user", "assistant", "tool", "function"]
Part = Annotated[Anything, Field(examples=[{"type": "text", "text": "Hello"}])]


class FunctionCall(Open):
    name: NotEmpty
    arguments: str | Anything | None = None


class ToolCall(Open):
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall


class OpenAIMessage(Open):
    role: OpenAIRole
    content: str | list[Part] | None = Field(None, description="A text, or parts: texts, pictures, files, sounds.")
    name: str | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None


class Function(Open):
    name: NotEmpty
    description: str | None = None
    parameters: Anything | None = Field(None, description="A JSON schema.")
    few_shot_examples: list[Any] | None = None
    return_parameters: Anything | None = None


class Tool(Open):
    type: Literal["function"] | None = None
    function: Function


class FlatTool(Function):
    """As the Responses API has it."""

    type: Literal["function"] | None = None


class StreamOptions(Open):
    include_usage: bool | None = None


class JsonSchema(Open):
    name: str | None = None
    description: str | None = None
    # Not `schema`, which is a method of every model.
    schema_: Anything | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Open):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class OpenAIChat(Open):
    """Fields of OpenAI's that GigaChat has no word for are ignored; GigaChat's own pass as they are."""

    messages: Annotated[list[OpenAIMessage], Field(min_length=1)]
    model: str | None = Field(None, examples=["GigaChat-2"])
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(None, description="Only with a stream.")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    max_tokens: Whole | None = None
    max_completion_tokens: Whole | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: list[Tool | FlatTool] | None = None
    functions: list[Function] | None = None
    tool_choice: str | Anything | None = None
    function_call: str | Anything | None = None
    response_format: ResponseFormat | None = None
    profanity_check: bool | None = None
    repetition_penalty: Above0 | None = None
    update_interval: Not0 | None = None
    flags: list[Any] | None = None
    function_ranker: Anything | None = None
    storage: Anything | None = None
    extra_body: Anything | None = Field(None, description="Counts as if its fields stood beside it.")


class EmbeddingsAsked(Open):
    input: str | Annotated[list[NotEmpty], Field(min_length=1, max_length=MAX_TEXTS)] = Field(
        min_length=1, examples=["Hello"]
    )
    model: str | None = Field(None, examples=["EmbeddingsGigaR"])
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = Field(None, description="400, unless the operator has vectors truncated.")
    user: str | None = None


class Expiry(Open):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)


Note = Annotated[str, Field(max_length=NOTE_TEXT)]
NoteName = Annotated[str, Field(max_length=NOTE_NAME)]


class BatchAsked(Open):
    input_file_id: NotEmpty
    endpoint: Annotated[str, WithJsonSchema({"type": "string", "enum": [*ENDPOINTS]})]
    completion_window: str = Field(
        pattern=r"^([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h$", description="Hours, from 1h to 168h.", examples=["24h"]
    )
    metadata: Annotated[dict[NoteName, Note], Field(max_length=NOTES)] | None = None
    output_expires_after: Expiry | None = None


#: Fields of a form that come together.
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"


class Upload(Shape):
    """A form."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {ANCHOR: [SECONDS], SECONDS: [ANCHOR]}})

    purpose: str = Field(MISSING, description='"batch": it is kept here, for batches.', examples=["batch"])
    expires_after_anchor: Literal["created_at"] = Field(MISSING, alias="expires_after[anchor]")
    expires_after_seconds: int = Field(
        MISSING,
        alias="expires_after[seconds]",
        ge=SHORTEST_LIFE,
        le=LONGEST_LIFE,
        description="Of a file for batches.",
        examples=[LONGEST_LIFE],
    )
    file: Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]


# ---- Ours ----

KEPT_HEADERS = {
    "type": "object",
    "properties": {name: {"type": "string", "pattern": f"^{VALUE.pattern}$"} for name in sorted(HEADERS)},
    "additionalProperties": False,
}


#: The same as `proxy.dialects.jobs.PATH`, without looking ahead.
PATH = r"^/([\x21\x22\x24-\x2e\x30-\x7e][\x21\x22\x24-\x7e]{0,1998})?$"


class JobAsked(Closed):
    """A request that nobody need wait for."""

    path: str | None = Field(None, pattern=PATH, description='"/" is the native chat.', examples=["/"])
    method: Literal["POST"] | None = None
    body: Annotated[
        Any, WithJsonSchema({"not": {"type": "null"}, "description": "Of the request that is to be made."})
    ] = Field(examples=[{"messages": [["user", "Hello"]]}])
    headers: Annotated[Anything, WithJsonSchema(KEPT_HEADERS)] | None = None
    priority: Literal["high", "normal", "low", "batch"] | None = None
    deadline: Annotated[float, Field(gt=0, le=LONGEST)] | None = Field(
        None, description="Seconds in which it must have begun."
    )
    keep: Annotated[float, Field(gt=0, le=LONGEST)] | None = Field(
        None, description="Seconds for which its answer is kept, JOBS_KEEP at most."
    )
    webhook: str | None = Field(None, pattern="^https?://", description="An address that is told of its end.")


Pace = Literal[0] | Annotated[float, Field(ge=overrides.SLOWEST, le=overrides.MOST)]


class LimitsAsked(Closed):
    """Fields to be changed: null takes an override away, and 0 stands for "no limit"."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [field]} for field in overrides.FIELDS]})

    lane: str = "main"
    rpm: Pace | None = Field(None, description="Calls a minute.")
    concurrency: Annotated[int, Field(ge=0, le=overrides.MOST)] | None = Field(None, description="Calls in flight.")
    timeout: Annotated[float, Field(gt=0, le=overrides.LONGEST)] | None = Field(None, description="Seconds of a call.")
    queue_size: Annotated[int, Field(ge=1, le=overrides.MOST)] | None = Field(None, description="How many may wait.")
    paused: bool | None = Field(None, description="Nothing is sent.")


class TokenAsked(Shape):
    """A form, as GigaChat's own."""

    scope: str = Field(MISSING, examples=["GIGACHAT_API_PERS"])
