"""Who stands where in a line, who sees it, and who is taken out of it; a line that is looked at goes on meanwhile."""

import asyncio
import math

import pytest
from a_line import a_line

from proxy.errors import Cancelled, UpstreamError
from proxy.line import Priority
from proxy.places import AT_ONCE


async def names(line, seen=None, limit=100) -> list[str]:
    _, standings = await line.queue.places.waiting(seen, limit)
    return [standing.id for standing in standings]


# ---- Who is there ----


async def test_those_who_wait_are_told_in_the_order_of_going():
    async with a_line(concurrency=1, latency=1) as line:
        asking = [await line.ask(name, caller=name[0], model="GigaChat-2") for name in ("x", "a1", "a2", "b1", "a3")]
        total, standings = await line.queue.places.waiting(None, 3)
        assert total == 4
        assert [(standing.place, standing.id) for standing in standings] == [(1, "a1"), (2, "b1"), (3, "a2")]
        assert {(standing.caller, standing.model, standing.attempts) for standing in standings} == {
            ("a", "GigaChat-2", 0),
            ("b", "GigaChat-2", 0),
        }
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == ["x", "a1", "b1", "a2", "a3"]


async def test_a_standing_tells_its_times():
    """In line since its arrival, until its turn, and until its deadline; in flight since its send."""
    async with a_line(rpm=6, latency=20) as line:
        asking = [await line.ask("a", patience=60), await line.ask("b", patience=math.inf)]
        await line.clock.forward(4)
        _, (waiting,) = await line.queue.places.waiting(None, 9)
        assert (waiting.waited, waiting.eta, waiting.left, waiting.took) == (4, pytest.approx(6), math.inf, None)
        _, (flying,) = await line.queue.places.in_flight(None, 9)
        assert (flying.id, flying.waited, flying.took, flying.left) == ("a", 0, 4, 56)
        assert (flying.place, flying.eta, flying.attempts) == (0, None, 1)
        await line.clock.wait_for(asyncio.gather(*asking))


async def test_a_caller_sees_its_own_at_the_places_they_have():
    async with a_line(rpm=1, latency=0) as line:
        asking = [await line.ask(f"{name}{n}", caller=name) for n in range(3) for name in "abc"]
        total, standings = await line.queue.places.waiting({"b"}, 100)
        assert total == 3
        assert [(standing.id, standing.place) for standing in standings] == [("b0", 1), ("b1", 4), ("b2", 7)]
        assert (await line.queue.places.waiting({"nobody"}, 100)) == (0, [])
        assert await line.queue.places.with_id("a1", {"b"}) == []
        for task in asking:
            task.cancel()


async def test_whoever_waits_for_its_backoff_to_end_has_no_place():
    """It comes last, and is not counted as waiting in line."""
    async with a_line(concurrency=1, latency=1) as line:
        line.api.outcomes.append(UpstreamError(500))
        asking = [await line.ask(name) for name in "abc"]
        await line.clock.forward(0.1)
        total, standings = await line.queue.places.waiting(None, 9)
        assert total == 2
        assert [(one.id, one.place, one.attempts, one.eta) for one in standings][-1] == ("a", 0, 1, None)
        assert line.waiting == 1
        await line.clock.wait_for(asyncio.gather(*asking))


async def test_whoever_has_just_come_is_there_before_anybody_has_looked_again():
    """A caller's look may be a second old; what is its own is not missing from it."""
    async with a_line(rpm=1, latency=0) as line:
        asking = [await line.ask(name, caller="anna") for name in "abc"]
        assert await names(line, {"anna"}) == ["b", "c"]
        asking.append(await line.ask("d", caller="anna"))
        assert await names(line, {"anna"}) == ["b", "c", "d"]
        (standing,) = await line.queue.places.with_id("d", {"anna"})
        assert standing.place == 3
        for task in asking:
            task.cancel()


async def test_live_requests_batch_ones_and_returned_ones_are_told_as_they_will_go():
    async with a_line(concurrency=1, latency=1) as line:
        line.api.outcomes.append(UpstreamError(429, retry_after=5))
        asking = [
            await line.ask(name, priority=Priority.BATCH if name.startswith("b") else Priority.NORMAL)
            for name in ("x", "b1", "y", "b2", "z")
        ]
        assert await names(line) == ["x", "y", "z", "b1", "b2"]
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == ["x", "x", "y", "z", "b1", "b2"]


