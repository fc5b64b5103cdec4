"""GET /jobs/{id}/events: a job's story as it happens, from whichever replica it is looked at."""

import asyncio
from pathlib import Path

import pytest
from jobs_talk import Caller, spoken
from pydantic import SecretStr
from redis_server import RedisServer
from running import Proxy, StartProxy, busy, until, waiting

from proxy.errors import JobsUnavailable
from proxy.jobs.store import opened


@pytest.fixture
async def proxy(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    started: Proxy = await start_proxy(
        jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, heartbeat_interval=0.02
    )
    return started


@pytest.fixture
def caller(proxy: Proxy) -> Caller:
    return Caller(proxy)


async def test_every_change_is_an_event_to_the_end(caller: Caller):
    """From its place in the line to its answer; then the stream ends."""
    proxy = caller.proxy
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.3}, {"kind": "slow", "seconds": 0.3})
    first, second = await caller.accepted(), await caller.accepted()
    events = [event async for event in caller.events(second)]
    assert {name for name, _ in events} == {"state"}
    states = [(job["state"], job["position"]) for _, job in events]
    assert states[-1] == ("done", None)
    assert len(set(states)) == len(states), "only what has changed"
    assert ("running", 1) in states and ("running", None) in states
    assert events[-1][1] == await caller.job(second)
    assert (await caller.job(first))["state"] == "done"


async def test_who_comes_late_is_told_how_it_ended(caller: Caller):
    """One event, and the end: so a stream that broke is simply asked for again."""
    id = await caller.accepted()
    ended = await caller.over(id)
    assert [event async for event in caller.events(id)] == [("state", ended)]


async def test_its_place_is_told_as_it_moves_up(caller: Caller):
    """Before the line, too."""
    proxy = caller.proxy
    first = await busy(proxy, 20)
    ids = [await caller.accepted() for _ in range(12)]
    await until(lambda: waiting(proxy) == 10)
    places = []
    async for _, job in caller.events(ids[-1]):
        places.append((job["state"], job["position"]))
        if len(places) == 1:
            first.cancel()
    assert places[0] == ("queued", 12)
    positions = [place for _, place in places if place is not None]
    assert positions == sorted(positions, reverse=True)
    assert places[-1] == ("done", None)


async def test_a_quiet_job_keeps_the_connection_alive(caller: Caller):
    """By comments, which clients skip."""
    first = await busy(caller.proxy, 20)
    id = await caller.accepted()
    async with asyncio.timeout(20), caller.listening(id) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-cache", "no")
        comments = 0
        while comments < 3:
            comments += (await response.content.readline()).startswith(b": ")
    first.cancel()


async def test_a_cancelled_job_ends_its_stream(caller: Caller):
    first = await busy(caller.proxy, 20)
    id = await caller.accepted()
    states = []
    async for _, job in caller.events(id):
        if not states:
            await caller.ask("DELETE", f"/jobs/{id}")
        states.append(job["state"])
    assert states[-1] == "cancelled"
    first.cancel()


async def test_what_an_operator_cancels_ends_its_stream_too(caller: Caller, tmp_path: Path):
    """Another program's changes are no news to the service; they are found all the same."""
    first = await busy(caller.proxy, 20)
    ids = [await caller.accepted() for _ in range(12)]
    states = []
    async with asyncio.timeout(20), opened(tmp_path / "jobs.sqlite", is_shared=True) as others:
        async for _, job in caller.events(ids[-1]):
            if not states:
                await others.jobs.cancel(ids[-1], caller=None)
            states.append(job["state"])
    assert states[-1] == "cancelled"
    first.cancel()


async def test_an_answer_of_many_lines_is_one_event(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    """Whatever line breaks are in it: JSON that is written over lines, a stream's text."""
    pretty = {"kind": "status", "status": 400, "body": None}
    caller.proxy.giga.state.faults.add({**pretty, "body": {"status": 400, "message": "a\nb\r\n\u2028c"}})
    failed = await caller.over(await caller.accepted(spoken(), "/api/v1/chat/completions"))
    assert failed["answer"]["body"]["message"] == "a\nb\r\n\u2028c"
    stream = await caller.over(await caller.accepted(spoken("a, b", stream=True), "/v1/chat/completions"))
    assert stream["answer"]["body"].count("\n\n") > 2


async def test_nobody_is_looked_for_that_is_not_there(caller: Caller):
    told = await caller.ask("GET", "/jobs/job_nobody/events")
    assert (told.status, told.body["app"]) == (404, "gigachat-proxy")


async def test_a_listener_that_leaves_is_forgotten(caller: Caller):
    """Nothing is looked up for nobody."""
    first = await busy(caller.proxy, 20)
    id = await caller.accepted()
    hub = caller.proxy.service.work.store.jobs._hub  # type: ignore[attr-defined]
    async with caller.listening(id) as response:
        await response.content.readline()
        assert id in repr(hub._listening)
    await until(lambda: id not in hub._listening)
    first.cancel()


async def test_a_store_that_goes_away_breaks_the_stream_with_an_error(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    """In the event that native streams have for it."""
    first = await busy(caller.proxy, 20)
    ids = [await caller.accepted() for _ in range(12)]

    async def away(*_: object) -> None:
        raise JobsUnavailable

    events = caller.events(ids[-1])
    assert (await anext(events))[0] == "state"
    monkeypatch.setattr(caller.proxy.service.work.store.jobs, "position", away)
    name, told = await anext(events)
    assert (name, told["status"]) == ("error", JobsUnavailable.__doc__)
    assert [event async for event in events] == []
    first.cancel()


async def test_another_replicas_job_is_followed_too(start_proxy: StartProxy, tmp_path: Path):
    """Two services on one Redis: the one is asked, the other runs it."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    server.start()
    try:
        here, there = [await start_proxy(jobs_url=SecretStr(server.url)) for _ in range(2)]
        runners = [each.service.work.runner for each in (here, there)]
        runners[0]._rest(3600)
        for each in (here, there):
            each.giga.state.faults.add({"kind": "slow", "seconds": 0.3})
        caller, seen = Caller(here), []
        id = await caller.accepted()
        async for _, job in caller.events(id):
            seen.append((job["state"], [runner.run(id) is not None for runner in runners]))
        assert ("running", [False, True]) in seen
        assert seen[-1][0] == "done"
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_stop_does_not_wait_for_listeners(caller: Caller):
    """Whose job goes no further here: they ask again, elsewhere or later."""
    first = await busy(caller.proxy, 20)
    ids = [await caller.accepted() for _ in range(12)]
    events = caller.events(ids[-1])
    await anext(events)
    await caller.proxy.service.work.stop()
    async with asyncio.timeout(20):
        assert {job["state"] async for _, job in events} <= {"queued"}
    first.cancel()
