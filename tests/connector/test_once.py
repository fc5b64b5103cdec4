import asyncio
from contextvars import ContextVar

import pytest

from proxy.errors import UpstreamError
from proxy.once import Once

mark: ContextVar[str] = ContextVar("mark", default="none")


class Work:
    """Counts its runs; ends when the test lets it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.runs = 0
        self.error = error
        self.may_end = asyncio.Event()
        self.mark = ""

    async def __call__(self) -> int:
        self.runs += 1
        number, self.mark = self.runs, mark.get()
        await self.may_end.wait()
        if self.error:
            raise self.error
        return number


async def soon(*waiting: asyncio.Task[int]) -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_run_for_all(clock):
    """However many call at once, the work runs once and all get its result; the next call runs it again."""
    work = Work()
    once = Once(work, clock=clock)
    waiting = [asyncio.create_task(once()) for _ in range(100)]
    await soon()
    work.may_end.set()
    assert await asyncio.gather(*waiting) == [1] * 100
    assert await once() == 2


async def test_cancelled_first_caller(clock):
    """The first caller is cancelled: the run goes on for the others."""
    work = Work()
    once = Once(work, clock=clock)
    first, second = asyncio.create_task(once()), asyncio.create_task(once())
    await soon()
    first.cancel()
    await soon()
    assert first.cancelled()
    work.may_end.set()
    assert await second == 1


async def test_failure_reaches_everybody_once(clock):
    """A failed run fails all who wait for it; whoever calls afterwards gets a run of his own."""
    work = Work(UpstreamError(502))
    once = Once(work, clock=clock)
    waiting = [asyncio.create_task(once()) for _ in range(3)]
    await soon()
    work.may_end.set()
    assert [type(told) for told in await asyncio.gather(*waiting, return_exceptions=True)] == [UpstreamError] * 3
    work.error = None
    assert await once() == 2


async def test_failure_without_a_listener_is_quiet(clock):
    """All callers have left when the run fails: nobody is told, asyncio neither."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    work = Work(UpstreamError(502))
    once = Once(work, clock=clock)
    caller = asyncio.create_task(once())
    once.start()
    await soon()
    caller.cancel()
    work.may_end.set()
    await soon()
    del once, caller
    await soon()
    assert told == []


async def test_memory(clock):
    """An outcome is good for as long as the memory says, and no longer."""
    work = Work()
    work.may_end.set()
    once = Once(work, clock=clock, memory=lambda error: 5 if error else 10)
    assert await once() == 1
    clock.time += 9.9
    assert await once() == 1
    clock.time += 0.1
    work.error = UpstreamError(500)
    for _ in range(3):
        with pytest.raises(UpstreamError):
            await once()
    assert work.runs == 2
    clock.time += 5
    work.error = None
    assert await once() == 3


async def test_close(clock):
    """Closing ends the run; whoever waits for it is told by an UpstreamError and is not cancelled himself."""
    once = Once(Work(), clock=clock)
    waiting = asyncio.create_task(once())
    await soon()
    await once.close()
    with pytest.raises(UpstreamError):
        await waiting
    await once.close()


async def test_run_belongs_to_nobody(clock):
    """The run does not see the context of its first caller: no permit, no request id."""
    work = Work()
    work.may_end.set()
    mark.set("caller")
    await Once(work, clock=clock)()
    assert work.mark == "none"
