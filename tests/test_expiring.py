"""A bounded memory whose entries end by themselves."""

from proxy.clock import Clock
from proxy.expiring import Expiring


class StoppedClock(Clock):
    time = 1000.0

    def now(self) -> float:
        return self.time


def test_an_entry_is_there_until_its_end_and_not_after() -> None:
    clock = StoppedClock()
    memory: Expiring[str, int] = Expiring(clock, most=10)
    memory.put("a", 1, 5)
    clock.time += 4
    assert (memory.get("a"), memory.left("a")) == (1, 1)
    clock.time += 1
    assert (memory.get("a"), memory.left("a")) == (None, 0)


def test_putting_again_counts_from_then_and_no_time_at_all_forgets() -> None:
    clock = StoppedClock()
    memory: Expiring[str, int] = Expiring(clock, most=10)
    memory.put("a", 1, 5)
    clock.time += 4
    memory.put("a", 2, 5)
    clock.time += 4
    assert memory.get("a") == 2
    memory.put("a", 3, 0)
    assert memory.get("a") is None


def test_the_oldest_make_room_when_it_is_full() -> None:
    memory: Expiring[int, int] = Expiring(StoppedClock(), most=3)
    for number in range(5):
        memory.put(number, number, 60)
    assert [memory.get(number) for number in range(5)] == [None, None, 2, 3, 4]
