"""The API behind a connector while it is checked: it says what the script says, and remembers who asked what.

Rule 1: it lives in a thread with a loop of its own, so that a connector that blocks its loop cannot block the API too.
Rule 2: nothing here waits for ever: who is kept waiting is cut off after HOLD_LIMIT seconds.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any, TypeVar

from aiohttp import web

from conformance.declaration import Declaration

Result = TypeVar("Result")

#: Seconds after which a call that is held is cut off; more than the patience of whoever looks at it.
HOLD_LIMIT = 2.5
#: Seconds for which the script waits for other calls to come.
GATHER_LIMIT = 1.0


@dataclass(eq=False)
class Call:
    """A call as it came, and what has become of it."""

    path: str
    body: bytes
    #: Its caller is gone before the answer's end.
    is_gone: bool = False
    is_over: bool = False
    #: It waited in vain for others to come: see `gathers`.
    was_alone: bool = False
    #: Lets it go on, if the script holds it. Belongs to the API's own loop.
    released: asyncio.Event = field(default_factory=asyncio.Event)


Script = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]


class ScriptedApi:
    """`with api:` it listens; `with api.script(...):` it does something else than answer."""

    def __init__(self, declared: Declaration) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self._also = declared.also
        self._usual = self._script = says(200, declared.answer)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="scripted API", daemon=True)
        self._thread.start()
        self._server = self._do(self._made())
        self._listener: asyncio.Server | None = None
        self._port = 0

    def __enter__(self) -> "ScriptedApi":
        self._do(self._listen())
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        return len(self._server.connections)

    @contextmanager
    def script(self, script: Script | None = None) -> Iterator[list[Call]]:
        """What the API does in this block (as usual: answer); the calls that came meanwhile. Lets go who is held."""
        self._script = script or self._usual
        self.calls = []
        try:
            yield self.calls
        finally:
            self._script = self._usual
            self.release()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens in this block."""
        self._do(self._close())
        try:
            yield
        finally:
            self._do(self._listen())

    def release(self) -> None:
        for call in self.calls:
            self._loop.call_soon_threadsafe(call.released.set)

    def _do(self, what: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(HOLD_LIMIT)

    async def _made(self) -> web.Server:
        """A server belongs to the loop in which it is made."""
        return web.Server(self._serve, handler_cancellation=True, access_log=None)

    async def _listen(self) -> None:
        self._listener = await self._loop.create_server(self._server, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    async def _stop(self) -> None:
        await self._close()
        self._server.pre_shutdown()
        await self._server.shutdown(0.1)

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in self._also:
            return web.json_response(self._also[request.path])
        call = Call(request.path, await request.read())
        script = self._script
        self.calls.append(call)
        try:
            async with asyncio.timeout(HOLD_LIMIT):
                return await script(request, call)
        except TimeoutError:
            return cut(request)
        except ConnectionError:
            call.is_gone = True
            return cut(request)
        except asyncio.CancelledError:
            call.is_gone = True
            raise
        finally:
            call.is_over = True


# ---- What it can do ----


def says(status: int, body: object, headers: Mapping[str, str] | None = None) -> Script:
    """Answer with this status; a body of `bytes` is HTML, any other JSON."""
    is_page = isinstance(body, bytes)
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()

    async def script(_: web.BaseRequest, __: Call) -> web.StreamResponse:
        kind = "text/html" if is_page else "application/json"
        return web.Response(status=status, body=data, headers={"Content-Type": kind, **(headers or {})})

    return script


async def stalls(request: web.BaseRequest, call: Call) -> web.StreamResponse:
    """Say nothing until released; then break the connection."""
    await call.released.wait()
    return cut(request)


async def cuts(request: web.BaseRequest, _: Call) -> web.StreamResponse:
    return cut(request)


async def breaks_off(request: web.BaseRequest, _: Call) -> web.StreamResponse:
    """Break the connection in the middle of an answer."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    return cut(request, response)


def gathers(number: int, then: Script) -> Script:
    """Answer nobody until so many have come, or GATHER_LIMIT is over."""
    come: list[Call] = []

    async def script(request: web.BaseRequest, call: Call) -> web.StreamResponse:
        come.append(call)
        if len(come) >= number:
            for earlier in come:
                earlier.released.set()
        try:
            await asyncio.wait_for(call.released.wait(), GATHER_LIMIT)
        except TimeoutError:
            call.was_alone = True
            come.extend([call] * number)  # nobody else has to wait
        return await then(request, call)

    return script


def streams(chunks: list[Any], *, held_after: int | None = None, cut_after: int | None = None) -> Script:
    """Stream the chunks; stop after so many until released, or break the connection there."""
    is_raw = all(isinstance(chunk, str) for chunk in chunks)
    pieces = [chunk.encode() if is_raw else b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]

    async def script(request: web.BaseRequest, call: Call) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, piece in enumerate(pieces):
            if number == cut_after:
                await asyncio.sleep(0.05)  # what has been written must be read before the connection breaks
                return cut(request, response)
            if number == held_after:
                await call.released.wait()
            await response.write(piece)
        if not is_raw:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    return script


def cut(request: web.BaseRequest, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response()
