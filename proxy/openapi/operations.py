"""What each route does, in words and shapes: a row here for each row of `proxy/routes.py`, under its method and path.

Whoever adds a route adds its row here:

    "GET /pets/{id}": Operation("One pet", JOBS, told={200: Pet}, fails=[404]),

`told` has the model of the body for each status, or media types and their schemas. What any request may be refused
with (400, 403, 500; 401 unless it is for anybody; 413 with a body) is not repeated; nor are the failures of whatever
goes through the line, with `in_line=True`. Parameters of the path are found by their names in PATH_PARAMETERS.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel

from proxy.audit import MOST as MOST_ENTRIES
from proxy.dialects import steering
from proxy.dialects.jobs import LONGEST_PAGE
from proxy.jobs import State
from proxy.openapi import asked, examples, told
from proxy.openapi.examples import Example
from proxy.openapi.failures import RAW, THEIRS, Status
from proxy.openapi.headers import (
    IN_LINE,
    KEY,
    NOT_MODIFIED,
    OF_EVENTS,
    OF_PAGES,
    REQUEST_ID,
    TO_BE_KEPT,
    TO_THE_LINE,
    Described,
    parameter,
    query,
)

#: A body: its model, or its media types, each with a model or a schema.
Body = type[BaseModel] | Mapping[str, type[BaseModel] | Mapping[str, Any]]

JSON: Final = "application/json"
ANY: Final[Mapping[str, Any]] = {}
TEXT: Final = {"type": "string"}
#: Without a type: some read it as one text, others event by event.
EVENT: Final = {"description": "Server-sent events."}
BYTES: Final = {"type": "string", "format": "binary"}
SWITCH: Final = {"type": "boolean"}


class Who(Enum):
    """Who may ask."""

    ANYBODY = "anybody"
    CALLER = "caller"
    #: A caller sees what is its own, the operator all.
    EITHER = "either"
    #: Whoever has a key, and this machine without one.
    READER = "reader"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Part:
    """Operations that stand together, and how their failures are told."""

    name: str
    text: str
    dialect: str = "native"


NATIVE: Final = Part("Native", "Chats, and the API's answers in an envelope.")
CHAT: Final = Part("LanguageModelChat", "Conversations that the answer is appended to.", "language-model-chat")
OPENAI: Final = Part(
    "OpenAI",
    "For OpenAI's clients. GigaChat's SDKs, known by their User-Agent, mean GigaChat's own paths by the same names.",
    "openai",
)
ELSEWHERE: Final = Part(
    "OpenAI, elsewhere", "The same at the root, and under whatever a base address has before /v1.", "openai"
)
TOKENS: Final = Part("Tokens", "Access tokens, for clients that ask for one before they call.", "gigachat")
GIGACHAT: Final = Part("GigaChat", "The API's own paths, passed through byte for byte.", RAW)
JOBS: Final = Part("Jobs", "Requests that nobody need wait for.")
STEERING: Final = Part("Steering", "The limits and the line: to see and to change.")
WATCHING: Final = Part("Watching", "How the service is.")
PAGES: Final = Part("Pages", "For people.")
PARTS: Final = (NATIVE, CHAT, OPENAI, GIGACHAT, TOKENS, JOBS, STEERING, WATCHING, PAGES, ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route does.

    Args:
        told: the bodies of answers that are no failures, by status; None: no body.
        example: a body that works as it is; what takes a body has one.
        fails: statuses of failures that others do not have.
        headers: that each of its answers may have, by the status.
        in_line: it goes through the line, to the API.
        is_kept: its requests may become jobs.
    """

    summary: str
    part: Part
    told: Mapping[Status, Body | None]
    text: str = ""
    asked: Body | None = None
    example: Example | None = None
    needs_body: bool = True
    who: Who = Who.CALLER
    fails: Collection[Status] = ()
    parameters: Sequence[Described] = ()
    headers: Mapping[Status, Sequence[str]] = field(default_factory=dict)
    in_line: bool = False
    is_kept: bool = False

    @property
    def headers_asked(self) -> list[Described]:
        """What its requests may say of themselves in headers, besides `parameters`."""
        return [REQUEST_ID, *(TO_THE_LINE if self.in_line else ()), *(TO_BE_KEPT if self.is_kept else ())]

    @property
    def failures(self) -> list[Status]:
        statuses: set[Status] = {400, 403, 500, *self.fails}
        if self.who is not Who.ANYBODY:
            statuses.add(401)
        if self.asked is not None:
            statuses.add(413)
        if self.in_line:
            statuses |= {404, 429, THEIRS, 502, 503, 504}
        if self.is_kept:
            statuses |= {409, 501, 507}
        return sorted(statuses - self.told.keys(), key=str)


