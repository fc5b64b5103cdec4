"""The HTTP edge: who calls, what it asks, its way through the line, and the answer or the error on the wire.

Rule 1: what is wrong with a request is told before it is queued; what is refused never costs a place in line.
Rule 2: a stream's 200 is written when its first chunk has come (or STREAM_EARLY_200 has passed), so that errors keep
        their real status.
Rule 3: every failure leaves here in the caller's dialect; a bug of ours is a 500 with the request's id, and its
        traceback goes to the log alone.
"""

import asyncio
import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from typing import Any, cast
from uuid import uuid4

import orjson
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from proxy import sse
from proxy.callers import Callers, patience_of
from proxy.connector import Chunk, Connector
from proxy.dialects import Dialect
from proxy.dialects.native import Native
from proxy.errors import BadRequest, BodyTooLarge, MethodNotAllowed, NotFound, ProxyError, Stopping
from proxy.heartbeat import Heartbeat, takes_102
from proxy.lanes import Call, Enrolled, Lane, LaneState, Priority
from proxy.settings import Settings

log = logging.getLogger("proxy.serving")

#: What an id of the caller's own must look like to be echoed and passed on.
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
#: Headers of the caller that reach the API, besides the request's id.
PASSED_ON = ("X-Session-ID", "X-Client-ID")
PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}

#: Seconds for which the connector's word about itself serves, and that `GET /` waits in line for a fresh one.
INFO_AGE = 60.0
INFO_PATIENCE = 2.0

JSON_TYPE = "application/json; charset=utf-8"
EVENT_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold the chunks back
}

ENROLLED = web.RequestKey("enrolled", Enrolled)
REQUEST_IDS = web.RequestKey("request_id", str)



