"""What Redis is still to be told of calls: who was refused, who was sent, who is over."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple

from proxy.limits.link import RedisAway, RedisLink
from proxy.limits.shared_permit import SharedPermit
from proxy.limits.wire import Reply, micro


class Refusal(NamedTuple):
    """A 429: when the call was sent, and until when to pause (monotonic seconds); None: not sent, not told."""

    sent_at: float | None
    until: float | None
    jitter: float


class Batch(NamedTuple):
    """What is told in one round trip: tickets and when they were sent (monotonic seconds), and calls that are over."""

    sent: list[tuple[str, float]]
    over: list[SharedPermit]


class Reports:
    """Whoever asks for something takes along what there is to tell. What was not heard for certain is told again."""

    def __init__(self, link: RedisLink, say: Callable[..., Awaitable[Reply]]) -> None:
        self._link = link
        self._say = say
        self.refused: list[Refusal] = []
        self._sent: list[tuple[str, float]] = []
        self._over: list[SharedPermit] = []

    def __bool__(self) -> bool:
        return bool(self.refused or self._sent or self._over)

    def sent(self, permit: SharedPermit, instant: float) -> None:
        self._sent.append((permit.ticket, instant))

    def over(self, permit: SharedPermit) -> None:
        self._over.append(permit)

    def take(self) -> Batch:
        """What is to be told now; nothing before all refusals are told, lest a slot is given out that is none."""
        if self.refused:
            return Batch([], [])
        batch, self._sent, self._over = Batch(self._sent, self._over), [], []
        return batch

    async def tell(self, batch: Batch, **question: Any) -> Reply:
        """In one round trip, with what is asked for. Raises RedisAway."""
        try:
            return await self._say("tell", **self._words(batch), **question)
        except RedisAway:
            self._sent[:0], self._over[:0] = batch
            raise

    async def tell_refused(self) -> None:
        """Raises RedisAway."""
        while self.refused:
            refusal = self.refused[0]
            left = 0 if refusal.until is None else max(1, micro(refusal.until - self._link.clock.now()))
            sent = 0 if refusal.sent_at is None else self._link.time.there(refusal.sent_at)
            await self._say("throttle", sent=sent, retry_after=left, jitter=refusal.jitter)
            del self.refused[0]

    async def tell_last(self, left: Collection[SharedPermit]) -> None:
        """The replica is leaving, and these calls with it. Raises RedisAway."""
        await self._say("leave", **self._words(Batch(self._sent, [*self._over, *left])))

    def _words(self, batch: Batch) -> dict[str, Any]:
        return {
            "sent": [(ticket, self._link.time.there(instant)) for ticket, instant in batch.sent],
            "over": [permit.ticket for permit in batch.over],
            "successes": sum(permit.successes for permit in batch.over),
        }
