"""Metrics: everything is counted once, labels are bounded and tell nothing secret, and a scrape holds nobody up."""

import asyncio
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis_server import RedisServer, free_port, started
from running import Proxy, StartProxy, busy, chat, settings_for, until, waiting
from scraped import Scraped, counted, scraped

import app
import emulator
from emulator import Options
from proxy import scrape, series
from proxy.entry import Entry
from proxy.jobs import Job, StoreState
from proxy.known import Known
from proxy.limits import LimitsState, Usage
from proxy.metrics import CALLERS, MODELS, PASSED, SERIES, Metrics
from proxy.request import Story
from proxy.series import LONGEST, OTHER, Counts, Names, Sends, Spans, text_of

IN_CI = os.environ.get("CI", "").lower() == "true"
KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}
ANNA, BORIS = {"X-API-Key": "key-of-anna"}, {"X-API-Key": "key-of-boris"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape is a new one."""
    monkeypatch.setattr(scrape, "AGE", 0.0)
    monkeypatch.setattr(scrape, "JOBS_AGE", 0.0)


async def get(proxy: Proxy, path: str, **more: Any) -> int:
    async with proxy.http.request(more.pop("method", "GET"), proxy.url + path, **more) as response:
        await response.read()
        return response.status


# ---- Requests ----


async def test_requests_are_counted_by_the_pattern_of_their_path_their_dialect_and_their_status(
    start_proxy: StartProxy,
) -> None:
    """A trailing slash is no other path, and neither is another id."""
    proxy = await start_proxy()
    await proxy.ask()
    openai = {"model": "any", "messages": [{"role": "user", "content": "Привет"}]}
    for path in ("/v1/chat/completions", "/v1/chat/completions/", "/team/a/v1/chat/completions"):
        assert await get(proxy, path, method="POST", json=openai) == 200
    for path in ("/api/v1/models", "/api/v1/files/no-such-file"):
        await get(proxy, path)
    await get(proxy, "/", method="POST", data=b"no JSON")
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/", status="400") == 1)
    assert told.sum("requests_total", route="/", method="POST", dialect="native", status="200") == 1
    assert told.sum("requests_total", route="/v1/chat/completions", dialect="openai", status="200") == 2
    assert told.sum("requests_total", route="/{prefix}/v1/chat/completions", dialect="openai", status="200") == 1
    assert told.sum("requests_total", route="/api/{version}/{path}", dialect="gigachat", status="200") == 1
    assert told.sum("requests_total", route="/api/{version}/{path}", dialect="gigachat", status="404") == 1
    assert told.sum("request_duration_seconds_count", route="/v1/chat/completions") == 2
    assert told.sum("errors_total", code="bad_request") == 1


async def test_whatever_is_asked_where_there_is_nothing_is_one_route(start_proxy: StartProxy) -> None:
    """However the path or the method is spelt; none of it is told."""
    proxy = await start_proxy()
    paths = [
        "/nowhere",
        "/.env",
        "/v1/nowhere",
        "/v2/nowhere",
        "/wp-admin/x.php",
        '/"}\\ 1\n',
        "/%00%ff/%e2%98%83",
        "/secret-x",
    ]
    for path in paths:
        assert await get(proxy, path) == 404
    for method in ("PUT", "PROPFIND", "REPORT"):
        assert await get(proxy, "/", method=method) == 405
    told = await counted(proxy, lambda now: now.sum("requests_total", route=OTHER, status="405") == 3)
    assert told.sum("requests_total", route=OTHER, status="404") == len(paths)
    assert told.sum("requests_total", method=OTHER) == 2
    assert "secret-x" not in told.text and "PROPFIND" not in told.text and "nowhere" not in told.text


async def test_probes_and_scrapes_are_counted_but_are_no_durations(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    await get(proxy, "/health")
    await get(proxy, "/ready")
    await scraped(proxy)
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/metrics") >= 1)
    assert told.sum("requests_total", route="/health") == told.sum("requests_total", route="/ready") == 1
    assert told.rows("request_duration_seconds_count") == []


# ---- Callers ----


async def test_callers_are_told_by_the_names_of_their_keys(start_proxy: StartProxy) -> None:
    """And whoever has none is nobody in particular."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for headers in (ANNA, ANNA, BORIS):
        assert (await proxy.ask(headers=headers)).status == 200
    assert (await proxy.ask()).status == 401
    told = await counted(proxy, lambda now: now.sum("requests_total", status="401") == 1, ANNA)
    assert told.sum("requests_total", route="/", caller="anna", status="200") == 2
    assert told.sum("requests_total", route="/", caller="boris", status="200") == 1
    assert told.sum("requests_total", caller="anonymous", status="401") == 1
    assert told.sum("tokens_total", caller="anna") == 2 * told.sum("tokens_total", caller="boris") > 0


async def test_addresses_are_never_told(start_proxy: StartProxy) -> None:
    """Neither the peer's, nor one that a proxy names, nor that of who brings a credential along."""
    proxy = await start_proxy(
        trusted_proxies="127.0.0.1", gpt2giga_pass_token=True, proxy_api_keys=KEYS, admin_api_key=SecretStr("admin")
    )
    for number in range(20):
        address = {"X-Forwarded-For": f"198.51.100.{number}"}
        await proxy.ask(headers=address)
        await proxy.ask(headers={"Authorization": f"Bearer giga-cred-{number:04}", **ANNA, **address})
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/") == 40, {"X-API-Key": "admin"})
    assert "198.51.100" not in told.text and "127.0.0.1" not in told.text
    assert told.values("caller") == {"anonymous", "anna"}


async def test_names_of_keys_may_be_any_text(start_proxy: StartProxy) -> None:
    """Also what would break the lines of the answer."""
    names = ['quote"', "back\\slash", "line\nbreak", "имя", "surrogate\udcff", "{curly}", "tab\t,comma", "long" * 100]
    keys = {name: SecretStr(f"key-{number}") for number, name in enumerate(names)}
    proxy = await start_proxy(proxy_api_keys=keys)
    for number in range(len(names)):
        assert (await proxy.ask(headers={"X-API-Key": f"key-{number}"})).status == 200
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/") == len(names), {"X-API-Key": "key-0"})
    assert {'quote"', "back\\slash", "line?break", "имя", "surrogate?", "{curly}"} < told.values("caller")
    assert len(told.values("caller") - {"anonymous"}) == len(names)
    assert all(len(caller) <= LONGEST for caller in told.values("caller"))


# ---- The line and the API ----


async def test_who_waits_and_who_is_in_flight_is_seen_at_once(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(ext_max_requests=1, ext_queue_size=7, ext_api_rpm=6000)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    now = await scraped(proxy)
    assert (now.sum("queue_depth", lane="main"), now.sum("in_flight", lane="main")) == (1, 1)
    assert (now.sum("queue_limit"), now.sum("in_flight_limit"), now.sum("in_flight_allowed")) == (7, 1, 1)
    assert now.sum("pace_limit_per_minute", lane="main") == 6000
    await asyncio.gather(first, second)
    later = await counted(proxy, lambda now: now.sum("queue_wait_seconds_count") == 2)
    assert (later.sum("queue_depth"), later.sum("in_flight")) == (0, 0)
    assert later.sum("queue_wait_seconds_bucket", le="0.1") == 1 and later.sum("queue_wait_seconds_sum") > 0.1


async def test_every_call_is_counted_with_what_the_api_said(start_proxy: StartProxy) -> None:
    """Those too that were tried again; a 429 is a pause of the lane."""
    proxy = await start_proxy(exp_resp_timeout=0.3)
    faults = proxy.giga.state.faults
    faults.add({"kind": "status", "status": 429}, {"kind": "status", "status": 500}, {"kind": "cut"})
    assert (await proxy.ask()).status == 200
    faults.add({"kind": "status", "status": 422}, {"kind": "stall"})
    assert (await proxy.ask()).status == 422
    assert (await proxy.ask()).status == 504
    assert await get(proxy, "/api/v1/files/no-such-file") == 404
    told = await counted(proxy, lambda now: now.sum("upstream_attempts_total") == 7)
    attempts = {row["status"]: value for row, value in told.rows("upstream_attempts_total")}
    assert attempts == dict.fromkeys(("429", "500", "upstream_error", "200", "422", "upstream_timeout", "404"), 1)
    assert told.sum("pauses_total", lane="main") == 1
    assert told.sum("upstream_sends_total") == told.sum("upstream_latency_seconds_count") == 7
    assert told.sum("errors_total", code="upstream_timeout") == 1


async def test_the_first_chunk_is_timed_where_there_are_several(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    await proxy.ask()
    await get(proxy, "/api/v1/models")
    assert await get(proxy, "/", method="POST", json=chat(stream=True)) == 200
    told = await counted(proxy, lambda now: now.sum("upstream_attempts_total") == 3)
    assert told.sum("upstream_first_chunk_seconds_count", lane="main") == 1
    assert told.sum("upstream_first_chunk_seconds_sum") <= told.sum("upstream_latency_seconds_sum")


async def test_tokens_are_those_that_the_api_tells(start_proxy: StartProxy) -> None:
    """Of plain answers and of streams, each once; by key and direction."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    plain = await proxy.ask(headers=ANNA)
    assert await get(proxy, "/", method="POST", json=chat(stream=True), headers=ANNA) == 200
    told = await counted(proxy, lambda now: now.sum("queue_wait_seconds_count") == 2, ANNA)
    usage = plain.body["data"]["usage"]
    assert told.sum("tokens_total", caller="anna", direction="in") == 2 * usage["prompt_tokens"]
    assert told.sum("tokens_total", caller="anna", direction="out") == 2 * usage["completion_tokens"]


async def test_callers_that_leave_are_counted_by_when(start_proxy: StartProxy) -> None:
    """In line, where nothing was called for them, or in flight."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 20)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    for leaving in (second, first):
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await until(lambda: waiting(proxy) == 0)
    told = await counted(proxy, lambda now: now.sum("cancellations_total") == 2)
    assert told.sum("cancellations_total", stage="waiting") == told.sum("cancellations_total", stage="in_flight") == 1
    assert told.sum("requests_total", status="499") == 2
    assert told.sum("upstream_attempts_total", status="left") == 1


async def test_who_looked_on_and_leaves_has_cancelled_nothing(start_proxy: StartProxy) -> None:
    """The dashboard ends with its tab."""
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/dashboard/events") as events:
        await events.content.readline()
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/dashboard/events") == 1)
    assert told.sum("cancellations_total") == 0


async def test_refusals_at_once_are_no_waits(start_proxy: StartProxy) -> None:
    """A full line would make the waits look short."""
    proxy = await start_proxy(ext_max_requests=1, ext_queue_size=1)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    assert [(await proxy.ask()).status for _ in range(5)] == [429] * 5
    await asyncio.gather(first, second)
    told = await counted(proxy, lambda now: now.sum("requests_total", status="200", route="/") == 2)
    assert told.sum("errors_total", code="line_full") == 5
    assert told.sum("queue_wait_seconds_count") == 2


async def test_lanes_of_callers_own_credentials_are_told_together(start_proxy: StartProxy) -> None:
    """Their names would grow without end; what was counted stays when a lane is dropped."""
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=3)
    for number in range(8):
        answer = await proxy.ask(headers={"Authorization": f"Bearer giga-cred-{number:04}"})
        assert answer.status == 200
    await proxy.ask(headers={"Authorization": ""})
    told = await counted(proxy, lambda now: now.sum("upstream_attempts_total", lane=PASSED) == 8)
    assert told.values("lane") <= {"main", PASSED}
    assert told.sum("upstream_sends_total", lane=PASSED) == 8
    assert told.sum("lanes", of="own") == 1 and told.sum("lanes", of=PASSED) <= 3


async def test_redis_that_is_away_is_seen(start_proxy: StartProxy) -> None:
    """As the reason why the limits are not kept as they are set."""
    proxy = await start_proxy(redis_url=SecretStr(f"redis://:hush@127.0.0.1:{free_port()}/0"))
    told = await scraped(proxy)
    assert (told.sum("redis_up"), told.sum("limits_kept", lane="main")) == (0, 0)
    assert "hush" not in told.text


async def test_redis_that_is_there_is_seen(start_proxy: StartProxy, tmp_path: Path) -> None:
    server = await started(RedisServer(tmp_path / "redis"))
    try:
        proxy = await start_proxy(redis_url=SecretStr(server.url))
        told = await counted(proxy, lambda now: now.sum("redis_up") == 1)
        assert told.sum("limits_kept", lane="main") == 1
    finally:
        await asyncio.to_thread(server.stop)


async def test_a_lane_that_an_operator_paused_is_seen(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    for paused in (True, False):
        assert await get(proxy, "/limits", method="PATCH", json={"paused": paused}) == 200
        assert (await scraped(proxy)).sum("held", lane="main") == paused


async def test_without_redis_nothing_is_told_of_it(start_proxy: StartProxy) -> None:
    told = await scraped(await start_proxy())
    assert told.rows("redis_up") == [] and told.sum("limits_kept", lane="main") == 1


def test_the_used_share_of_the_pace_is_that_of_the_last_minute() -> None:
    """To the second; what is older counts no more, and the total is for ever."""
    sends = Sends()
    for tenth in range(1200):  # ten a second, for two minutes
        sends.add(1000 + tenth / 10)
    assert sends.last_minute(1120) == 600
    assert sends.last_minute(1150) == 300
    assert sends.last_minute(1180) == 0 == sends.last_minute(5000)
    sends.add(5000)
    assert (sends.last_minute(5000), sends.last_minute(5001), sends.total) == (0, 1, 1201)


async def test_the_share_of_the_pace_is_told_where_there_is_a_pace(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never more than all of it."""
    monkeypatch.setattr(Sends, "last_minute", lambda _: 61)
    assert (await scraped(await start_proxy(ext_api_rpm=122))).sum("pace_utilisation_ratio", lane="main") == 0.5
    assert (await scraped(await start_proxy(ext_api_rpm=60))).sum("pace_utilisation_ratio", lane="main") == 1
    assert (await scraped(await start_proxy())).rows("pace_utilisation_ratio") == []


# ---- Jobs, the process ----


@pytest.fixture
async def with_jobs(tmp_path: Path) -> AsyncIterator[Proxy]:
    async with AsyncExitStack() as stack:
        giga = await stack.enter_async_context(emulator.start(Options()))
        service = await stack.enter_async_context(app.serving(settings_for(giga, drain_timeout=0), tmp_path))
        yield Proxy(service, giga, await stack.enter_async_context(aiohttp.ClientSession()))


async def test_jobs_are_told_by_their_states(with_jobs: Proxy) -> None:
    body = b'{"messages": [{"role": "user", "content": "1"}]}'
    jobs = [
        Job(caller="*", operation="request", dialect="openai", path="/v1/chat/completions", body=body) for _ in "ab"
    ]
    await with_jobs.service.work.store.jobs.add(*jobs)
    told = await counted(with_jobs, lambda now: now.sum("jobs", state="ended") == 2)
    assert told.values("state") == {"queued", "queued_batch", "delayed", "running", "ended"}
    assert told.sum("jobs") == 2 and told.sum("jobs_store_up") == 1 and told.sum("jobs_stored_bytes") > 0
    assert (told.sum("jobs_limit"), told.sum("jobs_limit_bytes")) == (200_000, 4 * 1024**3)
    # What a job runs is a request like any other.
    assert told.sum("requests_total", route="/v1/chat/completions", status="200", caller="anonymous") == 2


KEYED = {"Idempotency-Key": "k1", "X-Request-ID": "mine"}


async def test_a_request_with_an_idempotency_key_is_counted_once(with_jobs: Proxy) -> None:
    """Not again for the job that it becomes; what it is told comes from there. A repeat is a request, and no answer."""
    for _ in range(2):
        assert (await with_jobs.ask(headers=KEYED, model="GigaChat-2")).status == 200
    told = await counted(with_jobs, lambda now: now.sum("requests_total", route="/") >= 2)
    await until(lambda: with_jobs.service.work.runner.under_way == 0)
    told = await scraped(with_jobs)
    assert told.sum("requests_total", route="/") == told.sum("requests_total", route="/", status="200") == 2
    assert told.sum("request_duration_seconds_count", route="/") == 2
    assert told.sum("model_answers_total", model="GigaChat-2") == told.sum("queue_wait_seconds_count") == 1


async def test_those_who_wait_for_one_answer_are_each_counted_and_the_answer_once(with_jobs: Proxy) -> None:
    with_jobs.giga.state.faults.add({"kind": "slow", "seconds": 0.2})
    asking = [with_jobs.ask(headers=KEYED, model="GigaChat-2", stream=True) for _ in range(3)]
    await asyncio.gather(*asking, return_exceptions=True)
    await until(lambda: with_jobs.service.work.runner.under_way == 0)
    told = await counted(with_jobs, lambda now: now.sum("requests_total", route="/") >= 3)
    assert told.sum("requests_total", route="/") == 3 and told.sum("model_answers_total") == 1


async def test_a_keyed_request_that_fails_is_one_error(with_jobs: Proxy) -> None:
    with_jobs.giga.state.faults.add({"kind": "status", "status": 422})
    assert (await with_jobs.ask(headers=KEYED)).status == 422
    told = await counted(with_jobs, lambda now: now.sum("requests_total", route="/") >= 1)
    await until(lambda: with_jobs.service.work.runner.under_way == 0)
    told = await scraped(with_jobs)
    assert told.sum("errors_total") == told.sum("requests_total", route="/", status="422") == 1


async def test_what_goes_on_without_its_caller_is_counted_by_itself(with_jobs: Proxy) -> None:
    """Nothing was cancelled: its answer is there for whoever comes back."""
    with_jobs.giga.state.faults.add({"kind": "slow", "seconds": 0.2})
    leaving = asyncio.create_task(with_jobs.ask(headers=KEYED))
    await until(lambda: with_jobs.service.line.in_flight == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    told = await counted(with_jobs, lambda now: now.sum("requests_total", route="/") == 2)
    assert told.sum("requests_total", status="499") == told.sum("requests_total", route="/", status="200") == 1
    assert told.sum("cancellations_total") == 0


async def test_where_no_jobs_are_kept_none_are_told(start_proxy: StartProxy) -> None:
    assert not any(name.startswith("gigachat_proxy_jobs") for name in (await scraped(await start_proxy())).names)


async def test_a_store_that_hangs_holds_no_scrape_up(with_jobs: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it said last is told, and one that fails is told to be down."""
    await counted(with_jobs, lambda now: now.sum("jobs_stored_bytes") > 0)
    never = asyncio.Event()
    monkeypatch.setattr(Known, "_find_out", lambda _: never.wait())
    assert (await scraped(with_jobs)).sum("jobs_stored_bytes") > 0
    assert (await scraped(with_jobs)).sum("jobs_store_up") == 1


async def test_a_store_that_cannot_be_asked_is_down() -> None:
    """And what is known of it is what it said before."""

    async def state() -> StoreState:
        if is_broken:
            raise OSError("the disk is gone")
        return StoreState(1, 2, 3, 4, 10, 500)

    is_broken = False
    known: Known[StoreState | None] = Known(state, None, age=0)
    assert await known.found(20) == StoreState(1, 2, 3, 4, 10, 500) and not known.has_failed
    is_broken = True
    known.look()
    await until(lambda: known.has_failed)
    assert known.look() == StoreState(1, 2, 3, 4, 10, 500)
    await known.close()


async def test_the_process_and_the_build_are_told(start_proxy: StartProxy) -> None:
    told = await scraped(await start_proxy())
    ((build, one),) = told.rows("build_info")
    assert (build, one) == ({"version": app.VERSION, "connector": "gigachat_connector"}, 1)
    assert told.sum("process_resident_memory_bytes") > 1e6 and told.sum("process_open_fds") > 3
    assert told.sum("python_info") == 1 and told.sum("ready") == 1


async def test_each_service_of_a_process_counts_for_itself(start_proxy: StartProxy) -> None:
    one, other = await start_proxy(), await start_proxy()
    await one.ask()
    await counted(one, lambda now: now.sum("requests_total", route="/") == 1)
    assert (await scraped(other)).sum("requests_total", route="/") == 0


# ---- Bounds ----


def entry_of(number: int, **facts: Any) -> Entry:
    known = {"id": "", "at": 0.0, "method": "POST", "path": f"/{number}", "route": "/", "caller": "", "lane": "main"}
    told = {"operation": "chat", "dialect": "native", "model": "", "waited": 0.0, "took": 0.1, "attempts": 1}
    return Entry(**{**known, **told, "status": 200, "error": "", "usage": None, **facts})


async def text(metrics: Metrics) -> Scraped:
    return Scraped((await text_of(metrics.parts())).decode())


async def test_thousands_of_callers_models_and_paths_make_no_more_series_than_allowed() -> None:
    """The first so many are told, all others together; the sum is right."""
    names = [f"caller-{number}" for number in range(3000)]
    metrics = Metrics(names, str)
    chance = random.Random(1)
    for number, name in enumerate(names):
        facts = {"caller": name, "model": f"model-{number}", "route": f"/route-{number % 30}"}
        metrics(entry_of(number, status=chance.choice([200, 400, 404, 429, 502, None]), **facts))
    told = await text(metrics)
    assert len(told.values("caller")) <= CALLERS + 1 and OTHER in told.values("caller")
    assert len(told.values("model")) <= MODELS + 1 and OTHER in told.values("model")
    assert len(told.rows("requests_total")) <= 2 * SERIES
    assert told.sum("requests_total") == len(names)


@pytest.mark.parametrize("spared", ["b", ""])
def test_a_counter_has_at_most_twice_its_series_whatever_its_labels(spared: str) -> None:
    """First the spared label is given up, then all."""
    counts = Counts("some", "Of these.", "a", "b", spared=spared, most=10)
    for number in range(1000):
        counts.add((f"a{number}", f"b{number}"))
    samples = [sample for part in counts.parts() for sample in part.samples]
    assert len(samples) <= 2 * 10 + 1 and sum(sample.value for sample in samples) == 1000
    assert ({"a": "a12", "b": OTHER} in [sample.labels for sample in samples]) == bool(spared)


@given(st.lists(st.text(), max_size=30))
def test_any_text_is_a_label_that_prometheus_reads(names: list[str]) -> None:
    """Control characters, quotes and surrogates too; the same text is the same label."""
    labels = Names(20)
    counts = Counts("some", "Of these.", "name")
    for name in names:
        assert labels(name) == labels(name)
        counts.add((labels(name),))
    told = Scraped(asyncio.run(text_of(counts.parts())).decode())
    assert told.sum("some_total") == len(names)
    assert len(told.rows("some_total")) <= 21


async def test_a_secret_that_stands_for_a_model_is_not_told(start_proxy: StartProxy) -> None:
    """Neither a setting's value nor what has the form of a token, in any place."""
    proxy = await start_proxy(
        proxy_api_keys=KEYS, admin_api_key=SecretStr("key-of-operator"), gpt2giga_pass_model="true"
    )
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0"
    for model in ("key-of-anna", "x" * 50 + "key-of-operator", token):
        await get(proxy, "/api/v1/chat/completions", method="POST", json=chat() | {"model": model}, headers=ANNA)
        await proxy.ask(model, headers=ANNA, model=model)
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/") == 3, ANNA)
    assert "key-of" not in told.text and token[:20] not in told.text and "a-key" not in told.text


def test_models_are_told_only_of_answers() -> None:
    """Else anybody could fill the names with nonsense."""
    metrics = Metrics([], str)
    metrics(entry_of(1, model="made-up", status=404, error="upstream_error"))
    metrics(entry_of(2, model="made-up", attempts=0))
    metrics(entry_of(3, model="GigaChat-2"))
    assert {sample.labels["model"] for part in metrics.answers.parts() for sample in part.samples} == {"GigaChat-2"}


async def test_names_that_no_model_has_are_not_told_of_what_is_passed_on(start_proxy: StartProxy) -> None:
    """Neither where the API refuses them, nor where it takes any body; an answer's own is."""
    proxy = await start_proxy(ext_retries=0)
    chats, asked = "/api/v1/chat/completions", {"messages": [{"role": "user", "content": "1"}]}
    assert await get(proxy, chats, method="POST", json=asked | {"model": "made-up-1"}) == 404
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    assert await get(proxy, chats, method="POST", json=asked | {"model": "made-up-2"}) == 500
    assert await get(proxy, "/api/v1/files", json={"model": "made-up-3"}) == 200
    for more in ({}, {"stream": True}):
        assert await get(proxy, chats, method="POST", json=asked | {"model": "GigaChat-2"} | more) == 200
    told = await counted(proxy, lambda now: now.sum("requests_total") >= 5)
    assert told.values("model") == {"GigaChat-2"} and told.sum("model_answers_total") == 2
    assert told.sum("errors_total", code="upstream_error") == 2


async def test_a_model_is_told_by_the_name_that_the_api_knows(start_proxy: StartProxy) -> None:
    """OpenAI's clients may name any; whichever they name, the default answers."""
    proxy = await start_proxy()
    asked = {"messages": [{"role": "user", "content": "1"}]}
    for number in range(3):
        named = {"model": f"made-up-{number}"}
        assert await get(proxy, "/v1/chat/completions", method="POST", json=asked | named) == 200
        assert await get(proxy, "/v1/embeddings", method="POST", json={"input": "1"} | named) == 200
    told = await counted(proxy, lambda now: now.sum("requests_total") >= 6)
    assert told.values("model") == {"GigaChat-2", "EmbeddingsGigaR"} and told.sum("model_answers_total") == 6


def test_nonsense_of_the_api_lets_no_counter_fall() -> None:
    metrics = Metrics([], str)
    lane = metrics.of_lane("main", lambda: LimitsState(None, 0, None, None, 0, 0, 0))
    lane(Story("", "", 200, 0, 0, 1, "", Usage(-5, -7)))
    assert {sample.value for part in metrics.tokens.parts() for sample in part.samples} == {0}


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.0100001, 600.0, 601.0, 1e9])
def test_a_span_falls_into_every_bucket_that_it_is_not_beyond(seconds: float) -> None:
    spans = Spans("some_seconds", "Of these.", "lane", bounds=(0.01, 600.0))
    spans.add(("main",), seconds)
    (part,) = spans.parts()
    found = {sample.labels["le"]: sample.value for sample in part.samples if sample.name.endswith("_bucket")}
    assert found == {"0.01": seconds <= 0.01, "600.0": seconds <= 600, "+Inf": 1}


# ---- A scrape ----


async def test_the_loop_goes_on_while_many_series_are_written() -> None:
    """No piece is more than some twenty samples."""
    metrics = Metrics([f"caller-{number}" for number in range(CALLERS)], str)
    for number in range(1000):
        metrics(entry_of(number, caller=f"caller-{number % CALLERS}", route=f"/route-{number % 10}", status=number % 7))
    turns, writing = 0, asyncio.create_task(text_of(metrics.parts()))
    while not writing.done():
        turns += 1
        await asyncio.sleep(0)
    samples = (await writing).count(b"\n")
    assert samples > 700 and turns > samples / (2 * series.AT_ONCE)


async def test_those_who_scrape_at_once_get_one_answer(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written once, and serves for a moment."""
    monkeypatch.setattr(scrape, "AGE", 3600.0)
    times: Counter[str] = Counter()

    async def counting(parts: Any) -> bytes:
        times["written"] += 1
        return await text_of(parts)

    monkeypatch.setattr(scrape, "text_of", counting)
    proxy = await start_proxy()
    answers = await asyncio.gather(*(scraped(proxy) for _ in range(20)))
    assert len({answer.text for answer in answers}) == 1 and times["written"] == 1


async def test_who_leaves_its_scrape_harms_nobody(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    leaving = [asyncio.create_task(scraped(proxy)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in leaving[1:]:
        task.cancel()
    assert (await leaving[0]).sum("lanes", of="own") == 1
    await asyncio.gather(*leaving, return_exceptions=True)


async def test_a_scrape_is_no_line_in_the_requests_log(start_proxy: StartProxy, tmp_path: Path) -> None:
    """They come every few seconds."""
    proxy = await start_proxy(requests_log_file=tmp_path / "requests.jsonl")
    await scraped(proxy)
    await proxy.ask()
    await until(lambda: (tmp_path / "requests.jsonl").read_text().count("\n") == 1)
    assert "metrics" not in (tmp_path / "requests.jsonl").read_text()


async def test_prometheus_own_tool_finds_nothing_to_complain_of(start_proxy: StartProxy) -> None:
    """Names, units and sentences are as Prometheus wants them."""
    program = shutil.which("promtool")
    if program is None:
        (pytest.fail if IN_CI else pytest.skip)("promtool is not installed (Debian, Ubuntu: apt install prometheus)")
    proxy = await start_proxy(ext_api_rpm=6000)
    await proxy.ask()
    told = await scraped(proxy)
    found = await asyncio.to_thread(
        subprocess.run, [program, "check", "metrics"], input=told.text, text=True, capture_output=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
