"""Limits of one process: pace, concurrency, pauses after 429, and that nothing is taken which was not used."""

import asyncio
from itertools import pairwise

import pytest
from held import HeldClock
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits import Usage
from proxy.limits.local import FIRST_BACKOFF, FIRST_RUN, LEAD, MAX_BACKOFF, MAX_RUN, Ceiling, LocalLimits, LocalPermit

#: Seconds by which rounding may bring two sends closer: 60 / 7 is no exact number.
ROUNDING = 1e-9


@pytest.fixture
async def clock() -> HeldClock:
    return HeldClock()


async def send(limits: LocalLimits) -> LocalPermit:
    """Take a permit and let the bytes go out."""
    permit = await limits.acquire()
    await permit.gate()
    return permit


async def is_waiting(clock: HeldClock, task: "asyncio.Task[object]") -> bool:
    await clock.settle()
    return not task.done()


# ---- Pace ----


@pytest.mark.parametrize(("rpm", "interval"), [(0.5, 120), (600, 0.1), (6000, 0.01), (60_000, 0.001)])
async def test_the_pace_is_even_at_any_rate(clock, rpm, interval):
    """Calls that wait go out one interval apart, neither closer nor wider."""
    limits = LocalLimits(rpm=rpm, clock=clock)
    sent = [(await clock.wait_for(send(limits))).sent_at for _ in range(50)]
    assert [later - earlier for earlier, later in pairwise(sent)] == pytest.approx([interval] * 49)


