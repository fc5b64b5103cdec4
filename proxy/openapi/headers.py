"""Headers as a description tells them: those that requests may have, and those that answers have."""

from collections.abc import Mapping
from typing import Any, Final

Described = dict[str, Any]

TEXT: Final = {"type": "string"}
COUNT: Final = {"type": "integer", "minimum": 0}


def header(text: str, schema: Mapping[str, Any] = TEXT, **more: Any) -> Described:
    return {"description": text, "schema": dict(schema), **more}


#: Of answers, by their names.
ANSWERS: Final[Mapping[str, Described]] = {
    "X-Request-ID": header("The caller's own, else one of ours.", {"type": "string", "minLength": 1}, required=True),
    "X-Queue-Wait-Ms": header("Milliseconds of waiting for its turn, all attempts together.", COUNT),
    "X-Queue-Position": header("The place in line on arrival, from 1; 0: refused before it had one.", COUNT),
    "RateLimit": header('What is free: `"pace";r=12;t=1`, `t` in seconds.'),
    "RateLimit-Policy": header('What the lane allows: `"pace";q=60;w=60`.'),
    "X-Model-Mapped": header("`old -> new`, where a model's name was replaced."),
    "Retry-After": header("Seconds.", COUNT),
    "x-should-retry": header("Client libraries must not try again by themselves.", {"const": "false"}),
    "WWW-Authenticate": header("How a key is sent.", required=True),
    "Idempotency-Replayed": header("The answer was told before to the same key.", {"const": "true"}),
    "Location": header("Where the job is.", {"type": "string", "pattern": "^/jobs/"}, required=True),
    "Preference-Applied": header("The request became a job.", {"const": "respond-async"}),
    "Cache-Control": header("How long it may be kept."),
    "Content-Security-Policy": header("What the page may do."),
    "Referrer-Policy": header("What the page tells others."),
    "X-Content-Type-Options": header("The type is the one that is told."),
    "X-Accel-Buffering": header("Proxies in between must not hold events back."),
    "ETag": header("Of this version; send it as If-None-Match.", required=True),
    "Vary": header("On what else the answer depends."),
}
#: Those that every answer has.
ALWAYS: Final = ("X-Request-ID",)
#: Those of answers that came through the line.
IN_LINE: Final = ("X-Queue-Wait-Ms", "X-Queue-Position", "RateLimit", "RateLimit-Policy")
#: Those of pages, and of streams of events.
OF_PAGES: Final = ("ETag", "Cache-Control", "Content-Security-Policy", "Referrer-Policy", "X-Content-Type-Options")
OF_EVENTS: Final = ("Cache-Control", "X-Accel-Buffering")
#: Those of failures that may be the API's own: how it came through the line, and the pause that the API asks for.
OF_THEIRS: Final = (*IN_LINE, "Retry-After")
#: What failures have, by their status.
OF_FAILURES: Final[Mapping[int | str, tuple[str, ...]]] = {
    401: ("WWW-Authenticate", *IN_LINE),
    403: ("Vary", *OF_THEIRS),
    **dict.fromkeys((400, 404, 413, 429, 500, "4XX"), OF_THEIRS),
    **dict.fromkeys((502, 503, 504), (*OF_THEIRS, "x-should-retry")),
}


def answer_headers(status: int | str) -> Described:
    """Those of a failure."""
    return named(*OF_FAILURES.get(status, ()))


def raw_headers() -> Described:
    """Those of a failure that may be told by us or by the API, which has headers of its own."""
    told = named(*OF_THEIRS, "x-should-retry")
    return {**told, "WWW-Authenticate": {**ANSWERS["WWW-Authenticate"], "required": False}}


def named(*names: str) -> Described:
    """These and those that are always there, as references."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*ALWAYS, *names)}


# ---- Of requests ----


def parameter(name: str, where: str, text: str, schema: Mapping[str, Any] = TEXT, **more: Any) -> Described:
    return {"name": name, "in": where, "description": text, "schema": dict(schema), **more}


def query(name: str, text: str, schema: Mapping[str, Any] = TEXT) -> Described:
    return parameter(name, "query", text, schema)


REQUEST_ID: Final = parameter(
    "X-Request-ID", "header", "1 to 128 visible ASCII characters, not `.` or `..`; else it gets one of ours."
)
CLIENT: Final = parameter("X-Client-ID", "header", "Which of the caller's clients asks: they take turns.")
SESSION: Final = parameter("X-Session-ID", "header", "Passed to the API.")
HEARTBEAT: Final = parameter("X-Heartbeat", "header", "`102`: signs of life by 102 Processing, please.")
PRIORITY: Final = parameter(
    "X-Priority",
    "header",
    "Shares of 4, 2 and 1; high needs a key.",
    {"enum": ["high", "normal", "low"], "type": "string"},
)
TIMEOUT: Final = parameter(
    "X-Request-Timeout",
    "header",
    "Seconds that the answer may take to begin, RESP_TIMEOUT at most.",
    {"type": "number", "exclusiveMinimum": 0},
)
PREFER: Final = parameter(
    "Prefer",
    "header",
    "`respond-async`: it becomes a job, see the answer 202.",
    # Not as the parameter's own `example`: the page at /docs would send it.
    {**TEXT, "examples": ["respond-async"]},
)
KEY: Final = parameter(
    "Idempotency-Key",
    "header",
    "A request with the same key is the same request: it is done once.",
    {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
)
NOT_MODIFIED: Final = parameter("If-None-Match", "header", "An ETag: 304, if the answer is that one still.")
#: What requests of the line may say of themselves, and those that may become jobs.
TO_THE_LINE: Final = (CLIENT, SESSION, HEARTBEAT)
TO_BE_KEPT: Final = (PRIORITY, TIMEOUT, PREFER, KEY)
#: By their names.
PARAMETERS: Final = {each["name"]: each for each in (REQUEST_ID, *TO_THE_LINE, *TO_BE_KEPT, NOT_MODIFIED)}


def referred(each: Described) -> Described:
    """A reference, if it is among those."""
    name = each["name"]
    return {"$ref": f"#/components/parameters/{name}"} if PARAMETERS.get(name) is each else each
