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
#: Seconds after which an end that Redis announced has surely come there.
SHORTLY = 0.001
#: Microseconds by which an older word may come after a newer one; if it is more, the server's clock was set back.
OVERTAKEN = micro(SET_BACK)


def wire_interval(rpm: float | None) -> int:
    """Microseconds between two calls, as Redis is to keep them."""
    interval = 60 / rpm if rpm else 0.0
    return micro(interval + min(MAX_MARGIN, MARGIN_SHARE * interval))


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
        self._link = link
        self._time = link.time
        self._keys = link.names.keys(name)
        #: By which messages to everybody name it.
        self.subject = self._keys[0]
        self._replica = replica
        #: How many tickets were written.
        self.tickets = 0
        self.told: Reply | None = None
        self.paused_until = -math.inf
        #: When the last call that goes out here is sent, at the latest.
        self._last_send = -math.inf
        #: What the settings say; Redis knows what operators set.
        self._words: dict[str, Any] = {
            "replica": replica,
            "channel": link.names.channel,
            "interval": wire_interval(rpm),
            "concurrency": concurrency or 0,
            "lease": micro(lease),
            "alive": micro(alive),
            "settle": micro(link.settle),
        }
        self.pace(rpm)

    def pace(self, rpm: float | None) -> None:
        """So many calls a minute hold from now on."""
        self.interval = 60 / rpm if rpm else 0.0
        #: Seconds before its slot at which a call is let off.
        self.lead = min(LEAD, self.interval / 2)
        self._window = min(max(WINDOW, WINDOW_SHARE * self.interval), MAX_WINDOW)
        self._words["life"] = int(1000 * max(KEY_LIFE, 2 * self.interval + MAX_PAUSE))

    @property
    def taken_until(self) -> float:
        """Until when the pace is taken by what goes out here."""
        return self._last_send + self.interval

    async def say(self, operation: str, **words: Any) -> Reply:
        """One round trip. Raises RedisAway."""
        epoch = self.told.epoch if self.told is not None else 0
        return await self._link.run(self._keys, said(operation, epoch=epoch, **self._words, **words))

    async def fields(self) -> dict[str, str]:
        """What operators set, as Redis has it. Raises RedisAway."""
        told = await self._link.command("HGETALL", self._keys[-1])
        return {name.decode(): value.decode() for name, value in told.items()}

    def heed(self, reply: Reply) -> bool:
        """Remember what was told. True if Redis has lost what it knew before."""
        if reply.pause:
            self.paused_until = max(self.paused_until, self._time.at_latest(reply.pause))
        before = self.told
        if before is not None and 0 < before.done - reply.done < OVERTAKEN:
            return False  # answers and pushes come on two connections
        self.told = reply
        return before is not None and before.epoch != reply.epoch

    def after(self, instant: int) -> float:
        """When something that ends at this instant has ended."""
        return self._time.at_latest(instant) + SHORTLY

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
        self._last_send = max(self._last_send, sent)

    def expect(self, sent: float) -> None:
        """A call goes out at about this instant."""
        self.take(sent + self._window)

    def opening(self, slot: Slot) -> float:
        """When a call with this slot may be sent."""
        return slot.opens if slot.is_paced else self.paused_until

    def is_good(self, slot: Slot, now: float) -> bool:
        """Neither over nor overtaken by a pause."""
        return not slot.is_paced or (now <= slot.closes and slot.opens >= self.paused_until - GRAIN)
