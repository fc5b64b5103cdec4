"""Runners at work on a store, and an API of the test's own behind them: who waits, who is called, how it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from making import ANSWER, state_of
from running import until

from proxy.errors import LineFull, ProxyError
from proxy.jobs import Answer, Job, JobStore, State
from proxy.jobs.recording import Ended, Recording
from proxy.jobs.runner import Runner
from proxy.jobs.store import Store


class Api:
    """Serves jobs as `Replay` does: each waits in a line for its turn, is called, and ends as the test says."""

    def __init__(self, *ends: ProxyError | Exception, is_open: bool = True, is_slow: bool = False) -> None:
        #: How the first ones end; the others well.
        self.ends = list(ends)
        self.is_open = is_open
        self.is_slow = is_slow
        self.waiting: list[str] = []
        self.in_flight: list[str] = []
        self.called: list[str] = []
        self.most_waiting = 0
        self._turns = 0

    async def serve(self, job: Job, recording: Recording, on_call: Callable[[], None]) -> Ended:
        try:
            if self.ends and isinstance(self.ends[0], LineFull):
                return self._end()
            with among(self.waiting, job.id):
                self.most_waiting = max(self.most_waiting, len(self.waiting))
                await until(self._has_turn)
            on_call()
            self.called.append(job.id)
            with among(self.in_flight, job.id):
                await until(lambda: not self.is_slow)
            return self._end()
        finally:
            recording.end()

    def let(self, turns: int) -> None:
        """So many leave the line."""
        self._turns += turns

    def _has_turn(self) -> bool:
        if not self.is_open and not self._turns:
            return False
        self._turns = max(0, self._turns - 1)
        return True

    def _end(self) -> Ended:
        end = self.ends.pop(0) if self.ends else None
        if end is None:
            return Ended(ANSWER, None)
        if not isinstance(end, ProxyError):
            raise end
        return Ended(Answer(end.status, "application/json", b"{}"), end)


@contextmanager
def among(names: list[str], name: str) -> Iterator[None]:
    names.append(name)
    try:
        yield
    finally:
        names.remove(name)


@asynccontextmanager
async def at_work(store: Store, api: Api, **known: Any) -> AsyncIterator[Runner]:
    """A runner, closed afterwards."""
    runner = Runner(store, api.serve, known.pop("own", {}), **known)
    runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def ended(jobs: JobStore, *which: Job) -> list[Job]:
    """The jobs as they are when all of them have ended."""
    async with asyncio.timeout(20):
        for job in which:
            with jobs.news(job.id) as news:
                while not (await state_of(jobs, job)).state.is_end:
                    await news.next(1)
    return [await state_of(jobs, job) for job in which]


async def until_it_is(jobs: JobStore, job: Job, state: State) -> Job:
    """The job when it has come to this state."""
    return await until_of(jobs, job, lambda found: found.state is state)


async def put_off(jobs: JobStore, job: Job) -> Job:
    """The job when an attempt has failed, and another one is to come."""
    return await until_of(jobs, job, lambda found: found.state is State.QUEUED and found.attempts > 0)


async def until_of(jobs: JobStore, job: Job, what: Callable[[Job], bool]) -> Job:
    async with asyncio.timeout(20):
        with jobs.news(job.id) as news:
            while not what(found := await state_of(jobs, job)):
                await news.next(0.1)
    return found


class Unsteady:
    """The jobs of a store that fails so many times at some operations before it does them."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self.failures: dict[str, list[ProxyError]] = {}

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._jobs, name)

        async def unsteady(*args: Any, **known: Any) -> Any:
            if self.failures.get(name):
                raise self.failures[name].pop(0)
            return await operation(*args, **known)

        return unsteady if name in self.failures else operation
