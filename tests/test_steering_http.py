"""/limits and /queue over real sockets: what is told to whom, what is changed and kept, what is refused and how."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr
from redis_server import RedisServer
from running import Proxy, StartProxy, busy, settings_for, until, waiting

import app
import emulator
from proxy import admins, info

KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}
ADMIN = SecretStr("key-of-the-operator")
KEYED = {"proxy_api_keys": KEYS, "admin_api_key": ADMIN}
OPERATOR = {"Authorization": "Bearer key-of-the-operator"}
ANNA, BORIS = ({"X-API-Key": f"key-of-{name}"} for name in ("anna", "boris"))
FIELDS = ["rpm", "concurrency", "timeout", "queue_size", "paused"]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admins, "PAUSE", 0.01)


Told = tuple[int, dict[str, Any]]


async def ask(proxy: Proxy, method: str, path: str, body: object = None, **more: Any) -> Told:
    data = body if isinstance(body, bytes | None) else json.dumps(body)
    async with proxy.http.request(method, proxy.url + path, data=data, **more) as response:
        return response.status, await response.json()


async def change(proxy: Proxy, path: str = "/limits", headers: Any = None, **wishes: Any) -> dict[str, Any]:
    status, told = await ask(proxy, "PATCH", path, wishes, headers=headers)
    assert status == 200, told
    return told


async def limits(proxy: Proxy, headers: Any = None) -> dict[str, Any]:
    """Of the main lane."""
    status, told = await ask(proxy, "GET", "/limits", headers=headers)
    assert status == 200, told
    return told["lanes"][0]


async def line(proxy: Proxy, query: str = "", headers: Any = None) -> dict[str, Any]:
    """The main lane's."""
    status, told = await ask(proxy, "GET", f"/queue{query}", headers=headers)
    assert status == 200, told
    return told["lanes"][0]


async def crowd(proxy: Proxy, number: int, **headers: str) -> list[asyncio.Task[Any]]:
    """So many requests that wait, `1` the first."""
    before = waiting(proxy)
    asking = []
    for n in range(1, number + 1):
        asking.append(asyncio.create_task(proxy.ask(str(n), headers={"X-Request-ID": f"id-{n}", **headers})))
        await until(lambda n=n: waiting(proxy) == before + n)
    return asking


async def leave(asking: list[asyncio.Task[Any]]) -> None:
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


# ---- Limits, told and changed ----


async def test_limits_are_told_as_set_as_changed_and_as_they_are(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=600, ext_max_requests=4)
    told = await limits(proxy)
    untouched = {"override": None, "since": None, "by": None}
    assert told == {
        "name": "main",
        "connector": "gigachat_connector",
        "limits": {
            "rpm": {"setting": 600, "now": 600, **untouched},
            "concurrency": {"setting": 4, "now": 4, **untouched},
            "timeout": {"setting": 60, "now": 60, **untouched},
            "queue_size": {"setting": 10000, "now": 10000, **untouched},
            "paused": {"setting": False, "now": False, **untouched},
        },
        "allowed_in_flight": 4,
        "api_pause": 0,
        "paused": False,
        "waiting": 0,
        "in_flight": 0,
        "eta": 0,
        "trouble": None,
    }
    await change(proxy, rpm=60, timeout=5, paused=True)
    told = await limits(proxy)
    assert [told["limits"][field]["override"] for field in FIELDS] == [60, None, 5, None, True]
    assert [told["limits"][field]["now"] for field in FIELDS] == [60, 4, 5, 10000, True]
    assert told["limits"]["rpm"]["by"] == "operator at 127.0.0.1" and told["limits"]["rpm"]["since"] > 1.7e9
    assert told["paused"] and told["eta"] is None


async def test_zero_is_no_limit_and_null_goes_back_to_the_setting(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=600, ext_max_requests=4)
    await change(proxy, rpm=0, concurrency=0)
    told = await limits(proxy)
    assert [told["limits"][field]["now"] for field in FIELDS[:2]] == [0, 0] and told["allowed_in_flight"] == 0
    told = await change(proxy, rpm=None, concurrency=None)
    assert [(one["field"], one["from"], one["to"], one["is_setting"]) for one in told["changes"]] == [
        ("rpm", 0, 600, True),
        ("concurrency", 0, 4, True),
    ]
    assert (await limits(proxy))["limits"]["rpm"]["override"] is None


