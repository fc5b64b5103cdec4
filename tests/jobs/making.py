"""What the tests of the job store make, and how they run it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from running import until

from proxy.jobs import Answer, Job, JobStore, Kind
from proxy.jobs.store import Store
from proxy.line import Priority

Place = str | Path
OpenStore = Callable[..., Awaitable[Store]]

ANSWER = Answer(200, "application/json", b'{"ok": true}')
#: Seconds: a lease that ends while the test looks on, and one that does not.
SHORT, LONG = 0.05, 60.0


def a_job(caller: str = "ann", **fields: Any) -> Job:
    return Job(**{"caller": caller, "operation": "chat", "dialect": "openai", "body": b"{}", **fields})


def some_jobs(count: int, caller: str = "ann", **fields: Any) -> list[Job]:
    return [a_job(caller, **fields) for _ in range(count)]


def lines_of(batch: str, count: int, **fields: Any) -> list[Job]:
    return [
        a_job(id=f"{batch}-{number:06}", batch=batch, custom_id=str(number), priority=Priority.BATCH, **fields)
        for number in range(count)
    ]


async def run_one(jobs: JobStore, kind: Kind = Kind.LIVE, *, lease: float = LONG) -> Job:
    """The next job, claimed as a runner claims it: when there is none, after news, or when its time has come."""
    async with asyncio.timeout(20):
        with jobs.news(kind.topic) as news:
            while not (claimed := await jobs.claim(kind, 1, lease)).jobs:
                await news.next(claimed.again)
    (job,) = claimed.jobs
    return job


async def take(jobs: JobStore, most: int = 100, kind: Kind = Kind.LIVE) -> list[Job]:
    """What can be claimed now."""
    return list((await jobs.claim(kind, most, LONG)).jobs)


async def state_of(jobs: JobStore, job: Job) -> Job:
    """The job as it is now."""
    found = await jobs.get(job.id, caller=None)
    assert found is not None
    return found


async def over(moment: float) -> None:
    """Until this second of the epoch has passed, here and in a Redis of this machine."""
    await until(lambda: time.time() > moment)


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def gathered(content: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in content])
