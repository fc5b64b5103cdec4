"""What the emulator's tests share: emulators on free ports, and their callers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import gigachat
import pytest
from emulator_callers import KEY, MODEL, TOKEN, Caller, Sdk, Start, bearer

import emulator
from emulator import Options


@pytest.fixture
async def begin() -> AsyncIterator[Start]:
    """`await begin(concurrency=1)`: an emulator with these options and a caller of it."""
    async with AsyncExitStack() as stack:

        async def begin(**options: Any) -> Caller:
            options.setdefault("access_tokens", (TOKEN,))
            running = await stack.enter_async_context(emulator.start(Options(**options)))
            connector = aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(connector=connector, headers=bearer(TOKEN))
            return Caller(running, await stack.enter_async_context(session))

        yield begin


@pytest.fixture
async def caller(begin: Start) -> Any:
    """A caller of an emulator with the usual options."""
    return await begin()


@pytest.fixture(params=["sync", "async"])
async def sdk(request: pytest.FixtureRequest, caller: Caller) -> AsyncIterator[Sdk]:
    """The SDK with a key, pointed at an emulator."""
    url = caller.emulator.url
    client = gigachat.GigaChat(
        base_url=f"{url}/v1",
        auth_url=f"{url}/api/v2/oauth",
        credentials=KEY,
        model=MODEL,
        verify_ssl_certs=False,
    )
    async with client:
        yield Sdk(client, request.param == "async")
