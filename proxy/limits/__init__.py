"""The promise of every limiter: one account's pace and concurrency, in this process or in many.

A limiter belongs to one account of one upstream. Whoever wants to call takes a permit:

    permit = await limits.acquire(cost)      # a concurrency slot is ours, and the pace slot is near
    try:
        await permit.gate()                  # returns at the pace slot itself; the bytes go out now
        ...
        permit.settle(usage)                 # what the call really cost
    finally:
        permit.release()                     # the concurrency slot goes back; the pace slot too if nothing was sent
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import orjson

from proxy.limits.overrides import Changes, Overrides

#: The usage in a body or in an event, one level of details deep.
USAGE = re.compile(rb'"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call cost, in the upstream's own tokens. Budgets are settled with it."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def told_by(cls, chunk: object) -> "Usage | None":
        """What an answer, a chunk or a piece of raw bytes says of its cost; None if it says nothing."""
        told = usage_in(chunk) if isinstance(chunk, bytes) else chunk.get("usage") if isinstance(chunk, dict) else None
        if not isinstance(told, dict):
            return None
        sent = told.get("prompt_tokens", told.get("input_tokens"))
        received = told.get("completion_tokens", told.get("output_tokens"))
        return cls(sent if isinstance(sent, int) else 0, received if isinstance(received, int) else 0)


def usage_in(piece: bytes) -> object:
    """The last usage in a body or an event, parsed; None if there is none."""
    found = USAGE.findall(piece) if b'"usage"' in piece else []
    try:
        return orjson.loads(found[-1]) if found else None
    except orjson.JSONDecodeError:
        return None


class LimitsState(NamedTuple):
    """A look at a limiter, for people and for the ETA. Times are seconds from now, 0 when past.

    `lines` is how many replicas take turns, since somebody waits there; this one is always among them.
    `is_held`: operators have paused it, so nothing is sent until they resume it.
    """

    rpm: float | None
    interval: float
    concurrency: int | None
    allowed: int | None
    in_flight: int
    next_send: float
    paused: float
    is_held: bool = False
    lines: int = 1


class Bounds(NamedTuple):
    """What an account's settings say; None: no pacing, no bound."""

    rpm: float | None
    concurrency: int | None


class Permit(Protocol):
    """The right to make one call: a concurrency slot now, a pace slot at the gate."""

    #: Called at each send; the time-out of the call starts with it.
    on_sent: Callable[[], None] | None

    @property
    def is_sent(self) -> bool:
        """Whether bytes of this call have gone out; from then on it counts, whatever comes back."""

    async def gate(self) -> None:
        """Wait for the pace slot and take it. A second call (a re-send) waits for a slot of its own."""

    def mark_sent(self) -> None:
        """The bytes go out at this instant, past the gate: the next call keeps its distance from here."""

    def settle(self, usage: Usage) -> None:
        """Tell what the call cost and that it succeeded."""

    def throttled(self, retry_after: float | None) -> None:
        """The upstream answered 429: pause every call of the account for `retry_after` seconds or a backoff."""

    def release_after(self, call: "asyncio.Future[Any]") -> None:
        """Give the slots back when `call` is done: for a call in a thread, which cannot be cancelled."""

    def release(self) -> None:
        """Give the slots back. Is idempotent."""


class Limits(Protocol):
    """Pace, concurrency and pauses of one account."""

    #: As it was made; what operators set outranks it.
    settings: Bounds

    @property
    def overrides(self) -> Overrides:
        """What operators have set."""

    async def acquire(self, cost: int = 1) -> Permit:
        """Wait for a concurrency slot, then until shortly before the pace slot.

        `cost` is the estimate in tokens that a budget reserves; limiters without a budget ignore it.
        """

    def try_acquire(self, cost: int = 1) -> Permit | None:
        """A permit if it is to be had without waiting for anything; None says nothing about why."""

    async def override(self, changes: Changes) -> str:
        """Operators change what holds, for everybody who keeps the limits of this account, at once.

        The next call keeps its distance from the last one by the new pace. Nobody in flight is cut, and nobody is let
        off until fewer are in flight than may be. While it is paused nothing is sent, and whoever waits goes on
        waiting. Changes of fields that are the line's are kept and told to listeners.

        Returns why it will not outlast this process, "" if it will. Raises LimitsUnavailable: nothing is changed.
        """

    def listen(self, listener: Callable[[], None]) -> None:
        """Call it back whenever `overrides` has changed, whoever changed them."""

    async def refresh(self) -> None:
        """Hear of changes that other processes have made. Raises LimitsUnavailable."""

    async def settled(self) -> None:
        """Wait until it is known what operators set before, if that is to be known at all."""

    def state(self) -> LimitsState: ...

    @property
    def trouble(self) -> str:
        """Why the limits are not kept as they are set just now; "" if they are."""

    def start(self) -> None:
        """Begin whatever it takes to keep them."""

    async def close(self) -> None:
        """Give everything back. Whoever acquires after that waits for ever."""