class Edge:
    """Serves requests of any dialect through a lane."""

    def __init__(self, settings: Settings, lane: Lane, heartbeat: Heartbeat) -> None:
        keys = {name: key.get_secret_value() for name, key in settings.proxy_api_keys.items()}
        self._settings = settings
        self._lane = lane
        self._heartbeat = heartbeat
        self._callers = Callers(keys, settings.trusted_proxies)
        self._info: dict[str, Any] = {}
        self._info_at = -math.inf

    async def chat(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """A chat request: plain, or a stream if its parameters say so."""
        caller = self._callers.name(request)
        data = dialect.request(await json_body(request))
        self._lane.connector.validate(data)
        is_stream = data["generate_parameters"].get("stream") is True
        call: Call = (lambda connector: connector.stream(data)) if is_stream else (lambda c: c.request(data))
        enrolled = self._enrol(request, caller, call)
        serve = self._stream if is_stream else self._plain
        return await serve(dialect, request, enrolled)

    async def info(self, dialect: Native, request: web.Request) -> web.Response:
        """What the connector says of itself, and the lane's limits and state."""
        self._callers.name(request)
        info = {**await self._connector_info(), "connector": self._lane.connector.name}
        body = dialect.info({**info, "lane": lane_info(self._lane.name, self._lane.line.state())})
        return web.Response(body=body, headers=self._headers(request, {"Content-Type": JSON_TYPE}))

    async def health(self, dialect: Dialect, request: web.Request) -> web.Response:
        """The process is alive."""
        return web.Response(body=b'{"status":"ok"}', headers=self._headers(request, {"Content-Type": JSON_TYPE}))

    async def _connector_info(self) -> dict[str, Any]:
        """What the connector tells, at most INFO_AGE old.

        A connector that calls its API for it takes its turn in line; if that takes longer than INFO_PATIENCE, it is
        asked outside of it, where it tells what it knows.
        """
        now = asyncio.get_running_loop().time()
        if now - self._info_at > INFO_AGE:
            turn = self._lane.line.enrol(connector_info, patience=INFO_PATIENCE, caller="proxy", priority=Priority.HIGH)
            try:
                answer = await whole(self._lane.line.run(turn))
            except ProxyError:
                return await self._lane.connector.info()
            self._info, self._info_at = cast("dict[str, Any]", answer), now
        return self._info

    def _enrol(self, request: web.Request, caller: str, call: Call) -> Enrolled:
        headers = request.headers
        request_id = request[REQUEST_IDS]
        passed_on = {name: headers[name] for name in PASSED_ON if name in headers}
        enrolled = self._lane.line.enrol(
            call,
            id=request_id,
            patience=patience_of(headers, self._settings.resp_timeout),
            caller=caller,
            client=headers.get("X-Client-ID", ""),
            priority=self._priority(headers),
            passed_on={"X-Request-ID": request_id, **passed_on},
        )
        request[ENROLLED] = enrolled
        return enrolled

    def _priority(self, headers: Mapping[str, str]) -> Priority:
        """X-Priority; high needs a key, since without keys everybody would be high."""
        told = headers.get("X-Priority", "normal").strip().lower()
        if told not in PRIORITIES:
            raise BadRequest(
                f'the header X-Priority must be high, normal or low, not "{told[:40]}"', param="X-Priority"
            )
        priority = PRIORITIES[told]
        return Priority.NORMAL if priority is Priority.HIGH and not self._callers.has_keys else priority

    # -- answers

    async def _plain(self, dialect: Dialect, request: web.Request, enrolled: Enrolled) -> web.Response:
        with self._beating(request):
            answer = await whole(self._lane.line.run(enrolled))
        return web.Response(body=dialect.answer(answer), headers=self._headers(request, {"Content-Type": JSON_TYPE}))

    async def _stream(self, dialect: Dialect, request: web.Request, enrolled: Enrolled) -> web.StreamResponse:
        response = web.StreamResponse()
        async with aclosing(self._lane.line.run(enrolled)) as chunks:
            try:
                chunk = await self._first_chunk(request, response, enrolled, chunks)
                await self._begin(request, response)
                while chunk is not None:
                    await response.write(dialect.event(chunk))
                    chunk = await anext(chunks, None)
                await response.write(dialect.end)
            except ConnectionError:
                pass  # the caller left while it was written to
            except Exception as error:
                if not response.prepared:
                    raise
                await self._break_off(dialect, request, response, self._failure(request, error))
        return response

    async def _first_chunk(
        self,
        request: web.Request,
        response: web.StreamResponse,
        enrolled: Enrolled,
        chunks: AsyncGenerator[Chunk, None],
    ) -> Chunk | None:
        """Wait for it, keeping the client alive: by 102s, or by an early 200 and comments."""
        if self._takes_102(request):
            with self._beating(request):
                return await anext(chunks, None)
        opening = asyncio.ensure_future(anext(chunks, None))
        try:
            await asyncio.wait({opening}, timeout=self._settings.stream_early_200)
            while not opening.done():
                await self._begin(request, response)
                await response.write(sse.comment(self._progress(enrolled)))
                await asyncio.wait({opening}, timeout=self._settings.heartbeat_interval)
            return await opening
        finally:
            if not opening.done():
                opening.cancel()
                with suppress(asyncio.CancelledError):
                    await opening

    def _progress(self, enrolled: Enrolled) -> str:
        """What a person who looks at the raw stream reads while it waits."""
        place = self._lane.line.place(enrolled)
        if not place:
            return "in flight"
        return f"queued position={place} eta={self._lane.line.eta(place - 1):.1f}"

    async def _begin(self, request: web.Request, response: web.StreamResponse) -> None:
        if not response.prepared:
            response.headers.update(self._headers(request, EVENT_HEADERS))
            await response.prepare(request)

    async def _break_off(
        self, dialect: Dialect, request: web.Request, response: web.StreamResponse, error: ProxyError
    ) -> None:
        """End a stream whose 200 is out already: the dialect's error event, or a cut connection."""
        log.warning("request %s: its stream broke: %s", request[REQUEST_IDS], error)
        event = dialect.error_event(error)
        if event is not None:
            await response.write(event)
        elif request.transport is not None:
            # A body without its last chunk is seen to be broken off; HTTP/1.0 has no chunks, there only a reset tells.
            if request.version < HttpVersion11:
                request.transport.abort()
            else:
                request.transport.close()

    def _takes_102(self, request: web.Request) -> bool:
        return self._settings.heartbeat_102 == "auto" and takes_102(request)

    def _beating(self, request: web.Request) -> AbstractContextManager[None]:
        return self._heartbeat.alive(request.transport) if self._takes_102(request) else nullcontext()

    def _headers(self, request: web.Request, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"X-Request-ID": request[REQUEST_IDS], **more}
        enrolled = request.get(ENROLLED)
        if enrolled is not None:
            headers["X-Queue-Wait-Ms"] = str(round(enrolled.waited * 1000))
            headers["X-Queue-Position"] = str(enrolled.position)
            headers.update(rate_limit_headers(self._lane.line.state()))
        return headers

    # -- errors

    def guard(self, dialect_for: Callable[[web.Request], Dialect]) -> Middleware:
        """The middleware that gives each request its id and writes its failure in its caller's dialect."""

        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            own = request.headers.get("X-Request-ID", "")
            request[REQUEST_IDS] = own if REQUEST_ID.fullmatch(own) else str(uuid4())
            try:
                return await handler(request)
            except Exception as error:
                failure = self._failure(request, error)
            return self._refusal(dialect_for(request), request, failure)

        return web.middleware(guarded)

    def _failure(self, request: web.Request, error: Exception) -> ProxyError:
        """What is told of this error."""
        if isinstance(error, ProxyError):
            return error
        if isinstance(error, web.HTTPException):
            return of_http(error, request)
        log.error("request %s: a bug in the proxy", request[REQUEST_IDS], exc_info=error)
        return ProxyError(f"internal error; the log tells more of request {request[REQUEST_IDS]}")

    def _refusal(self, dialect: Dialect, request: web.Request, error: ProxyError) -> web.Response:
        headers = self._headers(request, {"Content-Type": JSON_TYPE, **error.headers})
        if error.retry_after is not None:
            headers["Retry-After"] = str(math.ceil(error.retry_after))
        response = web.Response(status=error.status, body=dialect.error(error), headers=headers)
        if isinstance(error, Stopping):
            response.force_close()
        return response


async def json_body(request: web.Request) -> object:
    """The parsed body. Raises BadRequest saying where it is no JSON, BodyTooLarge."""
    body = await request.read()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}" if body else "the body is empty: send JSON") from None


