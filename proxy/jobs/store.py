"""The store of one process: which engine keeps it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.jobs import JobStore, Room
from proxy.jobs.batches import BatchStore
from proxy.jobs.files import FileStore


@dataclass(frozen=True)
class Store:
    """Jobs, files and batches, kept together."""

    jobs: JobStore
    files: FileStore
    batches: BatchStore
    #: Where they are, for people; nothing secret is in it.
    where: str
    #: Jobs that ran when the last process ended, and begin again; 0 where others may run them.
    resumed: int = 0

    async def purge(self) -> int:
        """Expire what is late, forget what is old, in all of them. Returns how many. Raises JobsUnavailable."""
        return await self.jobs.purge() + await self.files.purge() + await self.batches.purge()


@asynccontextmanager
async def opened(
    place: str | Path, *, room: Room | None = None, is_shared: bool = False, prefix: str = "gigachat-proxy"
) -> AsyncIterator[Store]:
    """The store at `place`: the path of an SQLite file, or the address of a Redis (see `proxy.limits.address`).

    Args:
        room: what it may hold.
        is_shared: it is another process that serves the jobs of this SQLite file; with Redis many do anyway.
        prefix: what all keys in Redis begin with; services with the same one share their jobs.

    Raises JobsUnavailable if it cannot be used, ValueError for a wrong address; the text says what to do.
    """
    async with AsyncExitStack() as stack:
        if isinstance(place, str) and "://" in place:
            from proxy.jobs.redis import redis_store  # whoever needs no Redis needs no client of it

            yield await stack.enter_async_context(redis_store(place, room or Room(), prefix))
        else:
            from proxy.jobs.sqlite import sqlite_store

            yield await stack.enter_async_context(sqlite_store(Path(place), room or Room(), is_shared=is_shared))
