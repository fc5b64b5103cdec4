"""Pages for people: files of a folder, read at the start, told to browsers with what they may do, once to each."""

import mimetypes
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from proxy.delivery import headers
from proxy.errors import NotFound

INDEX = "index.html"
#: What a page may do: nothing but what this service serves, and nobody may show it in a frame.
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


class Page(NamedTuple):
    """A file as it is served."""

    body: bytes
    type: str
    tag: str

    @classmethod
    def of(cls, body: bytes, type: str) -> "Page":
        return cls(body, type, blake2b(body, digest_size=12).hexdigest())

    @classmethod
    def at(cls, path: Path) -> "Page":
        kind = mimetypes.guess_type(path.name)[0] or "text/plain"
        charset = "; charset=utf-8" if kind.startswith("text/") or kind.endswith("javascript") else ""
        return cls.of(path.read_bytes(), kind + charset)


class Pages:
    """Those of one folder.

    Args:
        policy: its Content-Security-Policy.
    """

    def __init__(self, folder: Path, policy: str = POLICY) -> None:
        self._pages = {path.relative_to(folder).as_posix(): Page.at(path) for path in folder.rglob("*.*")}
        self._policy = policy

    def shown(self, request: web.Request) -> web.Response:
        """The file that the path names, the index if it names none. Raises NotFound."""
        page = self._pages.get(request.match_info.get("file") or INDEX)
        if page is None:
            raise NotFound(f"there is nothing at {request.path}")
        return shown(request, page, self._policy)


def shown(request: web.Request, page: Page, policy: str = POLICY) -> web.Response:
    """The page, or that it is the one that the browser has."""
    told = headers(
        request,
        {
            "Content-Type": page.type,
            "ETag": f'"{page.tag}"',
            "Cache-Control": "no-cache",
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        },
    )
    # A proxy that compresses makes the tag a weak one, and the browser may have several versions.
    if any(known.value in (page.tag, "*") for known in request.if_none_match or ()):
        return web.Response(status=304, headers=told)
    return web.Response(body=page.body, headers=told)
