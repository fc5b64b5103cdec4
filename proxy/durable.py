"""Requests that may outlive their caller: what stands around the operations that can be jobs."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

PREFER = "Prefer"
KEY = "Idempotency-Key"
#: What of RFC 7240 is done here.
RESPOND_ASYNC = "respond-async"

Choose = Callable[[web.Request], Handler]


class Once(Protocol):
    """`Idempotency`."""

    async def serve(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """Serve a request that has an Idempotency-Key as the first with that key was served."""


class Kept(partial[Awaitable[web.StreamResponse]]):
    """An operation whose requests may become jobs."""


class Choice(partial[Awaitable[web.StreamResponse]]):
    """Operations of which a request gets one, by what it says of itself. Make it by `choice`."""

    def of(self, request: web.Request) -> Handler:
        choose: Choose = self.args[0]
        return choose(request)


def choice(choose: Choose) -> Choice:
    async def serve(choose: Choose, request: web.Request) -> web.StreamResponse:
        return await choose(request)(request)

    return Choice(serve, choose)


class Durable:
    """Serves requests as their headers ask: now, as a job, or once however often they come.

    Forms are served now in any case: they bring files along, and those outlive their caller anyway.
    """

    def __init__(self, accept: Handler, once: Once | None = None) -> None:
        self._accept = accept
        self._once = once

    def operation(self, handler: Handler, request: web.Request) -> Handler:
        """What serves this request. A plain function: a coroutine more would weigh on each of thousands who wait."""
        handler, told = chosen(handler, request), request.headers
        if (PREFER in told or KEY in told) and request.method == "POST" and is_kept(handler) and not is_form(request):
            if prefers_a_job(request):
                return self._accept
            if KEY in told and self._once is not None:
                return partial(self._once.serve, handler)
        return handler


def chosen(handler: Handler, request: web.Request) -> Handler:
    """The operation that this request gets."""
    while isinstance(handler, Choice):
        handler = handler.of(request)
    return handler


def is_kept(handler: Handler) -> bool:
    return isinstance(handler, Kept)


def is_form(request: web.Request) -> bool:
    return request.content_type.startswith("multipart/")


def prefers_a_job(request: web.Request) -> bool:
    """Whether `respond-async` is among its preferences; they may have values and parameters, and fill many headers."""
    words = ",".join(request.headers.getall(PREFER, ())).split(",")
    return any(word.partition(";")[0].strip().lower() == RESPOND_ASYNC for word in words)
