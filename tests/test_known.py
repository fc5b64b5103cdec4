"""What is found out in the background: asked for now and then, never waited for longer than one likes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from held import HeldClock

from proxy.known import Known


class Oracle:
    """Answers with a number more each time; while it is `slow` it says nothing."""

    def __init__(self) -> None:
        self.asked = 0
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.speaks.wait()
        return number


@asynccontextmanager
async def known_of(oracle: Oracle) -> AsyncIterator[tuple[Known[int], HeldClock]]:
    clock = HeldClock()
    known = Known(oracle, 0, age=5, clock=clock)
    yield known, clock
    await known.close()


async def test_an_answer_serves_for_its_age_and_is_then_asked_for_anew() -> None:
    oracle = Oracle()
    async with known_of(oracle) as (known, clock):
        assert [await known.found(1) for _ in range(3)] == [1, 1, 1]
        await clock.forward(4.9)
        assert await known.found(1) == 1
        await clock.forward(0.1)
        assert [await known.found(1), await known.found(1)] == [2, 2]


async def test_whoever_looks_is_told_at_once_what_is_known() -> None:
    """And the answer comes in the background; one at a time, however many look."""
    oracle = Oracle()
    async with known_of(oracle) as (known, clock):
        assert [known.look() for _ in range(10)] == [0] * 10
        await clock.settle()
        assert (known.look(), oracle.asked) == (1, 1)


async def test_all_wait_for_the_first_answer_and_nobody_for_longer_than_its_patience() -> None:
    oracle = Oracle()
    oracle.speaks.clear()
    async with known_of(oracle) as (known, clock):
        waiting = [asyncio.create_task(known.found(1)) for _ in range(3)]
        await clock.forward(0.9)
        assert not any(task.done() for task in waiting)
        await clock.forward(0.1)
        assert [task.result() for task in waiting] == [0, 0, 0]
        oracle.speaks.set()
        assert (await known.found(1), oracle.asked) == (1, 1)


async def test_where_an_answer_is_long_in_coming_one_waits_and_the_others_get_the_old_one() -> None:
    oracle = Oracle()
    async with known_of(oracle) as (known, clock):
        await known.found(1)
        await clock.forward(6)
        oracle.speaks.clear()
        asking = asyncio.create_task(known.found(1))
        await clock.settle()
        assert (await known.found(1), asking.done()) == (1, False)
        await clock.forward(1)
        assert asking.result() == 1


async def test_what_was_known_stays_when_nothing_can_be_found_out() -> None:
    """It is asked again when its age is over."""
    oracle = Oracle()
    async with known_of(oracle) as (known, clock):
        await known.found(1)
        await clock.forward(6)
        oracle.speaks.wait = None  # type: ignore[method-assign,assignment]
        assert (await known.found(1), known.has_failed) == (1, True)
        del oracle.speaks.wait
        assert (await known.found(1), oracle.asked) == (1, 2)
        await clock.forward(5)
        assert (await known.found(1), known.has_failed) == (3, False)


async def test_closing_ends_what_is_under_way() -> None:
    oracle = Oracle()
    oracle.speaks.clear()
    async with known_of(oracle) as (known, clock):
        known.look()
        await clock.settle()
    assert known.look() == 0
    await known.close()
