"""How long the wait will be: by the pace, or by the calls before, whichever is more."""

import pytest

from proxy.estimate import LATENCIES, Lanewide, Latencies, eta
from proxy.limits import LimitsState


def limits(**known: float | None) -> LimitsState:
    """An account without limits, but for what is said."""
    free = {"rpm": None, "interval": 0, "concurrency": None, "allowed": None, "in_flight": 0, "next_send": 0}
    if "allowed" in known:
        known.setdefault("concurrency", known["allowed"])
    return LimitsState(**{**free, "paused": 0, **known})


def test_without_limits_nobody_waits():
    assert eta(1000, Lanewide.of([limits()]), latency=5, ages=[3]) == 0


def test_the_pace_alone():
    """The next slot, and one interval for each who goes before."""
    account = limits(rpm=600, interval=0.1, next_send=0.05)
    assert eta(0, Lanewide.of([account]), latency=5, ages=[]) == pytest.approx(0.05)
    assert eta(20, Lanewide.of([account]), latency=5, ages=[]) == pytest.approx(2.05)


def test_a_pause_counts():
    """Nobody is sent before the pause is over."""
    assert eta(0, Lanewide.of([limits(allowed=1, next_send=30, paused=30)]), latency=1, ages=[]) == 30


@pytest.mark.parametrize(("ahead", "seconds"), [(0, 6), (1, 16), (4, 46)])
def test_one_call_at_a_time(ahead, seconds):
    """What the call in flight still takes, and one latency for each who goes before."""
    assert eta(ahead, Lanewide.of([limits(allowed=1, in_flight=1)]), latency=10, ages=[4]) == pytest.approx(seconds)


@pytest.mark.parametrize(("ahead", "seconds"), [(0, 6), (5, 16), (10, 26)])
def test_several_calls_at_a_time(ahead, seconds):
    """Each of five slots comes back once a latency; the oldest call's is the next."""
    account = limits(allowed=5, in_flight=5)
    assert eta(ahead, Lanewide.of([account]), latency=10, ages=[4, 3, 2, 1, 0]) == pytest.approx(seconds)


def test_free_slots_are_taken_at_once():
    """Only those wait for whom none is left."""
    account = limits(allowed=5, in_flight=2)
    assert [eta(ahead, Lanewide.of([account]), latency=10, ages=[4, 1]) for ahead in range(4)] == [0, 0, 0, 6]


def test_the_longer_of_the_two_counts():
    slow_pace = limits(rpm=6, interval=10, next_send=0, allowed=2, in_flight=2)
    fast_pace = limits(rpm=600, interval=0.1, next_send=0, allowed=2, in_flight=2)
    assert eta(4, Lanewide.of([slow_pace]), latency=1, ages=[0, 0]) == 40
    assert eta(4, Lanewide.of([fast_pace]), latency=1, ages=[0, 0]) == 3


def test_what_a_429_has_taught_counts_rather_than_the_setting():
    assert eta(3, Lanewide.of([limits(concurrency=6, allowed=1, in_flight=1)]), latency=10, ages=[10]) == 30


def test_a_call_older_than_the_mean_may_end_at_any_moment():
    """It never makes the wait negative."""
    assert eta(0, Lanewide.of([limits(allowed=1, in_flight=1)]), latency=10, ages=[99]) == 0


def test_before_the_first_answer_the_pace_alone_is_known():
    """One call that takes its time is no measure for those after it, and nobody is refused for it."""
    assert eta(2, Lanewide.of([limits(allowed=1, in_flight=1)]), latency=None, ages=[7]) == 0
    assert eta(2, Lanewide.of([limits(allowed=1, in_flight=1, rpm=60, interval=1)]), latency=None, ages=[7]) == 2


def test_other_replicas_lines_take_turns_with_this_one():
    """For each who goes before here one of each other line goes too."""
    paced = limits(rpm=600, interval=0.1, next_send=0.05, lines=3)
    assert eta(20, Lanewide.of([paced]), latency=0, ages=[]) == pytest.approx(6.05)
    one_at_a_time = limits(allowed=1, in_flight=1, lines=3)
    assert eta(4, Lanewide.of([one_at_a_time]), latency=10, ages=[4]) == pytest.approx(6 + 12 * 10)
    assert Lanewide.of([limits(lines=3), limits(lines=2)]).lines == 3


def test_accounts_share_the_line():
    """Two accounts send twice as fast, and the next send is whichever is sooner."""
    first = limits(rpm=60, interval=1, next_send=0.9, allowed=3, in_flight=1)
    second = limits(rpm=60, interval=1, next_send=0.4, allowed=2, in_flight=2)
    together = Lanewide.of([first, second])
    assert together == Lanewide(rpm=120, concurrency=5, allowed=5, in_flight=3, next_send=0.4, paused=0)
    assert eta(1, Lanewide.of([first, second]), latency=0.1, ages=[]) == pytest.approx(0.9)


def test_one_account_without_a_limit_makes_a_lane_without_it():
    together = Lanewide.of([limits(), limits(rpm=60, interval=1, allowed=2)])
    assert (together.rpm, together.interval, together.concurrency, together.allowed) == (None, 0, None, None)


def test_the_mean_is_of_the_last_calls():
    """An hour ago is no help; before the first answer there is none."""
    latencies = Latencies()
    assert latencies.mean is None
    latencies.add(100)
    for _ in range(LATENCIES):
        latencies.add(2)
    assert latencies.mean == 2
