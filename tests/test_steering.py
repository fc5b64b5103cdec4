"""A line whose limits are changed while it works, on a held clock; and what is foretold of a change."""

import asyncio
from itertools import pairwise

import pytest
from a_line import Line, a_line
from hypothesis import given
from hypothesis import strategies as st

from proxy.audit import MemoryAudit
from proxy.effect import effect, spoken
from proxy.errors import DeadlineExpired, LimitsUnavailable, LineFull, NotFound, Stopping, UpstreamTimeout
from proxy.lanes import Lane, Lanes
from proxy.limits.overrides import Override
from proxy.steering import Operator, Steering, values

ME = Operator("operator", "10.0.0.1")


async def override(line: Line, **wishes: float | None) -> None:
    await line.queue.steered.override(
        {field: value if value is None else Override(value, 1.0, "me") for field, value in wishes.items()}
    )


def steering_of(line: Line) -> Steering:
    lane = Lane("main", line.queue._accounts[0].connector, line.queue)
    return Steering(Lanes(lane, lambda *_: lane), MemoryAudit(), now=lambda: 1000.0)


def leave(asking: list["asyncio.Task[list]"]) -> None:
    for task in asking:
        task.cancel()


# ---- The line's own limits ----


async def test_a_new_time_out_is_for_calls_that_begin_from_then_on():
    async with a_line(concurrency=2, call_timeout=10) as line:
        before = await line.ask("before")
        await override(line, timeout=3.0)
        after = await line.ask("after")
        await line.clock.forward(4)
        assert isinstance(after.exception(), UpstreamTimeout)
        assert "3 s" in str(after.exception())
        assert not before.done()
        await line.clock.forward(7)
        assert isinstance(before.exception(), UpstreamTimeout)


async def test_a_stream_keeps_the_time_out_that_it_began_with():
    """Between its chunks, too."""
    async with a_line(call_timeout=10) as line:
        line.api.script = [{"chunk": 1}, 5.0, {"chunk": 2}]
        asking = await line.ask("a", is_stream=True)
        await override(line, timeout=3.0)
        assert await line.clock.wait_for(asking) == [{"chunk": 1}, {"chunk": 2}]


async def test_a_lower_bound_throws_nobody_out_and_refuses_newcomers():
    async with a_line(concurrency=1, latency=1, size=10) as line:
        asking = [await line.ask(str(number)) for number in range(6)]
        await override(line, queue_size=2)
        refused = await line.ask("refused", caller="another")
        with pytest.raises(LineFull, match="2 requests"):
            await refused
        assert line.queue.state().size == 2
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == [*"012345"]
        await override(line, queue_size=None)
        assert line.queue.state().size == 10


async def test_while_paused_newcomers_wait_and_nobody_fails_but_by_its_own_deadline():
    async with a_line(rpm=600, latency=1) as line:
        flying = await line.ask("flying")
        await override(line, paused=True)
        asking = [await line.ask("late", patience=30), await line.ask("patient")]
        await line.clock.forward(60)
        assert flying.result() == [{"answer": "flying"}]
        assert isinstance(asking[0].exception(), DeadlineExpired)
        assert line.api.sent == ["flying"] and line.waiting == 1
        state = line.queue.state()
        assert state.limits.is_held
        assert state.rate_limit_headers()["RateLimit"].startswith('"pace";r=0;')
        await override(line, paused=None)
        assert await line.clock.wait_for(asking[1]) == [{"answer": "patient"}]
        assert line.api.times == [1000, 1060]


async def test_a_paused_line_that_stops_answers_everybody():
    """After its drain, for somebody may resume it."""
    async with a_line(latency=1) as line:
        await override(line, paused=True)
        asking = [await line.ask(name) for name in "ab"]
        await line.clock.wait_for(line.queue.drain(5))
        assert all(isinstance(task.exception(), Stopping) for task in asking)
        assert line.api.sent == []


