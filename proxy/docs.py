"""The description of the service, `/openapi.json`, and the page that shows it, `/docs`. Both are for anybody."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import orjson
from aiohttp import web

from proxy.dashboard import INDEX, SHOWN, Page, page_of
from proxy.delivery import headers
from proxy.entry import NOTE
from proxy.errors import NotFound
from proxy.openapi import About, document, routes_of

#: What the page may do besides what the dashboard may: its style sheet holds its pictures.
POLICY = f"{SHOWN['Content-Security-Policy']}; img-src 'self' data:"
SHOWN_HERE = {**SHOWN, "Content-Security-Policy": POLICY}


class Docs:
    """Serves them.

    Args:
        folder: where the page's files are.
    """

    def __init__(self, folder: Path, about: About) -> None:
        self._about = about
        self._pages = {path.relative_to(folder).as_posix(): page_of(path) for path in folder.rglob("*.*")}
        self._description = Page(b"{}", "", "")

    def describe(self, routes: Iterable[web.RouteDef]) -> None:
        """These are served."""
        body = orjson.dumps(document(self._about, routes_of(routes)))
        tag = blake2b(body, digest_size=12).hexdigest()
        self._description = Page(body, "application/json", f'"{tag}"')

    async def description(self, request: web.Request) -> web.Response:
        """GET /openapi.json."""
        return shown(request, self._description)

    async def page(self, request: web.Request) -> web.Response:
        """GET /docs and its files."""
        page = self._pages.get(request.match_info.get("file") or INDEX)
        if page is None:
            raise NotFound(f"there is nothing at {request.path}")
        return shown(request, page)


def shown(request: web.Request, page: Page) -> web.Response:
    """The page, or that it is the one that the browser has."""
    request[NOTE].operation = "docs"
    told = headers(request, {**SHOWN_HERE, "Content-Type": page.type, "ETag": page.tag, "Cache-Control": "no-cache"})
    if request.headers.get("If-None-Match") == page.tag:
        return web.Response(status=304, headers=told)
    return web.Response(body=page.body, headers=told)
