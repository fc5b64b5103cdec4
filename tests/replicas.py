"""Limiters on a real Redis; each has connections of its own, as each replica has."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from running import until

from proxy.limits.link import RedisLink
from proxy.limits.shared import SharedLimits

#: Seconds that replicas have to tell what they hold: few, so that tests are short.
SETTLE = 0.3

Replica = Callable[..., Awaitable[SharedLimits]]


def opener(stack: AsyncExitStack, url: str, name: str) -> Replica:
    async def open_replica(url: str = url, link: dict[str, Any] | None = None, **knobs: Any) -> SharedLimits:
        line = RedisLink(url, **{"settle": SETTLE, **(link or {})})
        await line.start()
        stack.push_async_callback(line.close)
        limits = SharedLimits(line, knobs.pop("name", name), **knobs)
        limits.start()
        stack.push_async_callback(limits.close)
        if line.is_connected:
            await until(lambda: limits.status().replicas > 0)
        return limits

    return open_replica
