"""Wrong: its calls go on when their callers have left, in tasks that nobody knows; its client is never closed."""

import asyncio
import os
from typing import Any

from yarl import URL

from proxy.upstream import Upstream, decoded

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}

upstream = Upstream()


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    return await asyncio.shield(asyncio.create_task(call(data)))


async def call(data: dict[str, Any]) -> dict[str, Any]:
    url = URL(os.environ["MY_API_URL"] + "/say")
    return decoded(await upstream.read("POST", url, body=str(data["messages"]).encode()))


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
