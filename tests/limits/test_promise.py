"""What limits promise, whoever keeps them: one suite over those of one process and those that Redis keeps for many.

In real time, so no test says how soon something happens; only what never happens too soon.
"""

import asyncio
import time
from itertools import pairwise
from typing import Any

from running import until

from proxy.limits import Limits, Permit, Usage
from proxy.limits.local import FIRST_RUN

#: Calls a minute that nobody could make: the second call would come an hour later.
ONE_AN_HOUR = 1 / 60


async def send(limits: Limits) -> Permit:
    """Take a permit and let the bytes go out."""
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    return permit


async def sends(limits: Limits, number: int) -> list[float]:
    """When so many calls went out, one after another."""
    sent = []
    for _ in range(number):
        permit = await send(limits)
        sent.append(permit.sent_at)
        permit.release()
    return sent


def closest(sent: list[float]) -> float:
    """The shortest time between two sends, nanoseconds apart from rounding."""
    sent = sorted(sent)
    return min(later - earlier for earlier, later in pairwise(sent)) + 1e-9


async def stays_waiting(task: "asyncio.Task[Any]", limits: Limits) -> bool:
    """Whether it still waits when others that came after it have been told so too."""
    later = asyncio.create_task(limits.acquire())
    for _ in range(200):
        await asyncio.sleep(0.001)
    is_waiting = not task.done() and not later.done()
    later.cancel()
    await asyncio.gather(later, return_exceptions=True)
    return is_waiting


def in_flight(limits: Limits) -> int:
    return limits.state().in_flight


# ---- Pace ----


async def test_two_sends_are_never_closer_than_the_interval(make):
    """However many come at once."""
    limits = await make(rpm=6000)
    sent = []

    async def call() -> None:
        permit = await send(limits)
        sent.append(permit.sent_at)
        permit.release()

    await asyncio.gather(*[call() for _ in range(40)])
    assert len(sent) == 40
    assert closest(sent) >= limits.state().interval


async def test_a_call_that_is_sent_again_is_paced_too(make):
    """The gate is for every send, not for every permit."""
    limits = await make(rpm=3000)
    permit = await limits.acquire()
    sent = []
    permit.on_sent = lambda: sent.append(permit.sent_at)
    for _ in range(5):
        await permit.gate()
    assert permit.is_sent and len(sent) == 5
    assert closest(sent) >= limits.state().interval


async def test_a_permit_that_waits_before_its_gate_takes_the_next_slot_there_is(make):
    """It missed its own; nobody who was sent meanwhile gets too close to it."""
    limits = await make(rpm=3000)
    slow = await limits.acquire()
    sent = await sends(limits, 3)
    await slow.gate()
    assert closest([*sent, slow.sent_at]) >= limits.state().interval


async def test_what_was_not_sent_was_not_taken(make):
    """A permit returned before its send leaves the pace slot to the next call."""
    limits = await make(rpm=ONE_AN_HOUR)
    unsent = await limits.acquire()
    unsent.release()
    assert not unsent.is_sent
    await send(limits)


async def test_a_send_past_the_gate_counts_from_its_own_instant(make):
    """`mark_sent` says that the bytes go out only now: the next call keeps its distance from here."""
    limits = await make(rpm=600)
    slow = await send(limits)
    await until(lambda: limits.state().next_send == 0)
    slow.mark_sent()
    await until(lambda: limits.state().next_send > 0)
    assert closest([slow.sent_at, *await sends(limits, 1)]) >= limits.state().interval


async def test_without_a_pace_calls_go_at_once(make):
    limits = await make(rpm=0)
    for _ in range(20):
        await send(limits)
    assert in_flight(limits) == 20
    assert limits.state().next_send == 0
    assert limits.state().rpm is None


# ---- Concurrency ----


async def test_no_more_calls_are_in_flight_than_allowed(make):
    """The next one goes when a slot comes back, and not before."""
    limits = await make(concurrency=2)
    first, second = await send(limits), await send(limits)
    third = asyncio.create_task(limits.acquire())
    assert await stays_waiting(third, limits)
    first.release()
    (await third).release()
    second.release()


async def test_releasing_twice_frees_one_slot(make):
    """Whoever releases need not know whether somebody else did."""
    limits = await make(concurrency=2)
    first, _ = await send(limits), await send(limits)
    first.release()
    first.release()
    await send(limits)
    another = asyncio.create_task(limits.acquire())
    assert await stays_waiting(another, limits)
    another.cancel()


async def test_a_call_in_a_thread_keeps_its_slot_until_it_is_done(make):
    """`release_after` outranks the release of the caller who left."""
    limits = await make(concurrency=1)
    permit = await send(limits)
    call = asyncio.get_running_loop().create_future()
    permit.release_after(call)
    permit.release()
    next_one = asyncio.create_task(limits.acquire())
    assert await stays_waiting(next_one, limits)
    call.set_result(None)
    (await next_one).release()


# ---- Pauses ----


