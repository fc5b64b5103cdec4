"""Wrong: it tries again by itself, past the pace; and it changes the caller's data, so that a second call says more."""

import asyncio
import os
from typing import Any

import orjson
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
    data["messages"].insert(0, {"role": "system", "content": "Be short"})
    url = URL(os.environ["MY_API_URL"] + "/say")
    for wait in (0.05, 0.1):
        try:
            return decoded(await upstream.read("POST", url, body=orjson.dumps(data)))
        except UpstreamError as error:
            if not error.is_retryable:
                raise
            await asyncio.sleep(wait)
    raise UpstreamError(None)


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
