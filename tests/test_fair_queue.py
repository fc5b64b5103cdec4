"""The line: who returned goes first, then the live ones in fair order, then batch; bounded; places told truly."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.connector import Chunk, Connector
from proxy.fair_queue import LIVE_RUN, FairQueue
from proxy.line import Priority
from proxy_request import ProxyRequest

callers = st.sampled_from("ABC")
priorities = st.sampled_from(list(Priority))
#: Some come, somebody is promised a place, is sent, leaves, or is sent and comes back.
events = st.one_of(
    st.tuples(st.just("put"), st.tuples(callers, priorities, st.integers(1, 25))),
    st.tuples(st.just("ahead"), st.tuples(callers, priorities)),
    st.tuples(st.just("get"), st.none()),
    st.tuples(st.just("remove"), st.integers(0, 50)),
    st.tuples(st.just("return"), st.none()),
)


def request(caller: str = "A", priority: Priority = Priority.NORMAL) -> ProxyRequest:
    """One that waits."""

    async def never(connector: Connector) -> AsyncIterator[Chunk]:
        raise AssertionError("a line calls nobody")
        yield {}

    made = ProxyRequest(never, caller=caller, priority=priority)
    made._turn = asyncio.get_running_loop().create_future()
    return made


def batch(caller: str = "A") -> ProxyRequest:
    return request(caller, Priority.BATCH)


def sent(line: FairQueue) -> list[ProxyRequest]:
    """Everybody, in the order of going."""
    return [line.get_nowait() for _ in range(line.qsize())]


def after(story: list) -> FairQueue:
    """The line as this story leaves it."""
    line = FairQueue()
    for event, what in story:
        if event == "put":
            for _ in range(what[2]):
                line.put_nowait(request(*what[:2]))
        elif event == "ahead":
            line.put_ahead(request(*what))
        elif line.empty():
            continue
        elif event == "remove":
            line.remove(list(line.snapshot())[what % line.qsize()])
        else:
            gone = line.get_nowait()
            if event == "return":
                line.put_back(gone)
    return line


# ---- Order ----


async def test_who_returned_goes_first():
    """In the order of returning, before everybody who has not been sent yet."""
    line = FairQueue()
    line.put_nowait(newcomer := request())
    line.put_back(first := request("B"))
    line.put_back(second := batch("C"))
    assert sent(line) == [first, second, newcomer]


async def test_one_caller_alone_is_first_come_first_served():
    line = FairQueue()
    waiting = [request() for _ in range(50)]
    for one in waiting:
        line.put_nowait(one)
    assert [one.position for one in waiting] == list(range(1, 51))
    assert sent(line) == waiting


async def test_who_was_promised_a_place_goes_before_its_own():
    """It has waited outside; its caller's others have waited less."""
    line = FairQueue(1)
    line.put_nowait(other := request())
    line.put_ahead(promised := request())
    assert promised.position == 1
    assert sent(line) == [promised, other]


@pytest.mark.parametrize("live", [1, 100])
async def test_batch_goes_once_in_twenty_while_live_requests_wait(live):
    """And at once when none does."""
    line = FairQueue()
    for _ in range(live):
        line.put_nowait(request())
    for _ in range(10):
        line.put_nowait(batch())
    places = [place for place, one in enumerate(sent(line), 1) if one.priority is Priority.BATCH]
    while_live = [20 * turn for turn in range(1, live // LIVE_RUN + 1)]
    assert places[: len(while_live)] == while_live
    assert places[len(while_live) :] == list(range(live + len(while_live) + 1, live + 11))


@given(st.lists(st.sampled_from(["live", "batch", "get"]), max_size=300))
def test_batch_never_goes_twice_in_twenty_while_live_requests_wait(story):
    """Whoever comes when. And while both wait, twenty departures never pass without one."""

    async def told() -> None:
        line = FairQueue()
        since, without = LIVE_RUN, 0
        for event in story:
            if event != "get":
                line.put_nowait(request() if event == "live" else batch())
                continue
            do_both_wait = bool(line._live and line._batch)
            if line.empty():
                continue
            if line.get_nowait().priority is not Priority.BATCH:
                since, without = since + 1, without + 1 if do_both_wait else 0
            else:
                assert not do_both_wait or since >= LIVE_RUN
                since = without = 0
            assert without <= LIVE_RUN

    asyncio.run(told())


# ---- Places ----


@given(st.lists(events))
def test_the_snapshot_is_the_order_in_which_they_go(story):
    """If nobody comes or leaves; looking changes nothing."""

    async def told() -> None:
        line = after(story)
        shown = list(line.snapshot())
        assert list(line.snapshot()) == shown
        assert sent(line) == shown

    asyncio.run(told())


@given(st.lists(events), callers, priorities, st.booleans())
def test_the_position_told_on_entry_is_the_place_from_one(story, caller, priority, is_promised):
    """Batch turns counted."""

    async def told() -> None:
        line = after(story)
        newcomer = request(caller, priority)
        if is_promised:
            line.put_ahead(newcomer)
        else:
            line.put_nowait(newcomer)
        assert list(line.snapshot()).index(newcomer) + 1 == newcomer.position

    asyncio.run(told())


async def test_positions_know_the_turns_of_batch():
    """The twentieth place is a batch request's, though live ones wait behind it."""
    line = FairQueue()
    for _ in range(25):
        line.put_nowait(request())
    line.put_nowait(first := batch())
    line.put_nowait(second := batch())
    line.put_nowait(live := request())
    assert (first.position, second.position, live.position) == (20, 27, 27)


# ---- Bound and leaving ----


async def test_the_line_takes_as_many_as_its_bound():
    """Whoever returns or was promised a place is let in whatever the bound."""
    line = FairQueue(2)
    line.put_nowait(request())
    line.put_nowait(batch())
    with pytest.raises(asyncio.QueueFull):
        line.put_nowait(request())
    line.put_back(request())
    line.put_ahead(request())
    assert line.qsize() == 4
    assert line.full()


async def test_whoever_leaves_is_gone_wherever_it_waited():
    """Leaving twice is leaving once."""
    line = FairQueue()
    line.put_nowait(live := request())
    line.put_nowait(later := batch())
    line.put_back(returned := request())
    for one in (live, later, returned, live, later, returned):
        line.remove(one)
    assert line.empty()
    with pytest.raises(asyncio.QueueEmpty):
        line.get_nowait()


async def test_whoever_left_during_its_backoff_does_not_come_back():
    """Its timer rings, but nobody waits any more."""
    line = FairQueue()
    gone = request()
    gone._turn = None
    line.put_back(gone)
    assert line.empty()


async def test_the_dispatcher_wakes_when_somebody_waits_and_only_then():
    """By whichever way it came in; after the last has gone or left it rests again."""
    line = FairQueue(1)
    for enter in (line.put_nowait, line.put_ahead, line.put_back):
        for leave in (lambda _: line.get_nowait(), line.remove):
            somebody = asyncio.create_task(line.somebody())
            await asyncio.sleep(0)
            assert not somebody.done()
            enter(one := request())
            await somebody
            leave(one)
