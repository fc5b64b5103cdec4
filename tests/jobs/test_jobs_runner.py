"""The runner, on every engine: it feeds the line in tens, gives back what did not begin, and tells how all ended."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from making import ANSWER, LONG, SHORT, OpenStore, Place, a_job, over, run_one, state_of
from running import until
from runs import Api, Unsteady, at_work, ended, put_off, until_it_is

from proxy.errors import (
    BadRequest,
    JobsFull,
    JobsUnavailable,
    LineFull,
    ProxyError,
    Stopping,
    UpstreamError,
    UpstreamTimeout,
)
from proxy.jobs import SERVICE, Claim, Job, JobStore, Kind, Room, State, ledger, runner
from proxy.jobs.run import SENT, Run
from proxy.jobs.runner import WAITING, GiveUp, Runner, TryLater
from proxy.jobs.store import Store
from proxy.line import Priority


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt follows at once, and so does another word to the store."""
    monkeypatch.setattr(runner, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(ledger, "FIRST_PAUSE", 0.01)


def a_request(**fields: Any) -> Job:
    return a_job(operation="request", **fields)


def an_errand(operation: str = "errand", **fields: Any) -> Job:
    """Work of the service's own."""
    return a_job(SERVICE, operation=operation, priority=Priority.HIGH, **fields)


# -- taking


async def test_a_job_is_run_and_its_answer_kept(store: Store):
    api = Api()
    async with at_work(store, api) as runs:
        job = a_request()
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
        await until(lambda: runs.under_way == 0)
    assert (done.state, done.answer, done.attempts) == (State.DONE, ANSWER, 1)
    assert api.called == [job.id]


async def test_what_was_there_before_is_run_too(store: Store):
    """A backlog of the last life of the service."""
    jobs = [a_request() for _ in range(25)]
    await store.jobs.add(*jobs)
    api = Api()
    async with at_work(store, api):
        assert {job.state for job in await ended(store.jobs, *jobs)} == {State.DONE}
    assert sorted(api.called) == sorted(job.id for job in jobs)


async def test_no_more_than_ten_wait_in_the_line(store: Store):
    """Whoever leaves it makes room for one."""
    jobs = [a_request() for _ in range(40)]
    await store.jobs.add(*jobs)
    api = Api(is_open=False, is_slow=True)
    async with at_work(store, api):
        await until(lambda: len(api.waiting) == WAITING)
        api.let(3)
        await until(lambda: len(api.in_flight) == 3 and len(api.waiting) == WAITING)
        assert (await store.jobs.state()).running == WAITING + 3
        api.is_open, api.is_slow = True, False
        await ended(store.jobs, *jobs)
    assert api.most_waiting == WAITING


async def test_batches_have_ten_places_of_their_own(store: Store):
    """A backlog of the one kind holds up nobody of the other."""
    live = [a_request() for _ in range(15)]
    batch = [a_request(priority=Priority.BATCH) for _ in range(15)]
    await store.jobs.add(*live)
    await store.jobs.add(*batch)
    api = Api(is_open=False)
    async with at_work(store, api):
        await until(lambda: len(api.waiting) == 2 * WAITING)
        assert len({job.id for job in live} & set(api.waiting)) == WAITING


async def test_those_who_are_waited_for_take_no_place_of_the_tens(store: Store):
    """Requests with an Idempotency-Key are begun by whoever brings them, however many they are."""
    api = Api(is_open=False)
    async with at_work(store, api) as runs:
        for number in range(2 * WAITING):
            job = a_request(key=str(number))
            runs.begin((await store.jobs.find_or_add(job, lease=LONG)).job)
        jobs = [a_request() for _ in range(WAITING)]
        await store.jobs.add(*jobs)
        await until(lambda: len(api.waiting) == 3 * WAITING)


async def test_only_so_many_are_under_way_at_all(store: Store, monkeypatch: pytest.MonkeyPatch):
    """An API without limits is not called by a whole backlog at once."""
    monkeypatch.setitem(runner.UNDER_WAY, Kind.LIVE, 15)
    jobs = [a_request() for _ in range(30)]
    await store.jobs.add(*jobs)
    api = Api(is_slow=True)
    async with at_work(store, api) as runs:
        await until(lambda: len(api.in_flight) == 15)
        assert runs.under_way == 15
        api.is_slow = False
        await ended(store.jobs, *jobs)


# -- failing


async def test_what_may_pass_is_tried_again(store: Store):
    """Until it succeeds; each attempt counts."""
    api = Api(UpstreamError(500), UpstreamError(503), UpstreamError(None))
    async with at_work(store, api):
        job = a_request()
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
    assert (done.state, done.attempts, done.error) == (State.DONE, 4, "")
    assert api.called == [job.id] * 4


async def test_it_fails_when_all_attempts_are_spent_with_the_last_answer(store: Store):
    api = Api(*[UpstreamError(503)] * 9)
    async with at_work(store, api, attempts=3):
        job = a_request()
        await store.jobs.add(job)
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, len(api.called)) == (State.FAILED, 3)
    assert failed.answer is not None and failed.answer.status == 503
    assert failed.error == "the upstream answered 503"


