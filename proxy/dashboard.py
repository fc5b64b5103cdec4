"""The dashboard: a page of files, and one stream of what happens, for all who look.

The page holds nothing of anybody's; who may see the stream is told by `admins`.
"""

import mimetypes
from contextlib import aclosing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from proxy.admins import Admins
from proxy.delivery import EVENT_HEADERS, begin, headers
from proxy.entry import NOTE
from proxy.errors import NotFound
from proxy.overview import Overview

INDEX = "index.html"
#: What the page may do: nothing but what this service serves, and nobody may show it in a frame.
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
SHOWN = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class Page(NamedTuple):
    """A file as it is served."""

    body: bytes
    type: str
    tag: str


class Dashboard:
    """Serves it.

    Args:
        folder: where the page's files are.
    """

    def __init__(self, folder: Path, overview: Overview, admins: Admins) -> None:
        self._pages = {path.relative_to(folder).as_posix(): page_of(path) for path in folder.rglob("*.*")}
        self._overview = overview
        self._admins = admins

    async def page(self, request: web.Request) -> web.Response:
        """GET /dashboard and its files."""
        request[NOTE].operation = "dashboard"
        page = self._pages.get(request.match_info.get("file") or INDEX)
        if page is None:
            raise NotFound(f"there is nothing at {request.path}")
        told = headers(request, {**SHOWN, "Content-Type": page.type, "ETag": page.tag, "Cache-Control": "no-cache"})
        if request.headers.get("If-None-Match") == page.tag:
            return web.Response(status=304, headers=told)
        return web.Response(body=page.body, headers=told)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /dashboard/events. Raises Unauthorized."""
        request[NOTE].operation = "dashboard"
        await self._admins.check(request)
        response = web.StreamResponse()
        await begin(request, response, headers(request, EVENT_HEADERS))
        try:
            async with aclosing(self._overview.events()) as events:
                async for event in events:
                    await response.write(event)
        except ConnectionError:
            request[NOTE].has_left = True
        return response


def page_of(path: Path) -> Page:
    body = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "text/plain"
    charset = "; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else ""
    return Page(body, kind + charset, f'"{blake2b(body, digest_size=12).hexdigest()}"')