def chat(summary: str, part: Part, asked: Body, example: Example, told: Body, **more: Any) -> Operation:
    """A call that goes through the line and may become a job."""
    headers: dict[Status, Sequence[str]] = {
        200: (*IN_LINE, *OF_EVENTS, "X-Model-Mapped", "Idempotency-Replayed"),
        202: ACCEPTED,
    }
    return Operation(
        summary,
        part,
        {200: told, 202: JOB},
        asked=asked,
        example=example,
        headers=headers,
        in_line=True,
        is_kept=True,
        **more,
    )


def streamed(model: type[BaseModel]) -> Body:
    """An answer, or its events."""
    return {JSON: model, "text/event-stream": EVENT}


def page(summary: str, body: Body, fails: Collection[Status] = ()) -> Operation:
    """A file for browsers, sent once to each."""
    return Operation(
        summary,
        PAGES,
        {200: body, 304: None},
        who=Who.ANYBODY,
        fails=fails,
        parameters=[NOT_MODIFIED],
        headers={200: OF_PAGES, 304: OF_PAGES},
    )


ACCEPTED: Final = ("Location", "Preference-Applied", "Idempotency-Replayed")
JOB: Final = told.Job
#: What the store of jobs, files and batches may refuse with.
STORE: Final = (501, 503, 507)
EVENTS: Final[Body] = {"text/event-stream": EVENT}
HTML: Final[Body] = {"text/html": TEXT}
FILE: Final[Body] = {"*/*": ANY}
STREAMS: Final = "`stream: true`: the answer comes in events."
LIMIT: Final = "Entries of the list."
#: The page at /docs begins with it: whoever only tries the page changes nothing.
PREVIEW: Final = parameter(
    "preview", "query", "`true`: tell what would come of it, change nothing.", SWITCH, example=True
)