async def test_pauses_between_attempts_grow(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Three times as long each, half of it random, and no longer than the longest."""
    monkeypatch.setattr(runner, "FIRST_BACKOFF", 10.0)
    runs, job = Runner(store, Api().serve, {}), a_request()
    pauses = [runs._backoff(Run(replace(job, attempts=attempts), LONG)) for attempts in (1, 2, 3, 50)]
    for pause, longest in zip(pauses, (10, 30, 90, runner.LONGEST_BACKOFF), strict=True):
        assert longest / 2 <= pause <= longest


async def test_the_pause_is_as_long_as_the_api_asks(store: Store):
    api = Api(UpstreamError(503, retry_after=3600))
    async with at_work(store, api):
        job = a_request()
        await store.jobs.add(job)
        found = await put_off(store.jobs, job)
        assert (await store.jobs.state()).delayed == 1
    assert (found.attempts, found.error) == (1, "the upstream answered 503")


@pytest.mark.parametrize("failure", [BadRequest("no"), UpstreamError(422), UpstreamTimeout(60)], ids=repr)
async def test_what_no_attempt_can_mend_fails_at_once(store: Store, failure: ProxyError):
    """A call that timed out may be paid for, so it is not made again."""
    api = Api(failure)
    async with at_work(store, api):
        job = a_request()
        await store.jobs.add(job)
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, failed.attempts, failed.error) == (State.FAILED, 1, str(failure))


async def test_whoever_waits_for_it_here_gets_the_failure_at_once(store: Store):
    """And says himself whether it is to be tried again."""
    api = Api(UpstreamError(503), is_open=False)
    async with at_work(store, api) as runs:
        run = runs.begin((await store.jobs.find_or_add(a_request(key="k"), lease=LONG)).job)
        run.followers += 1
        api.let(1)
        (failed,) = await ended(store.jobs, run.job)
    assert (failed.state, failed.attempts) == (State.FAILED, 1)


async def test_a_bug_of_ours_is_told_and_ends_the_job(store: Store, caplog: pytest.LogCaptureFixture):
    """The log has the traceback; the job does not stay for ever."""
    async with at_work(store, Api(ZeroDivisionError("oops"))):
        job = a_request()
        await store.jobs.add(job)
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, failed.error) == (State.FAILED, "internal error; the log tells more")
    assert "ZeroDivisionError" in caplog.text


async def test_where_the_line_has_no_room_it_is_given_back(store: Store):
    """It keeps its place and its attempt; after the time that the line asked for it is taken again."""
    api = Api(LineFull("full", retry_after=0.05))
    async with at_work(store, api, attempts=1):
        job = a_request()
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
    assert done.state is State.DONE
    assert done.attempts == 1


async def test_what_is_given_back_is_begun_anew_though_the_word_of_it_is_late(store: Store):
    """Whoever gave it back has no more to do with it, even while it still hears that this was done."""
    heard = asyncio.Event()

    class Slow(Unsteady):
        async def release(self, claim: Claim) -> bool:
            told: bool = await store.jobs.release(claim)
            await heard.wait()
            return told

    api = Api(LineFull("full", retry_after=0.01))
    async with at_work(replace(store, jobs=Slow(store.jobs)), api) as runs:
        job = a_request()
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
        heard.set()
        await until(lambda: runs.under_way == 0)
    assert (done.state, api.called) == (State.DONE, [job.id])


# -- cancelling, and losing


async def test_a_job_that_is_cancelled_is_ended_here(store: Store):
    """Its call is broken off, and its place is free."""
    api = Api(is_slow=True)
    async with at_work(store, api) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
        await store.jobs.cancel(job.id, caller="ann")
        runs.lose(job.id)
        await until(lambda: runs.under_way == 0)
    cancelled = await state_of(store.jobs, job)
    assert (cancelled.state, cancelled.answer, api.in_flight) == (State.CANCELLED, None, [])


async def test_whoever_renews_hears_that_it_was_cancelled_elsewhere(store: Store, monkeypatch: pytest.MonkeyPatch):
    """By another replica, or by an operator."""
    monkeypatch.setattr(runner, "RENEWAL", 0.02)
    api = Api(is_slow=True)
    async with at_work(store, api) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
        await store.jobs.cancel(job.id, caller=None)
        await until(lambda: runs.under_way == 0)
    assert api.in_flight == []


async def test_a_claim_that_is_anothers_by_now_is_given_up(place: Place, open_store: OpenStore):
    """A runner that slept through its lease finds its job taken over; its late answer overwrites nothing."""
    store = await open_store(place)
    api = Api(is_slow=True)
    async with at_work(store, api) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
        run = runs.run(job.id)
        assert run is not None
        run.job = replace(run.job, fence=run.job.fence - 1)  # as if somebody had claimed it since
        api.is_slow = False
        await until(lambda: runs.under_way == 0)
        assert (await state_of(store.jobs, job)).state is State.RUNNING


async def test_a_job_whose_lease_ended_unnoticed_goes_on_and_is_called_once(store: Store):
    """The process stood still, and comes to claim its own job: the call under way is not paid for twice."""
    api = Api(is_slow=True)
    async with at_work(store, api) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
        first = runs.run(job.id)
        assert first is not None
        # Given back behind its runner's back, it is claimed at once.
        await store.jobs.release(first.job.claim)
        await until(lambda: first.job.fence == 2)
        api.is_slow = False
        (done,) = await ended(store.jobs, job)
    assert (done.state, done.fence, api.called) == (State.DONE, 2, [job.id])


async def test_an_old_word_of_a_lost_claim_ends_no_newer_run(store: Store, monkeypatch: pytest.MonkeyPatch):
    """What `renew` says is about the claims that it was asked for."""
    monkeypatch.setattr(runner, "RENEWAL", 0.01)
    api, job = Api(is_slow=True), a_request()
    asked, told = asyncio.Event(), asyncio.Event()

    class Slow(Unsteady):
        async def renew(self, claims: Any, lease: float) -> frozenset[str]:
            if asked.is_set():
                return frozenset()
            asked.set()
            await told.wait()
            return frozenset({job.id})

    async with at_work(replace(store, jobs=Slow(store.jobs)), api) as runs:
        await store.jobs.add(job)
        await asked.wait()
        first = runs.run(job.id)
        assert first is not None
        await store.jobs.release(first.job.claim)
        await until(lambda: first.job.fence == 2)
        told.set()
        api.is_slow = False
        (done,) = await ended(store.jobs, job)
    assert (done.state, len(api.called)) == (State.DONE, 1)


# -- a store that is away


@pytest.mark.parametrize("trouble", [JobsUnavailable, JobsFull])
@pytest.mark.parametrize("operation", ["claim", "ack", "note"])
async def test_an_answer_is_told_until_the_store_takes_it(
    store: Store, operation: str, trouble: type[ProxyError], caplog: pytest.LogCaptureFixture
):
    """It is away for a while, or its disk is full: the call is not made again for that."""
    jobs, api = Unsteady(store.jobs), Api()
    jobs.failures[operation] = [trouble() for _ in range(4)]
    async with at_work(replace(store, jobs=jobs), api):
        job = a_request()
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
    assert (done.state, api.called) == (State.DONE, [job.id])
    assert str(trouble()) in caplog.text


async def test_jobs_go_on_after_a_bug_in_the_store(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Nothing makes them stand still for good."""
    monkeypatch.setattr(runner, "LONGEST_PAUSE", 0.01)
    jobs: Any = Unsteady(store.jobs)
    jobs.failures["claim"] = [ValueError("a bug"), KeyError("another")]
    async with at_work(replace(store, jobs=jobs), Api()):
        job = a_request()
        await store.jobs.add(job)
        assert (await ended(store.jobs, job))[0].state is State.DONE


# -- stopping


async def test_at_a_stop_what_waits_is_given_back_and_what_is_in_flight_ends(store: Store):
    """Uncounted and in its order, for the next start or another replica."""
    jobs = [a_request() for _ in range(15)]
    await store.jobs.add(*jobs)
    api = Api(is_open=False, is_slow=True)
    async with at_work(store, api) as runs:
        await until(lambda: len(api.waiting) == WAITING)
        api.let(2)
        await until(lambda: len(api.in_flight) == 2 and len(api.waiting) == WAITING)
        called = list(api.called)
        await runs.stop()
        await until(lambda: runs.under_way == 2)
        api.is_slow = False
        await until(lambda: runs.under_way == 0)
    states = [await state_of(store.jobs, job) for job in jobs]
    assert [job.id for job in states if job.state is State.DONE] == sorted(called, key=[job.id for job in jobs].index)
    assert {(job.state, job.attempts) for job in states if job.id not in called} == {(State.QUEUED, 0)}


async def test_what_somebody_waits_for_is_served_until_the_line_says_no(store: Store):
    """A stop leaves it in the line; it is kept, and begins again at the next start."""
    api = Api(Stopping(retry_after=1), is_open=False)
    async with at_work(store, api) as runs:
        run = runs.begin((await store.jobs.find_or_add(a_request(key="k"), lease=LONG)).job)
        run.followers += 1
        await until(lambda: api.waiting == [run.job.id])
        await runs.stop()
        assert runs.under_way == 1
        api.let(1)
        await until(lambda: runs.under_way == 0)
    assert (await state_of(store.jobs, run.job)).state is State.QUEUED


async def test_a_close_gives_back_what_is_in_flight(store: Store):
    """It begins again at the next start."""
    api = Api(is_slow=True)
    async with at_work(store, api):
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
    given = await state_of(store.jobs, job)
    assert (given.state, given.attempts) == (State.QUEUED, 0)
    async with at_work(store, Api()):
        assert (await ended(store.jobs, job))[0].state is State.DONE


async def test_a_close_does_not_wait_for_ever_for_a_store_that_is_away(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The answer is lost then, and the job is run again when its lease is over."""
    monkeypatch.setattr(runner, "FAREWELL", 0.05)
    jobs = Unsteady(store.jobs)
    jobs.failures = {"ack": [JobsUnavailable()] * 10_000, "release": [JobsUnavailable()] * 10_000}
    async with at_work(replace(store, jobs=jobs), Api()) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: bool(runs.under_way) and runs.run(job.id).is_over)  # type: ignore[union-attr]
    assert (await state_of(store.jobs, job)).state is State.RUNNING


async def test_what_is_claimed_while_the_service_stops_is_given_back(store: Store):
    """Nothing waits for a lease to end."""
    held, asked = asyncio.Event(), asyncio.Event()

    class Slow(Unsteady):
        async def claim(self, kind: Kind, *args: Any) -> Any:
            claimed = await store.jobs.claim(kind, *args)
            if kind is Kind.LIVE:
                asked.set()
                await held.wait()
            return claimed

    job = a_request()
    await store.jobs.add(job)
    api = Api()
    async with at_work(replace(store, jobs=Slow(store.jobs)), api) as runs:
        await asked.wait()
        await runs.stop()
        held.set()
        await until_it_is(store.jobs, job, State.QUEUED)
    assert api.called == []


# -- whose fault it is that a process dies


async def died(jobs: JobStore, job: Job, *, calls: int | None = None) -> None:
    """Somebody ran it and died; with `calls`, when it had been sent for that time."""
    running = await run_one(jobs, lease=SHORT)
    if calls is not None:
        await jobs.note(running.claim, f"{calls}{SENT}")
    await over((running.started or 0) + SHORT)


async def test_a_job_that_was_sent_so_often_and_never_ended_has_failed(store: Store):
    """Whatever it does to processes, it does not do it for ever."""
    job = a_request()
    await store.jobs.add(job)
    for calls in (1, 2, 3):
        await died(store.jobs, job, calls=calls)
    api = Api()
    async with at_work(store, api, attempts=3):
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, failed.error) == (State.FAILED, "it was begun 3 times and never ended")
    assert api.called == []


async def test_a_job_that_was_never_sent_is_not_to_blame(store: Store):
    """It stood in line whenever a process died: it has all its attempts still."""
    job = a_request()
    await store.jobs.add(job)
    for _ in range(4):
        await died(store.jobs, job)
    api = Api(UpstreamError(503), UpstreamError(503))
    async with at_work(store, api, attempts=3):
        (done,) = await ended(store.jobs, job)
    assert (done.state, len(api.called)) == (State.DONE, 3)


async def test_even_a_job_that_is_never_sent_fails_in_the_end(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Perhaps it kills its process before it comes so far."""
    monkeypatch.setattr(runner, "FALSE_STARTS", 2)
    job = a_request()
    await store.jobs.add(job)
    for _ in range(4):
        await died(store.jobs, job)
    async with at_work(store, Api(), attempts=2):
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, failed.error) == (State.FAILED, "it was begun 4 times and never ended")


async def test_it_is_noted_that_a_job_was_sent(store: Store):
    """While its call is under way, and once for each attempt."""
    api = Api(UpstreamError(503), is_slow=True)
    async with at_work(store, api):
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: api.in_flight == [job.id])
        with store.jobs.news(job.id) as news:
            while (await state_of(store.jobs, job)).progress != "1 sent":
                await news.next(1)
        api.is_slow = False
        (found,) = await ended(store.jobs, job)
    assert found.progress == "2 sent"


