"""Whether new requests are served, for whoever sends them on."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis_server import RedisServer, started
from running import Proxy, StartProxy, busy, until

from emulator import Options
from proxy import readiness, scrape, steering_edge

READY = (200, {"status": "ready", "trouble": None})


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe looks anew."""
    monkeypatch.setattr(readiness, "AGE", 0.0)


async def ready(proxy: Proxy, path: str = "/ready") -> tuple[int, dict[str, Any]]:
    async with proxy.http.get(proxy.url + path) as response:
        return response.status, await response.json()


async def test_a_running_service_is_ready_and_says_so_without_a_key(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(proxy_api_keys={"anna": SecretStr("key")})
    assert await ready(proxy) == READY


async def test_a_service_that_stops_is_not_ready_while_it_still_serves_those_who_wait(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    first = await busy(proxy, 0.5)
    stopping = asyncio.create_task(proxy.service.lanes.drain(10))
    await until(lambda: proxy.service.line.state().is_stopping)
    assert await ready(proxy, "/ready/") == (503, {"status": "stopping", "trouble": None})
    assert (await first).status == 200
    await stopping


async def test_being_asked_is_not_told_in_the_log(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Probes come every few seconds."""
    proxy = await start_proxy(requests_log_file=tmp_path / "requests.jsonl")
    assert await ready(proxy) == READY
    await proxy.ask()
    await until(lambda: (tmp_path / "requests.jsonl").read_text().count("\n") == 1)
    assert '"path":"/"' in (tmp_path / "requests.jsonl").read_text()


# ---- The access token ----


@pytest.mark.usefixtures("at_once")
async def test_a_probe_calls_the_api_no_more_than_a_call_would(start_proxy: StartProxy) -> None:
    """One token for all probes, and nothing else."""
    proxy = await start_proxy()
    assert [await ready(proxy) for _ in range(20)] == [READY] * 20
    assert len(await proxy.calls("")) == 1


@pytest.mark.usefixtures("at_once")
async def test_a_refused_credential_is_a_reason_and_the_log_knows_more(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Strangers are told neither the key nor what the API says of it."""
    proxy = await start_proxy(gigachat_api_key=SecretStr("wrong-key"))
    proxy.giga.state.faults.add({"kind": "status", "status": 401, "path": "/oauth", "times": -1, "body": {"code": 6}})
    status, told = await ready(proxy)
    assert (status, told["status"]) == (503, "not ready")
    assert told["trouble"] == "the API refuses this service's credential: the log says what to change"
    assert "GIGACHAT_API_KEY" in caplog.text and "wrong-key" not in caplog.text


@pytest.mark.usefixtures("at_once")
async def test_it_is_ready_again_as_soon_as_a_token_is_to_be_had(start_proxy: StartProxy) -> None:
    """A token endpoint that fails is asked again by later probes."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "path": "/oauth"})
    status, told = await ready(proxy)
    assert (status, told["trouble"]) == (503, "no access token can be had now: the log says why")
    assert await ready(proxy) == READY


async def test_a_token_that_is_long_in_coming_holds_no_probe_up(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told so, and one request for it is under way, however many probes come."""
    monkeypatch.setattr(readiness, "PATIENCE", 0.05)
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 20, "path": "/oauth"})
    for _ in range(5):
        status, told = await ready(proxy)
        assert (status, told["trouble"]) == (503, "no access token has been issued yet")
    assert len(await proxy.calls("/oauth")) <= 1


async def test_with_a_token_in_hand_the_api_may_be_away(start_proxy: StartProxy) -> None:
    """Who asks waits in line, and is served when it is back."""
    proxy = await start_proxy()
    await proxy.ask()
    proxy.giga.state.faults.add({"kind": "status", "status": 503, "path": "", "times": -1})
    assert await ready(proxy) == READY


async def test_a_service_whose_callers_bring_their_credentials_needs_none(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gigachat_api_key=None, gpt2giga_pass_token=True)
    assert await ready(proxy) == READY
    assert await proxy.calls("") == []


async def test_other_connectors_need_not_know_of_probes(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(connector="chatgpt_connector", url_gpt="http://127.0.0.1:1/v1")
    assert await ready(proxy) == READY


# ---- The store of jobs ----


async def test_a_redis_of_jobs_that_is_away_is_told_and_the_rest_is_served(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is not."""
    monkeypatch.setattr(scrape, "JOBS_AGE", 0.0)
    redis = await started(RedisServer(tmp_path / "redis"))
    try:
        proxy = await start_proxy(jobs_url=SecretStr(redis.url))
        assert await ready(proxy) == READY
        await asyncio.to_thread(redis.kill)
        status, told = await ready(proxy)
        assert (status, told["status"]) == (200, "ready")
        assert told["trouble"].startswith("the store of jobs (JOBS_URL) cannot be asked: jobs, batches and ")
        assert (await proxy.ask()).status == 200
        await asyncio.to_thread(redis.start)
        assert await ready(proxy) == READY
    finally:
        await asyncio.to_thread(redis.stop)


async def test_a_store_of_jobs_that_hangs_holds_no_probe_up(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor whoever asks for the lines, in which its jobs are left out then."""
    monkeypatch.setattr(readiness, "PATIENCE", 0.05)
    monkeypatch.setattr(steering_edge, "PATIENCE", 0.05)
    redis = await started(RedisServer(tmp_path / "redis"))
    try:
        proxy = await start_proxy(jobs_url=SecretStr(redis.url))
        redis.hold()
        async with asyncio.timeout(4):  # the store itself is given 5 s
            assert await ready(proxy) == READY
            async with proxy.http.get(f"{proxy.url}/queue") as response:
                told = await response.json()
        assert told["jobs"] is None and told["lanes"][0]["name"] == "main"
    finally:
        redis.go_on()
        await asyncio.to_thread(redis.stop)


# ---- The disk ----


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ["JOBS_URL", "REQUESTS_LOG_FILE"])
async def test_where_nothing_can_be_written_it_is_not_ready_until_it_can(
    start_proxy: StartProxy, tmp_path: Path, name: str
) -> None:
    """The setting is named, the path is not."""
    home = tmp_path / "a-disk"
    home.mkdir()
    place = home / "file"
    knob: dict[str, Any] = {"jobs_url": SecretStr(str(place))} if name == "JOBS_URL" else {"requests_log_file": place}
    proxy = await start_proxy(**knob)
    assert await ready(proxy) == READY
    home.rename(tmp_path / "taken-away")
    status, told = await ready(proxy)
    assert (status, told["status"]) == (503, "not ready")
    assert told["trouble"] == f"nothing can be written where {name} is: No such file or directory"
    (tmp_path / "taken-away").rename(home)
    assert await ready(proxy) == READY


@pytest.mark.usefixtures("at_once")
async def test_a_full_disk_is_noticed(start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By writing something, which leaves nothing behind."""
    proxy = await start_proxy(requests_log_file=tmp_path / "requests.jsonl")
    assert await ready(proxy) == READY
    assert os.listdir(tmp_path) == ["requests.jsonl"]
    full = Path("/dev/full")
    monkeypatch.setattr(readiness.tempfile, "TemporaryFile", lambda dir: full.open("wb"))
    status, told = await ready(proxy)
    assert (status, told["trouble"]) == (
        503,
        "nothing can be written where REQUESTS_LOG_FILE is: No space left on device",
    )


def test_a_device_in_place_of_a_file_is_no_disk(tmp_path: Path) -> None:
    """/dev/stdout, say, beside which nobody may write."""
    readiness.probe(Path("/dev/null"))
    readiness.probe(tmp_path / "not-yet-there")


@pytest.mark.usefixtures("at_once")
async def test_all_reasons_are_told_together(start_proxy: StartProxy, tmp_path: Path) -> None:
    home = tmp_path / "a-disk"
    home.mkdir()
    proxy = await start_proxy(Options(), requests_log_file=home / "requests.jsonl")
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "path": "/oauth", "times": -1})
    home.rename(tmp_path / "taken-away")
    assert (await ready(proxy))[1]["trouble"].count("; ") == 1
