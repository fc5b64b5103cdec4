"""Limits kept by many processes together, through one Redis or Valkey.

Rule 1: Redis decides (script.lua), in the order of asking; a replica asks only when somebody waits in its line.
Rule 2: who was given a pace slot sleeps until it and says when it was sent; the next slot is an interval later. Nobody
        polls: who waits for a slot is told when it comes.
Rule 3: a slot that is over, or that a pause overtook, is not used; another one is asked for.
Rule 4: nothing here decides while awaiting; `_has_to_ask` and `_hindrance` decide, `_secure` waits and looks again.
Rule 5: a call counts when its bytes go out, whatever comes back; what was not sent is given back.
Rule 6: while Redis is away nobody is let off, and nobody fails; after the grace the fallback holds (fallback.py).
Rule 7: what operators set is in Redis. The script keeps to it from that instant on; each reply says whether it is news,
        and a slot that was given before is not used.

A dispatch takes two round trips, three where nobody waits behind it: what there is to tell goes along with the next
question. One task a limiter tells the rest, and every BEAT seconds that it is there and its calls are in flight.

What a network partition can do. A replica that is cut off from Redis goes on with the calls that it has. Their leases
end after LEASE at most, or `link.SETTLE` after another one's sign of life if Redis has seen its connection break; then
others may take their slots, and as long as those calls run that many too many are in flight. After the grace it keeps
to its fallback. With `local_share` those that still reach Redis use all of the limits, and those cut off add their
shares: the API gets less than twice the limits. With `open` each of them adds all of the limits; `closed` alone rules
both out. A Redis that lost its data, or the newest of them, is told again by its replicas within `link.SETTLE`, in
which nobody takes a slot; a replica that cannot reach it by then is counted when it can.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from proxy.errors import LimitsUnavailable
from proxy.limits import Bounds, LimitsState
from proxy.limits.account import SharedAccount
from proxy.limits.fallback import Fallback, Mode
from proxy.limits.link import RedisAway, RedisLink
from proxy.limits.local import MAX_PAUSE
from proxy.limits.overrides import CONCURRENCY, PAUSED, RPM, Changes, Overrides, in_force
from proxy.limits.reports import Batch, Refusal, Reports
from proxy.limits.resting import Resting
from proxy.limits.shared_overrides import SharedOverrides, wire_fields
from proxy.limits.shared_permit import SharedPermit
from proxy.limits.slot import Slot
from proxy.limits.wire import HAS_LEASE, Reply, micro

log = logging.getLogger("proxy.limits")

#: Seconds after which a concurrency slot is taken back from a replica that died; living ones renew theirs.
LEASE = 30.0
#: Seconds between two signs of life of a replica.
BEAT = 10.0
#: A wire's "no bound".
NO_BOUND = -1


class SharedStatus(NamedTuple):
    """How the limits are kept just now, for people and probes. `away` is seconds, 0 if Redis is there.

    `grace`: nothing is sent, for Redis has been away for a moment. `replicas` is how many were last seen; 0: unknown.
    """

    mode: Literal["shared", "grace"] | Mode
    away: float
    replicas: int


class SharedLimits:
    """Even pace, concurrency and pauses of one account, common to all replicas that give it the same `name`.

    Args:
        link: this process's connections.
        name: what the account is called by all replicas; shows in Redis, so nothing secret.
        rpm: calls a minute, evenly spaced; fractions are fine; None or 0: no pacing.
        concurrency: calls in flight at once; None: no bound.
        fallback: what holds when Redis is away for longer than the link's grace.
        lease: seconds after which the slots of a dead replica come back.
        beat: seconds between two signs of life; a third of `lease` at most.
        jitter: a number from 0 to 1, drawn anew for each backoff.
    """

    def __init__(
        self,
        link: RedisLink,
        name: str,
        *,
        rpm: float | None = None,
        concurrency: int | None = None,
        fallback: Mode = "local_share",
        lease: float = LEASE,
        beat: float = BEAT,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not name or lease < 3 * beat:
            raise ValueError("shared limits need a name, and a lease of three beats at least")
        self.name = name
        self.settings = Bounds(rpm or None, concurrency or None)
        self.rpm, self.concurrency = self.settings
        self._is_held = False
        self._link = link
        self._clock = link.clock
        self._jitter = jitter
        self._every = beat
        self._replica = link.join(self)
        self._account = SharedAccount(
            link, name, self._replica, rpm=self.rpm, concurrency=self.concurrency, lease=lease, alive=3 * beat
        )
        self.subject = self._account.subject
        self._reports = Reports(link, self._say)
        self._fallback = Fallback(fallback, name, rpm=self.rpm, concurrency=self.concurrency, clock=self._clock)
        self._set = SharedOverrides(self._account)
        self._listeners: list[Callable[[], None]] = []
        #: Whose concurrency slot is taken, and who waits for one; each by its ticket.
        self._held: dict[str, SharedPermit] = {}
        self._asking: dict[str, SharedPermit] = {}
        #: How many calls of other replicas were in flight when Redis last said.
        self._others = 0
        #: Who was let off last.
        self._last: SharedPermit | None = None
        #: The session of the link in which Redis was told of all that we hold; 0: it is to be told.
        self._restored = 0
        self._beats_at = math.inf
        self._resting = Resting(self._clock)
        self._calls: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._is_closing = False

    def __repr__(self) -> str:
        state, status = self.state(), self.status()
        return (
            f"<SharedLimits {self.name} {status.mode} replicas={status.replicas} rpm={state.rpm} "
            f"in_flight={state.in_flight}/{state.allowed} own={len(self._held)} asking={len(self._asking)} "
            f"next_send={state.next_send:.3f} paused={state.paused:.3f}>"
        )

    # -- start and stop

    def start(self) -> None:
        """Tell Redis that this replica is there. Until then `acquire` waits."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Give everything back at once, the slots of calls in flight included, and leave."""
        self._is_closing = True
        self._resting.stir()
        if self._keeping is not None:
            # Nothing that talks to Redis is cancelled: redis-py may swallow it. All of it ends soon by itself.
            await asyncio.gather(self._keeping, *self._calls, return_exceptions=True)
        self._link.part(self._replica)
        with suppress(RedisAway):
            await self._reports.tell_last([*self._held.values(), *self._asking.values()])

    # -- the promise

    async def acquire(self, cost: int = 1) -> SharedPermit:
        """Wait for a concurrency slot, then until shortly before the pace slot. This limiter has no token budget."""
        permit = SharedPermit(self, self._account.ticket())
        self._asking[permit.ticket] = permit
        try:
            await self._secure(permit)
        except BaseException:
            permit.release()
            raise
        self._last = permit
        return permit

    def try_acquire(self, cost: int = 1) -> "SharedPermit | None":
        """None: what is free is known to Redis alone."""
        return None

    def state(self) -> LimitsState:
        """As last heard from Redis; calls of other replicas in flight are as many as there were then."""
        if self._fallback.engine is not None:
            return self._fallback.engine.state()
        now, told = self._clock.now(), self._account.told
        due = self._link.time.at_latest(told.next) if told is not None and told.next else now
        paused = max(0.0, self._account.paused_until - now)
        bound = told.allowed if told is not None else self.concurrency or NO_BOUND
        return LimitsState(
            rpm=self.rpm,
            interval=self._account.interval,
            concurrency=self.concurrency,
            allowed=None if bound == NO_BOUND else bound,
            in_flight=self._others + len(self._held),
            next_send=max(0.0, due - now, paused),
            paused=paused,
            is_held=self._is_held,
            lines=max(1, told.lines) if told is not None else 1,
        )

    @property
    def trouble(self) -> str:
        """Why the limits are not kept as they are set just now; "" if they are."""
        status = self.status()
        if status.mode == "shared":
            return ""
        holds = "nothing is sent for a moment" if status.mode == "grace" else f"REDIS_FALLBACK={status.mode} holds"
        return f"Redis has been away for {status.away:.0f} s: {holds}"

    def status(self) -> SharedStatus:
        link, told = self._link, self._account.told
        replicas = told.replicas if told is not None else 0
        if link.is_connected:
            return SharedStatus("shared", 0.0, replicas)
        return SharedStatus("grace" if link.away < link.grace else self._fallback.mode, link.away, replicas)

    # -- what operators set

    @property
    def overrides(self) -> Overrides:
        return self._set.overrides

    async def override(self, changes: Changes) -> str:
        if not self._is_shared:
            raise LimitsUnavailable
        try:
            await self._say("override", fields=wire_fields(changes))
            await self._learn()
        except RedisAway:
            raise LimitsUnavailable(
                "Redis, which keeps the limits for all replicas, went away meanwhile: GET /limits will tell whether "
                "anything was changed"
            ) from None
        return ""

    def listen(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def refresh(self) -> None:
        try:
            await self._learn()
        except RedisAway:
            raise LimitsUnavailable from None

    async def settled(self) -> None:
        while self._link.is_connected and not self._is_closing and (self._set.is_outdated or not self._is_shared):
            await self._resting.until(math.inf)

    async def _learn(self) -> None:
        """Ask what operators set, and keep to it. Raises RedisAway."""
        if await self._set.learn():
            self._adopt()
        self._resting.stir()

    def _adopt(self) -> None:
        """It holds from now on. Slots that were given out before are asked for again."""
        self.rpm = in_force(self.overrides, RPM, self.settings.rpm)
        bound = in_force(self.overrides, CONCURRENCY, self.settings.concurrency)
        self.concurrency = None if bound is None else int(bound)
        self._is_held = PAUSED in self.overrides
        self._account.pace(self.rpm)
        self._fallback.change(self.rpm, self.concurrency)
        for permit in (*self._held.values(), *self._asking.values()):
            permit.slot, permit.asks_at = None, -math.inf
        for listener in self._listeners:
            listener()

    # -- what a permit does

    async def pass_gate(self, permit: SharedPermit) -> None:
        while True:
            await self._secure(permit)
            if (stand_in := permit.stand_in) is not None:
                await stand_in.gate()
                return self._sent(permit, stand_in.sent_at or self._clock.now())
            if (slot := permit.slot) is not None:
                await self._clock.exactly(self._account.opening(slot))
                if permit.slot is slot and self._is_good(slot) and self._account.opening(slot) <= self._clock.now():
                    return self.stamp(permit)

    def stamp(self, permit: SharedPermit) -> None:
        self._sent(permit, self._clock.now())

    def _sent(self, permit: SharedPermit, now: float) -> None:
        permit.sent_at, permit.slot = now, None
        self._account.take(now)
        if self._account.interval and self._is_shared:  # else Redis is told when it is there again
            self._reports.sent(permit, now)
        self._resting.stir()
        if permit.on_sent is not None:
            permit.on_sent()

    def throttled(self, permit: SharedPermit, retry_after: float | None) -> None:
        until = self._clock.now() + min(retry_after, MAX_PAUSE) if retry_after else None
        if until is not None:
            self._account.paused_until = max(self._account.paused_until, until)
        if permit.stand_in is not None:
            permit.stand_in.throttled(retry_after)
        else:
            self._reports.refused.append(Refusal(permit.sent_at, until, self._jitter()))
        self._resting.stir()

    def give_back(self, permit: SharedPermit) -> None:
        self._held.pop(permit.ticket, None)
        self._asking.pop(permit.ticket, None)
        if permit.stand_in is not None:
            permit.stand_in.release()
        if permit.is_known:
            self._reports.over(permit)
        self._resting.stir()

    # -- deciding and waiting

    @property
    def _is_shared(self) -> bool:
        """Whether Redis is there and knows what we hold."""
        return self._link.is_connected and self._restored == self._link.session and not self._is_closing

    @property
    def _may_ask(self) -> bool:
        """Not before all refusals are told, lest a slot within their pause is given."""
        return self._is_shared and not self._is_held and not self._reports.refused

    def _is_good(self, slot: Slot) -> bool:
        return self._account.is_good(slot, self._clock.now())

    def _asks_at(self, permit: SharedPermit) -> float:
        """When to ask for a slot: not while the call before it is on its way, for then that can be told along."""
        last = self._last
        if permit.ticket in self._held or last is None or last.slot is None or last.ticket not in self._held:
            return permit.asks_at
        return max(permit.asks_at, last.slot.closes if last.slot.is_paced else -math.inf)

    def _has_to_ask(self, permit: SharedPermit) -> bool:
        if permit.stand_in is not None or not self._may_ask:
            return False
        if permit.slot is not None:
            return not self._is_good(permit.slot)
        return self._asks_at(permit) <= self._clock.now()

    def _hindrance(self, permit: SharedPermit) -> float | None:
        """None: go now. Else the instant to look again; infinity: when something happens."""
        if self._is_held:
            return math.inf
        if permit.stand_in is not None:
            return None
        if permit.slot is not None and self._is_good(permit.slot):
            start = self._account.opening(permit.slot) - self._account.lead
            return start if start > self._clock.now() else None
        if self._link.is_connected:
            return self._asks_at(permit) if self._may_ask else math.inf
        return self._hindrance_alone(permit)

    def _hindrance_alone(self, permit: SharedPermit) -> float | None:
        """The same while Redis is away; whoever may go has a stand-in."""
        now = self._clock.now()
        ready = math.inf if self._is_closing else self._link.away_since + self._link.grace
        if now < ready:
            return ready
        if not self._fallback.holds:
            rest = max(0.0, self._account.paused_until - now, self._account.taken_until - now)
            self._fallback.begin(self.status().replicas, rest, self._held.values())
        clear = self._fallback.hindrance(permit)
        if clear is None:
            self._asking.pop(permit.ticket, None)
            self._held[permit.ticket] = permit
        return clear

    async def _secure(self, permit: SharedPermit) -> None:
        """Until its concurrency slot is taken and its pace slot is near."""
        while True:
            if self._has_to_ask(permit):
                await self._ask(permit)
            elif (clear := self._hindrance(permit)) is not None:
                await self._resting.until(clear)
            else:
                return

    # -- asking

    async def _ask(self, permit: SharedPermit) -> None:
        """Ask for a lease and a slot. Whoever leaves meanwhile still hears the answer, to give it back."""
        if permit.slot is not None:
            late = 1000 * (self._clock.now() - permit.slot.closes)
            log.debug("limits of %s: a pace slot was over for %.1f ms, another one is asked for", self.name, late)
        permit.slot, permit.is_waiting, permit.is_known, permit.asks_at = None, True, True, math.inf
        permit.call = asyncio.create_task(self._hear(permit, self._reports.take()))
        self._calls.add(permit.call)
        permit.call.add_done_callback(self._calls.discard)
        await asyncio.shield(permit.call)

    async def _hear(self, permit: SharedPermit, batch: Batch) -> None:
        try:
            reply = await self._reports.tell(batch, ticket=permit.ticket, **self._account.wishes())
        except RedisAway:
            permit.asks_at = -math.inf
            return
        if reply.is_granted:
            self._grant(permit, reply)
        elif permit.is_waiting:  # else the answer was overtaken by a push
            if reply.slot != HAS_LEASE and self._held.pop(permit.ticket, None) is not None:
                self._asking[permit.ticket] = permit
            permit.asks_at = self._account.after(reply.recheck)
        self._resting.stir()

    def _grant(self, permit: SharedPermit, reply: Reply) -> None:
        if self._asking.pop(permit.ticket, None) is not None:
            self._others = max(0, self._others - 1)  # it is one of those that Redis counts
        self._held[permit.ticket] = permit
        # A slot by limits that do not hold any more is none.
        slot = self._account.slot(reply) if reply.revision >= self._set.revision else None
        permit.slot, permit.is_waiting, permit.asks_at = slot, False, -math.inf

    # -- what the link tells

    def connected(self) -> None:
        self._resting.stir()

    def away(self) -> None:
        self._resting.stir()

    def granted(self, ticket: str, reply: Reply) -> None:
        self.heed(reply)
        permit = self._asking.get(ticket) or self._held.get(ticket)
        if permit is not None and permit.is_waiting:
            self._grant(permit, reply)

    def heed(self, reply: Reply) -> None:
        if self._account.heed(reply):
            self._restored = 0
        self._others = max(0, reply.in_flight - len(self._held))
        self._set.heard_of(reply.revision)
        self._resting.stir()

    # -- keeping Redis up to date

    async def _keep(self) -> None:
        while not self._is_closing:
            try:
                await self._keep_up()
            except RedisAway:
                continue  # the link says when it is there again
            except Exception:
                # Leases that nobody renews would end under the calls.
                log.exception("limits of %s: keeping them failed and goes on", self.name)
                await self._resting.until(self._clock.now() + 1)

    async def _keep_up(self) -> None:
        """The most urgent thing."""
        if not self._link.is_connected:
            await self._resting.until(math.inf)
        elif not self._is_shared:
            await self._restore()
        elif self._set.is_outdated:
            await self._learn()
        elif self._reports.refused:
            await self._reports.tell_refused()
        elif self._beats_at <= self._clock.now():
            await self._beat("renew")
        elif self._reports:
            await asyncio.sleep(0)  # whoever asks now takes them along
            if self._reports:
                await self._reports.tell(self._reports.take())
        else:
            await self._resting.until(self._beats_at)

    async def _restore(self) -> None:
        """Tell all that we hold, then do without stand-ins."""
        session, live = self._link.session, [*self._held.values(), *self._asking.values()]
        await self._beat("restore", **self._set.words(), **self._known())
        self._fallback.end()
        for permit in live:
            permit.stand_in, permit.is_known, permit.asks_at = None, True, -math.inf
        self._restored = session
        self._resting.stir()

    def _known(self) -> dict[str, int]:
        """The next free pace slot and the microseconds left of a pause, as far as we know; 0: nothing."""
        account, now = self._account, self._clock.now()
        if self._fallback.engine is not None:
            account.expect(self._fallback.engine.promised)
        paused = max(account.paused_until - now, self.state().paused)
        is_ahead = account.interval and account.taken_until > now
        return {"next": self._link.time.there(account.taken_until) if is_ahead else 0, "paused": micro(paused)}

    async def _beat(self, operation: str, **words: Any) -> None:
        """Say that this replica is there, and what it has; once more when leases of a dead one end, to hand them on."""
        self._beats_at = self._clock.now() + self._every
        held, asking, newest = list(self._held), list(self._asking), self._account.tickets
        reply = await self._say(operation, held=held, asking=asking, newest=newest, **words)
        if reply.recheck:
            self._beats_at = min(self._beats_at, self._account.after(reply.recheck))

    async def _say(self, operation: str, **words: Any) -> Reply:
        reply = await self._account.say(operation, **words)
        self.heed(reply)
        return reply
