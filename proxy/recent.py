"""What happened of late, in numbers: a sample a second for an hour, durations of a minute, counts by name."""

import time
from collections import Counter, deque
from dataclasses import dataclass

#: Seconds of history, and over which durations are told.
HOUR, MINUTE = 3600, 60
#: Durations that are kept, and names that are counted in one part of the time.
TIMES, NAMES = 2000, 200
#: What stands for the names beyond those.
OTHERS = "others"


@dataclass(slots=True)
class Sample:
    """A second. Times are seconds, of the last minute; None: nothing was answered in it, or no pace is set."""

    t: int
    waiting: int = 0
    in_flight: int = 0
    used: float | None = None
    wait50: float | None = None
    wait95: float | None = None
    call50: float | None = None
    call95: float | None = None
    ok: int = 0
    failed: int = 0
    retried: int = 0


#: What of the samples is drawn, and what of them is summed up.
DRAWN = ("t", "waiting", "in_flight", "used", "wait95", "call95", "ok", "failed", "retried")
SUMMED = ("ok", "failed", "retried")


class Hour:
    """The samples of the last hour: as columns, and the sums of some."""

    def __init__(self) -> None:
        self._columns: dict[str, deque[float | None]] = {name: deque(maxlen=HOUR) for name in DRAWN}
        self.sums = dict.fromkeys(SUMMED, 0)
        self.last = Sample(0)

    def add(self, sample: Sample) -> None:
        self.last = sample
        for name in SUMMED:
            column = self._columns[name]
            leaving = int(column[0] or 0) if len(column) == HOUR else 0
            self.sums[name] += getattr(sample, name) - leaving
        for name, column in self._columns.items():
            column.append(getattr(sample, name))

    def columns(self) -> dict[str, list[float | None]]:
        return {name: list(column) for name, column in self._columns.items()}


class Times:
    """Durations of the last minute."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, float]] = deque(maxlen=TIMES)

    def add(self, seconds: float) -> None:
        self._known.append((time.monotonic(), seconds))

    def shares(self, *shares: float) -> list[float | None]:
        """The durations below which these shares of all are."""
        since = time.monotonic() - MINUTE
        while self._known and self._known[0][0] < since:
            self._known.popleft()
        ordered = sorted(seconds for _, seconds in self._known)
        if not ordered:
            return [None] * len(shares)
        return [round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) for share in shares]


class Tallies:
    """Counts by name, forgotten after a while: `seconds`, in `parts`. Of each part NAMES names are told apart."""

    def __init__(self, seconds: int, parts: int) -> None:
        self._part = seconds // parts
        self._counts: deque[tuple[int, Counter[str]]] = deque(maxlen=parts)

    def add(self, name: str, amount: int = 1) -> None:
        part = int(time.monotonic()) // self._part
        if not self._counts or self._counts[-1][0] != part:
            self._counts.append((part, Counter()))
        counts = self._counts[-1][1]
        counts[name if name in counts or len(counts) < NAMES else OTHERS] += amount

    def all(self) -> Counter[str]:
        oldest = int(time.monotonic()) // self._part - (self._counts.maxlen or 0)
        total: Counter[str] = Counter()
        for part, counts in self._counts:
            if part > oldest:
                total.update(counts)
        return total
