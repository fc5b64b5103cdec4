"""What is known of an HTTP request: a note on its way, an entry for every listener of the edge when it is over."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from aiohttp import web

from proxy.belongings import NOTHING, Passage
from proxy.connector import Chunk
from proxy.errors import ProxyError
from proxy.lanes import Lane
from proxy.limits import Usage
from proxy.line import Enrolled, Priority
from proxy.passed import PassedCredential
from proxy.tracing import UNTRACED, Trace

#: What an id of a caller's own must look like to be echoed and passed on. Dots alone mean another path in an address.
REQUEST_ID = re.compile(r"(?!\.{1,2}\Z)[\x21-\x7e]{1,128}")


class Entry(NamedTuple):
    """Times are seconds, `at` is the Unix time of its arrival; what is not known is "" or None.

    `status` is the HTTP status that it deserves, also for a stream that broke after its 200; None if its caller left.
    `route` is the pattern that its path has, "" if there is nothing there.
    `error` is the `code` of its `proxy.errors` kind. `waited` counts the time in line, `took` all until the last byte.
    Of a request that takes several calls `waited` and `attempts` are the first one's, `usage` is all of theirs.
    `served` is the model that the API was asked for, where that is another name than `model`, the caller's own.
    `asked` and `answered` are the bodies, and are kept at LOG_LEVEL=DEBUG only.
    `is_double`: it came from within, and the entry of its caller's own request tells all of it, so it does not count.
    """

    id: str
    at: float
    method: str
    path: str
    route: str
    caller: str
    lane: str
    operation: str
    dialect: str
    model: str
    waited: float
    took: float
    attempts: int
    status: int | None
    error: str
    usage: Usage | None
    asked: bytes | None = None
    answered: bytes | None = None
    trace: Trace = UNTRACED
    is_double: bool = False
    served: str = ""


class Within(NamedTuple):
    """What is known beforehand of a request that comes from within: it has nobody who waits, so it may wait for ever.

    `on_call` is told whenever it leaves the line for a call. A rehearsal ends where it would cost something.
    """

    caller: str
    priority: Priority
    on_call: Callable[[], None]
    is_rehearsal: bool = False


class InOrder(Exception):
    """A rehearsal has come to where its request would cost something: nothing was wrong with it."""


@dataclass(slots=True)
class Note:
    """A request under way. `credential` is what its caller brought along, `upstream` the name of the lane it asks for.

    `keeps_bodies` says whether `asked` and `heard`, what it was answered, are collected.
    """

    id: str
    dialect: str
    keeps_bodies: bool = False
    at: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    caller: str = ""
    credential: PassedCredential | None = None
    upstream: str = ""
    operation: str = ""
    model: str = ""
    #: See `Entry`.
    served: str = ""
    lane: Lane | None = None
    enrolled: Enrolled | None = None
    status: int | None = None
    error: str = ""
    has_left: bool = False
    asked: bytes | None = None
    heard: list[bytes] | None = None
    passage: Passage = NOTHING
    within: Within | None = None
    failure: ProxyError | None = None
    trace: Trace = UNTRACED
    is_double: bool = False
    #: Its calls after the first, which is `enrolled`: of these only what they cost is told.
    further: Sequence[Enrolled] = ()

    @property
    def usage(self) -> Usage | None:
        """What all of its calls cost, None if nothing is known of it."""
        calls = () if self.enrolled is None else (self.enrolled, *self.further)
        told = [call.usage for call in calls if call.usage is not None]
        if not told:
            return None
        return Usage(sum(usage.prompt_tokens for usage in told), sum(usage.completion_tokens for usage in told))

    def enrol(self, call: Enrolled) -> None:
        """It takes this call, perhaps after others."""
        if self.enrolled is None:
            self.enrolled = call
        else:
            self.further = (*self.further, call)

    def failed(self, failure: ProxyError) -> None:
        self.status, self.error, self.failure = failure.status, failure.code, failure

    def answered(self, status: int, error: str) -> None:
        """Its caller gets the API's own answer, which may be a refusal: then with the code of that."""
        self.status, self.error = status, error

    def made(self, answer: Chunk) -> None:
        """The upstream gave this answer, or this chunk of it, which is told in other words."""
        if self.passage is not NOTHING:
            self.passage.hear(answer if isinstance(answer, bytes) else orjson.dumps(answer))

    def hear(self, data: bytes) -> None:
        self.passage.hear(data)
        if self.keeps_bodies:
            self.heard = [*(self.heard or ()), data]

    def entry(self, request: web.Request) -> Entry:
        enrolled = self.enrolled
        return Entry(
            id=self.id,
            at=self.at,
            method=request.method,
            path=request.path,
            route=route_of(request),
            caller=self.caller,
            lane=self.lane.name if self.lane else "",
            operation=self.operation,
            dialect=self.dialect,
            model=self.model,
            waited=enrolled.waited if enrolled else 0.0,
            took=time.monotonic() - self.began,
            attempts=enrolled.attempts if enrolled else 0,
            status=None if self.has_left else self.status,
            error=self.error,
            usage=self.usage,
            asked=self.asked,
            answered=b"".join(self.heard or ()) if self.keeps_bodies else None,
            trace=self.trace,
            is_double=self.is_double,
            served=self.served,
        )

    def take(self, within: "Note") -> None:
        """What this one asked for was done by a request from within: tell all of it."""
        self.operation, self.model, self.served = within.operation, within.model, within.served
        self.lane, self.enrolled, self.further = within.lane, within.enrolled, within.further


def route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return (resource.canonical.rstrip("/") or "/") if resource is not None else ""


NOTE = web.RequestKey("note", Note)
