"""What traces cost: `python -m benchmarks.traced`.

Native chat, no pacing, no bound on calls in flight: a service that makes none beside one whose every request is traced
to a collector that takes all, and one that is asked to trace every hundredth. Rounds alternate.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import environ
from statistics import median

from benchmarks.load import Load
from benchmarks.processes import Process, run_load, service, upstream
from benchmarks.report import Check, Report, Size, command, ratios
from benchmarks.throughput import CONNECTIONS, Rounds, table

OFF, EVERY, SOME = "no traces", "every request traced", "one in 100"
#: The share of the throughput that is left.
LEAST = 0.5
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}


def run(size: Size) -> Report:
    rounds, seconds = int(size.pick(7, 3, 1)), size.pick(3, 2, 0.3)
    many: Mapping[str, Rounds] = defaultdict(Rounds)
    one: Mapping[str, Rounds] = defaultdict(Rounds)
    # Whatever answers 200 is a collector.
    with upstream() as api, upstream() as collector:
        traced = {"otel_exporter_otlp_endpoint": collector.url}
        with service(api) as off, service(api, **traced) as every, sampled(api, traced) as some:
            targets = {OFF: off, EVERY: every, SOME: some}
            for process in targets.values():
                run_load(Load(process.url, CONNECTIONS, seconds / 3))  # warm
            for _ in range(rounds):
                for name, process in targets.items():
                    many[name].add(process, Load(process.url, CONNECTIONS, seconds))
                for name, process in targets.items():
                    one[name].add(process, Load(process.url, 1, seconds / 2))
    return report(many, one)


@contextmanager
def sampled(api: Process, traced: Mapping[str, str]) -> Iterator[Process]:
    before = {name: environ.pop(name, None) for name in SAMPLED}
    environ.update(SAMPLED)
    try:
        with service(api, **traced) as process:
            yield process
    finally:
        for name in SAMPLED:
            del environ[name]
        environ.update({name: value for name, value in before.items() if value is not None})


def report(many: Mapping[str, Rounds], one: Mapping[str, Rounds]) -> Report:
    off = many[OFF]
    checks = [
        *(
            Check(f"requests a CPU second, {name} / {OFF}", median(ratios(off.cpu, many[name].cpu)), least=LEAST)
            for name in (EVERY, SOME)
        ),
        Check(f"requests a second, {EVERY} / {OFF}", median(ratios(many[EVERY].rate, off.rate)), least=LEAST),
    ]
    tables = [
        table(f"{CONNECTIONS} connections, {len(off.cpu)} alternating rounds: median (least-greatest)", many),
        table("1 connection", one),
    ]
    return Report("traced", checks, tables)


if __name__ == "__main__":
    command(run)
