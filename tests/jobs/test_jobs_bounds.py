"""What a store holds, and for how long: in every engine."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from making import ANSWER, SHORT, OpenStore, Place, a_job, lines_of, over, pieces, run_one, some_jobs, state_of, take

from proxy.errors import JobsFull
from proxy.jobs import Kind, Room, State
from proxy.jobs.batches import Batch
from proxy.jobs.files import StoredFile
from proxy.jobs.store import Store


def a_file() -> StoredFile:
    return StoredFile(caller="ann", purpose="batch", filename="f")


async def test_the_number_of_jobs_is_bounded(place: Place, open_store: OpenStore):
    """All that come together or none; what was there is kept; and there is room again when some are gone."""
    jobs = (await open_store(place, room=Room(jobs=5))).jobs
    await jobs.add(*some_jobs(3))
    with pytest.raises(JobsFull):
        await jobs.add(*some_jobs(3))
    assert (await jobs.state()).jobs == 3
    await jobs.add(a_job())
    await jobs.find_or_add(a_job(key="k"))
    with pytest.raises(JobsFull):
        await jobs.find_or_add(a_job(key="k2"))
    assert (await jobs.state()).jobs == 5
    (first, *_) = await take(jobs)
    await jobs.ack(first.claim, ANSWER)
    await jobs.delete(first.id, caller=None)
    await jobs.add(a_job())


async def test_what_is_there_already_needs_no_room(place: Place, open_store: OpenStore):
    jobs = (await open_store(place, room=Room(jobs=3))).jobs
    told = some_jobs(3)
    await jobs.add(*told)
    await jobs.add(*told)
    assert (await jobs.state()).jobs == 3


async def test_a_file_that_is_owed_needs_no_room(place: Place, open_store: OpenStore):
    files = (await open_store(place, room=Room(bytes=1))).files
    with pytest.raises(JobsFull):
        await files.add(a_file(), pieces(b"much"))
    assert (await files.add(a_file(), pieces(b"answers"), is_owed=True)).bytes == len(b"answers")


async def test_what_is_owed_needs_no_room(place: Place, open_store: OpenStore):
    jobs = (await open_store(place, room=Room(jobs=1))).jobs
    await jobs.add(a_job())
    await jobs.add(owed := a_job(), is_owed=True)
    assert (await state_of(jobs, owed)).state is State.QUEUED
    with pytest.raises(JobsFull):
        await jobs.add(a_job())


async def test_the_bytes_are_bounded_files_and_batches_included(place: Place, open_store: OpenStore):
    """A body, an answer, a file: each takes from the same room; answers of accepted jobs always find some."""
    megabyte = bytes(1024 * 1024)
    store = await open_store(place, room=Room(bytes=4 * len(megabyte)))
    await store.jobs.add(a_job(body=megabyte))
    running = await run_one(store.jobs)
    file = await store.files.add(StoredFile(caller="ann", purpose="batch", filename="f"), pieces(megabyte, megabyte))
    assert await store.jobs.ack(running.claim, ANSWER._replace(body=megabyte))
    assert 4 * len(megabyte) < (await store.jobs.state()).bytes < 5 * len(megabyte)
    with pytest.raises(JobsFull):
        await store.jobs.add(a_job())
    with pytest.raises(JobsFull):
        await store.files.add(StoredFile(caller="ann", purpose="batch", filename="g"), pieces(b"x"))
    with pytest.raises(JobsFull):
        await store.batches.add(Batch(caller="ann", endpoint="/", window="24h", input_file=file.id))
    assert await store.files.delete(file.id, caller=None)
    await store.jobs.add(a_job())
    assert len((await store.files.list(caller=None)).entries) == 0


async def test_files_on_their_way_take_room(place: Place, open_store: OpenStore):
    """As much as they have brought; what is given up gives it back at once."""
    store = await open_store(place, room=Room(bytes=3 * 1024 * 1024))
    before, has_come = (await store.jobs.state()).bytes, asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(2 * 1024 * 1024)
        has_come.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(store.files.add(a_file(), endless()))
    await has_come.wait()
    assert (await store.jobs.state()).bytes > before + 1024 * 1024
    with pytest.raises(JobsFull):
        await store.files.add(a_file(), pieces(bytes(2 * 1024 * 1024)))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert (await store.files.add(a_file(), pieces(bytes(2 * 1024 * 1024)))).bytes == 2 * 1024 * 1024


async def test_what_is_forgotten_leaves_nothing_behind(store: Store):
    """The room that is taken goes back to where it was."""
    empty = (await store.jobs.state()).bytes
    await store.jobs.add(*some_jobs(20, body=bytes(100_000), keep=0))
    for job in await take(store.jobs):
        await store.jobs.ack(job.claim, ANSWER._replace(body=bytes(100_000)))
    assert (await store.jobs.state()).bytes > empty + 4_000_000
    assert await store.purge() == 20
    state = await store.jobs.state()
    assert state.jobs == 0 and state.bytes < empty + 100_000


# ---- Time ----


async def test_a_result_is_kept_for_its_time_and_not_longer(store: Store):
    """From its end on; when it is over it is gone at once, whether purged or not."""
    jobs = store.jobs
    await jobs.add(a_job(keep=SHORT))
    await over(time.time() + 2 * SHORT)
    running = await run_one(jobs)
    await jobs.ack(running.claim, ANSWER)
    seen = await jobs.get(running.id, caller=None)
    assert seen is None or seen.answer == ANSWER
    await over(running.started + 3 * SHORT)
    assert await jobs.get(running.id, caller=None) is None
    assert (await jobs.list(caller="ann")).entries == ()
    assert not await jobs.delete(running.id, caller=None)
    assert (await jobs.state()).jobs == 1
    assert await store.purge() == 1
    assert (await jobs.state()).jobs == 0


async def test_a_job_that_has_not_begun_at_its_deadline_expires(store: Store):
    """At the next claim, or purge; also one that waits for another attempt."""
    jobs = store.jobs
    late, later, good = a_job(deadline=time.time() - 1), a_job(deadline=time.time() + SHORT), a_job()
    await jobs.add(later)
    running = await run_one(jobs)
    await jobs.fail(running.claim, "broken", retry_at=time.time() + 60)
    await jobs.add(late, good)
    assert [job.id for job in await take(jobs)] == [good.id]
    assert (await state_of(jobs, late)).state is State.EXPIRED
    await over(later.deadline)
    await store.purge()
    assert (await state_of(jobs, later)).state is State.EXPIRED
    assert (await jobs.state()).delayed == 0


async def test_what_has_begun_in_time_may_end_after_its_deadline(store: Store):
    await store.jobs.add(a_job(deadline=time.time() + 20))
    running = await run_one(store.jobs)
    assert await store.purge() == 0
    assert await store.jobs.ack(running.claim, ANSWER)


async def test_thousands_that_are_late_do_not_hide_those_that_are_not(store: Store):
    """However they stand in the line."""
    jobs = store.jobs
    await jobs.add(*lines_of("batch_1", 3000, deadline=time.time() - 1))
    await jobs.add(good := lines_of("batch_2", 1)[0])
    assert (await run_one(jobs, Kind.BATCH)).id == good.id
    await store.purge()
    expired = await jobs.list(caller=None, batch="batch_1", states=[State.EXPIRED], limit=5000)
    assert len(expired.entries) == 3000


async def test_a_purge_keeps_what_is_not_over(store: Store):
    told = some_jobs(3, keep=0)
    await store.jobs.add(*told)
    await run_one(store.jobs)
    assert await store.purge() == 0
    assert (await store.jobs.state()).jobs == 3
