"""The ChatGPT connector before an API like OpenAI's, over real sockets: alone, and as a service's main connector."""

import asyncio
import logging
import re
import ssl
import subprocess
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import openai_upstream as openai
import orjson
import pytest
from openai_upstream import Answer, Upstream, breaks, holds, refuses, says
from processes import ROOT, launch, started
from pydantic import SecretStr
from running import chat, until
from test_docs import Curl, blocks_of, commands_of, parted, shape
from yarl import URL

import app
import chatgpt_connector
from chatgpt_connector import CHECK, MISSING, PARAMETERS, Account, validate_data
from conformance import check
from proxy.connector import current_gate, from_functions
from proxy.errors import BadRequest, CredentialMissing, CredentialRefused, UpstreamError
from proxy.forwarding import RawCall, RawHead
from proxy.retry_after import duration, reset_seconds, retry_after_seconds
from proxy.settings import GIGACHAT_URL, Settings, SettingsError
from proxy.tls import Tls

MakeAccount = Callable[..., Account]
Serve = Callable[..., Awaitable["Served"]]

#: A call for an account.
CALL: dict[str, Any] = {"messages": [{"role": "user", "content": "Привет"}], "generate_parameters": {}}
QUOTA = "You exceeded your current quota, please check your plan and billing details."
TOO_LARGE = (
    "Request too large for gpt-6-luna in organization org-1 on tokens per min (TPM): Limit 30000, Requested 36278. "
    "The input or output tokens must be reduced in order to run successfully."
)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with openai.running() as upstream:
        yield upstream


def chosen_for(upstream: Upstream, **knobs: Any) -> Settings:
    """Settings that point to this API."""
    return Settings(**{"url_gpt": upstream.base, "api_key": SecretStr(openai.KEY), **knobs})


@pytest.fixture
async def account(upstream: Upstream) -> AsyncIterator[Callable[..., Account]]:
    """`account(chatgpt_model="x")`: an account at that API."""
    async with AsyncExitStack() as stack:

        def make(**knobs: Any) -> Account:
            made = Account(chosen_for(upstream, **knobs))
            stack.push_async_callback(made.shutdown)
            return made

        yield make


@dataclass
class Served:
    """A service with the connector as its main one."""

    service: app.Service
    http: aiohttp.ClientSession

    async def ask(self, text: str = "Привет", **parameters: Any) -> tuple[int, Any, bytes]:
        """Status, headers and body of a native chat."""
        async with self.http.post(self.service.url, json=chat(text, **parameters)) as response:
            return response.status, response.headers, await response.read()


@pytest.fixture
async def serve(upstream: Upstream) -> AsyncIterator[Callable[..., Any]]:
    """`await serve(ext_retries=1)`: a service before that API."""
    async with AsyncExitStack() as stack:

        async def start(**knobs: Any) -> Served:
            usual = {"connector": "chatgpt_connector", "port": 0, "drain_timeout": 0, "ext_max_requests": 0}
            service = await stack.enter_async_context(app.serving(chosen_for(upstream, **{**usual, **knobs})))
            http = await stack.enter_async_context(aiohttp.ClientSession(headers={"User-Agent": "test"}))
            return Served(service, http)

        yield start