async def test_an_answer_tells_what_was_changed_and_what_comes_of_it(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=60, ext_max_requests=1)
    asking = [asyncio.create_task(proxy.ask(str(number))) for number in range(12)]
    await until(lambda: waiting(proxy) >= 9)
    told = await change(proxy, "/limits?preview=true", rpm=6)
    assert told["preview"] and told["kept"] is None
    assert told["changes"] == [{"field": "rpm", "from": 60, "to": 6, "is_setting": False}]
    effect = told["effect"]
    assert effect["text"].startswith(f"the line of {effect['waiting']} clears in ")
    assert effect["after"]["rpm"] == 6 and effect["before"]["rpm"] == 60
    assert effect["after"]["clears_in"] > 80 > 13 > effect["before"]["clears_in"]
    assert told["lane"]["limits"]["rpm"]["now"] == 60
    assert (await limits(proxy))["limits"]["rpm"]["override"] is None
    told = await change(proxy, rpm=6000)
    assert not told["preview"] and told["lane"]["limits"]["rpm"]["now"] == 6000
    assert all(answer.status == 200 for answer in await asyncio.gather(*asking))


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"rps": 5}, 'unknown field "rps": there are lane, rpm, concurrency, timeout, queue_size, paused'),
        ({"x" * 15_000: None}, 'unknown field "xxx'),
        (b'{"paused": true, "paused": false}', '"paused" comes twice'),
        (b'{"rpm": 5, "rpm": 5}', '"rpm" comes twice'),
        ({"rpm": -1}, "rpm"),
        ({"rpm": "60"}, "rpm"),
        ({"rpm": True}, "rpm"),
        (b'{"rpm": NaN}', "rpm"),
        (b'{"rpm": 1e999}', "rpm"),
        (b'{"timeout": -Infinity}', "timeout"),
        ({"rpm": 10**400}, "rpm"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"concurrency": -1}, "concurrency"),
        ({"timeout": 0}, "timeout"),
        ({"queue_size": 0}, "queue_size"),
        ({"paused": "yes"}, "paused"),
        ({"paused": 1}, "paused"),
        ({"lane": 5, "rpm": 1}, "lane"),
        ({"lane": None, "rpm": 1}, "lane"),
        ({"rpm": {"$gt": 0}}, "rpm"),
        ({"\ud800": 1}, "unknown field"),
        ({"rpm": 5, "": 1}, "unknown field"),
    ],
)
async def test_what_cannot_be_is_a_400_that_names_it(start_proxy: StartProxy, body: Any, name: str) -> None:
    """And nothing of it is changed."""
    proxy = await start_proxy(ext_api_rpm=600)
    status, told = await ask(proxy, "PATCH", "/limits", body)
    assert status == 400 and name in told["status"], told
    assert not any(one["override"] for one in (await limits(proxy))["limits"].values())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b'"rpm"', b"null", b"\xff\xfe\x00", b"[" * 15000, b'{"rpm": ' + b"9" * 5000 + b"}", b"{}"],
)
async def test_a_body_that_is_no_change_is_a_400(start_proxy: StartProxy, body: bytes) -> None:
    proxy = await start_proxy()
    assert (await ask(proxy, "PATCH", "/limits", body))[0] == 400