def numbered(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


#: Those of OpenAI's clients, wherever they are.
OF_OPENAI: Final[Mapping[str, Operation]] = {
    "POST /chat/completions": chat(
        "A chat",
        OPENAI,
        asked.OpenAIChat,
        examples.CHAT,
        streamed(told.OpenAICompletion),
        text=STREAMS,
        fails=[415],
    ),
    "POST /embeddings": chat("Embeddings", OPENAI, asked.EmbeddingsAsked, examples.EMBEDDINGS, told.EmbeddingsTold),
    "GET /models": Operation("The models", OPENAI, {200: told.Models}, in_line=True),
    "GET /models/{id}": Operation("One model", OPENAI, {200: told.Model}, in_line=True),
    "GET /model/info": Operation(
        "The models, as LiteLLM tells them",
        OPENAI,
        {200: {JSON: {"anyOf": [told.ModelInfos, told.ModelInfo]}}},
        parameters=[query("model", "One alone.")],
        in_line=True,
    ),
    "POST /files": Operation(
        "Upload a file",
        OPENAI,
        {200: told.File},
        text='With the purpose "batch" it is kept here, else by the API.',
        asked={"multipart/form-data": asked.Upload},
        example=examples.UPLOAD,
        in_line=True,
        fails=[415, *STORE],
    ),
    "GET /files": Operation(
        "The files",
        OPENAI,
        {200: told.Files},
        parameters=[
            query("limit", LIMIT, numbered(1, 10_000)),
            query("after", "The id that the page before ended with."),
            query("order", "By age; else the newest first.", {"enum": ["asc", "desc"], "type": "string"}),
            query("purpose", "Of files for batches: batch, batch_output."),
        ],
        in_line=True,
    ),
    "GET /files/{id}": Operation("One file", OPENAI, {200: told.File}, in_line=True),
    "DELETE /files/{id}": Operation("Delete a file", OPENAI, {200: told.FileDeleted}, in_line=True, fails=[507]),
    "GET /files/{id}/content": Operation("The bytes of a file", OPENAI, {200: {"*/*": BYTES}}, in_line=True),
    "POST /batches": Operation(
        "Start a batch",
        OPENAI,
        {200: told.Batch},
        asked=asked.BatchAsked,
        example=examples.BATCH,
        parameters=[parameter("Idempotency-Key", "header", "It is made once.", KEY["schema"])],
        headers={200: ["Idempotency-Replayed"]},
        fails=[404, 409, *STORE],
    ),
    "GET /batches": Operation(
        "The batches",
        OPENAI,
        {200: told.Batches},
        parameters=[
            query("limit", LIMIT, numbered(1, 100)),
            query("after", "The id that the page before ended with."),
        ],
        fails=STORE,
    ),
    "GET /batches/{id}": Operation("One batch", OPENAI, {200: told.Batch}, fails=[404, *STORE]),
    "POST /batches/{id}/cancel": Operation("Cancel a batch", OPENAI, {200: told.Batch}, fails=[404, *STORE]),
}

#: A forwarded request: what comes back is the API's.
FORWARDED: Final = Operation(
    "The API's own path",
    GIGACHAT,
    {"default": {"*/*": ANY}},
    text=(
        "Passed on byte for byte, with its method, query and body; the status, the body and the headers of the answer "
        "are the API's own, with ours beside them. Failures of this service are told as the API tells its own."
    ),
    # What is not JSON comes second: the page at /docs sends the first type.
    asked={JSON: ANY, "*/*": ANY},
    example=examples.FORWARDED,
    needs_body=False,
    headers={202: ACCEPTED, "default": [*IN_LINE, "Retry-After", "Idempotency-Replayed"]},
    in_line=True,
    is_kept=True,
)
SDK: Final = parameter(
    "User-Agent",
    "header",
    "Only GigaChat's SDKs mean GigaChat by this path; for others it is 404.",
    {"type": "string", "pattern": "GigaChat-(python|java|js)-lib"},
)
#: How methods are called in a summary.
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
TOKEN: Final = Operation(
    "An access token",
    replace(TOKENS, dialect="token"),
    {200: told.Token},
    text=(
        "For a key of this service, sent as `Basic` or `Bearer`, or in a header of its own; for a credential of the "
        "API's, if callers may bring one, the API's own token. Without keys anybody gets one."
    ),
    asked={"application/x-www-form-urlencoded": asked.TokenAsked},
    example=examples.TOKEN,
    needs_body=False,
    who=Who.ANYBODY,
    fails=[401, 429, THEIRS, 502, 503, 504],
)
SHORT_TOKEN: Final = replace(TOKEN, part=TOKENS, told={200: told.ShortToken})

OPERATIONS: Final[Mapping[str, Operation]] = {
    "POST /": chat("A chat", NATIVE, asked.NativeChat, examples.NATIVE, streamed(told.NativeAnswer), text=STREAMS),
    "GET /": Operation(
        "What is here",
        NATIVE,
        {200: told.NativeInfo},
        text="What the connector tells of itself, the limits of the lane, and who waits.",
        fails=[429, 502, 503, 504],
    ),
    "POST /gigachat": chat("A conversation", CHAT, asked.LanguageModelChat, examples.CHAT, told.Conversation),
    "POST /chatgpt": chat(
        "A conversation with the API beside it",
        CHAT,
        {JSON: {"type": "object"}},
        examples.CHAT,
        told.Conversation,
        text="404, if no such API is configured.",
    ),
    "GET /health": Operation("The process is alive", WATCHING, {200: told.Health}, who=Who.ANYBODY),
    "GET /ready": Operation(
        "Whether new requests are served", WATCHING, {200: told.Ready, 503: told.Ready}, who=Who.ANYBODY
    ),
    "GET /metrics": Operation("Numbers for Prometheus", WATCHING, {200: {"text/plain": TEXT}}, who=Who.READER),
    "GET /limits": Operation("The limits, lane by lane", STEERING, {200: told.Lanes}, who=Who.EITHER),
    "PATCH /limits": Operation(
        "Change limits",
        STEERING,
        {200: told.Change},
        text="At once, for all replicas, and kept over a restart.",
        asked=asked.LimitsAsked,
        example=examples.LIMITS,
        who=Who.OPERATOR,
        parameters=[PREVIEW],
        fails=[404, 503],
    ),
    "GET /limits/audit": Operation(
        "Who changed which limit",
        STEERING,
        {200: told.AuditEntries},
        who=Who.OPERATOR,
        parameters=[query("limit", LIMIT, numbered(0, MOST_ENTRIES))],
        fails=[503],
    ),
    "GET /queue": Operation(
        "Who waits, and who is in flight",
        STEERING,
        {200: told.Queue},
        text="Callers see their own requests, the operator all.",
        who=Who.EITHER,
        parameters=[query("limit", LIMIT, numbered(0, steering.MOST_LISTED))],
    ),
    "GET /queue/{id}": Operation("One request", STEERING, {200: told.QueueEntry}, who=Who.EITHER, fails=[404]),
    "DELETE /queue/{id}": Operation(
        "Cancel a request",
        STEERING,
        {200: told.CancelledEntry},
        text="It leaves the line, or its call is ended; its caller gets a 503 with the code `cancelled`.",
        who=Who.EITHER,
        fails=[404],
    ),
    "POST /jobs": Operation(
        "A new job",
        JOBS,
        {202: JOB},
        text="What its request would be refused with, it is refused with now.",
        asked=asked.JobAsked,
        example=examples.JOB,
        parameters=[KEY],
        headers={202: ACCEPTED},
        fails=[404, 409, 415, 429, *STORE],
    ),
    "GET /jobs": Operation(
        "The jobs",
        JOBS,
        {200: told.Jobs},
        parameters=[
            query("state", f"Some of {', '.join(State)}, separated by commas."),
            query("limit", LIMIT, numbered(1, LONGEST_PAGE)),
            query("after", "Where the page before ended."),
            query("order", "The newest first, or the oldest.", {"enum": ["asc", "desc"], "type": "string"}),
        ],
        fails=STORE,
    ),
    "GET /jobs/{id}": Operation("One job", JOBS, {200: JOB}, fails=[404, *STORE]),
    "DELETE /jobs/{id}": Operation(
        "End a job",
        JOBS,
        {200: JOB, 204: None},
        text="200: it is cancelled. 204: it had ended, and is forgotten.",
        fails=[404, 409, *STORE],
    ),
    "GET /jobs/{id}/answer": Operation(
        "The answer of a job",
        JOBS,
        {202: JOB, "default": {"*/*": ANY}},
        text="With its own status and type. 202: there is none yet. 410: it ended without one.",
        headers={202: ["Retry-After"]},
        fails=[404, 410, *STORE],
    ),
    "GET /jobs/{id}/events": Operation(
        "A job as it goes on",
        JOBS,
        {200: EVENTS},
        text="An event `state` with the job at each change, to its end.",
        headers={200: OF_EVENTS},
        fails=[404, *STORE],
    ),
    "POST /jobs/{id}/retry": Operation(
        "Run a job again", JOBS, {202: JOB}, headers={202: ACCEPTED}, fails=[404, 409, *STORE]
    ),
    "POST /api/v2/oauth": TOKEN,
    "POST /api/v1/token": SHORT_TOKEN,
    "POST /v1/token": replace(SHORT_TOKEN, told={200: told.ShortToken, 404: told.OpenAIFailure}, parameters=[SDK]),
    "* /api/{version}/{path}": FORWARDED,
    "* /{version}/{path}": replace(FORWARDED, parameters=[SDK]),
    "GET /dashboard": page("The dashboard", HTML),
    "GET /dashboard/events": Operation(
        "What happens",
        PAGES,
        {200: EVENTS},
        text="One stream for the dashboard: `history` once, then `now` every second.",
        who=Who.OPERATOR,
        headers={200: OF_EVENTS},
    ),
    "GET /dashboard/{file}": page("The dashboard's files", FILE, fails=[404]),
    "GET /docs": page("This description, to read and to try", HTML),
    "GET /docs/{file}": page("The files of that page", FILE, fails=[404]),
    "GET /openapi.json": page("This description", {JSON: {"type": "object"}}),
}

#: By their names.
PATH_PARAMETERS: Final[Mapping[str, Described]] = {
    "id": parameter("id", "path", "Its id.", {"type": "string", "minLength": 1}, required=True),
    "prefix": parameter(
        "prefix",
        "path",
        "Whatever a base address has before /v1; it may have slashes. `api` means GigaChat's own paths.",
        {"type": "string", "pattern": "^(?!api$)."},
        required=True,
    ),
    "version": parameter("version", "path", "Of the API.", {"enum": ["v1", "v2"], "type": "string"}, required=True),
    "path": parameter("path", "path", "Below the API's version; it may have slashes.", required=True),
    "file": parameter("file", "path", "Its name; it may have slashes.", required=True),
}


def operation_for(method: str, path: str) -> Operation | None:
    """What this route does; None if nobody has said so."""
    if (found := OPERATIONS.get(f"{method} {path}")) is not None:
        return found
    found = OF_OPENAI.get(f"{method} {path.removeprefix('/{prefix}').removeprefix('/v1')}")
    return replace(found, part=ELSEWHERE) if found and not path.startswith("/v1/") else found
