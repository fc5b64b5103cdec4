"""Batches, in every engine: their steps are taken once, and their lines are counted as they end."""

import asyncio
import time

import pytest
from making import ANSWER, a_job, lines_of, over, run_one, some_jobs, take

from proxy.errors import BadRequest
from proxy.jobs import JobStore, Kind, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.store import Store


def a_batch(caller: str = "ann", **fields) -> Batch:
    return Batch(**{"caller": caller, "endpoint": "/v1/embeddings", "window": "24h", "input_file": "file_1", **fields})


async def counts(store: Store, batch: Batch) -> dict[str, int]:
    found = await store.batches.get(batch.id, caller=None)
    assert found is not None
    return {state.value: count for state, count in found.ended.items() if count}


async def test_a_batch_comes_back_as_it_was(store: Store):
    batch = a_batch(
        metadata={"имя": "☃\0"}, deadline=time.time() + 86400.5, errors=({"line": 1, "code": "x"},), total=7
    )
    await store.batches.add(batch)
    found = await store.batches.get(batch.id, caller="ann")
    assert found == Batch(**{
        **{name: getattr(batch, name) for name in Batch.__slots__},
        "ended": {State.DONE: 0, State.FAILED: 0, State.CANCELLED: 0, State.EXPIRED: 0},
        "times": {BatchState.VALIDATING: batch.created},
    })  # fmt: skip


async def test_a_batch_added_twice_is_there_as_it_was(store: Store):
    batch = a_batch()
    await store.batches.add(batch)
    await store.batches.advance(batch.id, among=[BatchState.VALIDATING], to=BatchState.FAILED)
    await store.batches.add(batch)
    assert (await store.batches.get(batch.id, caller=None)).state is BatchState.FAILED
    assert len((await store.batches.list(caller=None)).entries) == 1


async def test_a_step_is_taken_by_one_alone(store: Store):
    """Of ten that try, nine are told that somebody was faster."""
    batch = a_batch()
    await store.batches.add(batch)
    steps = [
        store.batches.advance(batch.id, among=[BatchState.VALIDATING], to=BatchState.IN_PROGRESS, total=number)
        for number in range(10)
    ]
    (taken,) = [told for told in await asyncio.gather(*steps) if told is not None]
    assert taken.state is BatchState.IN_PROGRESS
    assert taken.times[BatchState.VALIDATING] <= taken.times[BatchState.IN_PROGRESS] + 1
    assert await store.batches.get(batch.id, caller=None) == taken


async def test_fields_can_be_changed_and_unset(store: Store):
    """Without a step, too; what is not to be changed is not."""
    batch = a_batch(deadline=time.time() + 5)
    await store.batches.add(batch)
    among = [BatchState.VALIDATING]
    changed = await store.batches.advance(
        batch.id, among=among, output_file="file_2", errors=({"a": []},), deadline=None, expires_at=time.time() + 60
    )
    assert (changed.output_file, changed.errors, changed.deadline) == ("file_2", ({"a": []},), None)
    assert (changed.state, changed.times) == (BatchState.VALIDATING, {BatchState.VALIDATING: batch.created})
    with pytest.raises(TypeError, match="caller"):
        await store.batches.advance(batch.id, among=among, caller="bob")
    assert await store.batches.advance("batch_no", among=among) is None


async def test_lines_are_counted_once_each_by_how_they_end(store: Store):
    """Done, failed, cancelled, expired; and one that is run again is not counted until it ends again."""
    batch, jobs = a_batch(total=6), store.jobs
    await store.batches.add(batch)
    await jobs.add(*lines_of(batch.id, 5), a_job(batch=batch.id, id=f"{batch.id}-late", deadline=time.time() - 1))
    done, failed, cancelled, _, late = await take(jobs, 5, Kind.BATCH)
    for _ in range(2):
        await jobs.ack(done.claim, ANSWER)
        await jobs.fail(failed.claim, "no")
        await jobs.cancel(cancelled.id, caller=None)
        await jobs.ack(cancelled.claim, ANSWER)
    await store.purge()
    assert await counts(store, batch) == {"done": 1, "failed": 1, "cancelled": 1, "expired": 1}
    await jobs.retry(failed.id, caller=None)
    assert await counts(store, batch) == {"done": 1, "cancelled": 1, "expired": 1}
    await jobs.ack(late.claim, ANSWER)
    await jobs.ack((await run_one(jobs, Kind.BATCH)).claim, ANSWER)
    assert await counts(store, batch) == {"done": 3, "cancelled": 1, "expired": 1}
    assert not (await store.batches.get(batch.id, caller=None)).is_over


