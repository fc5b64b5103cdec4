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


def merged(
    streams: Sequence[AsyncGenerator[T, None]], *, idle: T | None = None, seconds: float | None = None
) -> AsyncGenerator[T, None]:
    """What they yield, as it comes, but none begins before those that stand before it.

    Once something is told, `idle` comes whenever nothing else does for so many `seconds`: what is left may wait long.
    The first that fails ends the others, and its error is raised.
    """
    return streams[0] if len(streams) == 1 else _merged(streams, idle, seconds)


async def _merged(
    streams: Sequence[AsyncGenerator[T, None]], idle: T | None, seconds: float | None
) -> AsyncGenerator[T, None]:
    come: asyncio.Queue[tuple[int, list[T]]] = asyncio.Queue(AHEAD)
    readers = [asyncio.create_task(read(number, stream, come)) for number, stream in enumerate(streams)]
    held: list[list[T]] = [[] for _ in streams]
    seen: set[int] = set()
    begun, ended, is_told = 0, 0, False
    try:
        while ended < len(streams):
            try:
                async with asyncio.timeout(seconds if is_told else None):
                    number, items = await come.get()
            except TimeoutError:
                if idle is not None:
                    yield idle
                continue
            if not items:
                ended += 1
                raise_what_failed(readers)
            held[number] += items
            seen.add(number)
            while begun in seen:
                begun += 1
            for earlier in held[:begun]:
                while earlier:
                    is_told = True
                    yield earlier.pop(0)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def read(number: int, stream: AsyncGenerator[T, None], come: "asyncio.Queue[tuple[int, list[T]]]") -> None:
    """Put all of it into the queue, and an empty list behind it, even if it fails; who cancels it reads no more."""
    try:
        async with aclosing(stream):
            async for each in stream:
                await come.put((number, [each]))
    except Exception:
        await come.put((number, []))
        raise
    await come.put((number, []))


def raise_what_failed(readers: Sequence["asyncio.Task[None]"]) -> None:
    for reader in readers:
        if reader.done():
            reader.result()


async def awaited(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def first_of(failed: ExceptionGroup[Exception]) -> Exception:
    """The first error that is no group itself."""
    first = failed.exceptions[0]
    return first_of(first) if isinstance(first, ExceptionGroup) else first
