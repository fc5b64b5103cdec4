"""Weighted fair order: shares, turns, places, and that nobody starves."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from proxy.order import FairOrder

WEIGHTS = {"high": 4.0, "normal": 2.0, "low": 1.0}
flows = st.tuples(st.sampled_from("ABC"), st.sampled_from(list(WEIGHTS)))
clients = st.sampled_from(["", "x", "y"])
numbers = count()


@dataclass(eq=False)
class Item:
    """One that waits. A flow is its caller and the kind of its weight."""

    flow: tuple[str, str] = ("A", "normal")
    client: str = ""
    number: int = field(default_factory=numbers.__next__)

    @property
    def weight(self) -> float:
        return WEIGHTS[self.flow[1]]


items = st.builds(Item, flows, clients)
#: Somebody comes, comes back ahead of its own, is taken, or leaves from the middle.
events = st.one_of(
    st.tuples(st.just("add"), items),
    st.tuples(st.just("ahead"), items),
    st.tuples(st.just("take"), st.none()),
    st.tuples(st.just("remove"), st.integers(0, 50)),
)


def after(story: list) -> FairOrder[Item]:
    """The order as this story leaves it."""
    order: FairOrder[Item] = FairOrder()
    for event, what in story:
        if event in ("add", "ahead"):
            order.add(what, ahead=event == "ahead")
        elif event == "take" and order:
            order.take()
        elif event == "remove" and order:
            waiting = list(order)
            assert order.remove(waiting[what % len(waiting)])
    return order


def all_taken(order: FairOrder[Item]) -> list[Item]:
    return [order.take() for _ in range(len(order))]


def several(how_many: int, flow: tuple[str, str] = ("A", "normal"), client: str = "") -> list[Item]:
    return [Item(flow, client) for _ in range(how_many)]


# ---- First come, first served ----


@given(flows, st.integers(0, 30))
def test_one_flow_alone_is_first_come_first_served(flow, how_many):
    """Whatever its weight."""
    order: FairOrder[Item] = FairOrder()
    waiting = several(how_many, flow)
    assert [order.add(item) for item in waiting] == list(range(how_many))
    assert all_taken(order) == waiting


@given(st.lists(events))
def test_within_a_client_of_a_flow_it_is_first_come_first_served(story):
    """Whoever else comes, leaves or is taken in between."""
    story = [(event, what) for event, what in story if event != "ahead"]
    seen: dict[tuple, int] = {}
    for item in all_taken(after(story)):
        assert seen.get((item.flow, item.client), -1) < item.number
        seen[item.flow, item.client] = item.number


@given(st.lists(events), items)
def test_ahead_means_before_those_of_the_same_client_who_came_by_the_ordinary_way(story, item):
    """First come, first served among those let ahead; other flows keep their share."""
    order = after(story)
    order.add(item, ahead=True)
    ahead = set(order._flows[item.flow].ahead)
    own = [other for other in all_taken(order) if (other.flow, other.client) == (item.flow, item.client)]
    before = own[: own.index(item)]
    assert set(before) <= ahead
    assert not ahead & set(own[own.index(item) + 1 :])


# ---- Places ----


@given(st.lists(events))
def test_the_order_shown_is_the_order_in_which_they_go(story):
    """Iterating shows what taking does, and disturbs nothing."""
    order = after(story)
    shown = list(order)
    assert list(order) == shown
    assert all_taken(order) == shown


@given(st.lists(events), items, st.booleans())
def test_the_place_told_on_entry_is_the_place_in_line(story, item, ahead):
    """`add` returns how many go before."""
    order = after(story)
    place = order.add(item, ahead=ahead)
    assert list(order)[place] is item


@given(st.lists(events), st.integers(0, 50))
def test_when_somebody_leaves_those_behind_move_up(story, which):
    """Nobody's place grows, and nobody else is lost."""
    order = after(story)
    before = list(order)
    if before:
        leaving = before[which % len(before)]
        assert order.remove(leaving)
        places = {item: place for place, item in enumerate(before)}
        assert {*order} == {*before} - {leaving}
        assert all(place <= places[item] for place, item in enumerate(order))


