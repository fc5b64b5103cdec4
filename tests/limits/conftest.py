"""A real Redis, and limiters on it; each limiter has connections of its own, as each replica has."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
from redis_server import RedisServer
from replicas import Replica, opener

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


@pytest.fixture
async def replica(common_redis: RedisServer, name: str) -> AsyncIterator[Replica]:
    """`await replica(rpm=600)`: another replica's limiter of the same account, closed after the test."""
    async with AsyncExitStack() as stack:
        yield opener(stack, common_redis.url, name)
