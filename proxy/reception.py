"""Who calls, whose limits hold for it, and its way into the line. For every operation of the edge the same.

What is wrong with a request is told before it is queued; what is refused never costs a place in line.
"""

import math
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from aiohttp import web

from proxy.callers import Callers, patience_of
from proxy.connector import Chunk, Connector
from proxy.entry import NOTE, InOrder, Note, Within
from proxy.errors import BadRequest
from proxy.lanes import Lane, Lanes
from proxy.line import Call, Enrolled, Parsed, Priority
from proxy.settings import Settings
from proxy.tracing import Tracing

#: Headers of the caller that reach the API, besides the request's id.
PASSED_ON = ("X-Session-ID", "X-Client-ID")
PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}
#: Seconds that a further call of a request has at least.
LEAST_PATIENCE = 0.001


class Reception:
    """Lets requests in. Their traces begin with it."""

    def __init__(self, settings: Settings, lanes: Lanes, callers: Callers, tracing: Tracing) -> None:
        self._settings = settings
        self._lanes = lanes
        self._callers = callers
        self._tracing = tracing

    def identify(self, request: web.Request, operation: str, upstream: str = "") -> None:
        """Note who calls, with what, and what for. Raises Unauthorized, PassedRefused, NotFound."""
        note = request[NOTE]
        note.operation = operation
        if note.within is not None:
            note.caller = note.within.caller
        else:
            self._identify(request, note, is_raw=operation == "forward")
        note.trace = self._tracing.begin(request, note)
        if upstream:
            self.turn_to(request, upstream)

    def _identify(self, request: web.Request, note: Note, *, is_raw: bool) -> None:
        note.caller, note.credential = self._callers.identify(request, is_raw=is_raw)
        self._lanes.check(note.credential)

    def turn_to(self, request: web.Request, upstream: str) -> None:
        """It asks for the lane of this name. Raises NotFound, or BadRequest if its credential is for another."""
        self._lanes.named(upstream)
        if request[NOTE].credential is not None:
            raise BadRequest(f"a credential of GigaChat's own is of no use for {upstream}", param="Authorization")
        request[NOTE].upstream = upstream

    def is_beside(self, request: web.Request, upstream: str) -> bool:
        """Whether there is a lane of this name besides the one that serves the request, and it may ask for it."""
        lane = self._lanes.others.get(upstream)
        return lane is not None and lane is not self._lanes.main and request[NOTE].credential is None

    def lane(self, request: web.Request) -> Lane:
        """Whose limits it keeps. Raises NotFound, PassedRefused, LanesFull, Stopping."""
        note = request[NOTE]
        note.lane = self._lanes.named(note.upstream) if note.upstream else self._lanes.of(note.credential)
        return note.lane

    async def body(self, request: web.Request) -> bytes:
        """What it asks. Raises BodyTooLarge."""
        note, body = request[NOTE], await request.read()
        note.asked = body if note.keeps_bodies else None
        return body

    def patience(self, request: web.Request) -> float:
        """Seconds that its answer may still take to begin. Raises BadRequest for a wrong X-Request-Timeout."""
        return max(LEAST_PATIENCE, self._whole_patience(request) - (time.monotonic() - request[NOTE].began))

    def _whole_patience(self, request: web.Request) -> float:
        is_within = request[NOTE].within is not None
        return math.inf if is_within else patience_of(request.headers, self._settings.resp_timeout)

    def embark(self, request: web.Request) -> None:
        """What can be said against it at once has been said; from here on it costs something.

        Raises InOrder if it is only rehearsed.
        """
        within = request[NOTE].within
        if within is not None and within.is_rehearsal:
            raise InOrder

    def enrol(self, request: web.Request, call: Call, *, client: str = "", parsed: Parsed | None = None) -> Enrolled:
        """In the line of its lane. A request may need several calls: its headers tell of the first.

        `client` takes turns with the caller's others; X-Client-ID if that is given. `parsed` is forgotten in line.
        """
        note, told = request[NOTE], request.headers
        within = note.within
        self.embark(request)
        # Most callers send none, and a thousand empty dicts are not nothing.
        passed_on = {name: told[name] for name in PASSED_ON if name in told} or None
        enrolled = self.lane(request).line.enrol(
            call if within is None else telling(call, within),
            id=note.id,
            patience=self.patience(request) if note.enrolled else self._whole_patience(request),
            caller=note.caller,
            client=told.get("X-Client-ID", client),
            priority=self.priority(told) if within is None else within.priority,
            passed_on=passed_on,
            parsed=parsed,
            model=note.model,
            trail=note.trace.trail(),
        )
        note.enrol(enrolled)
        return enrolled

    async def ask(self, request: web.Request, call: Call, *, client: str = "", parsed: Parsed | None = None) -> Chunk:
        """The whole answer to a call of this request. Raises ProxyError."""
        enrolled = self.enrol(request, call, client=client, parsed=parsed)
        return await self.lane(request).line.answer(enrolled)

    def run(
        self, request: web.Request, call: Call, *, client: str = "", parsed: Parsed | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """The same for a stream: its chunks."""
        enrolled = self.enrol(request, call, client=client, parsed=parsed)
        return self.lane(request).line.run(enrolled)

    def priority(self, told: Mapping[str, str]) -> Priority:
        """X-Priority. Raises BadRequest."""
        word = told.get("X-Priority", "normal").strip().lower()
        if word not in PRIORITIES:
            raise BadRequest(
                f'the header X-Priority must be high, normal or low, not "{word[:40]}"', param="X-Priority"
            )
        return self.allowed(PRIORITIES[word])

    def allowed(self, priority: Priority) -> Priority:
        """High needs a key, since without keys everybody would be high."""
        return Priority.NORMAL if priority is Priority.HIGH and not self._callers.keys else priority


def telling(call: Call, within: Within) -> Call:
    """The same call, of which is told when it is made."""

    def told(connector: Connector) -> Any:
        within.on_call()
        return call(connector)

    return told


def parsed(body: bytes) -> object:
    """The JSON of a body. Raises BadRequest saying where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}" if body else "the body is empty: send JSON") from None
