"""Servers and names that callers make us look up and call; all of it is on this machine."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

#: A name that the servers here go by; nothing else on this machine may be reached.
HOST = "pictures.test"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 16


@dataclass
class Names:
    """A DNS. Each answer is used once, the last one for ever."""

    answers: dict[str, list[list[str]]] = field(default_factory=lambda: {HOST: [["127.0.0.1"]]})
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        left = self.answers.get(host)
        if not left:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return left.pop(0) if len(left) > 1 else left[0]


Says = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def saying(body: bytes = b"", type: str = "image/png", *, status: int = 200, **headers: str) -> Says:
    """The same whole answer each time."""

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"Content-Type": type, **headers})

    return says


async def never(request: web.BaseRequest) -> web.StreamResponse:
    """No answer at all."""
    await asyncio.Event().wait()
    raise AssertionError


@dataclass
class Server:
    """What callers name: `says` is how it answers, `asked` are the requests that reached it."""

    port: int = 0
    says: Says = field(default_factory=lambda: saying(PICTURE))
    asked: list[web.BaseRequest] = field(default_factory=list)
    #: Bytes that it could write before it was left.
    written: int = 0

    def url(self, host: str = HOST, path: str = "/cat.png", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        return await self.says(request)


@asynccontextmanager
async def a_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.serve, handler_cancellation=True), shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()
