"""Wrong: async by name only. While the API thinks, nothing else in the whole service moves."""

import json
import os
import urllib.request
from typing import Any

CHECK = {"env": {"MY_API_URL": "{url}/v1", "MY_API_KEY": "secret-of-the-check"}}


def validate_data(data: dict[str, Any]) -> bool:
    if not data["messages"]:
        raise ValueError("messages must not be empty")
    return True


async def request_api(data: dict[str, Any]) -> Any:
    with urllib.request.urlopen(os.environ["MY_API_URL"], json.dumps(data).encode()) as answer:  # noqa: ASYNC210 - that is it
        return json.load(answer)


def get_info() -> dict[str, Any]:
    return {"default-model": "small"}
