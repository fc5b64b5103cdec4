"""The line and its dispatcher on a held clock: order, retries, time-outs, refusals, the end, and what is told of it."""

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest
from a_line import Line, a_line

from proxy.connector import current_gate
from proxy.errors import (
    DeadlineExpired,
    LineFull,
    ProxyError,
    Stopping,
    UpstreamError,
    UpstreamTimeout,
    WaitTooLong,
)
from proxy.limits.local import FIRST_BACKOFF, FIRST_RUN
from proxy.line import Priority
from proxy.places import AGE

TOO_MANY = UpstreamError(429)


async def failure(asking: "asyncio.Task[list]", line: Line) -> BaseException:
    """What a caller who must have its answer by now was told instead."""
    await line.clock.settle()
    assert asking.done()
    error = asking.exception()
    assert error is not None
    return error


# ---- Who goes next ----


async def test_requests_go_in_the_order_of_coming_and_get_their_own_answers():
    """One at a time, if one at a time is allowed."""
    async with a_line(concurrency=1, latency=1) as line:
        asking = [await line.ask(name) for name in "abcde"]
        answers = await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == list("abcde")
        assert line.api.times == [1000, 1001, 1002, 1003, 1004]
        assert answers == [[{"answer": name}] for name in "abcde"]


async def test_the_pace_is_kept_from_send_to_send():
    """However fast the answers come."""
    async with a_line(rpm=600, latency=0.05) as line:
        asking = [await line.ask(str(number)) for number in range(20)]
        await line.clock.wait_for(asyncio.gather(*asking))
        gaps = [later - earlier for earlier, later in pairwise(line.api.times)]
        assert gaps == pytest.approx([0.1] * 19)


async def test_a_caller_with_two_need_not_wait_for_one_with_two_hundred():
    """Its first goes within four dispatches, its second within seven."""
    async with a_line(concurrency=1, latency=1) as line:
        crowd = [await line.ask(f"a{number}", caller="anna") for number in range(200)]
        await line.clock.forward(20.5)
        dispatched = len(line.api.sent)
        for name in ("b1", "b2"):
            await line.ask(name, caller="boris")
        await line.clock.wait_for(asyncio.gather(*crowd))
        assert line.api.sent.index("b1") - dispatched < 4
        assert line.api.sent.index("b2") - dispatched < 7


async def test_the_best_request_is_picked_at_the_last_moment():
    """Whoever comes while the line waits for the pace may still go first."""
    async with a_line(rpm=60, latency=0) as line:
        early = [await line.ask(name, caller="anna") for name in ("first", "second", "third")]
        await line.clock.forward(0.9)
        urgent = await line.ask("urgent", caller="boris", priority=Priority.HIGH)
        await line.clock.wait_for(asyncio.gather(*early, urgent))
        assert line.api.sent == ["first", "urgent", "second", "third"]


async def test_batch_requests_go_when_no_live_one_waits():
    async with a_line(concurrency=1, latency=1) as line:
        asking = [
            await line.ask(name, priority=Priority.BATCH if name.startswith("b") else Priority.NORMAL)
            for name in ("x", "b1", "b2", "y", "z")
        ]
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == ["x", "y", "z", "b1", "b2"]


async def test_a_pace_slot_that_nobody_took_is_there_for_the_next():
    """The line empties while the dispatcher waits for the pace: who comes later is not made to wait for nobody."""
    async with a_line(rpm=60, latency=0) as line:
        await line.ask("first")
        leaving = await line.ask("leaving")
        leaving.cancel()
        await line.clock.forward(10)
        await line.ask("second")
        assert line.api.times == [1000, 1010]


# ---- Another attempt ----


