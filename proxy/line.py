"""What the edge needs of a lane's line, which is `proxy_request.ProxyQueue`: the promises, and what it tells."""

import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from enum import Enum
from typing import Any, NamedTuple, Protocol

from proxy.connector import Chunk, Connector
from proxy.errors import ProxyError
from proxy.estimate import Lanewide
from proxy.limits import Usage
from proxy.limits.overrides import Changes, Overrides
from proxy.tracing import UNFOLLOWED, Trail

#: Makes one attempt at an upstream: a coroutine for `Line.answer`, an async iterator of chunks for `Line.run`.
Call = Callable[[Connector], Any]
#: Why a wait was in vain, if that is why.
HELD = "the line was paused by an operator"


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
            free = int((60 - limits.next_send) / (limits.interval * limits.lines)) - self.waiting
        elif limits.allowed is not None:
            policy = f'"in-flight";q={limits.concurrency};qu="concurrent-requests"'
            free = (limits.allowed - limits.in_flight) // limits.lines - self.waiting
        else:
            policy = f'"line";q={self.size};qu="concurrent-requests"'
            free = places
        if limits.is_held:
            free = 0
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
            "held": limits.is_held,
            "mean-latency": None if self.mean_latency is None else round(self.mean_latency, 3),
            "stopping": self.is_stopping,
        }


class Standing(NamedTuple):
    """A request in a line. Times are seconds.

    `place` counts from 1; 0: it is in flight, or waits for its backoff to end. `eta` is until it is sent, None without
    a place. `waited` is since its arrival, or how long it has waited if it is in flight; then `took` is since it was
    sent. `left` is until its deadline; infinity: it has none.
    """

    id: str
    caller: str
    priority: Priority
    model: str
    attempts: int
    place: int
    eta: float | None
    waited: float
    took: float | None
    left: float


class Enrolled(Protocol):
    """A request in a line, as far as the edge knows it."""

    id: str
    position: int
    waited: float
    attempts: int
    usage: Usage | None
    noted: Mapping[str, str]


#: Names of callers whose requests are seen; None: everybody's.
Seen = Collection[str] | None


class Onlook(Protocol):
    """Who stands where in a line; `proxy.places.Places`. However long it is, whoever looks holds up nobody."""

    async def waiting(self, seen: Seen, limit: int) -> tuple[int, list[Standing]]:
        """How many wait, and the first of them; those between two attempts come last."""

    async def in_flight(self, seen: Seen, limit: int) -> tuple[int, list[Standing]]:
        """How many calls there are, and the oldest of them."""

    async def callers(self) -> Counter[str]:
        """How many wait, by caller."""

    async def with_id(self, id: str, seen: Seen) -> list[Standing]:
        """The requests of this id: a caller may give one to several, and a request may take several calls."""

    async def late(self, etas: Callable[[int], float]) -> int:
        """How many wait who will be older than their deadlines by then."""

    async def cancel(self, id: str, seen: Seen, why: str) -> int:
        """End the requests of this id; how many there were."""


class Helm(Protocol):
    """What operators can change of a line; `proxy.steered.Steered`."""

    @property
    def settings(self) -> Mapping[str, float]:
        """By field of `proxy.limits.overrides`, what the settings say; 0: no limit."""

    @property
    def overrides(self) -> Overrides:
        """What operators have set."""

    async def override(self, changes: Changes) -> str:
        """See `Limits.override`."""

    async def refresh(self) -> None:
        """See `Limits.refresh`."""

    async def settled(self) -> None:
        """See `Limits.settled`."""


class Line(Protocol):
    """What the edge needs of a lane's line; `proxy_request.ProxyQueue` is the one there is."""

    @property
    def is_idle(self) -> bool:
        """Nobody waits and nobody is in flight."""

    @property
    def in_flight(self) -> int:
        """Its own calls that are; `state` counts those of other processes on the same account too."""

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
        model: str = "",
        trail: Trail = UNFOLLOWED,
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
        """Seconds until a request with `ahead` others before it is sent; while it is paused, from its resuming on."""

    def eta_by(self, ahead: int, limits: Lanewide) -> float:
        """The same if these limits held."""

    @property
    def places(self) -> Onlook:
        """Who stands where."""

    @property
    def steered(self) -> Helm:
        """What operators can change of it."""

    def state(self) -> LaneState: ...

    async def drain(self, timeout: float) -> None:
        """Refuse new work, go on for `timeout` seconds, then answer the rest."""

    def interrupt_all(self) -> None:
        """Answer everybody present, at once."""

    def interrupt_waiting(self, failure: Callable[[], ProxyError]) -> None:
        """Answer everybody who waits, at once, each with a failure of its own."""

    async def close(self) -> None: ...


def eta_at(line: Line, place: int) -> float | None:
    """Seconds until whoever has this place, from 1, is sent; None while operators hold the line: nobody knows."""
    return None if line.state().limits.is_held else line.eta(place - 1)
