"""The store in one SQLite file, for one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.jobs import Room
from proxy.jobs.sqlite.batches import SqliteBatches
from proxy.jobs.sqlite.database import opened
from proxy.jobs.sqlite.files import SqliteFiles
from proxy.jobs.sqlite.jobs import SqliteJobs
from proxy.jobs.store import Store


@asynccontextmanager
async def sqlite_store(path: Path, room: Room, *, is_shared: bool) -> AsyncIterator[Store]:
    """See `proxy.jobs.store.opened`."""
    async with opened(path, room, is_shared=is_shared) as database:
        jobs, files, batches = SqliteJobs(database), SqliteFiles(database), SqliteBatches(database)
        yield Store(jobs, files, batches, where=str(path), resumed=database.resumed)
