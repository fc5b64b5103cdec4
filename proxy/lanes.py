"""Lanes: an upstream's account with its limits and its line, and which of them serves whom.

Rule 1: limits belong to the account, so whoever brings a credential along gets that credential's lane and no other.
Rule 2: a refused credential is told so to whoever brought it; nothing of the server's own takes its place.
Rule 3: a lane in use is never dropped, and it is in use until the task that asked for it is over; what is kept of a
        dropped one is when it may send again.
"""

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

from proxy.clock import Clock
from proxy.connector import Connector
from proxy.errors import LanesFull, NotFound, PassedRefused, Stopping
from proxy.expiring import Expiring
from proxy.limits import Limits
from proxy.line import Line
from proxy.passed import PassedCredential

log = logging.getLogger("proxy.lanes")

#: Seconds for which a refused credential is not shown to the API again.
REFUSAL_AGE = 60.0
#: How many refused credentials, and how many tokens that were given out, are remembered.
MEMORY = 4096
#: Seconds after which whoever found all lanes busy may try again.
SHORTLY = 5.0


@dataclass(frozen=True, eq=False)
class Account:
    """One credential at one upstream: what is called, and the limits that belong to it."""

    connector: Connector
    limits: Limits


@dataclass(frozen=True, eq=False)
class Lane:
    """Everything that serves one upstream. `name` is what people and metrics call it."""

    name: str
    connector: Connector
    line: Line
    #: Tasks that asked for it and are not over: a token request is in no line, and a stream not yet in one.
    _users: set[asyncio.Task[Any]] = field(default_factory=set, init=False, repr=False)

    @property
    def is_idle(self) -> bool:
        """Nobody uses it."""
        return self.line.is_idle and not self._users

    def use(self) -> None:
        """The current task uses it, until it is over. Is idempotent."""
        task = asyncio.current_task()
        if task is not None and task not in self._users:
            self._users.add(task)
            task.add_done_callback(self._users.discard)

    async def close(self) -> None:
        """Answer who is still there, end its dispatchers, let its connector go."""
        await self.line.close()
        await self.connector.shutdown()


#: Makes the lane of a credential, of this name, that sends nothing for so many seconds and says when the API refuses
#: it. Given by `app.py`.
OpenLane = Callable[[PassedCredential, str, float, Callable[[], None]], Lane]