@pytest.mark.parametrize("error", [UpstreamError(500), UpstreamError(504), UpstreamError(None), ConnectionError()])
async def test_a_failed_call_is_made_again_from_the_front_of_the_line(error):
    """After its backoff, before those who have not been sent yet; its slot was not held meanwhile."""
    async with a_line(concurrency=1, latency=1) as line:
        line.api.outcomes.append(error)
        asking = [await line.ask(name) for name in "abcd"]
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.api.sent == ["a", "b", "a", "c", "d"]
        assert asking[0].result() == [{"answer": "a"}]


async def test_further_attempts_keep_the_pace():
    async with a_line(rpm=60, latency=0) as line:
        line.api.outcomes.extend([UpstreamError(500)] * 3)
        asking = [await line.ask(name) for name in "ab"]
        await line.clock.wait_for(asyncio.gather(*asking))
        assert len(line.api.sent) == 2 + 3
        assert all(later - earlier >= 1 - 1e-9 for earlier, later in pairwise(line.api.times))


async def test_when_the_retries_are_spent_the_last_error_is_told():
    """One call and three more, each backoff about twice as long as the one before."""
    async with a_line(latency=0, retries=3) as line:
        line.api.outcomes.extend([UpstreamError(500)] * 3 + [UpstreamError(503, b'{"message": "the last"}')])
        asking = await line.ask("a")
        await line.clock.forward(10)
        told = await failure(asking, line)
        assert (told.status, told.message) == (503, "the last")
        assert len(line.api.sent) == 4
        first, second, third = (later - earlier for earlier, later in pairwise(line.api.times))
        assert 0.25 <= first <= 0.5 <= second <= 1 <= third <= 2


@pytest.mark.parametrize("error", [UpstreamError(400), UpstreamError(401), UpstreamError(422)])
async def test_a_refusal_of_the_api_is_told_at_once(error):
    async with a_line(latency=0) as line:
        line.api.outcomes.append(error)
        assert await failure(await line.ask("a"), line) is error
        assert line.api.sent == ["a"]


async def test_the_apis_own_retry_after_is_waited_for():
    async with a_line(latency=0) as line:
        line.api.outcomes.append(UpstreamError(503, retry_after=20))
        asking = await line.ask("a")
        await line.clock.wait_for(asking)
        assert line.api.times == [1000, 1020]


async def test_no_attempt_is_made_for_which_there_is_no_time():
    """Its error is told now rather than a time-out later."""
    async with a_line(latency=0) as line:
        line.api.outcomes.append(error := UpstreamError(503, retry_after=20))
        assert await failure(await line.ask("a", patience=10), line) is error


async def test_a_429_reaches_no_caller_and_uses_up_no_retry():
    """The whole lane waits, then goes on where it was."""
    async with a_line(latency=0, retries=1, concurrency=1) as line:
        line.api.outcomes.extend([TOO_MANY] * 5 + [UpstreamError(500)])
        asking = await line.ask("a")
        assert await line.clock.wait_for(asking) == [{"answer": "a"}]
        assert line.api.sent == ["a"] * 7
        pauses = [later - earlier for earlier, later in pairwise(line.api.times[:6])]
        assert pauses == pytest.approx([FIRST_BACKOFF * 2**number for number in range(5)])


async def test_after_429_the_line_goes_on_in_its_order():
    """A whole burst is refused; each comes back to the front, the first of them first."""
    async with a_line(concurrency=4) as line:
        asking = [await line.ask(name) for name in "abcdef"]
        for name in "abcd":
            line.api.fail(name, TOO_MANY)
            await line.clock.forward(0.001)
        await line.clock.forward(1)
        assert line.api.sent == list("abcd") + list("ab")
        assert line.limits.state().allowed == 2
        for name in "abcdef":
            await line.clock.settle()
            line.api.answer(name)
        await asyncio.gather(*asking)
        assert line.api.sent[6:] == list("cdef")


async def test_answers_win_back_what_a_429_took():
    """The line tells its limits of each whole answer."""
    async with a_line(latency=0, concurrency=2) as line:
        line.api.outcomes.append(TOO_MANY)
        asking = [await line.ask(str(number)) for number in range(FIRST_RUN)]
        await line.clock.forward(0.2)
        assert line.limits.state().allowed == 1
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.limits.state().allowed == 2


