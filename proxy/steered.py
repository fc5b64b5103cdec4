"""What operators can change of a line while it works: what the settings say, and what holds in their place."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from proxy.attempt import Flights
from proxy.limits import Limits
from proxy.limits.overrides import (
    CONCURRENCY,
    PAUSED,
    QUEUE_SIZE,
    RPM,
    TIMEOUT,
    Changes,
    Overrides,
    in_force,
)


class Bounded(Protocol):
    """A line with a bound."""

    @property
    def maxsize(self) -> int: ...

    def resize(self, size: int) -> None: ...


class Steered:
    """The limits of a line: the accounts' own, its time-out, its bound. What is set for them holds for each account.

    Args:
        flights: whose time-out is changed, for calls that begin from then on.
        line: whose bound is changed: nobody is thrown out, newcomers are refused.
    """

    def __init__(self, limits: Sequence[Limits], flights: Flights, line: Bounded) -> None:
        self._limits = limits
        self._flights = flights
        self._line = line
        bounds = limits[0].settings
        #: By field; 0 stands for "no limit".
        self.settings: Mapping[str, float] = {
            RPM: bounds.rpm or 0,
            CONCURRENCY: bounds.concurrency or 0,
            TIMEOUT: flights.call_timeout,
            QUEUE_SIZE: line.maxsize,
            PAUSED: False,
        }
        limits[0].listen(self._heed)
        self._heed()

    @property
    def overrides(self) -> Overrides:
        """What operators have set."""
        return self._limits[0].overrides

    async def override(self, changes: Changes) -> str:
        """See `Limits.override`."""
        return "; ".join(filter(None, [await limits.override(changes) for limits in self._limits]))

    async def refresh(self) -> None:
        """See `Limits.refresh`."""
        for limits in self._limits:
            await limits.refresh()

    async def settled(self) -> None:
        """See `Limits.settled`."""
        for limits in self._limits:
            await limits.settled()

    def _heed(self) -> None:
        timeout = in_force(self.overrides, TIMEOUT, self.settings[TIMEOUT])
        size = in_force(self.overrides, QUEUE_SIZE, self.settings[QUEUE_SIZE])
        assert timeout is not None and size is not None  # neither may be 0
        self._flights.call_timeout = timeout
        self._line.resize(int(size))
