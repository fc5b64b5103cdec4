"""The one clock of the line and its limits; tests hold it and move it by hand."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock:
    """Monotonic seconds, and two ways to wait for an instant. Neither ever returns early."""

    #: Seconds before the instant from which `exactly` yields to the loop instead of sleeping: an asyncio timer fires
    #: up to about a millisecond late, which at 6000 RPM would be a tenth of the interval.
    fine = 0.0012

    def now(self) -> float:
        """Monotonic seconds; only differences mean anything."""
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call back at `when` or up to a few milliseconds later, but perhaps one clock tick early."""
        # asyncio's own clock is time.monotonic too.
        return asyncio.get_running_loop().call_at(when, callback)

    async def until(self, when: float) -> None:
        """Return at `when` or up to a few milliseconds later."""
        while self.now() < when:
            rung = asyncio.get_running_loop().create_future()
            timer = self.call_at(when, lambda rung=rung: rung.done() or rung.set_result(None))  # type: ignore[misc]
            try:
                await rung
            finally:
                timer.cancel()

    async def exactly(self, when: float) -> None:
        """Return at `when` or some microseconds later, at the price of a busy last millisecond."""
        await self.until(when - self.fine)
        while self.now() < when:  # noqa: ASYNC110
            await asyncio.sleep(0)  # not polling: the last millisecond, which no timer can hit
