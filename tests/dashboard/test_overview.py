"""What the dashboard is told, and who may hear it."""

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from events import events, told
from pydantic import SecretStr
from running import StartProxy, busy, until

import emulator
from proxy.errors import JobsUnavailable
from proxy.recent import HOUR, NAMES, OTHERS, Hour, Sample, Tallies, Times

ADMIN = {"Authorization": "Bearer the-operators-own"}


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


async def test_without_a_pause_there_is_no_reason_for_one(start_proxy: StartProxy) -> None:
    lane = (await told(await start_proxy()))["lanes"][0]
    assert (lane["paused"], lane["reason"]) == (0, None)


async def test_a_pause_for_the_sake_of_a_token_is_told_as_one(start_proxy: StartProxy) -> None:
    """No call was refused: the API gives no access token for a moment."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 429, "path": "/oauth", "times": -1})
    asked = asyncio.create_task(proxy.ask("waits"))
    now = await told(proxy, until=lambda now: now["lanes"][0]["reason"])
    assert now["lanes"][0]["reason"] == "token 429"
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def test_a_lane_that_is_held_promises_no_time(start_proxy: StartProxy) -> None:
    """Nobody knows when it will be resumed."""
    proxy = await start_proxy()
    async with proxy.http.patch(f"{proxy.url}/limits", json={"paused": True}) as response:
        assert response.status == 200
    asked = asyncio.create_task(proxy.ask("waits"))
    now = await told(proxy, until=lambda now: now["waiting"]["total"] == 1)
    assert now["lanes"][0]["held"]["by"] == "operator at 127.0.0.1" and now["lanes"][0]["eta"] is None
    assert now["lanes"][0]["held"]["since"] <= now["at"]
    assert now["waiting"]["requests"][0]["eta"] is None
    async with proxy.http.patch(f"{proxy.url}/limits", json={"paused": False}) as response:
        assert response.status == 200
    assert (await asked).status == 200


async def test_everybody_who_waits_is_counted_though_few_are_listed(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 3)
    others = [asyncio.create_task(proxy.ask("waits")) for _ in range(45)]
    now = await told(proxy, until=lambda now: now["waiting"]["total"] == 45)
    assert len(now["waiting"]["requests"]) == 30
    assert now["callers"][0]["waiting"] == 45
    await asyncio.gather(first, *others)


async def test_accounts_of_callers_are_told_too(start_proxy: StartProxy) -> None:
    """All that goes on may go on there."""
    proxy = await start_proxy(gpt2giga_pass_token=True, ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 3})
    headers = {"Authorization": "Bearer giga-cred-a2V5LW9uZQ=="}
    asked = [asyncio.create_task(proxy.ask("x", headers=headers)) for _ in range(2)]
    now = await told(proxy, until=lambda now: now["waiting"]["total"] == 1)
    main, passed = now["lanes"]
    assert main["name"] == "main" and passed["name"].startswith("passed-")
    assert now["waiting"]["requests"][0]["lane"] == passed["name"]
    assert (now["sample"]["in_flight"], passed["in_flight"], main["in_flight"]) == (1, 1, 0)
    await asyncio.gather(*asked)


async def test_who_waits_is_told_of_all_accounts_though_few_are_listed(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers bring along as many as they like."""
    monkeypatch.setattr("proxy.overview.LANES", 1)
    proxy = await start_proxy(gpt2giga_pass_token=True, ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 3})
    headers = {"Authorization": "Bearer giga-cred-a2V5LW9uZQ=="}
    asked = [asyncio.create_task(proxy.ask("x", headers=headers)) for _ in range(2)]
    now = await told(proxy, until=lambda now: now["sample"]["waiting"] == 1)
    assert len(now["lanes"]) == 1
    assert now["waiting"]["total"] == len(now["waiting"]["requests"]) == now["callers"][0]["waiting"] == 1
    await asyncio.gather(*asked)


async def test_what_calls_cost_is_told(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    usage = (await proxy.ask("one")).body["data"]["usage"]
    tokens = (await told(proxy))["lanes"][0]["tokens"]
    assert tokens == {"in": usage["prompt_tokens"], "out": usage["completion_tokens"]}


async def test_what_is_left_at_the_api_is_asked_once_for_all_who_look(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    now = await told(proxy, until=lambda now: now["lanes"][0]["balance"])
    assert now["lanes"][0]["balance"] == emulator.balance.LEFT
    await told(proxy)
    assert len(await proxy.calls("/balance")) == 1


async def test_an_account_that_pays_afterwards_has_nothing_left_to_tell(start_proxy: StartProxy) -> None:
    """The API refuses to say; it is not asked again and again."""
    proxy = await start_proxy(emulator.Options(tariff="postpaid"))
    heard = 0
    async for name, now in events(proxy):
        heard += name == "now"
        if heard == 3:
            assert now["lanes"][0]["balance"] == {}
            break
    assert len(await proxy.calls("/balance")) == 1


@pytest.mark.parametrize("body", [{}, {"balance": None}, {"balance": [1, {"usage": "a"}, {"usage": 1, "value": 1}]}])
async def test_a_strange_answer_to_what_is_left_tells_nothing(start_proxy: StartProxy, body: dict[str, Any]) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 200, "body": body, "path": "/balance"})
    async with asyncio.timeout(20):
        async for name, now in events(proxy):
            assert name == "history" or now["lanes"][0]["balance"] == {}
            if await proxy.calls("/balance"):
                break