# -- the service's own work


async def test_own_work_is_done_when_it_returns_and_tried_again_when_it_says_so(store: Store):
    """It takes no place of the tens, and is not served as a request."""
    seen: list[str] = []

    async def errand(job: Job) -> None:
        seen.append(job.id)
        if len(seen) == 1:
            raise TryLater(0.01, "not yet")
        if len(seen) == 2:
            raise UpstreamError(503)

    api, job = Api(is_open=False), an_errand()
    await store.jobs.add(*[a_request() for _ in range(WAITING)])
    async with at_work(store, api, own={"errand": errand}, attempts=1):
        await until(lambda: len(api.waiting) == WAITING)
        await store.jobs.add(job)
        (done,) = await ended(store.jobs, job)
    assert (done.state, seen) == (State.DONE, [job.id] * 3)


async def test_own_work_that_gives_up_has_failed_with_its_reason(store: Store):
    async def errand(job: Job) -> None:
        raise GiveUp("nobody hears")

    async with at_work(store, Api(), own={"errand": errand}):
        job = an_errand()
        await store.jobs.add(job)
        (failed,) = await ended(store.jobs, job)
    assert (failed.state, failed.error, failed.answer) == (State.FAILED, "nobody hears", None)


async def test_own_work_is_put_off_with_its_reason(store: Store):
    async def errand(job: Job) -> None:
        raise TryLater(3600, "the moon is not full")

    async with at_work(store, Api(), own={"errand": errand}):
        job = an_errand()
        await store.jobs.add(job)
        assert (await put_off(store.jobs, job)).error == "the moon is not full"


