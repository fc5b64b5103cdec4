"""Stores of every engine: one file of SQLite, a real Redis, and a Redis that minds the rules of a cluster."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from making import OpenStore, Place
from redis_server import RedisServer, free_port

from proxy.jobs import JobStore
from proxy.jobs.store import Store, opened


@contextmanager
def running(home: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(home, "--appendonly", "yes", *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def cluster_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one, which refuses what would not work in one of many."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running(tmp_path_factory.mktemp("cluster"), *options) as server:
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while "cluster_state:ok" not in server.client.execute_command("CLUSTER", "INFO"):
            time.sleep(0.01)
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to be treated badly."""
    with running(tmp_path / "redis") as server:
        yield server


@pytest.fixture(params=["sqlite", "redis", "cluster"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an empty store is."""
    if request.param == "sqlite":
        return tmp_path / "jobs.sqlite"
    server: RedisServer = request.getfixturevalue("jobs_redis" if request.param == "redis" else "cluster_redis")
    server.client.flushall()
    return server.url


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    """`await open_store(place)`: a store, closed after the test."""
    async with AsyncExitStack() as stack:
        yield lambda *args, **knobs: stack.enter_async_context(opened(*args, **knobs))


@pytest.fixture
async def store(place: Place, open_store: OpenStore) -> Store:
    return await open_store(place)


@pytest.fixture
def jobs(store: Store) -> JobStore:
    return store.jobs
