"""Pictures, documents and sounds that requests bring along or name by an address, as files of the API's.

Rule 1: an upload goes through the line like any other call, as a call of the request that needs it.
Rule 2: the same content is uploaded once an hour and account, whatever address it came by. An account's ids are for no
        other account.
Rule 3: who waits for another's upload of the same content, and sees it fail or end with its caller, uploads itself.
Rule 4: with DELETE_ATTACHMENTS nothing is shared: each request has files of its own, deleted when it is over.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary, WeakValueDictionary

from yarl import URL

from proxy import api_files
from proxy.clock import Clock
from proxy.dialects.openai.files import LIMITS, MEGABYTE, MediaType, decoded, media_type, type_by_filename
from proxy.dialects.openai.parts import Attachment
from proxy.errors import (
    AttachmentTooLarge,
    BadRequest,
    DeadlineExpired,
    LineFull,
    ProxyError,
    UnsupportedMedia,
    UpstreamError,
    WaitTooLong,
)
from proxy.expiring import Expiring
from proxy.fetching import Fetching
from proxy.lanes import Lane
from proxy.line import Call, Enrolled, Priority
from proxy.sniffing import UNTOLD, sniffed

log = logging.getLogger("proxy.attachments")

#: Seconds for which a file at the API is used again, and how many are remembered of one account.
AGE: Final = 3600.0
MOST: Final = 1000
#: Downloads of one caller that are in memory at once, from their first byte until they are uploaded.
MOST_HELD: Final = 16
#: Bytes that all pictures and sounds of one request may have.
MOST_BYTES: Final = 80 * MEGABYTE
#: Seconds that the deletion of a file may wait in line.
DELETION_PATIENCE: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Sender:
    """The request that the attachments belong to.

    Args:
        lane: where it is served.
        enrol: puts a call into the lane's line, as a call of this request.
        id: its X-Request-ID.
        caller: who sent it.
        client: its X-Client-ID, or "".
        ends: when its answer must have begun, in seconds of the loop's clock.
    """

    lane: Lane
    enrol: Callable[[Call], Enrolled]
    id: str
    caller: str
    client: str
    ends: float


class Key(NamedTuple):
    """What makes two files the same. With an X-Client-ID a file is made for that client alone."""

    digest: bytes
    type: str
    client: str


class Attachments:
    """Makes files of attachments, and remembers them by account.

    Args:
        deletes: whether the files go when their request is over.
    """

    def __init__(self, fetching: Fetching, *, deletes: bool = False, clock: Clock | None = None) -> None:
        self._fetching = fetching
        self._deletes = deletes
        self._clock = clock or Clock()
        self._shelves: WeakKeyDictionary[Lane, Shelf] = WeakKeyDictionary()
        self._holds: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._deletions: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Attachments of {len(self._shelves)} lanes, {len(self._deletions)} deletions>"

    @asynccontextmanager
    async def of(self, sender: Sender) -> AsyncIterator["Uploads"]:
        """The uploads of one request; the block is all that needs its files."""
        shelf = Shelf(self._clock) if self._deletes else self._shelves.setdefault(sender.lane, Shelf(self._clock))
        hold = self._holds.setdefault(sender.caller, asyncio.Semaphore(MOST_HELD))
        uploads = Uploads(sender, shelf, self._fetching, hold)
        try:
            yield uploads
        except UpstreamError as error:
            if 400 <= error.status < 500:  # perhaps since a file is not there any more
                shelf.forget(uploads.used)
            raise
        finally:
            if self._deletes:
                self._delete(sender, uploads.used.values())

    async def close(self) -> None:
        """Give up the deletions that are under way: their files stay at the API."""
        deletions = list(self._deletions)
        for deletion in deletions:
            deletion.cancel()
        await asyncio.gather(*deletions, return_exceptions=True)
        if deletions:
            log.warning("%d files of requests that are over stay at the API", len(deletions))
        await self._fetching.close()

    def _delete(self, sender: Sender, ids: Iterable[str]) -> None:
        for id in ids:
            # An empty context: it must not go out under the permit of whoever ended just now.
            deletion = asyncio.create_task(delete(sender, id), context=Context())
            self._deletions.add(deletion)
            deletion.add_done_callback(self._deletions.discard)


class Shelf:
    """Files at the API that may be used again."""

    def __init__(self, clock: Clock) -> None:
        self._ids: Expiring[Key, str] = Expiring(clock, most=MOST)
        #: One for each file that somebody waits for.
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def id(self, key: Key, upload: Callable[[], Awaitable[str]]) -> str:
        """The id of the file, which is uploaded if it is not there. Raises what `upload` raises."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            id = self._ids.get(key)
            if id is None:
                id = await upload()
                self._ids.put(key, id, AGE)
            return id

    def forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._ids.put(key, "", 0)