async def test_own_work_is_given_back_at_a_stop(store: Store):
    begun = asyncio.Event()

    async def errand(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with at_work(store, Api(), own={"errand": errand}) as runs:
        job = an_errand()
        await store.jobs.add(job)
        await begun.wait()
        await runs.stop()
        await until_it_is(store.jobs, job, State.QUEUED)


async def test_work_that_this_version_does_not_know_is_left_for_those_who_do(store: Store):
    """Replicas of two versions may share a store for a while."""
    api = Api()
    async with at_work(store, api):
        job = an_errand("moonwalk")
        await store.jobs.add(job)
        found = await put_off(store.jobs, job)
    assert (found.error, api.called) == ("this service knows no moonwalk", [])


@pytest.mark.parametrize("end", [None, BadRequest("no")], ids=["done", "failed"])
async def test_what_is_to_be_done_after_a_job_is_kept_before_its_end(store: Store, end: ProxyError | None):
    """Should the process die between the two, it is done all the same."""
    job, was_there = a_request(), set()

    class Looking(Unsteady):
        async def ack(self, claim: Claim, **known: Any) -> bool:
            return await self.look("ack", claim, **known)

        async def fail(self, claim: Claim, **known: Any) -> bool:
            return await self.look("fail", claim, **known)

        async def look(self, name: str, claim: Claim, **known: Any) -> bool:
            if claim.id == job.id:
                was_there.add(await store.jobs.get("after", caller=None) is not None)
            told: bool = await getattr(store.jobs, name)(claim, **known)
            return told

    known: dict[str, Any] = {"after": lambda job: an_errand(id="after") if job.caller else None}
    async with at_work(replace(store, jobs=Looking(store.jobs)), Api(*filter(None, [end])), **known):
        await store.jobs.add(job)
        await ended(store.jobs, job)
    assert was_there == {True}


async def test_what_follows_is_kept_though_the_disk_is_full_for_a_while(store: Store):
    """The job ends when it is."""
    jobs = Unsteady(store.jobs)
    jobs.failures["add"] = [JobsFull(), JobsFull()]
    async with at_work(replace(store, jobs=jobs), Api(), after=follows):
        job = a_request()
        await store.jobs.add(job)
        assert (await ended(store.jobs, job))[0].state is State.DONE
        assert await store.jobs.get("after", caller=None) is not None


async def test_what_follows_needs_no_room_of_its_own(place: Place, open_store: OpenStore):
    """A store that is full to the last job still takes what its jobs have promised."""
    store = await open_store(place, room=Room(jobs=1))
    async with at_work(store, Api(), after=follows):
        job = a_request()
        await store.jobs.add(job)
        assert (await ended(store.jobs, job))[0].state is State.DONE
        assert await store.jobs.get("after", caller=None) is not None


def follows(job: Job) -> Job | None:
    return an_errand(id="after") if job.caller else None


async def test_what_is_over_is_forgotten_by_and_by(store: Store, monkeypatch: pytest.MonkeyPatch):
    """While the runner is at work, without anybody asking."""
    monkeypatch.setattr(runner, "PURGE", 0.02)
    late = a_request(deadline=1.0, priority=Priority.BATCH)
    async with at_work(store, Api()):
        job = a_request(keep=0.01)
        await store.jobs.add(job, late)
        assert (await ended(store.jobs, late))[0].state is State.EXPIRED
        while await store.jobs.get(job.id, caller=None) is not None:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


async def test_a_runner_tells_what_it_is_about(store: Store):
    """Logs and tests read it."""
    async with at_work(store, Api(is_open=False)) as runs:
        job = a_request()
        await store.jobs.add(job)
        await until(lambda: runs.under_way == 1)
        assert repr(runs) == "<Runner under way=1>"
        assert repr(runs.run(job.id)) == (
            f"<Run <Job {job.id} of 'ann' running attempts=1 fence=1> is_waiting=True followers=0>"
        )
        assert runs.run("nobody") is None
