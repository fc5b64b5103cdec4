"""The operations of the HTTP edge: what is asked, and what is called for it.

Who asks is `reception`'s to know, how the answer is written is `delivery`'s, how a failure is told is `guard`'s.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from proxy import passes
from proxy.belongings import EVERYBODYS, Everybodys
from proxy.callers import Callers
from proxy.connector import Chunk, Connector, Data, closing
from proxy.delivery import Delivery, in_line, model_of, note_model
from proxy.dialects import ChatDialect, Dialect, Reply
from proxy.dialects.native import Native
from proxy.entry import NOTE, Note
from proxy.errors import BodyTooLarge, PassedRefused, UpstreamError
from proxy.forwarding import RawCall, checked_path, split_version, to_the_api
from proxy.info import Infos, RawModels
from proxy.lanes import Lanes
from proxy.reception import Reception, parsed

#: Bytes of the largest form of a token request: it says a scope, and whoever sends it need not be known.
LARGEST_FORM = 4096
#: Seconds that a token is said to last which has no end: the API's own live as long.
LONGEST_LIFE = 1800.0


class Edge:
    """Serves requests of any dialect through the lanes."""

    def __init__(
        self, lanes: Lanes, callers: Callers, reception: Reception, delivery: Delivery, belongings: Everybodys
    ) -> None:
        self._lanes = lanes
        self._callers = callers
        self._reception = reception
        self._delivery = delivery
        self._belongings = belongings
        self._infos = Infos()
        self._models = RawModels()

    # -- operations

    async def chat(self, dialect: ChatDialect, request: web.Request, *, upstream: str = "") -> web.StreamResponse:
        """A chat request: plain, or a stream if its parameters say so. `upstream` names a lane besides the main one."""
        self._reception.identify(request, "chat", upstream)
        body = await self._reception.body(request)
        asked = self._asked(dialect, request[NOTE], body)
        request[NOTE].passage = self.belongings_for(request).of_chat(request[NOTE].caller, body)
        enrolled = self._reception.enrol(request, asked, parsed=asked)
        line, _ = in_line(request)
        reply = dialect.reply(body)
        if asked.is_stream:
            return await self._delivery.stream(dialect, request, events_of(request, line.run(enrolled), reply))
        with self._delivery.beating(request):
            answer = await line.answer(enrolled)
        note_model(request, answer)
        return self._delivery.plain(request, reply.answer(answer))

    async def forward(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """A request of the API's own, byte for byte. Its body is not validated."""
        self._reception.identify(request, "forward")
        raw_path, _, query = request.raw_path.partition("?")
        version, path = split_version(checked_path(raw_path))
        body = await request.read() if request.can_read_body else None
        asked = self._note_asked(request[NOTE], body)
        call = RawCall(request.method, version, path, query, to_the_api(request.headers.items()), body)
        lane = self._reception.lane(request)
        if (known := self._models.recall(lane, call)) is not None:
            return self._delivery.again(request, known)
        passage = self.belongings_for(request).of_call(request[NOTE].caller, call, is_read=bool(asked))
        request[NOTE].passage = passage
        self._reception.enrol(request, partial(raw, call=call))
        is_stream = asked.get("stream") is True and not passage.is_whole
        answer = await self._delivery.raw(dialect, request, is_stream)
        self._models.remember(lane, call, answer)
        return answer

    async def token(self, dialect: Dialect, request: web.Request) -> web.Response:
        """An access token, for clients that ask for one before they call.

        Of the proxy's own making for whoever has a key of the proxy, the API's own for a credential of the API's.
        """
        note = request[NOTE]
        note.operation = "token"
        scope = scope_in(await form_of(request))
        note.caller, note.credential = self._callers.identify_for_token(request, scope)
        if note.credential is None:
            token, ends = passes.issue(note.caller, self._callers.keys.get(note.caller, ""), time.time())
        else:
            try:
                token, life = await self._lanes.issue_token(note.credential)
            except PassedRefused as refusal:
                return self._delivery.refused_token(request, refusal)
            ends = int((time.time() + min(life, LONGEST_LIFE)) * 1000)
        # The two shapes that the API has: of /oauth and of /token.
        is_oauth = request.path.rstrip("/").endswith("/oauth")
        body = {"access_token": token, "expires_at": ends} if is_oauth else {"tok": token, "exp": ends}
        return self._delivery.plain(request, orjson.dumps(body))

    async def info(self, dialect: Native, request: web.Request) -> web.Response:
        """What the connector says of itself, and the lane's limits and state."""
        self._reception.identify(request, "info")
        lane = self._reception.lane(request)
        info = {**await self._infos.of(lane, request[NOTE].trace.trail()), "connector": lane.connector.name}
        body = dialect.info({**info, "lane": lane.line.state().info(lane.name)})
        return self._delivery.plain(request, body)

    # -- what is asked for

    def belongings_for(self, request: web.Request) -> Everybodys:
        """On an account that the caller brought along nothing is anybody else's."""
        note = request[NOTE]
        is_ours = note.credential is None or self._reception.lane(request) is self._lanes.main
        return self._belongings if is_ours else EVERYBODYS

    def _asked(self, dialect: ChatDialect, note: Note, body: bytes) -> "Asked":
        """What makes its call. Raises BadRequest for what is wrong with it."""
        data = dialect.request(parsed(body))
        note.model = model_of(data["generate_parameters"])
        lane = self._lanes.named(note.upstream) if note.upstream else self._lanes.main
        lane.connector.validate(data)
        return Asked(dialect, body, data)

    def _note_asked(self, note: Note, body: bytes | None) -> dict[str, Any]:
        """What a forwarded body asks for, as far as it is a JSON object at all."""
        note.asked = body if note.keeps_bodies else None
        try:
            asked = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError:
            return {}
        note.model = model_of(asked)
        return asked if isinstance(asked, dict) else {}


