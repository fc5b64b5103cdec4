"""Traces: a request is followed from its caller through the line to the API; a collector in trouble holds up nobody."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import openai_upstream
import pytest
from jobs_talk import Caller, spoken
from otlp import Collector, Span, collecting
from processes import ROOT, copy_tree, launch, started
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, chat, until, waiting

import app
from emulator import Options
from proxy import collector as collectors
from proxy.settings import Settings, SettingsError, load

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTINUED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=a:1,other=b"}
KEYS = {"anna": SecretStr("key-of-anna")}
SECRET = "key-of-the-collector"
SPOKEN = "words-that-nobody-else-may-read"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spans are sent every 20 ms, and whoever does not take the last ones is waited for shortly."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setattr(collectors, "FLUSH", 2.0)
    yield
    for thread in threading.enumerate():  # what one test has given up must not be told in another
        if thread.name.startswith(("OtelBatch", "connector shutdown")):
            thread.join(20)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
def start_traced(start_proxy: StartProxy, collector: Collector) -> StartProxy:
    """As `start_proxy`, with traces."""

    async def start(options: Options | None = None, **knobs: Any) -> Proxy:
        traced: Proxy = await start_proxy(options, otel_exporter_otlp_endpoint=collector.url, **knobs)
        return traced

    return start


def parents(headers: Any) -> tuple[str, str, str]:
    """The trace, the span and the flags that a call names."""
    match = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", headers["traceparent"])
    assert match is not None, headers
    return match[1], match[2], match[3]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the log tells; pytest sees the library's own words too, which go nowhere."""
    records = [record for record in caplog.records if not record.name.startswith("opentelemetry")]
    return [record for record in records if record.levelno >= logging.WARNING]


async def get(proxy: Proxy, path: str, method: str = "GET", **more: Any) -> int:
    async with proxy.http.request(method, proxy.url + path, **more) as response:
        await response.read()
        return response.status


# ---- A request ----


async def test_a_request_is_a_span_with_its_call_under_it(start_traced: StartProxy, collector: Collector) -> None:
    """Named by its route; with what the journal and the metrics tell of it."""
    proxy = await start_traced(proxy_api_keys=KEYS)
    headers = {"Authorization": "Bearer key-of-anna", "X-Request-ID": "mine-1"}
    assert await get(proxy, "/v1/chat/completions/", "POST", json=spoken(), headers=headers) == 200
    request = await collector.request()
    assert (request.name, request.kind, request.parent) == ("POST /v1/chat/completions", "SERVER", "")
    told = {name.removeprefix("gigachat_proxy."): value for name, value in request.attributes.items()}
    assert told.pop("wait") < 1 and told.pop("gen_ai.usage.input_tokens") > 0
    assert told.pop("gen_ai.usage.output_tokens") > 0
    assert told == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "GigaChat-2",
        "request.id": "mine-1",
        "caller": "anna",
        "dialect": "openai",
        "lane": "main",
        "operation": "chat",
        "attempts": 1,
    }
    (attempt,) = collector.children(request, "attempt")
    assert attempt.kind == "CLIENT" and request.is_around(attempt)
    assert (attempt["attempt"], attempt["http.response.status_code"], attempt["error.type"]) == (1, 200, None)
    assert attempt.start <= attempt.events["sent"] <= attempt.end
    assert not request.has_failed and not attempt.has_failed
    assert not collector.named("wait")  # it went at once


async def test_a_wait_is_a_span_with_its_place(start_traced: StartProxy, collector: Collector) -> None:
    """As many as waited, one behind the other."""
    proxy = await start_traced(ext_max_requests=1)
    first = await busy(proxy, 0.3)
    await asyncio.gather(first, *(proxy.ask(str(number)) for number in range(3)))
    requests = await collector.requests(4)
    waits = [collector.children(request, "wait") for request in requests]
    assert waits[0] == [] and [wait["position"] for (wait,) in waits[1:]] == [1, 2, 3]
    for request, (wait,) in zip(requests[1:], waits[1:], strict=True):
        (attempt,) = collector.children(request, "attempt")
        assert request.is_around(wait) and wait.end <= attempt.start
        assert request["wait"] == pytest.approx((wait.end - wait.start) / 1e9, abs=1e-5)


async def test_who_asks_how_the_service_is_waits_in_its_own_trace(
    start_traced: StartProxy, collector: Collector
) -> None:
    """`GET /` takes a turn of the service's own to ask the API for its models."""
    proxy = await start_traced(ext_max_requests=1)
    first = await busy(proxy, 0.3)
    asking = asyncio.create_task(get(proxy, "/"))
    await until(lambda: waiting(proxy) == 1)
    assert await asking == 200
    await first
    request = next(span for span in await collector.requests(2) if span.name == "GET /")
    (wait,), (attempt,) = collector.children(request, "wait"), collector.children(request, "attempt")
    assert wait["position"] == 1 and request.is_around(wait) and wait.end <= attempt.start