async def test_other_wrong_ways_to_ask(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    assert (await ask(proxy, "PATCH", "/limits", {"lane": "x", "rpm": 1}))[0] == 404
    assert (await ask(proxy, "PATCH", "/limits", b'{"rpm": ' + b" " * 20000 + b"1}"))[0] == 413
    assert (await ask(proxy, "PUT", "/limits", {"rpm": 1}))[0] == 405
    for path in ("/limits?preview=perhaps", "/limits?preview="):
        status, told = await ask(proxy, "PATCH", path, {"rpm": 1})
        assert status == 400 and "preview" in told["status"]
    for path in ("/queue?limit=-1", "/queue?limit=x", "/queue?limit=1001", "/queue?limit=²", "/limits/audit?limit=1e3"):
        status, told = await ask(proxy, "GET", path)
        assert status == 400 and "limit" in told["status"]
    assert not (await limits(proxy))["limits"]["rpm"]["override"]


async def test_changes_are_there_after_a_restart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is the record of them, and whoever starts the service is told."""
    async with AsyncExitStack() as stack:
        giga = await stack.enter_async_context(emulator.start())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        settings = settings_for(giga, drain_timeout=0, ext_api_rpm=600)
        async with app.serving(settings, tmp_path) as service:
            assert "SET WHILE IT RAN" not in app.banner(service)
            told = await change(Proxy(service, giga, http), rpm=6000, queue_size=7, paused=True)
            assert told["kept"] and told["trouble"] is None
        async with app.serving(settings, tmp_path) as service:
            proxy = Proxy(service, giga, http)
            told = await limits(proxy)
            assert [told["limits"][field]["now"] for field in FIELDS] == [6000, 10, 60, 7, True]
            banner = app.banner(service)
            assert "SET WHILE IT RAN: main: rpm 6000 in place of 600, since 20" in banner
            assert "SET WHILE IT RAN: main: paused until `app.py resume`, since 20" in banner
            asking = asyncio.create_task(proxy.ask("held"))
            await until(lambda: waiting(proxy) == 1)
            await change(proxy, paused=False)
            assert (await asking).status == 200
            status, told = await ask(proxy, "GET", "/limits/audit?limit=2")
            assert status == 200
            assert [(entry["field"], entry["from"], entry["to"]) for entry in told["entries"]] == [
                ("paused", True, False),
                ("paused", False, True),
            ]
            assert {(entry["who"], entry["address"]) for entry in told["entries"]} == {("operator", "127.0.0.1")}


async def test_a_change_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    """It holds all the same."""
    (tmp_path / "limits.json.new").mkdir()
    async with AsyncExitStack() as stack:
        giga = await stack.enter_async_context(emulator.start())
        http = await stack.enter_async_context(aiohttp.ClientSession())
        service = await stack.enter_async_context(app.serving(settings_for(giga, drain_timeout=0), tmp_path))
        told = await change(Proxy(service, giga, http), rpm=60)
        assert not told["kept"] and "directory" in told["trouble"].lower()
        assert service.line.state().limits.rpm == 60


async def test_each_change_is_a_line_in_the_log(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    proxy = await start_proxy(ext_api_rpm=600, admin_api_key=ADMIN)
    await change(proxy, headers=OPERATOR, rpm=60)
    assert "limits of lane main: rpm 600.0 -> 60, by operator at 127.0.0.1" in caplog.text
    assert "key-of-the-operator" not in caplog.text


async def test_another_upstreams_lane_has_limits_of_its_own(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(api_key=SecretStr("a-key"), chatgpt_ext_api_rpm=30)
    told = await change(proxy, lane="chatgpt", rpm=10)
    assert told["lane"]["name"] == "chatgpt" and told["lane"]["limits"]["rpm"]["setting"] == 30
    _, told = await ask(proxy, "GET", "/limits")
    assert [(lane["name"], lane["limits"]["rpm"]["now"]) for lane in told["lanes"]] == [("main", 0), ("chatgpt", 10)]


# ---- Under load ----


async def test_fifty_who_wait_flow_at_the_new_pace(start_proxy: StartProxy) -> None:
    """The API sees no two of them closer than the new interval allows; and all are answered."""
    proxy = await start_proxy(ext_api_rpm=60, ext_max_requests=0)
    asking = [asyncio.create_task(proxy.ask(str(number))) for number in range(51)]
    await until(lambda: waiting(proxy) >= 49)
    sent = proxy_sends(proxy)
    await change(proxy, rpm=1200)
    answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200] * 51
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert len(gaps) >= 48 and min(gaps) >= 0.05 - 1e-9


def proxy_sends(proxy: Proxy) -> list[float]:
    """When each call is let go from now on, as the limits note it: a busy machine cannot blur that."""
    sent: list[float] = []
    limits: Any = proxy.service.line._accounts[0].limits  # type: ignore[attr-defined]
    name = "_sent" if hasattr(limits, "_sent") else "_stamp"
    stamp = getattr(limits, name)

    def noted(permit: Any, *more: Any) -> None:
        stamp(permit, *more)
        sent.append(permit.sent_at)

    setattr(limits, name, noted)
    return sent


async def test_a_slower_pace_is_kept_in_the_middle_of_a_burst(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=6000, ext_max_requests=0)
    sent = proxy_sends(proxy)
    asking = [asyncio.create_task(proxy.ask(str(number))) for number in range(60)]
    await until(lambda: len(sent) >= 20)
    await change(proxy, rpm=1200)
    number = len(sent)
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 60
    after = [later - earlier for earlier, later in pairwise(sent[number - 1 :])]
    assert min(after) >= 0.05 - 1e-9


async def test_a_burst_that_is_paused_and_resumed_loses_nobody(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_api_rpm=6000, ext_max_requests=0)
    sent = proxy_sends(proxy)
    asking = [asyncio.create_task(proxy.ask(str(number))) for number in range(60)]
    await until(lambda: len(sent) >= 20)
    await change(proxy, paused=True)
    number = len(sent)
    await until(lambda: proxy.service.line.in_flight <= 1)
    assert len(sent) == number and waiting(proxy) > 30
    assert (await line(proxy))["eta"] is None
    await change(proxy, paused=False)
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 60
    assert len(await proxy.sent_texts()) == 60


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models"])
async def test_models_are_remembered_while_the_line_is_paused(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """However old; who asks for the first time waits, and is told why in vain."""
    monkeypatch.setattr(info, "AGE", 0.0)
    proxy = await start_proxy()
    late = {"X-Request-Timeout": "0.05"}
    await change(proxy, paused=True)
    status, told = await ask(proxy, "GET", path, headers=late)
    assert status == 504 and "paused by an operator" in str(told)
    await change(proxy, paused=False)
    models = await ask(proxy, "GET", path)
    await change(proxy, paused=True)
    assert models[0] == 200 and await ask(proxy, "GET", path, headers=late) == models


# ---- Lines ----


async def test_a_line_is_told_with_places_and_times(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 30)
    asking = await crowd(proxy, 3)
    asking.append(asyncio.create_task(proxy.ask("high", headers={"X-Priority": "low"}, model="GigaChat-2-Max")))
    await until(lambda: waiting(proxy) == 4)
    told = await line(proxy, "?limit=2")
    assert (told["name"], told["waiting"], told["in_flight"], told["paused"]) == ("main", 4, 1, False)
    assert told["line"]["seen"] == 4
    assert [(one["place"], one["id"]) for one in told["line"]["requests"]] == [(1, "id-1"), (2, "id-2")]
    told = await line(proxy)
    last = next(one for one in told["line"]["requests"] if one["priority"] == "low")
    assert last["model"] == "GigaChat-2-Max" and last["caller"] == "127.0.0.1" and last["state"] == "waiting"
    assert 0 < last["waited"] < last["deadline"] <= 600 and last["took"] is None and last["attempts"] == 0
    (call,) = told["calls"]["requests"]
    assert call["state"] == "in_flight" and call["took"] > 0 and call["attempts"] == 1 and call["place"] is None
    await leave([first, *asking])


async def test_a_request_is_found_by_its_id(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 30)
    asking = await crowd(proxy, 2)
    asking.append(asyncio.create_task(proxy.ask("odd", headers={"X-Request-ID": "a/b?c=%20{d}"})))
    await until(lambda: waiting(proxy) == 3)
    status, told = await ask(proxy, "GET", "/queue/id-2")
    assert status == 200 and told["id"] == "id-2"
    (found,) = told["requests"]
    assert (found["lane"], found["place"], found["state"]) == ("main", 2, "waiting")
    url = aiohttp.client.URL(f"{proxy.url}/queue/a%2Fb%3Fc=%2520%7Bd%7D", encoded=True)
    async with proxy.http.get(url) as response:
        assert (await response.json())["requests"][0]["place"] == 3
    for id in ("nobody", "%00", "x" * 5000, "%D0%B9"):
        assert (await ask(proxy, "GET", f"/queue/{id}"))[0] == 404
    await leave([first, *asking])


Ask = Callable[[Proxy], Awaitable[tuple[int, Any]]]


async def native(proxy: Proxy) -> tuple[int, Any]:
    answer = await proxy.ask("x", headers={"X-Request-ID": "mine"})
    return answer.status, answer.body["status"]


def posting(path: str, *where: str) -> Ask:
    async def asking(proxy: Proxy) -> tuple[int, Any]:
        body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "x"}]}
        async with proxy.http.post(proxy.url + path, json=body, headers={"X-Request-ID": "mine"}) as response:
            told: Any = await response.json()
            assert response.headers["x-should-retry"] == "false"
            for name in where:
                told = told[name]
            return response.status, told

    return asking


@pytest.mark.parametrize(
    "asks",
    [
        native,
        posting("/v1/chat/completions", "error", "message"),
        posting("/api/v1/chat/completions", "message"),
        posting("/gigachat/", "error"),
    ],
    ids=["native", "openai", "gigachat", "lmc"],
)
@pytest.mark.parametrize("is_in_flight", [False, True])
async def test_whoever_is_cancelled_is_told_so_in_its_own_dialect(
    start_proxy: StartProxy, asks: Ask, is_in_flight: bool
) -> None:
    """Out of the line, or out of its call; and a client library does not try again by itself."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 30)
    asking: asyncio.Task[Any] = asyncio.create_task(asks(proxy))
    await until(lambda: waiting(proxy) == 1)
    if is_in_flight:
        proxy.giga.state.faults.add({"kind": "slow", "seconds": 30})
        await leave([first])
        await until(lambda: waiting(proxy) == 0 and proxy.service.line.in_flight == 1)
    status, told = await ask(proxy, "DELETE", "/queue/mine")
    assert (status, told) == (200, {"id": "mine", "cancelled": 1})
    assert await asking == (503, "the request was cancelled by the operator (DELETE /queue)")
    assert (await ask(proxy, "DELETE", "/queue/mine"))[0] == 404
    await leave([first])


async def test_a_stream_that_is_cancelled_ends_with_an_event(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1, stream_early_200=0)
    first = await busy(proxy, 30)
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"X-Request-ID": "mine"}
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body, headers=headers) as response:
        await until(lambda: waiting(proxy) == 1)
        assert (await ask(proxy, "DELETE", "/queue/mine"))[0] == 200
        assert b"was cancelled" in (await response.read()).splitlines()[-2]
    await leave([first])


