"""Jobs as callers write them and read of them: bodies of `POST /jobs` in, jobs in JSON out. Pure."""

import re
from base64 import b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from proxy.dialects.native import json_type
from proxy.errors import BadRequest
from proxy.jobs import Answer, Job, State
from proxy.line import Priority

#: JSON as it is written.
Told = dict[str, Any]

#: Headers that a job may bring for its request, besides those that it has anyway; none of them is a credential.
HEADERS = frozenset(
    {"x-client-id", "x-session-id", "x-request-id", "x-service-id", "x-operation-id", "x-trace-id", "x-agent-id"}
    | {"user-agent", "accept", "accept-language"}
)
JSON = {"Content-Type": "application/json"}
PRIORITIES = {priority.name.lower(): priority for priority in Priority}
#: A header's value as the wire takes it: visible characters and spaces, so that no value becomes two headers.
VALUE = re.compile(r"[\x20-\x7e]{0,1000}")
#: A path as the wire takes it.
PATH = re.compile(r"/(?!/)[\x21-\x22\x24-\x7e]{0,1999}")
#: Entries of a page of a list.
PAGE, LONGEST_PAGE = 100, 1000
#: The longest wait that a caller may ask for, in seconds: a year.
LONGEST = 366 * 86_400.0


# ---- What is asked for ----


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A body of `POST /jobs`. `deadline` and `keep` are seconds from now, and from its end, on."""

    body: bytes
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    priority: Priority = Priority.NORMAL
    deadline: float | None = None
    keep: float | None = None
    webhook: object = None

    @classmethod
    def read(cls, body: object, *, longest_keep: float) -> "Wanted":
        """Raises BadRequest naming the field. What `body` and `webhook` say is not looked at."""
        if not isinstance(body, dict):
            raise BadRequest(f'a job is a JSON object {{"path": ..., "body": ...}}, not {json_type(body)}')
        fields: dict[str, Any] = {}
        for name, value in body.items():
            if name not in READ:
                raise BadRequest(f'unknown field "{name}": a job has {", ".join(READ)}', param=name)
            if value is not None:
                fields[name] = READ[name](name, value)
        if "body" not in fields:
            raise BadRequest('"body" is missing: the body of the request that is to be made', param="body")
        if fields.get("keep", 0.0) > longest_keep:
            raise BadRequest(f'"keep" is at most {longest_keep:.10g} seconds here (JOBS_KEEP)', param="keep")
        fields.pop("method", None)
        return cls(**fields)


def path_in(name: str, value: object) -> str:
    if not isinstance(value, str) or not PATH.fullmatch(value):
        raise BadRequest(f'"{name}" must be a path of this service such as "/v1/chat/completions"', param=name)
    return value


def method_in(name: str, value: object) -> str:
    if value != "POST":
        raise BadRequest(f'"{name}" must be "POST": nothing else can be a job', param=name)
    return "POST"


def body_in(name: str, value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise BadRequest(f'"{name}" is nested too deeply', param=name) from None


def headers_in(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadRequest(f'"{name}" must be an object of names and values, not {json_type(value)}', param=name)
    for header, text in value.items():
        path = f"{name}.{header}"
        if header.lower() not in HEADERS:
            known = ", ".join(sorted(HEADERS))
            raise BadRequest(f'"{path}" cannot be kept: the headers of a job are {known}', param=path)
        if not isinstance(text, str) or not VALUE.fullmatch(text):
            raise BadRequest(f'"{path}" must be a string of at most 1000 visible ASCII characters', param=path)
    return JSON | value


def priority_in(name: str, value: object) -> Priority:
    priority = PRIORITIES.get(value.lower()) if isinstance(value, str) else None
    if priority is None:
        raise BadRequest(f'"{name}" must be {", ".join(PRIORITIES)}', param=name)
    return priority


def seconds_in(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST:
        raise BadRequest(f'"{name}" must be a number of seconds above 0, {LONGEST:.0f} at most', param=name)
    return float(value)


def anything(name: str, value: object) -> object:
    return value


#: The fields of a body, and how each is read.
READ: Mapping[str, Callable[[str, object], object]] = {
    "path": path_in,
    "method": method_in,
    "body": body_in,
    "headers": headers_in,
    "priority": priority_in,
    "deadline": seconds_in,
    "keep": seconds_in,
    "webhook": anything,
}


class ListAsked(NamedTuple):
    """A page of the list of jobs."""

    states: Collection[State] = ()
    limit: int = PAGE
    after: str | None = None
    newest_first: bool = True

    @classmethod
    def read(cls, query: Mapping[str, str]) -> "ListAsked":
        """Raises BadRequest naming the parameter."""
        return cls(
            states_in(query.get("state", "")),
            limit_in(query.get("limit", str(PAGE))),
            query.get("after") or None,
            is_newest_first(query.get("order", "desc")),
        )


def states_in(words: str) -> Collection[State]:
    """Several may be named, separated by commas."""
    try:
        return [State(word.strip()) for word in words.split(",") if word.strip()]
    except ValueError:
        raise BadRequest(f'"state" must be among {", ".join(State)}', param="state") from None


def limit_in(word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", word) or not 1 <= int(word) <= LONGEST_PAGE:
        raise BadRequest(f'"limit" must be a whole number from 1 to {LONGEST_PAGE}', param="limit")
    return int(word)


def is_newest_first(word: str) -> bool:
    if word not in ("asc", "desc"):
        raise BadRequest('"order" must be desc (the newest first) or asc', param="order")
    return word == "desc"


# ---- What is told ----


class Place(NamedTuple):
    """Where a job waits, from 1, and in about how many seconds it begins; None: nobody knows."""

    position: int
    eta: float | None


def job_in_brief(job: Job) -> Told:
    """A job as lists tell it. Times are seconds since the epoch."""
    return {
        "id": job.id,
        "object": "job",
        "state": job.state,
        "method": job.method,
        "path": job.path,
        "priority": job.priority.name.lower(),
        "created": rounded(job.created),
        "started": rounded(job.started),
        "finished": rounded(job.finished),
        "deadline": rounded(job.deadline),
        "expires_at": rounded(job.expires_at),
        "attempts": job.attempts,
        "batch": job.batch,
        "custom_id": job.custom_id,
        "error": job.error or None,
    }


def job_told(job: Job, place: Place | None) -> Told:
    """All of it: with its place while it waits, and its answer when there is one."""
    return {
        **job_in_brief(job),
        "position": place.position if place else None,
        "eta": rounded(place.eta) if place else None,
        "answer": answer_told(job.answer) if job.answer and job.state.is_end else None,
    }


def answer_told(answer: Answer) -> Told:
    """An answer in JSON: JSON as it is, text as text, anything else in base64, with `encoding` then."""
    told: Told = {"status": answer.status, "content_type": answer.content_type}
    if "json" in answer.content_type and (fragment := json_in(answer.body)) is not None:
        return {**told, "body": fragment}
    try:
        return {**told, "body": answer.body.decode()}
    except UnicodeDecodeError:
        return {**told, "body": b64encode(answer.body).decode(), "encoding": "base64"}


def json_in(body: bytes) -> orjson.Fragment | None:
    """It as it came, number by number, but in one line, as an event wants it; None if it is no JSON."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    # Within strings they are escaped.
    return orjson.Fragment(body.replace(b"\r", b" ").replace(b"\n", b" "))


def list_told(jobs: Sequence[Told], after: str | None) -> Told:
    """`after` is where the next page begins, null at the end."""
    return {"object": "list", "data": jobs, "has_more": after is not None, "after": after}


def for_operator(job: Job, told: Told, *, is_own: bool) -> Told:
    """A job with its caller's name; of one that is not the operator's own, nothing that was asked or answered."""
    unsaid = {} if is_own else {"path": job.path.partition("?")[0], "answer": None}
    return {**{name: unsaid.get(name, value) for name, value in told.items()}, "caller": job.caller}


def rounded(seconds: float | None) -> float | None:
    """To milliseconds."""
    return None if seconds is None else round(seconds, 3)