async def test_every_attempt_is_a_span_and_says_why_there_is_another(
    start_traced: StartProxy, collector: Collector
) -> None:
    """A 5xx, a pause after a 429, a broken connection; the request itself is well."""
    proxy = await start_traced()
    faults = [{"kind": "status", "status": 500}, {"kind": "429", "retry_after": 0.05}, {"kind": "cut"}]
    proxy.giga.state.faults.add(*faults)
    assert (await proxy.ask()).status == 200
    request = await collector.request()
    attempts, waits = collector.children(request, "attempt"), collector.children(request, "wait")
    assert [attempt["http.response.status_code"] for attempt in attempts] == [500, 429, None, 200]
    assert [attempt["error.type"] for attempt in attempts] == ["500", "429", "upstream_error", None]
    assert [attempt["retry.reason"] for attempt in attempts] == [None, "500", "429", "upstream_error"]
    assert [attempt["http.request.resend_count"] for attempt in attempts] == [None, 1, 2, 3]
    assert [attempt.has_failed for attempt in attempts] == [True, True, True, False]
    assert [wait["retry.reason"] for wait in waits] == ["500", "429", "upstream_error"]
    assert all(earlier.end <= later.start for earlier, later in pairwise(attempts))
    assert request["attempts"] == 4 and not request.has_failed


async def test_every_call_that_a_request_takes_is_under_it(start_traced: StartProxy, collector: Collector) -> None:
    """Several choices are several calls at once."""
    proxy = await start_traced()
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=spoken(n=3)) as response:
        usage = (await response.json())["usage"]
    request = await collector.request()
    assert len(collector.children(request, "attempt")) == 3
    assert request["gen_ai.usage.output_tokens"] == usage["completion_tokens"]


# ---- From caller to API ----


async def test_the_callers_trace_goes_on_through_the_line_to_the_api(
    start_traced: StartProxy, collector: Collector
) -> None:
    """Every call names the span of its attempt; what other vendors wrote goes along."""
    proxy = await start_traced()
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    assert (await proxy.ask(headers=CONTINUED)).status == 200
    request = await collector.request()
    assert (request.trace, request.parent, request.state) == (TRACE, PARENT, CONTINUED["tracestate"])
    sent = [call["headers"] for call in await proxy.calls()]
    attempts = collector.children(request, "attempt")
    assert [parents(headers) for headers in sent] == [(TRACE, attempt.id, "01") for attempt in attempts]
    assert [headers["tracestate"] for headers in sent] == [CONTINUED["tracestate"]] * 2