# ---- Who may ----


async def test_a_caller_sees_its_own_requests_and_the_operator_all(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1, **KEYED)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 30})
    asking = [asyncio.create_task(proxy.ask("0", headers=ANNA))]
    await until(lambda: proxy.service.line.in_flight == 1)
    for number, caller in enumerate((ANNA, BORIS, ANNA), 1):
        asking.append(asyncio.create_task(proxy.ask("x", headers={"X-Request-ID": f"id-{number}", **caller})))
        await until(lambda number=number: waiting(proxy) == number)
    told = await line(proxy, headers=BORIS)
    assert told["waiting"] == 3 and told["line"]["seen"] == 1 and told["calls"] == {"seen": 0, "requests": []}
    assert [(one["id"], one["place"], one["caller"]) for one in told["line"]["requests"]] == [("id-2", 2, "boris")]
    told = await line(proxy, headers=OPERATOR)
    assert [one["caller"] for one in told["line"]["requests"]] == ["anna", "boris", "anna"]
    assert [one["caller"] for one in told["calls"]["requests"]] == ["anna"]
    assert (await ask(proxy, "GET", "/queue/id-1", headers=BORIS))[0] == 404
    assert (await ask(proxy, "DELETE", "/queue/id-1", headers=BORIS))[0] == 404
    assert (await ask(proxy, "DELETE", "/queue/id-2", headers=BORIS))[1] == {"id": "id-2", "cancelled": 1}
    assert "by its caller" in (await asking[2]).body["status"]
    assert (await ask(proxy, "DELETE", "/queue/id-1", headers=OPERATOR))[0] == 200
    await leave(asking)


