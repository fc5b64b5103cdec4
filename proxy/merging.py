"""Several at once: answers gathered, streams merged. All end together, whichever way."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

#: Events of streams that are merged which wait to be told; a reader that is slow slows the streams down.
AHEAD = 16


async def all_of(makers: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """What they make, in order. The first that fails ends the others, and its error is raised."""
    if len(makers) == 1:
        return [await makers[0]()]
    try:
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(awaited(make)) for make in makers]
    except ExceptionGroup as failed:
        raise first_of(failed) from None
    return [each.result() for each in made]


async def merged(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What they yield, as it comes. The first that fails ends the others, and its error is raised."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for each in only:
                yield each
        return
    come: asyncio.Queue[T | None] = asyncio.Queue(AHEAD)
    readers = [asyncio.create_task(read(stream, come)) for stream in streams]
    try:
        left = len(readers)
        while left:
            came = await come.get()
            if came is not None:
                yield came
                continue
            left -= 1
            for reader in readers:
                if reader.done():
                    reader.result()
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def read(stream: AsyncGenerator[T, None], come: "asyncio.Queue[T | None]") -> None:
    """Put all of it into the queue, and None behind it, even if it fails; not if it is cancelled: nobody reads then."""
    try:
        async with aclosing(stream):
            async for each in stream:
                await come.put(each)
    except Exception:
        await come.put(None)
        raise
    await come.put(None)


async def awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def first_of(failed: ExceptionGroup[Exception]) -> Exception:
    """The first error that is no group itself."""
    first = failed.exceptions[0]
    return first_of(first) if isinstance(first, ExceptionGroup) else first