@pytest.mark.parametrize(
    "path", ["/api/v1/chat/completions", "/v1/chat/completions", "/v1/embeddings", "/api/v1/models"]
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_every_kind_of_call_names_its_span(
    start_traced: StartProxy, collector: Collector, path: str, is_stream: bool
) -> None:
    """Passed through or translated, whole or streamed."""
    proxy = await start_traced()
    body = {"model": "EmbeddingsGigaR", "input": "a"} if "embeddings" in path else spoken(stream=is_stream)
    method = {"method": "GET"} if "models" in path else {"method": "POST", "json": body}
    assert await get(proxy, path, headers=CONTINUED, **method) == 200
    request = await collector.request()
    (attempt,) = collector.children(request, "attempt")
    (call,) = await proxy.calls(path.removeprefix("/api/v1").removeprefix("/v1"))
    assert parents(call["headers"]) == (TRACE, attempt.id, "01")


async def test_other_connectors_pass_it_on_too(start_traced: StartProxy, collector: Collector) -> None:
    async with openai_upstream.running() as api:
        proxy = await start_traced(url_gpt=api.base, api_key=SecretStr(openai_upstream.KEY))
        body = spoken(model="chatgpt/gpt-6-luna")
        assert await get(proxy, "/v1/chat/completions", "POST", json=body, headers=CONTINUED) == 200
        (call,) = api.to("/v1/chat/completions")
    request = await collector.request()
    (attempt,) = collector.children(request, "attempt")
    assert parents(call.headers) == (TRACE, attempt.id, "01") and request["lane"] == "chatgpt"


async def test_what_the_caller_does_not_trace_is_not_traced(start_traced: StartProxy, collector: Collector) -> None:
    """The API hears of the trace, and that it is not recorded."""
    proxy = await start_traced()
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert (await proxy.ask("first", headers=unsampled)).status == 200
    assert (await proxy.ask("second")).status == 200
    request = await collector.request()
    assert request.trace != TRACE and len(collector.spans) == 2
    trace, span, flags = parents((await proxy.calls())[0]["headers"])
    assert (trace, flags) == (TRACE, "00") and span != PARENT


async def test_a_share_of_the_traces_can_be_asked_for(
    start_traced: StartProxy, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_TRACES_SAMPLER decides about those that begin here, their callers about the others."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    proxy = await start_traced()
    await proxy.ask("first")
    await proxy.ask("second", headers=CONTINUED)
    assert (await collector.request()).trace == TRACE


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", f"00-{TRACE}-{PARENT}")],
        [("traceparent", f"00-{TRACE.upper()}-{PARENT}-01")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{'0' * 16}-01")],
        [("traceparent", f"ff-{TRACE}-{PARENT}-01")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01-more")],
        [("traceparent", f"00-{TRACE}-{PARENT}-0x")],
        [("traceparent", "00-" + "a" * 7000)],
        [("traceparent", "")],
        [("traceparent", "трасса")],
        [("traceparent", f"00-{TRACE}-{PARENT}-01")] * 2,
        [("tracestate", "vendor=1")],
    ],
    ids=lambda headers: " ".join(value[:60] for _, value in headers),
)
async def test_a_malformed_parent_begins_a_new_trace(
    start_traced: StartProxy, collector: Collector, caplog: pytest.LogCaptureFixture, headers: list[tuple[str, str]]
) -> None:
    """The request is served, and whoever sends such things fills no log."""
    proxy = await start_traced()
    async with proxy.http.post(proxy.url, json=chat(), headers=headers) as response:
        assert response.status == 200
    request = await collector.request()
    assert request.parent == "" and request.trace != TRACE
    (call,) = await proxy.calls()
    assert parents(call["headers"])[0] == request.trace and "tracestate" not in call["headers"]
    assert not warnings_of(caplog)


@pytest.mark.parametrize("state", ["=", "a=1,a=2", "A b=1", "a=" + "x" * 5000, ",".join(f"k{n}=1" for n in range(40))])
async def test_a_malformed_state_is_left_behind(
    start_traced: StartProxy, collector: Collector, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    """The trace goes on without it."""
    proxy = await start_traced()
    assert (await proxy.ask(headers={**CONTINUED, "tracestate": state})).status == 200
    assert (await collector.request()).trace == TRACE
    (call,) = await proxy.calls()
    assert "tracestate" not in call["headers"]
    assert not warnings_of(caplog)


async def test_a_later_version_of_the_header_is_read_as_far_as_it_is_known(
    start_traced: StartProxy, collector: Collector
) -> None:
    proxy = await start_traced()
    await proxy.ask(headers={"traceparent": f"cc-{TRACE}-{PARENT}-01-what-comes"})
    assert (await collector.request()).trace == TRACE


async def test_a_hundred_at_once_do_not_mix_up_their_traces(start_traced: StartProxy, collector: Collector) -> None:
    """Half of them streams, some tried again: every span is under its own request, every call names its own span."""
    proxy = await start_traced(ext_max_requests=7)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "times": 10})

    async def ask(number: int) -> None:
        headers = {"traceparent": f"00-{number:032x}-{number:016x}-01", "X-Request-ID": f"id-{number}"}
        stream = number % 2 == 0
        assert await get(proxy, "/", "POST", json=chat(f"text {number}", stream=stream), headers=headers) == 200

    await asyncio.gather(*(ask(number) for number in range(1, 101)))
    requests = await collector.requests(100)
    for request in requests:
        number = int(request.trace, 16)
        assert (request["request.id"], request.parent) == (f"id-{number}", f"{number:016x}")
        children = [span for span in collector.spans if span.trace == request.trace and span is not request]
        assert children and all(request.is_around(child) for child in children)
    spans = {span.id: span for span in collector.named("attempt")}
    calls = await proxy.calls()
    assert len(calls) == len(spans) == 110
    for call in calls:
        trace, span, _ = parents(call["headers"])
        assert spans[span].trace == trace
        assert call["headers"]["x-request-id"] == f"id-{int(trace, 16)}"


# ---- Streams ----


async def test_a_streams_span_ends_with_the_stream(start_traced: StartProxy, collector: Collector) -> None:
    """Its first chunk is told with its time."""
    proxy = await start_traced()
    proxy.giga.state.faults.add({"kind": "drip", "seconds": 0.3})
    async with proxy.http.post(proxy.url, json=chat("a, b, c", stream=True)) as response:
        await response.content.readany()
        await proxy.ask("while it streams")
        assert [span["request.id"] for span in await collector.requests()] != [response.headers["X-Request-ID"]]
        assert len(collector.spans) == 2
        await response.read()
    request = next(
        span for span in await collector.requests(2) if span["request.id"] == response.headers["X-Request-ID"]
    )
    (attempt,) = collector.children(request, "attempt")
    assert attempt.events["sent"] < attempt.events["first_chunk"] < attempt.end
    assert request.is_around(attempt) and not request.has_failed
    assert request["gen_ai.usage.output_tokens"] > 0


async def test_a_stream_that_breaks_off_has_failed(start_traced: StartProxy, collector: Collector) -> None:
    """Though its 200 was out."""
    proxy = await start_traced()
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 4})
    assert await get(proxy, "/", "POST", json=chat("a, b, c", stream=True)) == 200
    request = await collector.request()
    (attempt,) = collector.children(request, "attempt")
    assert attempt.has_failed and attempt["error.type"] == "upstream_error"
    assert request.has_failed and request["error.type"] == "upstream_error"
    assert request["http.response.status_code"] == 502