async def test_only_the_callers_deadline_ends_the_wait_for_an_api_that_refuses():
    async with a_line(latency=0, concurrency=1) as line:
        line.api.outcomes.append(UpstreamError(429, retry_after=3600))
        asking = await line.ask("a", patience=30)
        await line.clock.forward(29.9)
        assert not asking.done()
        await line.clock.forward(0.2)
        assert isinstance(await failure(asking, line), DeadlineExpired)
        assert line.stories[0].took == pytest.approx(30)


@pytest.mark.parametrize("error", [UpstreamError(500), TOO_MANY])
async def test_a_stream_is_never_begun_again(error):
    """What came is kept, then the error is told; a 429 in the middle is an error like any other."""
    async with a_line() as line:
        line.api.script = [{"n": 1}, error]
        async with aclosing(line.queue.run(line.enrol("a", is_stream=True))) as chunks:
            assert await anext(chunks) == {"n": 1}
            with pytest.raises(UpstreamError):
                await anext(chunks)
        assert line.api.sent == ["a"]


async def test_a_stream_that_fails_before_its_first_chunk_is_begun_again():
    async with a_line() as line:
        line.api.script = [UpstreamError(500)]
        asking = await line.ask("a", is_stream=True)
        line.api.script = [{"n": 1}, {"n": 2}]
        assert await line.clock.wait_for(asking) == [{"n": 1}, {"n": 2}]


# ---- Time ----


async def test_a_request_that_is_too_old_leaves_the_line_unsent():
    """504, and those behind lose no time by it."""
    async with a_line(concurrency=1) as line:
        first, old, young = await line.ask("first"), await line.ask("old", patience=5), await line.ask("young")
        await line.clock.forward(5)
        assert isinstance(told := await failure(old, line), DeadlineExpired)
        assert "5 s" in told.message
        assert line.waiting == 1
        line.api.answer("first")
        await line.clock.settle()
        line.api.answer("young")
        await asyncio.gather(first, young)
        assert line.api.sent == ["first", "young"]


async def test_a_call_ends_when_its_caller_will_wait_no_longer():
    """The deadline counts in flight too, until the answer begins."""
    async with a_line(call_timeout=60) as line:
        asking = await line.ask("a", patience=5)
        await line.clock.forward(4.9)
        assert not asking.done()
        await line.clock.forward(0.1)
        assert isinstance(await failure(asking, line), DeadlineExpired)


async def test_a_call_that_takes_too_long_is_given_up_and_not_made_again():
    """The API may have billed it; the slot is free for the next."""
    async with a_line(concurrency=1, call_timeout=60) as line:
        slow, _ = await line.ask("slow"), await line.ask("next")
        await line.clock.forward(60)
        assert isinstance(await failure(slow, line), UpstreamTimeout)
        assert line.api.sent == ["slow", "next"]
        line.api.answer("next")


async def test_the_time_of_a_call_runs_from_its_send():
    """Not from its dispatch: at the gate it may have to wait, for a pause say."""
    async with a_line(rpm=60, call_timeout=5) as line:
        await line.ask("first")
        asking = await line.ask("second")
        await line.clock.forward(0.999)  # dispatched, and held at the gate
        assert line.waiting == 0
        line.limits._paused_until = line.clock.now() + 100
        await line.clock.forward(104)
        assert not asking.done()
        assert line.api.sent == ["first", "second"]
        await line.clock.forward(1)
        assert isinstance(await failure(asking, line), UpstreamTimeout)


async def test_a_stream_may_last_as_long_as_its_chunks_keep_coming():
    """The deadline ends with the first byte; then each chunk has the time of a call."""
    async with a_line(call_timeout=10) as line:
        line.api.script = [1.0, {"n": 1}, 9.0, {"n": 2}, 9.0, {"n": 3}]
        asking = await line.ask("a", is_stream=True, patience=2)
        assert len(await line.clock.wait_for(asking)) == 3
        assert line.clock.now() == 1019


