"""Downloads of what callers name by address.

Rule 1: only http and https, only public hosts (`proxy.public_hosts`), at each redirect again, certificates verified.
Rule 2: nothing of ours and nothing of a caller goes along: no key, no cookie, no header but our name. No proxy stands
        between either: behind one nobody could check what a name leads to.
Rule 3: how long it may take and how large it may be is kept while it is read, whatever its headers say.
Rule 4: what a caller is told has no address in it, and nothing that tells hosts apart which are not public.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import aiohttp
from yarl import URL

from proxy.errors import AttachmentTooLarge, BadRequest
from proxy.public_hosts import NotPublic, PublicHosts

log = logging.getLogger("proxy.fetching")

#: Seconds for a whole download, redirects included.
TIMEOUT = 30.0
MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"User-Agent": "gigachat-proxy", "Accept": "*/*", "Accept-Encoding": "identity"}
MEGABYTE = 2**20

#: The most bytes that a download of this Content-Type ("": there is none) may have. Raises BadRequest for a wrong one.
Room = Callable[[str], int]


class Fetched(NamedTuple):
    """`type` is its Content-Type as the server wrote it, "" if it wrote none."""

    type: str
    content: bytes


class Fetching:
    """Downloads. Opens its session at first use and again after `close`; belongs to one event loop.

    Args:
        seconds: the time that a whole download may take.
    """

    def __init__(self, hosts: PublicHosts, *, seconds: float = TIMEOUT) -> None:
        self._hosts = hosts
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, address: str, room: Room, param: str) -> Fetched:
        """What is at an http(s) address. Raises BadRequest naming the field `param`, AttachmentTooLarge."""
        try:
            async with asyncio.timeout(self._seconds), self._opened(address, param) as response:
                if response.status != 200:
                    raise failed(param, f"its server answered {response.status}")
                type = response.headers.get("Content-Type", "")
                return Fetched(type, await read(response, room(type), param))
        except (TimeoutError, aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
            log.info("%s could not be downloaded: %r", param, error)  # with the host, which is the operator's to know
            raise self._told(error, param) from None

    def _told(self, error: Exception, param: str) -> BadRequest:
        if isinstance(error, NotPublic):
            return BadRequest(f'"{param}" leads to a host that has no public address', param=param)
        if isinstance(error, TimeoutError):
            return failed(param, f"it took longer than {self._seconds:g} s")
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return failed(param, "the certificate of its server is not valid")
        if isinstance(error, aiohttp.ClientConnectorError):
            return failed(param, "no connection to its server could be opened")
        return failed(param, "its server broke off or sent no valid answer")

    @asynccontextmanager
    async def _opened(self, address: str, param: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response that the redirects end with, its body unread."""
        url = checked(URL(), address, param)
        for _ in range(1 + MAX_REDIRECTS):
            async with self._open_session().get(url, allow_redirects=False) as response:
                if response.status not in REDIRECTS:
                    yield response
                    return
                url = checked(url, response.headers.get("Location", ""), param)
        raise failed(param, f"it is redirected more than {MAX_REDIRECTS} times")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._hosts.connector(),
                timeout=aiohttp.ClientTimeout(total=None),  # `fetch` has one for all its requests
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=HEADERS,
            )
        return self._session


def checked(base: URL, address: str, param: str) -> URL:
    """An address, or where it leads from `base`. Raises BadRequest for what is no plain http(s) address."""
    try:
        url = base.join(URL(address)) if base else URL(address)
        host = url.host
    except (ValueError, IndexError):  # IndexError: yarl 1.25 of brackets with nothing in them
        url, host = URL(), None
    if url.scheme not in ("http", "https") or not host:
        raise BadRequest(f'"{param}" must be, and lead to, an http:// or https:// address', param=param)
    if "@" in url.raw_authority:
        raise BadRequest(f'"{param}" must not have, or lead to, an address with a user or a password', param=param)
    return url


async def read(response: aiohttp.ClientResponse, limit: int, param: str) -> bytes:
    """The whole body. Raises AttachmentTooLarge as soon as it is known to be longer."""
    pieces, left = [], limit
    if (response.content_length or 0) <= limit:
        async for piece in response.content.iter_any():
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                break
        else:
            return b"".join(pieces)
    raise AttachmentTooLarge(f'"{param}" has more than the {limit / MEGABYTE:g} MB that the API takes', param=param)


def failed(param: str, why: str) -> BadRequest:
    return BadRequest(f'"{param}" could not be downloaded: {why}', param=param)
