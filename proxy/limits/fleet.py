"""The replicas that keep the limits of one account together, as they tell of themselves: for people who look."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

#: Seconds after which a replica that is not heard of is told as silent, and after which it is forgotten.
SILENT, FORGOTTEN = 10.0, 60.0


class LaneReport(NamedTuple):
    """How a lane of a replica is: who waits there, its own calls in flight, those it sent in the last 60 s."""

    waiting: int
    in_flight: int
    sent: int


class Report(NamedTuple):
    """What a replica tells of itself. `name` is for people, `age` seconds since its start; `lanes` are by name."""

    name: str
    age: float
    lanes: Mapping[str, LaneReport]

    def told(self) -> dict[str, Any]:
        return {"name": self.name, "age": self.age, "lanes": {name: [*lane] for name, lane in self.lanes.items()}}

    @classmethod
    def of(cls, told: Any) -> "Report":
        """Raises KeyError, TypeError, ValueError for what is none."""
        lanes = {str(name): LaneReport(*map(int, numbers)) for name, numbers in dict(told["lanes"]).items()}
        return cls(str(told["name"])[:100], float(told["age"]), lanes)


class Sighting(NamedTuple):
    """Another replica, and how many seconds ago it was heard of."""

    report: Report
    ago: float

    @property
    def is_silent(self) -> bool:
        return self.ago > SILENT


class Fleet(Protocol):
    """All replicas of an account. It is no part of any request's way, and nothing is decided by it."""

    def start(self, look: Callable[[], Report]) -> None:
        """Tell the others from now on; `look` makes what is told."""

    async def close(self) -> None:
        """Leave."""

    def others(self) -> list[Sighting]:
        """Those beside this one, by name."""


class Alone:
    """A `Fleet` of one process, which keeps its limits itself."""

    def start(self, look: Callable[[], Report]) -> None: ...

    async def close(self) -> None: ...

    def others(self) -> list[Sighting]:
        return []
