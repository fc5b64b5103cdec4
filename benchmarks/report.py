"""What a benchmark prints: first what does not depend on the machine, against its target; then the numbers."""

import os
import platform
import statistics
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Size(Enum):
    """How much of it: for numbers to quote, for a look (under a minute each), or just to see that it works."""

    FULL = "full"
    QUICK = "quick"
    SMOKE = "smoke"

    def pick(self, full: float, quick: float, smoke: float) -> float:
        return {Size.FULL: full, Size.QUICK: quick, Size.SMOKE: smoke}[self]


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        cells = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        cells.insert(1, ["-" * width for width in widths])
        return "\n".join([f"{self.title}\n", *(f"| {' | '.join(line)} |" for line in cells)])


@dataclass(frozen=True)
class Check:
    """A number and the bound that it should keep; units are in its name."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_kept(self) -> bool:
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def row(self) -> tuple[str, ...]:
        bound = (
            "none" if self.least is self.most else f">= {self.least:g}" if self.most is None else f"<= {self.most:g}"
        )
        return self.name, f"{self.value:.4g}", bound, "kept" if self.is_kept else "MISSED"


@dataclass(frozen=True)
class Report:
    name: str
    checks: Sequence[Check]
    tables: Sequence[Table]

    def __str__(self) -> str:
        targets = Table("against the targets", ("measure", "measured", "target", ""), [c.row for c in self.checks])
        return "\n\n".join([f"## {self.name}", str(targets), *map(str, self.tables)])


def spread(values: Sequence[float], form: str = ".3g") -> str:
    """The median, and the least and the greatest in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: both numbers of a pair were measured within seconds of each other."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(ours, theirs, strict=True)]


def command(*benchmarks: Callable[[Size], Report]) -> None:
    """Run them as the command line says, and print. A missed target is no failure: the machine may be busy."""
    parser = ArgumentParser(description="A repeatable comparison on loopback; prints tables.")
    parser.add_argument("--quick", dest="size", action="store_const", const=Size.QUICK, help="under a minute each")
    parser.add_argument("--smoke", dest="size", action="store_const", const=Size.SMOKE, help="only see that it works")
    size = parser.parse_args().size or Size.FULL
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"Python {platform.python_version()}, {machine}, {size.value}")
    for benchmark in benchmarks:
        print(f"\n{benchmark(size)}", flush=True)
