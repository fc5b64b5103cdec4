"""OpenAI's chat completions with an API that speaks otherwise: every call that one request takes, and its answer.

Rule 1: a request may take several calls: uploads, n choices, a further call where an answer does not do. Each waits in
        line by itself, within the one deadline.
Rule 2: while a request waits it keeps its bytes alone; parsed they take three times the room.
Rule 3: a stream that can be told at once is; one whose answer must be looked at first is asked for as a whole.
"""

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from proxy import api_files, sse
from proxy.attachments import Attachments, Sender, Uploads
from proxy.belongings import Everybodys
from proxy.connector import Chunk, Connector
from proxy.delivery import Delivery
from proxy.dialects.openai import Answers, Chat, ChatStream, OpenAI, Options, images_in, with_images
from proxy.entry import NOTE
from proxy.errors import NotFound, UpstreamError
from proxy.forwarding import RawCall
from proxy.merging import all_of, merged
from proxy.reception import Reception, parsed

log = logging.getLogger("proxy.completions")

OPENAI = OpenAI()
#: The ids of the files of what is attached, in order.
Files = Sequence[str]


@dataclass(slots=True)
class Asked:
    """A request: its bytes, and what they say."""

    body: bytes
    options: Options
    id: str
    created: int
    _chat: Chat | None = None

    def chat(self) -> Chat:
        """Raises BadRequest."""
        if self._chat is None:
            self._chat = Chat(parsed(self.body), self.options, id=self.id, created=self.created)
        return self._chat

    def named(self, files: Files) -> dict[str, str]:
        """The id of the file for the source of each attachment. Its sources are megabytes, so nobody keeps it."""
        return {each.source: id for each, id in zip(self.chat().attachments, files, strict=True)}

    def forget(self) -> None:
        """It waits."""
        self._chat = None


