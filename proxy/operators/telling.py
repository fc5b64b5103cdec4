"""What is told to people, in tables and sentences, and to scripts, as JSON."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

#: Between two columns.
GAP = "  "
#: Seconds of each unit, from the largest.
UNITS = {"d": 86_400, "h": 3600, "min": 60, "s": 1}
#: In place of what cannot be shown.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def tell(text: str, *, keeps: str = "") -> None:
    """Print it, also where the terminal does not know all of its characters; `keeps` as in `harmless`."""
    encoding = sys.stdout.encoding or "utf-8"
    print(harmless(text, keeps=keeps).encode(encoding, "replace").decode(encoding))


def tell_json(told: Mapping[str, Any]) -> None:
    """One object in one line of ASCII."""
    print(json.dumps(told))


def harmless(text: str, *, keeps: str = "") -> str:
    """Without what would steer a terminal; of that only characters stay that it `keeps`."""
    return "".join(mark if mark.isprintable() or mark in keeps else UNKNOWN for mark in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> Iterator[str]:
    """The lines of a table, each at most `width` characters long if that is given."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        line = GAP.join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def tell_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, as wide as the terminal if it is one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table(heads, rows, width):
        tell(line)


def span(seconds: float) -> str:
    """`5 s`, `12 min`, `3 h`, `2 d`: whole ones, rounded down."""
    name, length = next((unit for unit in UNITS.items() if seconds >= unit[1]), ("s", 1))
    return f"{max(0, int(seconds // length))} {name}"


def moment(at: float) -> str:
    """A time by the clock of this machine; `at` is in seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def size(count: float) -> str:
    """Bytes, as `512 B`, `1.5 KiB`, `3.0 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class Outcome(NamedTuple):
    """What came of a wish about one job or batch."""

    id: str
    is_done: bool
    text: str


def tell_outcomes(outcomes: Sequence[Outcome], *, is_json: bool) -> int:
    """The exit code."""
    for outcome in outcomes:
        if is_json:
            tell_json({"id": outcome.id, "is_done": outcome.is_done, "told": outcome.text})
        else:
            tell(f"{outcome.id} {outcome.text}")
    return 0 if all(outcome.is_done for outcome in outcomes) else 1


def absent(id: str) -> Outcome:
    return Outcome(id, False, "is not there: it is forgotten by now, or the id is wrong")
