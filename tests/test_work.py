"""Jobs at work in a service: whoever named a webhook hears of every end, however it came."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretBytes, SecretStr
from running import settings_for, until
from strangers import Server, a_server

import app
import emulator
from proxy.errors import JobsOff
from proxy.jobs import EVERYBODY, Job, Kind, State
from proxy.jobs.store import opened
from proxy.line import Priority
from proxy.settings import Settings, SettingsError
from proxy.work import Work, store_of

CHAT = b'{"messages": [["user", "hello"]]}'


@pytest.fixture
async def receiver() -> AsyncIterator[Server]:
    async with a_server() as server:
        yield server


@asynccontextmanager
async def working(tmp_path: Path, **knobs: Any) -> AsyncIterator[tuple[Work, emulator.Emulator]]:
    async with emulator.start(emulator.Options()) as giga:
        settings = settings_for(
            giga,
            drain_timeout=0,
            jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
            webhook_secret=(SecretBytes(b"x" * 24),),
            webhook_allow=("127.0.0.1",),
            **knobs,
        )
        async with app.serving(settings) as service:
            yield service.work, giga


def a_job(receiver: Server, **known: Any) -> Job:
    return Job(
        caller=EVERYBODY,
        operation="request",
        dialect="native",
        path="/",
        body=CHAT,
        webhook=receiver.url("127.0.0.1"),
        **known,
    )


def hearing(receiver: Server) -> list[str]:
    """The types of the events that it hears."""
    heard: list[str] = []

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        heard.append((await request.json())["type"])
        return web.Response()

    receiver.says = says
    return heard


async def test_whoever_named_a_webhook_hears_that_its_job_is_done(tmp_path: Path, receiver: Server) -> None:
    heard = hearing(receiver)
    async with working(tmp_path) as (work, _):
        await work.accept(a_job(receiver))
        await until(lambda: heard == ["job.done"])


async def test_a_job_that_is_cancelled_tells_so_and_its_call_ends(tmp_path: Path, receiver: Server) -> None:
    heard = hearing(receiver)
    async with working(tmp_path) as (work, giga):
        giga.state.faults.add({"kind": "stall"})
        job = a_job(receiver)
        await work.accept(job)
        await until(lambda: (run := work.runner.run(job.id)) is not None and not run.is_waiting)
        assert await work.cancel(job.id, caller="somebody else") is None
        assert await work.cancel(job.id, caller=EVERYBODY) is State.CANCELLED
        await until(lambda: heard == ["job.cancelled"] and work.runner.run(job.id) is None)


async def test_in_a_full_store_jobs_are_cancelled_and_their_webhooks_told(tmp_path: Path, receiver: Server) -> None:
    """What a job promised when it was accepted needs no room of its own."""
    heard = hearing(receiver)
    async with working(tmp_path, jobs_max=2) as (work, giga):
        giga.state.faults.add({"kind": "stall", "times": -1})
        jobs = [a_job(receiver), a_job(receiver)]
        for job in jobs:
            await work.accept(job)
        for job in jobs:
            assert await work.cancel(job.id, caller=EVERYBODY) is State.CANCELLED
        await until(lambda: heard == ["job.cancelled"] * 2)


async def test_a_job_that_has_ended_is_not_cancelled_and_tells_nothing_twice(tmp_path: Path, receiver: Server) -> None:
    heard = hearing(receiver)
    async with working(tmp_path) as (work, _):
        job = a_job(receiver)
        await work.accept(job)
        await until(lambda: heard == ["job.done"])
        assert await work.cancel(job.id, caller=EVERYBODY) is State.DONE
        assert heard == ["job.done"]


async def test_a_job_that_expires_tells_so(tmp_path: Path, receiver: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store notices that it is late, and tells nobody; work of its own looks for it."""
    monkeypatch.setattr("proxy.webhooks.PATIENCE", 0.05)
    heard = hearing(receiver)
    async with working(tmp_path) as (work, _):
        job = a_job(receiver, deadline=time.time() - 1)
        await work.accept(job)
        await until(lambda: heard == ["job.expired"])