async def test_retry_after_pauses_every_call_of_the_account(make):
    """Those who have a permit already wait at the gate, the others before it."""
    limits = await make(concurrency=9)
    refused, at_the_gate = await send(limits), await limits.acquire()
    refused.throttled(0.4)
    begun = time.monotonic()
    await at_the_gate.gate()
    assert time.monotonic() - begun >= 0.38
    await send(limits)
    assert time.monotonic() - begun >= 0.38


async def test_a_pause_holds_for_those_who_have_a_pace_slot_already(make):
    """A slot within the pause is none."""
    limits = await make(rpm=600)
    refused, at_the_gate = await send(limits), await limits.acquire()
    refused.throttled(0.5)
    begun = time.monotonic()
    await at_the_gate.gate()
    assert time.monotonic() - begun >= 0.48


async def test_without_retry_after_the_pause_doubles_from_429_to_429(make):
    """Half fixed, half random; an answer in between begins anew."""
    limits = await make(jitter=lambda: 0.0)

    async def pause() -> float:
        permit = await send(limits)
        permit.throttled(None)
        await until(lambda: limits.state().paused > 0)
        permit.release()
        return limits.state().paused

    first, second = await pause(), await pause()
    assert 0.2 > first > 0 and second > 0.125
    answered = await send(limits)
    answered.settle(Usage())
    answered.release()
    assert await pause() <= 0.13


async def test_a_shorter_pause_does_not_cut_a_longer_one(make):
    limits = await make()
    first, second = await send(limits), await send(limits)
    first.throttled(60)
    second.throttled(1)
    await until(lambda: limits.state().paused > 0)
    second.release()
    assert limits.state().paused > 30


async def test_a_429_halves_what_may_be_in_flight(make):
    """Never below one; the setting stays what it is."""
    limits = await make(concurrency=6, jitter=lambda: 0.0)
    allowed = []
    for expected in (3, 1, 1):
        permit = await send(limits)
        before = limits.state().paused
        permit.throttled(None)
        await until(lambda before=before: limits.state().paused > before)
        permit.release()
        allowed.append(limits.state().allowed)
        assert allowed[-1] == expected
    assert limits.state().concurrency == 6


async def test_a_burst_of_429s_cuts_once(make):
    """All of them answer calls that were sent before the first cut; they tell nothing new."""
    limits = await make(concurrency=8)
    burst = [await send(limits) for _ in range(8)]
    for permit in burst:
        permit.throttled(None)
        permit.release()
    await until(lambda: limits.state().paused > 0)
    await send(limits)
    assert limits.state().allowed == 4


async def test_without_a_setting_a_429_teaches_from_what_was_in_flight(make):
    limits = await make()
    permits = [await send(limits) for _ in range(8)]
    permits[0].throttled(0.1)
    await until(lambda: limits.state().allowed == 4)


async def test_what_may_be_in_flight_climbs_back_by_one_for_each_run_of_successes(make):
    """Up to the setting and not beyond."""
    limits = await make(concurrency=3)
    permit = await send(limits)
    permit.throttled(0.05)
    permit.release()
    allowed = []
    for _ in range(3 * FIRST_RUN):
        permit = await send(limits)
        allowed.append(limits.state().allowed)
        permit.settle(Usage())
        permit.release()
    assert allowed == [1] * FIRST_RUN + [2] * FIRST_RUN + [3] * FIRST_RUN


async def test_a_refused_token_request_pauses_without_cutting(make):
    """Nothing was sent, so nothing was learned about calls in flight."""
    limits = await make(concurrency=4)
    permit = await limits.acquire()
    permit.throttled(None)
    await until(lambda: limits.state().paused > 0)
    assert limits.state().allowed == 4


# ---- Leaving ----


async def test_whoever_stops_waiting_for_a_permit_takes_nothing(make):
    """Neither a slot nor the turn of another who waits."""
    limits = await make(concurrency=1)
    busy = await send(limits)
    leaving, staying = asyncio.create_task(limits.acquire()), asyncio.create_task(limits.acquire())
    await stays_waiting(staying, limits)
    leaving.cancel()
    busy.release()
    permit = await staying
    assert leaving.cancelled()
    await until(lambda: in_flight(limits) == 1)
    permit.release()


async def test_whoever_leaves_at_the_gate_takes_no_pace_slot(make):
    """The next one goes at the slot that it would have had."""
    limits = await make(rpm=ONE_AN_HOUR)
    first = await limits.acquire()
    leaving = asyncio.create_task(first.gate())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    if not first.is_sent:  # it may have been too quick for us
        first.release()
        await send(limits)


async def test_when_all_have_left_nothing_is_taken(make):
    limits = await make(rpm=6000, concurrency=5)
    await sends(limits, 10)
    await until(lambda: in_flight(limits) == 0)


async def test_limits_tell_their_state_when_printed(make):
    limits = await make(rpm=600, concurrency=2)
    permit = await send(limits)
    assert "in_flight=1/2" in repr(limits) and "rpm=600" in repr(limits)
    permit.release()