@given(st.lists(events), items)
def test_who_is_not_there_cannot_be_removed(story, stranger):
    """Whether it never came, was taken or has left already."""
    order = after(story)
    assert not order.remove(stranger)
    gone = all_taken(order)
    assert not any(order.remove(item) for item in gone)


@given(st.lists(events))
def test_an_empty_order_keeps_nothing(story):
    """However it was emptied: callers come and go for months."""
    taken, left = after(story), after(story)
    all_taken(taken)
    for item in list(left):
        left.remove(item)
    for order in (taken, left):
        assert len(order) == 0
        assert not order._flows
        assert not order._tokens


# ---- Fairness ----


@given(st.lists(flows, min_size=2, max_size=6, unique=True), st.integers(1, 60))
def test_flows_that_compete_share_by_weight(competing, departures):
    """At any moment, what two busy flows have got for their weight differs by less than one turn of each."""
    order: FairOrder[Item] = FairOrder()
    for flow in competing:
        for item in several(departures, flow):
            order.add(item)
    got: Counter = Counter()
    for _ in range(departures):
        got[order.take().flow] += 1
        for one in competing:
            for other in competing:
                weight, others = WEIGHTS[one[1]], WEIGHTS[other[1]]
                assert got[one] / weight - got[other] / others <= 1 / weight + 1 / others


@given(st.sampled_from(list(WEIGHTS)), st.lists(flows, max_size=8, unique=True))
def test_nobody_starves(kind, competing):
    """However busy the others stay: it goes when each of them has had its share of one turn, and one more."""
    order: FairOrder[Item] = FairOrder()
    for flow in competing:
        order.add(Item(flow))
        order.add(Item(flow))
    if competing:
        order.add(Item(order.take().flow))
    patient = Item(("patient", kind))
    order.add(patient)
    patience = sum(WEIGHTS[busy] / WEIGHTS[kind] + 1 for _, busy in competing)
    departures = 0
    while (gone := order.take()) is not patient:
        order.add(Item(gone.flow))  # whoever goes comes back at once
        departures += 1
    assert departures <= patience


def test_a_newcomer_need_not_wait_for_a_crowd():
    """One caller has 200 waiting, another comes with 2: the first goes within 4 departures, the second within 7."""
    order: FairOrder[Item] = FairOrder()
    for item in several(200):
        order.add(item)
    for _ in range(50):
        order.take()
    first, second = several(2, ("B", "normal"))
    assert order.add(first) < 4
    assert order.add(second) < 7


def test_having_been_idle_earns_nothing():
    """Who comes back after a long silence shares from now on; it is not owed the past."""
    order: FairOrder[Item] = FairOrder()
    for item in several(100):
        order.add(item)
    for _ in range(80):
        order.take()
    for item in several(20, ("B", "normal")):
        order.add(item)
    assert Counter(order.take().flow[0] for _ in range(20)) == {"A": 10, "B": 10}


def test_leaving_and_coming_back_does_not_jump_the_line():
    """Whoever gives up its place gets one no better."""
    order: FairOrder[Item] = FairOrder()
    for item in [*several(3, ("B", "normal")), *several(3)]:
        order.add(item)
    restless = Item()
    place = order.add(restless)
    order.remove(restless)
    assert order.add(restless) == place


# ---- Clients of one caller ----


def test_clients_of_one_caller_take_turns():
    """Among themselves, whatever their number of requests."""
    order: FairOrder[Item] = FairOrder()
    for client, how_many in (("busy", 5), ("calm", 2), ("single", 1)):
        for item in several(how_many, client=client):
            order.add(item)
    turns = " ".join(item.client for item in all_taken(order))
    assert turns == "busy calm single busy calm busy busy busy"


def test_many_clients_do_not_earn_a_caller_a_larger_share():
    """Naming ten clients is worth no more than naming none."""
    order: FairOrder[Item] = FairOrder()
    for number in range(10):
        for item in several(2, ("many", "normal"), client=str(number)):
            order.add(item)
    for item in several(20, ("one", "normal")):
        order.add(item)
    assert Counter(order.take().flow[0] for _ in range(20)) == {"many": 10, "one": 10}
