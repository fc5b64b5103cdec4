"""Files, in every engine: whole or not there, never whole in memory."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from making import SHORT, gathered, over, pieces

from proxy.errors import BadRequest, NotFound
from proxy.jobs.files import PART, StoredFile, lines_of, parts_of
from proxy.jobs.store import Store

MEGABYTES = 20


def a_file(caller: str = "ann", **fields) -> StoredFile:
    return StoredFile(**{"caller": caller, "purpose": "batch", "filename": "input.jsonl", **fields})


async def long_file() -> AsyncIterator[bytes]:
    for number in range(MEGABYTES):
        yield b"%1023d\n" % number * 1024


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART])
async def test_a_file_comes_back_byte_by_byte(store: Store, size: int):
    """Whatever its size, in whatever pieces it came."""
    content = bytes(number % 251 for number in range(size))
    file = await store.files.add(a_file(filename="имя\udcff.jsonl"), pieces(content[: size // 3], content[size // 3 :]))
    assert file.bytes == size
    assert await store.files.get(file.id, caller="ann") == file
    assert await gathered(store.files.content(file.id)) == content


async def test_a_long_file_is_never_whole_in_memory(store: Store):
    """Neither on its way in nor on its way out."""
    tracemalloc.start()
    try:
        file = await store.files.add(a_file(), long_file())
        count = 0
        async for line in lines_of(store.files.content(file.id), longest=2000):
            count += len(line) == 1023
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert file.bytes == MEGABYTES * 1024 * 1024 and count == file.bytes // 1024
    assert peak < 10 * 1024 * 1024


async def test_a_file_that_breaks_off_is_not_there(store: Store):
    """Whoever sends it gets the failure; nobody sees half of it."""
    file = a_file()

    async def broken() -> AsyncIterator[bytes]:
        yield bytes(PART)
        assert await store.files.get(file.id, caller=None) is None
        assert (await store.files.list(caller=None)).entries == ()
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.files.add(file, broken())
    assert await store.files.get(file.id, caller=None) is None


async def test_a_sender_who_leaves_leaves_nothing(store: Store):
    file, came = a_file(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(2 * PART)
        came.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(store.files.add(file, endless()))
    await came.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert await store.files.get(file.id, caller=None) is None


async def test_a_file_that_broke_off_may_come_again(store: Store):
    """Under the same id, and with nothing of the first attempt in it."""
    file = a_file()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (3 * PART)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.files.add(file, broken())
    await store.files.add(file, pieces(b"y" * (2 * PART)))
    assert await gathered(store.files.content(file.id)) == b"y" * (2 * PART)


async def test_a_file_that_comes_twice_is_there_as_it_came_first(store: Store):
    """One after the other, or both at once, as when a late first writer meets its successor."""
    file = a_file()
    gate = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        yield b"late" * PART
        await gate.wait()

    slow = asyncio.create_task(store.files.add(file, late()))
    await asyncio.sleep(0)
    first = await store.files.add(file, pieces(b"first"))
    gate.set()
    assert await slow == await store.files.add(file, pieces(b"second")) == first
    assert await gathered(store.files.content(file.id)) == b"first"
    assert (await store.files.list(caller="ann")).entries == (first,)


async def test_a_file_that_is_deleted_while_it_is_read_breaks_off(store: Store):
    """It does not end as if that were all."""
    file = await store.files.add(a_file(), pieces(bytes(3 * PART)))
    reading = store.files.content(file.id)
    await anext(reading)
    assert await store.files.delete(file.id, caller="ann")
    with pytest.raises(NotFound):
        await gathered(reading)
    with pytest.raises(NotFound):
        await gathered(store.files.content(file.id))
    assert not await store.files.delete(file.id, caller="ann")


async def test_files_are_listed_page_by_page(store: Store):
    """By caller and purpose, the newest first or the oldest."""
    told = [await store.files.add(a_file(), pieces(b"x")) for _ in range(3)]
    output = await store.files.add(a_file(purpose="batch_output"), pieces(b"x"))
    await store.files.add(a_file("bob"), pieces(b"x"))
    first = await store.files.list(caller="ann", purpose="batch", limit=2)
    second = await store.files.list(caller="ann", purpose="batch", limit=2, after=first.after)
    assert [*first.entries, *second.entries] == told[::-1] and second.after is None
    assert (await store.files.list(caller="ann", newest_first=False)).entries == (*told, output)
    assert len((await store.files.list(caller=None)).entries) == 5


async def test_for_others_a_file_does_not_exist(store: Store):
    file = await store.files.add(a_file(), pieces(b"x"))
    for name in ("bob", "", "ann:", "\udcff"):
        assert await store.files.get(file.id, caller=name) is None
        assert not await store.files.delete(file.id, caller=name)
        with pytest.raises(BadRequest):
            await store.files.list(caller=name, after=file.id)
    assert await store.files.get(file.id, caller="ann") == file


async def test_a_file_is_forgotten_when_its_time_is_over(store: Store):
    kept = await store.files.add(a_file(expires_at=time.time() + 60), pieces(b"x"))
    gone = await store.files.add(a_file(expires_at=time.time() + SHORT), pieces(b"x"))
    await over(gone.expires_at)
    assert await store.files.get(gone.id, caller=None) is None
    assert (await store.files.list(caller="ann")).entries == (kept,)
    assert await store.purge() == 1
    assert await gathered(store.files.content(kept.id)) == b"x"


async def test_what_is_no_file_is_not_found(store: Store):
    for id in ("file_no", "", "\udcff", "../../etc/passwd"):
        assert await store.files.get(id, caller=None) is None
        with pytest.raises(NotFound):
            await gathered(store.files.content(id))


# ---- Cutting ----


@pytest.mark.parametrize("size", [1, 2, 5, 7, 100])
async def test_parts_are_of_one_size_however_the_pieces_were(size: int):
    parts = [part async for part in parts_of(pieces(b"ab", b"", b"cdefghi", b"j"), size)]
    assert b"".join(parts) == b"abcdefghij"
    assert all(len(part) == size for part in parts[:-1]) and 0 < len(parts[-1]) <= size


async def test_lines_are_cut_wherever_the_pieces_were():
    lines = lines_of(pieces(b"on", b"e\ntwo\n\nth", b"", b"ree\r\n", b"four"), longest=100)
    assert [line async for line in lines] == [b"one", b"two", b"", b"three\r", b"four"]


async def test_a_line_without_an_end_does_not_fill_the_memory():
    """One byte more than allowed is enough to know; the next line is whole again."""
    lines = lines_of(pieces(*[b"x" * 1000] * 1000, b"\nshort\n" + b"y" * 50), longest=20)
    assert [line async for line in lines] == [b"x" * 21, b"short", b"y" * 21]
