"""Listening: the application, and a server that is up for the length of a `with`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from emulator.connection import Connection
from emulator.edge import Edge
from emulator.options import Options
from emulator.state import State

STATE = web.AppKey("state", State)
BACKLOG = 4096
STOP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator: where it is, and what it remembers."""

    url: str
    port: int
    state: State


def create_app(options: Options | None = None) -> web.Application:
    """The emulator as an application for a runner of your own; its state is `app[STATE]`.

    `start` is the more exact way: it notes arrivals at the socket, and stops serving callers that have left.
    """
    state = State(options or Options())
    app = web.Application()
    app[STATE] = state
    app.router.add_route("*", "/{path:.*}", Edge(state).serve)
    return app


@asynccontextmanager
async def start(
    options: Options | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Emulator]:
    """An emulator that answers while the `async with` lasts. Port 0 takes a free one."""
    state = State(options or Options())
    context = ssl_context or tls(state.options)
    server = web.Server(Edge(state).serve, handler_cancellation=True)
    listener = await asyncio.get_running_loop().create_server(
        lambda: Connection(server, state.options.keepalive), host, port, ssl=context, backlog=BACKLOG
    )
    try:
        real_port = listener.sockets[0].getsockname()[1]
        yield Emulator(f"{'https' if context else 'http'}://{bracketed(host)}:{real_port}", real_port, state)
    finally:
        listener.close()
        server.pre_shutdown()
        await server.shutdown(STOP_SECONDS)
        await listener.wait_closed()


def tls(options: Options) -> ssl.SSLContext | None:
    """The server's side of TLS, if the options name a certificate; a client's certificate is optional."""
    if not options.tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.tls_cert, options.tls_key or None)
    if options.client_ca:
        context.load_verify_locations(options.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
