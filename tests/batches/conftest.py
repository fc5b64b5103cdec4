"""Stores for batches, one file of SQLite and a real Redis, and nobody who dawdles."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_server import RedisServer

from proxy import batching
from proxy.jobs.store import Store, opened


@pytest.fixture(scope="session")
def jobs_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where an empty store is."""
    if request.param == "sqlite":
        return tmp_path / "jobs.sqlite"
    server: RedisServer = request.getfixturevalue("jobs_redis")
    server.client.flushall()
    return server.url


@pytest.fixture
async def store(place: str | Path) -> AsyncIterator[Store]:
    async with opened(place) as store:
        yield store


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many looks, and few lines at once: so few lines are as good as many."""
    monkeypatch.setattr(batching, "SETTLING", 0.0)
    monkeypatch.setattr(batching, "AT_ONCE", 2)
