"""Who stands where in a line, for all who look on; and who is taken out of it.

Rule 1: whoever looks must not hold up the dispatcher: a long line is looked through in pieces.
Rule 2: who is seen depends on who looks: a caller sees what is its own.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

from proxy.attempt import Flights
from proxy.errors import Cancelled
from proxy.line import Seen, Standing
from proxy.request import ProxyRequest

#: Seconds for which a snapshot of everybody's place serves.
AGE = 1.0
#: Requests that are looked at before others may do something: some tenths of a millisecond.
AT_ONCE = 250

T = TypeVar("T")


class Ordered(Protocol):
    """A line, as far as it is looked at."""

    def snapshot(self) -> Iterator[ProxyRequest]:
        """Who waits, in the order of going; it may be told in pieces."""


class Places:
    """The places in one line.

    Args:
        present: all its requests, those in flight too.
        etas: tells of a number of others that go first how many seconds they take, as things stand.
    """

    def __init__(
        self,
        line: Ordered,
        flights: Flights,
        present: Collection[ProxyRequest],
        etas: Callable[[], Callable[[int], float]],
    ) -> None:
        self._line = line
        self._flights = flights
        self._clock = flights.clock
        self._present = present
        self._etas = etas
        self._known: dict[ProxyRequest, int] = {}
        self._known_at = -math.inf
        self._looking = asyncio.Lock()

    def of(self, request: ProxyRequest) -> int:
        """Its place now, at most AGE old; 0 if it does not wait."""
        if self._clock.now() - self._known_at > AGE:
            self._known_at = self._clock.now()
            self._known = {other: place for place, other in enumerate(self._line.snapshot(), 1)}
        return self._known.get(request, request.position) if request.is_waiting else 0

    async def look(self, oldest: float = AGE) -> None:
        """Look where everybody stands, unless that was done in the last `oldest` seconds."""
        async with self._looking:
            now = self._clock.now()
            if now - self._known_at < oldest:
                return
            known: dict[ProxyRequest, int] = {}
            async for piece in in_pieces(enumerate(self._line.snapshot(), 1)):
                known.update((request, place) for place, request in piece)
            self._known, self._known_at = known, now

    # -- who is there

    async def waiting(self, seen: Seen, limit: int) -> tuple[int, list[Standing]]:
        """How many wait, and the first of them; those between two attempts come last."""
        await self.look(AGE if seen is not None else 0.0)
        known = self._known
        found = await sifted(known, lambda request: request.is_waiting and is_seen(request, seen))
        found += await sifted(
            list(self._present),
            lambda request: request.is_waiting and request not in known and is_seen(request, seen),
        )
        return len(found), await self._standings(found[:limit])

    async def in_flight(self, seen: Seen, limit: int) -> tuple[int, list[Standing]]:
        """How many calls there are, and the oldest of them."""
        calls = [request for request in self._flights.began if is_seen(request, seen)]
        return len(calls), await self._standings(calls[:limit])

    async def callers(self) -> Counter[str]:
        """How many wait, by caller."""
        counts: Counter[str] = Counter()
        async for piece in in_pieces(list(self._present)):
            counts.update(request.caller for request in piece if request.is_waiting)
        return counts

    async def with_id(self, id: str, seen: Seen) -> list[Standing]:
        """The requests of this id: a caller may give one to several, and a request may take several calls."""
        found = await self._found(id, seen)
        if any(request.is_waiting for request in found):
            await self.look()
        return await self._standings(found)

    async def late(self, etas: Callable[[int], float]) -> int:
        """How many wait who will be older than their deadlines by then."""
        await self.look()
        late, now = 0, self._clock.now()
        async for piece in in_pieces(self._known.items()):
            late += sum(request.is_waiting and now + etas(place - 1) > request.deadline for request, place in piece)
        return late

    # -- who is to leave

    async def cancel(self, id: str, seen: Seen, why: str) -> int:
        """End the requests of this id; how many there were."""
        found = await self._found(id, seen)
        for request in found:
            request.interrupt(Cancelled(why))
        return len(found)

    async def _found(self, id: str, seen: Seen) -> list[ProxyRequest]:
        return await sifted(list(self._present), lambda request: request.id == id and is_seen(request, seen))

    async def _standings(self, requests: Iterable[ProxyRequest]) -> list[Standing]:
        """Of those that have not left while others were looked at."""
        etas, standings = self._etas(), list[Standing]()
        async for piece in in_pieces(requests):
            standings += [self._standing(request, etas) for request in piece if request in self._present]
        return standings

    def _standing(self, request: ProxyRequest, etas: Callable[[int], float]) -> Standing:
        now, began = self._clock.now(), self._flights.began.get(request)
        place = self._place(request)
        return Standing(
            id=request.id,
            caller=request.caller,
            priority=request.priority,
            model=request.model,
            attempts=request.attempts,
            place=place,
            eta=etas(place - 1) if place else None,
            waited=request.waited if began is not None else now - request.arrived,
            took=None if began is None else now - began,
            left=request.deadline - now,
        )

    def _place(self, request: ProxyRequest) -> int:
        """Whoever has just come has the place that it was told; between two attempts there is none."""
        if not request.is_waiting:
            return 0
        return self._known.get(request, 0 if request.attempts else request.position)


def is_seen(request: ProxyRequest, seen: Seen) -> bool:
    return seen is None or request.caller in seen


async def sifted(requests: Iterable[ProxyRequest], wanted: Callable[[ProxyRequest], bool]) -> list[ProxyRequest]:
    """Those that are wanted; the loop may do other things meanwhile."""
    found: list[ProxyRequest] = []
    async for piece in in_pieces(requests):
        found += filter(wanted, piece)
    return found


async def in_pieces(things: Iterable[T]) -> AsyncIterator[Sequence[T]]:
    """AT_ONCE of them, then the next ones when others have had their turn."""
    rest = iter(things)
    while piece := list(islice(rest, AT_ONCE)):
        yield piece
        await asyncio.sleep(0)
