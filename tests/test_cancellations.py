"""Whoever leaves, at whichever moment, leaves nothing behind and costs nobody anything."""

import asyncio
import threading
from contextlib import aclosing
from itertools import count

import pytest
from a_line import a_line
from held import HeldClock

from proxy.connector import mark_sent
from proxy.errors import Stopping, UpstreamError

#: Lines and what happens to a request in them. Every moment of each of these lives is tried.
LIVES = {
    "answered at once": ({}, []),
    "one at a time": ({"concurrency": 1}, []),
    "paced": ({"rpm": 60}, []),
    "paced, one at a time": ({"rpm": 60, "concurrency": 1}, []),
    "asked too much": ({"concurrency": 2}, [UpstreamError(429), UpstreamError(429)]),
    "asked too much, paced": ({"rpm": 60}, [UpstreamError(429, retry_after=3)]),
    "failing": ({"rpm": 600, "concurrency": 1}, [UpstreamError(500), UpstreamError(None)]),
    "failing for good": ({"retries": 1}, [UpstreamError(500), UpstreamError(500)]),
    "refused": ({"concurrency": 1}, [UpstreamError(400)]),
}
lives = pytest.mark.parametrize(("knobs", "outcomes"), LIVES.values(), ids=LIVES)


async def steps(clock: HeldClock, how_many: int) -> None:
    for _ in range(how_many):
        await clock.step()


@lives
async def test_a_caller_may_leave_at_any_moment(knobs, outcomes):
    """Of its wait, its call, its backoff: no slot, no place and no call of it is left, and its story is told."""
    for moment in count():
        async with a_line(latency=1, **knobs) as line:
            line.api.outcomes.extend(outcomes)
            asking = asyncio.create_task(line.chunks(line.enrol("a")))
            await steps(line.clock, moment)
            is_over = asking.done()
            asking.cancel()
            await line.clock.settle()
            assert line.is_idle
            sent = len(line.api.sent)
            await line.clock.forward(100)
            assert len(line.api.sent) == sent
            assert len(line.stories) == (moment > 0)
            await asyncio.gather(asking, return_exceptions=True)
        if is_over:
            break


async def test_when_the_last_leaves_no_permit_is_waited_for():
    """One that is kept by other replicas may be wanted there, and would be held until its slot."""
    async with a_line(concurrency=1) as line:
        first, last = await line.ask("first"), await line.ask("last")
        assert line.limits._resting
        last.cancel()
        await line.clock.settle()
        assert not line.limits._resting
        next_one = await line.ask("next")
        line.api.answer("first")
        await line.clock.wait_for(first)
        line.api.answer("next")
        await line.clock.wait_for(next_one)


@lives
async def test_the_one_behind_is_served_whenever_the_first_leaves(knobs, outcomes):
    """At the same pace as if it had been alone."""
    for moment in count():
        async with a_line(latency=1, **knobs) as line:
            line.api.outcomes.extend(outcomes)
            leaving = asyncio.create_task(line.chunks(line.enrol("leaving")))
            await steps(line.clock, moment)
            line.api.outcomes.clear()
            staying = asyncio.create_task(line.chunks(line.enrol("staying")))
            await steps(line.clock, moment % 7)
            is_over = leaving.done()
            leaving.cancel()
            left = line.clock.now()
            paused = line.limits.state().paused
            assert await line.clock.wait_for(staying) == [{"answer": "staying"}]
            assert line.clock.now() - left <= line.limits.interval + paused + 1.001
            await asyncio.gather(leaving, return_exceptions=True)
        if is_over:
            break


@lives
async def test_the_line_may_be_closed_at_any_moment(knobs, outcomes):
    """Whoever is there is told to come back; the dispatcher gives back what it holds."""
    for moment in count():
        async with a_line(latency=1, **knobs) as line:
            line.api.outcomes.extend(outcomes)
            asking = [asyncio.create_task(line.chunks(line.enrol(name))) for name in "ab"]
            await steps(line.clock, moment)
            is_over = all(task.done() for task in asking)
            await line.queue.close()
            await line.clock.settle()
            assert line.is_idle
            ends = await asyncio.gather(*asking, return_exceptions=True)
            assert all(isinstance(end, list | Stopping | UpstreamError) for end in ends)
        if is_over:
            break


