"""A job's life, in every engine: accepted, run, ended once; and whoever is late changes nothing."""

import asyncio
import time

import pytest
from making import ANSWER, LONG, SHORT, a_job, over, run_one, some_jobs, state_of, take

from proxy.jobs import Answer, Claim, Job, JobStore, Kind, State
from proxy.line import Priority

#: What a job has when it comes.
CAME = Job.__slots__[: Job.__slots__.index("state")]


async def test_what_is_accepted_comes_back_as_it_was(jobs: JobStore):
    """Every field, whatever bytes and words are in it."""
    job = a_job(
        "Анна: {a} %2F\n\0\udcff",
        operation="raw",
        dialect="gigachat",
        method="PUT",
        path="/api/v1/x?y=%D0%B0&z=\udcff",
        headers={"X-Client-ID": "c\udcff", "Accept": "*/*"},
        body=bytes(range(256)) * 3,
        priority=Priority.LOW,
        custom_id="строка ☃ \0",
        webhook="https://example.org/hook?token=1",
        created=1_700_000_000.25,
        deadline=time.time() + 3600.5,
        keep=12.5,
    )
    await jobs.add(job)
    assert await jobs.get(job.id, caller=job.caller) == job
    running = await run_one(jobs)
    assert [getattr(running, name) for name in CAME] == [getattr(job, name) for name in CAME]


async def test_a_job_is_queued_then_runs_then_is_done(jobs: JobStore):
    """With the times of its steps, and its answer at the end."""
    began = time.time()
    job = a_job(keep=100)
    await jobs.add(job)
    assert (await state_of(jobs, job)).state is State.QUEUED
    running = await run_one(jobs)
    assert (running.state, running.attempts, running.answer) == (State.RUNNING, 1, None)
    assert await jobs.ack(running.claim, ANSWER)
    done = await state_of(jobs, job)
    assert (done.state, done.answer, done.body) == (State.DONE, ANSWER, job.body)
    assert began - 1 < done.started <= done.finished < time.time() + 1
    assert done.expires_at == pytest.approx(done.finished + 100)
    assert await take(jobs) == []


async def test_an_empty_answer_is_an_answer(jobs: JobStore):
    await jobs.add(a_job())
    running = await run_one(jobs)
    await jobs.ack(running.claim, Answer(204, "", b""))
    assert (await state_of(jobs, running)).answer == Answer(204, "", b"")


async def test_a_failed_job_tells_why_and_what_its_caller_gets(jobs: JobStore):
    await jobs.add(a_job())
    running = await run_one(jobs)
    refusal = Answer(402, "application/json", b'{"error": 1}')
    assert await jobs.fail(running.claim, "upstream_error: no money\udcff", answer=refusal)
    failed = await state_of(jobs, running)
    assert (failed.state, failed.error, failed.answer) == (State.FAILED, "upstream_error: no money?", refusal)


async def test_a_failed_attempt_may_be_followed_by_another_later(jobs: JobStore):
    """Not before its time; and then it is news."""
    await jobs.add(a_job())
    first = await run_one(jobs)
    assert await jobs.fail(first.claim, "broken", retry_at=time.time() + SHORT)
    waiting = await state_of(jobs, first)
    assert (waiting.state, waiting.error) == (State.QUEUED, "broken")
    assert (await jobs.state()).delayed == 1
    second = await run_one(jobs)
    assert time.time() >= first.started + SHORT
    assert (second.id, second.attempts) == (first.id, 2)


async def test_a_job_given_back_keeps_its_place_and_has_not_been_tried(jobs: JobStore):
    """It stands before those that came after it."""
    await jobs.add(*some_jobs(2))
    first = await run_one(jobs)
    assert await jobs.release(first.claim)
    again = await run_one(jobs)
    assert (again.id, again.attempts, again.fence) == (first.id, 1, 2)


