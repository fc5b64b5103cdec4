"""Answers on the wire: whole, streamed or raw, and signs of life to those who wait for them.

Rule 1: a stream's 200 is written when its first chunk has come (or STREAM_EARLY_200 has passed), so that errors keep
        their real status.
Rule 2: what fails after the 200 is told in the dialect's error event; a dialect that has none is cut off.
Rule 3: a caller that leaves while it is written to is no error.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from typing import TypeVar, cast

import orjson
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict

from proxy import sse
from proxy.connector import Chunk
from proxy.dialects import Dialect
from proxy.entry import NOTE, Note
from proxy.errors import PassedRefused, ProxyError, UpstreamError, upstream_message
from proxy.forwarding import Headers, RawHead
from proxy.heartbeat import Heartbeat, takes_102
from proxy.line import Enrolled, Line, eta_at
from proxy.request import end_of
from proxy.settings import Settings

log = logging.getLogger("proxy.delivery")

#: In place of the library's name and version, which are nobody's business.
SERVER = "gigachat-proxy"
JSON_TYPE = "application/json; charset=utf-8"
UNBUFFERED = {"X-Accel-Buffering": "no"}  # nginx would hold the chunks back
EVENT_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", **UNBUFFERED}

#: What says of a body how it is to be read.
ABOUT_THE_BODY = ("Content-Type", "Content-Encoding", "Content-Language")

#: Bytes that a connection surely takes which has sent all that came before: half of what asyncio keeps for it.
AT_ONCE = 32 * 1024

T = TypeVar("T")

NOTHING = nullcontext()

#: What is told of an error that is no ProxyError yet.
Explain = Callable[[web.Request, Exception], ProxyError]


class Delivery:
    """Takes requests that are enrolled in a line to their end."""

    def __init__(self, settings: Settings, heartbeat: Heartbeat, explain: Explain) -> None:
        self._settings = settings
        self._heartbeat = heartbeat
        self._explain = explain

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between two signs of life to those who wait."""
        return self._settings.heartbeat_interval

    def plain(self, request: web.Request, body: bytes) -> web.Response:
        """One whole answer, in JSON."""
        return web.Response(body=body, headers=headers(request, {"Content-Type": JSON_TYPE}))

    async def stream(
        self, dialect: Dialect, request: web.Request, events: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        """An answer in events, each as it goes on the wire."""
        response = web.StreamResponse()
        async with aclosing(events), self.unbroken(dialect, request, response):
            event = await self.awaited(request, response, anext(events, None), progress)
            await begin(request, response, headers(request, EVENT_HEADERS))
            while event is not None and request.method != "HEAD":
                await self.write(request, response, event)
                event = await anext(events, None)
        return response

    async def raw(self, dialect: Dialect, request: web.Request, is_stream: bool) -> web.StreamResponse:
        """The API's own answer, byte for byte; its own errors too."""
        line, enrolled = in_line(request)
        response = web.StreamResponse()
        async with aclosing(line.run(enrolled)) as chunks, self.unbroken(dialect, request, response):
            try:
                head = await self._head(request, response, chunks, is_stream)
            except UpstreamError as error:
                if response.prepared or not error.is_as_told:
                    raise
                request[NOTE].answered(error.upstream_status or error.status, error.code)
                return web.Response(
                    status=error.upstream_status or error.status,
                    body=error.body,
                    headers=raw_headers(request, error.answer_headers),
                )
            request[NOTE].answered(*end_of(head))
            passage = request[NOTE].passage
            if head.is_whole or passage.is_whole:
                body = passage.told(head.status, await rest(chunks))
                return web.Response(status=head.status, body=body, headers=raw_headers(request, head.headers))
            if not response.prepared:
                response.set_status(head.status)
            told = raw_headers(request, head.headers)
            if told.get("Content-Type", "").startswith("text/event-stream"):
                told.update(UNBUFFERED)
            await begin(request, response, told)
            async for piece in chunks:
                await self.write(request, response, cast(bytes, piece))
        return response

    def again(self, request: web.Request, answer: web.Response) -> web.Response:
        """An answer that somebody else got before."""
        told = {name: answer.headers[name] for name in ABOUT_THE_BODY if name in answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers(request, told))

    def refused_token(self, request: web.Request, refusal: PassedRefused) -> web.Response:
        """What the API said of a credential that was shown to it for a token; in its own words, if it has said any."""
        if not upstream_message(refusal.body):
            raise refusal
        request[NOTE].failed(refusal)
        status = refusal.upstream_status or refusal.status
        told = {"Content-Type": JSON_TYPE, **(refusal.headers if status == 401 else {})}
        return web.Response(status=status, body=refusal.body, headers=headers(request, told))

    async def _head(
        self,
        request: web.Request,
        response: web.StreamResponse,
        chunks: AsyncGenerator[Chunk, None],
        is_stream: bool,
    ) -> RawHead:
        """The head of a raw answer. Raises UpstreamError if it is no 200 and a 200 is out already."""
        if is_stream:
            head = cast(RawHead, await self.awaited(request, response, anext(chunks, None), progress))
        else:
            with self.beating(request):
                head = cast(RawHead, await anext(chunks))
        if response.prepared and head.status != 200:
            raise UpstreamError(head.status, await rest(chunks))
        return head

    async def awaited(
        self,
        request: web.Request,
        response: web.StreamResponse,
        beginning: Awaitable[T],
        progress: Callable[[web.Request], str],
    ) -> T:
        """Wait for a stream's beginning, keeping the client alive: by 102s, or by an early 200 and comments."""
        if self._takes_102(request) or request[NOTE].within is not None:
            with self.beating(request):
                return await beginning
        opening = asyncio.ensure_future(beginning)
        try:
            await asyncio.wait({opening}, timeout=self._settings.stream_early_200)
            while not opening.done():
                await begin(request, response, headers(request, EVENT_HEADERS))
                await response.write(sse.comment(progress(request)))
                await asyncio.wait({opening}, timeout=self._settings.heartbeat_interval)
            return await opening
        finally:
            if not opening.done():
                opening.cancel()
                with suppress(asyncio.CancelledError):
                    await opening

    async def write(self, request: web.Request, response: web.StreamResponse, data: bytes) -> None:
        """Write, within EXP_RESP_TIMEOUT: whoever does not read must not hold its slot for ever."""
        if goes_at_once(request, data):
            return await write(request, response, data)
        try:
            async with asyncio.timeout(self._settings.exp_resp_timeout):
                await write(request, response, data)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the caller did not read") from None

    @asynccontextmanager
    async def unbroken(
        self, dialect: Dialect, request: web.Request, response: web.StreamResponse
    ) -> AsyncIterator[None]:
        """Before the 200 a failure leaves as it is; after it the answer ends as the dialect lets it."""
        try:
            yield
        except ConnectionError:
            request[NOTE].has_left = True  # while it was written to
        except Exception as error:
            if not response.prepared:
                raise
            failure = self._explain(request, error)
            log.warning("request %s: its stream broke: %s", request[NOTE].id, failure)
            await break_off(dialect, request, response, failure)

    def _takes_102(self, request: web.Request) -> bool:
        return self._settings.heartbeat_102 == "auto" and takes_102(request)

    def beating(self, request: web.Request) -> AbstractContextManager[None]:
        """Keep a client that is known to skip 102s alive while the block runs."""
        transport = request.transport
        return self._heartbeat.alive(transport) if transport and self._takes_102(request) else NOTHING


def in_line(request: web.Request) -> tuple[Line, Enrolled]:
    """The line in which it is enrolled, and itself there."""
    note = request[NOTE]
    assert note.lane is not None and note.enrolled is not None
    return note.lane.line, note.enrolled


async def rest(chunks: AsyncGenerator[Chunk, None]) -> bytes:
    """What remains of a raw answer."""
    return b"".join([cast(bytes, piece) async for piece in chunks])


def headers(request: web.Request, more: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer: its id, its story in the line, the lane's limits, and `more`."""
    note = request[NOTE]
    told = {"X-Request-ID": note.id, "Server": SERVER}
    if note.lane is not None and (enrolled := note.enrolled) is not None:
        told["X-Queue-Wait-Ms"] = str(round(enrolled.waited * 1000))
        told["X-Queue-Position"] = str(enrolled.position)
        told.update(note.lane.line.state().rate_limit_headers())
        told.update(enrolled.noted)
    told.update(more)
    return told


def raw_headers(request: web.Request, theirs: Headers) -> CIMultiDict[str]:
    """The same for a raw answer; where the API and we use one name, however it is written, the API's counts."""
    told = CIMultiDict(headers(request, {}))
    told.update(theirs)
    return told


async def begin(request: web.Request, response: web.StreamResponse, told: Mapping[str, str]) -> None:
    """Write the head, if it is not out yet."""
    if not response.prepared:
        response.headers.update(told)
        await response.prepare(request)


async def write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    request[NOTE].hear(data)
    await response.write(data)


def goes_at_once(request: web.Request, data: bytes) -> bool:
    """Whether it can be written without waiting for the caller to read; a time-out for each chunk is not nothing."""
    transport = request.transport
    return transport is not None and not transport.get_write_buffer_size() and len(data) <= AT_ONCE


def progress(request: web.Request) -> str:
    """What a person who looks at the raw stream reads while it waits."""
    return where(request[NOTE])


def where(note: Note) -> str:
    """Where a request waits, in words."""
    if note.lane is None or note.enrolled is None:
        return "fetching what is attached"  # no call of it is in line yet
    place = note.lane.line.place(note.enrolled)
    if not place:
        return "in flight"
    eta = eta_at(note.lane.line, place)
    return f"queued position={place} eta={'unknown' if eta is None else f'{eta:.1f}'}"


async def break_off(dialect: Dialect, request: web.Request, response: web.StreamResponse, failure: ProxyError) -> None:
    request[NOTE].failed(failure)
    event = dialect.error_event(failure)
    if event is None:
        cut(request)
    else:
        with suppress(ConnectionError):  # the caller may have left by now
            await write(request, response, event)


def cut(request: web.Request) -> None:
    """Break the connection off, so that nobody takes what was sent for the whole answer."""
    transport = request.transport
    if transport is None:
        return
    if request.version >= HttpVersion11:
        transport.close()  # what was sent still arrives, without the chunk that would end it
    else:
        # In HTTP/1.0 a close is a regular end; only a reset tells.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def note_model(request: web.Request, chunk: Chunk | None) -> None:
    """The model that answers, if the caller named none."""
    if not request[NOTE].model and chunk is not None:
        request[NOTE].model = model_of(orjson.loads(chunk) if isinstance(chunk, bytes) else chunk)


def model_of(said: object) -> str:
    """The model that parameters or an answer name; "" if they name none."""
    model = said.get("model") if isinstance(said, dict) else None
    return model if isinstance(model, str) else ""
