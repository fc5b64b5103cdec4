"""Lists, and whose jobs they show: in every engine."""

import pytest
from making import ANSWER, a_job, lines_of, run_one, some_jobs, take

from proxy.errors import BadRequest
from proxy.jobs import Job, JobStore, Kind, State


async def pages(jobs: JobStore, **wanted) -> list[list[Job]]:
    """Page by page to the end."""
    found, after = [], None
    while True:
        page = await jobs.list(**{"caller": None, **wanted}, after=after)
        found.append(list(page.entries))
        if (after := page.after) is None:
            return found


def ids(*told: list[Job]) -> list[str]:
    return [job.id for page in told for job in page]


async def test_a_list_goes_page_by_page(jobs: JobStore):
    """The newest first or the oldest; each job once; the last page says that it is."""
    told = some_jobs(7)
    await jobs.add(*told)
    newest = await pages(jobs, limit=3)
    assert [len(page) for page in newest] == [3, 3, 1]
    assert ids(*newest) == ids(told[::-1])
    oldest = await pages(jobs, limit=7, newest_first=False)
    assert [ids(page) for page in oldest] == [ids(told)]


async def test_pages_do_not_shift_when_jobs_come(jobs: JobStore):
    told = some_jobs(4)
    await jobs.add(*told)
    first = await jobs.list(caller=None, limit=2)
    await jobs.add(*some_jobs(3))
    second = await jobs.list(caller=None, limit=2, after=first.after)
    assert ids(first.entries, second.entries) == ids(told[::-1])


async def test_a_list_leaves_bodies_and_answers_out(jobs: JobStore):
    """A page of them may be a gigabyte."""
    await jobs.add(a_job(body=b"long"))
    await jobs.ack((await run_one(jobs)).claim, ANSWER)
    (job,) = (await jobs.list(caller=None)).entries
    assert (job.state, job.body, job.answer) == (State.DONE, b"", None)


async def test_a_list_can_ask_for_states(jobs: JobStore):
    """Some of few among many others, in full pages."""
    await jobs.add(*some_jobs(30))
    done = await take(jobs, 7)
    for job in done:
        await jobs.ack(job.claim, ANSWER)
    running = await take(jobs, 2)
    assert ids(*await pages(jobs, states=[State.DONE], newest_first=False, limit=3)) == ids(done)
    both = await pages(jobs, states=[State.DONE, State.RUNNING], newest_first=False, limit=5)
    assert [ids(page) for page in both] == [ids(done[:5]), ids(done[5:], running)]
    assert await pages(jobs, states=[State.FAILED]) == [[]]


async def test_few_among_thousands_are_found(jobs: JobStore):
    """However far they lie behind what is not asked for."""
    early, late = a_job(), a_job()
    await jobs.add(early, *some_jobs(5000), late)
    for job in (early, late):
        await jobs.cancel(job.id, caller=None)
    assert ids(*await pages(jobs, states=[State.CANCELLED], limit=10)) == [late.id, early.id]


async def test_lines_of_a_batch_are_in_its_list_alone(jobs: JobStore):
    """Fifty thousand of them would bury what else a caller has."""
    job, lines = a_job(), lines_of("batch_1", 5)
    await jobs.add(*lines, job, *lines_of("batch_2", 2))
    assert ids(*await pages(jobs)) == ids(*await pages(jobs, caller="ann")) == [job.id]
    assert ids(*await pages(jobs, batch="batch_1", newest_first=False, limit=2)) == ids(lines)
    assert await pages(jobs, batch="batch_1", caller="bob") == [[]]
    assert await pages(jobs, batch="batch_3") == [[]]


async def test_lines_come_with_their_answers_in_the_order_of_the_file(jobs: JobStore):
    """Whatever the order in which they were run."""
    lines = lines_of("batch_1", 50)
    await jobs.add(*lines[:20])
    await jobs.add(*lines)  # the first twenty are there already
    for job in reversed(await take(jobs, 50, Kind.BATCH)):
        await jobs.ack(job.claim, ANSWER._replace(body=str(job.custom_id).encode()))
    told = [job async for job in jobs.lines("batch_1")]
    assert ids(told) == ids(lines)
    assert [job.answer and job.answer.body.decode() for job in told] == [line.custom_id for line in lines]


@pytest.mark.parametrize("after", ["job_no", "\udcff", ""])
async def test_a_page_behind_nothing_is_a_bad_request(jobs: JobStore, after: str):
    await jobs.add(a_job())
    with pytest.raises(BadRequest) as refused:
        await jobs.list(caller="ann", after=after)
    assert refused.value.param == "after"


# ---- Whose they are ----

NAMES = ["ann", "an", "ann:", "{ann}", "Ann", "", "анна", "an%6E", "\udcff"]


@pytest.mark.parametrize("name", NAMES[1:])
async def test_for_others_a_job_does_not_exist(jobs: JobStore, name: str):
    """Not to be seen, counted, cancelled, run again, deleted or paged behind; and nothing is changed by trying."""
    job = a_job("ann")
    await jobs.add(job)
    assert await jobs.get(job.id, caller=name) is None
    assert (await jobs.list(caller=name)).entries == ()
    assert await jobs.cancel(job.id, caller=name) is None
    await jobs.cancel(job.id, caller="ann")
    assert await jobs.retry(job.id, caller=name) is None
    assert not await jobs.delete(job.id, caller=name)
    with pytest.raises(BadRequest):
        await jobs.list(caller=name, after=job.id)
    assert (await jobs.get(job.id, caller="ann")).state is State.CANCELLED


async def test_each_caller_sees_its_own_jobs(jobs: JobStore):
    told = {name: a_job(name) for name in NAMES}
    await jobs.add(*told.values())
    for name, job in told.items():
        assert ids((await jobs.list(caller=name)).entries) == [job.id]
    assert len((await jobs.list(caller=None)).entries) == len(NAMES)
