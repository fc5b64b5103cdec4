"""Requests that become jobs: what is kept of them, whose they are, which may not, and how they are taken in.

Rule 1: what would be refused is refused now, with the same words: each is rehearsed up to the line.
Rule 2: no secret is kept: no credential, of the headers what the API gets to see, and no query that has a secret.
Rule 3: it is accepted when the store has it, not before.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from proxy.dialects.jobs import Wanted
from proxy.entry import NOTE, REQUEST_ID, Note
from proxy.errors import BadRequest
from proxy.forwarding import to_the_api
from proxy.jobs import EVERYBODY, Job
from proxy.reception import Reception, parsed
from proxy.settings import Settings
from proxy.work import Work

#: What runs a job that is a request.
OPERATION = "request"
#: The dialect in which any Bearer that is none of ours is a credential of the API's.
RAW = "gigachat"
#: Names of headers that may hold a secret, whoever between wrote them.
SECRET = re.compile("auth|token|secret|key|cookie|passw|jwt|signature|bearer|credential", re.IGNORECASE)
#: Names in a query that are a secret's: `max_tokens` is none.
SECRET_IN_QUERY = re.compile(
    r".*(auth|authorization|token|secret|key|passw(or)?d|jwt|signature|bearer|credentials?)|sig", re.IGNORECASE
)


def owner_of(note: Note, *, has_keys: bool) -> str:
    """Whose the jobs of a request are. Raises BadRequest if it brought a credential of its own."""
    if note.credential is not None:
        raise BadRequest(
            "a request with a credential of its own cannot be kept as a job, since no secret is: send it without "
            "(Prefer: respond-async, Idempotency-Key or POST /jobs), or let the service's own account serve it",
            param="Authorization",
        )
    return note.caller if has_keys else EVERYBODY


def kept_headers(request: web.Request) -> dict[str, str]:
    """Those that matter when it is run; no credential is among them."""
    kept = {name: value for name, value in to_the_api(request.headers.items()) if not SECRET.search(name)}
    return {**kept, **request[NOTE].trace.headers}


def check_query(path: str) -> None:
    """Raises BadRequest if there is a secret in the query."""
    for name, _ in parse_qsl(path.partition("?")[2], keep_blank_values=True):
        if SECRET_IN_QUERY.fullmatch(name):
            raise BadRequest(
                f'a request with "{name[:40]}" in its query cannot be kept as a job, since no secret is: leave it out',
                param=name[:40],
            )


def request_id_of(job: Job) -> str:
    """Under which the log tells of it: its caller's own id, if that is one, else its own."""
    own = job.headers.get("X-Request-ID", "")
    return own if REQUEST_ID.fullmatch(own) else job.id


def fingerprint_of(request: web.Request, body: bytes) -> str:
    """What tells one request from another that came with the same Idempotency-Key."""
    told = blake2b(f"{request.method} {request.raw_path}\n".encode(errors="surrogateescape"), digest_size=16)
    told.update(body)
    return told.hexdigest()


class Accepting:
    """Takes requests in as jobs.

    Args:
        rehearse: runs one up to the line, and returns what is known of it then. Raises what it would be refused with.
    """

    def __init__(
        self, settings: Settings, reception: Reception, work: Work, rehearse: Callable[[Job], Awaitable[Note]]
    ) -> None:
        self._settings = settings
        self._reception = reception
        self._work = work
        self._rehearse = rehearse

    def owner(self, request: web.Request, operation: str = "jobs") -> str:
        """Whose jobs it may see and bring. Raises Unauthorized, BadRequest."""
        note = request[NOTE]
        self._reception.identify(request, "forward" if note.dialect == RAW else operation)
        note.operation = operation
        return owner_of(note, has_keys=bool(self._settings.proxy_api_keys))

    async def request(self, request: web.Request) -> Job:
        """The job that a request becomes. Raises BadRequest, and what it would be refused with."""
        self._reception.patience(request)  # a job has none, but a wrong one is told
        owner = self.owner(request)
        return await self._rehearsed(
            owner,
            request.raw_path,
            headers=kept_headers(request),
            body=await self._reception.body(request),
            priority=self._reception.priority(request.headers),
            keep=self._settings.jobs_keep,
        )

    async def wanted(self, request: web.Request) -> Job:
        """The job that a body of `POST /jobs` asks for. Raises BadRequest, and what it would be refused with."""
        owner, keep = self.owner(request), self._settings.jobs_keep
        wanted = Wanted.read(parsed(await self._reception.body(request)), longest_keep=keep)
        return await self._rehearsed(
            owner,
            wanted.path,
            headers={**wanted.headers, **request[NOTE].trace.headers},
            body=wanted.body,
            priority=self._reception.allowed(wanted.priority),
            webhook=None if wanted.webhook is None else self._work.webhooks.check(wanted.webhook),
            deadline=None if wanted.deadline is None else time.time() + wanted.deadline,
            keep=wanted.keep or keep,
        )

    async def _rehearsed(self, owner: str, path: str, **known: Any) -> Job:
        """A job of which is known in which dialect it is told, and for which lane it is."""
        check_query(path)
        job = Job(caller=owner, operation=OPERATION, dialect="", path=path, **known)
        note = await self._rehearse(job)
        return replace(job, dialect=note.dialect, upstream=note.upstream)