class Uploads:
    """The files of one request. `used` are their ids."""

    def __init__(self, sender: Sender, shelf: Shelf, fetching: Fetching, hold: asyncio.Semaphore) -> None:
        self._sender = sender
        self._shelf = shelf
        self._fetching = fetching
        self._hold = hold
        self._bytes = 0
        self.used: dict[Key, str] = {}

    async def ids(self, attachments: Iterable[Attachment]) -> dict[str, str]:
        """The id of a file for each source that is not an id itself.

        Raises:
            BadRequest: it is wrong, empty or not to be downloaded. With it AttachmentTooLarge and UnsupportedMedia.
            UpstreamError: the API did not take it.
            ProxyError: whatever else the line says to a call, DeadlineExpired if the request's time is up.
        """
        wanted: dict[str, Attachment] = {}
        for each in attachments:
            if each.form != "id":
                wanted.setdefault(each.source, each)
        try:
            async with asyncio.timeout_at(self._sender.ends):
                return {source: await self._id(each) for source, each in wanted.items()}
        except TimeoutError:
            raise DeadlineExpired from None

    async def _id(self, each: Attachment) -> str:
        if each.form == "data":
            return await self._file(each, *decoded(each.source, each.param))
        async with self._hold:
            fetched = await self._fetching.fetch(each.source, partial(room_for, each), each.param)
            return await self._file(each, *fetched)

    async def _file(self, each: Attachment, declared: str, content: bytes) -> str:
        """The id of the file with this content."""
        name = each.filename or (URL(each.source).name if each.form == "url" else "")
        media = identified(each, declared, content, name)
        self._count(each, media, len(content))
        key = Key(hashlib.sha256(content).digest(), media.name, self._sender.client)
        call = partial(api_files.upload, filename=fitting(name, media), type=media.name, content=content)
        self.used[key] = await self._shelf.id(key, partial(self._upload, call))
        return self.used[key]

    async def _upload(self, call: Call) -> str:
        answer = await self._sender.lane.line.answer(self._sender.enrol(call))
        return str(cast(dict[str, Any], answer)["id"])

    def _count(self, each: Attachment, media: MediaType, size: int) -> None:
        if media.family != "document":
            self._bytes += size
        if self._bytes > MOST_BYTES:
            raise AttachmentTooLarge(
                f'with "{each.param}" the pictures and sounds of the request are more than the '
                f"{MOST_BYTES // MEGABYTE} MB that the API takes",
                param=each.param,
            )


async def delete(sender: Sender, id: str) -> None:
    """Delete a file at the API, when nobody more urgent waits; what cannot be deleted is told to the log."""
    line, passed_on = sender.lane.line, {"X-Client-ID": sender.client} if sender.client else None
    while True:
        call = line.enrol(
            partial(api_files.delete, id=id),
            id=sender.id,
            patience=DELETION_PATIENCE,
            caller=sender.caller,
            client=sender.client,
            priority=Priority.LOW,
            passed_on=passed_on,
        )
        try:
            await line.answer(call)
            return
        except (LineFull, WaitTooLong) as refusal:
            await asyncio.sleep(refusal.retry_after or 1)
        except ProxyError as error:
            log.warning("file %s of request %s stays at the API: %s", id, sender.id, error)
            return


# ---- What a file is ----


def identified(each: Attachment, declared: str, content: bytes, name: str) -> MediaType:
    """Its type as declared, else by its first bytes, else by its name. Raises BadRequest."""
    if not content:
        raise BadRequest(f'"{each.param}" is empty', param=each.param)
    type = bare(declared)
    if type in UNTOLD:
        type = sniffed(content) or type_by_filename(name)
    return taken(each, type, len(content))


def room_for(each: Attachment, declared: str) -> int:
    """Bytes that it may have, as far as one can tell from its Content-Type. Raises UnsupportedMedia."""
    type = bare(declared)
    return LIMITS.get(each.kind, max(LIMITS.values())) if type in UNTOLD else taken(each, type).limit


def taken(each: Attachment, type: str, size: int = 0) -> MediaType:
    """What the API takes it for. Raises UnsupportedMedia, AttachmentTooLarge."""
    media = media_type(type, size, each.param)
    if each.kind in ("image", "audio") and media.family != each.kind:
        raise UnsupportedMedia(
            f'"{each.param}" is of the type {media.name}: send it in a part of the type "file"', param=each.param
        )
    return media


def bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def fitting(name: str, media: MediaType) -> str:
    """A name that can be written into a form, and ends as its type wants it."""
    stem = api_files.fit(name or media.family)
    return stem if type_by_filename(stem) == media.name else f"{stem}.{media.extension}"
