"""What a request costs us, beside a bare aiohttp pass-through without limits: `python -m benchmarks.throughput`.

Native chat, no pacing, no bound on calls in flight. Rounds alternate, and ratios are taken round by round. CPU time is
the number to trust: it does not suffer when others use the machine.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.load import Load
from benchmarks.processes import Process, bare, run_load, service, upstream
from benchmarks.report import Check, Report, Size, Table, command, differences, ratios, spread

CONNECTIONS = 64


@dataclass
class Rounds:
    """What each round gave: requests a second, ms of CPU a request, ms of latency."""

    rate: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, process: Process, load: Load) -> None:
        before = process.cpu()
        outcome = run_load(load)
        if set(outcome.answers) != {"200"}:
            raise RuntimeError(f"not all answers are 200: {outcome.answers}")
        self.rate.append(outcome.rate)
        self.cpu.append(1000 * (process.cpu() - before) / outcome.answered)
        self.p50.append(outcome.p50)
        self.p99.append(outcome.p99)


def run(size: Size) -> Report:
    rounds, seconds = int(size.pick(7, 3, 1)), size.pick(3, 2, 0.3)
    many: Mapping[str, Rounds] = defaultdict(Rounds)
    one: Mapping[str, Rounds] = defaultdict(Rounds)
    with upstream() as api, bare(api) as through, service(api) as ours:
        targets = {"direct": api, "pass-through": through, "ours": ours}
        for process in targets.values():
            run_load(Load(process.url, CONNECTIONS, seconds / 3))  # warm
        for _ in range(rounds):
            for name in ("pass-through", "ours"):
                many[name].add(targets[name], Load(targets[name].url, CONNECTIONS, seconds))
            for name, process in targets.items():
                one[name].add(process, Load(process.url, 1, seconds / 2))
    return report(many, one)


def report(many: Mapping[str, Rounds], one: Mapping[str, Rounds]) -> Report:
    ours, through = many["ours"], many["pass-through"]
    added = {name: differences(one["ours"].p50, one[name].p50) for name in ("direct", "pass-through")}
    checks = [
        Check("requests a CPU second, ours / pass-through", median(ratios(through.cpu, ours.cpu)), least=0.6),
        Check("requests a second, ours / pass-through", median(ratios(ours.rate, through.rate)), least=0.6),
        Check("added p50 over direct, ms, 1 connection", median(added["direct"]), most=1.0),
        Check("added p50 over pass-through, ms, 1 connection", median(added["pass-through"])),
    ]
    tables = [
        table(f"{CONNECTIONS} connections, {len(ours.cpu)} alternating rounds: median (least-greatest)", many),
        table("1 connection; the CPU of direct is the upstream's", one),
    ]
    return Report("throughput", checks, tables)


def table(title: str, targets: Mapping[str, Rounds]) -> Table:
    rows = [
        (name, spread(got.rate, ".0f"), spread(got.cpu), spread(got.p50), spread(got.p99))
        for name, got in targets.items()
    ]
    return Table(title, ("target", "requests a second", "CPU ms a request", "p50 ms", "p99 ms"), rows)


if __name__ == "__main__":
    command(run)
