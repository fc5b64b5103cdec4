"""The description of the service, `/openapi.json`, and the page that shows it, `/docs`. Both are for anybody."""

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from aiohttp import web

from proxy.dashboard import INDEX, SHOWN, Page, page_of
from proxy.delivery import headers
from proxy.entry import NOTE
from proxy.errors import NotFound
from proxy.threads import in_thread

#: What the page may do besides what the dashboard may: its style sheet holds its pictures.
POLICY = f"{SHOWN['Content-Security-Policy']}; img-src 'self' data:"
SHOWN_HERE = {**SHOWN, "Content-Security-Policy": POLICY}


class Docs:
    """Serves them.

    Args:
        folder: where the page's files are.
        describe: makes the description.
    """

    def __init__(self, folder: Path, describe: Callable[[], bytes]) -> None:
        self._describe = describe
        self._pages = {path.relative_to(folder).as_posix(): page_of(path) for path in folder.rglob("*.*")}
        self._making = asyncio.Lock()
        self._description: Page | None = None

    async def description(self, request: web.Request) -> web.Response:
        """GET /openapi.json. Made when it is asked for first, in a thread: it takes a tenth of a second."""
        async with self._making:
            if self._description is None:
                body = await in_thread(self._describe)
                self._description = Page(body, "application/json", f'"{blake2b(body, digest_size=12).hexdigest()}"')
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
