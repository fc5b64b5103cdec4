"""Idempotency-Key, in every engine: one job for each key of a caller, however often it is brought."""

import asyncio
import time

import pytest
from making import ANSWER, LONG, SHORT, a_job, run_one, some_jobs, state_of, take

from proxy.errors import KeyReused
from proxy.jobs import Job, JobStore, Kind, State
from proxy.jobs.store import Store


def keyed(key: str = "k1", caller: str = "ann", fingerprint: str = "f1", **fields) -> Job:
    return a_job(caller, key=key, fingerprint=fingerprint, **fields)


async def test_a_repeat_finds_the_first_job(jobs: JobStore):
    """Waiting, running or done, with its answer; and nothing else is run."""
    first, is_new = await jobs.find_or_add(keyed(body=b"first"))
    assert is_new

    async def repeat() -> Job:
        found, is_new = await jobs.find_or_add(keyed(body=b"second"))
        assert (found.id, found.body, is_new) == (first.id, b"first", False)
        return found

    assert (await repeat()).state is State.QUEUED
    running = await run_one(jobs)
    assert (await repeat()).state is State.RUNNING
    await jobs.ack(running.claim, ANSWER)
    assert (await repeat()).answer == ANSWER
    assert await take(jobs) == []


async def test_fifty_at_once_are_one_job(jobs: JobStore):
    found = await asyncio.gather(*[jobs.find_or_add(keyed()) for _ in range(50)])
    assert len({job.id for job, _ in found}) == 1
    assert [is_new for _, is_new in found].count(True) == 1
    assert len(await take(jobs)) == 1


async def test_the_same_key_with_another_request_is_refused(jobs: JobStore):
    """While it runs and afterwards; the first job is as it was."""
    first, _ = await jobs.find_or_add(keyed())
    with pytest.raises(KeyReused, match="send a new key"):
        await jobs.find_or_add(keyed(fingerprint="f2"))
    assert await state_of(jobs, first) == first


async def test_a_refusal_does_not_touch_its_neighbours(jobs: JobStore):
    """Though they were brought at the same moment, and written together."""
    await jobs.find_or_add(keyed())
    told = [keyed(f"k{number}", fingerprint="f2") for number in range(20)]
    outcomes = await asyncio.gather(*map(jobs.find_or_add, told), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(KeyReused) == 1
    assert len(await take(jobs)) == 20


async def test_keys_belong_to_their_callers(jobs: JobStore):
    """Names that could be confused are not: no separator is strong enough to be trusted."""
    pairs = [("ann", "k"), ("bob", "k"), ("ann:k", "k"), ("ann", "k:k"), ("a%3Ann", "k"), ("", "ann:k"), ("\udcff", "")]
    for caller, key in pairs:
        found = await jobs.find_or_add(keyed(key, caller, fingerprint=f"{caller} {key}"))
        assert found.is_new and (found.job.caller, found.job.key) == (caller, key)
    assert len(await take(jobs) + await take(jobs, kind=Kind.OWN)) == len(pairs)


async def test_a_key_is_free_again_when_its_job_is_forgotten(store: Store):
    """After its time, whether or not it was purged; and when it was deleted."""
    jobs = store.jobs
    first, _ = await jobs.find_or_add(keyed(keep=0))
    await jobs.ack((await run_one(jobs)).claim, ANSWER)
    second, is_new = await jobs.find_or_add(keyed(fingerprint="f2", keep=0))
    assert is_new and second.id != first.id
    await jobs.ack((await run_one(jobs)).claim, ANSWER)
    await store.purge()
    third, is_new = await jobs.find_or_add(keyed(fingerprint="f3"))
    assert is_new
    await jobs.cancel(third.id, caller=None)
    await jobs.delete(third.id, caller=None)
    assert (await jobs.find_or_add(keyed(fingerprint="f4"))).is_new
    assert (await jobs.state()).jobs == 1


async def test_a_job_may_be_born_running(jobs: JobStore):
    """Whoever brought it runs it; nobody else does, as long as it holds its lease."""
    job, is_new = await jobs.find_or_add(keyed(), lease=LONG)
    assert is_new and (job.state, job.fence, job.attempts) == (State.RUNNING, 1, 1)
    assert await take(jobs) == []
    assert not (await jobs.find_or_add(keyed(), lease=LONG)).is_new
    assert await jobs.ack(job.claim, ANSWER)


async def test_a_job_born_running_is_run_by_another_when_its_runner_is_gone(jobs: JobStore):
    job, _ = await jobs.find_or_add(keyed(), lease=SHORT)
    other = await run_one(jobs)
    assert (other.id, other.fence) == (job.id, 2)
    assert not await jobs.ack(job.claim, ANSWER)


async def test_each_kind_of_job_has_its_way_in(jobs: JobStore):
    """A key that is not asked about would be lost, or be found twice."""
    with pytest.raises(ValueError, match="find_or_add"):
        await jobs.add(keyed())
    with pytest.raises(ValueError, match="by add"):
        await jobs.find_or_add(a_job())


# ---- Somebody waits for it ----


async def test_a_job_that_somebody_waits_for_is_claimed_before_its_turn(jobs: JobStore):
    """Queued, or put off until later; those before it keep their order."""
    first, second = a_job(), a_job()
    await jobs.add(first, second)
    claimed = await jobs.claim_one(second.id, caller="ann", lease=LONG)
    assert (claimed.id, claimed.state, claimed.attempts, claimed.body) == (second.id, State.RUNNING, 1, b"{}")
    assert await jobs.fail(claimed.claim, "broken", retry_at=time.time() + LONG)
    again = await jobs.claim_one(second.id, caller="ann", lease=LONG)
    assert (again.fence, again.attempts) == (claimed.fence + 1, 2)
    assert [job.id for job in await take(jobs)] == [first.id]
    assert await jobs.ack(again.claim, ANSWER)


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED, State.EXPIRED])
async def test_what_did_not_end_well_is_begun_anew_by_who_waits_for_it(jobs: JobStore, end: State):
    """As `retry` has it, and claimed in the same step: nobody else gets it in between."""
    job, _ = await jobs.find_or_add(keyed(deadline=time.time() if end is State.EXPIRED else None))
    if end is State.FAILED:
        await jobs.fail((await run_one(jobs)).claim, "broken", answer=ANSWER)
    elif end is State.CANCELLED:
        await jobs.cancel(job.id, caller=None)
    else:
        await jobs.purge()
    assert (await state_of(jobs, job)).state is end
    with jobs.news(job.id) as news:
        claimed = await jobs.claim_one(job.id, caller="ann", lease=LONG)
        assert await news.next(20)
    assert (claimed.state, claimed.attempts, claimed.answer, claimed.error) == (State.RUNNING, 1, None, "")
    assert await take(jobs) == []
    assert await jobs.ack(claimed.claim, ANSWER)


