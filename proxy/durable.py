"""Requests that may outlive their caller: what stands around the operations that can be jobs."""

from functools import partial
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

PREFER = "Prefer"
KEY = "Idempotency-Key"
#: What of RFC 7240 is done here.
RESPOND_ASYNC = "respond-async"


class Once(Protocol):
    """`Idempotency`."""

    async def serve(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Serve a request that has an Idempotency-Key as the first with that key was served."""


class Durable:
    """Serves requests as their headers ask: now, as a job, or once however often they come.

    Forms are served now in any case: they bring files along, and those outlive their caller anyway.
    """

    def __init__(self, accept: Handler, once: Once | None = None) -> None:
        self._accept = accept
        self._once = once

    def kept(self, handler: Handler) -> Handler:
        """The same operation, whose requests may become jobs."""
        return partial(self.serve, handler)

    async def serve(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """A request for this operation."""
        told = request.headers
        if (PREFER in told or KEY in told) and request.method == "POST" and not is_form(request):
            if prefers_a_job(request):
                return await self._accept(request)
            if KEY in told and self._once is not None:
                return await self._once.serve(handler, request)
        return await handler(request)


def is_kept(handler: object) -> bool:
    """Whether requests for this operation may become jobs; if it chooses among some, then for all of them."""
    if not isinstance(handler, partial) or not handler.args:
        return False
    return getattr(handler.func, "__func__", None) is Durable.serve or all(map(is_kept, handler.args))


def is_form(request: web.Request) -> bool:
    return request.content_type.startswith("multipart/")


def prefers_a_job(request: web.Request) -> bool:
    """Whether `respond-async` is among its preferences; they may have values and parameters, and fill many headers."""
    words = ",".join(request.headers.getall(PREFER, ())).split(",")
    return any(word.partition(";")[0].strip().lower() == RESPOND_ASYNC for word in words)
