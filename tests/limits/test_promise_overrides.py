"""What operators set holds at once, whoever keeps the limits: one suite over both kinds, as in test_promise.py.

In real time, so no test says how soon something happens; only what never happens too soon.
"""

import asyncio
import time
from itertools import pairwise
from typing import Any

import pytest
from running import until

from proxy.limits import Limits, Permit, Usage
from proxy.limits.overrides import Override

#: Calls a minute that nobody could make: the second call would come an hour later.
ONE_AN_HOUR = 1 / 60


async def override(limits: Limits, **wishes: float | None) -> None:
    await limits.override(
        {field: value if value is None else Override(value, 1.0, "me") for field, value in wishes.items()}
    )


async def send(limits: Limits) -> Permit:
    """Take a permit and let the bytes go out."""
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    return permit


async def at(limits: Limits) -> float:
    """When a call was sent that is over by now."""
    permit = await send(limits)
    permit.release()
    assert permit.sent_at is not None
    return permit.sent_at


async def stays_waiting(*tasks: "asyncio.Task[Any]") -> bool:
    """Whether they still wait a good while later."""
    for _ in range(100):
        await asyncio.sleep(0.001)
    return not any(task.done() for task in tasks)


async def in_time(task: "asyncio.Task[Any]") -> Any:
    async with asyncio.timeout(20):
        return await task


# ---- Pace ----


async def test_a_faster_pace_is_there_for_those_who_wait(make):
    """Whoever would have gone in an hour goes now, an interval of the new pace after the last one."""
    limits = await make(rpm=ONE_AN_HOUR)
    before = await at(limits)
    waiting = asyncio.create_task(at(limits))
    assert await stays_waiting(waiting)
    await override(limits, rpm=600)
    assert await in_time(waiting) - before >= 0.1 - 1e-9
    assert limits.state().rpm == 600 and limits.state().interval == 0.1


async def test_a_faster_pace_is_there_for_who_waits_at_the_gate(make):
    """A call that is sent once more, say."""
    limits = await make(rpm=ONE_AN_HOUR)
    permit = await send(limits)
    before = permit.sent_at
    again = asyncio.create_task(permit.gate())
    assert await stays_waiting(again)
    await override(limits, rpm=600)
    await in_time(again)
    assert permit.sent_at - before >= 0.1 - 1e-9
    permit.release()


async def test_after_a_change_no_two_sends_are_closer_than_the_new_interval(make):
    """The first one keeps its distance from the last one before the change, too."""
    limits = await make(rpm=6000)
    sent: list[float] = []

    async def call() -> None:
        while len(sent) < 40:
            sent.append(await at(limits))

    calling = [asyncio.create_task(call()) for _ in range(3)]
    await until(lambda: len(sent) >= 20)
    await override(limits, rpm=600)
    number = len(sent)
    await asyncio.gather(*calling)
    gaps = [later - earlier for earlier, later in pairwise(sent[number - 1 :])]
    assert len(gaps) > 5
    assert min(gaps[1:]) >= 0.1 - 1e-9
    # The last one before may have gone while the change was on its way here, but not after.
    assert gaps[0] >= 0.1 - 1e-9


async def test_who_was_let_off_before_a_change_goes_by_the_new_pace(make):
    """It has a permit, and was not sent."""
    limits = await make(rpm=6000)
    before = await at(limits)
    permit = await limits.acquire()
    await override(limits, rpm=300)
    await permit.gate()
    assert permit.sent_at - before >= 0.2 - 1e-9
    permit.release()


async def test_a_pace_where_there_was_none_holds_from_the_last_call_on(make):
    limits = await make()
    before = [await at(limits) for _ in range(3)]
    await override(limits, rpm=300)
    assert await at(limits) - before[-1] >= 0.2 - 1e-9


async def test_zero_is_no_pace_at_all(make):
    limits = await make(rpm=ONE_AN_HOUR)
    await at(limits)
    waiting = asyncio.create_task(at(limits))
    assert await stays_waiting(waiting)
    await override(limits, rpm=0)
    await in_time(waiting)
    for _ in range(5):
        await at(limits)
    assert limits.state().rpm is None


async def test_what_is_taken_back_leaves_the_setting(make):
    limits = await make(rpm=600, concurrency=3)
    await override(limits, rpm=6000, concurrency=9, paused=True, timeout=5.0, queue_size=7)
    assert {*limits.overrides} == {"rpm", "concurrency", "paused", "timeout", "queue_size"}
    await override(limits, rpm=None, concurrency=None, paused=None)
    state = limits.state()
    assert (state.rpm, state.concurrency, state.allowed, state.is_held) == (600, 3, 3, False)
    assert limits.settings == (600, 3)
    assert limits.overrides == {"timeout": Override(5.0, 1.0, "me"), "queue_size": Override(7, 1.0, "me")}


# ---- Concurrency ----


async def test_more_may_be_in_flight_at_once(make):
    limits = await make(concurrency=1)
    first = await send(limits)
    waiting = asyncio.create_task(send(limits))
    assert await stays_waiting(waiting)
    await override(limits, concurrency=2)
    second = await in_time(waiting)
    assert limits.state().allowed == 2
    for permit in (first, second):
        permit.release()


