"""The HTTP client that connectors share: a pool, the send gate, errors mapped once.

Rule 1: the bytes of a call that runs under a permit leave at its pace slot and not before (the gate).
Rule 2: what leaves here as an exception is an UpstreamError; no address, header or secret is in its text.
Rule 3: redirects are not followed, cookies are not kept: nothing of one call reaches another.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from yarl import URL

from proxy import settings
from proxy.connector import Gate, current_gate, passed_on
from proxy.errors import BadRequest, UpstreamError
from proxy.forwarding import RawHead, to_the_caller
from proxy.outbound import Hop, Outbound
from proxy.retry_after import reset_seconds
from proxy.retry_after import retry_after_seconds as retry_after_seconds  # where connectors look for it
from proxy.sse import Decoder

log = logging.getLogger("proxy.upstream")

#: Seconds to open a connection, TLS included. Until then nothing has been sent and nothing counts.
CONNECT_TIMEOUT = 10.0
#: Seconds an idle connection is kept; the API itself closes at 15.
KEEPALIVE = 12.0
#: Bytes of an error body that are read; the rest tells nobody anything.
MAX_ERROR_BODY = 64 * 1024
#: Seconds that the end of a stream may come after its `[DONE]`.
END_TIMEOUT = 0.5

#: Bytes of a body that are written in one go.
PIECE = 256 * 1024

TlsChooser = Callable[[URL], ssl.SSLContext | bool]
HopChooser = Callable[[URL], Hop | None]


class Upstream:
    """One API's HTTP client. Opens its session at first use and again after `close`; belongs to one event loop.

    Args:
        tls: chooses the TLS context for a URL; True means the system's roots, False no verification.
        outbound: chooses the proxy through which a URL is called; unless given, by the settings in force.
        headers: sent with every request.
    """

    def __init__(
        self,
        *,
        tls: TlsChooser | None = None,
        outbound: HopChooser | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._tls = tls or (lambda url: True)
        self._outbound = outbound
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
        hop = self._hop(url)
        with ConnectionErrorsNamed(hop):
            async with self._send(method, url, headers, body, is_counted, is_raw, hop) as response:
                raise_if_shut(response, hop)
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
        hop = self._hop(url)
        with ConnectionErrorsNamed(hop):
            async with self._send(method, url, headers, body, is_counted, False, hop) as response:
                raise_if_shut(response, hop)
                await raise_for_status(response)
                return await response.read()

    def _hop(self, url: URL) -> Hop | None:
        if self._outbound is None:
            self._outbound = Outbound(settings.current())
        return self._outbound(url)

    def _send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str] | None,
        body: bytes | None,
        is_counted: bool,
        is_raw: bool,
        hop: Hop | None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        gate = current_gate.get() if is_counted else None
        if is_counted:
            headers = {**passed_on.get(), **(headers or {})}
        if hop is not None and url.scheme == "http":  # no tunnel: the request itself tells the proxy who we are
            headers = {**(headers or {}), **hop.headers}
        return self._open_session(has_body=bool(body)).request(
            method,
            url,
            headers=headers,
            data=GatedBody(body, gate) if body else None,
            ssl=self._tls(url),
            proxy=hop.url if hop else None,
            proxy_headers=hop.headers if hop else None,
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


# ---- Answers ----


def raise_if_shut(response: aiohttp.ClientResponse, hop: Hop | None) -> None:
    """Raise CredentialRefused if this is the proxy's own refusal. Through a tunnel nobody but the API answers."""
    if hop is not None and response.status == 407 and response.url.scheme == "http":
        raise hop.refusal(response.status)


async def raise_for_status(response: aiohttp.ClientResponse) -> None:
    """Raise UpstreamError unless the status is 200, with the API's body and the pause that it asks for."""
    if response.status != 200:
        body = b""
        while len(body) < MAX_ERROR_BODY and (piece := await response.content.read(MAX_ERROR_BODY - len(body))):
            body += piece
        pause = retry_after_seconds(response.headers)
        if pause is None and response.status == 429:
            pause = reset_seconds(response.headers)
        error = UpstreamError(response.status, body, pause)
        error.answer_headers = to_the_caller(response.headers)
        raise error


def is_final(status: int) -> bool:
    """Whether a caller should see this answer of the API; of the others the line makes the best."""
    return status not in (401, 429) and status < 500


async def chunks_of(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The JSON of each event up to `[DONE]`. Raises UpstreamError if it is not JSON, or if `[DONE]` does not come."""
    if response.content_type != "text/event-stream":
        raise UpstreamError(None, await response.read(), message="the upstream did not answer with a stream")
    decoder = Decoder()
    async for piece in response.content.iter_any():
        for event in decoder.feed(piece):
            if event.data == b"[DONE]":
                await ended(response)
                return
            decoded(event.data)
            yield event.data
    raise UpstreamError(None, message="the upstream ended its stream before [DONE]")


async def ended(response: aiohttp.ClientResponse) -> None:
    """Read to the end: the API has not finished the call before, and its connection can then be used again."""
    if response.content.is_eof():
        return  # it came along with the last event
    # Whatever goes wrong now, the answer is complete.
    with suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
        async with asyncio.timeout(END_TIMEOUT):
            while await response.content.readany():
                pass


async def raw_answer(response: aiohttp.ClientResponse) -> AsyncGenerator[RawHead | bytes, None]:
    """What a connector's `forward` yields of this response."""
    headers_back = to_the_caller(response.headers)
    if response.content_type == "application/json":
        # Whole before its first byte is passed on: if it breaks off on the way, it can be asked for again.
        body = await response.read()
        yield RawHead(response.status, headers_back, is_whole=True)
        yield body
        return
    yield RawHead(response.status, headers_back)
    async for piece in response.content.iter_any():
        yield piece


def decoded(body: bytes) -> dict[str, object]:
    """A JSON object. Raises UpstreamError if the API sent anything else (a page of HTML from its edge, say)."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise UpstreamError(None, body, message="the upstream answered with something that is not a JSON object")
    return answer


def encoded(body: dict[str, Any]) -> bytes:
    """A body as JSON. Raises BadRequest for what cannot be written: a whole number of more than 64 bits, say."""
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the request cannot be written as JSON: {error}") from None


# ---- Errors ----


class ConnectionErrorsNamed:
    """Foreign errors become ours here and nowhere else. `hop` is the proxy that they may come from."""

    def __init__(self, hop: Hop | None = None) -> None:
        self._hop = hop

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and (named := error_for(error, self._hop)) is not None:
            log.warning("%s: %s", named, error)  # with host and reason, which are the operator's to know
            raise named from error


def error_for(error: BaseException, hop: Hop | None) -> UpstreamError | None:
    """What a client's error becomes; None if it is none of a connection."""
    if hop is not None and (trouble := hop.trouble(error)) is not None:
        return trouble
    message = message_for(error)
    return UpstreamError(None, message=message) if message else None


def message_for(error: BaseException) -> str | None:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            "the upstream's TLS certificate was not accepted; if it is signed by an authority of your own, "
            "name its file in GIGACHAT_CA_BUNDLE_FILE (for an API other than GigaChat in SSL_CERT_FILE)"
        )
    if isinstance(error, aiohttp.ServerTimeoutError | aiohttp.ClientConnectorError):
        return "no connection to the upstream could be opened"
    if isinstance(error, aiohttp.ClientError | ConnectionError | ssl.SSLError):
        return "the upstream broke the connection"
    return None
