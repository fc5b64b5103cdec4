"""One call's right to go, given by Redis, or by this replica alone while Redis is away."""

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

from proxy.limits import Usage
from proxy.limits.local import LocalPermit
from proxy.limits.slot import Slot


class Giver(Protocol):
    """What a permit needs of the limits that it comes from."""

    async def pass_gate(self, permit: "SharedPermit") -> None: ...

    def stamp(self, permit: "SharedPermit") -> None: ...

    def throttled(self, permit: "SharedPermit", retry_after: float | None) -> None: ...

    def give_back(self, permit: "SharedPermit") -> None: ...


class SharedPermit:
    """See `proxy.limits.Permit`. `sent_at` is monotonic seconds, None until sent."""

    __slots__ = (
        "_giver",
        "_is_released",
        "asks_at",
        "call",
        "is_known",
        "is_waiting",
        "on_sent",
        "sent_at",
        "slot",
        "stand_in",
        "successes",
        "ticket",
    )

    def __init__(self, giver: Giver, ticket: str) -> None:
        self._giver = giver
        self._is_released = False
        #: What Redis calls it, and whether Redis may have heard of it.
        self.ticket = ticket
        self.is_known = False
        #: The pace slot that is its own and unused; its place in this replica's own limits while Redis is away.
        self.slot: Slot | None = None
        self.stand_in: LocalPermit | None = None
        #: When to ask for a slot if none has come, whether one is to come, and the question that is under way.
        self.asks_at = -math.inf
        self.is_waiting = False
        self.call: asyncio.Task[None] | None = None
        self.sent_at: float | None = None
        self.successes = 0
        self.on_sent: Callable[[], None] | None = None

    @property
    def is_sent(self) -> bool:
        return self.sent_at is not None

    async def gate(self) -> None:
        await self._giver.pass_gate(self)

    def mark_sent(self) -> None:
        self._giver.stamp(self)

    def settle(self, usage: Usage) -> None:
        self.successes += 1
        if self.stand_in is not None:
            self.stand_in.settle(usage)

    def throttled(self, retry_after: float | None) -> None:
        self._giver.throttled(self, retry_after)

    def release(self) -> None:
        if not self._is_released:
            self._is_released = True
            self._end()

    def release_after(self, call: "asyncio.Future[Any]") -> None:
        if not self._is_released:
            self._is_released = True
            call.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        """Not before the question under way is answered: what the answer brings is to be given back too."""
        if self.call is None or self.call.done():
            self._giver.give_back(self)
        else:
            self.call.add_done_callback(lambda _: self._giver.give_back(self))
