"""Accepted jobs a second, in the store and over HTTP: `python -m benchmarks.jobs`.

A job is accepted when it is on the disk. In the store they stand beside bare commits of SQLite: one connection that
commits one row at a time, as durably, without a loop, a thread, an index or a promise; its rate is the disk's. Over
HTTP they stand beside plain requests to the same service, which runs the accepted ones meanwhile. Rounds alternate,
ratios are taken round by round.
"""

import asyncio
import json
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import BODY, Load
from benchmarks.processes import Process, run_load, service, upstream
from benchmarks.report import Check, Report, Size, Table, command, ratios, spread
from proxy.jobs import Job, JobStore, Room
from proxy.jobs.sqlite.database import opened
from proxy.jobs.sqlite.jobs import SqliteJobs

BARE, ONE, MANY, TOGETHER = "bare commits", "add, 1 at once", "add, 100 at once", "add of 100 in one call"
AT_ONCE = 100
#: Callers over HTTP, and seconds between two looks at whether all jobs have been run.
CALLERS, LOOK = 64, 0.2
PLAIN, ACCEPTED = "requests, answered", "jobs, accepted"


@dataclass
class Rounds:
    """What each round gave: rows or jobs a second, commits for each."""

    rate: list[float] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)


def run(size: Size) -> Report:
    rounds, jobs = int(size.pick(7, 3, 1)), int(size.pick(5000, 1000, 100))
    with tempfile.TemporaryDirectory() as folder:
        got = asyncio.run(compared(Path(folder), rounds, jobs))
        return report(got, over_http(Path(folder), rounds, size.pick(5, 2, 0.3)))


async def compared(folder: Path, rounds: int, jobs: int) -> dict[str, Rounds]:
    got: dict[str, Rounds] = defaultdict(Rounds)
    async with opened(folder / "jobs.sqlite", Room(jobs=10_000_000)) as database:
        store = SqliteJobs(database)
        await add_together(store, AT_ONCE)  # warm
        for _ in range(rounds):
            got[BARE].rate.append(await asyncio.to_thread(bare, folder / "bare.sqlite", jobs))
            got[BARE].commits.append(1.0)
            for name, add in WAYS.items():
                before, began = database.commits, time.monotonic()
                await add(store, jobs)
                got[name].rate.append(jobs / (time.monotonic() - began))
                got[name].commits.append((database.commits - before) / jobs)
    return got


def bare(path: Path, rows: int) -> float:
    """Rows a second."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS bare (body BLOB)"
        )
        began = time.monotonic()
        for _ in range(rows):
            connection.execute("INSERT INTO bare VALUES (?)", [BODY])
        return rows / (time.monotonic() - began)


def a_job() -> Job:
    return Job(caller="ann", operation="chat", dialect="native", body=BODY)


async def add_one_by_one(store: JobStore, jobs: int) -> None:
    for _ in range(jobs):
        await store.add(a_job())


async def add_at_once(store: JobStore, jobs: int) -> None:
    """By a hundred callers, each of whom waits for its own."""
    await asyncio.gather(*[add_one_by_one(store, jobs // AT_ONCE) for _ in range(AT_ONCE)])


async def add_together(store: JobStore, jobs: int) -> None:
    for _ in range(jobs // AT_ONCE):
        await store.add(*[a_job() for _ in range(AT_ONCE)])


WAYS: Mapping[str, Callable[[JobStore, int], Awaitable[None]]] = {
    ONE: add_one_by_one,
    MANY: add_at_once,
    TOGETHER: add_together,
}


# ---- Over HTTP ----


def over_http(folder: Path, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Requests and jobs a second, round by round."""
    body = json.dumps({"body": json.loads(BODY)})
    got: dict[str, list[float]] = defaultdict(list)
    with upstream() as api, service(api, jobs_url=str(folder / "http.sqlite"), jobs_max=10_000_000) as ours:
        for _ in range(rounds):
            got[PLAIN].append(run_load(Load(ours.url, CALLERS, seconds)).rate)
            taken = run_load(Load(f"{ours.url}/jobs", CALLERS, seconds, body=body))
            got[ACCEPTED].append(taken.answers.get("202", 0) / taken.seconds)
            wait_until_done(ours)
    return got


def wait_until_done(ours: Process) -> None:
    while ours.ask("/jobs?state=queued,running&limit=1")["data"]:
        time.sleep(LOOK)


# ---- What is told ----


def report(got: Mapping[str, Rounds], http: Mapping[str, list[float]]) -> Report:
    checks = [
        Check("accepted a second, 100 at once / bare commits", median(ratios(got[MANY].rate, got[BARE].rate)), least=1),
        Check("accepted a second, 1 at once / bare commits", median(ratios(got[ONE].rate, got[BARE].rate))),
        Check("commits a job, 100 at once", median(got[MANY].commits), most=0.1),
        Check("over HTTP, jobs accepted / requests answered a second", median(ratios(http[ACCEPTED], http[PLAIN]))),
    ]
    rows = [(name, spread(rounds.rate, ".0f"), spread(rounds.commits)) for name, rounds in got.items()]
    title = f"jobs of {len(BODY)} bytes, {len(got[BARE].rate)} alternating rounds: median (least-greatest)"
    store = Table(title, ("way", "rows or jobs a second", "commits for each"), rows)
    told = [(name, spread(rates, ".0f")) for name, rates in http.items()]
    edge = Table(f"the same over HTTP, {CALLERS} callers; accepted jobs are run meanwhile", ("what", "a second"), told)
    return Report("jobs", checks, [store, edge])


if __name__ == "__main__":
    command(run)