async def collected(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


def call(**parameters: Any) -> dict[str, Any]:
    return {**CALL, "generate_parameters": parameters}


# ---- Settings ----


@pytest.mark.parametrize(
    "address",
    [
        "https://api.example.com/v1",
        "https://api.example.com/v1/",
        "https://api.example.com/v1/chat/completions",
        "https://api.example.com/v1/chat/completions/",
    ],
)
def test_the_base_is_taken_of_any_address(address: str) -> None:
    """URL_GPT may be the base address or the full chat address."""
    assert Settings(url_gpt=address).gpt_base == "https://api.example.com/v1"


@pytest.mark.parametrize(
    "address", ["https://api.openai.com/v1", "http://192.168.1.5:8000/v1", "http://localhost.evil.org"]
)
def test_another_machine_needs_a_key(address: str) -> None:
    """The start says which setting, and what to do where none is asked for."""
    with pytest.raises(CredentialMissing, match="API_KEY=<your key>"):
        Account(Settings(url_gpt=address)).startup()
    Account(Settings(url_gpt=address, api_key="any")).startup()


@pytest.mark.parametrize(
    "address", ["http://localhost:11434/v1", "http://127.0.0.1:8080", "http://[::1]:8000/v1", "http://LocalHost"]
)
def test_this_machine_needs_none(address: str) -> None:
    """Ollama, llama.cpp and their like ask for no key."""
    Account(Settings(url_gpt=address)).startup()


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ключ"])
def test_a_key_that_cannot_be_one_is_told_without_repeating_it(key: str) -> None:
    """It would break the header that it goes into."""
    with pytest.raises(SettingsError, match="API_KEY has a space") as told:
        Account(Settings(api_key=key))
    assert key not in str(told.value)


def test_the_key_shows_nowhere() -> None:
    """Neither in an account's repr nor in the settings', nor what stands before the host."""
    chosen = Settings(url_gpt="http://user:word@localhost/v1", api_key=openai.KEY)
    assert not any(secret in repr(Account(chosen)) for secret in (openai.KEY, "word"))
    assert openai.KEY not in repr(chosen)


async def test_without_a_key_no_authorization_is_sent(upstream: Upstream, account: MakeAccount) -> None:
    """Some local servers refuse even an empty one."""
    upstream.key = None
    await account(api_key=None).request_api(CALL)
    assert "Authorization" not in upstream.calls[0].headers


async def test_a_key_may_be_given_with_its_bearer(upstream: Upstream, account: MakeAccount) -> None:
    """As people copy it."""
    await account(api_key=f"Bearer {openai.KEY}").request_api(CALL)
    assert upstream.calls[0].headers["Authorization"] == f"Bearer {openai.KEY}"


# ---- What a chat may look like ----


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ""}]}, "messages[0].role"),
        ({"messages": [{"role": 5}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": {"text": "x"}}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "tool_calls": [None]}]}, "messages[0].tool_calls[0]"),
        *(
            ({"messages": CALL["messages"], "generate_parameters": {name: value}}, f"generate_parameters.{name}")
            for name, value in [
                ("model", " "),
                ("temperature", 2.1),
                ("temperature", -0.1),
                ("temperature", True),
                ("temperature", "hot"),
                ("top_p", 1.01),
                ("n", 0),
                ("max_tokens", 1.5),
                ("presence_penalty", -3),
                ("stream", "yes"),
                ("stop", 5),
                ("tools", {"type": "function"}),
                ("tool_choice", 1),
                ("response_format", "json"),
            ]
        ),
    ],
)
def test_what_every_such_api_refuses_is_refused_by_name(data: dict[str, Any], field: str) -> None:
    """Before it is queued, with the field's path."""
    with pytest.raises((ValueError, TypeError)) as told:
        validate_data(data)
    assert told.value.param == field  # type: ignore[attr-defined]
    assert str(told.value).startswith(f"{field} ")


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0, "top_p": 1, "n": 3, "seed": -1, "stop": ["a", "b"], "presence_penalty": -2},
        {"temperature": 2, "max_tokens": -1, "min_p": 0.1, "keep_alive": "5m", "guided_json": {"deep": [1]}},
        {"logit_bias": [[15043, -1.0]], "reasoning_effort": "xhigh", "tool_choice": {"type": "allowed_tools"}},
        dict.fromkeys(PARAMETERS.fields),
    ],
)
def test_what_some_api_takes_passes(parameters: dict[str, Any]) -> None:
    """Nulls, and parameters that only llama.cpp, vLLM, Ollama or a newer OpenAI knows."""
    assert validate_data(call(**parameters)) is True