async def test_limits_are_any_callers_to_see_and_the_operators_to_change(start_proxy: StartProxy) -> None:
    """Who changed them is not told to callers."""
    proxy = await start_proxy(**KEYED)
    await change(proxy, headers=OPERATOR, rpm=60)
    told = await limits(proxy, ANNA)
    assert told["limits"]["rpm"]["now"] == 60 and told["limits"]["rpm"]["by"] is None
    assert (await limits(proxy, OPERATOR))["limits"]["rpm"]["by"] == "operator at 127.0.0.1"
    for headers in (ANNA, {}, {"X-API-Key": "wrong"}):
        assert (await ask(proxy, "PATCH", "/limits", {"rpm": 1}, headers=headers))[0] == 401
        assert (await ask(proxy, "GET", "/limits/audit", headers=headers))[0] == 401
    assert (await ask(proxy, "GET", "/limits"))[0] == 401
    assert proxy.service.line.state().limits.rpm == 60


@pytest.mark.parametrize("path", ["/limits", "/queue", "/queue/x", "/limits/audit"])
async def test_a_wrong_key_is_told_late_wherever_it_could_be_guessed(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Others are not held up by it."""
    monkeypatch.setattr(admins, "PAUSE", 300.0)
    for knobs in (KEYED, {"admin_api_key": ADMIN}):
        proxy = await start_proxy(**knobs)
        guessing = asyncio.create_task(ask(proxy, "GET", path, headers={"X-API-Key": "wrong"}))
        for _ in range(3):
            assert (await ask(proxy, "GET", "/limits", headers=OPERATOR))[0] == 200
        assert not guessing.done()
        guessing.cancel()


async def test_a_key_called_operator_is_no_operators(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(proxy_api_keys={"operator": SecretStr("hers")}, admin_api_key=ADMIN, ext_max_requests=1)
    asking = [asyncio.create_task(proxy.ask("x", headers=OPERATOR | {"X-API-Key": "hers"}))]
    headers = {"X-API-Key": "hers"}
    assert (await ask(proxy, "PATCH", "/limits", {"rpm": 1}, headers=headers))[0] == 401
    assert (await limits(proxy, headers))["limits"]["rpm"]["by"] is None
    await leave(asking)


async def test_without_keys_this_machine_is_the_operators_unless_something_is_between(start_proxy: StartProxy) -> None:
    """Whoever comes through a proxy sees its own, and changes nothing."""
    proxy = await start_proxy(ext_max_requests=1, trusted_proxies=())
    first = await busy(proxy, 30)
    asking = await crowd(proxy, 1)
    forwarded = {"X-Forwarded-For": "10.1.1.1"}
    assert (await ask(proxy, "PATCH", "/limits", {"rpm": 1}, headers=forwarded))[0] == 401
    told = await line(proxy, headers=forwarded)
    assert told["line"]["seen"] == 1  # the proxy is not trusted, so its address is the caller's
    assert (await ask(proxy, "GET", "/queue", headers=forwarded))[1]["jobs"] is None
    assert (await limits(proxy, forwarded))["limits"]["paused"]["by"] is None
    await leave([first, *asking])


async def test_without_the_operators_key_nobody_is_where_callers_have_keys(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(proxy_api_keys=KEYS)
    status, told = await ask(proxy, "PATCH", "/limits", {"rpm": 1}, headers=ANNA)
    assert status == 401 and "set ADMIN_API_KEY" in told["status"]


async def test_accounts_of_callers_own_are_theirs_and_the_operators(start_proxy: StartProxy) -> None:
    """Others are not even told that there are such."""
    proxy = await start_proxy(gpt2giga_pass_token=True, ext_max_requests=1, **KEYED)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 30})
    brought = {**ANNA, "Authorization": "Bearer giga-cred-another", "X-Request-ID": "id-1"}
    asking = asyncio.create_task(proxy.ask("x", headers=brought))
    await until(lambda: len(proxy.service.lanes.all()) == 2 and proxy.service.lanes.all()[1].line.in_flight == 1)
    for path in ("/limits", "/queue"):
        _, told = await ask(proxy, "GET", path, headers=OPERATOR)
        assert [lane["name"][:7] for lane in told["lanes"]] == ["main", "passed-"]
        _, told = await ask(proxy, "GET", path, headers=BORIS)
        assert [lane["name"] for lane in told["lanes"]] == ["main"]
    _, told = await ask(proxy, "GET", "/queue", headers=ANNA)
    assert [(lane["name"][:7], lane["calls"]["seen"]) for lane in told["lanes"]] == [("main", 0), ("passed-", 1)]
    name = told["lanes"][1]["name"]
    assert (await change(proxy, headers=OPERATOR, lane=name, rpm=7))["lane"]["limits"]["rpm"]["now"] == 7
    assert (await ask(proxy, "DELETE", "/queue/id-1", headers=ANNA))[0] == 200
    assert (await asking).status == 503


# ---- Jobs ----


async def test_the_operator_is_told_of_jobs_that_wait_before_the_line(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1)
    await change(proxy, paused=True)
    body = {"body": {"messages": [["user", "x"]]}}
    for _ in range(12):
        assert (await ask(proxy, "POST", "/jobs", body))[0] == 202
    await until(lambda: waiting(proxy) == 10)
    _, told = await ask(proxy, "GET", "/queue")
    assert told["jobs"] == {"queued": 2, "batch_lines": 0, "delayed": 0, "running": 10, "kept": 12}
    await change(proxy, paused=False)
    await until(lambda: waiting(proxy) == 0)


async def test_a_jobs_request_that_is_cancelled_has_failed_for_good(start_proxy: StartProxy, tmp_path: Path) -> None:
    """It does not come back by itself: whoever took it out of the line wants it gone."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1)
    await change(proxy, paused=True)
    _, job = await ask(proxy, "POST", "/jobs", {"body": {"messages": [["user", "x"]]}})
    await until(lambda: waiting(proxy) == 1)
    assert (await ask(proxy, "DELETE", f"/queue/{job['id']}"))[0] == 200
    async with asyncio.timeout(20):
        while (told := (await ask(proxy, "GET", f"/jobs/{job['id']}"))[1])["state"] == "running":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert told["state"] == "failed" and "cancelled" in told["error"]


# ---- The document ----


def shape(told: Any) -> Any:
    """Names of fields, all the way down; of a list, those of its first entry. What is left out is "..."."""
    if isinstance(told, dict):
        return {name: shape(value) for name, value in told.items()}
    return [shape(told[0])] if isinstance(told, list) and told else None


def is_like(documented: Any, told: Any) -> bool:
    if isinstance(documented, dict) and isinstance(told, dict):
        names = {name for name in documented if name != "..."}
        is_whole = names == {*told} or ("..." in documented and names < {*told})
        return is_whole and all(is_like(documented[name], told[name]) for name in names)
    return bool(documented == told if not isinstance(documented, list) else is_like(documented[0], told[0]))


async def test_answers_look_as_the_document_shows_them(start_proxy: StartProxy) -> None:
    text = (Path(app.__file__).parent / "docs" / "operations.md").read_text(encoding="utf-8")
    documented = [json.loads(block.partition("```")[0]) for block in text.split("```json\n")[1:]]
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 30)
    asking = await crowd(proxy, 1)
    told: list[Any] = [await change(proxy, "/limits?preview=true", rpm=5), (await ask(proxy, "GET", "/limits"))[1]]
    await change(proxy, timeout=50)
    told += [(await ask(proxy, "GET", path))[1] for path in ("/limits/audit", "/queue")]
    told[-1]["jobs"] = documented[-1]["jobs"]  # none are kept here
    assert len(documented) == 4
    for block, answer in zip(documented, told, strict=True):
        assert is_like(shape(block), shape(answer)), shape(answer)
    await leave([first, *asking])


