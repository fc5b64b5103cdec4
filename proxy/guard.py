"""The middleware around every request: its id, its failure in its caller's dialect, and its entry when it is over."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from random import getrandbits
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from proxy.browsers import Browsers
from proxy.callers import Callers
from proxy.delivery import JSON_TYPE, headers
from proxy.dialects import Dialect
from proxy.entry import NOTE, REQUEST_ID, Entry, Note
from proxy.errors import BadRequest, BodyTooLarge, MethodNotAllowed, NotFound, ProxyError, Stopping, Unauthorized

log = logging.getLogger("proxy.guard")

#: The bits of a UUID that say what it is, and what they say in one of version 4 (RFC 9562).
NOT_CHANCE = 0xF << 76 | 0x3 << 62
VERSION_4 = 0x4 << 76 | 0x2 << 62

Listener = Callable[[Entry], None]


class Over:
    """Tells of a request when its task is over. A class, since thousands wait: a `partial` of a method weighs more."""

    __slots__ = ("_guard", "_request")

    def __init__(self, guard: "Guard", request: web.Request) -> None:
        self._guard = guard
        self._request = request

    def __call__(self, served: "asyncio.Task[Any]") -> None:
        self._guard._tell(self._request, served)


class Guard:
    """Nothing leaves the service but through here, and nothing comes in.

    Args:
        dialect_for: in which dialect a failure of a request is told.
        listeners: told the entry of each request when it is over; they must not block.
    """

    def __init__(
        self,
        dialect_for: Callable[[web.Request], Dialect],
        callers: Callers,
        browsers: Browsers,
        *,
        listeners: Sequence[Listener] = (),
        keeps_bodies: bool = False,
    ) -> None:
        self._dialect_for = dialect_for
        self._callers = callers
        self._browsers = browsers
        self._listeners = listeners
        self._keeps_bodies = keeps_bodies
        self._context = Context()

    def middleware(self, operation: Callable[[Handler, web.Request], Handler]) -> Middleware:
        """It goes around every request. `operation` says what serves a request that a handler was found for."""

        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.note(request, id_of(request))
            self._listen(request)
            try:
                response = self._browsers.admit(request) or await operation(handler, request)(request)
            except Exception as error:
                response = self._refused(request, error)
            return self._noted(request, response)

        return web.middleware(guarded)

    def note(self, request: web.Request, id: str) -> Note:
        """What is known of a request as it comes."""
        note = request[NOTE] = Note(id, self._dialect_for(request).name, self._keeps_bodies)
        return note

    # Twice the same few lines: thousands wait inside of them, and a coroutine that both called would weigh half a KB.
    async def within(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The same for a request that comes from within, in a task of its own; `note` was taken of it."""
        self._listen(request)
        try:
            response = await handler(request)
        except Exception as error:
            response = self._refused(request, error)
        return self._noted(request, response)

    def _listen(self, request: web.Request) -> None:
        """Tell of it when it is over: each runs in a task of its own, which ends with the answer's last byte."""
        if self._listeners and (task := asyncio.current_task()) is not None:
            # One context for all, as each would get a copy of its own.
            task.add_done_callback(Over(self, request), context=self._context)

    def _refused(self, request: web.Request, error: Exception) -> web.Response:
        note, failure = request[NOTE], explained(request, error)
        note.failed(failure)
        if failure.status in (401, 403) and note.lane is None:
            log.warning("request %s of %s: %d %s", note.id, request.remote, failure.status, failure)
        return refusal(self._dialect_for(request), request, failure)

    def _noted(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        note = request[NOTE]
        if note.status is None:
            note.status = response.status
        if isinstance(response, web.Response) and isinstance(response.body, bytes):
            note.hear(response.body)
        return response

    def _tell(self, request: web.Request, served: "asyncio.Task[Any]") -> None:
        note = request[NOTE]
        note.has_left = note.has_left or served.cancelled()
        if not note.caller:  # refused before anybody asked
            with suppress(Unauthorized):
                note.caller = self._callers.name(request)
        entry = note.entry(request)
        for listener in self._listeners:
            try:
                listener(entry)
            except Exception:
                log.exception("a listener failed")


def id_of(request: web.Request) -> str:
    """The caller's own X-Request-ID, or one of ours."""
    own = request.headers.get("X-Request-ID")
    return own if own is not None and REQUEST_ID.fullmatch(own) else new_id()


def new_id() -> str:
    """A UUID of version 4, from this process's own chance: an id is no secret, and `uuid4` takes four times as long."""
    digits = f"{getrandbits(128) & ~NOT_CHANCE | VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def explained(request: web.Request, error: Exception) -> ProxyError:
    """What is told of this error; a bug of ours is told to the log alone."""
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, web.HTTPException):
        return of_http(error, request)
    if isinstance(error, web.RequestPayloadError | HttpProcessingError):
        return BadRequest("the body cannot be read: it breaks off, or is not encoded as its headers say")
    log.error("request %s: a bug in the proxy", request[NOTE].id, exc_info=error)
    return ProxyError(f"internal error; the log tells more of request {request[NOTE].id}")


def of_http(error: web.HTTPException, request: web.Request) -> ProxyError:
    """The server library's own refusals, as ours."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.path} does not take {request.method}, it takes {allowed}", allowed=allowed)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return BodyTooLarge()
    if error.status == 404:
        return NotFound(f"there is nothing at {request.path}")
    failure = BadRequest(error.reason)
    failure.status = error.status
    return failure


def refusal(dialect: Dialect, request: web.Request, error: ProxyError) -> web.Response:
    """An error answer."""
    told = headers(request, {"Content-Type": JSON_TYPE, **error.headers})
    if error.retry_after is not None:
        told["Retry-After"] = str(math.ceil(error.retry_after))
    response = web.Response(status=error.status, body=dialect.error(error), headers=told)
    if isinstance(error, Stopping):
        response.force_close()
    return response
