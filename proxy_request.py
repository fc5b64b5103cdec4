"""The heart: a request's life, the line in which it waits, and the dispatcher that sends it on.

Rule 1: a request waits on one future, its turn; the dispatcher hands it a permit, and the request's own coroutine
        makes the call. So whoever leaves takes its request along, and nothing is done for nobody.
Rule 2: a permit is given back in the `finally` beside the place that received it.
Rule 3: another attempt is made only before the first byte of the answer, and goes to the front of the line.
Rule 4: choices are made without awaiting, from the state as it is at that moment.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from proxy.attempt import Attempt, Flights, Observer
from proxy.clock import Clock
from proxy.connector import Chunk, Connector, closing, from_functions, importing
from proxy.errors import DeadlineExpired, LineFull, ProxyError, Stopping, UpstreamError, WaitTooLong
from proxy.estimate import Lanewide, eta
from proxy.fair_queue import FairQueue
from proxy.forwarding import RawHead
from proxy.lanes import Account
from proxy.limits import Permit, Usage
from proxy.line import HELD, Call, LaneState
from proxy.places import Places
from proxy.promises import Promises
from proxy.request import ProxyRequest, Story, Turn, end_of, told
from proxy.steered import Steered

__all__ = ["FairQueue", "ProxyQueue", "ProxyRequest", "Story", "default_connector"]

log = logging.getLogger("proxy.line")

#: The status and the error code of a request that was answered.
FINE: tuple[int | None, str] = (200, "")
#: Seconds before the second attempt, half of them random; doubles for each further one.
FIRST_BACKOFF = 0.5


def default_connector() -> Connector:
    """The connector that serves unless CONNECTOR names another: swap this one line to swap the API."""
    with importing():
        from gigachat_connector import validate_data, request_api, get_info  # noqa: I001 - the order people know

    return from_functions(validate_data, request_api, get_info)


class ProxyQueue:
    """One lane's line, its dispatchers (one an account), and the life of every request in it.

    Args:
        size: how many may wait; more are refused.
        call_timeout: seconds for a whole plain answer; for a stream, to its first chunk and between chunks.
        retries: further attempts after 5xx and broken connections; a 429 uses up none.
        listeners: told the story of each request; they must not block.
        observers: told of each call.
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
        observers: Sequence[Observer] = (),
    ) -> None:
        self._accounts = accounts
        self._retries = retries
        self._clock = clock or Clock()
        self._listeners = listeners
        self.flights = Flights(self._clock, call_timeout, observers)
        self._line: FairQueue[ProxyRequest] = FairQueue(size)
        self._promises = Promises()
        self._present: set[ProxyRequest] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._stops_at: float | None = None
        self.places = Places(self._line, self.flights, self._present, self._etas)
        self.steered = Steered([account.limits for account in accounts], self.flights, self._line)
        self._dispatchers: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<ProxyQueue waiting={self._line.qsize()} in_flight={self.in_flight} {self._accounts}>"

    # -- start and stop

    def start(self) -> None:
        for account in self._accounts:
            account.limits.start()
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

    def interrupt_waiting(self, failure: Callable[[], ProxyError]) -> None:
        """Answer everybody who waits, at once, each with a failure of its own."""
        for request in list(self._present):
            if request.is_waiting:
                request.interrupt(failure())

    async def close(self) -> None:
        self.interrupt_all()
        for dispatcher in self._dispatchers:
            dispatcher.cancel()
        await asyncio.gather(*self._dispatchers, return_exceptions=True)
        await asyncio.gather(*(account.limits.close() for account in self._accounts))

    # -- what others may see

    @property
    def is_idle(self) -> bool:
        return not self._present

    @property
    def in_flight(self) -> int:
        return len(self.flights)

    def eta(self, ahead: int) -> float:
        """Seconds until a request with `ahead` others before it is sent."""
        return self.eta_by(ahead, self._limits())

    def _etas(self) -> Callable[[int], float]:
        """The same for many at one moment."""
        return partial(self.eta_by, limits=self._limits())

    def eta_by(self, ahead: int, limits: Lanewide) -> float:
        """The same if these limits held."""
        return eta(ahead, limits, self.flights.latencies.mean, self.flights.ages())

    def _limits(self) -> Lanewide:
        return Lanewide.of([account.limits.state() for account in self._accounts])

    def state(self) -> LaneState:
        lane, waiting = self._limits(), self._line.qsize()
        is_stopping = self._stops_at is not None
        latency = self.flights.latencies.mean
        return LaneState(lane, waiting, self._line.maxsize, self.eta_by(waiting, lane), latency, is_stopping)

    @property
    def trouble(self) -> str:
        return "; ".join(filter(None, (account.limits.trouble for account in self._accounts)))

    def place(self, request: ProxyRequest) -> int:
        """Its position now, from 1, at most a second old; 0 if it does not wait."""
        return self.places.of(request)

    # -- the dispatcher

    async def _dispatch(self, account: Account) -> None:
        while True:
            try:
                await self._line.somebody()
                async with self._line.while_somebody():
                    permit = await account.limits.acquire()
                if not self._hand_out(Turn(permit, account)):
                    permit.release()
            except TimeoutError:
                continue  # whoever would have gone has left: others may have the permit
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

    def enrol(self, call: Call, **known: Any) -> ProxyRequest:
        return ProxyRequest(call, **known)

    async def answer(self, request: ProxyRequest) -> Chunk:
        """Wait in line, call, retry: the whole answer of a plain call.

        Raises ProxyError: LineFull, WaitTooLong and Stopping at once, the others later.
        """
        self._enter(request)
        ended = FINE
        try:
            while True:
                turn = await self._turn(request)
                try:
                    with Attempt(self.flights, request, turn.permit) as attempt:
                        answer: Chunk = await request.interruptible(partial(request.call, turn.account.connector))
                        request.usage = Usage.told_by(answer)
                        attempt.settle()
                        return answer
                except UpstreamError as error:
                    self._try_again(request, turn.permit, error)
                finally:
                    turn.permit.release()
        except BaseException as end:
            ended = told(end)
            raise
        finally:
            self._leave(request, *ended)

    async def run(self, request: ProxyRequest) -> AsyncGenerator[Chunk, None]:
        """The same for a stream: yields the answer's chunks. Close it (`aclosing`) to leave early."""
        self._enter(request)
        ended = FINE
        try:
            while True:
                turn = await self._turn(request)
                try:
                    async with aclosing(self._attempt(request, turn)) as chunks:
                        async for chunk in chunks:
                            request.has_begun = True
                            if isinstance(chunk, RawHead):
                                ended = end_of(chunk)
                            yield chunk
                    return
                except UpstreamError as error:
                    self._try_again(request, turn.permit, error)
                finally:
                    turn.permit.release()
        except BaseException as end:
            ended = told(end)
            raise
        finally:
            self._leave(request, *ended)

    def _enter(self, request: ProxyRequest) -> None:
        request.arrived = self._clock.now()
        self._present.add(request)
        self._nobody.clear()

    def _leave(self, request: ProxyRequest, status: int | None, error: str) -> None:
        """Tell its story, however it ended."""
        self._present.discard(request)
        if not self._present:
            self._nobody.set()
        if not self._listeners:
            return
        took = self._clock.now() - request.arrived
        known = (request.waited, took, request.attempts, error, request.usage, request.trail.id)
        story = Story(request.id, request.caller, status, *known)
        for listener in self._listeners:
            try:
                listener(story)
            except Exception:
                log.exception("a listener failed")

    def _admit(self, request: ProxyRequest) -> Turn | None:
        """Let it into the line, or at once to its turn if nobody waits and a permit is to be had."""
        now = self._clock.now()
        if self._stops_at is not None:
            raise Stopping(retry_after=max(1.0, self._stops_at - now))
        if self._line.empty() and (turn := self._at_once()) is not None:
            request.position = 1
            return turn
        whose = f"{request.caller}\n{request.client}"
        if self._promises and self._promises.redeem(whose, now):
            self._line.put_ahead(request)
            return None
        if self._line.full():
            wait = self.eta(self._promised())
            raise LineFull(
                f"the waiting line is full ({self._line.maxsize} requests, EXT_QUEUE_SIZE)",
                retry_after=self._promises.give(whose, now, wait),
            )
        self._line.put_nowait(request)
        wait = self.eta(request.position - 1)
        if wait > request.patience:
            self._line.remove(request)
            later = self.eta(request.position - 1 + self._promised())
            raise WaitTooLong(
                f"the wait would be about {wait:.0f} s (place {request.position} in line), longer than the "
                f"{request.patience:g} s that this request may wait (X-Request-Timeout, RESP_TIMEOUT)",
                retry_after=self._promises.give(whose, now, later),
            )
        return None

    def _promised(self) -> int:
        """How many of the refused will come before the next one; those who never come must not add up."""
        return min(len(self._promises), self._line.maxsize)

    def _at_once(self) -> Turn | None:
        for account in self._accounts:
            permit = account.limits.try_acquire()
            if permit is not None:
                return Turn(permit, account)
        return None

    async def _turn(self, request: ProxyRequest) -> Turn:
        """Into the line, if it is new, and until its turn."""
        if not request.attempts and (turn := self._admit(request)) is not None:
            return turn
        since = self._clock.now()
        expiry = self._clock.call_at(request.deadline, request.expire)
        try:
            turn = await request.expect_turn()
        except BaseException as end:
            self._line.remove(request)
            request.forgo_turn()
            if isinstance(end, DeadlineExpired) and self._limits().is_held:
                raise DeadlineExpired(f"{end}: {HELD}") from None
            raise
        finally:
            expiry.cancel()
            waited = self._clock.now() - since
            request.waited += waited
            request.trail.waited(waited, request.position)
        return turn

    async def _attempt(self, request: ProxyRequest, turn: Turn) -> AsyncGenerator[Chunk, None]:
        """One call of a stream. What it costs is settled when its answer is whole."""
        with Attempt(self.flights, request, turn.permit) as attempt:
            async with closing(request.call(turn.account.connector)) as chunks:
                following = partial(anext, chunks, None)
                while (chunk := await request.interruptible(following)) is not None:
                    attempt.rest(chunk)
                    request.usage = Usage.told_by(chunk) or request.usage
                    yield chunk
                    attempt.start()
            attempt.settle()

    def _try_again(self, request: ProxyRequest, permit: Permit, error: UpstreamError) -> None:
        """Let it stand in line again, at the front; raise the error if it has failed for good."""
        delay = self._retry_delay(request, permit, error)
        if delay is None:
            raise error
        self._clock.call_at(self._clock.now() + delay, partial(self._line.put_back, request))

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
