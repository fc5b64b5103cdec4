"""A clock that stands still until a test moves it: the loop's own time stands too, so time-outs wait for the test."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from proxy.clock import Clock

T = TypeVar("T")


class HeldClock(Clock):
    """Holds the running loop's time as well as its own; `forward` moves both, from timer to timer."""

    #: A timer of a held loop is never late, so nothing need be awaited busily.
    fine = 0.0

    def __init__(self, start: float = 1000.0) -> None:
        # Timers, `asyncio.timeout` and the code under test all ask the loop what time it is.
        self._loop: Any = asyncio.get_running_loop()
        self._loop.time = self.now
        self._time = start

    def now(self) -> float:
        return self._time

    async def settle(self) -> None:
        """Let everybody run who can run without time passing."""
        await asyncio.sleep(0)
        while self._loop._ready:  # noqa: ASYNC110 - no event tells that the loop has nothing left to do
            await asyncio.sleep(0)

    async def step(self) -> None:
        """One turn of the loop; time passes only if nobody can run without it."""
        await asyncio.sleep(0)
        if not self._loop._ready and (rings := self._next_timer()) < float("inf"):
            self._time = max(self._time, rings)

    async def forward(self, seconds: float) -> None:
        """Let time pass, stopping at each timer on the way."""
        end = self._time + seconds
        await self.settle()
        while (rings := self._next_timer()) <= end:
            self._time = max(self._time, rings)
            await self.settle()
        self._time = end
        await self.settle()

    async def wait_for(self, work: Awaitable[T]) -> T:
        """Let just as much time pass as `work` takes."""
        working = asyncio.ensure_future(work)
        await self.settle()
        while not working.done():
            rings = self._next_timer()
            assert rings < float("inf"), "it waits for something that no time will bring"
            self._time = max(self._time, rings)
            await self.settle()
        return working.result()

    def _next_timer(self) -> float:
        return min((timer.when() for timer in self._loop._scheduled if not timer.cancelled()), default=float("inf"))
