"""Redis's clock as a replica sees it: never taken for later than it may be, never for earlier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.server_time import FIRST_GUESS, ServerTime
from proxy.limits.wire import DRIFT

#: Seconds that microseconds and floats of today's size may be off.
ROUNDING = 2e-6
TODAY = 1_763_000_000


class Clocks:
    """Ours, and the server's, which goes a little faster or slower."""

    def __init__(self, ahead: float = TODAY, drift: float = 0.0) -> None:
        self.now = 1000.0
        self._ahead = ahead
        self._rate = 1 + drift

    def there(self) -> int:
        return round((self._ahead + self.now * self._rate) * 1e6)

    def ours(self, instant: int) -> float:
        return (instant / 1e6 - self._ahead) / self._rate


def ask(time: ServerTime, clocks: Clocks, out: float, back: float) -> None:
    """A round trip that takes so long either way."""
    asked = clocks.now
    clocks.now += out
    read = clocks.there()
    clocks.now += back
    time.learn(read, read, heard=clocks.now, asked=asked)


delays = st.floats(0, 0.2)


@given(
    trips=st.lists(st.tuples(delays, delays, st.floats(0, 100)), min_size=1),
    drift=st.floats(-DRIFT / 2, DRIFT / 2),
    ahead=st.floats(-500, 2e9),
    far=st.floats(0, 300),
)
def test_the_truth_lies_between_the_bounds(trips, drift, ahead, far):
    """Whatever the network does, however the clocks drift, for an instant far ahead too."""
    clocks = Clocks(ahead, drift)
    time = ServerTime(lambda: clocks.now)
    for out, back, pause in trips:
        ask(time, clocks, out, back)
        clocks.now += pause
    instant = clocks.there() + round(far * 1e6)
    slack = ROUNDING + 2 * DRIFT * DRIFT * (far + 100)  # of second order
    assert time.at_earliest(instant) - slack <= clocks.ours(instant) <= time.at_latest(instant) + slack
    assert time.there(clocks.now) >= clocks.there() - 1e6 * (ROUNDING + DRIFT * 100)


def test_one_quick_answer_is_remembered_through_slow_ones():
    """The doubt is that of the quickest, and grows only with the drift."""
    clocks = Clocks()
    time = ServerTime(lambda: clocks.now)
    ask(time, clocks, 0.0001, 0.0001)
    for _ in range(5):
        ask(time, clocks, 0.05, 0.05)
    instant = clocks.there()
    assert time.at_latest(instant) - time.at_earliest(instant) == pytest.approx(0.0002 + 0.5 * DRIFT, rel=0.1)
    assert time.doubt == pytest.approx(0.0002 + 0.5 * DRIFT, rel=0.1)


def test_a_clock_that_was_set_is_believed():
    """At once, in either direction."""
    for jump in (-3600, 3600):
        clocks = Clocks()
        time = ServerTime(lambda clocks=clocks: clocks.now)
        ask(time, clocks, 0.001, 0.001)
        clocks._ahead += jump
        ask(time, clocks, 0.001, 0.001)
        assert time.at_latest(clocks.there()) == pytest.approx(clocks.now, abs=0.003)


def test_another_server_has_another_clock():
    """What is known of the old one serves until the new one has answered, and no longer."""
    clocks = Clocks()
    time = ServerTime(lambda: clocks.now)
    ask(time, clocks, 0.0001, 0.0001)
    known = time.at_latest(clocks.there())
    time.forget()
    assert time.at_latest(clocks.there()) == known
    clocks._ahead += 0.00005
    ask(time, clocks, 0.01, 0.01)
    assert time.at_latest(clocks.there()) - time.at_earliest(clocks.there()) == pytest.approx(0.02, rel=0.1)


def test_pushes_tell_that_it_is_no_earlier():
    """They were sent before they came; nobody knows how long before."""
    clocks = Clocks()
    time = ServerTime(lambda: clocks.now)
    ask(time, clocks, 0.01, 0.01)
    read = clocks.there()
    clocks.now += 0.001
    time.learn(read, read, heard=clocks.now)
    assert time.at_latest(clocks.there()) - clocks.now == pytest.approx(0.001, abs=0.0001)


def test_before_the_first_answer_a_round_trip_is_guessed():
    assert ServerTime(lambda: 0.0).doubt == ServerTime(lambda: 0.0).round_trip == FIRST_GUESS
