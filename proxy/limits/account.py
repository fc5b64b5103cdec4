"""One account as a replica sees it through Redis: what it says, and what it was last told."""

import math
from typing import Any

from proxy.limits.link import RedisLink
from proxy.limits.local import LEAD, MAX_PAUSE
from proxy.limits.slot import ANY_TIME, Slot
from proxy.limits.wire import KEY_LIFE, SET_BACK, Reply, micro, said, ticket

#: Seconds for which a call may be sent from its pace slot on, what is unknown about the server's clock apart. The pace
#: slows by what of it is used; if the call dies in it, by all of it. At least, at most, and as a part of the interval.
WINDOW = 0.005
MAX_WINDOW = 1.0
WINDOW_SHARE = 0.5
#: Seconds that are added to the interval, for the write takes now more and now less after the gate: at most, and as a
#: part of the interval.
MAX_MARGIN = 0.001
MARGIN_SHARE = 0.005
#: Seconds before the end of a pause at which it may be taken for over: two clocks never agree to the microsecond.
GRAIN = 0.01
#: Microseconds by which an older word may come after a newer one; if it is more, the server's clock was set back.
OVERTAKEN = micro(SET_BACK)


class SharedAccount:
    """The conversation of one limiter with Redis.

    Args:
        rpm: calls a minute; None: no pacing.
        concurrency: calls in flight at once; None: no bound.
        lease: seconds after which the slots of a dead replica come back.
        alive: seconds for which a replica counts after its last sign of life.
    """

    def __init__(
        self,
        link: RedisLink,
        name: str,
        replica: str,
        *,
        rpm: float | None,
        concurrency: int | None,
        lease: float,
        alive: float,
    ) -> None:
        self.interval = 60 / rpm if rpm else 0.0
        self._link = link
        self._time = link.time
        self._keys = link.names.keys(name)
        #: By which messages to everybody name it.
        self.subject = self._keys[0]
        self._replica = replica
        #: Seconds before its slot at which a call is let off.
        self.lead = min(LEAD, self.interval / 2)
        self._window = min(max(WINDOW, WINDOW_SHARE * self.interval), MAX_WINDOW)
        #: How many tickets were written.
        self.tickets = 0
        self.told: Reply | None = None
        self.paused_until = -math.inf
        #: Until when the pace is taken by what goes out here.
        self.taken_until = -math.inf
        self._words: dict[str, Any] = {
            "replica": replica,
            "channel": link.names.channel,
            "interval": micro(self.interval + min(MAX_MARGIN, MARGIN_SHARE * self.interval)),
            "concurrency": concurrency or 0,
            "lease": micro(lease),
            "alive": micro(alive),
            "settle": micro(link.settle),
            "life": int(1000 * max(KEY_LIFE, 2 * self.interval + MAX_PAUSE)),
        }

    async def say(self, operation: str, **words: Any) -> Reply:
        """One round trip. Raises RedisAway."""
        epoch = self.told.epoch if self.told is not None else 0
        return await self._link.run(self._keys, said(operation, epoch=epoch, **self._words, **words))

    def heed(self, reply: Reply) -> bool:
        """Remember what was told. True if Redis has lost what it knew before."""
        if reply.pause:
            self.paused_until = max(self.paused_until, self._time.at_latest(reply.pause))
        before = self.told
        if before is not None and 0 < before.done - reply.done < OVERTAKEN:
            return False  # answers and pushes come on two connections
        self.told = reply
        return before is not None and before.epoch != reply.epoch

    # -- asking for slots

    def ticket(self) -> str:
        """A name for a new call."""
        self.tickets += 1
        return ticket(self._replica, self.tickets, **self.wishes())

    def wishes(self) -> dict[str, int]:
        """How long before its slot a call must know of it, and for how long it may be sent; microseconds."""
        return {"lead": micro(self.lead + self._time.round_trip), "window": micro(self._window + self._time.doubt)}

    def slot(self, reply: Reply) -> Slot:
        """What was given, by our clock."""
        if not reply.ends:
            return ANY_TIME
        slot = Slot(self._time.at_latest(reply.slot), self._time.at_earliest(reply.ends))
        self.take(slot.closes)
        return slot

    def take(self, sent: float) -> None:
        """A call goes out at this instant at the latest."""
        self.taken_until = max(self.taken_until, sent + self.interval)

    def opening(self, slot: Slot) -> float:
        """When a call with this slot may be sent."""
        return slot.opens if slot.is_paced else self.paused_until

    def is_good(self, slot: Slot, now: float) -> bool:
        """Neither over nor overtaken by a pause."""
        return not slot.is_paced or (now <= slot.closes and slot.opens >= self.paused_until - GRAIN)