# ---- Replicas ----


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Proxy, Proxy, RedisServer, Callable[[], Awaitable[Proxy]]]]:
    """Two services on one Redis, before one API; and one more when it is asked for."""
    redis = RedisServer(tmp_path / "redis")
    await asyncio.to_thread(redis.start)
    try:
        async with AsyncExitStack() as stack:
            giga = await stack.enter_async_context(emulator.start())
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

            async def another() -> Proxy:
                settings = settings_for(
                    giga,
                    drain_timeout=0,
                    ext_api_rpm=600,
                    ext_max_requests=8,
                    redis_url=SecretStr(redis.url),
                    redis_grace=0.3,
                )
                return Proxy(await stack.enter_async_context(app.serving(settings)), giga, http)

            yield await another(), await another(), redis, another
    finally:
        await asyncio.to_thread(redis.stop)


async def test_a_change_at_one_service_holds_at_the_other_and_at_those_that_come_later(two: Any) -> None:
    one, other, _, another = two
    told = await change(one, rpm=60, timeout=7, queue_size=9, paused=True)
    assert told["kept"]
    line = other.service.line
    await until(lambda: line.state().limits.is_held and line.state().size == 9)
    assert (await limits(other))["limits"] == told["lane"]["limits"]
    assert line.flights.call_timeout == 7
    later = await another()
    assert (await limits(later))["limits"] == told["lane"]["limits"]
    assert "paused until" in app.banner(later.service)
    await change(later, rpm=6000, paused=None)
    assert (await other.ask("x")).status == 200
    _, record = await ask(one, "GET", "/limits/audit")
    assert [(entry["field"], entry["to"]) for entry in record["entries"]][:2] == [("paused", False), ("rpm", 6000)]


