"""What comes of a change of limits: in numbers, and in words. Pure, but for who will be late."""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from proxy.estimate import Lanewide
from proxy.limits.overrides import CONCURRENCY, PAUSED, QUEUE_SIZE, RPM, TIMEOUT, in_force
from proxy.line import Line

#: By field of `proxy.limits.overrides`; 0: no limit.
Values = Mapping[str, float]


class Forecast(NamedTuple):
    """How a line fares under these limits: seconds until the last who waits is sent, how many will be too late.

    None: nobody knows, since it is paused.
    """

    values: Values
    clears_in: float | None
    late: int | None


class Effect(NamedTuple):
    """A line before a change and after it; `allowed` is how many may then be in flight, None: any number."""

    waiting: int
    in_flight: int
    allowed: int | None
    before: Forecast
    after: Forecast

    @property
    def text(self) -> str:
        """For people."""
        return "; ".join(
            [self._of_the_line(), *filter(None, (self._of_calls(), self._of_newcomers(), self._of_time()))]
        )

    def _of_the_line(self) -> str:
        if self.after.clears_in is None:
            return f"paused: nothing is sent until it is resumed, {self._who_waits}"
        if not self.waiting:
            return "nobody waits"
        late = f", too late for {self.after.late} of them" if self.after.late else ""
        return f"the line of {self.waiting} clears in {spoken(self.after.clears_in)}{late}"

    @property
    def _who_waits(self) -> str:
        return f"{self.waiting} {'waits' if self.waiting == 1 else 'wait'}" if self.waiting else "nobody waits"

    def _of_calls(self) -> str:
        more = self.in_flight - (self.in_flight if self.allowed is None else self.allowed)
        return f"{more} more are in flight than may be: no call begins until they have ended" if more > 0 else ""

    def _of_newcomers(self) -> str:
        size = int(self.after.values[QUEUE_SIZE])
        is_full = self.waiting >= size
        return f"newcomers get 429 until fewer than {size} wait" if is_full else ""

    def _of_time(self) -> str:
        timeout = self.after.values[TIMEOUT]
        is_changed = timeout != self.before.values[TIMEOUT]
        return f"calls that begin from now on may take {spoken(timeout)}" if is_changed else ""


async def effect(line: Line, before: Values, after: Values) -> Effect:
    """Of a change of a line's limits from these values to those, if it were made now."""
    state = line.state()
    then = under(state.limits, before, after)
    return Effect(
        waiting=state.waiting,
        in_flight=state.limits.in_flight,
        allowed=then.allowed,
        before=await forecast(line, before, state.limits, state.waiting),
        after=await forecast(line, after, then, state.waiting),
    )


async def forecast(line: Line, values: Values, limits: Lanewide, waiting: int) -> Forecast:
    if limits.is_held:
        return Forecast(values, None, None)
    if not waiting:
        return Forecast(values, 0.0, 0)
    etas = partial(line.eta_by, limits=limits)
    return Forecast(values, etas(waiting - 1), await line.places.late(etas))


def under(limits: Lanewide, before: Values, after: Values) -> Lanewide:
    """The limits of a lane if others held, from now on."""
    rpm, bound = in_force({}, RPM, after[RPM]), in_force({}, CONCURRENCY, after[CONCURRENCY])
    return limits._replace(
        rpm=rpm,
        concurrency=None if bound is None else int(bound),
        allowed=allowed(limits, before, bound),
        next_send=next_send(limits, 60 / rpm if rpm else 0.0),
        is_held=bool(after[PAUSED]),
    )


def allowed(limits: Lanewide, before: Values, bound: float | None) -> int | None:
    """How many may be in flight: what the API's 429s have taught is not forgotten."""
    is_taught = limits.allowed is not None and limits.allowed != before[CONCURRENCY]
    taught = limits.allowed if is_taught and limits.allowed is not None else math.inf
    least = min(taught, math.inf if bound is None else bound)
    return None if least == math.inf else int(least)


def next_send(limits: Lanewide, interval: float) -> float:
    """Seconds until the next send: as far from the last one as the new pace wants it, and not within a pause."""
    if limits.next_send <= limits.paused:
        return limits.paused
    return max(limits.paused, limits.next_send - limits.interval + interval)


def spoken(seconds: float) -> str:
    """`4 min 48 s`, `1 h 5 min`, `2 d 3 h`; below ten seconds with a tenth."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for (name, length), (rest, part) in (
        (("d", 86_400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= length:
            more = whole % length // part
            return f"{whole // length} {name}" + (f" {more} {rest}" if more else "")
    return f"{whole} s"