async def test_a_stream_that_falls_silent_is_given_up():
    async with a_line(call_timeout=10) as line:
        line.api.script = [{"n": 1}, 11.0, {"n": 2}]
        asking = await line.ask("a", is_stream=True)
        await line.clock.forward(10)
        assert isinstance(await failure(asking, line), UpstreamTimeout)


async def test_the_silence_of_a_stream_is_counted_from_its_last_chunk():
    async with a_line(call_timeout=10) as line:
        line.api.script = [9.0, {"n": 1}, 11.0, {"n": 2}]
        asking = await line.ask("a", is_stream=True)
        await line.clock.forward(18.9)
        assert not asking.done()
        await line.clock.forward(0.1)
        assert isinstance(await failure(asking, line), UpstreamTimeout)


async def test_a_caller_who_takes_its_time_between_chunks_is_not_the_silence_of_its_stream():
    """Nor does the time that it took count for the API afterwards."""
    async with a_line(call_timeout=10) as line:
        line.api.script = [{"n": 1}, 9.0, {"n": 2}]
        async with aclosing(line.queue.run(line.enrol("a", is_stream=True))) as chunks:
            assert await line.clock.wait_for(anext(chunks)) == {"n": 1}
            await line.clock.forward(35)
            assert await line.clock.wait_for(anext(chunks)) == {"n": 2}


async def test_a_send_in_the_very_moment_of_the_deadline_is_no_bug():
    """The bytes go out in a task of the client's own, as aiohttp's do, when time is just up."""
    async with a_line(rpm=60) as line:

        async def call(connector):
            gate = current_gate.get()
            writing = asyncio.create_task(gate.gate())
            try:
                await asyncio.sleep(3600)
            finally:
                await writing

        await line.ask("first")
        request = line.queue.enrol(call, patience=1)
        asking = asyncio.create_task(line.chunks(request))
        await line.clock.forward(1)
        assert isinstance(await failure(asking, line), DeadlineExpired)


# ---- What a request holds ----


class Parsed:
    """What the edge has made of a request's bytes."""

    is_forgotten = False

    def forget(self) -> None:
        self.is_forgotten = True


async def test_what_is_known_of_the_bytes_is_forgotten_in_line_and_kept_by_who_goes_at_once():
    """Thousands may wait; and whoever is to be sent again waits too."""
    async with a_line(concurrency=1) as line:
        first, second = Parsed(), Parsed()
        asking = [await line.ask("first", parsed=first), await line.ask("second", parsed=second)]
        assert (first.is_forgotten, second.is_forgotten) == (False, True)
        line.api.fail("first", UpstreamError(500))
        await line.clock.settle()
        assert first.is_forgotten
        line.api.answer("second")
        await line.clock.forward(1)
        line.api.answer("first")
        await asyncio.gather(*asking)


# ---- Refusals ----


async def test_a_full_line_refuses_and_admits_whoever_comes_back_when_told():
    """Even if it is full again; but not sooner, and nobody else."""
    async with a_line(concurrency=1, latency=10, size=2) as line:
        for name in "abc":
            await line.ask(name, caller="anna")
        refused = await failure(await line.ask("late", caller="boris"), line)
        assert isinstance(refused, LineFull)
        assert refused.retry_after == 1
        early = await failure(await line.ask("early", caller="boris"), line)
        assert isinstance(early, LineFull)
        await line.clock.forward(1)
        assert isinstance(await failure(await line.ask("other", caller="carol"), line), LineFull)
        admitted = await line.ask("again", caller="boris")
        assert await line.clock.wait_for(admitted) == [{"answer": "again"}]