class Lanes:
    """All lanes of the service.

    Args:
        main: the server's own account.
        others: lanes of other upstreams, by the name under which callers ask for them.
        open_lane: makes the lane of a credential that a caller brought along.
        most: how many of those there are at once.
    """

    def __init__(
        self,
        main: Lane,
        open_lane: OpenLane,
        *,
        others: Mapping[str, Lane] = MappingProxyType({}),
        most: int = 256,
        clock: Clock | None = None,
    ) -> None:
        self.main = main
        self.others = others
        self._open_lane = open_lane
        self._most = most
        self._clock = clock or Clock()
        self._salt = secrets.token_bytes(32)
        #: The longest unused ones first.
        self._passed: OrderedDict[PassedCredential, Lane] = OrderedDict()
        #: Until when a credential is not shown again, an account does not send, a token stands for its credential.
        #: By digest: whoever sends thousands of long ones fills no memory with them.
        self._refused: Expiring[str, None] = Expiring(self._clock, most=MEMORY)
        self._resting: Expiring[str, None] = Expiring(self._clock, most=MEMORY)
        self._issued: Expiring[str, PassedCredential] = Expiring(self._clock, most=MEMORY)
        self._closing: set[asyncio.Task[None]] = set()
        #: Who waits for a token, and until when.
        self._asking: dict[asyncio.Task[Any] | None, asyncio.Timeout] = {}
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Lanes {len(self._passed)}/{self._most} passed, {self.main.line!r}>"

    # -- which lane serves whom

    def of(self, credential: PassedCredential | None) -> Lane:
        """The lane of a credential; the server's own if there is none, or if it is the server's own.

        It stays open until the current task is over. Raises PassedRefused for one that was refused of late, LanesFull,
        Stopping.
        """
        if credential is None:
            return self.main
        credential = self._issued.get(self._digest(credential)) or credential
        if self.main.connector.owns(credential):
            return self.main
        self.check(credential)
        lane = self._passed.get(credential) or self._opened(credential)
        self._passed.move_to_end(credential)
        lane.use()
        return lane

    def named(self, name: str) -> Lane:
        """The lane that goes by this name. Raises NotFound."""
        if name not in self.others:
            raise NotFound(
                f'no upstream called "{name}" is configured here: the service needs URL_GPT, API_KEY or both'
            )
        return self.others[name]

    def check(self, credential: PassedCredential | None) -> None:
        """Raises PassedRefused if the API refused this credential of late."""
        if credential is not None and self._is_refused(credential):
            raise refused_of_late()

    def refuse(self, credential: PassedCredential) -> None:
        """The API refused it: for a while it is not shown again, not for those who wait either. Is idempotent."""
        if self._is_refused(credential):
            return
        self._refused.put(self._digest(credential), None, REFUSAL_AGE)
        if (lane := self._passed.get(credential)) is not None:
            lane.line.interrupt_waiting(refused_of_late)

    async def issue_token(self, credential: PassedCredential) -> tuple[str, float]:
        """An access token of the API for a credential, and the seconds that it lasts.

        Raises UpstreamError, LanesFull, Stopping. Whoever comes back with the token is served by the credential's lane.
        """
        if self._is_stopping:
            raise Stopping(retry_after=1)
        if len(self._asking) >= max(1, self._most // 2):
            # Whoever asks need not be known: it must not take the lanes of all others.
            raise LanesFull(retry_after=SHORTLY)
        lane, asker = self.of(credential), asyncio.current_task()
        try:
            async with asyncio.timeout(None) as self._asking[asker]:
                token, life = await lane.connector.issue_token()
        except TimeoutError:
            raise Stopping(retry_after=1) from None
        except PassedRefused:
            self.refuse(credential)
            raise
        finally:
            del self._asking[asker]
        self._issued.put(self._digest(PassedCredential("token", token)), credential, life)
        return token, life

    def has_issued(self, token: PassedCredential) -> bool:
        """Whether this is a token that `issue_token` gave out, not over yet."""
        return self._issued.left(self._digest(token)) > 0

    def _is_refused(self, credential: PassedCredential) -> bool:
        return self._refused.left(self._digest(credential)) > 0

    def _digest(self, credential: PassedCredential) -> str:
        return credential.fingerprint(self._salt)

    def _opened(self, credential: PassedCredential) -> Lane:
        if self._is_stopping:
            raise Stopping(retry_after=1)
        if len(self._passed) >= self._most:
            self._drop_idlest()
        digest = self._digest(credential)
        rest = self._resting.left(digest)
        lane = self._open_lane(credential, f"passed-{digest[:8]}", rest, partial(self.refuse, credential))
        self._passed[credential] = lane
        log.info("lane %s opened, %d of %d", lane.name, len(self._passed), self._most)
        return lane

    def _drop_idlest(self) -> None:
        """The one that is idle for the longest time; one whose credential was refused goes before any other."""
        idle = [credential for credential, lane in self._passed.items() if lane.is_idle]
        if not idle:
            raise LanesFull(retry_after=SHORTLY)
        credential = next(filter(self._is_refused, idle), idle[0])
        lane = self._passed.pop(credential)
        limits = lane.line.state().limits
        self._resting.put(self._digest(credential), None, max(limits.next_send, limits.paused))
        closing = asyncio.create_task(lane.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # -- start and stop

    def all(self) -> list[Lane]:
        """The main one first, each once."""
        return list(dict.fromkeys([self.main, *self.others.values(), *self._passed.values()]))

    async def drain(self, timeout: float) -> None:
        """Refuse new work everywhere, go on for `timeout` seconds, then answer the rest."""
        self._is_stopping = True
        await asyncio.gather(self._drain_asking(timeout), *(lane.line.drain(timeout) for lane in self.all()))

    async def _drain_asking(self, timeout: float) -> None:
        asking = [asker for asker in self._asking if asker is not None]
        if asking:
            await asyncio.wait(asking, timeout=timeout)
        self._interrupt_asking()

    def _interrupt_asking(self) -> None:
        now = asyncio.get_running_loop().time()
        for patience in self._asking.values():
            if not patience.expired():
                patience.reschedule(now)

    def interrupt_all(self) -> None:
        """Answer everybody present, at once."""
        for lane in self.all():
            lane.line.interrupt_all()
        self._interrupt_asking()

    async def close(self) -> None:
        """Close what callers' credentials opened; the other lanes are their maker's."""
        self._is_stopping = True
        await asyncio.gather(*(lane.close() for lane in self._passed.values()), *self._closing, return_exceptions=True)
        self._passed.clear()


def refused_of_late() -> PassedRefused:
    return PassedRefused("the API refused this credential less than a minute ago")
