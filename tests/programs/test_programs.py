"""Programs that people use keep their promises with GigaChat behind them, and docs/programs.md is true of them.

What a program promises stands in `use_<package>`, beside this file: a function each, run in a process and in an
environment of its own, against a real service before an account that allows one call at a time.
"""

import os
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from documents import Block, blocks_of, rows_of, sandbox
from programs import PROGRAMS, NotInstalled, Program
from pydantic import SecretStr
from running import StartProxy

from emulator import Options

PAGE = Path(__file__).resolve().parents[2] / "docs" / "programs.md"
#: Where the page says that the service is.
ADDRESS = "http://127.0.0.1:8078"
IN_CI = os.environ.get("CI", "").lower() == "true"
BLOCKS = blocks_of(PAGE)
#: The table: the section that each row leads to, and its other cells.
ROWS = {row[0][1:].partition("]")[0]: row[1:] for row in rows_of(PAGE.read_text(), 4)}
ALL = pytest.mark.parametrize("program", PROGRAMS, indirect=True, ids=str)


@cache
def missing(program: Program, folder: Path) -> str:
    """Why it cannot be installed, tried once; nothing if it is there."""
    try:
        program.install(folder)
    except NotInstalled as reason:
        return str(reason)
    return ""


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Program:
    """A program that is installed. Skips the test where it cannot be, and fails it in CI."""
    found: Program = request.param
    if reason := missing(found, Path(request.config.cache.mkdir(f"program-{found}"))):
        (pytest.fail if IN_CI else pytest.skip)(f"{found} cannot be installed: {reason}")
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder to run it in."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("program", "promise"),
    [(program, promise) for program in PROGRAMS for promise in program.promises],
    indirect=["program"],
    ids=str,
)
async def test_a_program_keeps_its_promise(program: Program, promise: str, start_proxy: StartProxy, home: Path) -> None:
    """And the account never has to refuse a call."""
    jobs = SecretStr(str(home.with_name("jobs.sqlite")))
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1, jobs_url=jobs)
    await program.keep(promise, proxy.url, home)
    assert proxy.giga.state.accounts.refused == 0


@ALL
async def test_what_the_page_shows_of_it_is_what_it_prints(program: Program, home: Path, tmp_path: Path) -> None:
    """Against the service as the page starts it."""
    assert BLOCKS[0].text.endswith("make run")
    started = dict(word.split("=", 1) for word in shlex.split(BLOCKS[0].text) if "=" in word)
    shown = [pair for pair in pairwise([*BLOCKS, Block("", "", "")]) if pair[0].section == program.title]
    shown = [(block, output) for block, output in shown if output.language == "text"]
    assert shown, "the page has no example of it"
    async with sandbox(started, tmp_path) as service:
        for block, output in shown:
            text = block.text.replace(ADDRESS, service.url)
            assert (await program.run(text, block.language, home)).strip() == output.text


@ALL
def test_the_page_names_the_version_that_is_run(program: Program) -> None:
    assert program.version == program.pinned == ROWS[program.title][1]


def test_the_table_says_which_programs_are_run() -> None:
    """*yes* stands where a program is run, *no* elsewhere, and each row leads to a section."""
    titles = {program.title for program in PROGRAMS}
    assert {title: cells[-1] for title, cells in ROWS.items()} == {
        title: "yes" if title in titles else "no" for title in ROWS
    }
    assert titles <= ROWS.keys()
    assert list(ROWS) == re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)


def test_what_the_page_says_to_install_is_what_is_run() -> None:
    installs = {
        block.section: shlex.split(block.text)[2:] for block in BLOCKS if re.match("(pip|npm) install", block.text)
    }
    assert installs == {
        program.title: [requirement.rpartition(program.pin)[0] for requirement in program.requirements]
        for program in PROGRAMS
    }
