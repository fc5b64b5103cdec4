"""One process's connections to Redis: a few for scripts, one on which it is told what concerns it.

Rule 1: Redis is there or away, for all limiters of the process at once; any failure of any connection means away.
Rule 2: it is there again when a new subscription stands and a probe has shown that scripts run and messages arrive.
Rule 3: redis-py may swallow a cancellation if an answer comes at that moment: whatever is to end is told so by a flag
        too, and nothing that waits for a script is cancelled.
Rule 4: whoever hears that it is there again tells Redis all that it holds before it asks for more.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

from redis.asyncio.client import PubSub
from redis.exceptions import NoScriptError, RedisError

from proxy.clock import Clock
from proxy.limits.address import Address, close
from proxy.limits.server_time import ServerTime
from proxy.limits.wire import KEY_LIFE, SCRIPT, SHA, Names, Reply, pushed, said

log = logging.getLogger("proxy.limits")

#: Seconds for an answer, opening a connection included; then Redis is away.
TIMEOUT = 1.0
#: Seconds after a loss of data in which nobody takes a slot and everybody tells of those it has.
SETTLE = 2.0
#: Seconds between two attempts to reach it, at first and at most: well below SETTLE.
FIRST_BACKOFF = 0.02
MAX_BACKOFF = 0.5
#: Scripts that may run at once, each on a connection of its own.
CONNECTIONS = 8
#: Round trips that tell where the server's clock stands, before anybody depends on it.
PROBES = 3

KEY_LIFE_MS = int(KEY_LIFE * 1000)

T = TypeVar("T")


class RedisAway(Exception):
    """Redis cannot be reached, or does not serve."""


class Member(Protocol):
    """A limiter, as its link knows it."""

    #: The key by which news name its account.
    subject: str

    def connected(self) -> None:
        """Redis is there, perhaps after an absence, perhaps with other data."""

    def away(self) -> None:
        """Redis cannot be reached."""

    def granted(self, ticket: str, reply: Reply) -> None:
        """A slot came free and is ours."""

    def heed(self, reply: Reply) -> None:
        """What Redis says of the account."""


class RedisLink:
    """The connections that all shared limiters of a process use.

    Args:
        url: see `address`. Raises ValueError if it cannot be used.
        prefix: what all keys begin with; services that share limits share it.
        grace: seconds that Redis may be away before limiters do without it.
        settle: seconds in which a Redis that lost its data is told by all replicas what they hold.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "gigachat-proxy",
        grace: float = 3.0,
        settle: float = SETTLE,
        timeout: float = TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        self.address = Address(url)
        self.names = Names(prefix)
        self.grace = grace
        self.settle = settle
        self.clock = clock or Clock()
        self.time = ServerTime(self.clock.now)
        #: Which process this is, among those that share the Redis.
        self.id = secrets.token_hex(6)
        #: Counts the times that Redis was reached; 0 before the first.
        self.session = 0
        self._timeout = timeout
        self._scripts = self.address.client(timeout=timeout)
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._members: dict[str, Member] = {}
        self._joined = 0
        self._away_since: float | None = self.clock.now()
        #: Since when it was away before it was found; None when it has served since.
        self._unproven: float | None = self._away_since
        self._tried = asyncio.Event()
        #: What went wrong last.
        self._trouble = ""
        self._listening: asyncio.Timeout | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_closing = False

    def __repr__(self) -> str:
        state = "connected" if self.is_connected else f"away for {self.away:.1f} s"
        return f"<RedisLink {self.id} {self.address.text} {state}>"

    # -- start and stop

    async def start(self) -> None:
        """Reach for Redis; returns after the first attempt, whether it is there or not."""
        self._watching = asyncio.create_task(self._watch())
        await self._tried.wait()
        if not self.is_connected:
            log.warning(
                "Redis at %s (REDIS_URL) is not reached (%s); it is tried again and again",
                self.address.text,
                self._trouble,
            )

    async def close(self) -> None:
        """Let the connections go. The limiters are closed before."""
        self._is_closing = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        with suppress(RedisError, OSError):
            await close(self._scripts)

    # -- what limiters need

    @property
    def is_connected(self) -> bool:
        return self._away_since is None

    @property
    def away_since(self) -> float:
        """The monotonic second since which Redis is away; infinity if it is there."""
        return math.inf if self._away_since is None else self._away_since

    @property
    def away(self) -> float:
        """Seconds for which Redis has been away; 0 if it is there."""
        return max(0.0, self.clock.now() - self.away_since)

    def join(self, member: Member) -> str:
        """Messages for `member` will reach it; its name among all limiters of all processes."""
        replica = f"{self.id}-{self._joined}"
        self._joined += 1
        self._members[replica] = member
        return replica

    def part(self, replica: str) -> None:
        self._members.pop(replica, None)

    async def run(self, keys: Sequence[str], words: bytes) -> Reply:
        """One operation of the script, one round trip. Raises RedisAway."""
        async with self._turns:
            asked = self.clock.now()
            reply = Reply(*await self._heard(lambda: self._evaluate(keys, words)))
            self.time.learn(reply.now, reply.done, heard=self.clock.now(), asked=asked)
            return reply

    async def command(self, *words: str | int) -> Any:
        """One command, one round trip. Raises RedisAway."""
        async with self._turns:
            return await self._heard(lambda: self._command(*words))

    async def _heard(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer. Whatever goes wrong means away. Raises RedisAway."""
        if not self.is_connected:
            raise RedisAway
        asked = self.clock.now()
        try:
            told = await question()
        except (RedisError, OSError, TimeoutError) as error:
            self._lost(asked, error)
            raise RedisAway from error
        if self._unproven is not None:
            self._unproven = None
            log.info("Redis at %s is there", self.address.text)
        return told

    async def _command(self, *words: str | int) -> Any:
        async with asyncio.timeout(self._timeout):
            return await self._scripts.execute_command(*words)  # type: ignore[no-untyped-call]

    async def _evaluate(self, keys: Sequence[str], words: bytes) -> list[int]:
        # A deadline for the whole: connecting, asking, hearing.
        async with asyncio.timeout(self._timeout):
            try:
                told: list[int] = await self._scripts.evalsha(SHA, len(keys), *keys, words)
            except NoScriptError:  # Redis was restarted or flushed; EVAL leaves the script there again
                told = await self._scripts.eval(SCRIPT, len(keys), *keys, words)
            return told

    # -- there and away

    def _lost(self, since: float, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__
        self._tried.set()
        if self._away_since is not None:
            return
        if self._unproven is None:
            self._away_since = since
            log.warning(
                "Redis at %s is away (%s); nothing is sent for up to %g s", self.address.text, self._trouble, self.grace
            )
        else:  # whoever found it there and could do nothing with it has not found it
            self._away_since = self._unproven
        if self._listening is not None:
            self._listening.reschedule(0)  # whatever the subscription may look like, it is opened anew
        for member in list(self._members.values()):
            member.away()

    def _found(self) -> None:
        self._unproven, self._away_since = self._away_since, None
        self.session += 1
        self._tried.set()
        for member in list(self._members.values()):
            member.connected()

    async def _watch(self) -> None:
        """Keep the subscription, for as long as the process lives."""
        backoff = FIRST_BACKOFF
        while not self._is_closing:
            try:
                async with self._subscription() as messages:
                    self._found()
                    await self._listen(messages)
            except Exception as error:  # whatever it is, only another attempt can mend it
                self._lost(self.clock.now(), error)
            backoff = min(MAX_BACKOFF, backoff * 2) if self._unproven is not None else FIRST_BACKOFF
            await self.clock.until(self.clock.now() + backoff)

    @asynccontextmanager
    async def _subscription(self) -> AsyncIterator[PubSub]:
        """The channels of this process, on a connection of their own, to a server that was probed."""
        client = self.address.client(timeout=self._timeout, listens=True)
        channels = self.names.channel + self.id, self.names.news
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as messages:
                async with asyncio.timeout(self._timeout):
                    await messages.subscribe(*channels)
                    for _ in channels:
                        await messages.get_message(timeout=self._timeout)
                    await self._probe()
                yield messages
        finally:
            await close(client)

    async def _probe(self) -> None:
        """Raises RedisError for a server that is of no use."""
        await self._scripts.connection_pool.disconnect(inuse_connections=False)
        self.time.forget()
        words = said("probe", channel=self.names.channel, replica=self.id, life=KEY_LIFE_MS)
        for _ in range(PROBES):
            asked = self.clock.now()
            now, heard_by = await self._evaluate([self.names.probe], words)
            self.time.learn(now, now, heard=self.clock.now(), asked=asked)
            if not heard_by:
                raise RedisError("it does not say who hears a message: one server or Sentinel is needed, no cluster")

    async def _listen(self, messages: PubSub) -> None:
        try:
            async with asyncio.timeout(None) as self._listening:
                while self.is_connected and not self._is_closing:
                    message = await messages.get_message(timeout=None)
                    if message is not None and message["data"]:
                        self._dispatch(message["data"])
        finally:
            self._listening = None

    def _dispatch(self, message: bytes) -> None:
        try:
            reply, subject = pushed(message)
        except (ValueError, TypeError):
            log.warning("Redis at %s: a message on our channels that is none of ours", self.address.text)
            return
        self.time.learn(reply.now, reply.done, heard=self.clock.now())
        if member := self._members.get(subject.partition(":")[0]):
            member.granted(subject, reply)
            return
        for member in list(self._members.values()):
            if member.subject == subject:
                member.heed(reply)