async def test_progress_is_noted_while_it_runs(jobs: JobStore):
    await jobs.add(a_job())
    running = await run_one(jobs)
    assert await jobs.note(running.claim, "7 chunks")
    assert (await state_of(jobs, running)).progress == "7 chunks"
    await jobs.ack(running.claim, ANSWER)
    assert not await jobs.note(running.claim, "8 chunks")


async def test_a_job_added_twice_is_there_once(jobs: JobStore):
    """As it was the first time: whoever does not know whether it was accepted says it again."""
    job = a_job(body=b"first")
    await jobs.add(job, job)
    await run_one(jobs)
    await jobs.add(a_job(id=job.id, body=b"second"), other := a_job())
    assert (await state_of(jobs, job)).body == b"first"
    assert [found.id for found in await take(jobs)] == [other.id]


async def test_nothing_is_no_job(jobs: JobStore):
    await jobs.add()
    assert await jobs.get("job_no", caller=None) is None
    assert await jobs.get("\udcff'; DROP TABLE jobs; --", caller=None) is None
    assert await jobs.position("job_no") is None
    assert await jobs.cancel("job_no", caller=None) is None
    assert await jobs.retry("job_no", caller=None) is None
    assert not await jobs.delete("job_no", caller=None)
    assert not await jobs.ack(Claim("job_no", 1), ANSWER)


def test_a_job_does_not_tell_what_is_in_it():
    """Prompts, headers and addresses of webhooks are nobody's business."""
    told = repr(a_job(id="job_1", body=b"secret", headers={"a": "secret"}, webhook="https://secret"))
    assert told == "<Job job_1 of 'ann' queued attempts=0 fence=0>"


# ---- Fences and leases ----


async def test_a_late_first_runner_overwrites_nothing(jobs: JobStore):
    """Its lease ended, another ran the job: the first one's answer, failure, progress and return are refused."""
    await jobs.add(a_job())
    late = await run_one(jobs, lease=SHORT)
    second = await run_one(jobs)
    assert (second.id, second.fence, second.attempts) == (late.id, late.fence + 1, 2)
    for _ in range(2):  # while the second runs, and when it has ended
        assert not await jobs.ack(late.claim, Answer(200, "text/plain", b"late"))
        assert not await jobs.fail(late.claim, "late")
        assert not await jobs.fail(late.claim, "late", retry_at=time.time())
        assert not await jobs.release(late.claim)
        assert not await jobs.note(late.claim, "late")
        assert await jobs.renew([late.claim], LONG) == {late.id}
        assert await jobs.ack(second.claim, ANSWER)
    done = await state_of(jobs, second)
    assert (done.state, done.answer, done.error) == (State.DONE, ANSWER, "")


async def test_a_lease_that_ended_unnoticed_is_still_good(jobs: JobStore):
    """As long as nobody else has claimed the job, its answer is welcome: it was paid for."""
    await jobs.add(a_job())
    running = await run_one(jobs, lease=0.001)
    await over(time.time() + 0.002)
    assert await jobs.ack(running.claim, ANSWER)


@pytest.mark.parametrize("renews", [True, False])
async def test_a_lease_that_ended_is_still_good_when_it_was_noticed(jobs: JobStore, renews: bool):
    """A claim of other jobs has put it back in line, where nobody took it: it is renewed, and its answer is kept."""
    await jobs.add(a_job())
    running = await run_one(jobs, lease=0.001)
    await over(time.time() + 0.002)
    assert (await jobs.claim(Kind.BATCH, 1, LONG)).jobs == ()
    assert (await state_of(jobs, running)).state is State.QUEUED
    if renews:
        assert await jobs.renew([running.claim], LONG) == frozenset()
        assert (await state_of(jobs, running)).state is State.RUNNING
    assert await jobs.note(running.claim, "half")
    assert await jobs.ack(running.claim, ANSWER)
    assert (await state_of(jobs, running)).answer == ANSWER
    assert await take(jobs) == []


