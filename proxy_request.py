"""The heart: a request's life, the line in which it waits, and the dispatcher that sends it on.

Rule 1: a request waits on one future, its turn; the dispatcher hands it a permit, and the request's own coroutine
        makes the call. So whoever leaves takes its request along, and nothing is done for nobody.
Rule 2: a permit is given back in the `finally` beside the place that received it.
Rule 3: another attempt is made only before the first byte of the answer, and goes to the front of the line.
Rule 4: choices are made without awaiting, from the state as it is at that moment.
"""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import MappingProxyType
from uuid import uuid4

from proxy.clock import Clock
from proxy.connector import Chunk, Connector, closing, current_gate, from_functions, importing, noted, passed_on
from proxy.errors import (
    DeadlineExpired,
    LineFull,
    ProxyError,
    Stopping,
    UpstreamError,
    UpstreamTimeout,
    WaitTooLong,
)
from proxy.estimate import Lanewide, Latencies, eta
from proxy.lanes import Account, Call, LaneState, Priority
from proxy.limits import LimitsState, Permit, Usage
from proxy.order import FairOrder
from proxy.promises import Promises

log = logging.getLogger("proxy.line")

#: While both kinds wait, so many live requests go for one batch request.
LIVE_RUN = 19
NOTHING: Mapping[str, str] = MappingProxyType({})
#: Seconds for which a snapshot of everybody's place serves.
PLACES_AGE = 1.0
#: Seconds before the second attempt, half of them random; doubles for each further one.
FIRST_BACKOFF = 0.5


def default_connector() -> Connector:
    """The connector that serves unless CONNECTOR names another: swap this one line to swap the API."""
    with importing():
        from gigachat_connector import validate_data, request_api, get_info  # noqa: I001 - the order people know

    return from_functions(validate_data, request_api, get_info)


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a request, told once to every listener. Times are seconds.

    `status` is the HTTP status that it deserves, None if its caller left.
    """

    id: str
    caller: str
    status: int | None
    waited: float
    took: float
    attempts: int
    error: str = ""
    usage: Usage | None = None


class ProxyRequest:
    """One request, from its arrival to the end of its answer.

    Args:
        call: makes an attempt.
        patience: seconds from its arrival until its answer must have begun.
        caller: who sent it; the requests of one caller and priority are one flow.
        client: a part of the caller, for fairness within the caller only.
        passed_on: headers of the caller that reach the upstream.
    """

    __slots__ = (
        "_interruption",
        "_scope",
        "_turn",
        "arrived",
        "attempts",
        "call",
        "caller",
        "client",
        "has_begun",
        "id",
        "noted",
        "passed_on",
        "patience",
        "position",
        "priority",
        "retries",
        "usage",
        "waited",
    )

    def __init__(
        self,
        call: Call,
        *,
        patience: float = 600.0,
        caller: str = "",
        client: str = "",
        priority: Priority = Priority.NORMAL,
        id: str = "",
        passed_on: Mapping[str, str] | None = None,
    ) -> None:
        self.id = id or str(uuid4())
        self.call = call
        self.passed_on = passed_on or NOTHING
        self.patience = patience
        self.caller = caller
        self.client = client
        self.priority = priority
        self.arrived = 0.0
        self.waited = 0.0
        self.position = 0
        self.attempts = 0
        self.retries = 0
        self.has_begun = False
        #: What its answer says that it cost.
        self.usage: Usage | None = None
        #: Headers that the connector adds to the answer.
        self.noted: Mapping[str, str] = NOTHING
        self._turn: asyncio.Future[Turn] | None = None
        self._scope: asyncio.Timeout | None = None
        self._interruption: ProxyError | None = None

    def __repr__(self) -> str:
        state = "waiting" if self.is_waiting else "in flight" if self._scope else "idle"
        return f"<ProxyRequest {self.id} of {self.caller!r} {self.priority.name} {state} attempts={self.attempts}>"

    @property
    def flow(self) -> tuple[str, Priority]:
        return self.caller, self.priority

    @property
    def weight(self) -> float:
        return self.priority.value

    @property
    def deadline(self) -> float:
        """Monotonic seconds."""
        return self.arrived + self.patience

    @property
    def is_waiting(self) -> bool:
        return self._turn is not None and not self._turn.done()

    async def turn(self) -> "Turn":
        """Wait for the dispatcher. Raises what `interrupt` was given."""
        self._stop_if_interrupted()
        turn: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._turn = turn
        try:
            return await turn
        except asyncio.CancelledError:
            # The dispatcher may have handed out a permit at the very moment when the caller left.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().permit.release()
            raise
        finally:
            self._turn = None

    def go(self, turn: "Turn") -> bool:
        """Hand it its turn. False if it does not wait any more."""
        if self._turn is None or self._turn.done():
            return False
        self._turn.set_result(turn)
        return True

    @asynccontextmanager
    async def interruptible(self, until: float | None) -> AsyncIterator[None]:
        """A time-out (loop time) that `interrupt` can end early. Raises TimeoutError, or the interruption."""
        self._stop_if_interrupted()
        try:
            async with asyncio.timeout_at(until) as self._scope:
                yield
        except TimeoutError:
            self._stop_if_interrupted()
            raise
        finally:
            self._scope = None

    def expire(self) -> None:
        """Its deadline has come."""
        self.interrupt(self.too_late())

    def too_late(self) -> DeadlineExpired:
        return DeadlineExpired(f"no answer within {self.patience:g} s (X-Request-Timeout, RESP_TIMEOUT)")

    def interrupt(self, error: ProxyError) -> None:
        """End it now with `error`, waiting or in flight; between the two, or between two chunks, at its next step."""
        self._interruption = error
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error)
        elif self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def extend(self, until: float) -> None:
        """Move the end of the time-out to this loop time, unless it is ending already."""
        if self._interruption is None and self._scope is not None and not self._scope.expired():
            self._scope.reschedule(until)

    def _stop_if_interrupted(self) -> None:
        if self._interruption is not None:
            raise self._interruption


@dataclass(frozen=True, slots=True)
class Turn:
    """It is a request's turn: with this permit it may call this account."""

    permit: Permit
    account: Account