@pytest.mark.parametrize(
    "message",
    [
        {"role": "developer", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        {"role": "ipython", "content": "x"},
    ],
)
def test_messages_of_every_kind_pass(message: dict[str, Any]) -> None:
    """Roles are words; which of them there are, the API knows."""
    assert validate_data({"messages": [message]}) is True


# ---- A chat ----


async def test_what_the_caller_gives_reaches_the_api(upstream: Upstream, account: MakeAccount) -> None:
    """Unknown fields and nulls too; only a model is filled in."""
    given = {"temperature": 0, "stop": None, "unheard_of": {"deep": [1, "два"]}}
    await account(chatgpt_model="gpt-6-sol").request_api(call(**given))
    [sent] = upstream.calls
    assert (sent.method, sent.path) == ("POST", "/v1/chat/completions")
    assert sent.json == {**given, "messages": CALL["messages"], "model": "gpt-6-sol"}
    assert sent.headers["Content-Type"] == "application/json"


async def test_the_answer_comes_back_whole(upstream: Upstream, account: MakeAccount) -> None:
    """Fields that we have never heard of as well."""
    answer = {"id": "x", "choices": [], "usage": None, "service_tier": "flex", "odd": [1.5, None]}
    upstream.script.append(says(orjson.dumps(answer)))
    assert await account().request_api(CALL) == answer


async def test_the_callers_model_counts(upstream: Upstream, account: MakeAccount) -> None:
    """CHATGPT_MODEL is for those who name none; null names none."""
    served = account(chatgpt_model="gpt-6-luna")
    for given in ({"model": "gpt-6-sol"}, {"model": None}, {}):
        await served.request_api(call(**given))
    assert [sent.json["model"] for sent in upstream.calls] == ["gpt-6-sol", "gpt-6-luna", "gpt-6-luna"]


async def test_a_plain_call_is_never_a_stream(upstream: Upstream, account: MakeAccount) -> None:
    """Whoever wants the whole answer gets it, whatever the parameters say; they are not changed."""
    data = call(stream=True)
    assert (await account().request_api(data))["object"] == "chat.completion"
    assert upstream.calls[0].json["stream"] is False and data == call(stream=True)


async def test_chunks_are_the_apis_own_bytes(upstream: Upstream, account: MakeAccount) -> None:
    """Spaces and UTF-8 as the API wrote them, the usage if it was asked for; `stream_options` is left alone."""
    options = {"include_usage": True}
    chunks = await collected(account().stream_api(call(stream_options=options)))
    [sent] = upstream.calls
    assert sent.json["stream"] is True and sent.json["stream_options"] == options
    assert [chunk.decode() for chunk in chunks] == openai.chunks(sent.json, "You said: Привет")
    assert "usage" in orjson.loads(chunks[-1])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says(b'{"choices": []}'), "did not answer with a stream"),
        (says(b"data: {\n\n", content_type="text/event-stream"), "not a JSON object"),
        (says(b"data: []\n\n", content_type="text/event-stream"), "not a JSON object"),
        (says(b'data: {"a": 1}\n\n', content_type="text/event-stream"), r"before \[DONE\]"),
        (says(b"", content_type="text/event-stream"), r"before \[DONE\]"),
        (breaks(1), "broke the connection"),
    ],
)
async def test_a_stream_that_is_none_is_told_as_no_answer(
    upstream: Upstream, account: MakeAccount, answer: Answer, words: str
) -> None:
    """Nobody takes what came of it for the whole."""
    upstream.script.append(answer)
    with pytest.raises(UpstreamError, match=words) as told:
        await collected(account().stream_api(CALL))
    assert told.value.is_retryable


async def test_what_cannot_be_written_as_json_is_the_callers_mistake(upstream: Upstream, account: MakeAccount) -> None:
    """A whole number that JSON's readers would not keep."""
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        await account().request_api(call(unheard_of=2**64))
    assert upstream.calls == []


async def test_a_reader_who_leaves_ends_the_call(upstream: Upstream, account: MakeAccount) -> None:
    """The API need not write for nobody."""
    upstream.script.append(holds(asyncio.Event()))
    stream = account().stream_api(CALL)
    await anext(stream)
    await stream.aclose()
    await until(lambda: upstream.calls[0].is_gone)


# ---- Embeddings, models, any path ----


async def test_embeddings_go_and_come_as_they_are(upstream: Upstream, account: MakeAccount) -> None:
    """The body is the caller's, the answer the API's."""
    body = {"model": "text-embedding-3-small", "input": ["один", "два"], "encoding_format": "float"}
    answer = await account().request_embeddings(body)
    assert (upstream.calls[0].path, upstream.calls[0].json) == ("/v1/embeddings", body)
    assert [item["index"] for item in answer["data"]] == [0, 1] and answer["usage"]["total_tokens"] == 2


