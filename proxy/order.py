"""Weighted fair order: who goes next when several callers wait. Pure data: no clock, no loop, no I/O.

Each flow owns one token for each of its waiting items. A token carries a virtual finish time: the flow's previous one
plus 1/weight, counted from the virtual time of the last departure when the flow was empty. Tokens leave in the order of
their finish times, and a token lets its flow's next item go. One flow alone is therefore plain first come, first
served; flows that compete share by weight; and nobody starves, since virtual time passes every token in the end.

When an item leaves early, its flow loses its *last* token, so that those behind it move up.
"""

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """What the order has to know of an item."""

    @property
    def flow(self) -> Hashable: ...

    @property
    def weight(self) -> float:
        """Share among competing flows; the same for every item of a flow."""

    @property
    def client(self) -> str:
        """Part of the flow: clients of one flow take turns within it."""


T = TypeVar("T", bound=Waiting)


class Flow(Generic[T]):
    """The waiting items of one flow: first come, first served within a client, turn by turn between clients."""

    __slots__ = ("ahead", "clients", "tokens", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.tokens: list[tuple[float, int, Flow[T]]] = []
        # dicts as ordered sets: removal from the middle must not search.
        self.clients: dict[str, dict[T, None]] = {}
        self.ahead: set[T] = set()

    def add(self, item: T, *, ahead: bool) -> int:
        """Returns how many items of this flow go before it."""
        items = self.clients.setdefault(item.client, {})
        if ahead:
            # Behind those who were let ahead before it.
            first = [other for other in items if other in self.ahead]
            self.clients[item.client] = items = {**dict.fromkeys(first), item: None, **items}
            self.ahead.add(item)
        else:
            items[item] = None
        turns = len(first) if ahead else len(items) - 1
        before = turns
        is_earlier = True
        for client, others in self.clients.items():
            if client == item.client:
                is_earlier = False
            else:
                before += min(len(others), turns + is_earlier)
        return before

    def take(self) -> T:
        client, items = next(iter(self.clients.items()))
        item = next(iter(items))
        del self.clients[client]
        del items[item]
        self.ahead.discard(item)
        if items:
            self.clients[client] = items  # to the end: the other clients' turn
        return item

    def remove(self, item: T) -> bool:
        items = self.clients.get(item.client, {})
        if item not in items:
            return False
        del items[item]
        self.ahead.discard(item)
        if not items:
            del self.clients[item.client]
        return True

    def in_turn(self) -> Iterator[T]:
        """The items in the order in which they will go, as it is when the first one is asked for."""
        rounds = [iter(list(items)) for items in self.clients.values()]
        while rounds:
            going_on = []
            for items in rounds:
                item = next(items, None)
                if item is not None:
                    yield item
                    going_on.append(items)
            rounds = going_on


class FairOrder(Generic[T]):
    """Items in weighted fair order. Adding, taking and removing cost O(log n) and a short memory move."""

    def __init__(self) -> None:
        #: (virtual finish time, serial number, flow); the serial keeps equal times in the order of arrival.
        self._tokens: list[tuple[float, int, Flow[T]]] = []
        self._flows: dict[Hashable, Flow[T]] = {}
        self._virtual_time = 0.0
        self._serial = 0

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[T]:
        """The order in which the items would go if nobody came or left. If some do meanwhile, it is a little wrong."""
        turns: dict[int, tuple[Iterator[T], int]] = {}
        for _, _, flow in list(self._tokens):
            # Taken up and let go one by one: ten thousand flows at once would hold up everybody.
            turn, left = turns.pop(id(flow)) if id(flow) in turns else (flow.in_turn(), len(flow.tokens))
            yield from islice(turn, 1)
            if left > 1:
                turns[id(flow)] = turn, left - 1

    def add(self, item: T, *, ahead: bool = False) -> int:
        """Returns how many items go before it. `ahead`: before its client's others, behind those ahead already."""
        flow = self._flows.get(item.flow)
        if flow is None:
            flow = self._flows[item.flow] = Flow(item.weight)
        last = flow.tokens[-1][0] if flow.tokens else self._virtual_time
        self._serial += 1
        token = (last + 1 / flow.weight, self._serial, flow)
        flow.tokens.append(token)
        insort(self._tokens, token)
        before = flow.add(item, ahead=ahead)
        return bisect_left(self._tokens, flow.tokens[before])

    def take(self) -> T:
        token = self._tokens.pop(0)
        self._virtual_time, _, flow = token
        item = flow.take()
        flow.tokens.pop(0)
        if not flow.tokens:
            del self._flows[item.flow]
        return item

    def remove(self, item: T) -> bool:
        """True if the item was waiting here."""
        flow = self._flows.get(item.flow)
        if flow is None or not flow.remove(item):
            return False
        del self._tokens[bisect_left(self._tokens, flow.tokens.pop())]
        if not flow.tokens:
            del self._flows[item.flow]
        return True
