"""The store in a Redis, which many processes may share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.jobs import Room
from proxy.jobs.redis.batches import RedisBatches
from proxy.jobs.redis.files import RedisFiles
from proxy.jobs.redis.jobs import RedisJobs
from proxy.jobs.redis.link import linked
from proxy.jobs.store import Store


@asynccontextmanager
async def redis_store(url: str, room: Room, prefix: str) -> AsyncIterator[Store]:
    """See `proxy.jobs.store.opened`."""
    async with linked(url, room, prefix) as link:
        yield Store(RedisJobs(link), RedisFiles(link), RedisBatches(link), where=link.address.text)
