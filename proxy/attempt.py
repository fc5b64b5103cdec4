"""Calls of the upstream: what surrounds one, those in flight, and what is told of each."""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from proxy.clock import Clock, Timer
from proxy.connector import Chunk, current_gate, noted, passed_on
from proxy.errors import UpstreamError, UpstreamTimeout
from proxy.estimate import Latencies
from proxy.forwarding import RawHead
from proxy.limits import Permit, Usage
from proxy.request import ProxyRequest, told

log = logging.getLogger("proxy.line")


class Attempted(NamedTuple):
    """A call that is over. Times are seconds from its send; None: it was not sent, or it was no stream with a chunk.

    `status` is the upstream's own, None if it gave none; `error` is then the `code` of a `proxy.errors` kind, "" if its
    caller left.
    """

    id: str
    status: int | None
    error: str
    took: float | None
    first_chunk: float | None


class Observer(Protocol):
    """Is told of every call of a line, of those that are tried again too; it must not block."""

    def sent(self, at: float) -> None:
        """Its bytes went out at this monotonic second, so it counts."""

    def attempted(self, attempt: Attempted) -> None:
        """It is over."""


class Flights:
    """The calls of a line.

    Args:
        call_timeout: seconds for a whole plain answer; for a stream, to its first chunk and between chunks. It may
            change: then for calls that begin later.
    """

    def __init__(self, clock: Clock, call_timeout: float, observers: Sequence[Observer] = ()) -> None:
        self.clock = clock
        self.call_timeout = call_timeout
        self.observers = observers
        self.latencies = Latencies()
        #: When each of those in flight was sent (monotonic seconds), or had its turn; the first one first.
        self.began: dict[ProxyRequest, float] = {}

    def __len__(self) -> int:
        return len(self.began)

    def ages(self) -> Iterator[float]:
        """Seconds since each call in flight was sent, the oldest first."""
        now = self.clock.now()
        return (now - began for began in self.began.values())

    def tell_sent(self, at: float) -> None:
        for observer in self.observers:
            try:
                observer.sent(at)
            except Exception:
                log.exception("an observer failed")

    def tell(self, attempted: Attempted) -> None:
        for observer in self.observers:
            try:
                observer.attempted(attempted)
            except Exception:
                log.exception("an observer failed")


class Attempt:
    """One call: what surrounds it, and its time-out, which runs only while the upstream is awaited."""

    __slots__ = (
        "_clock",
        "_ends",
        "_first",
        "_flights",
        "_is_whole",
        "_permit",
        "_request",
        "_status",
        "_timeout",
        "_timer",
    )

    def __init__(self, flights: Flights, request: ProxyRequest, permit: Permit) -> None:
        self._flights = flights
        self._clock = flights.clock
        self._request = request
        self._permit = permit
        self._timeout = flights.call_timeout
        self._ends = math.inf
        self._timer: Timer
        #: As its head says, if it has one; when its first chunk came, and whether that was all of it.
        self._status = 200
        self._first: float | None = None
        self._is_whole = False

    def __enter__(self) -> "Attempt":
        request, permit = self._request, self._permit
        request.attempts += 1
        continued = request.trail.attempt(request.attempts)
        self._flights.began[request] = self._clock.now()
        self._set_timer()
        notes: dict[str, str] = {}
        request.noted = notes
        current_gate.set(permit)
        passed_on.set({"X-Request-ID": request.id, **request.passed_on, **continued})
        noted.set(notes)
        permit.on_sent = self._sent
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        self._permit.on_sent = None
        current_gate.set(None)
        began = self._flights.began.pop(self._request)
        told = self._attempted(began, error)
        self._flights.tell(told)
        self._request.trail.attempted(told.status, told.error, told.took, told.first_chunk)

    def _sent(self) -> None:
        """From here on the call counts."""
        self._flights.began[self._request] = now = self._clock.now()
        self._flights.tell_sent(now)
        self.start()

    def start(self) -> None:
        """The upstream is awaited."""
        self._ends = self._clock.now() + self._timeout

    def rest(self, chunk: Chunk) -> None:
        """This chunk has come, and the caller is awaited."""
        self._ends = math.inf
        if self._first is None:
            self._begin(chunk)

    def _begin(self, chunk: Chunk) -> None:
        if isinstance(chunk, RawHead):
            self._status, self._is_whole = chunk.status, chunk.is_whole
        else:
            self._first = self._clock.now()

    def settle(self) -> None:
        """It has its whole answer."""
        self._permit.settle(self._request.usage or Usage())
        self._flights.latencies.add(self._clock.now() - self._flights.began[self._request])

    def _attempted(self, began: float, error: BaseException | None) -> Attempted:
        """What became of it."""
        is_sent, first = self._permit.is_sent, self._first
        took = self._clock.now() - began if is_sent else None
        status, code = (self._status, "") if error is None else ended(error)
        return Attempted(
            self._request.id, status, code, took, None if first is None or self._is_whole else first - began
        )

    @property
    def _limit(self) -> float:
        """When it is over if nothing comes: by its time-out, or by the deadline of its request."""
        return self._ends if self._request.has_begun else min(self._ends, self._request.deadline)

    def _set_timer(self) -> None:
        """To the first instant at which it may be over. It is not moved with each chunk, and looks when it rings."""
        soonest = self._clock.now() + self._timeout
        self._timer = self._clock.call_at(min(self._limit, soonest), self._look)

    def _look(self) -> None:
        if self._clock.now() < self._limit:
            self._set_timer()
        elif self._limit == self._ends:
            self._request.interrupt(UpstreamTimeout(self._timeout))
        else:
            self._request.expire()


def ended(error: BaseException) -> tuple[int | None, str]:
    """The upstream's status that a failure stands for, None if it gave none, and the code of the failure."""
    status, code = told(error)
    if isinstance(error, UpstreamError):
        return error.upstream_status, code
    return None, code if status is not None else ""