class FairQueue(asyncio.Queue[ProxyRequest]):
    """The line: returned requests first, then live ones in weighted fair order, then batch."""

    def _init(self, maxsize: int) -> None:
        self._front: deque[ProxyRequest] = deque()
        self._live: FairOrder[ProxyRequest] = FairOrder()
        self._batch: FairOrder[ProxyRequest] = FairOrder()
        self._live_in_a_row = 0
        self._somebody = asyncio.Event()

    def qsize(self) -> int:
        return len(self._front) + len(self._live) + len(self._batch)

    def empty(self) -> bool:
        return not self.qsize()

    async def somebody(self) -> None:
        """Wait until somebody waits."""
        await self._somebody.wait()

    def _put(self, request: ProxyRequest) -> None:
        request.position = self._place(request, self._order_of(request).add(request))
        self._somebody.set()

    def put_ahead(self, request: ProxyRequest) -> None:
        """Let it in whatever the bound, before the others of its own flow: its turn in line has come already."""
        request.position = self._place(request, self._order_of(request).add(request, ahead=True))
        self._somebody.set()

    def put_back(self, request: ProxyRequest) -> None:
        """To the front: it has waited already."""
        if request.is_waiting:
            self._front.append(request)
            self._somebody.set()

    def _get(self) -> ProxyRequest:
        if self._front:
            request = self._front.popleft()
        elif self._batch and (not self._live or self._live_in_a_row == LIVE_RUN):
            request = self._batch.take()
            self._live_in_a_row = 0
        else:
            request = self._live.take()
            self._live_in_a_row = min(self._live_in_a_row + 1, LIVE_RUN)
        self._note_empty()
        return request

    def remove(self, request: ProxyRequest) -> None:
        """Take it out, wherever it waits. Is idempotent."""
        if not self._order_of(request).remove(request) and request in self._front:
            self._front.remove(request)
        self._note_empty()

    def snapshot(self) -> Iterator[ProxyRequest]:
        """The order in which they will go if nobody comes or leaves."""
        yield from self._front
        batch = iter(self._batch)
        for run, request in enumerate(self._live, self._live_in_a_row):
            if run and run % LIVE_RUN == 0:
                yield from islice(batch, 1)
            yield request
        yield from batch

    def _order_of(self, request: ProxyRequest) -> FairOrder[ProxyRequest]:
        return self._batch if request.priority is Priority.BATCH else self._live

    def _place(self, request: ProxyRequest, ahead: int) -> int:
        """Its position, from 1, when `ahead` of its own kind, live or batch, go before it."""
        if request.priority is Priority.BATCH:
            others = min(len(self._live), (ahead + 1) * LIVE_RUN - self._live_in_a_row)
        else:
            others = min(len(self._batch), (ahead + self._live_in_a_row) // LIVE_RUN)
        return len(self._front) + ahead + others + 1

    def _note_empty(self) -> None:
        if self.empty():
            self._somebody.clear()


class Presence:
    """Counts a request among those present while the block runs. A class, since thousands wait inside of it."""

    __slots__ = ("_line", "_request")

    def __init__(self, line: "ProxyQueue", request: ProxyRequest) -> None:
        self._line = line
        self._request = request

    def __enter__(self) -> None:
        self._line._enter(self._request)

    def __exit__(self, kind: object, end: BaseException | None, trace: object) -> None:
        self._line._leave(self._request, end)


def told(end: BaseException | None) -> tuple[int | None, str]:
    """The status and the error code of a request's end."""
    if end is None:
        return 200, ""
    if isinstance(end, ProxyError):
        return end.status, end.code
    return (ProxyError.status, ProxyError.code) if isinstance(end, Exception) else (None, "")  # it left


class ProxyQueue:
    """One lane's line, its dispatchers (one an account), and the life of every request in it.

    Args:
        size: how many may wait; more are refused.
        call_timeout: seconds for a whole plain answer; for a stream, to its first chunk and between chunks.
        retries: further attempts after 5xx and broken connections; a 429 uses up none.
        listeners: told the story of each request; they must not block.
    """

    def __init__(
        self,
        accounts: Sequence[Account],
        *,
        size: int = 10_000,
        call_timeout: float = 60.0,
        retries: int = 3,
        clock: Clock | None = None,
        listeners: Sequence[Callable[[Story], None]] = (),
    ) -> None:
        self._accounts = accounts
        self._call_timeout = call_timeout
        self._retries = retries
        self._clock = clock or Clock()
        self._listeners = listeners
        self._line = FairQueue(size)
        self._promises = Promises()
        self._latencies = Latencies()
        self._in_flight: dict[ProxyRequest, float] = {}
        self._present: set[ProxyRequest] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._stops_at: float | None = None
        self._places: dict[ProxyRequest, int] = {}
        self._places_at = -math.inf
        self._dispatchers: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyQueue waiting={self._line.qsize()} in_flight={len(self._in_flight)} {self._accounts}>"

    # -- start and stop

    def start(self) -> None:
        self._dispatchers = [asyncio.create_task(self._dispatch(account)) for account in self._accounts]

    async def drain(self, timeout: float) -> None:
        """Refuse new work, go on dispatching for `timeout` seconds, then answer the rest with `Stopping`."""
        self._stops_at = self._clock.now() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._nobody.wait()
        except TimeoutError:
            if self._present:
                log.warning("drain: time is up, %d requests are answered 503", len(self._present))
            self.interrupt_all()

    def interrupt_all(self) -> None:
        """Answer everybody present with `Stopping`, at once."""
        self._stops_at = self._stops_at or self._clock.now()
        for request in list(self._present):
            request.interrupt(Stopping(retry_after=1))

    async def close(self) -> None:
        self.interrupt_all()
        for dispatcher in self._dispatchers:
            dispatcher.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)

    # -- what others may see

    def eta(self, ahead: int) -> float:
        """Seconds until a request with `ahead` others before it is sent."""
        return self._eta(ahead, [account.limits.state() for account in self._accounts])

    def _eta(self, ahead: int, states: Sequence[LimitsState]) -> float:
        now = self._clock.now()
        ages = (now - began for began in self._in_flight.values())
        return eta(ahead, states, self._latencies.mean, ages)

    def state(self) -> LaneState:
        states = [account.limits.state() for account in self._accounts]
        waiting = self._line.qsize()
        return LaneState(
            Lanewide.of(states),
            waiting,
            self._line.maxsize,
            self._eta(waiting, states),
            self._latencies.mean,
            self._stops_at is not None,
        )

    def place(self, request: ProxyRequest) -> int:
        """Its position now, from 1, at most a second old; 0 if it does not wait."""
        now = self._clock.now()
        if now - self._places_at > PLACES_AGE:
            self._places_at = now
            self._places = {other: place for place, other in enumerate(self._line.snapshot(), 1)}
        return self._places.get(request, request.position) if request.is_waiting else 0

    # -- the dispatcher

    async def _dispatch(self, account: Account) -> None:
        while True:
            try:
                await self._line.somebody()
                permit = await account.limits.acquire()
                if not self._hand_out(Turn(permit, account)):
                    permit.release()
            except Exception:
                # Whatever a limiter may do, the line must not stand still for ever.
                log.exception("the dispatcher failed and goes on")
                await self._clock.until(self._clock.now() + 1)

    def _hand_out(self, turn: Turn) -> bool:
        """To the best waiting request as of now. False if the line emptied meanwhile."""
        while not self._line.empty():
            if self._line.get_nowait().go(turn):
                return True
        return False

    # -- a request's life

    def enrol(
        self,
        call: Call,
        *,
        id: str = "",
        patience: float = 600.0,
        caller: str = "",
        client: str = "",
        priority: Priority = Priority.NORMAL,
        passed_on: Mapping[str, str] | None = None,
    ) -> ProxyRequest:
        return ProxyRequest(
            call, patience=patience, caller=caller, client=client, priority=priority, id=id, passed_on=passed_on
        )

    async def run(self, request: ProxyRequest) -> AsyncGenerator[Chunk, None]:
        """Wait in line, call, retry; yield the answer's chunks. Close it (`aclosing`) to leave early.

        Raises ProxyError: LineFull, WaitTooLong and Stopping at once, the others later.
        """
        with Presence(self, request):
            self._admit(request)
            while True:
                turn = await self._wait(request)
                try:
                    async with aclosing(self._attempt(request, turn)) as chunks:
                        async for chunk in chunks:
                            request.has_begun = True
                            yield chunk
                    return
                except UpstreamError as error:
                    delay = self._retry_delay(request, turn.permit, error)
                    if delay is None:
                        raise
                finally:
                    turn.permit.release()
                self._clock.call_at(self._clock.now() + delay, partial(self._line.put_back, request))

    def _enter(self, request: ProxyRequest) -> None:
        request.arrived = self._clock.now()
        self._present.add(request)
        self._nobody.clear()

    def _leave(self, request: ProxyRequest, end: BaseException | None) -> None:
        """Tell its story, however it ended."""
        self._present.discard(request)
        if not self._present:
            self._nobody.set()
        status, error = told(end)
        took = self._clock.now() - request.arrived
        story = Story(request.id, request.caller, status, request.waited, took, request.attempts, error, request.usage)
        for listener in self._listeners:
            try:
                listener(story)
            except Exception:
                log.exception("a listener failed")

    def _admit(self, request: ProxyRequest) -> None:
        now = self._clock.now()
        if self._stops_at is not None:
            raise Stopping(retry_after=max(1.0, self._stops_at - now))
        whose = f"{request.caller}\n{request.client}"
        if self._promises.redeem(whose, now):
            self._line.put_ahead(request)
            return
        if self._line.full():
            wait = self.eta(len(self._promises))
            raise LineFull(
                f"the waiting line is full ({self._line.maxsize} requests, EXT_QUEUE_SIZE)",
                retry_after=self._promises.give(whose, now, wait),
            )
        self._line.put_nowait(request)
        wait = self.eta(request.position - 1)
        if wait > request.patience:
            self._line.remove(request)
            raise WaitTooLong(
                f"the wait would be about {wait:.0f} s (place {request.position} in line), longer than the "
                f"{request.patience:g} s that this request may wait (X-Request-Timeout, RESP_TIMEOUT)",
                retry_after=self._promises.give(whose, now, wait),
            )

    async def _wait(self, request: ProxyRequest) -> Turn:
        """Until its turn or its deadline."""
        since = self._clock.now()
        expiry = self._clock.call_at(request.deadline, request.expire)
        try:
            return await request.turn()
        except BaseException:
            self._line.remove(request)
            raise
        finally:
            expiry.cancel()
            request.waited += self._clock.now() - since

    async def _attempt(self, request: ProxyRequest, turn: Turn) -> AsyncGenerator[Chunk, None]:
        """One call of the upstream. What it costs is settled when its answer is whole."""
        request.attempts += 1
        self._in_flight[request] = self._clock.now()
        current_gate.set(turn.permit)
        passed_on.set(request.passed_on)
        notes: dict[str, str] = {}
        request.noted = notes
        noted.set(notes)
        try:
            async with closing(request.call(turn.account.connector)) as chunks:
                while (chunk := await self._next(request, turn.permit, chunks)) is not None:
                    request.usage = Usage.told_by(chunk) or request.usage
                    yield chunk
            turn.permit.settle(request.usage or Usage())
            self._latencies.add(self._clock.now() - self._in_flight[request])
        finally:
            current_gate.set(None)
            del self._in_flight[request]

    async def _next(self, request: ProxyRequest, permit: Permit, chunks: AsyncIterator[Chunk]) -> Chunk | None:
        """The next chunk, None after the last. The call's time-out runs from its send, or from the chunk before."""
        loop = asyncio.get_running_loop()
        left = self._call_timeout if request.has_begun else request.deadline - self._clock.now()
        deadline = loop.time() + left
        try:
            async with request.interruptible(deadline):
                if not request.has_begun:
                    permit.on_sent = partial(self._note_sent, request, deadline)
                return await anext(chunks, None)
        except TimeoutError:
            if request.has_begun or loop.time() < deadline:
                raise UpstreamTimeout(self._call_timeout) from None
            raise request.too_late() from None
        finally:
            permit.on_sent = None

    def _note_sent(self, request: ProxyRequest, deadline: float) -> None:
        """From here on it counts, and its time-out runs. `deadline` is the request's own, in loop time."""
        self._in_flight[request] = self._clock.now()
        request.extend(min(deadline, asyncio.get_running_loop().time() + self._call_timeout))

    def _retry_delay(self, request: ProxyRequest, permit: Permit, error: UpstreamError) -> float | None:
        """Seconds after which it stands in line again, at the front; None if it has failed for good."""
        if request.has_begun:
            return None
        if error.is_throttled:
            permit.throttled(error.retry_after)
            return 0.0
        if not error.is_retryable or request.retries >= self._retries:
            return None
        backoff = FIRST_BACKOFF * 2.0**request.retries * (0.5 + 0.5 * random.random())
        delay = max(backoff, error.retry_after or 0.0)
        if self._clock.now() + delay >= request.deadline:
            return None
        request.retries += 1
        log.info("request %s: attempt %d failed (%s), again in %.1f s", request.id, request.attempts, error, delay)
        return delay
