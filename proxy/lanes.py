"""A lane: one upstream with its accounts, their limits and the line that waits for them."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from proxy.connector import Chunk, Connector
from proxy.estimate import Lanewide
from proxy.limits import Limits

#: Makes one attempt at an upstream. A plain answer is a stream of one chunk.
Call = Callable[[Connector], AsyncIterator[Chunk]]


class Priority(Enum):
    """The share of the line that a request's flow has. BATCH goes when no live request waits."""

    HIGH = 4.0
    NORMAL = 2.0
    LOW = 1.0
    BATCH = 0.5


@dataclass(frozen=True, eq=False)
class Account:
    """One credential at one upstream: what is called, and the limits that belong to it."""

    connector: Connector
    limits: Limits


@dataclass(frozen=True, slots=True)
class LaneState:
    """A look at a lane, for `GET /` and the RateLimit headers. Times are seconds."""

    limits: Lanewide
    waiting: int
    size: int
    eta: float
    mean_latency: float | None
    is_stopping: bool


class Enrolled(Protocol):
    """A request in a line, as far as the edge knows it."""

    id: str
    position: int
    waited: float


class Line(Protocol):
    """What the edge needs of a lane's line; `proxy_request.ProxyQueue` is the one there is."""

    def enrol(
        self,
        call: Call,
        *,
        id: str = "",
        patience: float = 600.0,
        caller: str = "",
        client: str = "",
        priority: Priority = Priority.NORMAL,
        passed_on: Mapping[str, str] | None = None,
    ) -> Enrolled:
        """A request for `run`; it does not wait in line before that."""

    def run(self, request: Any) -> AsyncGenerator[Chunk, None]:
        """Its way through the line: the answer's chunks. Raises ProxyError."""

    def place(self, request: Any) -> int:
        """Its position now, from 1, at most a second old; 0 if it does not wait."""

    def eta(self, ahead: int) -> float:
        """Seconds until a request with `ahead` others before it is sent."""

    def state(self) -> LaneState: ...


@dataclass(frozen=True, eq=False)
class Lane:
    """Everything that serves one upstream. `name` is what people and metrics call it."""

    name: str
    connector: Connector
    line: Line
