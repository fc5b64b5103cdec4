"""The dashboard: a page of files, and one stream of what happens, for all who look.

The page holds nothing of anybody's; who may see the stream is told by `admins`.
"""

import asyncio
from contextlib import aclosing
from pathlib import Path

from aiohttp import web

from proxy.admins import Admins
from proxy.delivery import EVENT_HEADERS, begin, headers
from proxy.entry import NOTE
from proxy.overview import Overview
from proxy.pages import Pages

#: Seconds that a tab may take for an event; whoever sleeps for longer opens the stream again when it wakes.
PATIENCE = 30.0


class Dashboard:
    """Serves it.

    Args:
        folder: where the page's files are.
    """

    def __init__(self, folder: Path, overview: Overview, admins: Admins) -> None:
        self._pages = Pages(folder)
        self._overview = overview
        self._admins = admins

    async def page(self, request: web.Request) -> web.Response:
        """GET /dashboard and its files."""
        request[NOTE].operation = "dashboard"
        return self._pages.shown(request)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /dashboard/events. Raises Unauthorized."""
        request[NOTE].operation = "dashboard"
        await self._admins.check(request)
        response = web.StreamResponse()
        await begin(request, response, headers(request, EVENT_HEADERS))
        if request.method == "HEAD":
            return response  # which has no body, and an end
        try:
            async with aclosing(self._overview.events()) as events:
                async for event in events:
                    async with asyncio.timeout(PATIENCE):
                        await response.write(event)
        except (ConnectionError, TimeoutError):
            request[NOTE].has_left = True
            if request.transport is not None:
                request.transport.abort()  # else what it did not take would be waited for
        return response
