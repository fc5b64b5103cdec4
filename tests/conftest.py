"""What the tests of the whole share: a real emulator, a real proxy before it, a real client. Ports are free ones."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import hypothesis  # noqa: F401 - early: its plugin would import it in the last moment, when a trace may be parsed
import pytest
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


@pytest.fixture(autouse=True)
def _forget_settings() -> Iterator[None]:
    """No test sees the settings of another."""
    yield
    knobs._in_force.clear()