# ---- How they end ----


async def test_whoever_leaves_ends_its_spans(start_traced: StartProxy, collector: Collector) -> None:
    """In the line and in flight."""
    proxy = await start_traced(ext_max_requests=1)
    in_flight = await busy(proxy, 60)
    in_line = asyncio.create_task(proxy.ask("second"))
    await until(lambda: waiting(proxy) == 1)
    in_line.cancel()
    (left,) = await collector.requests()
    in_flight.cancel()
    (first, second) = await collector.requests(2)
    assert left.id == second.id
    assert [(span["error.type"], span["http.response.status_code"]) for span in (first, second)] == [("left", None)] * 2
    assert first.has_failed and second.has_failed
    (attempt,) = collector.children(first, "attempt")
    assert (attempt["error.type"], attempt.has_failed) == ("left", True)
    assert collector.children(second, "wait") and not collector.children(second, "attempt")


async def refused_full(proxy: Proxy) -> int:
    """The one place in line is taken."""
    tasks = [await busy(proxy, 60), asyncio.create_task(proxy.ask("in line"))]
    await until(lambda: waiting(proxy) == 1)
    status = (await proxy.ask("too many", headers=CONTINUED)).status
    for task in tasks:
        task.cancel()
    return status


async def refused_late(proxy: Proxy) -> int:
    """Its deadline comes while it waits."""
    first = await busy(proxy, 60)
    status = (await proxy.ask("late", headers={**CONTINUED, "X-Request-Timeout": "0.05"})).status
    first.cancel()
    return status


async def refused_slow(proxy: Proxy) -> int:
    """The API does not answer."""
    proxy.giga.state.faults.add({"kind": "stall"})
    return (await proxy.ask(headers={**CONTINUED, "X-Request-Timeout": "0.05"})).status


async def refused_wrong(proxy: Proxy) -> int:
    return await get(proxy, "/", "POST", data=b"no JSON", headers=CONTINUED)


async def refused_by_api(proxy: Proxy) -> int:
    return await get(proxy, "/api/v1/files/none", headers=CONTINUED)


async def refused_spent(proxy: Proxy) -> int:
    proxy.giga.state.faults.add({"kind": "status", "status": 400})
    return (await proxy.ask(headers=CONTINUED)).status