async def test_what_runs_or_is_done_is_nobodys_to_claim(jobs: JobStore):
    """Nor is another caller's, nor what is not there; of fifty at once one gets it."""
    job, _ = await jobs.find_or_add(keyed())
    assert await jobs.claim_one(job.id, caller="bob", lease=LONG) is None
    claimed = await asyncio.gather(*[jobs.claim_one(job.id, caller=None, lease=LONG) for _ in range(50)])
    (mine,) = filter(None, claimed)
    await jobs.ack(mine.claim, ANSWER)
    assert await jobs.claim_one(job.id, caller=None, lease=LONG) is None
    assert await jobs.claim_one("job_no", caller=None, lease=LONG) is None
    done = await state_of(jobs, job)
    assert (done.state, done.answer, done.attempts) == (State.DONE, ANSWER, 1)


async def test_a_claim_that_lapsed_is_anothers_and_the_late_one_overwrites_nothing(jobs: JobStore):
    late, _ = await jobs.find_or_add(keyed(), lease=SHORT)
    async with asyncio.timeout(20):
        while (await state_of(jobs, late)).state is State.RUNNING:
            await jobs.claim(Kind.BATCH, 1, LONG)
    second = await jobs.claim_one(late.id, caller="ann", lease=LONG)
    assert not await jobs.ack(late.claim, ANSWER)
    assert await jobs.ack(second.claim, ANSWER)


async def test_whoever_is_served_at_once_moves_nobody_back(jobs: JobStore):
    """Jobs born running, or claimed before their turn, take no turn: another caller's is as near as it was."""
    await jobs.add(*some_jobs(20, "many"))
    _, is_new = await jobs.find_or_add(keyed(caller="many"), lease=LONG)
    assert is_new
    last = a_job("many")
    await jobs.add(last)
    assert await jobs.claim_one(last.id, caller="many", lease=LONG)
    await jobs.add(a_job("few"))
    assert "few" in [job.caller for job in await take(jobs, 2)]
