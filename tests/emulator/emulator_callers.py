"""Those who call an emulator in its tests: a plain HTTP caller, and the official SDK."""

import asyncio
import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import gigachat
import orjson

from emulator import Emulator

TOKEN = "a-token-for-tests"
KEY = base64.b64encode(b"client:secret").decode()
MODEL = "GigaChat-2"

Start = Callable[..., Any]


@dataclass
class Answer:
    status: int
    headers: Any
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def said(self) -> str:
        """The text of a v1 answer."""
        return str(self.json["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The server-sent events: name (empty if it has none) and payload."""
        return [parsed_event(block) for block in self.text.split("\n\n") if block]


def parsed_event(block: str) -> tuple[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.splitlines())
    data = fields["data"]
    return fields.get("event", ""), data if data == "[DONE]" else orjson.loads(data)


@dataclass
class Caller:
    """Speaks plain HTTP to an emulator, with a token unless told otherwise."""

    emulator: Emulator
    session: aiohttp.ClientSession

    async def send(self, method: str, path: str, **more: Any) -> Answer:
        async with self.session.request(method, self.emulator.url + path, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.send("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.send("POST", path, **({"json": body} if body is not None else {}), **more)

    async def chat(self, text: str = "Привет", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """One v1 chat call with a single user message."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}
        return await self.post("/v1/chat/completions", body, headers=headers)

    async def chat_v2(self, *contents: Any, **fields: Any) -> Answer:
        """One v2 chat call; texts and lists of parts become user messages, dictionaries are messages."""
        body = {"model": MODEL, "messages": [message_v2(content) for content in contents], **fields}
        return await self.post("/v2/chat/completions", body)

    async def oauth(self, key: str = KEY, scope: str = "GIGACHAT_API_PERS", **headers: str) -> Answer:
        names = {"Authorization": f"Basic {key}", "RqUID": str(uuid.uuid4()), **headers}
        return await self.send("POST", "/api/v2/oauth", data={"scope": scope}, headers=names)


def message_v2(content: Any) -> dict[str, Any]:
    if isinstance(content, dict):
        return content
    return {"role": "user", "content": [{"text": content}] if isinstance(content, str) else content}


async def until(holds: Callable[[], object]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is watched has no event
            await asyncio.sleep(0)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Sdk:
    """The official SDK, one side of it: `do("threads.run", ...)` is sync in a thread, or async."""

    def __init__(self, client: gigachat.GigaChat, is_async: bool) -> None:
        self.client = client
        self.is_async = is_async

    def method(self, path: str) -> Any:
        first, *rest = path.split(".")
        prefix = ("a_" if first in {"assistants", "threads"} else "a") if self.is_async else ""
        found = getattr(self.client, prefix + first)
        for name in rest:
            found = getattr(found, name)
        return found

    async def do(self, path: str, *arguments: Any, **named: Any) -> Any:
        if self.is_async:
            return await self.method(path)(*arguments, **named)
        return await asyncio.to_thread(self.method(path), *arguments, **named)

    async def chunks(self, path: str, *arguments: Any, **named: Any) -> list[Any]:
        """All chunks of a streaming method."""
        if self.is_async:
            return [chunk async for chunk in self.method(path)(*arguments, **named)]
        return await asyncio.to_thread(lambda: list(self.method(path)(*arguments, **named)))
