"""Several at once: gathered and merged, they end together."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from proxy.merging import all_of, merged


class Broken(Exception):
    pass


class Told:
    """A stream that yields when it is told to, and knows whether it was closed."""

    def __init__(self, *items: str, fails: bool = False) -> None:
        self.go = asyncio.Event()
        self.is_closed = False
        self._items = items
        self._fails = fails

    async def stream(self) -> AsyncGenerator[str, None]:
        try:
            await self.go.wait()
            for item in self._items:
                yield item
            if self._fails:
                raise Broken
        finally:
            self.is_closed = True


async def collected(*streams: Told) -> list[str]:
    return [item async for item in merged([each.stream() for each in streams])]


async def test_all_that_is_yielded_comes_each_stream_in_its_own_order() -> None:
    streams = [Told("a1", "a2"), Told("b1", "b2", "b3"), Told()]
    for each in streams:
        each.go.set()
    came = await collected(*streams)
    assert sorted(came) == ["a1", "a2", "b1", "b2", "b3"]
    assert [item for item in came if item[0] == "b"] == ["b1", "b2", "b3"]


async def test_none_begins_before_those_that_stand_before_it() -> None:
    first, second, third = Told("a"), Told("b"), Told("c")
    third.go.set()
    reading = asyncio.create_task(collected(first, second, third))
    await asyncio.sleep(0.01)
    second.go.set()
    await asyncio.sleep(0.01)
    first.go.set()
    assert await reading == ["a", "b", "c"]


async def test_a_stream_without_anything_holds_nobody_up() -> None:
    first, second = Told(), Told("b")
    first.go.set()
    second.go.set()
    assert await collected(first, second) == ["b"]


async def test_a_wait_for_what_is_left_is_told_once_something_has_come() -> None:
    first, second = Told("a"), Told("b")
    events = merged([first.stream(), second.stream()], idle="(waits)", seconds=0.001)
    opening = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    assert not opening.done()  # what has not begun may still fail in its own words
    first.go.set()
    assert [await opening, await anext(events), await anext(events)] == ["a", "(waits)", "(waits)"]
    second.go.set()
    assert [event async for event in events if event != "(waits)"] == ["b"]


async def test_the_first_that_fails_ends_the_others() -> None:
    first, second = Told("a", fails=True), Told("b")
    first.go.set()
    with pytest.raises(Broken):
        await collected(first, second)
    assert first.is_closed and second.is_closed


async def test_who_stops_reading_closes_all_even_if_much_is_waiting_to_be_read() -> None:
    streams = [Told(*("x" * 100)), Told(*("y" * 100))]
    for each in streams:
        each.go.set()
    reading = merged([each.stream() for each in streams])
    assert await anext(reading) == "x"
    await reading.aclose()
    assert all(each.is_closed for each in streams)


async def test_answers_come_in_the_order_of_the_questions() -> None:
    async def answer(number: int) -> int:
        await asyncio.sleep((3 - number) / 1000)
        return number

    assert await all_of([lambda number=number: answer(number) for number in range(3)]) == [0, 1, 2]  # type: ignore[misc]


async def test_one_failed_answer_is_the_error_and_the_others_are_cancelled() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def fails() -> None:
        raise Broken

    with pytest.raises(Broken):
        await all_of([never, fails])
    assert cancelled.is_set()