async def test_fewer_may_be_in_flight_but_nobody_is_cut(make):
    """The next one goes when fewer are in flight than may be."""
    limits = await make(concurrency=3)
    permits = [await send(limits) for _ in range(3)]
    await override(limits, concurrency=1)
    assert limits.state().in_flight == 3
    waiting = asyncio.create_task(send(limits))
    for permit in permits[:2]:
        permit.release()
        assert await stays_waiting(waiting)
    permits[2].release()
    (await in_time(waiting)).release()


async def test_zero_is_no_bound_at_all(make):
    limits = await make(concurrency=1)
    await override(limits, concurrency=0)
    permits = [await send(limits) for _ in range(5)]
    assert limits.state().allowed is None
    for permit in permits:
        permit.release()


async def test_what_429s_have_taught_is_not_forgotten(make):
    """An upstream that refused eight at once is not asked for seven because somebody has turned a knob."""
    limits = await make(concurrency=8, jitter=lambda: 0.0)
    permit = await send(limits)
    permit.throttled(0.01)
    permit.release()
    await until(lambda: limits.state().allowed == 4)
    allowed = []
    for bound in (7, 2, 0, None):
        await override(limits, concurrency=bound)
        await at(limits)
        allowed.append(limits.state().allowed)
    assert allowed == [4, 2, 4, 4]


async def test_successes_unlearn_it_up_to_the_new_bound(make):
    limits = await make(concurrency=8, jitter=lambda: 0.0)
    permit = await send(limits)
    permit.throttled(0.01)
    permit.release()
    await until(lambda: limits.state().allowed == 4)
    await override(limits, concurrency=5)
    for _ in range(25):
        permit = await send(limits)
        permit.settle(Usage())
        permit.release()
    await at(limits)
    assert limits.state().allowed == 5


# ---- Paused ----


async def test_while_paused_nothing_is_sent_and_nobody_is_lost(make):
    """Those before the line's head, those who were let off, and those at the gate."""
    limits = await make(concurrency=9)
    in_flight, let_off, again = await send(limits), await limits.acquire(), await send(limits)
    await override(limits, paused=True)
    assert limits.state().is_held and limits.try_acquire() is None
    held = [asyncio.create_task(permit.gate()) for permit in (let_off, again)]
    held.append(asyncio.create_task(send(limits)))
    assert await stays_waiting(*held)
    in_flight.settle(Usage())
    in_flight.release()
    begun = time.monotonic()
    await override(limits, paused=None)
    permits = [let_off, again, (await asyncio.gather(*map(in_time, held)))[-1]]
    assert all(permit.sent_at >= begun for permit in permits)
    for permit in permits:
        permit.release()
    await until(lambda: limits.state().in_flight == 0)


@pytest.mark.parametrize("rpm", [None, 6000])
async def test_a_burst_that_was_paused_goes_on_where_it_was(make, rpm):
    """Evenly paced, if there is a pace."""
    limits = await make(rpm=rpm, concurrency=4)
    sent: list[float] = []

    async def call() -> None:
        sent.append(await at(limits))

    calling = [asyncio.create_task(call()) for _ in range(40)]
    await until(lambda: len(sent) >= 10)
    await override(limits, paused=True)
    number = len(sent)
    assert await stays_waiting(*(task for task in calling if not task.done()))
    assert len(sent) <= number + 4  # those that were sent by then
    await override(limits, paused=None)
    await asyncio.gather(*map(in_time, calling))
    assert len(sent) == 40
    gaps = [later - earlier for earlier, later in pairwise(sorted(sent))]
    assert min(gaps) + 1e-9 >= limits.state().interval


async def test_whoever_leaves_while_it_is_paused_takes_nothing(make):
    limits = await make(concurrency=1)
    await override(limits, paused=True)
    leaving = asyncio.create_task(limits.acquire())
    assert await stays_waiting(leaving)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await override(limits, paused=None)
    await at(limits)
    await until(lambda: limits.state().in_flight == 0)


async def test_a_pause_of_the_apis_is_not_ended_by_resuming(make):
    limits = await make(concurrency=2)
    permit = await send(limits)
    permit.throttled(0.6)
    begun = time.monotonic()
    permit.release()
    await override(limits, paused=True)
    await override(limits, paused=None)
    assert await at(limits) - begun >= 0.58


# ---- Who is told ----


async def test_whoever_listens_is_told_of_every_change(make):
    limits = await make(rpm=600)
    seen = []
    limits.listen(lambda: seen.append(dict(limits.overrides)))
    await override(limits, timeout=3.0)
    await override(limits, timeout=None)
    assert seen == [{"timeout": Override(3.0, 1.0, "me")}, {}]


async def test_a_limiter_that_nobody_has_steered_is_settled_at_once(make):
    limits = await make(rpm=600)
    async with asyncio.timeout(20):
        await limits.settled()
    assert limits.overrides == {}
