"""docs/emulator.md: its commands are run, and its outputs are the real ones."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import emulator
from emulator import Options
from emulator.control import ACTIONS
from emulator.faults import EFFECTS

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "emulator.md").read_text()
BLOCK = re.compile(r"```(sh|python)\n(.*?)```\n\n```(?:text|json)\n(.*?)```", re.DOTALL)
# `python` is the interpreter that runs the tests.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Times differ from run to run.
TIME = re.compile(r'"created":\d+')


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The blocks of that language, each with the output that the document shows."""
    for found, code, output in BLOCK.findall(DOCUMENT):
        if found == language:
            yield code, output


async def printed(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, "PATH": PATH, **environment}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


def comparable(output: str) -> list[str]:
    return [line for line in TIME.sub('"created":0', output).splitlines() if line]


@pytest.mark.skipif(not shutil.which("curl") and os.environ.get("CI") != "true", reason="needs curl")
async def test_each_command_prints_what_the_document_shows() -> None:
    async with emulator.start(Options(access_tokens=("test",))) as giga:
        for code, output in list(blocks("sh"))[1:]:
            assert comparable(await printed("bash", "-c", code.replace("8079", str(giga.port)))) == comparable(output)


async def test_the_first_command_starts_it() -> None:
    code, output = next(blocks("sh"))
    program, *flags = code.replace("8079", "0").split()
    process = await asyncio.create_subprocess_exec(sys.executable, *flags, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    line = await process.stdout.readline() if process.stdout else b""
    process.terminate()
    assert await process.wait() == 0
    assert program == "python"
    assert line.decode().rpartition(":")[0] == output.rpartition(":")[0]


async def test_each_program_prints_what_the_document_shows() -> None:
    async with emulator.start() as giga:
        for code, output in blocks("python"):
            program = code.replace("8079", str(giga.port))
            assert await printed(sys.executable, "-c", program, PYTHONPATH=str(ROOT)) == output


def test_every_option_fault_and_control_path_is_described() -> None:
    names = [knob.name for knob in fields(Options)] + list(EFFECTS)
    assert [name for name in names if f"`{name}`" not in DOCUMENT] == []
    assert [path for path in {action.split()[1] for action in ACTIONS} if path not in DOCUMENT] == []
