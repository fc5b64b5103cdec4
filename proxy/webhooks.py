"""Tells callers' servers that their jobs have ended, as https://www.standardwebhooks.com has it.

Rule 1: what is told is that a job has ended and how, never its answer: whoever hears of it fetches GET /jobs/{id} with
        its key. So an address that falls into wrong hands gives no answer away.
Rule 2: an end of a job is one event. It has one `webhook-id`, however often it is told; it may be told twice.
Rule 3: only public hosts (`proxy.public_hosts`), no redirects, nothing of ours or of a caller goes along, and no proxy
        stands between. How long it may take is kept whatever the other side does, and its reply is not used.
Rule 4: an address may hold a token: no log and no error has more of it than its host.
Rule 5: it is told again until it is heard, for three days at most, and for as long as the job itself is kept.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import aiohttp
from pydantic import SecretBytes
from yarl import URL

from proxy.dialects.jobs import rounded
from proxy.errors import BadRequest
from proxy.fetching import checked
from proxy.jobs import SERVICE, Job, JobStore, State
from proxy.jobs.runner import GiveUp, TryLater
from proxy.line import Priority
from proxy.public_hosts import NotPublic, PublicHosts
from proxy.retry_after import retry_after_seconds

log = logging.getLogger("proxy.webhooks")

OPERATION = "webhook"
PARAM = "webhook"
#: Characters of an address.
LONGEST = 2000
#: Characters of a job's error that are told.
LONGEST_ERROR = 1000
#: Seconds for one attempt, the name's lookup included.
TIMEOUT = 10.0
#: Seconds for which a job's end is waited for, at once and between two looks.
PATIENCE = 10.0
#: Seconds before another attempt, by how many were in vain, as the specification has them; and up to how much more.
PAUSES = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
SPREAD = 0.2
#: The most seconds that a server can put us off by Retry-After.
LONGEST_ASKED = 3600.0
ASKING = frozenset({429, 503})
GONE = 410
#: Bytes of a reply that are read, for good manners.
REPLY = 64 * 1024
#: Deliveries under way at once, to one host and at all: a server that never answers holds up nobody else's.
AT_ONE_HOST, AT_ONCE = 10, 100
#: Deliveries that may wait for their turn in memory; what is more waits in the store.
MOST_PENDING = 500
HEADERS = {"User-Agent": "gigachat-proxy", "Content-Type": "application/json", "Accept-Encoding": "identity"}
NOT_PUBLIC = (
    f'"{PARAM}" leads to a host that has no public address: the operator of this proxy would name it in WEBHOOK_ALLOW'
)
NO_SECRET = "no webhook is taken here: the operator of this proxy would set WEBHOOK_SECRET"

#: What can come of a call, and how it is told; the first that fits.
FAILURES: Mapping[type[Exception], str] = {
    NotPublic: "it has no public address",
    TimeoutError: "it took too long",
    aiohttp.ClientConnectorCertificateError: "its certificate is not valid",
    aiohttp.ClientConnectorError: "no connection to it could be opened",
    aiohttp.ClientError: "it broke off or sent no valid answer",
    ConnectionError: "it broke off",
    ssl.SSLError: "it broke off",
}
CAUGHT: tuple[type[Exception], ...] = (asyncio.IncompleteReadError, *FAILURES)


class Event(NamedTuple):
    """The end of a job, as it is told: with the same bytes and the same id each time."""

    id: str
    url: URL
    body: bytes

    def __repr__(self) -> str:
        return f"<Event {self.id} for {self.host}>"

    @property
    def host(self) -> str:
        return self.url.host or ""

    @classmethod
    def of(cls, job: Job, address: str, finished: float) -> "Event":
        """A job that is run again and ends again makes another event."""
        return cls(f"hook_{job.id}_{finished * 1000:.0f}", URL(address), body_of(job, finished))


class Reply(NamedTuple):
    """What came of an attempt; `status` is 0 if no answer did. `pause` is what was asked for, in seconds."""

    text: str
    status: int = 0
    pause: float = 0.0

    @classmethod
    def of(cls, response: aiohttp.ClientResponse) -> "Reply":
        asked = retry_after_seconds(response.headers) if response.status in ASKING else None
        return cls(f"it answered {response.status}", response.status, min(asked or 0.0, LONGEST_ASKED))

    @property
    def is_last(self) -> bool:
        """It was heard, or nobody wants to hear it."""
        return 200 <= self.status < 300 or self.status == GONE


class Webhooks:
    """The webhooks of jobs. Opens its session at first use and again after `close`; belongs to one event loop.

    Args:
        keys: the setting WEBHOOK_SECRET: each event is signed with all of them; without any, no webhook is taken.
        seconds: the time that an attempt may take.
        jitter: a number from 0 to 1, drawn anew for each pause.
    """

    def __init__(
        self,
        store: JobStore,
        keys: Sequence[SecretBytes],
        hosts: PublicHosts,
        *,
        seconds: float = TIMEOUT,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._keys = tuple(keys)
        self._hosts = hosts
        self._seconds = seconds
        self._jitter = jitter
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(AT_ONCE)
        #: How many wait for a place or for a reply.
        self._pending = 0
        self._places_at: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Webhooks signed with {len(self._keys)} keys>"

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def check(self, address: object) -> str:
        """The address of a webhook, if it may be one. Raises BadRequest naming the field `webhook`.

        Nobody is asked what a name leads to: that is looked at when it is called.
        """
        if not self._keys:
            raise BadRequest(NO_SECRET, param=PARAM)
        if not isinstance(address, str) or len(address) > LONGEST:
            raise BadRequest(f'"{PARAM}" must be an address of at most {LONGEST} characters', param=PARAM)
        try:
            self._hosts.check_address(checked(URL(), address, PARAM).raw_host or "")
        except NotPublic:
            raise BadRequest(NOT_PUBLIC, param=PARAM) from None
        return address

    @staticmethod
    def hook_for(job: Job) -> Job:
        """The work of telling that this job has ended; to be added before it has. Is idempotent."""
        return Job(
            id=f"hook_{job.id}",
            caller=SERVICE,
            operation=OPERATION,
            dialect="",
            body=json.dumps({"job": job.id}).encode(),
            priority=Priority.HIGH,
            keep=job.keep,
        )

    @staticmethod
    def late_hook_for(job: Job) -> Job:
        """The work of telling that this job expired, if it does: the store, which notices, tells nobody."""
        body = json.dumps({"job": job.id, "deadline": job.deadline}).encode()
        return replace(Webhooks.hook_for(job), id=f"late_hook_{job.id}", body=body)

    async def deliver(self, hook: Job) -> None:
        """Tell it. Returns also if nobody wants to hear it: the job is gone, or its address is.

        Raises TryLater if it has not ended or was not heard, GiveUp after the last attempt, JobsUnavailable.
        """
        event = await self._event(hook)
        if event is None:
            return
        if self._pending >= MOST_PENDING:
            raise TryLater(PAUSES[0] * (1 + self._jitter()), "too many wait to be heard")
        self._pending += 1
        try:
            async with self._place_at(event.host), self._places:
                reply = await self._tell(event) if self._keys else Reply("WEBHOOK_SECRET is not set")
        finally:
            self._pending -= 1
        log.info("%s to %s: %s", hook.id, event.host, reply.text)
        if not reply.is_last:
            await self._put_off(hook, event, reply)

    async def _event(self, hook: Job) -> Event | None:
        """The end of its job, which is about to come if it has not. None if the job is gone: nobody could fetch it."""
        told = json.loads(hook.body)
        id = told["job"]
        if (deadline := told.get("deadline")) is not None:
            return await self._expiry(id, deadline)
        with self._store.news(id) as news:
            job = await self._store.get(id, caller=None)
            if job is not None and job.finished is None:
                await news.next(PATIENCE)
                job = await self._store.get(id, caller=None)
        if job is None or job.webhook is None:
            return None
        if job.finished is None:
            raise TryLater(PATIENCE, "the job has not ended yet")
        return Event.of(job, job.webhook, job.finished)

    async def _expiry(self, id: str, deadline: float) -> Event | None:
        """The end of a job at its deadline. None if it began before that: whoever ran it tells how it ended."""
        job = await self._store.get(id, caller=None)
        if job is not None and job.finished is None:
            raise TryLater(max(PATIENCE, deadline - time.time()), "the job has not expired yet")
        if job is None or job.webhook is None or job.finished is None or job.state is not State.EXPIRED:
            return None
        return Event.of(job, job.webhook, job.finished)

    async def _tell(self, event: Event) -> Reply:
        headers = signed(self._keys, event.id, int(time.time()), event.body)
        post = self._open_session().post(event.url, data=event.body, headers=headers, allow_redirects=False)
        reply = None
        try:
            async with asyncio.timeout(self._seconds), post as response:
                reply = Reply.of(response)
                await response.content.readexactly(REPLY)
        except CAUGHT as error:
            # What comes after the status changes nothing.
            return reply or Reply(next(text for kind, text in FAILURES.items() if isinstance(error, kind)))
        return reply

    async def _put_off(self, hook: Job, event: Event, reply: Reply) -> None:
        """Counted here, as `attempts` counts looks at a job that had not ended, too."""
        tries = 1 + int(hook.progress.partition(" ")[0] or 0)
        await self._store.note(hook.claim, f"{tries} in vain: {reply.text}")
        if tries > len(PAUSES):
            log.warning("%s to %s: given up after %d attempts", hook.id, event.host, tries)
            raise GiveUp(f"{event.host} was told {tries} times in vain, lastly: {reply.text}")
        pause = PAUSES[tries - 1] * (1 + SPREAD * self._jitter())
        raise TryLater(max(pause, reply.pause), f"{event.host}: {reply.text}")

    def _place_at(self, host: str) -> asyncio.Semaphore:
        return self._places_at.setdefault(host, asyncio.Semaphore(AT_ONE_HOST))

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._hosts.connector(),
                timeout=aiohttp.ClientTimeout(total=None),  # `_tell` has one for all of an attempt
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=HEADERS,
                auto_decompress=False,
            )
        return self._session


# ---- What is told ----


def body_of(job: Job, finished: float) -> bytes:
    """Times in `data` are seconds since the epoch, as everywhere in jobs."""
    told: dict[str, Any] = {
        "type": f"job.{job.state}",
        "timestamp": datetime.fromtimestamp(finished, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": {
            "id": job.id,
            "state": job.state,
            "created": rounded(job.created),
            "finished": rounded(finished),
            "status": job.answer.status if job.answer else None,
            "path": job.path.partition("?")[0],
        },
    }
    if job.error:
        told["data"]["error"] = job.error[:LONGEST_ERROR]
    return json.dumps(told, separators=(",", ":")).encode()


def signed(keys: Sequence[SecretBytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a signed event; `timestamp` is when it is told, in seconds since the epoch."""
    signatures = [signature(key.get_secret_value(), id, timestamp, body) for key in keys]
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": " ".join(signatures)}


def signature(key: bytes, id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the base64 of an HMAC with SHA-256, as the Standard Webhooks 1.0.0 have it."""
    digest = hmac.digest(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"
