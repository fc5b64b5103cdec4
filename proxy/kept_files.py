"""Files that the service keeps itself, whatever the API: what batches are made of, and what comes of them."""

import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

from aiohttp import web

from proxy.accepting import owner_of
from proxy.delivery import cut, headers
from proxy.dialects.openai.batches import INPUT, LONGEST_LIFE, OUTPUT, kept_file_object, life_of
from proxy.entry import NOTE
from proxy.errors import BadRequest, BodyTooLarge, NotFound, ProxyError
from proxy.forms import Form
from proxy.jobs.files import StoredFile
from proxy.work import Work

#: Bytes of the largest file that batches are made of, as OpenAI has it.
BATCH_MAX_BYTES = 200 * 1024 * 1024
#: Bytes that a form may have beside its file.
LARGEST_HEAD = 1024 * 1024
#: What the ids of such files look like.
OURS = re.compile(r"file_[0-9a-f]{32}")
BINARY_TYPE = "application/octet-stream"


class PageAsked(NamedTuple):
    """Which files are to be listed: how many, behind which one, which way round; "": from the first, of any purpose."""

    limit: int
    after: str = ""
    ascending: bool = False
    purpose: str = ""

    @property
    def is_of_batches(self) -> bool:
        """Only the service has such files."""
        return self.purpose in (INPUT, OUTPUT)


class KeptPage(NamedTuple):
    """What a page of a list has of these files. `rest` is what it has of the API's; None: nothing."""

    told: list[dict[str, Any]]
    has_more: bool
    rest: PageAsked | None


class KeptFiles:
    """Serves them. What a caller with a credential of its own asks for is the API's.

    Args:
        has_keys: whether callers have keys, to whom files belong.
        most: bytes of the largest that is taken.
    """

    def __init__(self, work: Work, *, has_keys: bool, most: int = BATCH_MAX_BYTES) -> None:
        self._work = work
        self._has_keys = has_keys
        self._most = most
        self._too_large = f"a file for a batch has at most {most} bytes: divide it"

    def may_have(self, request: web.Request) -> bool:
        """Whether its caller can have files here."""
        return self._work.is_on and request[NOTE].credential is None

    def _owner(self, request: web.Request) -> str:
        return owner_of(request[NOTE], has_keys=self._has_keys)

    # -- coming

    async def taken(self, request: web.Request, form: Form) -> StoredFile | bytes:
        """The file of a form: kept if it is for a batch, else its content, for the API.

        What it is for may stand behind it. Raises BadRequest, BodyTooLarge, JobsOff, JobsFull.
        """
        if form.purpose not in ("", INPUT) or not (form.purpose or self.may_have(request)):
            content = await form.content(request.client_max_size)
            if form.purpose != INPUT:
                return content
        file = await self._added(request, form)
        return file if form.purpose == INPUT else await self._taken_out(file)

    async def _added(self, request: web.Request, form: Form) -> StoredFile:
        life = life_in(form)
        if (request.content_length or 0) > self._most + LARGEST_HEAD:
            raise BodyTooLarge(self._too_large)
        file = StoredFile(
            caller=self._owner(request), purpose=INPUT, filename=form.filename, expires_at=time.time() + life
        )
        async with aclosing(self._pieces(form, life)) as pieces:
            return await self._work.store.files.add(file, pieces)

    async def _pieces(self, form: Form, life: float) -> AsyncGenerator[bytes, None]:
        async with aclosing(form.pieces(self._most, self._too_large)) as pieces:
            async for piece in pieces:
                yield piece
        if life_in(form) != life:
            raise BadRequest('"expires_after" must stand before "file" in the form', param="expires_after")

    async def _taken_out(self, file: StoredFile) -> bytes:
        """Its content; it is not kept any longer."""
        files = self._work.store.files
        content = b"".join([part async for part in files.content(file.id)])
        await files.delete(file.id, caller=file.caller)
        return content

    # -- looking

    async def found(self, request: web.Request) -> StoredFile | None:
        """The file that a path names; None if that is one of the API's. Raises NotFound."""
        id = request.match_info["id"]
        if not OURS.fullmatch(id) or not self.may_have(request):
            return None
        file = await self._work.store.files.get(id, caller=self._owner(request))
        if file is None:
            raise NotFound(f'there is no file "{id}", or not any more: GET files lists those there are')
        return file

    async def page(self, request: web.Request, asked: PageAsked) -> KeptPage:
        """A page of a list in which these files stand before the API's."""
        is_theirs = bool(asked.after) and not OURS.fullmatch(asked.after)
        if not self.may_have(request) or is_theirs or (asked.purpose and not asked.is_of_batches):
            return KeptPage([], False, asked)
        page = await self._work.store.files.list(
            caller=self._owner(request),
            purpose=asked.purpose or None,
            after=asked.after or None,
            limit=asked.limit,
            newest_first=not asked.ascending,
        )
        told = [kept_file_object(file) for file in page.entries]
        if page.after is not None or asked.is_of_batches:
            return KeptPage(told, page.after is not None, None)
        if len(told) == asked.limit:
            return KeptPage(told, True, None)  # the next page begins with the API's
        return KeptPage(told, False, asked._replace(limit=asked.limit - len(told), after=""))

    async def content(self, request: web.Request, file: StoredFile) -> web.StreamResponse:
        """Its bytes, as they are read."""
        response = web.StreamResponse(headers=headers(request, {"Content-Type": BINARY_TYPE}))
        response.content_length = file.bytes
        parts = self._work.store.files.content(file.id)
        part = await anext(parts, None)  # before the head, so that it can still be a 404
        await response.prepare(request)
        try:
            while part is not None:
                await response.write(part)
                part = await anext(parts, None)
        except ConnectionError:
            request[NOTE].has_left = True
        except ProxyError as failure:  # it was deleted meanwhile, or its store is away
            request[NOTE].failed(failure)
            cut(request)
        return response

    # -- going

    async def delete(self, file: StoredFile) -> None:
        await self._work.store.files.delete(file.id, caller=file.caller)


def life_in(form: Form) -> float:
    """Seconds for which it asks its file to be kept. Raises BadRequest."""
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor is seconds is None:
        return LONGEST_LIFE
    number = int(seconds) if seconds and seconds.isdecimal() and len(seconds) < 10 else None
    return life_of({"anchor": anchor, "seconds": number}, "expires_after")
