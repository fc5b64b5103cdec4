"""One process's connections to the Redis that keeps the jobs: a few for scripts, one on which it hears the news.

Rule 1: an operation is one round trip and atomic. If its connection breaks it is said once more: whatever was done
        already is not done again; at worst claimed jobs wait for the end of their lease.
Rule 2: news that may have been missed while the subscription was away are taken for told.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio.client import PubSub
from redis.exceptions import AuthenticationError, BusyLoadingError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as Broken

from proxy.errors import BadRequest, JobsFull, JobsUnavailable, KeyReused, ProxyError
from proxy.jobs import OWN_RANK, RANKS, Kind, Page, Room
from proxy.jobs.news import Hub
from proxy.jobs.record import name_of, tag
from proxy.limits.address import Address, close

log = logging.getLogger("proxy.jobs")

T = TypeVar("T")

PARTS = ("words", "places", "jobs", "entries", "files", "batches", "reply")
SCRIPT = "".join((Path(__file__).parent / "script" / f"{part}.lua").read_text(encoding="utf-8") for part in PARTS)
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

#: Seconds for an answer.
TIMEOUT = 5.0
#: Seconds without news after which it is asked whether it is still there.
QUIET = 20.0
#: Operations that may be under way at once, each on a connection of its own.
CONNECTIONS = 16
#: Seconds between two attempts to subscribe, at first and at most.
FIRST_BACKOFF = 0.05
MAX_BACKOFF = 1.0

RIGHTS = "its user has to have the rights to run scripts, on keys and channels that begin with REDIS_PREFIX"

#: How Redis begins its own refusals; redis-py leaves out the words that it knows.
CODE = re.compile(r"[A-Z]{2,} ")
#: What refusals of the script and of Redis mean, by their first word, or by the name of redis-py's exception.
MEANINGS: dict[str, Callable[[], ProxyError]] = {
    "FULL": JobsFull,
    "REUSED": KeyReused,
    "LOST": partial(JobsUnavailable, "the file came too slowly, and its beginning is gone: send it again"),
    "GONE": partial(BadRequest, "there is nothing with this id: begin the list anew without it", param="after"),
    "OutOfMemoryError": partial(JobsFull, "the Redis of the jobs has no memory left (maxmemory): make room there"),
    "MISCONF": partial(JobsUnavailable, "the Redis of the jobs cannot write to its disk: make room there"),
    "ReadOnlyError": partial(
        JobsUnavailable, "the Redis of the jobs is a replica that cannot be written: name its master"
    ),
    "NoPermissionError": partial(JobsUnavailable, f"the Redis of the jobs refuses this: {RIGHTS}"),
}


class JobsLink:
    """See `linked`."""

    def __init__(self, url: str, room: Room, prefix: str) -> None:
        # The braces keep all keys together on one node of a cluster.
        self._prefix = f"{prefix}:{{jobs}}:"
        self.address = address_of(url)
        self.hub = Hub()
        self._client = self.address.client(timeout=TIMEOUT)
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._words = {
            "prefix": self._prefix,
            "room_jobs": room.jobs,
            "room_bytes": room.bytes,
            "batch_rank": Kind.BATCH.ranks[0],
            "topics": {str(rank): Kind.at(rank).topic for rank in (OWN_RANK, *RANKS.values())},
        }
        self._subscribed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<JobsLink {self.address.text} {'subscribed' if self._subscribed.is_set() else 'not subscribed'}>"

    async def start(self) -> None:
        """Raises JobsUnavailable if Redis is not there or of no use."""
        try:
            await self.run("probe")
        except ResponseError as error:
            raise JobsUnavailable(f"the Redis of the jobs (JOBS_URL) is of no use ({error}): {RIGHTS}") from None
        await self._look_at_persistence()
        self._watching = asyncio.create_task(self._watch())
        async with translating(), asyncio.timeout(2 * TIMEOUT):
            await self._subscribed.wait()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        with suppress(RedisError, OSError):
            await close(self._client)

    # -- operations

    async def run(self, operation: str, *blobs: bytes, **words: Any) -> Any:
        """What the script returns. Words that are None are left out. Raises the MEANINGS, JobsUnavailable."""
        told = {name: word for name, word in words.items() if word is not None}
        said = json.dumps({"op": operation, **self._words, **told})
        async with self._turns, translating():
            try:
                with heeding_cancellation():
                    return await self._evaluate(said, *blobs)
            except (AuthenticationError, BusyLoadingError):
                raise
            except Broken:
                return await self._evaluate(said, *blobs)

    async def all_of(self, operation: str) -> int:
        """All that an operation does a part of; others come in between."""
        total = 0
        while done := await self.run(operation):
            total += done
        return total

    async def _evaluate(self, said: str, *blobs: bytes) -> Any:
        line = f"{self._prefix}line"
        try:
            return await self._client.evalsha(SHA, 1, line, said, *blobs)
        except NoScriptError:  # Redis was restarted or flushed; EVAL leaves the script there again
            return await self._client.eval(SCRIPT, 1, line, said, *blobs)

    # -- news

    async def _watch(self) -> None:
        """Keep the subscription, for as long as the process lives."""
        backoff = FIRST_BACKOFF
        while True:
            try:
                with heeding_cancellation():
                    async with self._subscription() as messages:
                        backoff = FIRST_BACKOFF
                        await self._listen(messages)
            except Exception as error:  # whatever it is, only another attempt can mend it
                level = logging.WARNING if self._subscribed.is_set() else logging.DEBUG  # once, not at each attempt
                log.log(level, "Redis at %s (JOBS_URL) tells no news (%s): it is tried again", self.address.text, error)
            self._subscribed.clear()
            await asyncio.sleep(backoff)
            backoff = min(MAX_BACKOFF, 2 * backoff)

    @asynccontextmanager
    async def _subscription(self) -> AsyncIterator[PubSub]:
        client = self.address.client(timeout=TIMEOUT)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as messages:
                with heeding_cancellation():
                    await messages.subscribe(f"{self._prefix}news")
                    await messages.get_message(timeout=TIMEOUT)
                log.info("Redis at %s (JOBS_URL) tells news", self.address.text)
                self._subscribed.set()
                self.hub.tell_all()
                yield messages
        finally:
            await close(client)

    async def _listen(self, messages: PubSub) -> None:
        while True:
            with heeding_cancellation():
                message = await following(messages)
            self.hub.tell(*map(name_of, message["data"].decode().split(" ")))

    async def _look_at_persistence(self) -> None:
        """Warn of what would lose jobs."""
        with suppress(ResponseError):  # not everybody may ask
            persistence, memory = await self._client.info("persistence"), await self._client.info("memory")
            if not int(persistence.get("aof_enabled", 1)):
                log.warning(
                    "Redis at %s (JOBS_URL) keeps jobs in memory only: set appendonly yes there, or they end with it",
                    self.address.text,
                )
            if str(memory.get("maxmemory_policy", "")).startswith("allkeys"):
                log.warning(
                    "Redis at %s (JOBS_URL) may throw jobs away: set maxmemory-policy noeviction there",
                    self.address.text,
                )


def address_of(url: str) -> Address:
    """Raises ValueError, which does not repeat the address."""
    try:
        return Address(url)
    except ValueError as error:
        told = str(error).replace("REDIS_URL", "JOBS_URL")
        raise ValueError(f"{told}, the path of an SQLite file, or off") from None


@asynccontextmanager
async def linked(url: str, room: Room, prefix: str) -> AsyncIterator[JobsLink]:
    """The link to the Redis at this address. Raises JobsUnavailable; ValueError for a wrong address."""
    link = JobsLink(url, room, prefix)
    try:
        await link.start()
        yield link
    finally:
        await link.close()


async def following(messages: PubSub) -> dict[str, bytes]:
    """The next message. Raises RedisError if nobody is there any more."""
    message: dict[str, bytes] | None = await messages.get_message(timeout=QUIET)
    if message is None:  # nothing to say, or nobody there any more
        await messages.ping()
        message = await messages.get_message(timeout=TIMEOUT)
    if message is None:
        raise RedisError("it does not answer")
    return message


@asynccontextmanager
async def translating() -> AsyncIterator[None]:
    """Failures of Redis as ours."""
    try:
        yield
    except ResponseError as error:
        if meaning := MEANINGS.get(type(error).__name__) or MEANINGS.get(str(error).partition(" ")[0]):
            raise meaning() from None
        if CODE.match(str(error)):  # NOREPLICAS, BUSY ...: not of the script's making
            raise JobsUnavailable(f"the Redis of the jobs refuses this now ({error}): see to it") from None
        raise
    except (RedisError, OSError, TimeoutError) as error:
        raise JobsUnavailable(
            f"the Redis of the jobs (JOBS_URL) is not reached ({str(error) or type(error).__name__}); try again shortly"
        ) from None


@contextmanager
def heeding_cancellation() -> Iterator[None]:
    """Whoever is cancelled in this block hears of it: redis-py uses `asyncio.wait_for`, which Python 3.11 has wrong."""
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def flat(fields: Mapping[str, Any]) -> list[str]:
    """Fields and values in turn; what is None is left out."""
    return [text for name, value in fields.items() if value is not None for text in (name, str(value))]


def paired(told: list[bytes]) -> dict[str, bytes]:
    """A hash."""
    return {name.decode(): value for name, value in zip(told[::2], told[1::2], strict=True)}


def read(found: Mapping[str, bytes | None], names: Iterable[str], of: Callable[[bytes], T]) -> dict[str, T | None]:
    """These fields of a hash as what they are, None for what is not there."""
    return {name: None if (value := found.get(name)) is None else of(value) for name in names}


async def page(
    link: JobsLink,
    kind: str,
    names: Sequence[str],
    list: str,
    of: str | None,
    tests: Mapping[str, Collection[str]],
    *,
    after: str | None,
    limit: int,
    newest_first: bool,
) -> Page[Mapping[str, bytes | None]]:
    """Some entries of a list. Raises BadRequest if `after` is not in it.

    Args:
        kind: what the keys of the entries begin with.
        names: the fields that are wanted of each.
        list, of: the list's key, in two parts.
        tests: allowed values of fields; none of them means any.
    """
    entries: tuple[Mapping[str, bytes | None], ...] = ()
    while True:
        told, last = await link.run(
            "page",
            kind=kind,
            list=list,
            of=None if of is None else tag(of),
            tests={name: dict.fromkeys(values, True) for name, values in tests.items() if values},
            names=names,
            after=None if after is None else tag(after),
            limit=limit - len(entries),
            newest_first=newest_first,
        )
        entries += tuple(dict(zip(names, values, strict=True)) for values in told)
        after = name_of(last.decode()) or None
        if after is None or len(entries) == limit:
            return Page(entries, after)