@pytest.mark.parametrize("left", [{"GigaChat": Decimal(5)}, {1: 2}, {"GigaChat": 10**30}])
async def test_a_connector_that_tells_no_json_takes_nothing_else_along(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, left: dict[Any, Any]
) -> None:
    """Connectors are anybody's own."""
    asked = asyncio.Event()

    async def get_balance(account: Any) -> dict[Any, Any]:
        asked.set()
        return left

    monkeypatch.setattr("gigachat_connector.Account.get_balance", get_balance)
    proxy = await start_proxy()
    await told(proxy, until=lambda now: asked.is_set())
    assert (await told(proxy))["lanes"][0]["balance"] == {}


async def test_what_was_left_long_ago_is_not_told_as_what_is_left(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has looked for a night, and the line is long."""
    proxy = await start_proxy()
    await told(proxy, until=lambda now: now["lanes"][0]["balance"])
    monkeypatch.setattr("proxy.info.BALANCE_AGE", 0.0)
    await told(proxy, until=lambda now: now["lanes"][0]["balance"] == {})


async def test_while_nobody_looks_the_api_is_not_asked(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    assert (await proxy.ask("one")).status == 200
    await until(lambda: bool(proxy.service.overview._hour.last.t))
    assert await proxy.calls("/balance") == []


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


@pytest.mark.parametrize("known", ['W/"{}"', '"older", "{}"', 'W/"older" , W/"{}"', "*"])
async def test_a_tag_counts_however_it_is_written(start_proxy: StartProxy, known: str) -> None:
    """A proxy that compresses makes it a weak one, and a browser may have several versions."""
    proxy = await start_proxy()
    for path in ("/dashboard", "/docs", "/openapi.json"):
        async with proxy.http.get(proxy.url + path) as response:
            tag = response.headers["ETag"].strip('"')
        async with proxy.http.get(proxy.url + path, headers={"If-None-Match": known.format(tag)}) as response:
            assert response.status == 304, path


@pytest.mark.parametrize("known", ["{}", '"{}x"', '"', "W/", '"\u00ff"', "x" * 4000])
async def test_a_tag_that_is_none_or_another_one_gets_the_page(start_proxy: StartProxy, known: str) -> None:
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/dashboard") as response:
        tag, page = response.headers["ETag"].strip('"'), await response.read()
    async with proxy.http.get(f"{proxy.url}/dashboard", headers={"If-None-Match": known.format(tag)}) as response:
        assert (response.status, await response.read()) == (200, page)


async def test_a_tab_that_does_not_read_is_let_go(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps, or is gone without a word: what it does not take is kept for nobody."""
    from proxy.overview import Overview

    ended = asyncio.Event()

    async def much(self: Overview) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield bytes(8 * 1024 * 1024)
        finally:
            ended.set()

    monkeypatch.setattr(Overview, "events", much)
    monkeypatch.setattr("proxy.dashboard.PATIENCE", 0.1)
    proxy = await start_proxy()
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)  # it holds back what it does not read
    writer.write(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        async with asyncio.timeout(20):
            await ended.wait()
            heard = b"the beginning"
            while piece := await reader.read(1024 * 1024):
                heard = (heard + piece)[-10:]
            assert not heard.endswith(b"0\r\n\r\n"), "it was broken off"
    finally:
        writer.close()


async def test_a_store_of_jobs_that_hangs_holds_up_nothing(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is told each second all the same; of a store that is away nothing is told."""
    never = asyncio.Event()

    async def hang(store: Any) -> Any:
        await never.wait()
        raise JobsUnavailable

    monkeypatch.setattr("proxy.overview.looked", hang)
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    times = []
    async with asyncio.timeout(20):
        async for name, now in events(proxy):
            if name == "now":
                times.append(now["sample"]["t"])
                assert now["jobs"] is None
            if len(times) == 4:
                break
    assert times == [*range(times[0], times[0] + 4)]


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
    monkeypatch.setattr("proxy.recent.time.monotonic", lambda: now)
    times = Times()
    for seconds in range(1, 101):
        times.add(float(seconds))
    assert times.shares(0.5, 0.95) == [51.0, 96.0]
    now = 161.0
    assert times.shares(0.5) == [None]


def test_tallies_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("proxy.recent.time.monotonic", lambda: now)
    tallies = Tallies(300, 30)
    tallies.add("a")
    now = 250.0
    tallies.add("a")
    assert tallies.all() == {"a": 2}
    now = 305.0
    assert tallies.all() == {"a": 1}


def test_tallies_tell_a_bounded_number_of_names_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers make up as many as they like."""
    monkeypatch.setattr("proxy.recent.time.monotonic", lambda: 0.0)
    tallies = Tallies(300, 30)
    for number in range(3 * NAMES):
        tallies.add(f"10.0.0.{number}")
    assert len(tallies.all()) == NAMES + 1
    assert tallies.all().total() == 3 * NAMES and tallies.all()[OTHERS] == 2 * NAMES


def test_the_sums_of_the_hour_are_those_of_its_samples() -> None:
    """Also when the first ones leave it."""
    hour = Hour()
    samples = [Sample(second, ok=second % 7, failed=second % 3, retried=second % 2) for second in range(HOUR + 1000)]
    for sample in samples:
        hour.add(sample)
    kept = samples[-HOUR:]
    assert hour.sums == {name: sum(getattr(each, name) for each in kept) for name in ("ok", "failed", "retried")}
    assert hour.columns()["t"] == [each.t for each in kept]
