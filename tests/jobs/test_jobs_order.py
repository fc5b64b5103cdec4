"""Who goes next, and who is told when somebody may: in every engine."""

import asyncio
import time

import pytest
from making import ANSWER, LONG, a_job, run_one, some_jobs, take

from proxy.jobs import SERVICE, JobStore, Kind
from proxy.line import Priority


async def test_jobs_of_one_caller_go_in_the_order_of_coming(jobs: JobStore):
    """Whether they came one by one or together."""
    told = some_jobs(30)
    await jobs.add(*told[:10])
    for job in told[10:]:
        await jobs.add(job)
    assert [job.id for job in await take(jobs, 7)] == [job.id for job in told[:7]]
    assert [job.id for job in await take(jobs)] == [job.id for job in told[7:]]


async def test_the_higher_priority_goes_first(jobs: JobStore):
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
        await jobs.add(a_job(priority=priority))
    order = [job.priority.name for job in await take(jobs)]
    assert order == ["HIGH", "HIGH", "NORMAL", "LOW", "LOW"]


async def test_batch_jobs_are_claimed_apart(jobs: JobStore):
    """So that whoever feeds the line decides how many of each."""
    live, batch = a_job(), a_job(priority=Priority.BATCH)
    await jobs.add(batch, live)
    assert [job.id for job in await take(jobs, kind=Kind.LIVE)] == [live.id]
    assert [job.id for job in await take(jobs, kind=Kind.BATCH)] == [batch.id]


async def test_the_services_own_work_is_claimed_apart(jobs: JobStore):
    """A line that is full of callers' jobs does not hold it up, whatever priority it names."""
    live = a_job(priority=Priority.HIGH)
    own = [a_job(SERVICE, priority=priority) for priority in (Priority.HIGH, Priority.BATCH)]
    with jobs.news(Kind.OWN.topic) as news:
        await jobs.add(live, *own)
        assert await news.next(20)
    assert await jobs.position(live.id) == 2
    assert [job.id for job in await take(jobs, kind=Kind.LIVE)] == [live.id]
    assert await take(jobs, kind=Kind.BATCH) == []
    assert [job.id for job in await take(jobs, kind=Kind.OWN)] == [job.id for job in own]


@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.BATCH])
async def test_callers_take_turns(jobs: JobStore, priority: Priority):
    """Whoever has two jobs does not wait for another's two hundred, whenever they came."""
    kind = Kind.of(priority)
    await jobs.add(*some_jobs(200, "many", priority=priority))
    await take(jobs, 50, kind)
    await jobs.add(*some_jobs(2, "few", priority=priority))
    callers = [job.caller for job in await take(jobs, 6, kind)]
    assert sorted(callers[:2]) == sorted(callers[2:4]) == ["few", "many"]
    assert callers[4:] == ["many"] * 2


async def test_whoever_was_away_does_not_catch_up(jobs: JobStore):
    """A caller who asks for nothing saves no turns."""
    await jobs.add(a_job("rare"))
    await take(jobs)
    await jobs.add(*some_jobs(100, "often"))
    await take(jobs, 90)
    await jobs.add(*some_jobs(10, "rare"))
    callers = [job.caller for job in await take(jobs, 10)]
    assert callers.count("rare") == callers.count("often") == 5


async def test_whoever_takes_its_jobs_back_keeps_its_turn(jobs: JobStore):
    """Those that were cancelled never ran: what it asks for next is not behind two hundred of another's."""
    told = some_jobs(200, "many")
    await jobs.add(*told)
    for job in told[:-1]:
        await jobs.cancel(job.id, caller="many")
    await jobs.add(*some_jobs(200, "few"))
    await jobs.cancel(told[-1].id, caller="many")
    await jobs.add(a_job("many"))
    assert "many" in [job.caller for job in await take(jobs, 2)]


async def test_a_position_is_how_many_go_before(jobs: JobStore):
    """Batch jobs stand behind all live ones; what runs has no position."""
    low, high, batch = a_job(priority=Priority.LOW), a_job(priority=Priority.HIGH), a_job(priority=Priority.BATCH)
    await jobs.add(batch, low, high, *some_jobs(3))
    assert [await jobs.position(job.id) for job in (high, low, batch)] == [0, 4, 5]
    await take(jobs, 2)
    assert [await jobs.position(job.id) for job in (high, low, batch)] == [None, 2, 3]


async def test_a_delayed_job_has_the_position_that_it_comes_back_to(jobs: JobStore):
    await jobs.add(*some_jobs(3))
    first = await run_one(jobs)
    await jobs.fail(first.claim, "broken", retry_at=time.time() + LONG)
    assert await jobs.position(first.id) == 0
    assert len(await take(jobs)) == 2


# ---- News ----


async def test_who_waits_is_told_of_a_new_job(jobs: JobStore):
    """At once, not when its patience ends."""
    waiting = asyncio.create_task(run_one(jobs))
    await asyncio.sleep(0)
    await jobs.add(job := a_job())
    assert (await waiting).id == job.id


async def test_what_is_told_between_looking_and_waiting_is_not_missed(jobs: JobStore):
    with jobs.news(Kind.LIVE.topic) as news:
        assert (await jobs.claim(Kind.LIVE, 1, LONG)).jobs == ()
        await jobs.add(a_job())
        assert await news.next(20)
        assert not await news.next(0)


async def test_kinds_have_news_of_their_own(jobs: JobStore):
    with jobs.news(Kind.LIVE.topic) as live, jobs.news(Kind.BATCH.topic) as batch:
        await jobs.add(a_job(priority=Priority.BATCH))
        assert await batch.next(20)
        assert not await live.next(0)


async def test_who_waits_for_a_job_is_told_of_each_step(jobs: JobStore):
    job, other = a_job(), a_job()
    await jobs.add(job, other)
    with jobs.news(job.id) as news:
        running = await run_one(jobs)
        assert await news.next(20)
        await jobs.note(running.claim, "half")
        assert await news.next(20)
        await jobs.ack(running.claim, ANSWER)
        assert await news.next(20)
        await jobs.ack((await run_one(jobs)).claim, ANSWER)
        assert not await news.next(0)


async def test_whoever_finds_nothing_knows_when_to_look_again(jobs: JobStore):
    """After a lease at most, for others may have claimed meanwhile; earlier if something is due."""
    assert (await jobs.claim(Kind.LIVE, 1, LONG)).again == LONG
    await jobs.add(a_job())
    running = await run_one(jobs, lease=20)
    assert 15 < (await jobs.claim(Kind.LIVE, 1, LONG)).again <= 20
    await jobs.fail(running.claim, "broken", retry_at=time.time() + 10)
    assert 5 < (await jobs.claim(Kind.LIVE, 1, LONG)).again <= 10
