"""How long a request will wait: the pace alone, or the calls before it at the latency of late, whichever is more."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from proxy.limits import LimitsState

Number = TypeVar("Number", int, float)

#: How many latencies the mean is taken of.
LATENCIES = 50


class Latencies:
    """The `mean` of the last calls, in seconds from send to the end of the answer; None before the first."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=LATENCIES)
        self.mean: float | None = None

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self.mean = sum(self._seconds) / len(self._seconds)


class Lanewide(NamedTuple):
    """The limits of a lane's accounts together. None stands for "no limit"; times are seconds from now.

    `lines` is how many lines take turns: this one, and those of other replicas where somebody waits.
    """

    rpm: float | None
    concurrency: int | None
    allowed: int | None
    in_flight: int
    next_send: float
    paused: float
    is_held: bool = False
    lines: int = 1

    @classmethod
    def of(cls, states: Sequence[LimitsState]) -> "Lanewide":
        if len(states) == 1:
            (one,) = states
            seen = one.rpm, one.concurrency, one.allowed, one.in_flight, one.next_send, one.paused, one.is_held
            return cls(*seen, one.lines)
        return cls(
            rpm=total([state.rpm for state in states]),
            concurrency=total([state.concurrency for state in states]),
            allowed=total([state.allowed for state in states]),
            in_flight=sum(state.in_flight for state in states),
            next_send=min(state.next_send for state in states),
            paused=min(state.paused for state in states),
            is_held=all(state.is_held for state in states),
            lines=max(state.lines for state in states),
        )

    @property
    def interval(self) -> float:
        return 60 / self.rpm if self.rpm else 0.0


def total(limits: Sequence[Number | None]) -> Number | None:
    """The sum; no limit at all if one of them is none."""
    known = [limit for limit in limits if limit is not None]
    return sum(known) if len(known) == len(limits) else None


def eta(ahead: int, lane: Lanewide, latency: float | None, ages: Iterable[float]) -> float:
    """Seconds until a request with `ahead` others before it is sent.

    Args:
        latency: mean seconds of a call; None before the first answer: then the pace alone is known, and the one call
            that is under way is no measure for those after it.
        ages: seconds since each call in flight was sent, the oldest first.
    """
    ahead *= lane.lines
    by_pace = lane.next_send + ahead * lane.interval
    if latency is None or lane.allowed is None or ahead < lane.allowed - lane.in_flight:
        return by_pace
    oldest = next(iter(ages), 0.0)
    ahead -= max(0, lane.allowed - lane.in_flight)
    by_slots = max(0.0, latency - oldest) + ahead / lane.allowed * latency
    return max(by_pace, by_slots)
