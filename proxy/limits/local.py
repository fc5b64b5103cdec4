"""Limits kept by one process.

Rule 1: nothing here decides while awaiting; `hindrance` decides, `acquire` waits and asks again.
Rule 2: a call counts when its bytes go out (`gate`, `mark_sent`), whatever comes back; what was not sent was not taken.
Rule 3: two sends of one account are never closer than the interval, retries and re-sends included.
Rule 4: what operators set holds from that instant on: whoever waits, at the gate too, looks again.
"""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

from proxy.clock import Clock
from proxy.limits import Bounds, LimitsState, Usage
from proxy.limits.overrides import CONCURRENCY, NONE, PAUSED, RPM, Changes, Overrides, changed, in_force
from proxy.limits.resting import Resting

#: Seconds before its pace slot at which a call is let off: enough to take a connection from the pool and write the
#: request up to the gate, short enough that the best waiting request is picked late.
LEAD = 0.003
#: Seconds of the first pause after a 429 without Retry-After; doubles with each further one, up to MAX_BACKOFF.
FIRST_BACKOFF = 0.25
MAX_BACKOFF = 30.0
#: Seconds of the longest pause that an upstream can ask for; then it is asked again.
MAX_PAUSE = 300.0
#: Successes after which one more call may be in flight; doubles whenever that step earns a 429 again.
FIRST_RUN = 10
MAX_RUN = 640

#: Keeps what operators set for the next start. Returns why it cannot, "" if it can.
Keep = Callable[[Overrides], Awaitable[str]]


async def keep_nothing(overrides: Overrides) -> str:
    return "this service has no folder for what outlives it"


class LocalLimits:
    """Even pace, concurrency and pauses of one account.

    Args:
        rpm: calls a minute, evenly spaced; fractions are fine; None or 0: no pacing.
        concurrency: calls in flight at once; None: no bound.
        jitter: a number from 0 to 1, drawn anew for each backoff.
        rest: seconds before the first send, for an account that sent something of late.
        overrides: what operators set before this process began.
        keep: keeps what they set from now on.
    """

    def __init__(
        self,
        *,
        rpm: float | None = None,
        concurrency: int | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        rest: float = 0.0,
        overrides: Overrides = NONE,
        keep: Keep = keep_nothing,
    ) -> None:
        self.settings = Bounds(rpm or None, concurrency or None)
        self._clock = clock or Clock()
        self._jitter = jitter
        self._ceiling = Ceiling(concurrency)
        self._in_flight = 0
        #: Who was let off and has not been sent, with the slot it was let off for; the last one's is the latest.
        self._unsent: dict[LocalPermit, float] = {}
        self._rest_until = self._clock.now() + rest if rest else -math.inf
        self._last_send = -math.inf
        self._paused_until = -math.inf
        self._strikes = 0
        self._gate = asyncio.Lock()
        self._resting, self._at_gate = Resting(self._clock), Resting(self._clock)
        self._keep = keep
        self._listeners: list[Callable[[], None]] = []
        self._adopt(overrides)

    def __repr__(self) -> str:
        state = self.state()
        return (
            f"<LocalLimits rpm={state.rpm} in_flight={state.in_flight}/{state.allowed} "
            f"next_send={state.next_send:.3f} paused={state.paused:.3f}>"
        )

    async def acquire(self, cost: int = 1) -> "LocalPermit":
        """Wait for a concurrency slot, then until shortly before the pace slot. This limiter has no token budget."""
        while (clear := self.hindrance()) is not None:
            await self._resting.until(clear)
        return self._let_off()

    def try_acquire(self, cost: int = 1) -> "LocalPermit | None":
        return self._let_off() if self.hindrance() is None else None

    def adopt(self) -> "LocalPermit":
        """A permit for a call that is in flight already: it takes a concurrency slot, whatever the limit."""
        self._in_flight += 1
        return LocalPermit(self)

    def _let_off(self) -> "LocalPermit":
        permit = LocalPermit(self)
        self._unsent[permit] = max(self._clock.now(), self._due())
        self._in_flight += 1
        return permit

    #: One process keeps its limits as they are set.
    trouble = ""

    def start(self) -> None: ...

    async def close(self) -> None: ...

    def state(self) -> LimitsState:
        now = self._clock.now()
        return LimitsState(
            rpm=self.rpm,
            interval=self.interval,
            concurrency=self._ceiling.setting,
            allowed=self._ceiling.allowed,
            in_flight=self._in_flight,
            next_send=max(0.0, self._due() - now),
            paused=max(0.0, self._paused_until - now),
            is_held=self._is_held,
        )

    # -- what operators set

    async def override(self, changes: Changes) -> str:
        self._adopt(changed(self.overrides, changes))
        for listener in self._listeners:
            listener()
        return await self._keep(self.overrides)

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def refresh(self) -> None: ...

    async def settled(self) -> None: ...

    def _adopt(self, overrides: Overrides) -> None:
        self.overrides = overrides
        self.rpm = in_force(overrides, RPM, self.settings.rpm)
        self.interval = 60 / self.rpm if self.rpm else 0.0
        bound = in_force(overrides, CONCURRENCY, self.settings.concurrency)
        self._ceiling.setting = None if bound is None else int(bound)
        self._is_held = PAUSED in overrides
        self._next_send = max(self._rest_until, self._last_send + self.interval)
        self._resting.stir()
        self._at_gate.stir()

    # -- what a permit does

    async def _pass_gate(self, permit: "LocalPermit") -> None:
        if self.interval or self._opening() > self._clock.now():
            async with self._gate:
                while (slot := self._opening()) > self._clock.now():
                    await self._until(slot)
                self._stamp(permit)
        else:
            self._stamp(permit)

    def _opening(self) -> float:
        """When the next call may pass the gate; infinity while it is paused."""
        return math.inf if self._is_held else max(self._next_send, self._paused_until)

    async def _until(self, slot: float) -> None:
        """Return at the slot, or before it when something has changed; the last moment before it is exact."""
        if slot - self._clock.now() > self._clock.fine:
            await self._at_gate.until(slot - self._clock.fine)
        else:
            await self._clock.exactly(slot)

    def _stamp(self, permit: "LocalPermit") -> None:
        self._last_send = now = self._clock.now()
        self._next_send = max(self._rest_until, now + self.interval)
        self._unsent.pop(permit, None)
        permit.sent_at = now
        if permit.on_sent is not None:
            permit.on_sent()

    def _succeeded(self) -> None:
        self._strikes = 0
        self._ceiling.succeeded()
        self._resting.stir()

    def _throttled(self, sent_at: float | None, retry_after: float | None) -> None:
        now = self._clock.now()
        if sent_at is None and not retry_after:
            # Something else than the call was refused, a token request say, perhaps for many at once.
            self._paused_until = max(self._paused_until, now + FIRST_BACKOFF)
            return
        is_news = self._ceiling.cut(self._in_flight, now, sent_at)
        if retry_after:  # 0 says nothing: whoever obeyed it would only be refused again
            self._paused_until = max(self._paused_until, now + min(retry_after, MAX_PAUSE))
        elif is_news:
            # Half fixed and half random, so that several processes on one account do not come back together.
            backoff = min(MAX_BACKOFF, FIRST_BACKOFF * 2**self._strikes) * (0.5 + 0.5 * self._jitter())
            self._paused_until = max(self._paused_until, now + backoff)
            self._strikes += 1

    def _give_back(self, permit: "LocalPermit") -> None:
        self._in_flight -= 1
        self._unsent.pop(permit, None)
        self._resting.stir()

    # -- deciding and waiting

    def _due(self) -> float:
        """The pace slot of the next call to be let off, those on their way to the gate counted."""
        due = max(self._next_send, self._paused_until) + len(self._unsent) * self.interval
        latest = next(reversed(self._unsent.values()), -math.inf)
        return max(due, latest + self.interval)

    @property
    def promised(self) -> float:
        """The latest instant at which somebody who was let off already goes; -infinity if there is nobody."""
        return self._due() - self.interval if self._unsent else -math.inf

    def hindrance(self) -> float | None:
        """None: go now. Else the instant to ask again; infinity: when a slot comes back, or it is resumed."""
        allowed = self._ceiling.allowed
        if self._is_held or (allowed is not None and self._in_flight >= allowed):
            return math.inf
        start = self._due() - LEAD
        return start if start > self._clock.now() else None


