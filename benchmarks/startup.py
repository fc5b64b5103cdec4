"""From the process's start to its first answer, `app.py --sandbox`: `python -m benchmarks.startup`."""

import json
import os
import re
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from statistics import median

from benchmarks.load import BODY
from benchmarks.processes import HOME, server
from benchmarks.report import Check, Report, Size, Table, command, spread

IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")
#: How many imports are listed.
SHOWN = 12


def run(size: Size) -> Report:
    starts = [start() for _ in range(int(size.pick(11, 5, 1)))]
    seconds = [wall for wall, _ in starts]
    cpu = [used for _, used in starts]
    checks = [Check("seconds to the first answer, median", median(seconds), most=1.0)]
    times = Table(
        f"{len(starts)} starts: median (least-greatest)",
        ("seconds to the first answer", "CPU seconds of the whole life"),
        [(spread(seconds), spread(cpu))],
    )
    return Report("startup", checks, [times, imports()])


def start() -> tuple[float, float]:
    """Seconds until a chat is answered, and CPU seconds from birth to death."""
    used = children_cpu()
    began = time.monotonic()
    with server(
        "app.py", "--sandbox", "--host", "127.0.0.1", "--port", "0", "--log-level", "ERROR", "--drain-timeout", "0"
    ) as ours:
        request = urllib.request.Request(ours.url, BODY, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["status"] == "ok"
        seconds = time.monotonic() - began
    return seconds, children_cpu() - used


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def imports() -> Table:
    """The imports that take longest; what they import for the first time counts as theirs."""
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import app, emulator"],
        cwd=HOME,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    found = [(int(line[2]) / 1000, int(line[1]) / 1000, line[4]) for line in IMPORT.finditer(told)]
    longest: Sequence[tuple[float, float, str]] = sorted(found, reverse=True)[:SHOWN]
    rows = [(name, f"{whole:.1f}", f"{own:.1f}") for whole, own, name in longest]
    return Table("imports that take longest", ("module", "ms with what it imports", "ms alone"), rows)


if __name__ == "__main__":
    command(run)
