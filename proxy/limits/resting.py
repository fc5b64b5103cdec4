"""Waiting for an instant, or for something to happen before it."""

import asyncio
import math

from proxy.clock import Clock


class Resting:
    """Those who wait. Whoever is woken looks for itself whether it may go; there are never many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._woken: set[asyncio.Future[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._woken)

    async def until(self, instant: float) -> None:
        """Return at this instant or when stirred; perhaps one clock tick early. Infinity: only when stirred."""
        woken = asyncio.get_running_loop().create_future()
        self._woken.add(woken)
        timer = None if instant == math.inf else self._clock.call_at(instant, lambda: wake(woken))
        try:
            await woken
        finally:
            self._woken.discard(woken)
            if timer is not None:
                timer.cancel()

    def stir(self) -> None:
        """Something happened: everybody looks again."""
        for woken in self._woken:
            wake(woken)


def wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
