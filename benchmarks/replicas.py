"""One limit kept by several replicas through Redis, on the upstream's clock: `python -m benchmarks.replicas`.

As many requests at once to each replica; the upstream answers in 50 ms and its kernel stamps what it receives. Once
nothing happens; once a replica is killed (-9) in the middle; once Redis is, and comes back with nothing. Redis itself
counts the round trips. It needs `redis-server`.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import redis

from benchmarks.load import Load
from benchmarks.processes import START_TIMEOUT, Process, calling, run_load, service, upstream
from benchmarks.report import Check, Report, Size, Table, command

LATENCY = 0.05
#: Calls in flight that all replicas may have together: more than there ever are.
IN_FLIGHT = 20
#: Seconds between two looks at what the upstream has received.
LOOK = 0.05
#: Seconds beyond the ideal ones in which all must be answered; Redis is away for a few of them.
SPARE = 30.0


@dataclass(frozen=True)
class Case:
    """Requests at once, spread over replicas, and what should come of it: a share of the rate, a least gap in ms.

    `accident` happens when half of the calls have come.
    """

    name: str
    rpm: int
    replicas: int
    requests: int
    accident: Callable[[Sequence[Process], "Redis"], None] | None = None
    rate: float | None = None
    gap: float | None = None

    @property
    def interval(self) -> float:
        """In seconds."""
        return 60 / self.rpm


@dataclass(frozen=True)
class Seen:
    """What the upstream, the callers and Redis saw. The rate in percent of the ideal, gaps in ms.

    Args:
        shares: the calls of each replica while all of them had somebody waiting.
        unanswered: requests that got no 200, by replica.
        wasted: calls made twice.
        trips: round trips to Redis for each call.
    """

    rate: float
    gaps: Sequence[float]
    shares: Sequence[int]
    unanswered: Sequence[int]
    wasted: int
    trips: float


# -- Redis


class Redis:
    """A server of the benchmark's own, which forgets everything when it ends, unless its options say otherwise."""

    def __init__(self, home: str, *options: str) -> None:
        self._home = home
        self._options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self._port}"
        self._client = redis.Redis(port=self._port)
        self._start()

    def _start(self) -> None:
        options = f"--bind 127.0.0.1 --port {self._port} --dir {self._home}".split()
        command = ["redis-server", *options, "--save", "", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """-9, and up again at once, empty."""
        self.kill()
        self._start()

    def stop(self) -> None:
        self._client.close()
        self.kill()

    def trips(self) -> int:
        """How often the script of the limits was run since it started."""
        stats: Any = self._client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))


@contextmanager
def redis_server(*options: str) -> Iterator[Redis]:
    with tempfile.TemporaryDirectory() as home:
        server = Redis(home, *options)
        try:
            yield server
        finally:
            server.stop()


# -- what is done


def kill_one(replicas: Sequence[Process], _: Redis) -> None:
    os.kill(replicas[0].pid, signal.SIGKILL)


def restart_redis(_: Sequence[Process], server: Redis) -> None:
    server.restart()


def cases(size: Size) -> tuple[Case, ...]:
    few, many = int(size.pick(300, 90, 12)), int(size.pick(1500, 300, 24))
    return (
        Case("600 RPM, 3 replicas", 600, 3, few, rate=98.0, gap=99.0),
        Case("the same, one killed", 600, 3, few, kill_one, gap=99.0),
        Case("the same, Redis restarted empty", 600, 3, few, restart_redis, gap=99.0),
        Case("3000 RPM, 4 replicas", 3000, 4, many, rate=95.0),
    )


def run(size: Size) -> Report:
    if shutil.which("redis-server") is None:
        return Report("replicas: redis-server is not installed (Debian, Ubuntu: apt install redis-server)", [], [])
    checks: list[Check] = []
    rows: list[Sequence[str]] = []
    for case in cases(size):
        seen = measure(case)
        checks += judged(case, seen)
        rows.append(row(case, seen))
    return Report("replicas", checks, [Table("one run each", COLUMNS, rows)])


