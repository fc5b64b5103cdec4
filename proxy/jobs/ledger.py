"""What the store is told of jobs under way: that they were sent, how they ended, that they are given back.

Rule 1: an answer that was paid for is told to the store until the store takes it, or says that it is ours no more.
Rule 2: what is to be done when a job has ended is in the store before its end is.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from proxy.errors import JobsFull, JobsUnavailable, ProxyError
from proxy.jobs import Answer, Claim, Job, JobStore
from proxy.jobs.run import Run

T = TypeVar("T")

log = logging.getLogger("proxy.jobs")

#: Seconds between two attempts to reach the store, from the first on.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: What of the store may pass: it is away, or its disk is full.
STORE_TROUBLE = (JobsUnavailable, JobsFull)


class Ledger:
    """Tells the store.

    Args:
        after: makes of a job that has ended what is to be done then, if anything is.
    """

    def __init__(self, jobs: JobStore, after: Callable[[Job], Job | None]) -> None:
        self._jobs = jobs
        self._after = after

    async def sent(self, run: Run) -> None:
        """Should this process die now, it is known that the job may be to blame, and not those that wait."""
        try:
            await self._jobs.note(run.job.claim, run.progress)
        except ProxyError as error:
            log.warning("job %s: that it was sent is not noted: %s", run.job.id, error)

    async def done(self, run: Run, answer: Answer) -> None:
        await self._follow(run)
        await self._tell(run, partial(self._jobs.ack, answer=answer))

    async def failed(self, run: Run, error: str, answer: Answer | None = None) -> None:
        """For good."""
        await self._follow(run)
        await self._tell(run, partial(self._jobs.fail, error=error, answer=answer))

    async def put_off(self, run: Run, error: str, seconds: float, answer: Answer | None = None) -> None:
        """It failed, and is tried again after so many seconds."""
        run.is_given_back = True
        await self._tell(run, partial(self._jobs.fail, error=error, answer=answer, retry_at=time.time() + seconds))

    async def release(self, run: Run) -> None:
        """It did not begin."""
        run.is_given_back = True
        await self._tell(run, self._jobs.release)

    async def give_back(self, run: Run) -> None:
        """It is ended early. A store that cannot be reached now gives it out again when its lease is over."""
        if not run.is_lost:
            run.is_given_back = True
            try:
                await run.noted()
                await self._jobs.release(run.job.claim, why=run.why)
            except STORE_TROUBLE as error:
                log.warning("job %s is not given back: %s", run.job.id, error)

    async def _follow(self, run: Run) -> None:
        if (work := self._after(run.job)) is not None:
            await insisting(partial(self._jobs.add, work, is_owed=True))

    async def _tell(self, run: Run, tell: Callable[[Claim], Awaitable[bool]]) -> None:
        claim = None
        while claim != run.job.claim:
            claim = run.job.claim
            if await insisting(partial(tell, claim)):
                return
        log.warning("job %s: its end is not kept, for it is another's by now, or was cancelled", run.job.id)


async def insisting(step: Callable[[], Awaitable[T]]) -> T:
    """Until the store can be reached, and has room for what it has accepted before."""
    pause = FIRST_PAUSE
    while True:
        try:
            return await step()
        except STORE_TROUBLE as error:
            log.warning("the store of jobs: %s", error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)