async def test_retry_after_is_the_time_when_there_will_be_room():
    """Refused callers are told to come one after the other, as places get free."""
    async with a_line(rpm=6, latency=0, size=3) as line:
        for name in "abcd":
            await line.ask(name)
        refused = [await failure(await line.ask(f"late {number}"), line) for number in range(3)]
        assert [error.retry_after for error in refused] == [10, 20, 30]


async def test_who_would_wait_too_long_is_told_so_at_once():
    """With the real time; its place in line is anybody's."""
    async with a_line(rpm=6, latency=0) as line:
        for name in "abcd":
            await line.ask(name)
        refused = await failure(await line.ask("e", patience=30), line)
        assert isinstance(refused, WaitTooLong)
        assert refused.retry_after == 40
        assert "place 4" in refused.message
        assert line.waiting == 3
        patient = await line.ask("e", patience=50)
        await line.clock.wait_for(patient)
        assert line.api.times == [1000, 1010, 1020, 1030, 1040]


async def test_whoever_was_refused_for_its_wait_is_admitted_when_it_comes_back():
    async with a_line(rpm=6, latency=0) as line:
        for number in range(10):
            await line.ask(str(number), caller="anna")
        refused = await failure(await line.ask("e", patience=1, caller="boris"), line)
        await line.clock.forward(refused.retry_after)
        again = await line.ask("e", patience=60, caller="boris")
        await line.clock.wait_for(again)
        assert line.clock.now() <= 1000 + refused.retry_after + 20


# ---- Place and time ----


async def test_each_waiting_request_knows_its_place():
    """At most a second old; none once it is sent."""
    async with a_line(concurrency=1, latency=5) as line:
        for name in "abc":
            await line.ask(name)
        places = [line.queue.place(line.requests[name]) for name in "abc"]
        assert places == [0, 1, 2]
        await line.clock.forward(5 + AGE)
        assert [line.queue.place(line.requests[name]) for name in "abc"] == [0, 0, 1]
        await line.clock.forward(10)


async def test_the_estimate_is_the_time_it_really_takes():
    """Once a latency is known: by the slots, or by the pace."""
    for knobs in ({"concurrency": 2, "latency": 3}, {"rpm": 20, "latency": 0}):
        async with a_line(**knobs) as line:
            await line.clock.wait_for(await line.ask("first"))
            await line.clock.forward(3)
            asking = [await line.ask(str(number)) for number in range(9)]
            wait = line.queue.eta(line.waiting)
            last = await line.ask("last")
            await line.clock.wait_for(asyncio.gather(*asking, last))
            assert line.api.times[-1] - 1006 + (3 if "rpm" in knobs else 0) == pytest.approx(wait, abs=3)


async def test_the_line_tells_its_state():
    async with a_line(concurrency=2, latency=4, size=50) as line:
        asking = [await line.ask(str(number)) for number in range(5)]
        state = line.queue.state()
        assert (state.waiting, state.size, state.limits.in_flight, state.mean_latency) == (3, 50, 2, None)
        await line.clock.wait_for(asyncio.gather(*asking))
        assert line.queue.state().mean_latency == pytest.approx(4)
        assert repr(line.queue).startswith("<ProxyQueue waiting=0 in_flight=0 ")


# ---- The end ----


async def test_draining_serves_who_is_there_and_refuses_who_comes():
    """It ends as soon as nobody is left."""
    async with a_line(concurrency=1, latency=4) as line:
        asking = [await line.ask(name) for name in "abc"]
        draining = asyncio.create_task(line.queue.drain(30))
        await line.clock.settle()
        refused = await failure(await line.ask("late"), line)
        assert isinstance(refused, Stopping)
        assert refused.retry_after == 30
        await line.clock.wait_for(draining)
        assert line.clock.now() == 1012
        assert [task.result() for task in asking] == [[{"answer": name}] for name in "abc"]


async def test_draining_an_empty_line_takes_no_time():
    async with a_line() as line:
        await line.clock.wait_for(line.queue.drain(30))
        assert line.clock.now() == 1000


