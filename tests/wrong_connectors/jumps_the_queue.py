"""Wrong: it holds proxy.upstream, so the gate is left to it, and calls past the gate. Its errors tell its key."""

import os
from typing import Any

import aiohttp

from proxy.errors import UpstreamError
from proxy.upstream import Upstream, decoded

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}

upstream = Upstream()


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    key = os.environ["MY_API_KEY"]
    async with aiohttp.ClientSession() as http, http.post(os.environ["MY_API_URL"], json=data) as answer:
        if answer.status != 200:
            raise UpstreamError(answer.status, await answer.read(), message=f"{answer.status} for the key {key}")
        return decoded(await answer.read())


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