async def test_models_are_asked_for_once_and_in_turn(upstream: Upstream, account: MakeAccount) -> None:
    """Outside the line nobody is asked; in line it is one call in ten minutes."""
    served = account(chatgpt_model="mine")
    assert await served.get_info() == {"default-model": "mine", "avail-models": ["mine"]}
    gate = CountingGate()
    before = current_gate.set(gate)
    try:
        for _ in range(2):
            assert await served.get_info() == {"default-model": "mine", "avail-models": list(openai.MODELS)}
    finally:
        current_gate.reset(before)
    assert (gate.passed, len(upstream.to("/v1/models"))) == (1, 1)
    assert [model["id"] for model in (await served.list_models())["data"]] == list(openai.MODELS)


class CountingGate:
    """A permit that lets everything through and counts what passes."""

    is_sent = False

    def __init__(self) -> None:
        self.passed = 0

    async def gate(self) -> None:
        self.passed += 1

    def mark_sent(self) -> None: ...

    def release_after(self, call: object) -> None: ...


async def test_every_call_passes_the_gate_once(account: MakeAccount) -> None:
    """Chats, streams, embeddings and raw calls: nothing goes out beside the pace."""
    served, gate = account(), CountingGate()
    before = current_gate.set(gate)
    try:
        await served.request_api(CALL)
        await collected(served.stream_api(CALL))
        await served.request_embeddings({"model": "text-embedding-3-small", "input": "x"})
        await collected(served.forward(RawCall("GET", "v1", "/models")))
    finally:
        current_gate.reset(before)
    assert gate.passed == 4


async def test_a_raw_call_goes_and_comes_byte_for_byte(upstream: Upstream, account: MakeAccount) -> None:
    """Under the base address whatever version it names; our key in place of any other, no header of the operator's."""
    headers = (("Content-Type", "application/json"), ("X-Trace", "1"), ("Authorization", "Bearer another"))
    raw = RawCall("POST", "v2", "/audio/speech", "a=%20b&c", headers, b'{"input":  "\xd1\x8f"}')
    head, *pieces = await collected(account().forward(raw))
    [sent] = upstream.calls
    assert (sent.method, sent.path, sent.body) == ("POST", "/v1/audio/speech?a=%20b&c", raw.body)
    assert sent.headers["X-Trace"] == "1" and sent.headers["Authorization"] == f"Bearer {openai.KEY}"
    assert head.status == 200 and b"".join(pieces) == b"\x00\xffID3 speech"
    assert dict(head.headers) == {"Content-Type": "audio/mpeg", "X-Request-ID": "req_1"}


async def test_the_apis_own_refusal_of_a_raw_call_is_its_answer(account: MakeAccount) -> None:
    """A 404 with the API's words."""
    head, body = await collected(account().forward(RawCall("GET", "v1", "/nowhere")))
    assert (head.status, head.is_whole) == (404, True)
    assert orjson.loads(body)["error"]["message"] == "Invalid URL (GET /v1/nowhere)"


async def test_a_raw_stream_comes_as_it_is(account: MakeAccount) -> None:
    """With its comments and its [DONE]."""
    body = orjson.dumps({"model": "gpt-6-luna", "messages": CALL["messages"], "stream": True})
    raw = RawCall("POST", "v1", "/chat/completions", headers=(("Content-Type", "application/json"),), body=body)
    head, *pieces = await collected(account().forward(raw))
    assert isinstance(head, RawHead) and not head.is_whole
    told = b"".join(pieces)
    assert told.startswith(b": PROCESSING\n\ndata: {") and told.endswith(b"data: [DONE]\n\n")


async def test_the_key_never_leaves_for_another_host(upstream: Upstream, account: MakeAccount) -> None:
    """A redirect is not followed."""
    async with openai.running() as other:
        upstream.script.append(says(b"", 307, Location=f"{other.base}/chat/completions"))
        with pytest.raises(UpstreamError) as told:
            await account().request_api(CALL)
        assert (told.value.upstream_status, told.value.status, other.calls) == (307, 502, [])


