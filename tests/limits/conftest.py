"""A real Redis, and limiters on it; each limiter has connections of its own, as each replica has."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer
from replicas import Replica, opener

from proxy.limits import Limits
from proxy.limits.local import LocalLimits

Make = Callable[..., Awaitable[Limits]]

names = (f"account-{number}" for number in count())


@pytest.fixture(scope="session")
def common_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to be treated badly."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def name() -> str:
    """An account that no other test uses."""
    return next(names)


@pytest.fixture(params=["local", "redis"])
async def make(request: pytest.FixtureRequest, name: str) -> AsyncIterator[Make]:
    """`await make(rpm=600)`: limits of an account that nobody else uses."""
    async with AsyncExitStack() as stack:
        if request.param == "redis":
            server: RedisServer = request.getfixturevalue("common_redis")
            yield opener(stack, server.url, name)
        else:

            async def make(**knobs: Any) -> Limits:
                return LocalLimits(**knobs)

            yield make


@pytest.fixture
async def replica(common_redis: RedisServer, name: str) -> AsyncIterator[Replica]:
    """`await replica(rpm=600)`: another replica's limiter of the same account, closed after the test."""
    async with AsyncExitStack() as stack:
        yield opener(stack, common_redis.url, name)
