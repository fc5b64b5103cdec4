"""A real emulator with a real proxy before it, and what tests ask of the two."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import SecretStr

import app
import emulator
from proxy.limits.overrides import PAUSED, Override
from proxy.settings import Settings


def chat(text: str = "Привет", **parameters: Any) -> dict[str, Any]:
    """A native body."""
    return {"messages": [["user", text]], "generate_parameters": parameters}


@dataclass
class Proxy:
    """A running proxy with the emulator behind it."""

    service: app.Service
    giga: emulator.Emulator
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.service.url

    async def ask(self, text: str = "Привет", headers: dict[str, str] | None = None, **parameters: Any) -> "Answer":
        """One native chat request; its status, headers and body."""
        async with self.http.post(self.url, json=chat(text, **parameters), headers=headers) as response:
            return Answer(response.status, response.headers, await response.json())

    async def calls(self, path: str = "/chat/completions") -> list[dict[str, Any]]:
        """What the upstream received, in the order of arrival."""
        async with self.http.get(f"{self.giga.url}/_emulator/calls", params={"path": path}) as response:
            calls: list[dict[str, Any]] = await response.json()
            return calls

    async def sent_texts(self) -> list[str]:
        """The last message of each chat call that reached the upstream."""
        return [call["body"]["messages"][-1]["content"] for call in await self.calls()]


@dataclass
class Answer:
    status: int
    headers: Any
    body: dict[str, Any]


async def until(what: Callable[[], bool]) -> None:
    """Let the loop run until `what` holds; a test that waits for ever is stopped by this time-out."""
    async with asyncio.timeout(20):
        while not what():  # noqa: ASYNC110 - what is watched may be anywhere in the process
            await asyncio.sleep(0.005)


def waiting(proxy: Proxy) -> int:
    """How many wait in the proxy's line."""
    return proxy.service.line.state().waiting


async def busy(proxy: Proxy, seconds: float) -> asyncio.Task[Answer]:
    """One call in flight for this long; with EXT_MAX_REQUESTS=1 whoever comes after it waits in line."""
    proxy.giga.state.faults.add({"kind": "slow", "seconds": seconds})
    first = asyncio.create_task(proxy.ask("first"))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1 and waiting(proxy) == 0)
    return first


async def pause(proxy: Proxy, *, is_held: bool = True) -> None:
    """Hold its line as operators do, or let it go on."""
    await proxy.service.line.steered.override({PAUSED: Override(True, 0.0, "a test") if is_held else None})


StartProxy = Callable[..., Any]


def settings_for(giga: emulator.Emulator, **knobs: Any) -> Settings:
    """Settings of a proxy before this emulator."""
    return Settings(
        **{
            "port": 0,
            "gigachat_base_url": f"{giga.url}/v1",
            "gigachat_auth_url": f"{giga.url}/api/v2/oauth",
            "gigachat_api_key": SecretStr("a-key"),
            "ext_max_requests": 10,
            **knobs,
        }
    )
