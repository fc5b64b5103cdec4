"""Places kept for those who were refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.promises import GRACE, MOST, Promises


@pytest.fixture
def promises() -> Promises:
    return Promises()


def test_whoever_comes_back_when_told_is_admitted_once(promises):
    """One promise, one place."""
    wait = promises.give("anna", now=0, wait=4.2)
    assert wait == 5
    assert promises.redeem("anna", now=wait)
    assert not promises.redeem("anna", now=wait)
    assert len(promises) == 0


@given(st.floats(0, 1e6), st.floats(0, 1e9))
def test_what_is_told_is_whole_seconds_not_sooner_than_the_wait(wait, now):
    """At least one; and a place is kept from that very moment on."""
    promises = Promises()
    told = promises.give("anna", now, wait)
    assert told == int(told) >= max(1, wait)
    assert told < max(1, wait) + 1
    assert promises.redeem("anna", now + told)


def test_whoever_comes_back_too_early_keeps_the_promise(promises):
    """It is refused now and admitted later; a hair before the second is in time."""
    promises.give("anna", now=0, wait=5)
    assert not promises.redeem("anna", now=4)
    assert promises.redeem("anna", now=4.97)


def test_a_promise_is_for_its_caller_alone(promises):
    promises.give("anna", now=0, wait=1)
    assert not promises.redeem("boris", now=1)
    assert promises.redeem("anna", now=1)


def test_a_caller_refused_thrice_is_admitted_thrice(promises):
    """Each time when the earliest of its promises is due."""
    for wait in (9, 3, 6):
        promises.give("anna", now=0, wait=wait)
    assert [promises.redeem("anna", now=now) for now in (2, 3, 3, 6, 9, 9)] == [False, True, False, True, True, False]


def test_a_place_is_not_kept_for_ever(promises):
    """A minute after the moment that was told it is anybody's."""
    promises.give("anna", now=0, wait=1)
    assert not promises.redeem("anna", now=1 + GRACE + 0.1)
    assert len(promises) == 0


def test_a_caller_who_never_came_back_is_served_by_its_later_promise(promises):
    promises.give("anna", now=0, wait=1)
    promises.give("anna", now=0, wait=50)
    assert promises.redeem("anna", now=90)
    assert len(promises) == 0


def test_thousands_of_forgotten_promises_are_no_burden(promises):
    """They are dropped in one go when their caller shows up again."""
    for _ in range(MOST):
        promises.give("anna", now=0, wait=1)
    assert not promises.redeem("anna", now=1000)
    assert len(promises) == 0


def test_forgotten_promises_are_swept_away_when_others_are_given(promises):
    for number in range(100):
        promises.give(f"caller {number}", now=0, wait=1)
    promises.give("anna", now=1000, wait=1)
    assert len(promises) == 1


def test_a_refusal_beyond_the_bound_keeps_no_place(promises):
    """It is still told a time."""
    for _ in range(MOST):
        promises.give("anna", now=0, wait=1)
    assert promises.give("boris", now=0, wait=3) == 3
    assert not promises.redeem("boris", now=3)
    assert len(promises) == MOST


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0, 30), st.floats(0, 100))))
def test_the_count_is_of_the_promises_that_are_kept(story):
    """Whatever is given, redeemed and swept; nothing is kept of callers without one."""
    promises = Promises()
    now = 0.0
    for caller, is_given, seconds, wait in story:
        now += seconds
        if is_given:
            promises.give(caller, now, wait)
        else:
            promises.redeem(caller, now)
        assert len(promises) == sum(map(len, promises._due.values()))
        assert all(promises._due.values())
