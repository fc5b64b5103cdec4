"""The line itself: who waits, and who goes next."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Protocol, TypeVar

from proxy.line import Priority
from proxy.order import FairOrder, Waiting

#: While both kinds wait, so many live requests go for one batch request.
LIVE_RUN = 19


class InLine(Waiting, Protocol):
    """What the line has to know of a request, besides what its order does."""

    position: int

    @property
    def priority(self) -> Priority: ...

    @property
    def is_waiting(self) -> bool: ...


T = TypeVar("T", bound=InLine)


class FairQueue(asyncio.Queue[T]):
    """The line: returned requests first, then live ones in weighted fair order, then batch."""

    def _init(self, maxsize: int) -> None:
        self._front: deque[T] = deque()
        self._live: FairOrder[T] = FairOrder()
        self._batch: FairOrder[T] = FairOrder()
        self._live_in_a_row = 0
        self._somebody = asyncio.Event()
        #: What is done only while somebody waits.
        self._blocks: set[asyncio.Timeout] = set()

    def qsize(self) -> int:
        return len(self._front) + len(self._live) + len(self._batch)

    def empty(self) -> bool:
        return not self.qsize()

    def resize(self, size: int) -> None:
        """So many may wait from now on. Whoever waits already, goes on waiting."""
        self._maxsize = size

    async def somebody(self) -> None:
        """Wait until somebody waits."""
        await self._somebody.wait()

    @asynccontextmanager
    async def while_somebody(self) -> AsyncIterator[None]:
        """Ends the block with a TimeoutError when nobody waits any more."""
        async with asyncio.timeout(None) as block:
            self._blocks.add(block)
            try:
                yield
            finally:
                self._blocks.discard(block)

    def _put(self, request: T) -> None:
        request.position = self._place(request, self._order_of(request).add(request))
        self._somebody.set()

    def put_ahead(self, request: T) -> None:
        """Let it in whatever the bound, before the others of its own flow: its turn in line has come already."""
        request.position = self._place(request, self._order_of(request).add(request, ahead=True))
        self._somebody.set()

    def put_back(self, request: T) -> None:
        """To the front: it has waited already."""
        if request.is_waiting:
            self._front.append(request)
            self._somebody.set()

    def _get(self) -> T:
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

    def remove(self, request: T) -> None:
        """Take it out, wherever it waits. Is idempotent."""
        if not self._order_of(request).remove(request) and request in self._front:
            self._front.remove(request)
        self._note_empty()

    def snapshot(self) -> Iterator[T]:
        """The order in which they will go if nobody comes or leaves.

        If some do while it is told, it goes on with whom it had seen by then; who has left meanwhile may be among them.
        """
        yield from list(self._front)
        batch = iter(self._batch)
        for run, request in enumerate(self._live, self._live_in_a_row):
            if run and run % LIVE_RUN == 0:
                yield from islice(batch, 1)
            yield request
        yield from batch

    def _order_of(self, request: T) -> FairOrder[T]:
        return self._batch if request.priority is Priority.BATCH else self._live

    def _place(self, request: T, ahead: int) -> int:
        """Its position, from 1, when `ahead` of its own kind, live or batch, go before it."""
        if request.priority is Priority.BATCH:
            others = min(len(self._live), (ahead + 1) * LIVE_RUN - self._live_in_a_row)
        else:
            others = min(len(self._batch), (ahead + self._live_in_a_row) // LIVE_RUN)
        return len(self._front) + ahead + others + 1

    def _note_empty(self) -> None:
        if self.empty():
            self._somebody.clear()
            for block in self._blocks:
                if block.when() is None:
                    block.reschedule(0)
