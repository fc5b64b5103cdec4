"""What callers of /jobs say, and what they are told; over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from running import Proxy, chat

KEYS = {"ann": "key-of-ann", "bob": "key-of-bob"}
ENDED = ("done", "failed", "cancelled", "expired")


def spoken(text: str = "Привет", **fields: Any) -> dict[str, Any]:
    """A chat as OpenAI's and GigaChat's clients write it."""
    return {"model": "GigaChat-2", "messages": [{"role": "user", "content": text}], **fields}


@dataclass
class Told:
    """An answer: `body` is its JSON, its text if it is none."""

    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        try:
            return json.loads(self.raw)
        except ValueError:
            return self.raw.decode()

    @property
    def id(self) -> str:
        return str(self.body["id"])

    @property
    def words(self) -> str:
        """What is told of a failure, in the native dialect."""
        return str(self.body["status"])


@dataclass
class Caller:
    """Somebody who has jobs done, with a key or without."""

    proxy: Proxy
    key: str | None = None

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Told:
        told = {**({"X-API-Key": self.key} if self.key else {}), **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            told.setdefault("Content-Type", "application/json")
        async with self.proxy.http.request(method, self.proxy.url + path, data=data, headers=told) as answer:
            return Told(answer.status, answer.headers, await answer.read())

    async def bring(self, body: Any = None, path: str = "/", **fields: Any) -> Told:
        """POST /jobs."""
        return await self.ask("POST", "/jobs", {"path": path, "body": chat() if body is None else body, **fields})

    async def accepted(self, body: Any = None, path: str = "/", **fields: Any) -> str:
        """The id of a job that is taken."""
        told = await self.bring(body, path, **fields)
        assert told.status == 202, told.raw
        return told.id

    async def job(self, id: str) -> Any:
        """It as it is now."""
        told = await self.ask("GET", f"/jobs/{id}")
        assert told.status == 200, told.raw
        return told.body

    async def over(self, id: str) -> Any:
        """It when it has ended."""
        async with asyncio.timeout(20):
            async for _, job in self.events(id):
                if job["state"] in ENDED:
                    return job
        raise AssertionError("its events ended, and it has not")

    async def until(self, id: str, state: str) -> Any:
        """It when it has come to this state."""
        async with asyncio.timeout(20):
            async for _, job in self.events(id):
                if job["state"] == state:
                    return job
        raise AssertionError(f"it was never {state}")

    async def events(self, id: str) -> AsyncIterator[tuple[str, Any]]:
        """The names and the data of its events, to their end."""
        async with self.listening(id) as response:
            name = ""
            async for line in response.content:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    @asynccontextmanager
    async def listening(self, id: str) -> AsyncIterator[aiohttp.ClientResponse]:
        told = {"X-API-Key": self.key} if self.key else {}
        async with self.proxy.http.get(f"{self.proxy.url}/jobs/{id}/events", headers=told) as response:
            assert response.status == 200
            yield response
