"""The description is true: schemathesis, which knows nothing else of the service, finds nothing that it does otherwise.

It sends what the description allows, and what it forbids, to a real service with the emulator behind it: seeded, and
without chance, so that a failure comes again.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from running import settings_for

import app
import emulator
from proxy import admins

CONFIG = Path(__file__).with_name("schemathesis.toml")
#: Streams without an end, and the same operations at other addresses (see tests/test_openapi.py).
LEFT_OUT = r"^/(dashboard/events$|chat/|embeddings|model|files|batches|\{prefix\}/|\{version\}/)"
#: The operator's, and what changes the limits, which would hold up all others: a pause, a call of 1e-300 s.
OPERATORS = r"^/(limits|queue|metrics)"
#: All others; only one such option counts.
CALLERS = f"--exclude-path-regex={LEFT_OUT}|{OPERATORS}"
CALLER, OPERATOR = "a-key-of-a-caller", "the-key-of-the-operator"
KEYS = {"proxy_api_keys": {"caller": SecretStr(CALLER)}, "admin_api_key": SecretStr(OPERATOR)}


@asynccontextmanager
async def serving(assets: Path, **knobs: Any) -> AsyncIterator[app.Service]:
    async with (
        emulator.start(emulator.Options()) as giga,
        app.serving(settings_for(giga, drain_timeout=0, **knobs), assets=assets) as service,
    ):
        yield service


async def run(service: app.Service, folder: Path, *args: str) -> None:
    """Let schemathesis look. Fails with what it finds."""
    command = (sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", "--no-color")
    process = await asyncio.create_subprocess_exec(
        *command,
        "--generation-deterministic",
        "--request-timeout=10",
        *args,
        f"{service.url}/openapi.json",
        cwd=folder,  # it writes there what it remembers
        # Before Python 3.11.8 traces that are told while code is parsed end a run (python/cpython#106905).
        env={**os.environ, "PYTHONNODEBUGRANGES": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        pytest.fail(said.decode(), pytrace=False)


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong keys are refused at once: there are many."""
    monkeypatch.setattr(admins, "PAUSE", 0.0)


@pytest.mark.usefixtures("_no_pause")
async def test_without_keys_the_service_does_what_its_description_says(tmp_path: Path) -> None:
    """Each operation, with what is allowed and what is not, and those that follow from one another."""
    async with serving(tmp_path) as service:
        await run(service, tmp_path, "-n", "5", CALLERS)


@pytest.mark.usefixtures("_no_pause")
async def test_with_keys_the_service_does_what_its_description_says(tmp_path: Path) -> None:
    """A key is asked for where the description says so, and nowhere else."""
    async with serving(tmp_path, **KEYS) as service:
        caller = f"Authorization: Bearer {CALLER}"
        await run(service, tmp_path, "-n", "3", "--phases=fuzzing,stateful", "-H", caller, CALLERS)


@pytest.mark.parametrize("knobs", [{}, KEYS], ids=["without keys", "with keys"])
@pytest.mark.usefixtures("_no_pause")
async def test_operators_get_what_the_description_promises_them(tmp_path: Path, knobs: dict[str, Any]) -> None:
    """The limits are changed in any way that may be, the line and the numbers are looked at meanwhile."""
    async with serving(tmp_path, **knobs) as service:
        operator = f"Authorization: Bearer {OPERATOR}"
        headers = ["-H", operator] if knobs else []
        await run(service, tmp_path, "-n", "10", *headers, f"--include-path-regex={OPERATORS}")