# ---- Refusals: how long to wait, and which no waiting cures ----


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "120", "Retry-After": "7"}, 0.12),
        ({"Retry-After": "7", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 7),
        ({"retry-after-ms": "soon", "Retry-After": "7"}, 7),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        ({"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "120ms"}, 0.12),
        (
            {
                "x-ratelimit-remaining-requests": "59",
                "x-ratelimit-reset-requests": "1h",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1m26.4s",
            },
            86.4,
        ),
        ({"x-ratelimit-remaining-project-tokens": "0", "x-ratelimit-reset-project-tokens": "2s"}, 2),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        ({}, None),
    ],
)
async def test_a_429_pauses_for_as_long_as_the_api_asks(
    upstream: Upstream, account: MakeAccount, headers: dict[str, str], seconds: float | None
) -> None:
    """retry-after-ms, else Retry-After, else the reset of whichever budget is spent; plain, streamed and raw alike."""
    served = account()
    for ask in (
        served.request_api,
        lambda data: collected(served.stream_api(data)),
        lambda _: collected(served.forward(RawCall("GET", "v1", "/models"))),
    ):
        upstream.script.append(refuses(429, "Rate limit reached", "requests", "rate_limit_exceeded", **headers))
        with pytest.raises(UpstreamError) as told:
            await ask(CALL)
        assert told.value.is_throttled
        assert told.value.retry_after == (None if seconds is None else pytest.approx(seconds))


async def test_a_budget_that_is_spent_does_not_delay_the_retry_of_a_5xx(
    upstream: Upstream, account: MakeAccount
) -> None:
    """Every answer tells the budgets; only a 429 is about them. A Retry-After counts with any status."""
    spent = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}
    upstream.script += [refuses(500, **spent), refuses(503, **spent, retry_after_ms="50")]
    pauses = []
    for _ in range(2):
        with pytest.raises(UpstreamError) as told:
            await account().request_api(CALL)
        pauses.append((told.value.upstream_status, told.value.retry_after))
    assert pauses == [(500, None), (503, 0.05)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("17ms", 0.017),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1h2m3s", 3723),
        ("2d", 172_800),
        ("33", 33),
        ("", None),
        ("soon", None),
        ("-5s", None),
        ("5 s", None),
        ("5sx", None),
        ("nan", None),
        ("inf", None),
        ("-1", None),
        ("2026-11-21T10:00:00Z", None),
    ],
)
def test_durations_are_read_as_openai_and_azure_write_them(text: str, seconds: float | None) -> None:
    """What cannot be read says nothing."""
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_hostile_headers_pause_nobody_for_ever() -> None:
    """Numbers without end are no numbers, or are bounded where they end up."""
    endless = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "9" * 4000 + "s"}
    assert UpstreamError(429, retry_after=reset_seconds(endless)).retry_after == 86_400
    for told in ("9" * 400 + "e999", "-1", "nan", "inf", "\x00", "1;drop"):
        assert retry_after_seconds({"retry-after-ms": told}) is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("insufficient_quota", "insufficient_quota"),
        ("insufficient_quota", "credit_balance_exhausted"),
        ("insufficient_quota", None),
        ("billing_error", "project_spend_limit_exceeded"),
        ("billing_error", "organization_spend_limit_exceeded"),
        ("billing_error", "organization_usage_limit_exceeded"),
    ],
)
async def test_a_429_for_want_of_money_is_told_at_once(
    upstream: Upstream, serve: Serve, kind: str, code: str | None
) -> None:
    """As 402 with the API's words: no pause, no retry, and the next request is served."""
    served = await serve()
    upstream.script.append(refuses(429, QUOTA, kind, code, retry_after="60"))
    status, _, body = await served.ask()
    assert status == 402 and len(upstream.calls) == 1
    assert orjson.loads(body)["status"] == (
        f'the account of API_KEY has nothing left to spend (the API says: "{QUOTA}")'
    )
    assert served.service.line.state().limits.paused == 0
    assert (await served.ask())[0] == 200


async def test_a_request_that_is_larger_than_a_minutes_budget_is_its_callers_affair(
    upstream: Upstream, serve: Serve
) -> None:
    """OpenAI says 429 to it; it would be refused for ever and hold up everybody. It is a 413, in the API's words."""
    served = await serve()
    upstream.script.append(refuses(429, TOO_LARGE, "tokens", "rate_limit_exceeded"))
    status, _, body = await served.ask()
    assert (status, orjson.loads(body)["status"], len(upstream.calls)) == (413, TOO_LARGE, 1)
    assert served.service.line.state().limits.paused == 0


