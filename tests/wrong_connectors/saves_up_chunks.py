"""Wrong: it streams when all is over, and takes a refusal, and what broke off, for a whole answer."""

import os
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from yarl import URL

from proxy.errors import UpstreamError
from proxy.upstream import Upstream, decoded

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}

upstream = Upstream()


async def shutdown() -> None:
    await upstream.close()


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    url = URL(os.environ["MY_API_URL"] + "/say")
    return decoded(await upstream.read("POST", url, body=str(data["messages"]).encode()))


async def stream_api(data: dict[str, Any]) -> AsyncIterator[bytes]:
    whole = b""
    url = URL(os.environ["MY_API_URL"] + "/say")
    async with upstream.open("POST", url, body=str(data["messages"]).encode()) as response:
        try:
            async for piece in response.content:
                whole += piece
        except (aiohttp.ClientError, UpstreamError):
            pass
    for line in whole.split(b"\n"):
        if line.startswith(b"data: {"):
            yield line.removeprefix(b"data: ")


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
