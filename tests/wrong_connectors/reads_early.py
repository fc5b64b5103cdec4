"""Wrong: it reads its settings while it is imported, so that none can be set later, and a start without them breaks."""

import os
from pathlib import Path
from typing import Any

from yarl import URL

from proxy.upstream import Upstream, decoded

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}

KEY = os.environ.get("MY_API_KEY", "")
PROMPT = Path(__file__).read_text()
upstream = Upstream()


def startup() -> None:
    URL(os.environ["MY_API_URL"])


async def shutdown() -> None:
    await upstream.close()


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> dict[str, Any]:
    url = URL(os.environ["MY_API_URL"] + "/say")
    return decoded(await upstream.read("POST", url, body=str(data["messages"]).encode()))


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
