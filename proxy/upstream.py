"""The HTTP client that connectors share: a pool, the send gate, errors mapped once.

Rule 1: the bytes of a call that runs under a permit leave at its pace slot and not before (the gate).
Rule 2: what leaves here as an exception is an UpstreamError; no address, header or secret is in its text.
Rule 3: redirects are not followed, cookies are not kept: nothing of one call reaches another.
"""

import logging
import math
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from proxy.connector import Gate, current_gate, passed_on
from proxy.errors import UpstreamError
from proxy.forwarding import to_the_caller

log = logging.getLogger("proxy.upstream")

#: Seconds to open a connection, TLS included. Until then nothing has been sent and nothing counts.
CONNECT_TIMEOUT = 10.0
#: Seconds an idle connection is kept; the API itself closes at 15.
KEEPALIVE = 12.0
#: Bytes of an error body that are read; the rest tells nobody anything.
MAX_ERROR_BODY = 64 * 1024

#: Bytes of a body that are written in one go.
PIECE = 256 * 1024

TlsChooser = Callable[[URL], ssl.SSLContext | bool]


class Upstream:
    """One API's HTTP client. Opens its session at first use and again after `close`; belongs to one event loop.

    Args:
        tls: chooses the TLS context for a URL; True means the system's roots, False no verification.
        headers: sent with every request.
    """

    def __init__(self, *, tls: TlsChooser | None = None, headers: Mapping[str, str] | None = None) -> None:
        self._tls = tls or (lambda url: True)
        self._headers = dict(headers or {})
        #: One for requests with a body, one for those without, on one pool.
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
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
        with connection_errors_named:
            async with self._send(method, url, headers, body, is_counted, is_raw) as response:
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
        with connection_errors_named:
            async with self._send(method, url, headers, body, is_counted, False) as response:
                await raise_for_status(response)
                return await response.read()

    def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        is_counted: bool,
        is_raw: bool,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        gate = current_gate.get() if is_counted else None
        return self._open_session(has_body=bool(body)).request(
            method,
            url,
            headers={**passed_on.get(), **(headers or {})} if is_counted else headers,
            data=GatedBody(body, gate) if body else None,
            ssl=self._tls(url),
            allow_redirects=False,
            auto_decompress=not is_raw,
            trace_request_ctx=gate,
        )

    def _open_session(self, *, has_body: bool) -> aiohttp.ClientSession:
        if not self._sessions:
            # The limits are ours, so the pool has none.
            pool = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE)
            self._sessions = {True: self._made(pool), False: self._made(pool, gate_trace())}
        return self._sessions[has_body]

    def _made(self, pool: aiohttp.TCPConnector, *traces: aiohttp.TraceConfig) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=pool,
            connector_owner=not traces,  # one of the two closes the pool
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trace_configs=list(traces),
        )


class GatedBody(Payload):
    """A request's body that waits at the gate before its first byte.

    aiohttp holds the headers back until the body writes and sends the two together, so the gate holds both: connection
    and token are ready by then.
    """

    _value: bytes
    _autoclose = True

    def __init__(self, body: bytes, gate: Gate | None) -> None:
        super().__init__(body)
        self._size = len(body)
        self._gate = gate

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            await gate.gate()
        for start in range(0, len(self._value), PIECE):
            await writer.write(self._value[start : start + PIECE])

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await self.write(writer)


def gate_trace() -> aiohttp.TraceConfig:
    """The same gate for requests without a body; a trace costs every request, so only those go through it."""

    async def headers_ready(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        gate: Gate | None = context.trace_request_ctx
        if gate is not None:
            await gate.gate()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(headers_ready)
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
        seconds = float(told)
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


class _ConnectionErrorsNamed:
    """Foreign errors become ours here and nowhere else."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (message := message_for(error)) is not None:
            log.warning("%s: %s", message, error)  # with host and reason, which are the operator's to know
            raise UpstreamError(None, message=message) from error


connection_errors_named = _ConnectionErrorsNamed()


def message_for(error: BaseException) -> str | None:
    """What is told of a client's error; None if it is none of a connection."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            "the upstream's TLS certificate was not accepted; if it is signed by an authority of your own, "
            "name its file in GIGACHAT_CA_BUNDLE_FILE"
        )
    if isinstance(error, aiohttp.ServerTimeoutError | aiohttp.ClientConnectorError):
        return "no connection to the upstream could be opened"
    if isinstance(error, aiohttp.ClientError | ConnectionError | ssl.SSLError):
        return "the upstream broke the connection"
    return None