async def test_a_service_that_has_not_heard_of_a_change_yet_undoes_it_all_the_same(two: Any) -> None:
    """What it knows is not taken for what is so: the one who resumes may be behind a balancer."""
    one, other, _, _ = two
    deaf = other.service.line._accounts[0].limits
    deaf._set.heard_of = lambda revision: None
    await change(one, paused=True)
    assert (await limits(other))["paused"] is False
    told = await change(other, paused=False)
    assert [(one["field"], one["from"], one["to"]) for one in told["changes"]] == [("paused", True, False)]
    await until(lambda: not one.service.line.state().limits.is_held)


async def test_a_burst_over_two_services_keeps_the_new_pace_and_loses_nobody(two: Any) -> None:
    one, other, _, _ = two
    sent = [proxy_sends(one), proxy_sends(other)]
    asking = [asyncio.create_task((one, other)[number % 2].ask(str(number))) for number in range(40)]
    await until(lambda: sum(map(len, sent)) >= 6)
    await change(one, paused=True)
    await until(lambda: other.service.line.state().limits.is_held)
    await change(other, paused=False, rpm=1200)
    await until(lambda: one.service.line.state().limits.rpm == 1200)
    numbers = [len(times) for times in sent]
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 40
    after = sorted(time for times, number in zip(sent, numbers, strict=True) for time in times[number:])
    assert min(later - earlier for earlier, later in pairwise(after)) >= 0.05 - 1e-9


async def test_while_redis_is_away_a_change_is_a_503_and_changes_nothing(two: Any) -> None:
    one, _, redis, _ = two
    await asyncio.to_thread(redis.kill)
    await until(lambda: one.service.line.trouble != "")
    status, told = await ask(one, "PATCH", "/limits", {"rpm": 60})
    assert status == 503 and "nothing is changed" in told["status"]
    assert (await change(one, "/limits?preview=true", rpm=60))["preview"]
    assert (await ask(one, "GET", "/limits/audit"))[0] == 503
    told = await limits(one)
    assert told["limits"]["rpm"]["override"] is None and "Redis has been away" in told["trouble"]
