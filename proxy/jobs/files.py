"""Files of callers, as OpenAI's API has them: kept in parts, written and read without ever being whole in memory."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from proxy.errors import NotFound
from proxy.jobs import Page, new_id

#: Bytes of a part.
PART = 256 * 1024


def new_file_id() -> str:
    return new_id("file")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What is known of a file; `bytes` is its size, which the store counts."""

    id: str = field(default_factory=new_file_id)
    caller: str
    purpose: str
    filename: str
    bytes: int = 0
    created: float = field(default_factory=time.time)
    #: None: it is kept until it is deleted.
    expires_at: float | None = None


class FileStore(Protocol):
    """The files of all callers; `caller` as in `JobStore`."""

    async def add(self, file: StoredFile, content: AsyncIterable[bytes], *, is_owed: bool = False) -> StoredFile:
        """Keep a file, whole or not at all, before this returns. One whose id is there already is left as it is.

        What `is_owed`, since work that was accepted promised it, is taken however much there is.
        Returns the file that is there. Raises JobsFull, and what `content` raises.
        """

    async def get(self, id: str, *, caller: str | None) -> StoredFile | None: ...

    async def list(
        self,
        *,
        caller: str | None,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[StoredFile]:
        """`after` is the id of a file. Raises BadRequest if that is not there any more."""

    def content(self, id: str) -> AsyncIterator[bytes]:
        """Its parts. Raises NotFound if it is not there, or is deleted meanwhile."""

    async def delete(self, id: str, *, caller: str | None) -> bool:
        """False if there is none."""

    async def purge(self) -> int:
        """Forget what has expired. Returns how many."""


async def parts_of(content: AsyncIterable[bytes], size: int = PART) -> AsyncIterator[bytes]:
    """The same bytes in parts of this size, the last one shorter."""
    held = bytearray()
    async for piece in content:
        for start in range(0, len(piece), size):
            held += piece[start : start + size]
            if len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
    if held:
        yield bytes(held)


async def put_all(content: AsyncIterable[bytes], put: Callable[[int, bytes], Awaitable[object]]) -> int:
    """Put the parts of it somewhere, by their numbers from 0. Returns how many bytes there are."""
    size = number = 0
    async for part in parts_of(content):
        await put(number, part)
        size, number = size + len(part), number + 1
    return size


async def content_of(
    file: StoredFile | None, part_of: Callable[[int], Awaitable[bytes | None]]
) -> AsyncIterator[bytes]:
    """The parts of a file, by their numbers from 0. Raises NotFound if it is not there, or a part of it is not."""
    read = number = 0
    while file is not None and read < file.bytes and (part := await part_of(number)) is not None:
        yield part
        read, number = read + len(part), number + 1
    if file is None or read < file.bytes:
        raise NotFound("there is no such file")


async def lines_of(content: AsyncIterable[bytes], longest: int) -> AsyncIterator[bytes]:
    """The lines without their ends. A line longer than `longest` bytes is cut, and told by one byte more."""
    held = bytearray()
    async for piece in content:
        *ends, rest = piece.split(b"\n")
        for end in ends:
            held += end[: longest + 1 - len(held)]
            yield bytes(held)
            held.clear()
        held += rest[: longest + 1 - len(held)]
    if held:
        yield bytes(held)