async def test_a_stream_may_be_left_at_any_chunk():
    """Its slot goes to the next; the API's own end of the stream is closed."""
    for wanted in (1, 2, 3):
        async with a_line(concurrency=1) as line:
            line.api.script = [{"n": 1}, 1.0, {"n": 2}, {"n": 3}]
            async with aclosing(line.queue.run(line.enrol("leaving", is_stream=True))) as chunks:
                for _ in range(wanted):
                    await line.clock.wait_for(anext(chunks))
            assert line.is_idle
            assert line.stories[0].status is None
            line.api.script = [{"n": 1}]
            assert await line.clock.wait_for(await line.ask("next", is_stream=True)) == [{"n": 1}]


async def test_a_stream_may_be_left_at_any_moment():
    """Between chunks and within them."""
    for moment in count():
        async with a_line(concurrency=1, rpm=60) as line:
            line.api.script = [0.5, {"n": 1}, 1.0, {"n": 2}]
            asking = asyncio.create_task(line.chunks(line.enrol("leaving", is_stream=True)))
            await steps(line.clock, moment)
            is_over = asking.done()
            asking.cancel()
            await line.clock.settle()
            assert line.is_idle
        if is_over:
            break


async def test_of_a_hundred_who_leave_none_is_sent_and_the_others_lose_no_time():
    """The pace slots that they waited for are those of the others."""
    async with a_line(rpm=60, latency=0) as line:
        asking = [await line.ask(str(number)) for number in range(110)]
        await line.clock.forward(2.5)
        for task in asking[5:105]:
            task.cancel()
        await line.clock.wait_for(asyncio.gather(*asking[105:]))
        assert line.api.sent == [str(number) for number in [*range(5), *range(105, 110)]]
        assert line.api.times == pytest.approx([1000 + second for second in range(10)])


async def test_whoever_leaves_with_its_turn_in_hand_gives_it_back():
    """The permit was handed out at the very moment of leaving: it goes to the next, unsent."""
    async with a_line(rpm=60, latency=0) as line:
        await line.ask("first")
        leaving = await line.ask("leaving")
        staying = await line.ask("staying")
        while line.waiting == 2:
            await line.clock.step()
        leaving.cancel()
        await line.clock.wait_for(staying)
        assert line.api.sent == ["first", "staying"]
        assert line.clock.now() == pytest.approx(1001)


class Blocking:
    """A connector whose call is a plain function: it runs in a thread until the test lets it end."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def validate_data(self, data: object) -> bool:
        return True

    def get_info(self) -> dict[str, str]:
        return {}

    def request_api(self, data: object) -> dict[str, str]:
        mark_sent()
        self.has_begun.set()
        assert self.may_end.wait(20)
        return {"answer": "ok"}


async def until(event: threading.Event) -> None:
    while not event.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)


async def test_a_call_in_a_thread_may_say_that_it_is_sent():
    """`mark_sent` reaches the line from wherever it is called."""
    async with a_line(rpm=60, api=Blocking()) as line:
        asking = await line.ask("a")
        await until(line.api.has_begun)
        line.api.may_end.set()
        assert await asking == [{"answer": "ok"}]


async def test_a_call_in_a_thread_cannot_be_cancelled_so_it_keeps_its_slot():
    """Its caller has left, but it is still in flight: the next may not go before it ends."""
    async with a_line(concurrency=1, api=Blocking()) as line:
        leaving = await line.ask("leaving")
        await until(line.api.has_begun)
        leaving.cancel()
        staying = await line.ask("staying")
        assert (line.limits.state().in_flight, line.waiting) == (1, 1)
        line.api.may_end.set()
        assert await staying == [{"answer": "ok"}]
