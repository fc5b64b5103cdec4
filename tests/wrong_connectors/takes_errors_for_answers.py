"""Wrong: it never looks at the status, so the API's refusals become answers and what is no JSON its own failure."""

import json
import os
from typing import Any

import aiohttp

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> Any:
    async with aiohttp.ClientSession() as http, http.post(os.environ["MY_API_URL"], json=data) as answer:
        return json.loads(await answer.text())


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
