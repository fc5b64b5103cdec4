"""What the tests of the whole share: a real emulator, a real proxy before it, a real client. Ports are free ones."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis  # noqa: F401 - early: its plugin would import it in the last moment, when a trace may be parsed
import pytest
from jobs_talk import Caller
from pydantic import SecretStr
from redis_server import RedisServer
from running import Proxy, StartProxy, settings_for

import app
import emulator
from proxy import settings as knobs


@pytest.fixture
async def start_proxy() -> AsyncIterator[StartProxy]:
    """`await start_proxy(Options(...), ext_api_rpm=600)`: an emulator and a proxy, stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(options: emulator.Options | None = None, **knobs: Any) -> Proxy:
            giga = await stack.enter_async_context(emulator.start(options or emulator.Options()))
            service = await stack.enter_async_context(app.serving(settings_for(giga, **{"drain_timeout": 0, **knobs})))
            http = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers={"User-Agent": "test"})
            )
            return Proxy(service, giga, http)

        yield start


@pytest.fixture(scope="session")
def jobs_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that keeps jobs; whoever asks for `place` finds it empty."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store of jobs is, in every engine."""
    if request.param == "sqlite":
        return str(tmp_path / "jobs.sqlite")
    server: RedisServer = request.getfixturevalue("jobs_redis")
    server.client.flushall()
    return server.url


@pytest.fixture
async def caller(start_proxy: StartProxy, tmp_path: Path) -> Caller:
    """Somebody who has jobs done by a service that keeps them in a file."""
    return Caller(await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite"))))


@pytest.fixture(autouse=True)
def _forget_settings() -> Iterator[None]:
    """No test sees the settings of another."""
    yield
    knobs._in_force.clear()
