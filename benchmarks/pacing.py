"""How even and how near to the ideal rate calls leave, on the upstream's clock: `python -m benchmarks.pacing`.

A burst of requests at once, the upstream answers in 50 ms. Once it only observes; once it also refuses with 429 what
comes too close. The clock is that of the kernel, which stamps what the upstream's sockets receive.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from statistics import median
from typing import Any

from benchmarks.load import Load
from benchmarks.processes import Process, run_load, service, upstream
from benchmarks.report import Check, Report, Size, Table, command, spread

LATENCY = 0.05


@dataclass(frozen=True)
class Burst:
    """So many requests at once at this pace, and what should come of it: a share of the rate, a least gap in ms."""

    rpm: int
    requests: int
    rate: float | None = None
    gap: float | None = None

    @property
    def interval(self) -> float:
        """In seconds."""
        return 60 / self.rpm

    @property
    def tolerated(self) -> float:
        """The gap in seconds under which an upstream that enforces refuses."""
        return self.gap / 1000 if self.gap else self.interval / 2


BURSTS = (Burst(600, 60, 99.5, 99.0), Burst(6000, 300, 97.0, 9.0), Burst(60_000, 1000))


@dataclass(frozen=True)
class Seen:
    """What the upstream saw of one burst. Gaps in ms; the rate in percent of the ideal."""

    rate: float
    gaps: Sequence[float]
    inversions: int
    refused: int
    wasted: int
    answered: int


def run(size: Size) -> Report:
    rounds = int(size.pick(5, 2, 1))
    bursts = BURSTS if size is not Size.SMOKE else tuple(Burst(b.rpm, 6, b.rate, b.gap) for b in BURSTS)
    checks: list[Check] = []
    rows: list[Sequence[str]] = []
    for burst in bursts:
        for does_enforce in (False, True):
            seen = measure(burst, does_enforce, rounds)
            checks += judged(burst, does_enforce, seen)
            rows.append(row(burst, does_enforce, seen))
    return Report("pacing", checks, [Table(f"{rounds} rounds each: median (least-greatest)", COLUMNS, rows)])


def measure(burst: Burst, does_enforce: bool, rounds: int) -> list[Seen]:
    enforced = burst.tolerated if does_enforce else 0.0
    with upstream(LATENCY, enforced) as api, service(api, ext_api_rpm=burst.rpm) as ours:
        return [one_burst(burst, api, ours) for _ in range(rounds)]


def one_burst(burst: Burst, api: Process, ours: Process) -> Seen:
    seconds = 3 * burst.requests * burst.interval + 5
    outcome = run_load(Load(ours.url, burst.requests, seconds, is_once=True))
    calls: list[dict[str, Any]] = sorted(api.ask("/calls"), key=itemgetter("at"))
    stamps = [call["at"] for call in calls]
    numbers = [call["number"] for call in calls]
    accepted = len(calls) - sum(call["is_refused"] for call in calls)
    return Seen(
        rate=100 * (accepted - 1) * burst.interval / (stamps[-1] - stamps[0]),
        gaps=[1000 * (later - earlier) for earlier, later in pairwise(stamps)],
        inversions=sum(later < earlier for earlier, later in pairwise(numbers)),
        refused=len(calls) - accepted,
        wasted=len(calls) - len(set(numbers)),
        answered=outcome.answered,
    )


def judged(burst: Burst, does_enforce: bool, seen: Sequence[Seen]) -> list[Check]:
    name = f"{burst.rpm} RPM{', enforced' if does_enforce else ''}"
    target = 0 if burst.gap else None
    checks = [
        Check(f"{name}: % of the ideal rate", median(one.rate for one in seen), least=burst.rate),
        Check(f"{name}: calls wasted", sum(one.wasted for one in seen), most=target),
        Check(f"{name}: requests not answered 200", sum(burst.requests - one.answered for one in seen), most=0),
        # A refused call goes out again later, out of its order.
        Check(f"{name}: out of order", sum(one.inversions for one in seen if not one.refused), most=target),
    ]
    if not does_enforce:
        checks.insert(1, Check(f"{name}: least gap, ms", min(min(one.gaps) for one in seen), least=burst.gap))
    return checks


COLUMNS = (
    "RPM",
    "upstream",
    "requests",
    "% of ideal",
    "least gap ms",
    "median gap ms",
    "gaps under 99 %",
    "out of order",
    "refused",
    "wasted",
)


def row(burst: Burst, does_enforce: bool, seen: Sequence[Seen]) -> Sequence[str]:
    short = 990 * burst.interval
    return (
        str(burst.rpm),
        "refuses" if does_enforce else "observes",
        str(burst.requests),
        spread([one.rate for one in seen], ".2f"),
        spread([min(one.gaps) for one in seen], ".2f"),
        f"{median(gap for one in seen for gap in one.gaps):.3f}",
        str(sum(gap < short for one in seen for gap in one.gaps)),
        str(sum(one.inversions for one in seen)),
        str(sum(one.refused for one in seen)),
        str(sum(one.wasted for one in seen)),
    )


if __name__ == "__main__":
    command(run)