class Completions:
    """Serves them."""

    def __init__(
        self,
        options: Options,
        reception: Reception,
        delivery: Delivery,
        attachments: Attachments,
        belongings_for: Callable[[web.Request], Everybodys],
    ) -> None:
        self._options = options
        self._reception = reception
        self._delivery = delivery
        self._attachments = attachments
        self._belongings_for = belongings_for

    async def chat(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """A request whose caller is known. Raises BadRequest for what is wrong with it."""
        note = request[NOTE]
        asked = Asked(body, self._options, f"chatcmpl-{note.id}", int(time.time()))
        chat = asked.chat()
        note.model = chat.model
        if chat.ignored:
            log.debug("request %s: %s mean nothing here", note.id, ", ".join(chat.ignored))
        data = chat.data({each.source: each.source for each in chat.attachments})
        note.served = data["generate_parameters"]["model"]
        self._reception.lane(request).connector.validate(data)
        belongings, interval = self._belongings_for(request), self._delivery.heartbeat_interval
        exchange = Exchange(self._reception, self._attachments, belongings, interval, request, asked, chat)
        del chat, data
        if exchange.is_stream:
            return await self._delivery.stream(OPENAI, request, exchange.events())
        with self._delivery.beating(request):
            return self._delivery.plain(request, orjson.dumps(await exchange.completion()))


class Exchange:
    """The calls of one request."""

    def __init__(
        self,
        reception: Reception,
        attachments: Attachments,
        belongings: Everybodys,
        heartbeat_interval: float,
        request: web.Request,
        asked: Asked,
        chat: Chat,
    ) -> None:
        self._reception = reception
        self._attachments = attachments
        self._belongings = belongings
        self._heartbeat_interval = heartbeat_interval
        self._request = request
        self._asked = asked
        self.is_stream = chat.is_stream
        self._is_whole = chat.is_whole
        self._has_attachments = bool(chat.attachments)
        self._n = chat.n
        self._client = chat.sub_caller

    async def completion(self) -> dict[str, Any]:
        """The whole answer."""
        choices = await self._choices()
        return await self._illustrated(self._asked.chat().completion(choices))

    def events(self) -> AsyncGenerator[bytes, None]:
        """The answer as a stream."""
        return self._whole() if self._is_whole else self._live()

    # -- whole answers

    async def _choices(self) -> Sequence[Answers]:
        async with self._files() as files:
            return await all_of([partial(self._answers, files) for _ in range(self._n)])

    async def _answers(self, files: Files) -> Answers:
        """The answers that lead to one choice, the last one being told."""
        answers = [await self._ask(partial(first_call, self._asked, files))]
        while (data := self._asked.chat().another(answers, self._asked.named(files))) is not None:
            answers.append(await self._ask(partial(Connector.request, data=data)))
        return answers

    async def _ask(self, call: Callable[[Connector], Awaitable[Chunk]]) -> Chunk:
        answer = await self._reception.ask(self._request, call, client=self._client, parsed=self._asked)
        self._request[NOTE].made(answer)
        return answer

    # -- streams

    async def _whole(self) -> AsyncGenerator[bytes, None]:
        choices = await self._choices()
        for chunk in self._asked.chat().chunks(choices):
            yield event_of(await self._illustrated(chunk))
        yield sse.DONE

    async def _live(self) -> AsyncGenerator[bytes, None]:
        told: list[ChatStream] = []
        async with self._files() as files:
            choices = [self._choice(files, index, told) for index in range(self._n)]
            waits = sse.comment("more choices to come")
            async with aclosing(merged(choices, idle=waits, seconds=self._heartbeat_interval)) as events:
                async for event in events:
                    yield event
            if (usage := self._asked.chat().usage_chunk(told)) is not None:
                yield event_of(usage)
        yield sse.DONE

    async def _choice(self, files: Files, index: int, told: list[ChatStream]) -> AsyncGenerator[bytes, None]:
        """One choice, as it comes; its stream is added to those that are told."""
        call = partial(first_stream, self._asked, files)
        late: list[dict[str, Any]] = []
        run = self._reception.run(self._request, call, client=self._client, parsed=self._asked)
        async with aclosing(run) as chunks:
            chunk = await anext(chunks, None)
            stream = self._asked.chat().stream(index)  # only now, for it may have waited long
            told.append(stream)
            while chunk is not None:
                self._request[NOTE].made(chunk)
                for each in stream.feed(chunk):
                    if late or self._has_image(each):
                        late.append(each)  # no image can be had before the stream gives its slot back
                    else:
                        yield event_of(each)
                chunk = None if stream.is_done else await following(chunks, stream)
        for each in [*late, *stream.end()]:
            yield event_of(await self._illustrated(each))

    # -- generated images as data

    def _has_image(self, told: dict[str, Any]) -> bool:
        return self._asked.options.image_link is None and any(images_in(content_of(each)) for each in told["choices"])

    async def _illustrated(self, told: dict[str, Any]) -> dict[str, Any]:
        """With generated images in place of their tags, if the operator wants them so."""
        if self._has_image(told):
            for choice in told["choices"]:
                text = content_of(choice)
                addresses = {id: url for id in images_in(text) if (url := await self._data_url(id))}
                part_of(choice)["content"] = with_images(text, addresses)
        return told

    async def _data_url(self, id: str) -> str | None:
        """The picture itself; None if it is another caller's, whose id somebody has made the model say."""
        call = RawCall("GET", "v1", f"/files/{id}/content", "", (("Accept", "*/*"),))
        try:
            self._belongings.of_call(self._request[NOTE].caller, call, is_read=False)
        except NotFound:
            return None
        whole: Any = await self._reception.ask(self._request, partial(api_files.whole, call=call))
        return f"data:{whole.type};base64,{b64encode(whole.body).decode()}"

    @asynccontextmanager
    async def _files(self) -> AsyncIterator[Files]:
        """The files of what is attached, while the block runs."""
        if not self._has_attachments:
            yield ()
            return
        self._reception.embark(self._request)
        note = self._request[NOTE]
        sender = Sender(
            lane=self._reception.lane(self._request),
            enrol=partial(self._reception.enrol, self._request, parsed=self._asked),
            id=note.id,
            caller=note.caller,
            client=self._request.headers.get("X-Client-ID", ""),
            ends=asyncio.get_running_loop().time() + self._reception.patience(self._request),
        )
        async with self._attachments.of(sender) as uploads:
            yield await self._uploaded(uploads)

    async def _uploaded(self, uploads: Uploads) -> Files:
        attachments = self._asked.chat().attachments
        ids = await uploads.ids(attachments)
        return [ids.get(each.source, each.source) for each in attachments]


def first_call(asked: Asked, files: Files, connector: Connector) -> Awaitable[Chunk]:
    return connector.request(asked.chat().data(asked.named(files)))


def first_stream(asked: Asked, files: Files, connector: Connector) -> AsyncIterator[Chunk]:
    return connector.stream(asked.chat().data(asked.named(files)))


async def following(chunks: AsyncGenerator[Chunk, None], stream: ChatStream) -> Chunk | None:
    """The next one. What goes wrong behind the finish takes nothing from the answer."""
    try:
        return await anext(chunks, None)
    except UpstreamError:
        if not stream.is_over:
            raise
        return None


def part_of(choice: dict[str, Any]) -> dict[str, Any]:
    """What a choice says: its message, or in a stream its delta."""
    said: dict[str, Any] = choice.get("message") or choice["delta"]
    return said


def content_of(choice: dict[str, Any]) -> str:
    return part_of(choice).get("content") or ""


def event_of(chunk: Mapping[str, Any]) -> bytes:
    return sse.encode(orjson.dumps(chunk))