async def test_fifty_who_wait_flow_at_the_new_pace():
    async with a_line(rpm=60, latency=0) as line:
        asking = [await line.ask(str(number)) for number in range(51)]
        await line.clock.forward(2.5)
        assert line.api.times == [1000, 1001, 1002]
        await override(line, rpm=6000)
        await line.clock.wait_for(asyncio.gather(*asking))
        gaps = [later - earlier for earlier, later in pairwise(line.api.times[3:])]
        assert gaps == pytest.approx([0.01] * 47)
        assert line.api.times[3] == pytest.approx(1002.5)


# ---- What is foretold ----


async def foretold(line: Line, **wishes: float) -> str:
    before = values(line.queue.steered)
    return (await effect(line.queue, before, {**before, **wishes})).text


async def test_a_preview_tells_how_soon_the_line_clears():
    async with a_line(rpm=600, latency=0) as line:
        asking = [await line.ask(str(number)) for number in range(241)]
        await line.clock.forward(0.05)
        before = values(line.queue.steered)
        told = await effect(line.queue, before, {**before, "rpm": 50})
        assert told.waiting == 240
        assert told.before.clears_in == pytest.approx(23.95)
        assert told.after.clears_in == pytest.approx(1.2 - 0.05 + 239 * 1.2)
        assert told.text == "the line of 240 clears in 4 min 48 s"
        leave(asking)


async def test_what_is_foretold_comes_true():
    """The last one is sent when it was said, at any pace."""
    for rpm in (10, 300, 6000):
        async with a_line(rpm=60, latency=0) as line:
            asking = [await line.ask(str(number)) for number in range(20)]
            await line.clock.forward(0.3)
            before = values(line.queue.steered)
            told = (await effect(line.queue, before, {**before, "rpm": rpm})).after.clears_in
            await override(line, rpm=rpm)
            begun = line.clock.now()
            await line.clock.wait_for(asyncio.gather(*asking))
            assert line.api.times[-1] - begun == pytest.approx(told, abs=1e-6)


async def test_a_preview_tells_who_will_be_too_late():
    async with a_line(rpm=600, latency=0) as line:
        asking = [await line.ask(str(number), patience=60) for number in range(100)]
        assert await foretold(line, rpm=60) == "the line of 99 clears in 1 min 39 s, too late for 39 of them"
        assert await foretold(line, rpm=600) == "the line of 99 clears in 9.9 s"
        leave(asking)


async def test_a_preview_tells_of_calls_and_newcomers_and_time():
    async with a_line(concurrency=5, call_timeout=60) as line:
        asking = [await line.ask(str(number)) for number in range(8)]
        assert await foretold(line, concurrency=2) == (
            "the line of 3 clears in 0 s; 3 more are in flight than may be: no call begins until they have ended"
        )
        assert "newcomers get 429 until fewer than 3 wait" in await foretold(line, queue_size=3)
        assert "newcomers" not in await foretold(line, queue_size=4)
        assert "calls that begin from now on may take 1 min 30 s" in await foretold(line, timeout=90)
        assert await foretold(line, paused=True) == "paused: nothing is sent until it is resumed, 3 wait"
        leave(asking)


async def test_of_an_empty_line_there_is_little_to_tell():
    async with a_line(rpm=60) as line:
        assert await foretold(line, rpm=600) == "nobody waits"
        assert await foretold(line, paused=True) == "paused: nothing is sent until it is resumed, nobody waits"


async def test_by_the_calls_in_flight_the_mean_latency_tells():
    async with a_line(concurrency=1, latency=10) as line:
        first = await line.ask("first")
        await line.clock.wait_for(first)
        asking = [await line.ask(str(number)) for number in range(11)]
        assert await foretold(line, concurrency=1) == "the line of 10 clears in 1 min 40 s"
        assert await foretold(line, concurrency=10) == "the line of 10 clears in 10 s"
        assert await foretold(line, concurrency=0) == "the line of 10 clears in 0 s"
        leave(asking)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.26, "0.3 s"),
        (9, "9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (288, "4 min 48 s"),
        (3599.7, "1 h"),
        (3900, "1 h 5 min"),
        (90_000, "1 d 1 h"),
        (172_800, "2 d"),
    ],
)
def test_a_time_in_words(seconds, text):
    assert spoken(seconds) == text


