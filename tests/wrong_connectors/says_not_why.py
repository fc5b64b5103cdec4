"""Wrong: what it refuses, it refuses without a reason, or breaks on; and it tells everybody its key."""

import os
from typing import Any

from yarl import URL

from proxy.upstream import Upstream, decoded

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}

upstream = Upstream()


async def shutdown() -> None:
    await upstream.close()


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("bad request")
    return all(len(message["content"]) for message in data["messages"])


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    url = URL(os.environ["MY_API_URL"] + "/say")
    return decoded(await upstream.read("POST", url, body=str(data["messages"]).encode()))


def get_info() -> dict[str, Any]:
    return {"default-model": "small", "headers": {"Authorization": f"Bearer {os.environ['MY_API_KEY']}"}}
