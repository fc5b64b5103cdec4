"""Web pages: which of them may call the service, and what their browsers are told.

Rule 1: browsers tell the truth in Host, Origin and Sec-Fetch-Site. Who is none may write what it likes there, and is
        kept out by keys: nothing here lets anybody in.
Rule 2: a page may call if CORS_ORIGINS has its origin, or if it is our own.
Rule 3: a name proves nothing, for whoever owns one can make it lead to this machine (DNS rebinding). So a service that
        listens on loopback answers to the names that it knows alone; and a page is our own only under such a name,
        under an address, or where keys are asked for, which a stranger's page does not have.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address

from aiohttp import web
from multidict import CIMultiDict

from proxy.entry import NOTE
from proxy.errors import Forbidden

#: In CORS_ORIGINS: every page may call.
ALL = "*"
#: How a machine is called from itself.
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
AUTHORITY = re.compile(r"(\[[^]]*\]|[^:]*)(?::\d*)?")

#: Headers of answers that a page may read, besides those that it always may.
EXPOSED = (
    "X-Request-ID, X-Queue-Wait-Ms, X-Queue-Position, RateLimit, RateLimit-Policy, Retry-After, "
    "X-Model-Mapped, X-Should-Retry, X-Session-ID, WWW-Authenticate, Idempotency-Replayed"
)
#: What a page may send. The headers are those that it asks for: keys and content types, the ids and wishes of a client.
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
#: Seconds for which a browser need not ask again; none remembers for longer than a day, some for two hours.
MAX_AGE = "7200"


class Browsers:
    """Keeps out what a browser sends for a page that may not call.

    Args:
        host: the address that the service listens on.
        origins: pages that may call, `ALL` for every one.
        has_keys: whether callers must show a key.
        is_proxy: whether at this address there is a proxy of ours, which may go by any name.
    """

    def __init__(self, host: str, origins: Iterable[str], *, has_keys: bool, is_proxy: Callable[[str], bool]) -> None:
        self._origins = frozenset(origins)
        self._admits_all = ALL in self._origins
        self._has_keys = has_keys
        self._is_proxy = is_proxy
        self._is_local = is_loopback(host)
        own = f"[{host}]" if ":" in host else host
        pages = {name_of(origin.partition("://")[2]) for origin in self._origins}
        self._names = LOCAL_NAMES | {own.lower()} | pages

    def admit(self, request: web.Request) -> web.Response | None:
        """The whole answer, if all that the browser asks is whether its page may call. Raises Forbidden."""
        if self._admits_all:
            return preflight(request)
        told = request.headers
        host = told.get("Host", "")
        if self._is_local and host and name_of(host) not in self._names and not self._is_proxy(request.remote or ""):
            raise Forbidden(
                f'nobody is called "{host[:80]}" here: call this service localhost or 127.0.0.1. Should another name '
                "lead here, add its origin to CORS_ORIGINS, or the proxy between to TRUSTED_PROXIES"
            )
        origin = told.get("Origin")
        if origin is None:
            # Pictures, scripts and frames come without an origin; a link that somebody follows is no harm.
            if told.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site") and not is_followed_link(request):
                raise Forbidden("pages of other sites may not embed what this service answers")
            return None
        if origin not in self._origins and not self._is_ours(origin, host.lower()):
            raise Forbidden(
                f'pages of the origin "{origin[:80]}" may not call this service: if they should, add it to CORS_ORIGINS'
                if origin != "null"
                else "pages without an origin (files, sandboxed frames) may not call this service: serve them by HTTP, "
                "and add their origin to CORS_ORIGINS"
            )
        return preflight(request)

    def _is_ours(self, origin: str, host: str) -> bool:
        """The page came from this service."""
        if origin not in (f"http://{host}", f"https://{host}"):
            return False
        name = name_of(host)
        return name in self._names or is_address(name) or self._has_keys

    async def label(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell the browser whether its page may read the answer. Needed only where there are origins."""
        if self._admits_all:
            response.headers["Access-Control-Allow-Origin"] = ALL
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            return
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin")
        if origin in self._origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED


def preflight(request: web.Request) -> web.Response | None:
    """The answer to a browser that asks before it sends; None if this request is no such question."""
    if request.method != "OPTIONS":
        return None
    told = request.headers
    if "Origin" not in told or "Access-Control-Request-Method" not in told:
        return None
    note = request[NOTE]
    note.operation = "preflight"
    answer = CIMultiDict(
        {"X-Request-ID": note.id, "Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": MAX_AGE}
    )
    if asked := told.get("Access-Control-Request-Headers"):
        answer["Access-Control-Allow-Headers"] = asked
    return web.Response(status=204, headers=answer)


def is_followed_link(request: web.Request) -> bool:
    """The answer is to be a page of its own in the browser."""
    return request.method == "GET" and request.headers.get("Sec-Fetch-Dest") == "document"


@lru_cache(maxsize=256)
def name_of(authority: str) -> str:
    """The name in `name:port`, in lower case; an odd one is its own name."""
    parts = AUTHORITY.fullmatch(authority)
    return (parts[1] if parts else authority).lower()


def is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Nobody but this machine reaches what listens there."""
    return host.lower() == "localhost" or (is_address(host) and ip_address(host).is_loopback)
