"""One request in the line: what it is, its turn, and how it is ended early."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import uuid4

from proxy.errors import DeadlineExpired, ProxyError, UpstreamError
from proxy.forwarding import RawHead
from proxy.lanes import Account
from proxy.limits import Permit, Usage
from proxy.line import Call, Parsed, Priority
from proxy.tracing import UNFOLLOWED, Trail

NOTHING: Mapping[str, str] = MappingProxyType({})


class Turn(NamedTuple):
    """It is a request's turn: with this permit it may call this account."""

    permit: Permit
    account: Account


class ProxyRequest:
    """One request, from its arrival to the end of its answer.

    Args:
        call: makes an attempt.
        patience: seconds from its arrival until its answer must have begun.
        caller: who sent it; the requests of one caller and priority are one flow.
        client: a part of the caller, for fairness within the caller only.
        passed_on: headers of the caller that reach the upstream, besides X-Request-ID.
        parsed: is told to forget whenever it has to wait.
        model: what it asks for, for people.
        trail: is told of its way.
    """

    __slots__ = (
        "_interruption",
        "_is_cut",
        "_task",
        "_turn",
        "arrived",
        "attempts",
        "call",
        "caller",
        "client",
        "has_begun",
        "id",
        "model",
        "noted",
        "parsed",
        "passed_on",
        "patience",
        "position",
        "priority",
        "retries",
        "trail",
        "usage",
        "waited",
    )

    def __init__(
        self,
        call: Call,
        *,
        patience: float = 600.0,
        caller: str = "",
        client: str = "",
        priority: Priority = Priority.NORMAL,
        id: str = "",
        passed_on: Mapping[str, str] | None = None,
        parsed: Parsed | None = None,
        model: str = "",
        trail: Trail = UNFOLLOWED,
    ) -> None:
        self.id = id or str(uuid4())
        self.model = model
        self.trail = trail
        self.call = call
        self.passed_on = passed_on or NOTHING
        self.parsed = parsed
        self.patience = patience
        self.caller = caller
        self.client = client
        self.priority = priority
        self.arrived = 0.0
        self.waited = 0.0
        self.position = 0
        self.attempts = 0
        self.retries = 0
        #: Its answer has: the deadline has no more to say.
        self.has_begun = False
        #: What its answer says that it cost.
        self.usage: Usage | None = None
        #: Headers that the connector adds to the answer.
        self.noted: Mapping[str, str] = NOTHING
        self._turn: asyncio.Future[Turn] | None = None
        #: Who waits for the next chunk, and whether `interrupt` cancelled it.
        self._task: asyncio.Task[Any] | None = None
        self._is_cut = False
        self._interruption: ProxyError | None = None

    def __repr__(self) -> str:
        state = "waiting" if self.is_waiting else "in flight" if self._task else "idle"
        return f"<ProxyRequest {self.id} of {self.caller!r} {self.priority.name} {state} attempts={self.attempts}>"

    @property
    def flow(self) -> tuple[str, Priority]:
        return self.caller, self.priority

    @property
    def weight(self) -> float:
        return self.priority.value

    @property
    def deadline(self) -> float:
        """Monotonic seconds."""
        return self.arrived + self.patience

    @property
    def is_waiting(self) -> bool:
        return self._turn is not None and not self._turn.done()

    def expect_turn(self) -> asyncio.Future[Turn]:
        """What the dispatcher will resolve, or `interrupt`."""
        self._stop_if_interrupted()
        if self.parsed is not None:
            self.parsed.forget()
        self._turn = asyncio.get_running_loop().create_future()
        return self._turn

    def forgo_turn(self) -> None:
        """It does not wait any more: give back what the dispatcher may have handed out at this very moment."""
        turn = self._turn
        if turn is not None and turn.done() and not turn.cancelled() and turn.exception() is None:
            turn.result().permit.release()
        self._turn = None

    def go(self, turn: Turn) -> bool:
        """Hand it its turn. False if it does not wait any more."""
        if self._turn is None or self._turn.done():
            return False
        self._turn.set_result(turn)
        return True

    async def interruptible(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Take a step of the call. Raises what `interrupt` was given, as soon as it is."""
        self._stop_if_interrupted()
        self._task = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            return await step()
        except asyncio.CancelledError:
            # Told apart as asyncio.timeout does: if nobody else cancelled the task, it was `interrupt`.
            if self._is_cut and task.uncancel() <= before:
                self._stop_if_interrupted()
            raise
        finally:
            self._task = None

    def expire(self) -> None:
        """Its deadline has come."""
        self.interrupt(DeadlineExpired(f"no answer within {self.patience:g} s (X-Request-Timeout, RESP_TIMEOUT)"))

    def interrupt(self, error: ProxyError) -> None:
        """End it now with `error`, waiting or in flight; between the two, or between two chunks, at its next step."""
        if self._interruption is not None:
            return
        self._interruption = error
        if self._turn is not None and not self._turn.done():
            self._turn.set_exception(error)
        elif self._task is not None:
            self._is_cut = True
            self._task.cancel()

    def _stop_if_interrupted(self) -> None:
        if self._interruption is not None:
            raise self._interruption


class Story(NamedTuple):
    """What became of a request, told once to every listener. Times are seconds.

    `status` is the HTTP status that it deserves, None if its caller left; `error` is the code of its failure.
    `trace` is the id of its trace, "" without.
    """

    id: str
    caller: str
    status: int | None
    waited: float
    took: float
    attempts: int
    error: str = ""
    usage: Usage | None = None
    trace: str = ""


def end_of(head: RawHead) -> tuple[int, str]:
    """The status and the error code of a request whose caller gets the API's own answer, "" if it is no refusal."""
    return head.status, UpstreamError.code if head.status >= 400 else ""


def told(end: BaseException) -> tuple[int | None, str]:
    """The status and the error code of a request that was not answered."""
    if isinstance(end, ProxyError):
        return end.status, end.code
    return (ProxyError.status, ProxyError.code) if isinstance(end, Exception) else (None, "")  # it left
