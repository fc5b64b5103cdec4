"""Places kept for callers who were refused: whoever comes back after its Retry-After is admitted."""

import math
from bisect import bisect_left, insort

#: Seconds for which a place is kept after the moment that was told.
GRACE = 60.0
MOST = 10_000
#: Seconds between two sweeps for places that nobody came back for.
SWEEP = 1.0


class Promises:
    """Who was told to come back when. At most MOST are kept; a refusal beyond that keeps no place."""

    def __init__(self) -> None:
        self._due: dict[str, list[float]] = {}
        self._count = 0
        self._swept = -math.inf

    def __len__(self) -> int:
        return self._count

    def give(self, caller: str, now: float, wait: float) -> float:
        """Keep a place from `wait` seconds on. Returns the Retry-After to tell: whole seconds, at least 1."""
        self._sweep(now)
        seconds = max(1, math.ceil(wait))
        if self._count < MOST:
            insort(self._due.setdefault(caller, []), now + seconds)
            self._count += 1
        return float(seconds)

    def redeem(self, caller: str, now: float) -> bool:
        """True, once for each promise, if the caller was told to come back by now."""
        kept = self._due.get(caller, [])
        forgotten = bisect_left(kept, now - GRACE)
        del kept[:forgotten]
        # Network and timers may deliver a caller a hair before the whole second it was told.
        is_due = bool(kept) and kept[0] <= now + 0.05
        if is_due:
            del kept[0]
        self._count -= forgotten + is_due
        if not kept:
            self._due.pop(caller, None)
        return is_due

    def _sweep(self, now: float) -> None:
        if now - self._swept < SWEEP:
            return
        self._swept = now
        self._due = {
            caller: fresh
            for caller, kept in self._due.items()
            if (fresh := [due for due in kept if due + GRACE >= now])
        }
        self._count = sum(map(len, self._due.values()))