async def test_a_raw_call_without_money_gets_the_apis_own_body(upstream: Upstream, account: MakeAccount) -> None:
    """The status alone is another one."""
    upstream.script.append(refuses(429, QUOTA, "insufficient_quota", "insufficient_quota"))
    with pytest.raises(UpstreamError) as told:
        await collected(account().forward(RawCall("GET", "v1", "/models")))
    assert (told.value.upstream_status, told.value.is_as_told) == (402, True)
    assert orjson.loads(told.value.body)["error"]["code"] == "insufficient_quota"
    assert ("X-Request-ID", "req_1") in told.value.answer_headers


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b'"insufficient_quota"', b'{"error": "insufficient_quota"}', b'{"error": {"type": []}}'],
)
async def test_a_429_with_an_odd_body_is_a_429(upstream: Upstream, account: MakeAccount, body: bytes) -> None:
    """Whoever does not say that it is about money is waited for."""
    upstream.script.append(says(body, 429))
    with pytest.raises(UpstreamError) as told:
        await account().request_api(CALL)
    assert told.value.is_throttled


async def test_a_refused_key_names_the_setting_and_nothing_else(
    upstream: Upstream, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """The API repeats the key in its words; neither the caller nor the log sees it. No retry."""
    caplog.set_level(logging.DEBUG)
    served = await serve(api_key=SecretStr("sk-proj-the-wrong-key"))
    status, _, body = await served.ask()
    assert status == 502 and len(upstream.calls) == 1
    assert "the API refuses API_KEY" in orjson.loads(body)["status"]
    assert b"wrong-key" not in body and "wrong-key" not in caplog.text
    with pytest.raises(CredentialRefused) as told:
        await chatgpt_connector.request_api(CALL)
    assert "wrong-key" not in "".join(traceback.format_exception(told.value)) + str(told.value.body)


async def test_a_key_that_is_wanted_is_told_so(upstream: Upstream, account: MakeAccount) -> None:
    """To whoever has set none for a server on this machine."""
    with pytest.raises(CredentialRefused, match="asks for a key: put API_KEY="):
        await account(api_key=None).request_api(CALL)


@pytest.mark.parametrize(("status", "code"), [(400, "context_length_exceeded"), (403, "forbidden"), (404, None)])
async def test_the_apis_other_refusals_are_the_callers(
    upstream: Upstream, serve: Serve, status: int, code: str | None
) -> None:
    """With their status and their words, after one call."""
    served = await serve()
    upstream.script.append(refuses(status, "because", "invalid_request_error", code))
    told, _, body = await served.ask()
    assert (told, orjson.loads(body)["status"], len(upstream.calls)) == (status, "because", 1)


# ---- As the main connector ----


async def test_a_native_chat_is_answered_by_the_api(upstream: Upstream, serve: Serve) -> None:
    """`POST /`: pairs become objects, the API's answer comes whole in `data`."""
    served = await serve()
    status, headers, body = await served.ask("Как дела?", temperature=0.5)
    answer = orjson.loads(body)
    assert status == 200 and answer["app"] == "gigachat-proxy" and answer["status"] == "ok"
    assert answer["data"]["choices"][0]["message"]["content"] == "You said: Как дела?"
    assert answer["data"]["usage"]["total_tokens"] > 0
    [sent] = upstream.calls
    assert sent.json["messages"] == [{"role": "user", "content": "Как дела?"}] and sent.json["temperature"] == 0.5
    assert sent.headers["X-Request-ID"] == headers["X-Request-ID"]


async def test_a_native_stream_is_the_apis_events(upstream: Upstream, serve: Serve) -> None:
    """Byte for byte, up to [DONE]."""
    served = await serve()
    status, headers, body = await served.ask(stream=True)
    assert status == 200 and headers["Content-Type"] == "text/event-stream"
    told = [*openai.chunks(upstream.calls[0].json, "You said: Привет"), "[DONE]"]
    assert body.decode() == "".join(f"data: {data}\n\n" for data in told)


async def test_what_is_wrong_is_a_400_and_is_not_sent(upstream: Upstream, serve: Serve) -> None:
    """With the name of the field."""
    status, _, body = await (await serve()).ask(temperature=2.5)
    assert status == 400 and upstream.calls == []
    assert "generate_parameters.temperature must be a number from 0 to 2, not 2.5" in orjson.loads(body)["status"]


async def test_a_429_is_waited_out(upstream: Upstream, serve: Serve) -> None:
    """The caller sees nothing of it, and no retry is used up."""
    served = await serve(ext_retries=0)
    spent = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}
    upstream.script += [refuses(429, **spent), refuses(429, retry_after_ms="10"), refuses(429, retry_after="1")]
    asked = asyncio.create_task(served.ask())
    await until(lambda: len(upstream.calls) == 3 and served.service.line.state().limits.paused > 0)
    assert served.service.line.state().limits.paused <= 1
    assert (await asked)[0] == 200 and len(upstream.calls) == 4


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ([refuses(500)], 200),
        ([breaks()], 200),
        ([says(b"<html>", content_type="text/html")], 200),
        ([refuses(500), refuses(500)], 502),
        ([refuses(503), refuses(503)], 503),
        ([breaks(), says(b"[]")], 502),
    ],
)
async def test_what_may_pass_is_tried_again(
    upstream: Upstream, serve: Serve, script: list[Answer], status: int
) -> None:
    """5xx, broken connections, answers that are none; when the retries are spent, the caller's client need not try."""
    served = await serve(ext_retries=1)
    upstream.script += script
    told, headers, _ = await served.ask()
    assert (told, len(upstream.calls)) == (status, 2)
    assert headers.get("x-should-retry") == (None if status == 200 else "false")


