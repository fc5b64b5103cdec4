"""The HTTP edge: reads a call, sends it past the limits, writes its answer, records all of it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from emulator import control
from emulator.answers import Answer, Stream
from emulator.calls import Call
from emulator.connection import Connection
from emulator.errors import ApiError
from emulator.faults import Cut, suffer
from emulator.oauth import caller
from emulator.routes import Endpoint, find
from emulator.state import State

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What the real edge puts on every answer.
USUAL_HEADERS = {
    "Server": "SynGX",
    "Allow": "GET, POST",
    "Keep-Alive": "timeout=15",
    "Access-Control-Allow-Origin": "https://beta.saluteai.sberdevices.ru",
}

logger = logging.getLogger("emulator")


class Edge:
    """Serves requests from one state."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request and record it; requests to `/_emulator` are answered unrecorded."""
        arrived_ns = getattr(request.protocol, "arrived_ns", 0) or time.monotonic_ns()
        if request.raw_path.startswith(control.PREFIX):
            return await self._control(request)
        call = self.state.calls.open(request.method, request.raw_path, request.headers, arrived_ns)
        try:
            return await self._serve(request, call)
        except asyncio.CancelledError:
            call.disconnected = True
            raise
        except ConnectionError:
            call.disconnected = True
            return hung_up(request)
        finally:
            call.finished_ns = time.monotonic_ns()
            logger.info("%s %s %d, in flight %d", call.method, call.path, call.status, call.in_flight)

    async def _control(self, request: web.BaseRequest) -> web.Response:
        body = await read(request)
        action = f"{request.method} {request.path}"
        answer = control.answer(self.state, action, request.query, body, request.remote)
        return web.Response(body=answer.body, status=answer.status, headers={"Content-Type": answer.content_type})

    async def _serve(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        endpoint = find(call)
        call.certificate = certificate(request)
        with self._admitted(call, endpoint) as refusal:
            self.state.calls.keep_body(call, await read(request))
            try:
                answer = refusal.answer if refusal else await self._answer(call, endpoint)
            except Cut:
                return hung_up(request)
            # A stream holds its place until its last byte, a plain answer until it is ready.
            if isinstance(answer, Stream):
                return await self._write_stream(request, call, answer)
        return await write(request, call, answer)

    @contextmanager
    def _admitted(self, call: Call, endpoint: Endpoint) -> Iterator[ApiError | None]:
        """Check the caller, then the limits. Yields the refusal, if any, because the body is to be read first."""
        try:
            call.account = "" if endpoint.is_open else caller(self.state, call)
        except ApiError as refusal:
            yield refusal
            return
        if not endpoint.is_generation:
            yield None
            return
        with self.state.accounts.entered(call, self.state.options) as is_accepted:
            yield None if is_accepted else ApiError(429)

    async def _answer(self, call: Call, endpoint: Endpoint) -> Answer | Stream:
        fault = self.state.faults.take(call.path)
        if fault is None:
            return await self._compose(call, endpoint)
        call.fault = fault.kind
        return await suffer(fault, call, self.state.tokens, lambda: self._compose(call, endpoint))

    async def _compose(self, call: Call, endpoint: Endpoint) -> Answer | Stream:
        try:
            answer = endpoint.answer(self.state, call)
        except ApiError as refusal:
            return refusal.answer
        except Exception:
            logger.exception("%s %s", call.method, call.path)
            return ApiError(500).answer
        if endpoint.is_generation and isinstance(answer, Answer):
            await self._think()
        return answer

    async def _think(self) -> None:
        options = self.state.options
        seconds = options.latency + options.latency_jitter * self.state.random.random()
        if seconds:
            await asyncio.sleep(seconds)

    async def _write_stream(self, request: web.BaseRequest, call: Call, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(status=stream.status, headers=headers(call, stream.content_type))
        call.status = stream.status
        delay = self.state.options.chunk_delay if stream.delay is None else stream.delay
        delay = max(delay, stream.interval)
        await asyncio.sleep(delay)
        await response.prepare(request)
        for number, chunk in enumerate(stream.chunks):
            if number:
                await asyncio.sleep(delay)
            await response.write(chunk)
        if stream.cut:
            return hung_up(request)
        await response.write_eof()
        return response


async def write(request: web.BaseRequest, call: Call, answer: Answer) -> web.Response:
    """Write a whole answer here and now, so that the record knows when it was out."""
    names = headers(call, answer.content_type) | answer.headers
    response = web.Response(body=answer.body, status=answer.status, headers=names)
    call.status = answer.status
    await response.prepare(request)
    await response.write_eof()
    return response


async def read(request: web.BaseRequest) -> bytes:
    """The whole body, however it comes."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(CONTINUE)
        request.writer.output_size = 0
    body = await request.content.read()
    # Later bytes on this connection are the next request.
    if isinstance(request.protocol, Connection):
        request.protocol.arrived_ns = 0
    return body


def hung_up(request: web.BaseRequest) -> web.Response:
    """Close the connection. What aiohttp makes of the response that it wants goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def headers(call: Call, content_type: str) -> dict[str, str]:
    return {
        **USUAL_HEADERS,
        "Content-Type": content_type,
        "X-Request-Id": call.headers.get("X-Request-ID") or str(uuid.uuid4()),
        "X-Session-Id": call.headers.get("X-Session-ID") or str(uuid.uuid4()),
    }


def certificate(request: web.BaseRequest) -> str:
    """The common name in the caller's certificate, if the TLS handshake verified one."""
    verified = request.transport.get_extra_info("peercert") if request.transport else None
    if not verified:
        return ""
    names = dict(pair for group in verified["subject"] for pair in group)
    return str(names.get("commonName", "nameless"))
