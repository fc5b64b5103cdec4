"""`python -m emulator`, and the emulator as an application."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from emulator_callers import bearer

import emulator
from emulator import Options
from emulator.__main__ import make_parser

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[Any]:
    """The command in a process of its own; killed if it is still there at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "emulator", "--port", "0", *flags,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_is_serves_and_stops_cleanly(name: signal.Signals) -> None:
    async with running("--access-token", "t", "--concurrency", "1") as process, aiohttp.ClientSession() as session:
        line = (await process.stdout.readline()).decode()
        assert line.startswith("emulator: http://127.0.0.1:")
        url = line.split()[1]
        async with session.get(f"{url}/v1/models", headers=bearer("t")) as response:
            assert response.status == 200
        async with session.get(f"{url}/_emulator/options") as response:
            assert (await response.json())["concurrency"] == 1
        process.send_signal(name)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        assert await process.stderr.read() == b""


async def test_it_stops_while_a_call_hangs() -> None:
    async with running("--access-token", "t") as process, aiohttp.ClientSession() as session:
        url = (await process.stdout.readline()).decode().split()[1]
        await session.post(f"{url}/_emulator/faults", json=[{"kind": "stall", "path": "/models"}])
        call = asyncio.create_task(session.get(f"{url}/v1/models", headers=bearer("t")))
        while True:
            async with session.get(f"{url}/_emulator/calls") as response:
                if await response.json():
                    break
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        with pytest.raises(aiohttp.ClientError):
            await call


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--latency", "-1"), "emulator: latency must be a number, 0 or more, not -1.0"),
        (("--host", "256.0.0.1"), "emulator: "),
    ],
)
async def test_a_wrong_flag_stops_the_start_with_one_line(flags: tuple[str, ...], said: str) -> None:
    async with running(*flags) as process:
        assert await asyncio.wait_for(process.wait(), 5) == 2
        error = (await process.stderr.read()).decode()
        assert error.startswith(said)
        assert error.count("\n") == 1


def test_without_flags_the_options_are_the_usual_ones() -> None:
    values = vars(make_parser().parse_args([]))
    for name in ("host", "port", "log_level"):
        del values[name]
    assert Options(**values) == Options()


def test_every_option_has_a_flag() -> None:
    flags = "--rpm 60 --scope GIGACHAT_API_PERS --credentials a --credentials b --no-legacy --tariff prepaid"
    values = vars(make_parser().parse_args(flags.split()))
    assert (values["rpm"], values["scopes"], values["credentials"]) == (60.0, ["GIGACHAT_API_PERS"], ["a", "b"])
    assert (values["legacy"], values["tariff"]) == (False, "prepaid")
    assert values.keys() >= Options().__dataclass_fields__.keys() - {"access_tokens"}


async def test_it_is_an_application_for_any_runner() -> None:
    application = emulator.create_app(Options(access_tokens=("t",)))
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        url = f"http://127.0.0.1:{port}/v1/models"
        async with aiohttp.ClientSession(headers=bearer("t")) as session, session.get(url) as response:
            assert response.status == 200
    finally:
        await runner.cleanup()
    assert [call.path for call in application[emulator.STATE].calls] == ["/v1/models"]


async def test_importing_it_is_quick_and_needs_nothing_of_the_repository(tmp_path: Path) -> None:
    """It stands alone: a copy of the folder works anywhere."""
    (tmp_path / "emulator").symlink_to(ROOT / "emulator")
    script = "import sys, emulator; print(sorted({name.split('.')[0] for name in sys.modules}))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script,
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    for foreign in ("proxy", "proxy_request", "gigachat", "pydantic", "httpx"):
        assert f"'{foreign}'" not in output.decode()