async def test_a_stream_that_breaks_before_its_first_chunk_is_asked_for_again(upstream: Upstream, serve: Serve) -> None:
    """Nobody has seen anything of it."""
    served = await serve(ext_retries=2)
    upstream.script += [breaks(0), says(b'{"choices": []}')]
    status, _, body = await served.ask(stream=True)
    assert status == 200 and body.endswith(b"data: [DONE]\n\n") and len(upstream.calls) == 3


async def test_a_stream_that_breaks_later_ends_in_an_error(upstream: Upstream, serve: Serve) -> None:
    """Its chunks so far, then the error; it is never begun anew."""
    served = await serve()
    upstream.script.append(breaks(2))
    _, _, body = await served.ask(stream=True)
    events = body.decode().strip().split("\n\n")
    assert len(events) == 3 and events[-1].startswith("event: error\ndata: ") and len(upstream.calls) == 1


async def test_a_stream_refused_for_want_of_money_is_a_402(upstream: Upstream, serve: Serve) -> None:
    """A real status, before anything is written."""
    served = await serve()
    upstream.script.append(refuses(429, QUOTA, "insufficient_quota"))
    assert (await served.ask(stream=True))[0] == 402


async def test_get_tells_the_apis_models(upstream: Upstream, serve: Serve) -> None:
    """And the default one, and who serves."""
    served = await serve(chatgpt_model="gpt-6-sol")
    async with served.http.get(served.service.url) as response:
        info = (await response.json())["info"]
    assert (info["default-model"], info["avail-models"]) == ("gpt-6-sol", list(openai.MODELS))
    assert info["connector"] == "chatgpt_connector"


async def test_it_serves_as_a_process_of_its_own(upstream: Upstream, tmp_path: Path) -> None:
    """CONNECTOR, URL_GPT and API_KEY are all it takes; the key is in no output."""
    env = {"CONNECTOR": "chatgpt_connector", "URL_GPT": f"{upstream.base}/chat/completions", "API_KEY": openai.KEY}
    with started(ROOT, tmp_path / "log", env=env, cwd=tmp_path) as process:
        async with aiohttp.ClientSession() as http, http.post(process.url, json=chat()) as response:
            assert response.status == 200
        assert "connector chatgpt_connector;" in process.output and openai.KEY not in process.output