class LocalPermit:
    """One call's right to go: see `proxy.limits.Permit`. `sent_at` is monotonic seconds, None until sent."""

    __slots__ = ("_is_released", "_limits", "on_sent", "sent_at")

    def __init__(self, limits: LocalLimits) -> None:
        self._limits = limits
        self._is_released = False
        self.sent_at: float | None = None
        self.on_sent: Callable[[], None] | None = None

    @property
    def is_sent(self) -> bool:
        return self.sent_at is not None

    async def gate(self) -> None:
        await self._limits._pass_gate(self)

    def mark_sent(self) -> None:
        self._limits._stamp(self)

    def settle(self, usage: Usage) -> None:
        self._limits._succeeded()

    def throttled(self, retry_after: float | None) -> None:
        self._limits._throttled(self.sent_at, retry_after)

    def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._limits._give_back(self)

    def release_after(self, call: "asyncio.Future[Any]") -> None:
        if not self._is_released:
            self._is_released = True
            call.add_done_callback(lambda _: self._limits._give_back(self))


class Ceiling:
    """How many calls may be in flight: the setting, which may change, lowered by what 429s have taught.

    A 429 halves it; a run of successes raises it by one. The run before the level that earned the last 429 doubles
    each time it earns one again, so that an upstream which really allows less is asked for more only now and then.
    """

    def __init__(self, setting: int | None) -> None:
        self.setting = setting or None
        #: What 429s have taught; None: nothing, or it has been unlearned.
        self._taught: int | None = None
        self._failed_at = math.inf
        self._run = FIRST_RUN
        self._successes = 0
        self._cut_at = -math.inf

    @property
    def allowed(self) -> int | None:
        """How many; None: no bound."""
        if self._taught is None or self.setting is None:
            return self._taught or self.setting
        return min(self._taught, self.setting)

    def succeeded(self) -> None:
        if self._taught is None:
            return
        self._successes += 1
        if self._successes < (FIRST_RUN if self._taught + 1 < self._failed_at else self._run):
            return
        if self._taught >= self._failed_at:
            self._failed_at, self._run = math.inf, FIRST_RUN  # that level holds now
        self._taught += 1
        self._successes = 0
        if self.setting is not None and self._taught >= self.setting:
            self._taught = None

    def cut(self, in_flight: int, now: float, sent_at: float | None) -> bool:
        """Halve, unless this 429 answers a call of the burst that was cut already. True if it was news."""
        if sent_at is not None and sent_at <= self._cut_at:
            return False
        level = self.allowed or in_flight
        self._run = min(MAX_RUN, self._run * 2) if level == self._failed_at else FIRST_RUN
        self._failed_at = level
        self._taught = max(1, level // 2)
        self._successes = 0
        self._cut_at = now
        return True
