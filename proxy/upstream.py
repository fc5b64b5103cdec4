"""The HTTP client that connectors share: a pool, the send gate, errors mapped once.

Rule 1: the bytes of a call that runs under a permit leave at its pace slot and not before (the gate).
Rule 2: what leaves here as an exception is an UpstreamError; no address, header or secret is in its text.
Rule 3: redirects are not followed, cookies are not kept: nothing of one call reaches another.
"""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp
import orjson
from yarl import URL

from proxy.connector import Gate, current_gate, passed_on
from proxy.errors import UpstreamError
from proxy.forwarding import to_the_caller

#: Seconds to open a connection, TLS included. Until then nothing has been sent and nothing counts.
CONNECT_TIMEOUT = 10.0
#: Seconds an idle connection is kept; the API itself closes at 15.
KEEPALIVE = 12.0
#: Bytes of an error body that are read; the rest tells nobody anything.
MAX_ERROR_BODY = 64 * 1024

TlsChooser = Callable[[URL], ssl.SSLContext | bool]


@dataclass(frozen=True, slots=True)
class Send:
    """What the gate has to know of one request that is about to be written."""

    gate: Gate | None
    has_body: bool


class Upstream:
    """One API's HTTP client. Opens its session at first use and again after `close`; belongs to one event loop.

    Args:
        tls: chooses the TLS context for a URL; True means the system's roots, False no verification.
        headers: sent with every request.
    """

    def __init__(self, *, tls: TlsChooser | None = None, headers: Mapping[str, str] | None = None) -> None:
        self._tls = tls or (lambda url: True)
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        is_counted: bool = True,
        is_raw: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, whatever its status, its body unread. Raises UpstreamError if none comes.

        `is_counted=False` is for requests that are no calls of the API (tokens): they pass no gate.
        `is_raw` leaves the answer's bytes as they come, compressed if they are.
        """
        send = Send(current_gate.get() if is_counted else None, body is not None)
        with connection_errors_named():
            async with self._open_session().request(
                method,
                url,
                headers={**passed_on.get(), **(headers or {})} if is_counted else headers,
                data=body,
                ssl=self._tls(url),
                allow_redirects=False,
                auto_decompress=not is_raw,
                trace_request_ctx=send,
            ) as response:
                yield response

    async def read(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        is_counted: bool = True,
    ) -> bytes:
        """The whole body of a 200. Raises UpstreamError for any other status, with what the API said."""
        async with self.open(method, url, headers=headers, body=body, is_counted=is_counted) as response:
            await raise_for_status(response)
            return await response.read()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                # The limits are ours, so the pool has none.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                trace_configs=[gate_trace()],
            )
        return self._session


def gate_trace() -> aiohttp.TraceConfig:
    """Hold each request at its permit's gate just before its first byte is written.

    aiohttp awaits `on_request_chunk_sent` before it writes the body, and writes headers and body together after it
    (it is nearer to the socket than `on_request_headers_sent`, which serves requests without a body).
    """

    async def headers_ready(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        send = context.trace_request_ctx
        if send.gate is not None and not send.has_body:
            await send.gate.gate()

    async def body_ready(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        send = context.trace_request_ctx
        if send.gate is not None and not getattr(context, "has_passed", False):
            context.has_passed = True
            await send.gate.gate()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(headers_ready)
    trace.on_request_chunk_sent.append(body_ready)
    return trace


async def raise_for_status(response: aiohttp.ClientResponse) -> None:
    """Raise UpstreamError unless the status is 200, with the API's body and its Retry-After."""
    if response.status != 200:
        body = b""
        while len(body) < MAX_ERROR_BODY and (piece := await response.content.read(MAX_ERROR_BODY - len(body))):
            body += piece
        error = UpstreamError(response.status, body, retry_after_seconds(response.headers))
        error.answer_headers = to_the_caller(response.headers)
        raise error


def decoded(body: bytes) -> dict[str, object]:
    """A JSON object. Raises UpstreamError if the API sent anything else (a page of HTML from its edge, say)."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise UpstreamError(None, body, message="the upstream answered with something that is not a JSON object")
    return answer


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After as seconds from now, from a number or an HTTP date; None if absent or unreadable."""
    told = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


@contextmanager
def connection_errors_named() -> Iterator[None]:
    """Foreign errors become ours here and nowhere else."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise UpstreamError(
            None,
            message="the upstream's TLS certificate was not accepted; if it is signed by an authority of your own, "
            "name its file in GIGACHAT_CA_BUNDLE_FILE",
        ) from error
    except (aiohttp.ServerTimeoutError, aiohttp.ClientConnectorError) as error:
        raise UpstreamError(None, message="no connection to the upstream could be opened") from error
    except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
        raise UpstreamError(None, message="the upstream broke the connection") from error