def measure(case: Case) -> Seen:
    with ExitStack() as stack:
        server, api = stack.enter_context(redis_server()), stack.enter_context(upstream(LATENCY))
        knobs = {"ext_api_rpm": case.rpm, "ext_max_requests": IN_FLIGHT, "redis_url": server.url}
        replicas = [stack.enter_context(service(api, **knobs)) for _ in range(case.replicas)]
        for replica in replicas:  # connections and tokens are there
            run_load(Load(replica.url, 1, SPARE, is_once=True))
        api.ask("/calls")
        return one_run(case, api, server, replicas)


def one_run(case: Case, api: Process, server: Redis, replicas: Sequence[Process]) -> Seen:
    """Number by number the requests tell which replica they were sent to."""
    each = case.requests // case.replicas
    seconds = case.requests * case.interval + SPARE
    began = server.trips()
    with ExitStack() as stack:
        loads = [Load(one.url, each, seconds, is_once=True, first=n * each) for n, one in enumerate(replicas)]
        callers = [stack.enter_context(calling(load)) for load in loads]
        calls: list[dict[str, Any]] = []
        if case.accident is not None:
            while len(calls) < case.requests // 2:
                time.sleep(LOOK)
                calls += api.ask("/calls")
            case.accident(replicas, server)
        unanswered = [each - one.outcome().answered for one in callers]
    calls = sorted(calls + api.ask("/calls"), key=itemgetter("at"))
    # What was counted before Redis began anew is gone.
    trips = server.trips() - (0 if case.accident is restart_redis else began)
    return seen(case, calls, each, unanswered, trips)


def seen(case: Case, calls: Sequence[dict[str, Any]], each: int, unanswered: Sequence[int], trips: int) -> Seen:
    stamps = [call["at"] for call in calls]
    senders = [call["number"] // each for call in calls]
    since = max(senders.index(one) for one in set(senders))
    until = min(len(senders) - senders[::-1].index(one) for one in set(senders))
    counted = case.requests - case.requests // 2 if case.accident is restart_redis else len(calls)
    return Seen(
        rate=100 * (len(calls) - 1) * case.interval / (stamps[-1] - stamps[0]),
        gaps=[1000 * (later - earlier) for earlier, later in pairwise(stamps)],
        shares=[senders[since:until].count(one) for one in range(case.replicas)],
        unanswered=unanswered,
        wasted=len(calls) - len({call["number"] for call in calls}),
        trips=trips / counted,
    )


# -- what is told


def judged(case: Case, seen: Seen) -> list[Check]:
    is_killed = case.accident is kill_one
    held = " (but for the dead one's)" if is_killed else ""
    checks = [
        Check(f"{case.name}: least gap, ms", min(seen.gaps), least=case.gap),
        Check(f"{case.name}: requests not answered 200{held}", sum(seen.unanswered[is_killed:]), most=0),
        Check(f"{case.name}: calls wasted", seen.wasted, most=0),
        Check(f"{case.name}: round trips a call", seen.trips, most=3),
    ]
    if case.accident is None:
        even = 100 * min(seen.shares) * case.replicas / max(1, sum(seen.shares))
        checks.insert(0, Check(f"{case.name}: % of the ideal rate", seen.rate, least=case.rate))
        checks.append(Check(f"{case.name}: least turns of a replica, % of even ones", even, least=90))
    return checks


COLUMNS = ("case", "requests", "% of ideal", "least gap ms", "greatest", "turns", "not answered", "round trips a call")


def row(case: Case, seen: Seen) -> Sequence[str]:
    return (
        case.name,
        str(case.requests),
        f"{seen.rate:.2f}",
        f"{min(seen.gaps):.2f}",
        f"{max(seen.gaps):.0f}",
        " ".join(map(str, seen.shares)),
        " ".join(map(str, seen.unanswered)),
        f"{seen.trips:.2f}",
    )


if __name__ == "__main__":
    command(run)