@pytest.mark.parametrize("how", ["release", "fail"])
async def test_whoever_has_given_a_job_back_tells_no_more_of_it(jobs: JobStore, how: str):
    """Neither its end nor that it goes on, though nobody else has claimed it yet."""
    await jobs.add(a_job())
    running = await run_one(jobs)
    assert await (jobs.release(running.claim) if how == "release" else jobs.fail(running.claim, "", retry_at=0))
    await jobs.claim(Kind.BATCH, 1, LONG)
    assert await jobs.renew([running.claim], LONG) == {running.id}
    assert not await jobs.ack(running.claim, ANSWER)
    again = await state_of(jobs, running)
    assert (again.state, again.started) == (State.QUEUED, None)


async def test_a_cancelled_job_that_is_run_again_is_not_its_first_runners(jobs: JobStore):
    """Even before somebody else has claimed it."""
    await jobs.add(a_job())
    running = await run_one(jobs)
    await jobs.cancel(running.id, caller=None)
    await jobs.retry(running.id, caller=None)
    assert await jobs.renew([running.claim], LONG) == {running.id}
    assert not await jobs.ack(running.claim, ANSWER)
    assert (await run_one(jobs)).fence == running.fence + 1


async def test_after_a_silence_whoever_runs_a_job_has_time_to_renew_it(jobs: JobStore):
    """Nobody was heard for longer than a runner is silent: the store was away, and those who run may well be there."""
    await jobs.add(*some_jobs(2))
    lease = 0.6
    alive = await run_one(jobs, lease=lease)
    dead = await run_one(jobs, lease=lease)
    await over(time.time() + lease)
    assert (await jobs.claim(Kind.LIVE, 2, lease)).jobs == ()
    assert await jobs.renew([alive.claim], LONG) == frozenset()
    assert (await run_one(jobs, lease=lease)).id == dead.id


async def test_whoever_renews_keeps_the_job(jobs: JobStore):
    """Until it stops; then the job goes to the next."""
    await jobs.add(a_job())
    running = await run_one(jobs, lease=0.001)
    assert await jobs.renew([running.claim], LONG) == frozenset()
    claimed = await jobs.claim(Kind.LIVE, 1, 2 * LONG)
    assert claimed.jobs == ()
    assert LONG - 5 < claimed.again <= LONG
    assert await jobs.renew([running.claim], SHORT) == frozenset()
    assert (await run_one(jobs)).id == running.id


async def test_telling_the_end_twice_is_telling_it_once(jobs: JobStore):
    """Whoever does not know whether it was heard says it again; another end is refused."""
    await jobs.add(a_job())
    running = await run_one(jobs)
    assert await jobs.ack(running.claim, ANSWER)
    assert await jobs.ack(running.claim, Answer(200, "", b"another"))
    assert not await jobs.fail(running.claim, "no")
    assert (await state_of(jobs, running)).answer == ANSWER


async def test_a_hundred_claims_at_once_give_each_job_once(jobs: JobStore):
    await jobs.add(*some_jobs(100))
    claims = await asyncio.gather(*[jobs.claim(Kind.LIVE, 3, LONG) for _ in range(100)])
    ids = [job.id for claimed in claims for job in claimed.jobs]
    assert len(ids) == len(set(ids)) == 100


# ---- Cancelling, and trying again ----


async def test_a_queued_job_that_is_cancelled_does_not_run(jobs: JobStore):
    job = a_job()
    await jobs.add(job)
    assert await jobs.cancel(job.id, caller="ann") is State.CANCELLED
    assert await take(jobs) == []
    cancelled = await state_of(jobs, job)
    assert cancelled.finished is not None and cancelled.expires_at is not None


async def test_a_delayed_job_that_is_cancelled_does_not_run(jobs: JobStore):
    await jobs.add(a_job())
    first = await run_one(jobs)
    await jobs.fail(first.claim, "broken", retry_at=time.time())
    assert await jobs.cancel(first.id, caller=None) is State.CANCELLED
    assert await take(jobs) == []
    assert (await jobs.state()).delayed == 0


