"""What the tests of documents share: their blocks, their tables, and the service that their examples talk to."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import app
from proxy import settings


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the second-level heading over it."""

    language: str
    text: str
    section: str


def blocks_of(file: Path) -> list[Block]:
    section, language = "", None
    blocks: list[Block] = []
    lines: list[str] = []
    for line in file.read_text().splitlines():
        if line.startswith("```") and language is None:
            language, lines = line[3:], []
        elif line == "```" and language is not None:
            blocks.append(Block(language, "\n".join(lines), section))
            language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("## "):
            section = line[3:]
    assert language is None, f"{file.name}: a block is not closed"
    return blocks


def rows_of(text: str, columns: int) -> Iterator[list[str]]:
    """The rows of all tables with so many columns, without their heads."""
    lines = text.splitlines()
    tables = [list(group) for is_table, group in groupby(lines, lambda line: line.startswith("|")) if is_table]
    for table in tables:
        for line in table[2:]:
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if len(cells) == columns:
                yield cells


@asynccontextmanager
async def sandbox(env: Mapping[str, str], empty: Path) -> AsyncIterator[app.Service]:
    """The service as `make run` starts it, with these settings, for somebody without a key of GigaChat."""
    env = {"SANDBOX": "auto", **env}
    chosen = settings.load(["--port=0", "--drain-timeout=0"], env=env, cwd=empty, assets=empty)
    async with app.serving(chosen) as service:
        yield service
