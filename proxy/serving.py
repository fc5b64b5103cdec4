"""The operations of the HTTP edge: who calls, what it asks, and its way into the line.

What is wrong with a request is told before it is queued; what is refused never costs a place in line. How the answer
is written is `delivery`'s, how a failure is told is `guard`'s.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from functools import partial
from typing import Any, cast

import orjson
from aiohttp import web

from proxy import passes
from proxy.callers import Callers, patience_of
from proxy.connector import Chunk, Connector
from proxy.delivery import JSON_TYPE, Delivery, headers, in_line, model_of
from proxy.dialects import Dialect
from proxy.dialects.native import Native
from proxy.entry import NOTE, Note
from proxy.errors import BadRequest, ProxyError
from proxy.forwarding import RawCall, checked_path, split_version, to_the_api
from proxy.lanes import Call, Lane, Priority
from proxy.settings import Settings

log = logging.getLogger("proxy.serving")

#: Headers of the caller that reach the API, besides the request's id.
PASSED_ON = ("X-Session-ID", "X-Client-ID")
PRIORITIES = {"high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}

#: Seconds for which the connector's word about itself serves, and that `GET /` waits in line for a fresh one.
INFO_AGE = 60.0
INFO_PATIENCE = 2.0


class Edge:
    """Serves requests of any dialect through a lane."""

    def __init__(self, settings: Settings, lane: Lane, callers: Callers, delivery: Delivery) -> None:
        self._settings = settings
        self._lane = lane
        self._callers = callers
        self._delivery = delivery
        self._info: dict[str, Any] = {}
        self._info_at = -math.inf

    # -- operations

    async def chat(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """A chat request: plain, or a stream if its parameters say so."""
        self._identify(request, "chat")
        is_stream, call = self._call(dialect, request[NOTE], await request.read())
        self._enrol(request, call)
        if is_stream:
            return await self._delivery.stream(dialect, request)
        line, enrolled = in_line(request)
        with self._delivery.beating(request):
            answer = await line.answer(enrolled)
        return self._delivery.plain(dialect, request, answer)

    async def forward(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """A request of the API's own, byte for byte. Its body is not validated."""
        self._identify(request, "forward")
        raw_path, _, query = request.raw_path.partition("?")
        version, path = split_version(checked_path(raw_path))
        body = await request.read() if request.can_read_body else None
        asked = self._note_asked(request[NOTE], body)
        call = RawCall(request.method, version, path, query, to_the_api(request.headers.items()), body)
        self._enrol(request, lambda connector: connector.forward(call))
        return await self._delivery.raw(dialect, request, is_stream=asked.get("stream") is True)

    async def token(self, dialect: Dialect, request: web.Request) -> web.Response:
        """An access token of the proxy's own making, for clients that ask for one before they call."""
        self._identify_by_credentials(request)
        name, key = request[NOTE].caller, self._callers.keys.get(request[NOTE].caller, "")
        token, ends = passes.issue(name, key, time.time())
        # The two shapes that the API has: of /oauth and of /token.
        is_oauth = request.path.rstrip("/").endswith("/oauth")
        body = {"access_token": token, "expires_at": ends} if is_oauth else {"tok": token, "exp": ends}
        return web.Response(body=orjson.dumps(body), headers=headers(request, {"Content-Type": JSON_TYPE}))

    async def info(self, dialect: Native, request: web.Request) -> web.Response:
        """What the connector says of itself, and the lane's limits and state."""
        self._identify(request, "info")
        info = {**await self._connector_info(), "connector": self._lane.connector.name}
        body = dialect.info({**info, "lane": self._lane.line.state().info(self._lane.name)})
        return web.Response(body=body, headers=headers(request, {"Content-Type": JSON_TYPE}))

    async def health(self, dialect: Dialect, request: web.Request) -> web.Response:
        """The process is alive."""
        request[NOTE].operation = "health"
        return web.Response(body=b'{"status":"ok"}', headers=headers(request, {"Content-Type": JSON_TYPE}))

    async def _connector_info(self) -> dict[str, Any]:
        """What the connector tells, at most INFO_AGE old.

        It takes its turn in line, for it may call its API; where that would take longer than INFO_PATIENCE, it is
        asked outside the line, where it tells what it knows.
        """
        now = asyncio.get_running_loop().time()
        line = self._lane.line
        if now - self._info_at <= INFO_AGE:
            return self._info
        if line.state().eta <= INFO_PATIENCE:
            turn = line.enrol(Connector.info, patience=INFO_PATIENCE, caller="proxy", priority=Priority.HIGH)
            try:
                self._info, self._info_at = cast("dict[str, Any]", await line.answer(turn)), now
                return self._info
            except ProxyError as error:
                log.info("what the connector tells is not to be had now: %s", error)
        return await self._lane.connector.info()

    # -- who, what, and into the line

    def _identify(self, request: web.Request, operation: str) -> None:
        """Note who calls and what for. Raises Unauthorized."""
        request[NOTE].operation = operation
        request[NOTE].caller = self._callers.name(request)

    def _identify_by_credentials(self, request: web.Request) -> None:
        """The same, from a token request, which has its own ways to carry a key. Raises Unauthorized."""
        request[NOTE].operation = "token"
        request[NOTE].caller = self._callers.name_by_credentials(request)

    def _call(self, dialect: Dialect, note: Note, body: bytes) -> tuple[bool, Call]:
        """Whether it is a stream, and what makes it. Raises BadRequest for what is wrong with it."""
        note.asked = body if note.keeps_bodies else None
        data = dialect.request(parsed(body))
        note.model = model_of(data["generate_parameters"])
        self._lane.connector.validate(data)
        is_stream = data["generate_parameters"].get("stream") is True
        # While it waits a request keeps its bytes alone: parsed they take three times the room.
        return is_stream, partial(answer_of, dialect, body, is_stream)

    def _note_asked(self, note: Note, body: bytes | None) -> dict[str, Any]:
        """What a forwarded body asks for, as far as it is a JSON object at all."""
        note.asked = body if note.keeps_bodies else None
        try:
            asked = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError:
            return {}
        note.model = model_of(asked)
        return asked if isinstance(asked, dict) else {}

    def _enrol(self, request: web.Request, call: Call) -> None:
        note, told = request[NOTE], request.headers
        note.lane = self._lane
        # Most callers send none, and a thousand empty dicts are not nothing.
        passed_on = {name: told[name] for name in PASSED_ON if name in told} or None
        note.enrolled = self._lane.line.enrol(
            call,
            id=note.id,
            patience=patience_of(told, self._settings.resp_timeout),
            caller=note.caller,
            client=told.get("X-Client-ID", ""),
            priority=self._priority(told),
            passed_on=passed_on,
        )

    def _priority(self, told: Mapping[str, str]) -> Priority:
        """X-Priority; high needs a key, since without keys everybody would be high."""
        word = told.get("X-Priority", "normal").strip().lower()
        if word not in PRIORITIES:
            raise BadRequest(
                f'the header X-Priority must be high, normal or low, not "{word[:40]}"', param="X-Priority"
            )
        priority = PRIORITIES[word]
        return Priority.NORMAL if priority is Priority.HIGH and not self._callers.keys else priority


def answer_of(
    dialect: Dialect, body: bytes, is_stream: bool, connector: Connector
) -> Awaitable[Chunk] | AsyncIterator[Chunk]:
    """One attempt at the call that a body asks for."""
    data = dialect.request(orjson.loads(body))
    return connector.stream(data) if is_stream else connector.request(data)


def parsed(body: bytes) -> object:
    """The JSON of a body. Raises BadRequest saying where it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {error}" if body else "the body is empty: send JSON") from None
