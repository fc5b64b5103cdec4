"""What the dashboard is told, and who may hear it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, until

from proxy.overview import Tallies, Times

ADMIN = {"Authorization": "Bearer the-operators-own"}


async def events(proxy: Proxy, headers: dict[str, str] | None = None) -> AsyncIterator[tuple[str, Any]]:
    async with proxy.http.get(f"{proxy.url}/dashboard/events", headers=headers) as response:
        assert response.status == 200 and response.content_type == "text/event-stream"
        name = ""
        async for line in response.content:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])


async def told(proxy: Proxy, *, until: Any = lambda now: True) -> dict[str, Any]:
    """What is told `now` once it is as it should be."""
    async with asyncio.timeout(20):
        async for name, data in events(proxy):
            if name == "now" and until(data):
                return dict(data)
    raise AssertionError("the stream ended")


async def test_history_comes_first_then_how_it_is_now(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=6000)
    assert (await proxy.ask("one")).status == 200
    heard = []
    async for name, data in events(proxy):
        heard.append((name, data))
        if len(heard) == 3:
            break
    assert [name for name, _ in heard] == ["history", "now", "now"]
    now = heard[-1][1]
    assert set(heard[0][1]) <= set(now["sample"]), "a point of the charts is a part of a sample"
    assert now["sample"]["t"] == heard[1][1]["sample"]["t"] + 1
    assert now["statuses"] == {"200": 1} and now["hour"] == {"ok": 1, "failed": 0, "retried": 0}
    assert now["last"][0]["status"] == 200 and now["last"][0]["attempts"] == 1
    assert now["lanes"][0]["name"] == "main" and 0 < now["lanes"][0]["used"] <= 1


async def test_who_waits_is_told_with_place_and_time(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 3)
    others = [asyncio.create_task(proxy.ask("waits", headers={"X-Request-ID": f"r{n}"})) for n in range(3)]
    now = await told(proxy, until=lambda now: now["waiting"]["total"] == 3)
    requests = now["waiting"]["requests"]
    assert [each["place"] for each in requests] == [1, 2, 3] and {each["id"] for each in requests} == {"r0", "r1", "r2"}
    assert now["callers"][0]["waiting"] == 3
    await asyncio.gather(first, *others)


async def test_a_pause_of_the_api_is_told_with_its_reason(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 429, "retry_after": 3})
    asked = asyncio.create_task(proxy.ask("waits"))
    now = await told(proxy, until=lambda now: now["lanes"][0]["paused"] > 0)
    assert now["lanes"][0]["reason"] == "upstream 429"
    assert (await asked).status == 200
    assert (await told(proxy))["hour"]["retried"] == 1


async def test_jobs_are_told_where_they_are_kept(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    async with proxy.http.post(f"{proxy.url}/jobs", json={"body": {"messages": [["user", "x"]]}}) as response:
        assert response.status == 202
    now = await told(proxy, until=lambda now: now["jobs"] and now["jobs"]["jobs"] == 1)
    assert now["batches"] == []


async def test_without_jobs_nothing_is_told_of_them(start_proxy: StartProxy) -> None:
    assert (await told(await start_proxy()))["jobs"] is None


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer " + "b" * 16}, {"Authorization": "Bearer wrong"}])
async def test_where_keys_are_asked_for_only_the_operator_hears(
    start_proxy: StartProxy, headers: dict[str, str]
) -> None:
    """The page itself, which holds nothing of anybody's, is anybody's."""
    keys = {"bot": SecretStr("b" * 16)}
    proxy = await start_proxy(admin_api_key=SecretStr("the-operators-own"), proxy_api_keys=keys)
    async with proxy.http.get(f"{proxy.url}/dashboard/events", headers=headers) as response:
        assert response.status == 401
    async with proxy.http.get(f"{proxy.url}/dashboard") as response:
        assert response.status == 200 and "default-src 'self'" in response.headers["Content-Security-Policy"]
    async for name, _ in events(proxy, ADMIN):
        assert name == "history"
        break


@pytest.mark.parametrize(
    "path", ["nothing.js", "../env_example.txt", "..%2fenv_example.txt", "uplot/../../env", "%2e%2e/env", "events/x"]
)
async def test_nothing_but_the_pages_own_files_is_served(start_proxy: StartProxy, path: str) -> None:
    proxy = await start_proxy()
    from yarl import URL

    async with proxy.http.get(URL(f"{proxy.url}/dashboard/{path}", encoded=True)) as response:
        assert response.status == 404


async def test_files_that_the_browser_has_are_not_sent_again(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/dashboard/style.css") as response:
        tag = response.headers["ETag"]
        assert response.content_type == "text/css" and await response.read()
    async with proxy.http.get(f"{proxy.url}/dashboard/style.css", headers={"If-None-Match": tag}) as response:
        assert response.status == 304 and not await response.read()


async def test_while_nobody_looks_nothing_is_made(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for twenty who look it is made once."""
    made = 0
    from proxy.overview import Overview

    make = Overview._now

    async def counted(self: Overview) -> Any:
        nonlocal made
        made += 1
        return await make(self)

    monkeypatch.setattr(Overview, "_now", counted)
    proxy = await start_proxy()
    streams = [events(proxy) for _ in range(20)]
    for stream in streams:
        assert (await anext(stream))[0] == "history"
    assert made <= 1
    first = [await anext(stream) for stream in streams]
    assert made <= 3
    assert {name for name, _ in first} == {"now"}
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    await until(lambda: proxy.service.overview.watchers == 0)
    before = made
    assert (await told(proxy))["app"]["name"] and made > before


def test_times_are_of_the_last_minute_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("proxy.overview.time.monotonic", lambda: now)
    times = Times()
    for seconds in range(1, 101):
        times.add(float(seconds))
    assert times.shares(0.5, 0.95) == [51.0, 96.0]
    now = 161.0
    assert times.shares(0.5) == [None]


def test_tallies_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("proxy.overview.time.monotonic", lambda: now)
    tallies = Tallies(300, 30)
    tallies.add("a")
    now = 250.0
    tallies.add("a")
    assert tallies.all() == {"a": 2}
    now = 305.0
    assert tallies.all() == {"a": 1}