async def whole(chunks: AsyncGenerator[Chunk, None]) -> Chunk:
    """The only chunk of a plain answer."""
    async with aclosing(chunks):
        answers = [chunk async for chunk in chunks]
    return answers[0]


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


def rate_limit_headers(state: LaneState) -> dict[str, str]:
    """RateLimit and RateLimit-Policy (IETF draft): what the lane allows, and what of it is free for newcomers.

    For the pace, `r` is how many more requests would be sent within the next minute, `t` the seconds until a
    newcomer's is.
    """
    limits = state.limits
    after = math.ceil(state.eta)
    if limits.rpm is not None:
        free = max(0, int((60 - limits.next_send) / limits.interval) - state.waiting)
        return {
            "RateLimit-Policy": f'"pace";q={max(1, int(limits.rpm))};w={max(60, round(60 / limits.rpm))}',
            "RateLimit": f'"pace";r={free};t={after}',
        }
    if limits.allowed is not None:
        free = max(0, limits.allowed - limits.in_flight - state.waiting)
        return {
            "RateLimit-Policy": f'"in-flight";q={limits.concurrency};qu="concurrent-requests"',
            "RateLimit": f'"in-flight";r={free};t={after}',
        }
    free = state.size - state.waiting
    return {
        "RateLimit-Policy": f'"line";q={state.size};qu="concurrent-requests"',
        "RateLimit": f'"line";r={free};t={after}',
    }


def lane_info(name: str, state: LaneState) -> dict[str, Any]:
    """A lane for people: its limits as set, what holds just now, and who waits. Times in seconds."""
    limits = state.limits
    return {
        "name": name,
        "requests-a-minute": limits.rpm,
        "requests-in-flight-limit": limits.concurrency,
        "requests-in-flight-limit-now": limits.allowed,
        "in-flight": limits.in_flight,
        "waiting": state.waiting,
        "waiting-limit": state.size,
        "eta": round(state.eta, 3),
        "paused": round(limits.paused, 3),
        "mean-latency": None if state.mean_latency is None else round(state.mean_latency, 3),
        "stopping": state.is_stopping,
    }


async def connector_info(connector: Connector) -> AsyncIterator[Chunk]:
    """What a connector tells of itself, as a call for the line."""
    yield await connector.info()