async def test_how_many_will_be_too_late_is_known_before():
    """By their deadlines, if a given pace held."""
    async with a_line(rpm=60, latency=0) as line:
        asking = [await line.ask(str(number), patience=100) for number in range(50)]
        await line.clock.forward(0.5)
        assert await line.queue.places.late(line.queue.eta) == 0
        assert await line.queue.places.late(lambda ahead: 10 * ahead) == 39
        for task in asking:
            task.cancel()


async def test_a_long_line_is_looked_through_in_pieces():
    """The loop turns between two of them, so whoever is due meanwhile goes; who has left by then is not told."""
    async with a_line(rpm=1, latency=0) as line:
        number = 4 * AT_ONCE
        asking = [await line.ask(str(n), caller=str(n % 7), patience=math.inf) for n in range(number)]
        turns = 0
        third = asyncio.Event()

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1
                if turns == 3:
                    third.set()

        turning = asyncio.create_task(turn())
        looking = asyncio.create_task(line.queue.places.waiting(None, number))
        await third.wait()
        for task in asking[-10:]:
            task.cancel()
        _, standings = await looking
        turning.cancel()
        assert turns >= 4 * number / AT_ONCE  # looking, those of the line, those beside it, and telling of each
        assert len(standings) == number - 11
        for task in asking:
            task.cancel()


async def test_many_who_look_at_once_make_one_look():
    """A caller who asks again and again wears nobody out."""
    async with a_line(rpm=1, latency=0) as line:
        asking = [await line.ask(name) for name in "abc"]
        looks = 0
        snapshot = line.queue._line.snapshot

        def counted():
            nonlocal looks
            looks += 1
            return snapshot()

        line.queue._line.snapshot = counted
        await asyncio.gather(*(line.queue.places.with_id("b", None) for _ in range(50)))
        assert looks == 1
        for task in asking:
            task.cancel()


# ---- Who is to leave ----


async def test_a_request_that_is_cancelled_leaves_the_line():
    """Those behind it move up; nothing is sent for it."""
    async with a_line(concurrency=1, latency=1) as line:
        asking = [await line.ask(name) for name in "abc"]
        assert await line.queue.places.cancel("b", None, "by me") == 1
        await line.clock.wait_for(asyncio.gather(*asking, return_exceptions=True))
        assert line.api.sent == ["a", "c"]
        error = asking[1].exception()
        assert isinstance(error, Cancelled) and str(error) == "by me"
        assert (error.status, error.headers) == (503, {"x-should-retry": "false"})


async def test_a_call_that_is_cancelled_ends_and_gives_its_slot_back():
    async with a_line(concurrency=1) as line:
        asking = [await line.ask(name) for name in "ab"]
        assert await line.queue.places.cancel("a", None, "by me") == 1
        await line.clock.settle()
        assert isinstance(asking[0].exception(), Cancelled)
        assert line.api.sent == ["a", "b"]
        line.api.answer("b")
        assert await asking[1] == [{"answer": "b"}]


async def test_a_stream_that_is_cancelled_breaks_off_between_two_chunks():
    async with a_line(concurrency=1) as line:
        line.api.script = [{"chunk": 1}, 5.0, {"chunk": 2}]
        asking = await line.ask("a", is_stream=True)
        await line.clock.forward(1)
        await line.queue.places.cancel("a", None, "by me")
        await line.clock.settle()
        assert isinstance(asking.exception(), Cancelled)


async def test_a_request_in_its_backoff_is_cancelled_too():
    async with a_line(concurrency=1, latency=1) as line:
        line.api.outcomes.append(UpstreamError(500))
        asking = await line.ask("a")
        await line.queue.places.cancel("a", None, "by me")
        await line.clock.forward(10)
        assert isinstance(asking.exception(), Cancelled)
        assert line.api.sent == ["a"]


async def test_all_requests_of_one_id_are_meant_and_those_of_other_callers_are_not():
    """A caller may have given its id twice, and so may another one."""
    async with a_line(concurrency=1) as line:
        busy = await line.ask("busy")
        twins = [
            asyncio.create_task(line.chunks(line.enrol("same", caller=caller))) for caller in ("anna", "anna", "b")
        ]
        await line.clock.settle()
        assert len(await line.queue.places.with_id("same", {"anna"})) == 2
        assert await line.queue.places.cancel("same", {"anna"}, "by me") == 2
        await line.clock.settle()
        assert [task.done() for task in twins] == [True, True, False]
        assert all(isinstance(task.exception(), Cancelled) for task in twins[:2])
        assert await line.queue.places.cancel("same", None, "by me") == 1
        for task in (busy, *twins):
            task.cancel()