async def test_a_running_job_that_is_cancelled_has_no_answer(jobs: JobStore):
    """Its runner hears of it, and what it brings is refused."""
    await jobs.add(a_job())
    running = await run_one(jobs)
    with jobs.news(running.id) as news:
        assert await jobs.cancel(running.id, caller=None) is State.CANCELLED
        assert await news.next(20)
    assert await jobs.renew([running.claim], LONG) == {running.id}
    assert not await jobs.ack(running.claim, ANSWER)
    assert (await state_of(jobs, running)).answer is None


@pytest.mark.parametrize("end", [State.DONE, State.FAILED, State.CANCELLED])
async def test_cancelling_what_has_ended_changes_nothing(jobs: JobStore, end: State):
    await jobs.add(a_job())
    running = await run_one(jobs)
    if end is State.DONE:
        await jobs.ack(running.claim, ANSWER)
    elif end is State.FAILED:
        await jobs.fail(running.claim, "no")
    else:
        await jobs.cancel(running.id, caller=None)
    before = await state_of(jobs, running)
    assert await jobs.cancel(running.id, caller=None) is end
    assert await state_of(jobs, running) == before


async def test_a_job_that_failed_can_be_run_again(jobs: JobStore):
    """As if it were new, but for its fence."""
    await jobs.add(a_job())
    first = await run_one(jobs)
    await jobs.fail(first.claim, "no", answer=Answer(502, "", b"an error"))
    assert await jobs.retry(first.id, caller=None) is State.QUEUED
    queued = await state_of(jobs, first)
    assert (queued.state, queued.attempts, queued.error, queued.answer) == (State.QUEUED, 0, "", None)
    assert queued.started is queued.finished is queued.expires_at is None
    second = await run_one(jobs)
    assert not await jobs.fail(first.claim, "late")
    assert await jobs.ack(second.claim, ANSWER)


async def test_a_job_that_was_too_late_can_be_run_again(jobs: JobStore):
    """Its deadline is over, so it has none any more."""
    job = a_job(deadline=time.time() - 1)
    await jobs.add(job)
    assert await take(jobs) == []
    assert (await state_of(jobs, job)).state is State.EXPIRED
    assert await jobs.retry(job.id, caller=None) is State.QUEUED
    assert (await run_one(jobs)).id == job.id


async def test_what_runs_or_is_done_is_not_run_again(jobs: JobStore):
    await jobs.add(a_job())
    running = await run_one(jobs)
    assert await jobs.retry(running.id, caller=None) is State.RUNNING
    await jobs.ack(running.claim, ANSWER)
    assert await jobs.retry(running.id, caller=None) is State.DONE
    assert await take(jobs) == []


async def test_only_what_has_ended_can_be_deleted(jobs: JobStore):
    await jobs.add(a_job())
    assert not await jobs.delete((await run_one(jobs, lease=SHORT)).id, caller=None)
    running = await run_one(jobs)
    await jobs.ack(running.claim, ANSWER)
    assert await jobs.delete(running.id, caller=None)
    assert await jobs.get(running.id, caller=None) is None
    assert (await jobs.state()).jobs == 0


async def test_a_job_may_be_looked_at_while_it_is_deleted(jobs: JobStore):
    """It is there, or it is not; nothing in between."""
    told = some_jobs(50)
    await jobs.add(*told)
    for job in told:
        await jobs.cancel(job.id, caller=None)
    looks = [jobs.get(job.id, caller=None) for job in told for _ in range(4)]
    *seen, _ = await asyncio.gather(*looks, asyncio.gather(*[jobs.delete(job.id, caller=None) for job in told]))
    assert {None if job is None else job.state for job in seen} <= {None, State.CANCELLED}
    assert (await jobs.state()).jobs == 0