async def test_when_the_time_to_drain_is_up_the_rest_is_told_to_come_back():
    """Waiting, in flight, or between two attempts."""
    async with a_line(concurrency=2) as line:
        line.api.outcomes.append(UpstreamError(503, retry_after=100))
        asking = [await line.ask(name) for name in "abcd"]
        await line.clock.wait_for(line.queue.drain(5))
        assert line.clock.now() == 1005
        for task in asking:
            told = await failure(task, line)
            assert isinstance(told, Stopping)
            assert told.retry_after
        assert line.is_idle


@pytest.mark.parametrize("steps", range(12))
async def test_whoever_is_told_to_come_back_is_not_sent_afterwards(steps):
    """In whichever moment of its turn it is told so."""
    async with a_line(concurrency=1) as line:
        await line.ask("first")
        asking = await line.ask("second")
        line.api.answer("first")
        for _ in range(steps):
            await asyncio.sleep(0)
        line.queue.interrupt_all()
        sent = list(line.api.sent)
        assert isinstance(await failure(asking, line), Stopping)
        assert line.api.sent == sent


async def test_a_stream_whose_caller_reads_slowly_is_ended_too():
    """It learns of the end when it asks for the next chunk."""
    async with a_line() as line:
        line.api.script = [{"n": 1}, {"n": 2}]
        async with aclosing(line.queue.run(line.enrol("a", is_stream=True))) as chunks:
            await anext(chunks)
            line.queue.interrupt_all()
            with pytest.raises(Stopping):
                await anext(chunks)


# ---- Stories ----


async def test_every_request_leaves_one_story():
    """Its status, where its time went, and how often it was sent."""
    async with a_line(concurrency=1, latency=2, size=1) as line:
        line.api.outcomes.append(UpstreamError(429, retry_after=1))
        first, second = await line.ask("first", caller="anna"), await line.ask("second", caller="boris")
        await line.ask("third")
        await line.clock.wait_for(asyncio.gather(first, second))
        stories = {story.id: story for story in line.stories}
        assert [story.id for story in line.stories] == ["third", "first", "second"]
        told = stories["first"]
        assert (told.caller, told.status, told.error, told.attempts) == ("anna", 200, "", 2)
        assert (told.waited, told.took) == (pytest.approx(1, abs=0.01), pytest.approx(3))
        told = stories["second"]
        assert (told.status, told.attempts, told.took) == (200, 1, pytest.approx(5))
        assert told.waited == pytest.approx(3)
        told = stories["third"]
        assert (told.status, told.error, told.attempts, told.took) == (429, "line_full", 0, 0)


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (UpstreamError(422), 422, "upstream_error"),
        (UpstreamTimeout(60), 504, "upstream_timeout"),
        (RuntimeError("a bug"), 500, "internal_error"),
    ],
)
async def test_a_story_of_failure_tells_its_status_and_its_name(outcome, status, error):
    """A bug of a connector is a bug of ours to the caller; its slot is free again."""
    async with a_line(concurrency=1, latency=0) as line:
        line.api.outcomes.append(outcome)
        assert await failure(await line.ask("a"), line) is outcome
        assert [(story.status, story.error) for story in line.stories] == [(status, error)]
        assert await line.clock.wait_for(await line.ask("b")) == [{"answer": "b"}]


async def test_the_story_of_a_caller_who_left_has_no_status():
    async with a_line(concurrency=1) as line:
        in_flight, waiting = await line.ask("in flight"), await line.ask("waiting")
        for task in (waiting, in_flight):
            task.cancel()
            await line.clock.settle()
        assert [(story.id, story.status, story.attempts) for story in line.stories] == [
            ("waiting", None, 0),
            ("in flight", None, 1),
        ]


def test_all_that_a_line_can_raise_is_of_one_family():
    assert all(issubclass(kind, ProxyError) for kind in (LineFull, WaitTooLong, Stopping, DeadlineExpired))