@pytest.mark.parametrize(
    ("refused", "status", "error", "attempts"),
    [
        (refused_full, 429, "line_full", 0),
        (refused_late, 504, "deadline_expired", 0),
        (refused_slow, 504, "deadline_expired", 1),
        (refused_wrong, 400, "bad_request", 0),
        (refused_by_api, 404, "upstream_error", 1),
        (refused_spent, 400, "upstream_error", 1),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_request_that_fails_says_how(
    start_traced: StartProxy, collector: Collector, refused: Any, status: int, error: str, attempts: int
) -> None:
    """By its status and our code for it; a failure of the caller's is none of the service's."""
    proxy = await start_traced(ext_max_requests=1, ext_queue_size=1)
    assert await refused(proxy) == status
    await until(lambda: any(span.parent == PARENT for span in collector.spans))
    request = next(span for span in collector.spans if span.parent == PARENT)
    assert (request["http.response.status_code"], request["error.type"]) == (status, error)
    assert request.has_failed is (status >= 500)
    assert len(collector.children(request, "attempt")) == attempts


async def test_whoever_is_served_no_more_is_told_of_too(start_proxy: StartProxy, collector: Collector) -> None:
    """503s of the stop are in the trace, and they arrive before it is over."""
    proxy = await start_proxy(otel_exporter_otlp_endpoint=collector.url, ext_max_requests=1)
    first = await busy(proxy, 60)
    second = asyncio.create_task(proxy.ask("in line"))
    await until(lambda: waiting(proxy) == 1)
    proxy.service.line.interrupt_all()
    assert [told.status for told in await asyncio.gather(first, second)] == [503, 503]
    assert [(span["error.type"], span.has_failed) for span in await collector.requests(2)] == [("stopping", True)] * 2


# ---- Who is told of nothing ----


async def test_signs_of_life_pages_and_strangers_have_no_spans(start_traced: StartProxy, collector: Collector) -> None:
    """However often they come, and whatever trace they name."""
    proxy = await start_traced(proxy_api_keys=KEYS)
    for path in (
        "/health",
        "/ready",
        "/metrics",
        "/dashboard",
        "/docs",
        "/openapi.json",
        "/limits",
        "/queue",
        "/nowhere",
    ):
        await get(proxy, path, headers=CONTINUED)
    for key in ("", "wrong"):
        assert await get(proxy, "/", "POST", json=chat(), headers={**CONTINUED, "X-API-Key": key}) == 401
    assert await get(proxy, "/", "POST", json=chat(), headers={"X-API-Key": "key-of-anna"}) == 200
    assert (await collector.request()).trace != TRACE


async def test_no_words_no_keys_no_addresses_are_told(start_traced: StartProxy, collector: Collector) -> None:
    """Of what is said, asked for by path, or brought along; the caller's own names are cut and cleaned."""
    proxy = await start_traced()
    proxy.giga.state.faults.add({"kind": "status", "status": 400, "body": {"message": SPOKEN}})
    body = {"model": "a-key" + "m" * 500, "messages": [{"role": "user", "content": SPOKEN}]}
    headers = {"X-Request-ID": "a-key", "X-Session-ID": SPOKEN, "User-Agent": SPOKEN, "X-Client-ID": SPOKEN}
    for number in range(2):
        await get(proxy, f"/api/v1/chat/completions?q={SPOKEN}&n={number}", "POST", json=body, headers=headers)
    await get(proxy, f"/api/v1/files/{SPOKEN}")
    requests = await collector.requests(3)
    assert requests[0]["gen_ai.request.model"].startswith("***mmm") and requests[0]["request.id"] == "***"
    assert len(requests[0]["gen_ai.request.model"]) == 200
    assert requests[2].name == "GET /api/{version}/{path}"
    for secret in (SPOKEN, "a-key", "127.0.0.1"):
        assert secret.encode() not in collector.raw


async def test_a_method_that_nobody_knows_is_not_told(start_traced: StartProxy, collector: Collector) -> None:
    proxy = await start_traced()
    await get(proxy, "/api/v1/models", "PROPFIND")
    request = await collector.request()
    assert (request.name, request["http.request.method"]) == ("HTTP /api/{version}/{path}", "_OTHER")


async def test_an_account_that_a_caller_brings_along_has_no_name(
    start_traced: StartProxy, collector: Collector
) -> None:
    proxy = await start_traced(gpt2giga_pass_token=True)
    headers = {"Authorization": "Bearer giga-cred-b3duLWtleTpvZi1hLWNhbGxlcg==:GIGACHAT_API_PERS"}
    await get(proxy, "/v1/chat/completions", "POST", json=spoken(), headers=headers)
    request = await collector.request()
    assert (request["lane"], request["caller"]) == ("passed", None)


# ---- Jobs ----


@pytest.fixture
async def with_jobs(start_traced: StartProxy, tmp_path: Path) -> Proxy:
    proxy: Proxy = await start_traced(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    return proxy


def run_of(spans: list[Span]) -> Span:
    (run,) = [span for span in spans if span.kind == "CONSUMER"]
    return run


@pytest.mark.parametrize("way", ["POST /jobs", "Prefer", "Idempotency-Key"])
async def test_a_job_goes_on_with_the_trace_of_its_request(with_jobs: Proxy, collector: Collector, way: str) -> None:
    """However it became one: the run is under the request that was accepted, its calls are under the run."""
    caller = Caller(with_jobs)
    if way == "POST /jobs":
        told = await caller.ask("POST", "/jobs", {"body": chat()}, CONTINUED)
    else:
        more = {"Prefer": "respond-async"} if way == "Prefer" else {way: "key-1"}
        told = await caller.ask("POST", "/", chat(), {**CONTINUED, **more})
    assert told.status in (200, 202)
    await until(lambda: any(span.kind == "CONSUMER" for span in collector.spans))
    await until(lambda: any(span.parent == PARENT for span in collector.spans))
    run = run_of(collector.spans)
    (accepted,) = [span for span in collector.spans if span.parent == PARENT]
    assert (run.name, run.trace, run.parent) == ("POST /", TRACE, accepted.id)
    (attempt,) = collector.children(run, "attempt")
    (call,) = await with_jobs.calls()
    assert parents(call["headers"]) == (TRACE, attempt.id, "01")


async def test_what_a_keyed_request_costs_is_told_once(with_jobs: Proxy, collector: Collector) -> None:
    """By the request that waited for its job, so that whoever adds up the spans gets the truth."""
    assert (await with_jobs.ask(headers={**CONTINUED, "Idempotency-Key": "key-1"})).status == 200
    await until(lambda: len(collector.spans) == 3)
    (asked,) = [span for span in collector.spans if span.parent == PARENT]
    assert asked["gen_ai.usage.input_tokens"] > 0 and asked["gen_ai.usage.output_tokens"] > 0
    run = run_of(collector.spans)
    assert (run["gen_ai.usage.input_tokens"], run["gen_ai.usage.output_tokens"]) == (None, None)


async def test_what_a_job_that_nobody_waits_for_costs_is_told_by_its_run(
    with_jobs: Proxy, collector: Collector
) -> None:
    assert (await Caller(with_jobs).ask("POST", "/jobs", {"body": chat()}, CONTINUED)).status == 202
    await until(lambda: any(span.kind == "CONSUMER" for span in collector.spans))
    assert run_of(collector.spans)["gen_ai.usage.output_tokens"] > 0


async def test_lines_of_a_batch_have_traces_of_their_own_and_name_the_batchs(
    with_jobs: Proxy, collector: Collector
) -> None:
    """Tens of thousands of them in one trace could not be looked at."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": spoken()}
    data = aiohttp.FormData()
    data.add_field("purpose", "batch")
    data.add_field("file", json.dumps(line), filename="in.jsonl")
    async with with_jobs.http.post(f"{with_jobs.url}/v1/files", data=data) as response:
        file = (await response.json())["id"]
    order = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert await get(with_jobs, "/v1/batches", "POST", json=order, headers=CONTINUED) == 200
    await until(lambda: any(span.kind == "CONSUMER" for span in collector.spans))
    run = run_of(collector.spans)
    assert run.parent == "" and run.trace != TRACE and run.links == (TRACE,)


# ---- The collector ----


async def test_what_the_collector_asks_for_goes_along_and_who_we_are(
    start_traced: StartProxy, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,service.version=7")
    headers = {"api-key": SecretStr(SECRET)}
    proxy = await start_traced(app_name="front", otel_exporter_otlp_headers=headers)
    await proxy.ask()
    resource = (await collector.request()).resource
    assert (resource["service.name"], resource["service.version"]) == ("front", "7")
    assert resource["deployment.environment"] == "test"
    assert collector.headers[0]["api-key"] == SECRET


def told_of_traces(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "proxy.traces"]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_collector_that_refuses_costs_spans_and_no_requests(
    start_proxy: StartProxy, collector: Collector, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """The log tells it once, not with each batch, and not the key."""
    collector.status = status
    headers = {"api-key": SecretStr(SECRET)}
    proxy = await start_proxy(otel_exporter_otlp_endpoint=collector.url, otel_exporter_otlp_headers=headers)
    for count in range(1, 4):
        assert (await proxy.ask()).status == 200
        if status in (400, 401, 500):  # the others are asked again after a second
            await until(lambda count=count: len(collector.headers) >= count)  # type: ignore[misc]
    await until(lambda: bool(told_of_traces(caplog)))
    (told,) = told_of_traces(caplog)
    assert told.startswith("traces are lost, requests are not: ")
    assert SECRET not in caplog.text


async def test_a_collector_that_is_away_or_hangs_holds_up_nobody(
    start_proxy: StartProxy, collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the start, nor a request, nor the stop: the test would not end."""
    monkeypatch.setattr(collectors, "FLUSH", 0.05)
    collector.is_hanging = True
    for url in (collector.url, "http://127.0.0.1:9", "http://no.such.host.invalid:4318"):
        proxy = await start_proxy(otel_exporter_otlp_endpoint=url)
        answers = await asyncio.gather(*(proxy.ask() for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
    assert {record.name for record in warnings_of(caplog)} <= {"proxy.traces"}


async def test_the_stop_waits_for_a_hanging_collector_for_a_moment_only(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is lost then."""
    monkeypatch.setattr(collectors, "FLUSH", 0.05)
    collector.is_hanging = True
    settings = Settings(otel_exporter_otlp_endpoint=collector.url)
    async with collectors.tracer_of(settings, "1", str) as tracer:
        tracer.start_span("one").end()
        await until(lambda: bool(collector.headers))
    assert told_of_traces(caplog) == [
        "the last traces are lost: OTEL_EXPORTER_OTLP_ENDPOINT did not take them within 0.05 s"
    ]


async def test_the_stop_sends_what_there_is(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the next sending would be an hour later."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    settings = Settings(otel_exporter_otlp_endpoint=f"{collector.url}/")
    async with collectors.tracer_of(settings, "1", str) as tracer:
        for number in range(1000):
            tracer.start_span(str(number)).end()
    assert len(collector.spans) == 1000
    assert not told_of_traces(caplog)


async def test_a_full_queue_loses_spans_and_says_so_once(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded however long the collector hangs."""
    monkeypatch.setattr(collectors, "FLUSH", 0.05)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    collector.is_hanging = True
    settings = Settings(otel_exporter_otlp_endpoint=collector.url)
    async with collectors.tracer_of(settings, "1", str) as tracer:
        for number in range(500):
            tracer.start_span(str(number)).end()
        assert [told for told in told_of_traces(caplog) if "Queue full" in told] == told_of_traces(caplog)
        assert len(told_of_traces(caplog)) == 1


# ---- The settings ----


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=grpc://collector:4317", "http://host:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://user:pa55word@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318?key=pa55word", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318/v1/traces", "leave /v1/traces out"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318/pa55word/v1/traces/", "leave /v1/traces out"),
        ("OTEL_EXPORTER_OTLP_HEADERS=api-key=a,pa55word", "entry 2 is not name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS==pa55word", "entry 1 is not name=value"),
        ("OTEL_EXPORTER_OTLP_HEADERS=a=pa55word%0d%0aX: 1", "entry 1 is not name=value"),
    ],
)
def test_a_wrong_address_or_header_is_told_by_name_alone(line: str, told: str, tmp_path: Path) -> None:
    """What may be a secret is not repeated."""
    name, _, value = line.partition("=")
    with pytest.raises(SettingsError) as error:
        load(env={name: value}, cwd=tmp_path, assets=tmp_path)
    assert str(error.value).startswith(f"{name}=*** in the environment is wrong") and told in str(error.value)
    assert "pa55word" not in str(error.value)


def test_headers_are_read_as_the_standard_writes_them(tmp_path: Path) -> None:
    """With escapes and spaces, and they show in no repr."""
    env = {"OTEL_EXPORTER_OTLP_HEADERS": f"Authorization=Basic%20{SECRET}==, X-Scope-OrgID = 7 "}
    settings = load(env=env, cwd=tmp_path, assets=tmp_path)
    read = {name: value.get_secret_value() for name, value in settings.otel_exporter_otlp_headers.items()}
    assert read == {"authorization": f"Basic {SECRET}==", "x-scope-orgid": "7"}
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes", "always_on"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "0 to 1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "whole number"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0", "1 or more"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "whole number"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "seconds"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", "name=value"),
    ],
)
async def test_a_wrong_variable_of_the_librarys_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """The library would pass it over; it is told with its value and what is allowed."""
    monkeypatch.setenv(name, value)
    settings = Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    with pytest.raises(SettingsError, match=f"^{name}={value} is wrong; allowed: .*{allowed}"):
        async with collectors.tracer_of(settings, "1", str):
            raise AssertionError("it has started")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "ParentBased_TraceIdRatio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", ""),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=,"),
        ("OTEL_PYTHON_LOG_LEVEL", "whatever"),
    ],
)
async def test_a_right_variable_of_the_librarys_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(collectors, "FLUSH", 0.05)
    async with collectors.tracer_of(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:9"), "1", str):
        assert not told_of_traces(caplog)


async def test_a_batch_larger_than_the_queue_is_told_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    settings = Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    with pytest.raises(SettingsError, match="OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE: "):
        async with collectors.tracer_of(settings, "1", str):
            raise AssertionError("it has started")


async def test_all_of_it_may_stand_in_the_env_file(collector: Collector, tmp_path: Path) -> None:
    """As people start it: every name counts there, and no key is told; a wrong one stops the start by its name."""
    tree = copy_tree(tmp_path)
    env = tree / "assets" / "env"
    env.write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\nOTEL_EXPORTER_OTLP_HEADERS=api-key={SECRET}\n"
        "OTEL_SERVICE_NAME=mine\nOTEL_BSP_SCHEDULE_DELAY=20\n"
    )
    with started(tree, tmp_path / "log", "--sandbox", "--log-level", "DEBUG") as service:
        assert f"  traces go to {collector.url.removeprefix('http://')}\n" in service.output
        async with aiohttp.ClientSession() as http, http.post(service.url, json=chat()) as response:
            assert response.status == 200
        assert (await collector.request()).resource["service.name"] == "mine"
        service.signal()
        assert await service.gone() == 0
    assert collector.headers[0]["api-key"] == SECRET and SECRET not in service.output
    with env.open("a") as file:
        file.write("OTEL_TRACES_SAMPLER=never\n")
    wrong = launch(tree, tmp_path / "wrong", "--sandbox")
    assert wrong.wait() == 1
    assert wrong.output.startswith("gigachat-proxy cannot start: OTEL_TRACES_SAMPLER=never is wrong; allowed: ")


