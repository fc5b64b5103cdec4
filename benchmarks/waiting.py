"""What a waiting request weighs: `python -m benchmarks.waiting`.

So many callers in line, heartbeats on, beside a bare aiohttp server that reads the same bodies and merely waits.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.load import Load
from benchmarks.processes import Process, bare, calling, service, upstream
from benchmarks.report import Check, Report, Size, Table, command

#: Files that a process has open besides its callers' connections.
OTHER_FILES = 100
#: Seconds that everybody may need to come in.
ARRIVAL = 60.0


@dataclass(frozen=True)
class Weight:
    """KB of memory before and with the callers waiting; CPU in percent of a core while they do; 102s sent to them."""

    name: str
    callers: int
    idle: float
    full: float
    cpu: float
    beats: int

    @property
    def each(self) -> float:
        return (self.full - self.idle) / self.callers


def run(size: Size) -> Report:
    callers, seconds = int(size.pick(10_000, 10_000, 100)), size.pick(5, 3, 0.3)
    callers = min(callers, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - OTHER_FILES)
    # One call a minute, so that only the first request leaves the line; and nobody's patience ends.
    with upstream() as api, bare(api) as through, service(api, ext_api_rpm=1, resp_timeout=1e9) as ours:
        weights = [
            weigh("bare aiohttp", through, through.url + "/wait", through.ask, callers, seconds),
            weigh("ours", ours, ours.url, lambda: 1 + ours.ask()["info"]["lane"]["waiting"], callers, seconds),
        ]
    return report(weights)


def weigh(name: str, process: Process, url: str, waiting: Callable[[], int], callers: int, seconds: float) -> Weight:
    waiting()  # whatever is made at the first request is made now
    idle = process.rss()
    with calling(Load(url, callers, ARRIVAL + seconds, is_once=True)) as load:
        deadline = time.monotonic() + ARRIVAL
        while waiting() < callers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {waiting()} of {callers} came in to {name}")
            time.sleep(0.2)
        time.sleep(min(1.0, seconds))  # for the first beats, and the last garbage
        before = process.cpu()
        time.sleep(seconds)
        cpu = 100 * (process.cpu() - before) / seconds
        full = process.rss()
        return Weight(name, callers, idle, full, cpu, load.stopped().beats)


def report(weights: Sequence[Weight]) -> Report:
    theirs, ours = weights
    checks = [
        Check("KB a waiting request above bare aiohttp", ours.each - theirs.each, most=3.0),
        Check(f"MB with {ours.callers} waiting", ours.full / 1024, most=200.0),
        Check("MB idle", ours.idle / 1024, most=80.0),
    ]
    rows = [
        (
            one.name,
            str(one.callers),
            f"{one.idle / 1024:.1f}",
            f"{one.full / 1024:.1f}",
            f"{one.each:.2f}",
            f"{one.cpu:.0f}",
            str(one.beats),
        )
        for one in weights
    ]
    columns = ("target", "waiting", "MB idle", "MB waiting", "KB each", "CPU % while they wait", "102s received")
    return Report("waiting", checks, [Table("memory (RSS)", columns, rows)])


if __name__ == "__main__":
    command(run)
