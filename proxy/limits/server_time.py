"""Redis's clock, as far as this process can tell: its distance from ours is known to lie within two bounds."""

import math
from collections.abc import Callable

from proxy.limits.wire import DRIFT, MICROSECONDS

#: Seconds that a round trip is supposed to take before one was measured.
FIRST_GUESS = 0.005
#: What is left, with each further round trip, of the memory of a slow one.
FADING = 0.9


class ServerTime:
    """Instants of the server (microseconds) in monotonic seconds of ours, and back.

    Whatever the server told was read after we had asked and before we had the answer, so each round trip gives two
    bounds; they are kept as long as they are the better ones, widening with time since clocks drift.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        #: Our clock less the server's, in seconds: at least, at most, and when that was known.
        self._least, self._most, self._at = -math.inf, math.inf, now()
        self._is_another = False
        self._last = self.round_trip = FIRST_GUESS

    def forget(self) -> None:
        """It may be another server, with another clock, from the next answer on."""
        self._is_another = True

    def learn(self, read: int, read_again: int, *, heard: float, asked: float = -math.inf) -> None:
        """The server read its clock after `asked`, and again before `heard`."""
        is_answer = asked > -math.inf
        drift = (heard - asked) * DRIFT / 2 if is_answer else 0.0
        told = asked - read / MICROSECONDS - drift, heard - read_again / MICROSECONDS + drift
        least, most = self._bounds()
        least, most = max(least, told[0]), min(most, told[1])
        if self._is_another or least > most:  # or its clock was set
            least, most = told
        self._least, self._most, self._at, self._is_another = least, most, self._now(), False
        if is_answer:
            self._last = told[1] - told[0]
            self.round_trip = max(heard - asked, self.round_trip * FADING)

    @property
    def doubt(self) -> float:
        """Seconds by which the next answer may leave us in doubt about the server's clock."""
        least, most = self._bounds()
        return min(most - least, self._last)

    def at_latest(self, instant: int) -> float:
        """When it is surely that late at the server."""
        return instant / MICROSECONDS + self._most + self._drift(instant / MICROSECONDS + self._most)

    def at_earliest(self, instant: int) -> float:
        """Until when it is surely not later than that at the server."""
        return instant / MICROSECONDS + self._least - self._drift(instant / MICROSECONDS + self._least)

    def there(self, instant: float) -> int:
        """What the server's clock shows at most at an instant of ours."""
        return math.ceil((instant - self._least) * MICROSECONDS)

    def _bounds(self) -> tuple[float, float]:
        drift = self._drift(self._now())
        return self._least - drift, self._most + drift

    def _drift(self, instant: float) -> float:
        away = abs(instant - self._at)
        return away * DRIFT / 2 if away < math.inf else 0.0
