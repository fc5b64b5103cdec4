"""The benchmarks still run, and every table that they print is whole. How fast anything is, is not tested here."""

import math
from collections.abc import Callable

import pytest

from benchmarks import pacing, sdk, startup, throughput, waiting
from benchmarks.report import Report, Size

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
}


@pytest.mark.parametrize("benchmark", TOLD, ids=lambda run: run.__module__.rpartition(".")[2])
def test_a_benchmark_runs_and_its_tables_are_whole(benchmark: Callable[[Size], Report]):
    """On the smallest size: every measure is a number, every row is there, every cell is filled, and all is printed."""
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
