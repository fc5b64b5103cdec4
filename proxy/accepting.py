"""Requests that become jobs: what is kept of them, whose they are, and which may not."""

from hashlib import blake2b

from aiohttp import web

from proxy.callers import KEY_HEADERS
from proxy.entry import Note
from proxy.errors import BadRequest
from proxy.jobs import EVERYBODY

#: Headers that are not kept: credentials, what belongs to the connection, and what was said to us alone.
LEFT_OUT = frozenset(
    map(
        str.lower,
        (
            *KEY_HEADERS,
            *("Authorization", "Proxy-Authorization", "Cookie"),
            *("Host", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "Via", "Forwarded"),
            *("Content-Length", "Content-Encoding", "Transfer-Encoding", "Accept-Encoding"),
            *("Origin", "Referer", "Prefer", "Idempotency-Key", "X-Request-Timeout", "X-Heartbeat", "X-Priority"),
        ),
    )
)
LEFT_OUT_PREFIXES = ("sec-", "x-forwarded-", "x-real-")


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
    return {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in LEFT_OUT and not name.lower().startswith(LEFT_OUT_PREFIXES)
    }


def fingerprint_of(request: web.Request, body: bytes) -> str:
    """What tells one request from another that came with the same Idempotency-Key."""
    told = blake2b(f"{request.method} {request.raw_path}\n".encode(errors="surrogateescape"), digest_size=16)
    told.update(body)
    return told.hexdigest()

