"""Requests that are passed on byte for byte: what of them reaches the API, what of its answer comes back, and where to.

Rule 1: bodies are bytes from end to end; nothing parses them to write them again.
Rule 2: a call keeps to the API's origin: its path is checked raw, before anybody decodes it.
Rule 3: what authorizes a caller here stays here, and what authorizes us there never comes back.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.errors import BadRequest

#: Pairs of name and value; a name may come twice.
Headers = tuple[tuple[str, str], ...]

#: What of the caller's headers reaches the API; besides these only its `X-` headers do.
TO_THE_API = frozenset({"accept", "accept-language", "content-type", "user-agent", "openai-beta"})
#: What of the API's headers comes back; besides these only its `X-` headers do.
TO_THE_CALLER = frozenset(
    {"content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "etag"}
    | {"last-modified", "retry-after"}
)
#: `X-` headers that speak to the proxy itself, or of those in between.
OURS = re.compile(
    r"x-(api-key|priority|request-timeout|heartbeat|real-ip|forwarded-.*|queue-.*|goog-api-key|accel-.*)", re.IGNORECASE
)

#: Segments and characters in a raw path that a server might read as another path than we do.
TREACHEROUS = re.compile(r"//|%2f|%5c|\\|%00|(^|/)(\.|%2e){1,2}(/|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RawCall:
    """A request for the API as it came. `path` begins with a slash, below the API's version; `query` is raw."""

    method: str
    version: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class RawHead:
    """What comes before the bytes of a raw answer. `is_whole`: they are all there already, in one piece."""

    status: int
    headers: Headers
    is_whole: bool = False


def to_the_api(headers: Iterable[tuple[str, str]]) -> Headers:
    """The caller's headers that the API gets to see: never its key, never our own."""
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() in TO_THE_API or (name.lower().startswith("x-") and not OURS.fullmatch(name))
    )


def to_the_caller(headers: Mapping[str, str]) -> Headers:
    """The API's headers that the caller gets to see: what describes the body, and the API's own `X-` ids."""
    return tuple(
        (name, value)
        for name, value in headers.items()
        if name.lower() in TO_THE_CALLER or (name.lower().startswith("x-") and not OURS.fullmatch(name))
    )


def checked_path(raw: str) -> str:
    """A raw path, if it can only mean itself. Raises BadRequest."""
    if not raw.startswith("/") or TREACHEROUS.search(raw):
        raise BadRequest("the path must be plain: no empty or dotted segments, no encoded slashes", param="path")
    return raw


def split_version(path: str) -> tuple[str, str]:
    """The API's version and the path below it: "/api/v1/files/x" and "/v1/files/x" are ("v1", "/files/x")."""
    version, _, rest = path.removeprefix("/api").strip("/").partition("/")
    return version, f"/{rest}"
