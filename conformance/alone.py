"""Promises about importing a connector and starting it without settings: both need a process that is still new."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conformance.promises import Bench, Broken, Chapter

#: Seconds that the new process may take.
LIMIT = 30.0

CHAPTER = Chapter()


@dataclass
class Findings:
    """What the new process has found: see `newborn.py`."""

    #: What importing did besides, each with its line.
    deeds: list[str]
    #: How a start without settings failed, if not by saying what is missing.
    start: str


async def findings(bench: Bench, environment: Mapping[str, str]) -> Findings:
    """Ask a new process. Raises Broken if it does not come to an end, or to a bad one."""
    roots = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "conformance.newborn", bench.connector.name),
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), LIMIT)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Broken(f"importing and starting it in a new process took more than {LIMIT:g} s") from None
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise Broken(f"a new process that imported it ended with {process.returncode}: {''.join(last)}")
    return Findings(**json.loads(output.splitlines()[-1]))


async def found(bench: Bench) -> Findings:
    """The same for every promise of this chapter: one process is enough."""
    if bench.alone is None:
        bench.alone = asyncio.create_task(findings(bench, bench.declared.bare(os.environ)))
    return await bench.alone


@CHAPTER.promise("importing it reads no setting and does no I/O", needs_api=False)
async def importing_does_nothing(bench: Bench) -> None:
    if deeds := (await found(bench)).deeds:
        raise Broken(f"importing it {'; '.join(deeds)}. Do that in startup(), or when the first call comes")


@CHAPTER.promise("without its settings it says what is missing, or starts all the same", needs_api=False)
async def starts_or_says_why(bench: Bench) -> None:
    if start := (await found(bench)).start:
        raise Broken(
            f"without settings: {start}. Raise proxy.errors.CredentialMissing with a sentence that says "
            "what to set, and where"
        )
