"""A waiting client is kept alive, and only one that takes no harm from it. Raw sockets tell what is on the wire."""

import asyncio
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from conftest import Proxy, StartProxy, busy, chat, until, waiting

import app
from emulator import Options
from proxy import heartbeat
from proxy.heartbeat import AT_ONCE, PROCESSING, Heartbeat

SDK = {"User-Agent": "GigaChat-python-lib"}
REQUESTS = {"User-Agent": "python-requests/2.32.3"}
CHAT_V1 = "/api/v1/chat/completions"
API_BODY = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Привет"}]}


@dataclass
class Heard:
    """What came over the wire: each status with the seconds that it took to come; the last one is the final one."""

    statuses: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    rest: bytes = b""

    @property
    def beats(self) -> int:
        return self.statuses.count(102)


def request_of(headers: dict[str, str], body: dict[str, Any], path: str = "/", version: str = "1.1") -> bytes:
    content = json.dumps(body).encode()
    named = {"Host": "test", "Accept": "*/*", **headers}
    if not {"Content-Length", "Transfer-Encoding"} & named.keys():
        named["Content-Length"] = ""
    lines = [f"{name}: {value if name != 'Content-Length' else len(content)}" for name, value in named.items()]
    return f"POST {path} HTTP/{version}\r\n{chr(13) + chr(10)}".replace("\r\n\r\n", "\r\n").encode() + (
        "\r\n".join(lines) + "\r\n\r\n"
    ).encode() + content