def test_of_an_address_the_start_tells_the_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its path may be a key; and where the library is turned off, nothing goes anywhere."""
    settings = Settings(otel_exporter_otlp_endpoint=f"https://collector.example.org/{SECRET}")
    assert app.traces_of(settings) == ["  traces go to collector.example.org"]
    assert app.traces_of(Settings()) == []
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    assert app.traces_of(settings) == ["  no traces are made: OTEL_SDK_DISABLED=true"]


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"])
async def test_a_switch_without_effect_is_told_at_the_start(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Without the endpoint too: whoever sets such a name alone waits for traces that nobody makes."""
    monkeypatch.setenv(name, SECRET)
    await start_proxy()
    assert f"without effect here: {name}; OTEL_EXPORTER_OTLP_ENDPOINT alone turns traces on" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("short", "short"),
        ("x" * 300, "x" * 300),
        (f"{'a' * 290} broken", f"{'a' * 290} broken"),
        (f"{'a' * 290} {'b' * 20}", f"{'a' * 290} ..."),
        ("x" * 1000, f"{'x' * 296} ..."),
    ],
)
def test_what_the_library_says_is_cut_at_the_end_of_a_word(words: str, told: str) -> None:
    assert collectors.cut(words) == told and len(told) <= collectors.LONGEST


