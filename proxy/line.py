"""What the edge needs of a lane's line, which is `proxy_request.ProxyQueue`: the promises, and what it tells."""

import math
from collections.abc import AsyncGenerator, Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple, Protocol

from proxy.connector import Chunk, Connector
from proxy.errors import ProxyError
from proxy.estimate import Lanewide
from proxy.limits import Usage

#: Makes one attempt at an upstream: a coroutine for `Line.answer`, an async iterator of chunks for `Line.run`.
Call = Callable[[Connector], Any]


class Parsed(Protocol):
    """What a request knows of its bytes while it need not wait: parsed they take three times the room."""

    def forget(self) -> None:
        """It waits; whatever is needed again is made of the bytes again."""


class Priority(Enum):
    """The share of the line that a request's flow has. BATCH goes when no live request waits."""

    HIGH = 4.0
    NORMAL = 2.0
    LOW = 1.0
    BATCH = 0.5


class LaneState(NamedTuple):
    """A look at a lane, for `GET /` and the RateLimit headers. Times are seconds."""

    limits: Lanewide
    waiting: int
    size: int
    eta: float
    mean_latency: float | None
    is_stopping: bool

    def rate_limit_headers(self) -> dict[str, str]:
        """RateLimit and RateLimit-Policy (IETF draft): what the lane allows, and what of it is free for newcomers.

        For the pace, `r` is how many more requests would be sent within the next minute; `t` is always the seconds
        until a newcomer's is.
        """
        limits, places = self.limits, self.size - self.waiting
        if limits.rpm is not None:
            policy = f'"pace";q={max(1, int(limits.rpm))};w={max(60, round(60 / limits.rpm))}'
            free = int((60 - limits.next_send) / limits.interval) - self.waiting
        elif limits.allowed is not None:
            policy = f'"in-flight";q={limits.concurrency};qu="concurrent-requests"'
            free = limits.allowed - limits.in_flight - self.waiting
        else:
            policy = f'"line";q={self.size};qu="concurrent-requests"'
            free = places
        name = policy.partition(";")[0]
        return {
            "RateLimit-Policy": policy,
            "RateLimit": f"{name};r={max(0, min(free, places))};t={math.ceil(self.eta)}",
        }

    def info(self, name: str) -> dict[str, Any]:
        """For people: the limits as set, what holds just now, and who waits. Times in seconds."""
        limits = self.limits
        return {
            "name": name,
            "requests-a-minute": limits.rpm,
            "requests-in-flight-limit": limits.concurrency,
            "requests-in-flight-limit-now": limits.allowed,
            "in-flight": limits.in_flight,
            "waiting": self.waiting,
            "waiting-limit": self.size,
            "eta": round(self.eta, 3),
            "paused": round(limits.paused, 3),
            "mean-latency": None if self.mean_latency is None else round(self.mean_latency, 3),
            "stopping": self.is_stopping,
        }


class Enrolled(Protocol):
    """A request in a line, as far as the edge knows it."""

    id: str
    position: int
    waited: float
    attempts: int
    usage: Usage | None
    noted: Mapping[str, str]


class Line(Protocol):
    """What the edge needs of a lane's line; `proxy_request.ProxyQueue` is the one there is."""

    @property
    def is_idle(self) -> bool:
        """Nobody waits and nobody is in flight."""

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
        parsed: Parsed | None = None,
    ) -> Enrolled:
        """A request for `run`; it does not wait in line before that."""

    async def answer(self, request: Any) -> Chunk:
        """Its way through the line: the whole answer of a plain call. Raises ProxyError."""

    def run(self, request: Any) -> AsyncGenerator[Chunk, None]:
        """The same for a stream: the answer's chunks."""

    @property
    def trouble(self) -> str:
        """Why the limits are not kept as they are set just now; "" if they are."""

    def place(self, request: Any) -> int:
        """Its position now, from 1, at most a second old; 0 if it does not wait."""

    def eta(self, ahead: int) -> float:
        """Seconds until a request with `ahead` others before it is sent."""

    def state(self) -> LaneState: ...

    async def drain(self, timeout: float) -> None:
        """Refuse new work, go on for `timeout` seconds, then answer the rest."""

    def interrupt_all(self) -> None:
        """Answer everybody present, at once."""

    def interrupt_waiting(self, failure: Callable[[], ProxyError]) -> None:
        """Answer everybody who waits, at once, each with a failure of its own."""

    async def close(self) -> None: ...
