"""The description of the service, `/openapi.json`, and the page that shows it, `/docs`. Both are for anybody."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from proxy.entry import NOTE
from proxy.pages import POLICY, Page, Pages, shown
from proxy.threads import in_thread

#: What the page may do besides what others may: its style sheet holds its pictures.
WITH_PICTURES = f"{POLICY}; img-src 'self' data:"


class Docs:
    """Serves them.

    Args:
        folder: where the page's files are.
        describe: makes the description.
    """

    def __init__(self, folder: Path, describe: Callable[[], bytes]) -> None:
        self._describe = describe
        self._pages = Pages(folder, WITH_PICTURES)
        self._making = asyncio.Lock()
        self._description: Page | None = None

    async def description(self, request: web.Request) -> web.Response:
        """GET /openapi.json. Made when it is asked for first, in a thread: it takes a tenth of a second."""
        request[NOTE].operation = "docs"
        async with self._making:
            if self._description is None:
                self._description = Page.of(await in_thread(self._describe), "application/json")
        return shown(request, self._description)

    async def page(self, request: web.Request) -> web.Response:
        """GET /docs and its files."""
        request[NOTE].operation = "docs"
        return self._pages.shown(request)