async def test_a_job_that_ends_before_its_deadline_tells_that_alone(
    tmp_path: Path, receiver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.webhooks.PATIENCE", 0.05)
    heard = hearing(receiver)
    async with working(tmp_path) as (work, _):
        await work.accept(a_job(receiver, deadline=time.time() + 30))
        await until(lambda: heard == ["job.done"])
        late = (await work.store.jobs.list(caller="", states=[State.QUEUED])).entries
        assert not [hook for hook in late if not hook.id.startswith("late_hook_")]


async def test_a_job_that_is_run_again_tells_its_end_again(tmp_path: Path, receiver: Server) -> None:
    heard = hearing(receiver)
    async with working(tmp_path) as (work, giga):
        giga.state.faults.add({"kind": "status", "status": 402})
        job = a_job(receiver)
        await work.accept(job)
        await until(lambda: heard == ["job.failed"])
        async with work_ended(work, f"hook_{job.id}"):
            assert await work.retry(job.id, caller=EVERYBODY) is State.QUEUED
        await until(lambda: heard == ["job.failed", "job.done"])


async def test_a_job_whose_deadline_comes_in_the_line_expires_unsent(tmp_path: Path, receiver: Server) -> None:
    """To stand in line is not to have begun."""
    async with working(tmp_path, ext_max_requests=1) as (work, giga):
        giga.state.faults.add({"kind": "stall"})
        first, late = a_job(receiver), a_job(receiver, deadline=time.time() + 1)
        await work.accept(first)
        await until(lambda: (run := work.runner.run(first.id)) is not None and not run.is_waiting)
        await work.accept(late)
        with work.store.jobs.news(late.id) as news:
            while (job := await work.store.jobs.get(late.id, caller=None)) is None or not job.state.is_end:
                await news.next(5)
        assert job.state is State.EXPIRED
        assert giga.state.calls.count == 2, "the token, and the one in flight"


async def test_of_a_cancelled_batch_what_waits_in_the_line_is_not_sent(tmp_path: Path, receiver: Server) -> None:
    """And what is in flight goes on."""
    async with working(tmp_path, ext_max_requests=1) as (work, giga):
        giga.state.faults.add({"kind": "slow", "seconds": 2})
        lines = [a_job(receiver, batch="batch_1", custom_id=str(n), priority=Priority.BATCH) for n in range(4)]
        await work.store.jobs.add(*lines)
        await until(lambda: work.runner.under_way == 4 and giga.state.accounts.in_flight == 1)
        await work.runner.cancel_waiting("batch_1")
        await until(lambda: work.runner.under_way == 0)
        ended = [job.state async for job in work.store.jobs.lines("batch_1")]
        assert sorted(ended) == [State.CANCELLED] * 3 + [State.DONE]


@asynccontextmanager
async def work_ended(work: Work, id: str) -> AsyncIterator[None]:
    """Enter when the work with this id has ended."""
    with work.store.jobs.news(id) as news:
        while (job := await work.store.jobs.get(id, caller=None)) is not None and not job.state.is_end:
            await news.next(5)
    yield


async def test_what_goes_on_from_before_is_told_at_the_start(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line: how many wait for their turn, or for another attempt, and how many were under way."""
    async with opened(place) as store:
        await store.jobs.add(*(Job(caller="ann", operation="request", dialect="native") for _ in range(5)))
        await store.jobs.add(Job(caller="ann", operation="request", dialect="native", priority=Priority.BATCH))
        failed, *_ = (await store.jobs.claim(Kind.LIVE, 3, 60)).jobs
        await store.jobs.fail(failed.claim, "no", retry_at=time.time() + 3600)
    with caplog.at_level("INFO"):
        async with store_of(Settings(jobs_url=SecretStr(place)), tmp_path):
            pass
    (told,) = [record.message for record in caplog.records if "go on" in record.message]
    assert told == "jobs from before go on: " + (
        "4 queued, 1 lines of batches queued, 1 waiting for another attempt, 2 of them were under way and begin again"
        if place.endswith(".sqlite")
        else "2 queued, 1 lines of batches queued, 1 waiting for another attempt, "
        "2 under way in other processes, or in one that has just died"
    )


async def test_a_start_without_a_backlog_has_no_word_of_it(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is over and kept."""
    async with opened(place) as store:
        await store.jobs.add(job := Job(caller="ann", operation="request", dialect="native"))
        await store.jobs.cancel(job.id, caller=None)
    with caplog.at_level("INFO"):
        async with store_of(Settings(jobs_url=SecretStr(place)), tmp_path):
            pass
    assert "go on" not in caplog.text


async def test_a_place_that_is_none_stops_the_start_with_all_that_may_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^JOBS_URL cannot be used; .*, the path of an SQLite file, or off$"):
        async with store_of(Settings(jobs_url=SecretStr("foo://x")), tmp_path):
            raise AssertionError("it has started")


async def test_without_a_store_every_use_says_so(tmp_path: Path) -> None:
    async with emulator.start(emulator.Options()) as giga:
        settings = settings_for(giga, drain_timeout=0, jobs_url=SecretStr("off"))
        async with app.serving(settings, tmp_path) as service:
            assert not service.work.is_on
            with pytest.raises(JobsOff, match="JOBS_URL"):
                await service.work.accept(Job(caller="", operation="request", dialect="native"))
        assert not await asyncio.to_thread(lambda: [*tmp_path.iterdir()])