@given(st.floats(0, 1e7))
def test_any_time_has_words(seconds):
    assert spoken(seconds)[0].isdigit()


# ---- Changes ----


async def test_a_change_is_recorded_with_who_and_when_and_from_what_to_what():
    async with a_line(rpm=60, concurrency=3) as line:
        steering = steering_of(line)
        made = await steering.change(steering.lane("main"), {"rpm": 600, "concurrency": 0, "paused": True}, ME)
        common = {"at": 1000.0, "who": "operator", "address": "10.0.0.1", "lane": "main", "is_setting": False}
        assert made.entries == [
            {**common, "field": "rpm", "from": 60, "to": 600},
            {**common, "field": "concurrency", "from": 3, "to": 0},
            {**common, "field": "paused", "from": False, "to": True},
        ]
        await steering.change(steering.lane("main"), {"rpm": None, "paused": False}, ME)
        newest = await steering.audit.newest(9)
        assert [(entry["field"], entry["to"], entry["is_setting"]) for entry in newest[:2]] == [
            ("paused", False, True),
            ("rpm", 60, True),
        ]
        assert newest[2:] == made.entries[::-1]
        assert line.queue.steered.overrides == {"concurrency": Override(0, 1000.0, "operator at 10.0.0.1")}


async def test_what_is_so_already_is_no_change():
    async with a_line(rpm=60) as line:
        steering = steering_of(line)
        await steering.change(steering.lane("main"), {"rpm": 5}, ME)
        for wishes in ({"rpm": 5}, {"timeout": None}, {"paused": False}):
            assert (await steering.change(steering.lane("main"), wishes, ME)).entries == []
        assert len(await steering.audit.newest(9)) == 1


async def test_a_preview_changes_nothing():
    async with a_line(rpm=60) as line:
        steering = steering_of(line)
        made = await steering.preview(steering.lane("main"), {"rpm": 5, "paused": True}, ME)
        assert [entry["field"] for entry in made.entries] == ["rpm", "paused"]
        assert line.queue.steered.overrides == {} and await steering.audit.newest(9) == []


async def test_whoever_wishes_for_a_change_and_leaves_has_made_it_whole():
    """Recorded, too."""
    async with a_line(rpm=60) as line:
        steering = steering_of(line)
        changing = asyncio.create_task(steering.change(steering.lane("main"), {"rpm": 5}, ME))
        await asyncio.sleep(0)
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        await steering.close()
        assert line.limits.rpm == 5 and len(await steering.audit.newest(9)) == 1


async def test_changes_at_once_are_made_one_after_the_other():
    """Each starts from what the one before it left."""
    async with a_line(rpm=60) as line:
        steering = steering_of(line)
        made = await asyncio.gather(
            *(steering.change(steering.lane("main"), {"rpm": number}, ME) for number in range(1, 6))
        )
        assert [(one.entries[0]["from"], one.entries[0]["to"]) for one in made] == [
            (60, 1),
            (1, 2),
            (2, 3),
            (3, 4),
            (4, 5),
        ]


async def test_a_change_of_which_nobody_knows_whether_it_was_made_is_in_the_log(monkeypatch, caplog):
    """With who and what. The record has only what was made."""
    async with a_line(rpm=60) as line:

        async def lost(changes):
            raise LimitsUnavailable("Redis went away meanwhile")

        monkeypatch.setattr(line.queue.steered, "override", lost)
        steering = steering_of(line)
        with pytest.raises(LimitsUnavailable):
            await steering.change(steering.lane("main"), {"rpm": 5}, ME)
        assert "lane main: rpm 60 -> 5, by operator at 10.0.0.1. But Redis went away meanwhile" in caplog.text
        assert await steering.audit.newest(9) == []


async def test_an_unknown_lane_is_told_those_there_are():
    async with a_line() as line:
        with pytest.raises(NotFound, match=r'no lane "x"; there is main'):
            steering_of(line).lane("x")
