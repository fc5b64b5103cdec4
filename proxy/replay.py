"""Requests that come from within: a job is run through the very operations that serve everybody, nobody at its end."""

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.accepting import request_id_of
from proxy.durable import chosen, is_kept
from proxy.entry import InOrder, Note, Within
from proxy.errors import BadRequest
from proxy.guard import Guard
from proxy.jobs import Job
from proxy.jobs.recording import Ended, Recording

#: Bytes that the reader of a body holds.
AT_LEAST = 64 * 1024


class Nobody(BaseProtocol):
    """Stands where a request has its connection."""

    ssl_context = None
    peername = None
    sockname = None
    max_field_size = 8190
    max_headers = 128


@dataclass(frozen=True)
class Replay:
    """Runs jobs through the table of paths."""

    router: web.UrlDispatcher
    guard: Guard

    async def serve(self, job: Job, recording: Recording, on_call: Callable[[], None]) -> Ended:
        """Run it in the current task, which is cancelled to end it early.

        `on_call` is told whenever it leaves the line for a call.
        """
        request = request_of(job, recording)
        recording.note = note = self._noted(job, request)
        note.within = Within(job.caller, job.priority, on_call)
        try:
            request._match_info = found = await self.router.resolve(request)  # where the server library has it
            response = await self.guard.within(request, found.handler)
            if isinstance(response, web.Response) and recording.status is None:
                recording.take(response)
            recording.is_complete = True
        finally:
            recording.end()
        return Ended(recording.answer, note.failure)

    async def rehearse(self, job: Job) -> Note:
        """Run it up to where it would cost something: what is known of it then.

        Raises what it would be refused with, and BadRequest if there can be no such job.
        """
        request = request_of(job, Recording())
        note = self._noted(job, request)
        note.within = Within(job.caller, job.priority, lambda: None, is_rehearsal=True)
        found = await self.router.resolve(request)
        if not is_kept(chosen(found.handler, request)):
            raise BadRequest(
                f'"{job.path.partition("?")[0][:100]}" cannot be a job: "path" is that of a chat ("/", '
                '"/gigachat/", "/chatgpt/", "/v1/chat/completions"), of embeddings ("/v1/embeddings") or of the API '
                'itself ("/api/v1/...")',
                param="path",
            )
        with suppress(InOrder):
            await found.handler(request)
        return note

    def _noted(self, job: Job, request: web.Request) -> Note:
        return self.guard.note(request, request_id_of(job))


def request_of(job: Job, writer: AbstractStreamWriter) -> web.Request:
    """The request that a job is, as the server library would have read it."""
    loop, nobody = asyncio.get_running_loop(), Nobody(asyncio.get_running_loop())
    headers = CIMultiDictProxy(CIMultiDict(job.headers))
    url = URL(job.path, encoded=True)
    message = RawRequestMessage(job.method, job.path, HttpVersion11, headers, (), False, None, False, False, url)
    # All of it is here, and nobody's connection could be asked to pause.
    body = StreamReader(nobody, max(AT_LEAST, len(job.body)), loop=loop)
    if job.body:
        body.feed_data(job.body)
    body.feed_eof()
    task = cast("asyncio.Task[None]", asyncio.current_task())
    # It was measured against MAX_BODY_BYTES when it came.
    return web.Request(message, body, cast(Any, nobody), writer, task, loop, client_max_size=math.inf)  # type: ignore[arg-type]