class Sending:
    """What a story of sends may do next; who is let off may go, go again, hurry past the gate's end, or give up."""

    steps = st.one_of(
        st.tuples(st.sampled_from(["acquire", "gate", "release", "resend", "cancel"]), st.integers(0, 9)),
        st.tuples(st.just("forward"), st.floats(0, 3)),
    )

    def __init__(self, clock: HeldClock, limits: LocalLimits) -> None:
        self.clock, self.limits = clock, limits
        self.sent: list[float] = []
        self.permits: list[LocalPermit] = []
        self.running: list[asyncio.Task[None]] = []

    async def step(self, name: str, number: float) -> None:
        if name == "forward":
            await self.clock.forward(number * (self.limits.interval or 1))
        elif name == "acquire":
            self.start(self.acquire())
        elif name == "cancel" and self.running:
            self.running.pop(int(number) % len(self.running)).cancel()
        elif self.permits:
            permit = self.permits[int(number) % len(self.permits)]
            if name == "release":
                self.permits.remove(permit)
                permit.release()
            elif permit.is_sent is (name == "resend"):
                self.start(permit.gate())
        await self.clock.settle()

    def start(self, work) -> None:
        self.running.append(asyncio.create_task(work))

    async def acquire(self) -> None:
        permit = await self.limits.acquire()
        permit.on_sent = lambda: self.sent.append(self.clock.now())
        self.permits.append(permit)

    async def end(self) -> None:
        """Everybody leaves."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        for permit in self.permits:
            permit.release()


@given(rpm=st.floats(0.5, 60_000), concurrency=st.none() | st.integers(1, 5), steps=st.lists(Sending.steps))
def test_two_sends_are_never_closer_than_the_interval(rpm, concurrency, steps):
    """Whatever is sent, sent again, given back or cancelled; and when all have left, nothing is taken."""

    async def story() -> None:
        clock = HeldClock()
        limits = LocalLimits(rpm=rpm, concurrency=concurrency, clock=clock)
        sending = Sending(clock, limits)
        for step in steps:
            await sending.step(*step)
            assert limits.state().in_flight <= (concurrency or len(steps))
        await sending.end()
        assert all(later - earlier >= limits.interval - ROUNDING for earlier, later in pairwise(sending.sent))
        assert limits.state().in_flight == 0
        last = sending.sent[-1] if sending.sent else -limits.interval
        assert limits.state().next_send == pytest.approx(max(0, last + limits.interval - clock.now()), abs=ROUNDING)

    asyncio.run(story())


async def test_a_permit_comes_shortly_before_its_pace_slot(clock):
    """Early enough to prepare the call, late enough to pick the best request of that moment."""
    limits = LocalLimits(rpm=60, clock=clock)
    await send(limits)
    await clock.wait_for(limits.acquire())
    assert limits.state().next_send == pytest.approx(LEAD + limits.interval)


async def test_after_an_idle_hour_calls_do_not_go_to_the_gate_in_a_crowd(clock):
    """The pace was not saved up: one is let off, the next one an interval later."""
    limits = LocalLimits(rpm=60, clock=clock)
    (await send(limits)).release()
    await clock.forward(3600)
    first = await limits.acquire()
    second = asyncio.create_task(limits.acquire())
    assert await is_waiting(clock, second)
    await first.gate()
    await clock.forward(limits.interval - LEAD)
    assert second.done()


async def test_a_call_that_is_slow_to_send_does_not_hold_up_the_others(clock):
    """It takes its slot when it is ready; meanwhile the others go."""
    limits = LocalLimits(rpm=60, clock=clock)
    slow = await limits.acquire()
    sent = [(await clock.wait_for(send(limits))).sent_at for _ in range(3)]
    await clock.wait_for(slow.gate())
    assert slow.sent_at > sent[-1]
    assert sent[0] - 1000 <= limits.interval


async def test_what_was_not_sent_was_not_taken(clock):
    """A permit returned before its send leaves the pace slot to the next call, at once."""
    limits = LocalLimits(rpm=60, clock=clock)
    unsent = await limits.acquire()
    unsent.release()
    await send(limits)
    assert clock.now() == 1000


async def test_what_is_given_back_by_the_last_is_not_lost_because_an_earlier_one_is_slow(clock):
    """The slot of the second of two is free again when it is returned, though the first is still on its way."""
    limits = LocalLimits(rpm=60, clock=clock)
    await limits.acquire()
    second = await clock.wait_for(limits.acquire())
    second.release()
    await limits.acquire()
    assert clock.now() == pytest.approx(1000 + limits.interval - LEAD)


async def test_a_permit_returned_unsent_wakes_who_waits_for_the_pace(clock):
    """It need not sleep out an interval that nobody uses."""
    limits = LocalLimits(rpm=60, clock=clock)
    unsent = await limits.acquire()
    next_one = asyncio.create_task(limits.acquire())
    assert await is_waiting(clock, next_one)
    unsent.release()
    assert not await is_waiting(clock, next_one)


async def test_without_a_pace_calls_go_at_once(clock):
    limits = LocalLimits(rpm=0, clock=clock)
    for _ in range(100):
        await send(limits)
    assert limits.state().in_flight == 100
    assert limits.state().next_send == 0


async def test_a_send_past_the_gate_counts_from_its_own_instant(clock):
    """`mark_sent` says that the bytes go out only now: the next call keeps its distance from here."""
    limits = LocalLimits(rpm=60, clock=clock)
    slow = await send(limits)
    await clock.forward(5)
    slow.mark_sent()
    assert (await clock.wait_for(send(limits))).sent_at == pytest.approx(1000 + 5 + limits.interval)


async def test_every_send_is_told(clock):
    """`on_sent` is called for the send and for each re-send."""
    told = []
    permit = await LocalLimits(clock=clock).acquire()
    permit.on_sent = lambda: told.append(permit.is_sent)
    await permit.gate()
    await permit.gate()
    assert told == [True, True]


async def test_those_at_the_gate_go_in_the_order_of_coming_to_it(clock):
    """A dispatch chose them one by one; nobody overtakes in the last moment."""
    limits = LocalLimits(rpm=60, clock=clock)
    permits = [await clock.wait_for(limits.acquire()) for _ in range(9)]
    limits._paused_until = clock.now() + 100
    await clock.wait_for(asyncio.gather(*[permit.gate() for permit in permits]))
    sent = [permit.sent_at for permit in permits]
    assert sent == sorted(sent)


# ---- Concurrency ----


async def test_no_more_calls_are_in_flight_than_allowed(clock):
    """The next one goes when a slot comes back, and not before."""
    limits = LocalLimits(concurrency=2, clock=clock)
    first, _ = await send(limits), await send(limits)
    third = asyncio.create_task(limits.acquire())
    await clock.forward(3600)
    assert not third.done()
    first.release()
    assert not await is_waiting(clock, third)


async def test_releasing_twice_frees_one_slot(clock):
    """Whoever releases need not know whether somebody else did."""
    limits = LocalLimits(concurrency=2, clock=clock)
    first, _ = await send(limits), await send(limits)
    first.release()
    first.release()
    assert limits.state().in_flight == 1


async def test_a_call_in_a_thread_keeps_its_slot_until_it_is_done(clock):
    """`release_after` outranks the release of the caller who left."""
    limits = LocalLimits(concurrency=1, clock=clock)
    permit = await send(limits)
    call = asyncio.get_running_loop().create_future()
    permit.release_after(call)
    permit.release()
    assert limits.state().in_flight == 1
    call.set_result(None)
    await clock.settle()
    assert limits.state().in_flight == 0


async def test_a_send_after_the_release_does_not_upset_the_count(clock):
    """A call in a thread may say `mark_sent` after its caller has left; the pace is kept, the places stay right."""
    limits = LocalLimits(rpm=60, clock=clock)
    gone = await limits.acquire()
    gone.release()
    gone.mark_sent()
    await clock.wait_for(limits.acquire())
    assert clock.now() == pytest.approx(1000 + limits.interval - LEAD)
    second = asyncio.create_task(limits.acquire())
    assert await is_waiting(clock, second)
    second.cancel()


async def test_a_success_that_allows_one_more_lets_the_next_go_at_once(clock):
    """Before the call that brought it is released."""
    limits = LocalLimits(concurrency=2, clock=clock)
    permit = await send(limits)
    permit.throttled(1)
    await clock.forward(1)
    waiting = asyncio.create_task(limits.acquire())
    for _ in range(FIRST_RUN):
        assert await is_waiting(clock, waiting)
        permit.settle(Usage())
    assert not await is_waiting(clock, waiting)


# ---- Pauses ----


async def test_retry_after_pauses_every_call_of_the_account(clock):
    """Those who have a permit already wait at the gate, the others before it."""
    limits = LocalLimits(concurrency=9, clock=clock)
    refused, at_the_gate = await send(limits), await limits.acquire()
    refused.throttled(7)
    await clock.wait_for(at_the_gate.gate())
    assert at_the_gate.sent_at == pytest.approx(1007)
    assert (await clock.wait_for(send(limits))).sent_at == pytest.approx(1007)


async def test_after_a_pause_those_at_the_gate_go_before_the_next_is_let_off(clock):
    """The pace does not crowd after a pause either."""
    limits = LocalLimits(rpm=60, concurrency=99, clock=clock)
    refused = await send(limits)
    first, second = await clock.wait_for(limits.acquire()), await clock.wait_for(limits.acquire())
    refused.throttled(100)
    resumed = clock.now() + 100
    gates = asyncio.gather(first.gate(), second.gate())
    assert (await clock.wait_for(send(limits))).sent_at == pytest.approx(resumed + 2 * limits.interval)
    await gates


@pytest.mark.parametrize("retry_after", [None, 0])
async def test_without_retry_after_the_pause_doubles_from_429_to_429(clock, retry_after):
    """Half fixed, half random; a Retry-After of 0 says nothing; an answer in between begins anew."""
    limits = LocalLimits(clock=clock, jitter=lambda: 0.5)

    async def pause() -> float:
        permit = await clock.wait_for(send(limits))
        permit.throttled(retry_after)
        permit.release()
        return limits.state().paused

    pauses = [await pause() for _ in range(9)]
    assert pauses == pytest.approx([min(MAX_BACKOFF, FIRST_BACKOFF * 2**n) * 0.75 for n in range(9)])
    answered = await clock.wait_for(send(limits))
    answered.settle(Usage())
    answered.release()
    assert await pause() == pytest.approx(FIRST_BACKOFF * 0.75)


async def test_a_shorter_pause_does_not_cut_a_longer_one(clock):
    limits = LocalLimits(clock=clock)
    first, second = await send(limits), await send(limits)
    first.throttled(60)
    second.throttled(1)
    assert limits.state().paused == 60


async def test_a_429_halves_what_may_be_in_flight(clock):
    """Never below one."""
    limits = LocalLimits(concurrency=6, clock=clock)
    allowed = []
    for _ in range(4):
        permit = await clock.wait_for(send(limits))
        permit.throttled(None)
        permit.release()
        allowed.append(limits.state().allowed)
    assert allowed == [3, 1, 1, 1]
    assert limits.state().concurrency == 6


async def test_a_burst_of_429s_cuts_once(clock):
    """All of them answer calls that were sent before the first cut; they tell nothing new."""
    limits = LocalLimits(concurrency=8, clock=clock, jitter=lambda: 1.0)
    burst = [await send(limits) for _ in range(8)]
    await clock.forward(0.1)
    for permit in burst:
        permit.throttled(None)
        permit.release()
    assert limits.state().allowed == 4
    assert limits.state().paused == pytest.approx(FIRST_BACKOFF)


async def test_without_a_setting_a_429_teaches_from_what_was_in_flight(clock):
    limits = LocalLimits(clock=clock)
    permits = [await send(limits) for _ in range(8)]
    permits[0].throttled(None)
    assert limits.state().allowed == 4


async def test_what_may_be_in_flight_climbs_back_by_one_for_each_run_of_successes(clock):
    """Up to the setting and not beyond."""
    limits = LocalLimits(concurrency=3, clock=clock)
    permit = await send(limits)
    permit.throttled(None)
    permit.release()
    allowed = []
    for _ in range(3 * FIRST_RUN):
        permit = await clock.wait_for(send(limits))
        permit.settle(Usage())
        permit.release()
        allowed.append(limits.state().allowed)
    assert allowed == [1] * (FIRST_RUN - 1) + [2] * FIRST_RUN + [3] * (FIRST_RUN + 1)


def climb(ceiling: Ceiling) -> int:
    """How many successes one step up takes."""
    before, successes = ceiling.allowed, 0
    while ceiling.allowed == before:
        ceiling.succeeded()
        successes += 1
    return successes


def test_a_step_up_that_earns_a_429_makes_the_next_run_twice_as_long():
    """An upstream that really allows less than the setting is asked for more only now and then."""
    ceiling = Ceiling(2)
    runs = []
    for second in range(10):
        assert ceiling.cut(1, now=second, sent_at=None)
        runs.append(climb(ceiling))
    assert runs == [min(MAX_RUN, FIRST_RUN * 2**n) for n in range(10)]


def test_a_step_up_that_holds_for_a_run_makes_the_next_run_short_again():
    ceiling = Ceiling(4)
    ceiling.cut(1, now=1, sent_at=None)
    ceiling.cut(1, now=2, sent_at=None)
    assert climb(ceiling) == FIRST_RUN
    ceiling.cut(2, now=3, sent_at=None)
    assert [climb(ceiling), climb(ceiling), climb(ceiling)] == [2 * FIRST_RUN, 2 * FIRST_RUN, FIRST_RUN]


@given(st.lists(st.booleans()), st.none() | st.integers(1, 9))
def test_what_may_be_in_flight_stays_between_one_and_the_setting(outcomes, setting):
    """Whatever the upstream answers, and in which order."""
    ceiling = Ceiling(setting)
    for now, is_success in enumerate(outcomes):
        if is_success:
            ceiling.succeeded()
        else:
            ceiling.cut(1, now, sent_at=None)
        assert ceiling.allowed is None or 1 <= ceiling.allowed <= (setting or len(outcomes) + 1)


# ---- Leaving ----


async def test_whoever_stops_waiting_for_a_permit_takes_nothing(clock):
    """Neither a slot nor the turn of another who waits."""
    limits = LocalLimits(concurrency=1, clock=clock)
    busy = await send(limits)
    leaving, staying = asyncio.create_task(limits.acquire()), asyncio.create_task(limits.acquire())
    await clock.settle()
    leaving.cancel()
    busy.release()
    await clock.settle()
    assert leaving.cancelled()
    assert staying.done()
    assert limits.state().in_flight == 1
    assert not limits._resting


async def test_whoever_leaves_at_the_gate_takes_no_pace_slot(clock):
    """The one behind goes at the slot which the first would have had."""
    limits = LocalLimits(rpm=60_000, clock=clock)
    await send(limits)
    first, second = await limits.acquire(), await limits.acquire()
    leaving, staying = asyncio.create_task(first.gate()), asyncio.create_task(second.gate())
    await clock.settle()
    leaving.cancel()
    await clock.wait_for(staying)
    first.release()
    assert not first.is_sent
    assert second.sent_at == pytest.approx(1000.001)
    assert limits.state().next_send == pytest.approx(0.001)


async def test_a_limiter_tells_its_state_when_printed(clock):
    limits = LocalLimits(rpm=60, concurrency=2, clock=clock)
    (await send(limits)).throttled(5)
    assert repr(limits) == "<LocalLimits rpm=60 in_flight=1/1 next_send=5.000 paused=5.000>"