async def test_who_waits_for_a_batch_is_told_of_each_line(store: Store):
    batch = a_batch(total=1)
    await store.batches.add(batch)
    await store.jobs.add(*lines_of(batch.id, 1))
    with store.jobs.news(batch.id) as news:
        running = await run_one(store.jobs, Kind.BATCH)
        await store.jobs.ack(running.claim, ANSWER)
        assert await news.next(20)
    assert (await store.batches.get(batch.id, caller=None)).is_over


async def test_cancelling_the_lines_leaves_those_that_run(store: Store):
    """However many there are; other batches go on."""
    batch, jobs = a_batch(), store.jobs
    await store.batches.add(batch)
    await jobs.add(*lines_of(batch.id, 1100), *lines_of("batch_other", 3))
    running = await take(jobs, 100, Kind.BATCH)
    lines = sum(job.batch == batch.id for job in running)
    assert await jobs.cancel_lines(batch.id) == 1100 - lines
    assert await jobs.cancel_lines(batch.id) == 0
    assert await counts(store, batch) == {"cancelled": 1100 - lines}
    assert {job.batch for job in await take(jobs, kind=Kind.BATCH)} <= {"batch_other"}
    for job in running:
        assert await jobs.ack(job.claim, ANSWER)


async def test_deleting_the_lines_leaves_the_counts(store: Store):
    """And those that have not ended."""
    batch, jobs = a_batch(), store.jobs
    await store.batches.add(batch)
    await jobs.add(*lines_of(batch.id, 1100))
    running = await take(jobs, 10, Kind.BATCH)
    await jobs.cancel_lines(batch.id)
    assert await jobs.delete_lines(batch.id) == 1090
    assert await counts(store, batch) == {"cancelled": 1090}
    left = [job.id async for job in jobs.lines(batch.id)]
    assert left == [job.id for job in running]
    assert (await jobs.state()).jobs == 10


async def test_batches_are_listed_page_by_page(store: Store):
    """By caller and state, the newest first or the oldest."""
    told = [a_batch() for _ in range(3)]
    for batch in (*told, a_batch("bob")):
        await store.batches.add(batch)
    await store.batches.advance(told[1].id, among=[BatchState.VALIDATING], to=BatchState.CANCELLED)
    first = await store.batches.list(caller="ann", limit=2)
    second = await store.batches.list(caller="ann", limit=2, after=first.after)
    assert [batch.id for batch in (*first.entries, *second.entries)] == [batch.id for batch in told[::-1]]
    waiting = await store.batches.list(caller=None, states=[BatchState.VALIDATING], newest_first=False)
    assert [batch.caller for batch in waiting.entries] == ["ann", "ann", "bob"]


async def test_for_others_a_batch_does_not_exist(store: Store):
    batch = a_batch()
    await store.batches.add(batch)
    for name in ("bob", "", "\udcff"):
        assert await store.batches.get(batch.id, caller=name) is None
        assert not await store.batches.delete(batch.id, caller=name)
        with pytest.raises(BadRequest):
            await store.batches.list(caller=name, after=batch.id)
    assert await store.batches.delete(batch.id, caller="ann")
    assert await store.batches.get(batch.id, caller="ann") is None


async def test_a_batch_is_forgotten_when_its_time_is_over(store: Store):
    """Also where that was decided later."""
    now = a_batch(expires_at=time.time() - 1)
    soon, kept = a_batch(), a_batch()
    for batch in (now, soon, kept):
        await store.batches.add(batch)
    await store.batches.advance(soon.id, among=[BatchState.VALIDATING], expires_at=time.time() - 1)
    assert await store.batches.get(soon.id, caller=None) is None
    assert [batch.id for batch in (await store.batches.list(caller=None)).entries] == [kept.id]
    assert await store.purge() == 2


async def test_a_batch_that_is_to_stay_after_all_stays(store: Store):
    """Its end was taken back."""
    batch = a_batch(expires_at=time.time() + 0.05)
    await store.batches.add(batch)
    await store.batches.advance(batch.id, among=[BatchState.VALIDATING], expires_at=None)
    await over(batch.expires_at)
    assert await store.purge() == 0
    assert await store.batches.get(batch.id, caller=None) is not None


async def test_lines_end_though_their_batch_is_gone(jobs: JobStore):
    await jobs.add(*lines_of("batch_gone", 1), *some_jobs(0))
    running = await run_one(jobs, Kind.BATCH)
    assert await jobs.ack(running.claim, ANSWER)