# ---- Beside the log, and without ----


async def test_the_journal_and_the_log_tell_the_trace(
    start_traced: StartProxy, collector: Collector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """So that one leads to the other."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "requests.jsonl"
    proxy = await start_traced(requests_log_file=file)
    await proxy.ask(headers=CONTINUED)
    await until(lambda: file.exists() and bool(file.read_text()))
    assert json.loads(file.read_text())["trace"] == TRACE
    await until(lambda: f"(trace {TRACE})" in caplog.text)


async def test_a_library_that_is_turned_off_makes_no_traces(
    start_traced: StartProxy, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By OTEL_SDK_DISABLED; nothing tells of a trace that there is not."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    file = tmp_path / "requests.jsonl"
    proxy = await start_traced(requests_log_file=file)
    assert (await proxy.ask()).status == 200
    await until(lambda: file.exists() and bool(file.read_text()))
    assert "trace" not in json.loads(file.read_text())
    assert "traceparent" not in (await proxy.calls())[0]["headers"]
    assert not collector.headers


def test_the_library_reads_what_callers_send_in_time() -> None:
    """Before 1.45.1 a long `tracestate` of blanks holds up the loop: the time grows with the square of its length."""
    wanted = dict(
        line.split(">=") for line in (ROOT / "requirements.txt").read_text().split() if "opentelemetry" in line
    )
    least = {name: tuple(map(int, range.partition(",")[0].split("."))) for name, range in wanted.items()}
    assert len(least) == 2 and min(least.values()) >= (1, 45, 1), least


async def test_without_a_collector_nothing_is_passed_on_and_nothing_told(
    start_proxy: StartProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What reaches the API is what did before there were traces."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "requests.jsonl"
    proxy = await start_proxy(requests_log_file=file)
    assert (await proxy.ask(headers=CONTINUED)).status == 200
    assert await get(proxy, "/api/v1/chat/completions", "POST", json=spoken(), headers=CONTINUED) == 200
    assert not [call for call in await proxy.calls() if {"traceparent", "tracestate"} & set(call["headers"])]
    await until(lambda: file.read_text().count("\n") == 2)
    assert "trace" not in json.loads(file.read_text().splitlines()[0]) and "trace" not in caplog.text


def test_without_a_collector_the_library_is_not_even_loaded() -> None:
    """Start, memory and every request are what they were; with one it is."""
    story = """
import asyncio, sys
import aiohttp, app, emulator
from running import chat, settings_for

async def loaded(**knobs):
    async with emulator.start(emulator.Options()) as giga:
        settings = settings_for(giga, drain_timeout=0, **knobs)
        async with app.serving(settings) as service, aiohttp.ClientSession() as http:
            async with http.post(service.url, json=chat()) as response:
                assert response.status == 200
    return sorted({"opentelemetry", "google.protobuf", "requests", "proxy.spans", "proxy.collector"} & set(sys.modules))

print(asyncio.run(loaded()))
print(len(asyncio.run(loaded(otel_exporter_otlp_endpoint="http://127.0.0.1:9"))))
"""
    told = subprocess.run(
        [sys.executable, "-c", story],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout == "[]\n5\n", told.stderr
