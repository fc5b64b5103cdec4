"""The benchmarks still run, and every table that they print is whole. How fast anything is, is not tested here."""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis_server import missing

from benchmarks import (
    gpt2giga,
    jobs,
    jobs_batch,
    jobs_kill,
    pacing,
    peer,
    replicas,
    sdk,
    startup,
    throughput,
    traced,
    waiting,
    watched,
)
from benchmarks.processes import Process, service
from benchmarks.report import Report, Size

IN_CI = os.environ.get("CI", "").lower() == "true"


@contextmanager
def stand_in(api: Process, *, oauth: str = "/oauth", **settings: str) -> Iterator[Process]:
    """In place of gpt2giga, which need not be there: our own service, with its settings as far as we know them."""
    one_at_a_time = {"ext_max_requests": 1, "resp_timeout": peer.FOREVER, "exp_resp_timeout": peer.FOREVER}
    limits = one_at_a_time if "GPT2GIGA_MODEL_MAX_CONNECTIONS_DEFAULT" in settings else {}
    with service(api, gigachat_auth_url=api.url + oauth, **limits) as process:
        yield process


def beside_a_stand_in(size: Size) -> Report:
    return peer.compared(stand_in, size)


#: What each promises to tell: the measures it is judged by, and the rows of its tables.
TOLD = {
    throughput.run: (
        ["requests a CPU second", "requests a second", "added p50 over direct", "added p50 over pass-through"],
        [["pass-through", "ours"], ["direct", "pass-through", "ours"]],
    ),
    pacing.run: (
        ["600 RPM: % of the ideal rate", "600 RPM: least gap", "6000 RPM: least gap", "60000 RPM: % of the ideal rate"],
        [["600", "600", "6000", "6000", "60000", "60000"]],
    ),
    waiting.run: (["KB a waiting request", "MB with 100 waiting", "MB idle"], [["bare aiohttp", "ours"]]),
    startup.run: (["seconds to the first answer"], None),
    sdk.run: (
        [
            "added p50 a call",
            "p50 a call, through / straight",
            "added to the first chunk",
            "added to each further chunk",
        ],
        [["SDK straight at the API", "SDK through the proxy", "added"]],
    ),
    beside_a_stand_in: (
        [
            "requests a second",
            "requests a CPU second",
            "streams of 20 chunks a second",
            "streams of 20 chunks a CPU second",
            "KB a waiting request",
            "429s to 20 at once, ours",
        ],
        [
            [
                "requests a second, 64 at once",
                "CPU ms a request",
                "streams a second, 128 at once",
                "CPU ms a stream",
                "KB a request, 20 waiting",
                "MB idle",
                "429s to 20 at once",
                "broken of 20 streams at once",
            ]
        ],
    ),
    jobs.run: (
        ["accepted a second, 100 at once", "accepted a second, 1 at once", "commits a job", "over HTTP, jobs accepted"],
        [
            ["bare commits", "add, 1 at once", "add, 100 at once", "add of 100 in one call"],
            ["requests, answered", "jobs, accepted"],
        ],
    ),
    jobs_kill.run: (
        [
            "SQLite, 2 kills: accepted jobs without their answer",
            "SQLite, 2 kills: calls repeated beyond those in flight",
            "Redis, one of two killed: accepted jobs without their answer",
            "Redis, one of two held: answers that changed",
        ],
        [["SQLite, 2 kills", "Redis, one of two killed", "Redis, one of two held"]],
    ),
    jobs_batch.run: (
        [
            "paced: p50 of the wait, with a batch / alone",
            "paced: p99 of the wait, with a batch / by the rule",
            "one at a time: p50 of the wait, with a batch / alone",
            "while live requests always wait",
            "a batch of 100 lines: seconds to the first call",
        ],
        [["paced", "one at a time"], ["a batch of 100 lines", "100 jobs one by one"]],
    ),
    watched.run: (
        ["share of the rate used, watched / alone", "calls refused or wasted while watched", "scrapes"],
        [["nobody", "20 tabs, /metrics a second"]],
    ),
    traced.run: (
        ["requests a CPU second, every request traced / no traces", "requests a second, every request traced"],
        [["no traces", "every request traced", "one in 100"]] * 2,
    ),
    replicas.run: (
        [
            "600 RPM, 3 replicas: % of the ideal rate",
            "600 RPM, 3 replicas: round trips a call",
            "the same, one killed: requests not answered 200",
            "the same, Redis restarted empty: least gap",
            "3000 RPM, 4 replicas: % of the ideal rate",
        ],
        [
            [
                "600 RPM, 3 replicas",
                "the same, one killed",
                "the same, Redis restarted empty",
                "3000 RPM, 4 replicas",
            ]
        ],
    ),
}


@pytest.mark.parametrize("benchmark", TOLD, ids=lambda run: run.__module__.rpartition(".")[2])
def test_a_benchmark_runs_and_its_tables_are_whole(benchmark: Callable[[Size], Report]):
    """On the smallest size: every measure is a number, every row is there, every cell is filled, and all is printed."""
    if benchmark in (jobs_kill.run, replicas.run) and shutil.which("redis-server") is None:
        missing()
    report = benchmark(Size.SMOKE)
    measures, rows = TOLD[benchmark]
    for measure in measures:
        assert any(check.name.startswith(measure) for check in report.checks)
    assert all(math.isfinite(check.value) for check in report.checks)
    if rows is not None:
        assert [[row[0] for row in table.rows] for table in report.tables] == rows
    for table in report.tables:
        assert table.rows
        assert all(len(row) == len(table.columns) and all(row) for row in table.rows)
        assert str(table) in str(report)


def test_a_peer_that_cannot_be_installed_is_told_and_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No package index within reach: the reason stands in the report, which promises nothing."""
    monkeypatch.setattr(gpt2giga, "CACHE", tmp_path)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    report = peer.run(Size.SMOKE)
    assert not report.checks
    assert "nothing is compared: gpt2giga 0.3.0 cannot be installed" in str(report)
    assert "No matching distribution found for gpt2giga==0.3.0" in str(report)


def test_the_peer_itself_is_refused_where_nobody_of_ours_is():
    """20 at once, to an API that takes one at a time: every one of ours is served, whole streams too."""
    if not IN_CI and not gpt2giga.place().exists():
        pytest.skip(f"{gpt2giga.NAME} is not installed: python -m benchmarks.peer --smoke installs it")
    (table,) = peer.run(Size.SMOKE).tables
    ours = {row[0]: row[1] for row in table.rows}
    theirs = {row[0]: row[2] for row in table.rows}
    assert (ours["429s to 20 at once"], ours["broken of 20 streams at once"]) == ("0", "0")
    assert int(theirs["429s to 20 at once"]) > 10 and int(theirs["broken of 20 streams at once"]) > 10