class Asked:
    """A chat: its bytes, and what they say until an attempt has been made of it or it has to wait."""

    __slots__ = ("_body", "_data", "_dialect", "is_stream")

    def __init__(self, dialect: ChatDialect, body: bytes, data: Data) -> None:
        self._dialect = dialect
        self._body = body
        self._data: Data | None = data
        self.is_stream = data["generate_parameters"].get("stream") is True

    def forget(self) -> None:
        """It waits."""
        self._data = None

    def __call__(self, connector: Connector) -> Awaitable[Chunk] | AsyncIterator[Chunk]:
        """One attempt at the call. A connector may do with its data what it likes: the next one has its own."""
        data, self._data = self._data or self._dialect.request(orjson.loads(self._body)), None
        data = self._dialect.completed(data)
        return connector.stream(data) if self.is_stream else connector.request(data)


async def raw(connector: Connector, *, call: RawCall) -> AsyncGenerator[Chunk, None]:
    """The API's own answer, byte for byte. Raises UpstreamError, with the API's own status if it gave one."""
    try:
        async with closing(connector.forward(call)) as chunks:
            async for chunk in chunks:
                yield chunk
    except UpstreamError as error:
        error.is_raw = True
        raise


async def events_of(
    request: web.Request, chunks: AsyncGenerator[Chunk, None], reply: Reply
) -> AsyncGenerator[bytes, None]:
    """A stream's chunks as they are told."""
    async with aclosing(chunks):
        async for chunk in chunks:
            note_model(request, chunk)
            yield reply.event(chunk)
        yield reply.end


async def form_of(request: web.Request) -> bytes:
    """The form of a token request. Raises BodyTooLarge."""
    try:
        return await request.clone(client_max_size=LARGEST_FORM).read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"the form of a token request says a scope, in at most {LARGEST_FORM} bytes") from None


def scope_in(form: bytes) -> str:
    """The scope in the form of a token request; "" if it names none."""
    return next((value for name, value in parse_qsl(form.decode(errors="replace")) if name == "scope"), "")
