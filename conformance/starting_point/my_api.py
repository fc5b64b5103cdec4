"""A connector: an API that speaks like OpenAI's, at MY_API_URL with the key MY_API_KEY.

What is different for yours is marked CHANGE. `make check-connector CONNECTOR=my_api` says what is still right.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import orjson
from yarl import URL

from proxy.errors import CredentialMissing
from proxy.sse import Decoder
from proxy.upstream import Upstream, decoded, raise_for_status

# For the check only. CHANGE: the settings that your connector reads, and calls that your API would refuse.
CHECK = {
    "env": {
        "MY_API_URL": "{url}/v1",
        "MY_API_KEY": "any-key-will-do",
    },
    "invalid": {
        "temperature": {"temperature": "hot"},
    },
}

upstream = Upstream()


def startup() -> None:
    """Say what is missing before anybody calls."""
    for name in ("MY_API_URL", "MY_API_KEY"):
        if not os.environ.get(name):
            raise CredentialMissing(f"put {name}=... into the environment")


async def shutdown() -> None:
    await upstream.close()


def validate_data(data: dict[str, Any]) -> bool:
    """True. CHANGE: raise ValueError or TypeError, naming the field, for what your API would refuse."""
    if not data["messages"]:
        raise ValueError("messages: at least one is needed")
    for number, message in enumerate(data["messages"]):
        if not isinstance(message.get("content"), str):
            raise TypeError(f"messages[{number}].content must be a string")
    temperature = data["generate_parameters"].get("temperature")
    if temperature is not None and not isinstance(temperature, int | float):
        raise TypeError("temperature must be a number")
    return True


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    """The API's answer."""
    return decoded(await upstream.read("POST", url(), headers=headers(), body=body(data)))


async def stream_api(data: dict[str, Any]) -> AsyncIterator[bytes]:
    """The API's answer in chunks. CHANGE: delete this if your API does not stream."""
    decoder = Decoder()
    async with upstream.open("POST", url(), headers=headers(), body=body(data)) as response:
        await raise_for_status(response)
        async for piece in response.content.iter_any():
            for event in decoder.feed(piece):
                if event.data == b"[DONE]":
                    return
                yield event.data


def get_info() -> dict[str, Any]:
    """What `GET /` shows. CHANGE: your models."""
    return {"default-model": "small", "avail-models": ["small"]}


def url() -> URL:
    """CHANGE: the path below the address."""
    return URL(os.environ["MY_API_URL"] + "/chat/completions")


def headers() -> dict[str, str]:
    """CHANGE: how your API wants to see its key."""
    return {"Authorization": f"Bearer {os.environ['MY_API_KEY']}", "Content-Type": "application/json"}


def body(data: dict[str, Any]) -> bytes:
    """CHANGE: the call as your API reads it."""
    return orjson.dumps({"model": "small", **data["generate_parameters"], "messages": data["messages"]})
