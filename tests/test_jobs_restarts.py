"""What was accepted outlives the service: stopped at any moment and started again, it is answered, and paid once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from jobs_talk import Caller
from running import Proxy, chat, settings_for, until

import app
import emulator


@pytest.fixture
async def giga() -> AsyncIterator[emulator.Emulator]:
    async with emulator.start(emulator.Options()) as started:
        yield started


@asynccontextmanager
async def life(giga: emulator.Emulator, assets: Path, **knobs: Any) -> AsyncIterator[Caller]:
    """One life of the service."""
    settings = settings_for(giga, **{"drain_timeout": 0, "ext_max_requests": 2, **knobs})
    async with app.serving(settings, assets=assets) as service, aiohttp.ClientSession() as http:
        yield Caller(Proxy(service, giga, http))


def texts(giga: emulator.Emulator) -> list[str]:
    """What the API was asked."""
    bodies = [json.loads(call.body) for call in giga.state.calls if call.path.endswith("/completions")]
    return [body["messages"][-1]["content"] for body in bodies]


def slow(giga: emulator.Emulator, seconds: float, times: int = 1) -> None:
    giga.state.faults.add({"kind": "slow", "seconds": seconds, "times": times})


async def test_a_backlog_is_done_in_the_next_life(giga: emulator.Emulator, tmp_path: Path):
    """What waited, here or in the line, and what was in flight."""
    slow(giga, 20, times=2)
    async with life(giga, tmp_path) as caller:
        ids = [await caller.accepted(chat(str(number))) for number in range(30)]
        await until(lambda: giga.state.accounts.in_flight == 2)
    assert len(texts(giga)) == 2
    async with life(giga, tmp_path) as caller:
        jobs = [await caller.over(id) for id in ids]
    assert {job["state"] for job in jobs} == {"done"}
    # Only the two that were in flight are paid for twice.
    assert sorted(texts(giga)) == sorted([*map(str, range(30)), "0", "1"])


async def test_answers_are_there_in_the_next_life(giga: emulator.Emulator, tmp_path: Path):
    """Byte for byte."""
    async with life(giga, tmp_path) as caller:
        id = await caller.accepted()
        await caller.over(id)
        before = await caller.ask("GET", f"/jobs/{id}/answer")
    async with life(giga, tmp_path) as caller:
        after = await caller.ask("GET", f"/jobs/{id}/answer")
    assert (after.status, after.raw, len(texts(giga))) == (200, before.raw, 1)


async def test_a_drain_ends_what_is_in_flight_and_keeps_what_waits(giga: emulator.Emulator, tmp_path: Path):
    """At SIGTERM: nothing that was sent is sent again, and nothing new is sent."""
    slow(giga, 0.3, times=2)
    async with life(giga, tmp_path, drain_timeout=20) as caller:
        ids = [await caller.accepted(chat(str(number))) for number in range(15)]
        await until(lambda: giga.state.accounts.in_flight == 2)
    assert sorted(texts(giga)) == ["0", "1"]
    async with life(giga, tmp_path) as caller:
        first = [await caller.job(id) for id in ids[:2]]
        assert {(job["state"], job["attempts"]) for job in first} == {("done", 1)}
        rest = [await caller.over(id) for id in ids[2:]]
        assert {(job["state"], job["attempts"]) for job in rest} == {("done", 1)}
    assert sorted(texts(giga)) == sorted(map(str, range(15)))


async def test_what_comes_while_the_service_stops_is_kept_for_the_next_life(giga: emulator.Emulator, tmp_path: Path):
    """It is not refused, since it need not be served now."""
    slow(giga, 0.5)
    async with life(giga, tmp_path, drain_timeout=20) as caller:
        first = await caller.accepted(chat("first"))
        await until(lambda: giga.state.accounts.in_flight == 1)
        await caller.proxy.service.work.stop()
        draining = asyncio.create_task(caller.proxy.service.lanes.drain(10))
        await until(lambda: caller.proxy.service.line.state().is_stopping)
        second = await caller.accepted(chat("second"))
        assert (await caller.over(first))["state"] == "done"
        await draining
    assert texts(giga) == ["first"]
    async with life(giga, tmp_path) as caller:
        assert (await caller.over(second))["state"] == "done"


async def test_a_cancelled_job_stays_cancelled(giga: emulator.Emulator, tmp_path: Path):
    slow(giga, 20)
    async with life(giga, tmp_path, ext_max_requests=1) as caller:
        ids = [await caller.accepted(chat(str(number))) for number in range(3)]
        await until(lambda: giga.state.accounts.in_flight == 1)
        await caller.ask("DELETE", f"/jobs/{ids[0]}")
        await until(lambda: len(texts(giga)) == 3)
    async with life(giga, tmp_path) as caller:
        assert [(await caller.over(id))["state"] for id in ids] == ["cancelled", "done", "done"]
    assert texts(giga) == ["0", "1", "2"]


async def test_the_order_is_kept(giga: emulator.Emulator, tmp_path: Path):
    """First come, first served, over two lives."""
    slow(giga, 20)
    async with life(giga, tmp_path, ext_max_requests=1) as caller:
        ids = [await caller.accepted(chat(str(number))) for number in range(25)]
        await until(lambda: giga.state.accounts.in_flight == 1)
    async with life(giga, tmp_path, ext_max_requests=1) as caller:
        for id in ids:
            await caller.over(id)
    assert texts(giga) == ["0", *map(str, range(25))]


async def test_without_a_place_for_it_nothing_is_kept_and_nothing_promised(giga: emulator.Emulator):
    """No folder for what outlives the process, no jobs."""
    settings = settings_for(giga, drain_timeout=0)
    async with app.serving(settings) as service, aiohttp.ClientSession() as http:
        assert (await Caller(Proxy(service, giga, http)).bring()).status == 501
