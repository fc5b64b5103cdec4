"""The stream of the dashboard, as a tab hears it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from running import Proxy


async def events(proxy: Proxy, headers: dict[str, str] | None = None) -> AsyncIterator[tuple[str, Any]]:
    async with proxy.http.get(f"{proxy.url}/dashboard/events", headers=headers) as response:
        assert response.status == 200 and response.content_type == "text/event-stream"
        name = ""
        async for line in response.content:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


async def told(proxy: Proxy, *, until: Any = lambda now: True) -> dict[str, Any]:
    """What is told `now` once it is as it should be."""
    async with asyncio.timeout(20):
        async for name, data in events(proxy):
            if name == "now" and until(data):
                return dict(data)
    raise AssertionError("the stream ended")
