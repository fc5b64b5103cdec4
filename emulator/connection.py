"""A connection that notes when a request began to arrive."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web


class Connection(web.RequestHandler):
    """`arrived_ns` is the time of the first bytes since it was last set to 0.

    It is taken here, and not where the request is served, because between the two lie up to two
    turns of the event loop, and with them whatever else the loop had to do.
    """

    arrived_ns = 0

    def __init__(self, server: web.Server, keepalive: float) -> None:
        loop = asyncio.get_running_loop()
        # aiohttp takes None for "no access log"; its annotation does not say so.
        super().__init__(server, loop=loop, keepalive_timeout=keepalive, access_log=None)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        if not self.arrived_ns:
            self.arrived_ns = time.monotonic_ns()
        super().data_received(data)
