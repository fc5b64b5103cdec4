"""Numbers that only grow, by their labels, and how Prometheus reads them.

Rule 1: counting is an addition in memory, so that nobody waits for it.
Rule 2: whatever callers make up, there are at most so many label values and so many series; the rest is OTHER.
Rule 3: writing them takes milliseconds: it is done in pieces, and whatever is due goes first between two of them.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from time import monotonic

from prometheus_client import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

#: What stands for all that has no series of its own.
OTHER = "other"
#: Characters of a name that are looked at, and that are kept: a secret that goes beyond the kept ones is still known.
READ = 1000
LONGEST = 64
#: Samples that are written in one go, which takes about a quarter of a millisecond.
AT_ONCE = 20

Labels = tuple[str, ...]


class Names:
    """Label values: at most `most` different ones. Which they are is told by who comes first.

    Args:
        hidden: blots out what must not be told.
    """

    def __init__(self, most: int, hidden: Callable[[str], str] = str) -> None:
        self._most = most
        self._hidden = hidden
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        text = text[:READ]
        label = self._known.get(text)
        if label is None:
            if len(self._known) >= self._most:
                return OTHER
            label = self._known[text] = printable(self._hidden(text))[:LONGEST]
        return label


def printable(text: str) -> str:
    """What every reader of labels takes."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Counts:
    """A counter: how often, or how much, by labels.

    Args:
        most: series that are told apart; there are at most twice so many.
        spared: the label that is given up first, all of them if it is "".
    """

    def __init__(self, name: str, sentence: str, *labels: str, spared: str = "", most: int = 1000) -> None:
        self._name = name
        self._sentence = sentence
        self._labels = labels
        self._spared = labels.index(spared) if spared else None
        self._most = most
        self._values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        try:
            self._values[labels] += amount
        except KeyError:
            self._values[self._admitted(labels)] += amount

    def _admitted(self, labels: Labels) -> Labels:
        """The series of these labels, made if there is room."""
        if len(self._values) >= self._most:
            place = self._spared
            labels = (OTHER,) * len(labels) if place is None else (*labels[:place], OTHER, *labels[place + 1 :])
        if labels not in self._values and len(self._values) >= 2 * self._most:
            labels = (OTHER,) * len(labels)
        self._values.setdefault(labels, 0)
        return labels

    def parts(self) -> Iterator[Metric]:
        """A part of the family at a time, each as it is then; one without samples if there are none yet."""
        values = list(self._values.items())
        for first in range(0, max(1, len(values)), AT_ONCE):
            part = CounterMetricFamily(self._name, self._sentence, labels=self._labels)
            for labels, value in values[first : first + AT_ONCE]:
                part.add_metric(labels, value)
            yield part


class Spans:
    """A histogram of seconds by labels, whose values are few."""

    def __init__(self, name: str, sentence: str, *labels: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._sentence = sentence
        self._labels = labels
        self._bounds = bounds
        #: By labels, how many there were between two bounds each, and their sum.
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def add(self, labels: Labels, seconds: float) -> None:
        if labels not in self._counts:
            self._counts[labels], self._sums[labels] = [0] * (len(self._bounds) + 1), 0.0
        self._counts[labels][bisect_left(self._bounds, seconds)] += 1
        self._sums[labels] += seconds

    def parts(self) -> Iterator[Metric]:
        """The same as for `Counts`, a histogram at a time."""
        if not self._counts:
            yield HistogramMetricFamily(self._name, self._sentence, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, counts in list(self._counts.items()):
            part = HistogramMetricFamily(self._name, self._sentence, labels=self._labels)
            part.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), self._sums[labels])
            yield part


class Sends:
    """How many calls were sent: in all, and in the last 60 s, to the second."""

    MINUTE = 60

    def __init__(self) -> None:
        self.total = 0
        #: By the second of its last use, modulo their number: the second, and how many were sent in it.
        self._seconds = [(0, 0)] * (self.MINUTE + 1)

    def add(self, at: float) -> None:
        """One was sent at this monotonic second."""
        self.total += 1
        second = int(at)
        place = second % len(self._seconds)
        last, count = self._seconds[place]
        self._seconds[place] = second, count + 1 if last == second else 1

    def last_minute(self, now: float | None = None) -> int:
        """In the 60 whole seconds before the one that runs."""
        running = int(monotonic() if now is None else now)
        return sum(count for second, count in self._seconds if running - self.MINUTE <= second < running)


async def text_of(parts: Iterable[Metric]) -> bytes:
    """What Prometheus reads, of families and parts of families; the loop may do other things meanwhile."""
    written, name = [], ""
    for part in parts:
        piece = generate_latest(Alone(part))
        # Each begins with the head of its family, two lines, which must not come twice.
        written.append(piece.split(b"\n", 2)[2] if part.name == name else piece)
        name = part.name
        await asyncio.sleep(0)
    return b"".join(written)


class Alone(Collector):
    """A family by itself."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)