def test_a_start_without_a_key_says_what_to_do(tmp_path: Path) -> None:
    """One sentence, exit code 1; the emulator is no stand-in for this API, whatever SANDBOX says."""
    env = {"CONNECTOR": "chatgpt_connector", "SANDBOX": "auto"}
    process = launch(ROOT, tmp_path / "log", env=env, cwd=tmp_path)
    assert process.wait() == 1
    assert process.output == f"gigachat-proxy cannot start: {MISSING}\n"


# ---- Certificates ----


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that is valid for 127.0.0.1 and signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "server.pem", folder / "server.key"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 2 -out {made[0]} -keyout {made[1]} -subj /CN=test"
    subprocess.run(
        ["openssl", *words.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True
    )
    return made


async def test_the_systems_roots_are_trusted_and_ssl_cert_file_names_others(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate of one's own is refused, and taken where SSL_CERT_FILE says so; what is set for GigaChat is not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    async with openai.running(context) as upstream:
        stranger = Account(
            chosen_for(upstream, gigachat_verify_ssl_certs=False, gigachat_ca_bundle_file=certificate[0])
        )
        with pytest.raises(UpstreamError, match=r"certificate was not accepted.*SSL_CERT_FILE"):
            await stranger.request_api(CALL)
        await stranger.shutdown()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusting = Account(chosen_for(upstream))
        assert (await trusting.request_api(CALL))["choices"]
        await trusting.shutdown()


def test_a_file_that_is_of_no_use_is_told_at_start(certificate: tuple[Path, Path]) -> None:
    """Where URL_GPT leads to GigaChat's own host, for which its files count."""
    chosen = Settings(url_gpt=GIGACHAT_URL, api_key="any", gigachat_ca_bundle_file=certificate[1])
    with pytest.raises(SettingsError, match="GIGACHAT_CA_BUNDLE_FILE"):
        Account(chosen).startup()


def test_the_russian_root_is_not_trusted_for_it() -> None:
    """It names no limits to itself, so it counts for GigaChat's hosts alone."""
    context = Tls(Settings())(URL("https://api.openai.com/v1"))
    assert isinstance(context, ssl.SSLContext) and context.verify_mode is ssl.CERT_REQUIRED
    assert not any("Russian Trusted" in str(root["subject"]) for root in context.get_ca_certs())


# ---- The contract, and the page ----


def test_it_keeps_every_promise_of_a_connector() -> None:
    """As `make check-connector CONNECTOR=chatgpt_connector` lists them, and its wrong calls are named."""
    report = check("chatgpt_connector")
    assert report.exit_code == 0 and CHECK["env"]


async def test_module_and_account_have_the_functions_of_a_connector(upstream: Upstream) -> None:
    """Gated, and speaking OpenAI's dialect."""
    connector = from_functions(
        chatgpt_connector.validate_data, chatgpt_connector.request_api, chatgpt_connector.get_info
    )
    assert (connector.name, connector.dialect, connector.is_gated) == ("chatgpt_connector", "openai", True)
    names = [name for name in vars(Account) if not name.startswith("_")]
    assert all(hasattr(chatgpt_connector, name) for name in names)
    assert {"stream_api", "request_embeddings", "forward", "list_models", "startup", "shutdown"} <= set(names)


async def test_the_page_shows_what_it_does(upstream: Upstream, serve: Serve) -> None:
    """Every curl of its section, executed, is answered as the page says."""
    page = ROOT / "docs" / "connectors.md"
    blocks = [block for block in blocks_of(page) if block.section == "The ChatGPT connector"]
    shown = [(block, after) for block, after in pairwise(blocks) if after.language == "http"]
    assert shown
    served = await serve()
    for block, after in shown:
        [words] = commands_of(block.text)
        told = await Curl.read(words).perform(served.http, served.service.url)
        assert parted(told)[0] == parted(after.text)[0]
        assert shape(parted(told)[2]) == shape(parted(after.text)[2])


def test_the_page_names_its_settings() -> None:
    """All of them, and no other."""
    section = (
        (ROOT / "docs" / "connectors.md").read_text().partition("## The ChatGPT connector")[2].partition("\n## ")[0]
    )
    named = set(re.findall(r"`((?:URL_GPT|API_KEY|CHATGPT_\w+))`", section))
    known = {name.upper() for name in Settings.model_fields if name.startswith(("chatgpt", "url_gpt", "api_key"))}
    assert named == known
