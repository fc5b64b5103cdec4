"""Idempotency-Key: a request that comes again is the same request: it joins the first one, or is told its answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest
from documents import blocks_of
from held_upstream import Gate
from openai import AsyncOpenAI
from pydantic import SecretStr
from running import Answer, Proxy, StartProxy, chat, until, waiting
from test_docs import ROOT, Curl, commands_of, parted, shape

import app
from emulator import Options
from proxy.errors import JobsUnavailable
from proxy.jobs import Answer as Kept
from proxy.jobs import Job, State
from proxy.settings import load

WORDS = ", ".join(["слово"] * 20)
KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}
Start = Callable[..., Awaitable[Proxy]]


@dataclass(frozen=True)
class Asking:
    """What is asked, where, and where that reaches the API."""

    path: str
    body: dict[str, Any]
    upstream: str = "/chat/completions"


def spoken(text: str = "Привет", **more: Any) -> dict[str, Any]:
    """A body of OpenAI's, GigaChat's or LanguageModelChat's."""
    return {"model": "GigaChat-2", "messages": [{"role": "user", "content": text}], **more}


NATIVE, OPENAI, RAW = (
    Asking("/", chat()),
    Asking("/v1/chat/completions", spoken()),
    Asking("/api/v1/chat/completions", spoken()),
)
LMC = Asking("/gigachat/", spoken())
STREAMS = {
    "native": Asking("/", chat(WORDS, stream=True)),
    "openai": Asking("/v1/chat/completions", spoken(WORDS, stream=True)),
    "raw": Asking("/api/v1/chat/completions", spoken(WORDS, stream=True)),
}
ALL = {
    "native": NATIVE,
    "openai": OPENAI,
    "raw": RAW,
    "language model chat": LMC,
    "embeddings": Asking("/v1/embeddings", {"model": "Embeddings", "input": ["Привет"]}, "/embeddings"),
    "raw embeddings": Asking("/api/v1/embeddings", {"model": "Embeddings", "input": ["Привет"]}, "/embeddings"),
    **{f"{name} stream": asking for name, asking in STREAMS.items()},
}


@dataclass
class Told:
    """A whole answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def is_replayed(self) -> bool:
        return self.headers.get("Idempotency-Replayed") == "true"


@pytest.fixture
def start(start_proxy: StartProxy, tmp_path: Path) -> Start:
    """`await start(Options(...), ext_max_requests=1)`: a proxy that keeps jobs."""

    async def start_it(options: Options | None = None, **knobs: Any) -> Proxy:
        knobs.setdefault("jobs_url", SecretStr(str(tmp_path / "jobs.sqlite")))
        proxy: Proxy = await start_proxy(options, **knobs)
        return proxy

    return start_it


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def blocked(proxy: Proxy, gate: Gate) -> "asyncio.Task[Answer]":
    """A call in flight until the gate is opened; with EXT_MAX_REQUESTS=1 whoever comes after it waits in line."""
    gate.holds(proxy.giga)
    first = asyncio.create_task(proxy.ask("first"))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1 and calls(proxy) == 1)
    return first


async def ask(proxy: Proxy, asking: Asking = NATIVE, key: str = "k1", **headers: str) -> Told:
    told = {"Idempotency-Key": key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with proxy.http.post(proxy.url + asking.path, json=asking.body, headers=told) as response:
        return Told(response.status, response.headers, await response.read())


def asking(proxy: Proxy, *args: Any, **headers: str) -> "asyncio.Task[Told]":
    return asyncio.create_task(ask(proxy, *args, **headers))


async def is_kept(proxy: Proxy) -> None:
    """Until the store knows how everything ended."""
    await until(lambda: proxy.service.work.runner.under_way == 0)


async def leave(task: "asyncio.Task[Any]") -> None:
    """Its caller closes the connection."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def calls(proxy: Proxy, path: str = "/chat/completions") -> int:
    return len(proxy.giga.state.calls.to(path))


def followers(proxy: Proxy) -> list[int]:
    return [run.followers for run in proxy.service.work.runner._runs.values()]


async def the_job(proxy: Proxy) -> Job:
    """The only one there is."""
    (job,) = (await proxy.service.work.store.jobs.list(caller=None)).entries
    return job


# ---- A repeat ----


@pytest.mark.parametrize("asked", ALL.values(), ids=ALL)
async def test_a_repeat_is_told_the_same_answer_and_costs_no_call(start: Start, asked: Asking) -> None:
    """To the byte, in every dialect, plain and streamed; a header says that it is told again, however soon."""
    proxy = await start()
    first = await ask(proxy, asked)
    repeat = await ask(proxy, asked)
    assert (repeat.status, repeat.body) == (first.status, first.body) == (200, first.body)
    assert repeat.headers["Content-Type"] == first.headers["Content-Type"]
    assert repeat.headers["X-Request-ID"] == first.headers["X-Request-ID"]
    assert repeat.is_replayed and not first.is_replayed
    assert calls(proxy, asked.upstream) == 1
    assert (await ask(proxy, asked, "k2")).status == 200
    assert calls(proxy, asked.upstream) == 2


async def test_the_first_answer_is_as_it_would_be_without_a_key(start: Start) -> None:
    """With its id, its story in the line, the limits, and the API's own headers."""
    proxy = await start()
    for asked in (NATIVE, OPENAI, RAW):
        told = await ask(proxy, asked, asked.path, X_Request_ID="mine")
        async with proxy.http.post(proxy.url + asked.path, json=asked.body, headers={"X-Request-ID": "mine"}) as plain:
            await plain.read()
        assert told.headers.keys() == plain.headers.keys()
        assert told.headers["X-Request-ID"] == plain.headers["X-Request-ID"]
    assert {call.headers["X-Request-ID"] for call in proxy.giga.state.calls.to("/chat/completions")} == {"mine"}


async def test_a_repeat_joins_the_waiting_request_and_keeps_its_place(start: Start, gate: Gate) -> None:
    """It stands where the first one stood, before whoever came after that; there is one call."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    mine = Asking("/", chat("mine"))
    first = asking(proxy, mine)
    await until(lambda: waiting(proxy) == 1)
    others = [asyncio.create_task(proxy.ask(f"other {number}")) for number in range(3)]
    await until(lambda: waiting(proxy) == 4)
    repeats = [asking(proxy, mine) for _ in range(3)]
    await until(lambda: followers(proxy) == [4])
    assert waiting(proxy) == 4
    gate.open()
    answers = await asyncio.gather(first, *repeats)
    await asyncio.gather(in_flight, *others)
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert {answer.headers["X-Queue-Position"] for answer in answers} == {"1"}
    assert (await proxy.sent_texts())[:2] == ["first", "mine"]
    assert (await proxy.sent_texts()).count("mine") == 1


@pytest.mark.parametrize("asked", [*STREAMS.values(), OPENAI], ids=[*STREAMS, "plain"])
async def test_a_hundred_at_once_are_one_call(start: Start, asked: Asking) -> None:
    """All get its answer, to the byte."""
    proxy = await start()
    answers = await asyncio.gather(*[ask(proxy, asked) for _ in range(100)])
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert calls(proxy) == 1


@pytest.mark.parametrize("asked", STREAMS.values(), ids=STREAMS)
async def test_a_stream_streams_to_all_who_follow_it(start: Start, asked: Asking) -> None:
    """Whoever joins in the middle gets its beginning at once, while the end is still to come."""
    proxy = await start(Options(chunk_delay=0.1))
    async with opened(proxy, asked) as first:
        beginning = await first.content.readuntil(b"\n\n")
        async with opened(proxy, asked) as second:
            assert await second.content.readuntil(b"\n\n") == beginning
            assert proxy.service.line.state().limits.in_flight == 1
            rest, same = await asyncio.gather(first.content.read(), second.content.read())
    assert rest == same and rest.endswith(b"data: [DONE]\n\n")
    assert calls(proxy) == 1


@asynccontextmanager
async def opened(proxy: Proxy, asked: Asking, key: str = "k1") -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer whose head has come."""
    told = {"Idempotency-Key": key}
    async with proxy.http.post(proxy.url + asked.path, json=asked.body, headers=told) as response:
        yield response


async def test_priority_is_that_of_the_first(start: Start, gate: Gate) -> None:
    """A request with a key takes its turn like any other: high before normal before low."""
    proxy = await start(ext_max_requests=1, proxy_api_keys=KEYS)
    gate.holds(proxy.giga)
    key = {"X_API_Key": "key-of-anna"}
    asked = [asking(proxy, Asking("/", chat("first")), "k", **key)]
    await until(lambda: calls(proxy) == 1)
    for word in ("low", "normal", "high"):
        asked.append(asking(proxy, Asking("/", chat(word)), word, X_Priority=word, **key))
        await until(lambda: waiting(proxy) == len(asked) - 1)
    gate.open()
    assert {told.status for told in await asyncio.gather(*asked)} == {200}
    assert await proxy.sent_texts() == ["first", "high", "normal", "low"]


# ---- Who leaves ----


async def test_whoever_leaves_keeps_its_place_and_comes_back_to_its_answer(start: Start, gate: Gate) -> None:
    """While it waited: the request stays in the line, is sent in its turn, and its answer is kept."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    first = asking(proxy)
    await until(lambda: waiting(proxy) == 1)
    await leave(first)
    await until(lambda: followers(proxy) == [0])
    assert waiting(proxy) == 1
    gate.open()
    await in_flight
    await is_kept(proxy)
    repeat = await ask(proxy)
    assert repeat.status == 200 and repeat.is_replayed
    assert calls(proxy) == 2


@pytest.mark.parametrize("asked", [STREAMS["raw"], RAW], ids=["stream", "plain"])
async def test_whoever_leaves_in_flight_does_not_end_the_call(start: Start, asked: Asking) -> None:
    """It is paid for: whoever comes back gets all of it, a stream from its beginning."""
    proxy = await start(Options(chunk_delay=0.05, latency=0.2))
    first = asking(proxy, asked)
    await until(lambda: calls(proxy) == 1)
    await leave(first)
    repeat = await ask(proxy, asked)
    assert repeat.status == 200 and asked.body["messages"][0]["content"][:5] in repeat.body.decode()
    assert calls(proxy) == 1


async def test_whoever_leaves_before_the_store_has_answered_leaves_its_request_running(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was accepted is begun, and not only when a lease is over."""
    proxy = await start()
    jobs, may_go_on = proxy.service.work.store.jobs, asyncio.Event()
    find_or_add, coming = jobs.find_or_add, []

    async def held_up(*args: Any, **words: Any) -> Any:
        coming.append(args)
        await may_go_on.wait()
        return await find_or_add(*args, **words)

    monkeypatch.setattr(jobs, "find_or_add", held_up)
    first = asking(proxy)
    await until(lambda: bool(coming))
    await leave(first)
    may_go_on.set()
    await until(lambda: calls(proxy) == 1)
    await is_kept(proxy)
    assert (await ask(proxy)).is_replayed and calls(proxy) == 1


async def test_a_deadline_ends_the_wait_and_not_the_request(start: Start, gate: Gate) -> None:
    """504, which says so and may be retried; the same key gets the answer, from one call."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    hasty = await ask(proxy, OPENAI, X_Request_Timeout="0.1")
    assert hasty.status == 504 and b"same Idempotency-Key" in hasty.body and b'"answer_pending"' in hasty.body
    assert hasty.headers["Retry-After"] == "1" and "x-should-retry" not in hasty.headers
    assert waiting(proxy) == 1
    patient = asking(proxy, OPENAI)
    gate.open()
    assert (await patient).status == 200
    await in_flight
    assert calls(proxy) == 2


async def test_a_wrong_deadline_is_refused_before_anything_is_kept(start: Start) -> None:
    proxy = await start()
    assert (await ask(proxy, X_Request_Timeout="soon")).status == 400
    assert (await ask(proxy, X_Priority="first")).status == 400
    assert (await proxy.service.work.store.jobs.state()).jobs == 0


# ---- Another request ----


@pytest.mark.parametrize("asked", [NATIVE, OPENAI, RAW, LMC], ids=["native", "openai", "raw", "language model chat"])
async def test_the_same_key_with_another_body_or_path_is_a_409_in_its_dialect(start: Start, asked: Asking) -> None:
    """The first request is as it was."""
    proxy = await start()
    first = await ask(proxy, asked)
    await is_kept(proxy)
    other = Asking(asked.path, {**asked.body, "messages": [{"role": "user", "content": "other"}]})
    for wrong in (other, Asking(asked.path + "?x=1", asked.body)):
        told = await ask(proxy, wrong)
        assert told.status == 409 and b"Idempotency-Key came with another request" in told.body
        assert (b'"code":"idempotency_key_reused"' in told.body) is (asked is OPENAI)
    assert (await ask(proxy, asked)).body == first.body
    assert calls(proxy) == 1


async def test_what_is_refused_leaves_its_key_free(start: Start) -> None:
    """A wrong body is told so as ever, is not kept, and its corrected form may have the same key."""
    proxy = await start(max_body_bytes=2000)
    wrong = await ask(proxy, Asking("/", {"messages": "Привет"}))
    assert wrong.status == 400 and b'\\"messages\\" must be a list' in wrong.body
    assert (await ask(proxy, Asking("/", chat("x" * 3000)))).status == 413
    assert (await ask(proxy, Asking("/v1/chat/completions", spoken(temperature="hot")))).status == 400
    assert (await proxy.service.work.store.jobs.state()).jobs == 0
    assert (await ask(proxy)).status == 200


GOOD = {
    "a UUID": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    "the longest": "x" * 255,
    "the longest in quotes": f'"{"x" * 255}"',
    "signs": "!#$%&'()*+,-./:;<=>?@[]^_`{|}~",
    "one sign": '"',
    "a backslash": "a\\b",
    "what would be read by others": "../../k';DROP+TABLE/**/jobs--%00%2f",
}
WRONG = {"empty": "", "empty in quotes": '""', "too long": "x" * 256, "a space": "a b", "other letters": "ключ"}


@pytest.mark.parametrize("key", GOOD.values(), ids=GOOD)
async def test_what_a_key_may_be(start: Start, key: str) -> None:
    proxy = await start()
    assert [(await ask(proxy, key=key)).status for _ in range(2)] == [200, 200]
    assert calls(proxy) == 1


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG)
async def test_what_a_key_may_not_be(start: Start, key: str) -> None:
    """The header is named, and nothing is sent."""
    proxy = await start()
    told = await ask(proxy, OPENAI, key)
    assert told.status == 400 and b'"param":"Idempotency-Key"' in told.body
    assert calls(proxy) == 0


async def test_two_keys_are_none(start: Start) -> None:
    proxy = await start()
    headers = [("Idempotency-Key", "k1"), ("Idempotency-Key", "k2")]
    async with proxy.http.post(proxy.url, json=chat(), headers=headers) as response:
        assert response.status == 400 and "Idempotency-Key must come once" in await response.text()


async def test_a_quoted_key_is_the_same_key(start: Start) -> None:
    """As the IETF's draft writes it, and as everybody else does."""
    proxy = await start()
    await ask(proxy, key="k1")
    await is_kept(proxy)
    assert (await ask(proxy, key='"k1"')).is_replayed


async def test_where_the_header_means_nothing(start: Start) -> None:
    """Requests that are no POST, tokens and uploads are served as ever, each time."""
    proxy = await start()
    told = {"Idempotency-Key": "a key that would be wrong"}
    for path in ("/", "/v1/models", "/api/v1/models", "/health"):
        async with proxy.http.get(proxy.url + path, headers=told) as response:
            assert response.status == 200
    async with proxy.http.post(proxy.url + "/api/v2/oauth", data={"scope": "x"}, headers=told) as response:
        assert response.status == 200
    form = aiohttp.FormData({"purpose": "general"})
    form.add_field("file", b"text", filename="a.txt", content_type="text/plain")
    for path in ("/v1/files", "/api/v1/files"):
        form = aiohttp.FormData({"purpose": "general"})
        form.add_field("file", b"text", filename="a.txt", content_type="text/plain")
        async with proxy.http.post(proxy.url + path, data=form, headers=told) as response:
            assert response.status == 200
    assert (await proxy.service.work.store.jobs.state()).jobs == 0


async def test_a_request_without_the_header_does_not_touch_the_store(start: Start, tmp_path: Path) -> None:
    proxy = await start()
    before = (tmp_path / "jobs.sqlite-wal").read_bytes()
    assert (await proxy.ask()).status == 200
    assert (tmp_path / "jobs.sqlite-wal").read_bytes() == before


# ---- Whose keys ----


async def test_keys_belong_to_the_callers_key(start: Start) -> None:
    """Two callers may have the same one, each for its own request; nobody is told another's answer."""
    proxy = await start(proxy_api_keys=KEYS)
    for text, key in (("of anna", "key-of-anna"), ("of boris", "key-of-boris")):
        told = await ask(proxy, Asking("/", chat(text)), X_API_Key=key)
        assert told.status == 200 and text.encode() in told.body
    assert (await ask(proxy)).status == 401
    assert calls(proxy) == 2


async def test_without_keys_they_belong_to_the_address(start: Start) -> None:
    proxy = await start(trusted_proxies="127.0.0.1")
    for address in ("10.0.0.1", "10.0.0.2"):
        told = await ask(proxy, Asking("/", chat(address)), X_Forwarded_For=address)
        assert told.status == 200 and address.encode() in told.body
    assert calls(proxy) == 2


async def test_each_address_has_its_own_turns(start: Start, gate: Gate) -> None:
    """A key does not put all callers into one flow: who has one request is not behind another's twenty."""
    proxy = await start(ext_max_requests=1, trusted_proxies="127.0.0.1")
    in_flight = await blocked(proxy, gate)
    many = [asking(proxy, Asking("/", chat("many")), f"k{number}", X_Forwarded_For="10.0.0.1") for number in range(20)]
    await until(lambda: waiting(proxy) == 20)
    few = asking(proxy, Asking("/", chat("few")), X_Forwarded_For="10.0.0.2")
    await until(lambda: waiting(proxy) == 21)
    gate.open()
    await asyncio.gather(in_flight, few, *many)
    assert "few" in (await proxy.sent_texts())[1:4]


@pytest.mark.parametrize("asked", [NATIVE, RAW], ids=["native", "raw"])
async def test_a_credential_of_the_callers_own_is_refused(start: Start, asked: Asking, tmp_path: Path) -> None:
    """No secret is kept on a disk."""
    proxy = await start(gpt2giga_pass_token=True)
    told = await ask(proxy, asked, Authorization="Bearer giga-cred-c2VjcmV0")
    assert told.status == 400 and b"cannot be kept" in told.body
    assert (await proxy.service.work.store.jobs.state()).jobs == 0
    assert calls(proxy) == 0


async def test_no_secret_is_kept(start: Start, tmp_path: Path) -> None:
    proxy = await start(proxy_api_keys=KEYS)
    headers = {"Authorization": "Bearer key-of-anna", "Cookie": "secret-1", "X_Auth_Token": "secret-2"}
    assert (await ask(proxy, **headers)).status == 200
    await is_kept(proxy)
    kept = b"".join([(tmp_path / f"jobs.sqlite{part}").read_bytes() for part in ("", "-wal")])
    assert b"native" in kept and not any(secret in kept for secret in (b"key-of-anna", b"secret-1", b"secret-2"))


# ---- What does not end well ----


@pytest.mark.parametrize("asked", [NATIVE, OPENAI, RAW], ids=["native", "openai", "raw"])
@pytest.mark.parametrize("status", [500, 503])
async def test_what_failed_and_may_pass_is_tried_again_by_a_repeat(start: Start, asked: Asking, status: int) -> None:
    """Whoever waits is told the failure at once, as without a key; whoever asks again makes another attempt."""
    proxy = await start(ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": status})
    failed = await ask(proxy, asked)
    assert failed.status in (status, 502) and not failed.is_replayed
    repeat = await ask(proxy, asked)
    assert repeat.status == 200 and not repeat.is_replayed
    assert (await ask(proxy, asked)).is_replayed
    assert calls(proxy) == 2


@pytest.mark.parametrize("asked", [NATIVE, OPENAI, RAW], ids=["native", "openai", "raw"])
@pytest.mark.parametrize("status", [404, 422])
async def test_what_the_api_refuses_is_told_again(start: Start, asked: Asking, status: int) -> None:
    """The same request would be refused again."""
    proxy = await start()
    proxy.giga.state.faults.add({"kind": "status", "status": status})
    refused = await ask(proxy, asked)
    await is_kept(proxy)
    repeat = await ask(proxy, asked)
    assert (repeat.status, repeat.body) == (refused.status, refused.body) == (status, refused.body)
    assert repeat.is_replayed
    assert calls(proxy) == 1


async def test_a_refusal_for_money_is_not_for_ever(start: Start) -> None:
    """402 says nothing of the request: when the account is filled again the same key is served."""
    proxy = await start()
    proxy.giga.state.faults.add({"kind": "status", "status": 402})
    assert (await ask(proxy)).status == 402
    await is_kept(proxy)
    assert (await ask(proxy)).status == 200


async def test_a_full_line_is_a_429_and_whoever_comes_back_is_admitted(start: Start, gate: Gate) -> None:
    """As without a key, with Retry-After and a place kept; the refused one is not sent meanwhile."""
    proxy = await start(ext_max_requests=1, ext_queue_size=1)
    in_flight = await blocked(proxy, gate)
    waits = asyncio.create_task(proxy.ask("second"))
    await until(lambda: waiting(proxy) == 1)
    refused = await ask(proxy, OPENAI)
    assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1
    gate.open()
    await asyncio.gather(in_flight, waits)
    await is_kept(proxy)
    assert calls(proxy) == 2
    assert (await ask(proxy, OPENAI)).status == 200


async def test_a_cancelled_request_tells_its_followers_and_begins_anew(start: Start, gate: Gate) -> None:
    """503 for those who wait for it, which nobody need retry by itself; a repeat is served."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    first = asking(proxy, OPENAI)
    await until(lambda: followers(proxy) == [1])
    await proxy.service.work.cancel((await the_job(proxy)).id, caller=None)
    told = await first
    assert told.status == 503 and b'"cancelled"' in told.body and told.headers["x-should-retry"] == "false"
    assert waiting(proxy) == 0
    again = asking(proxy, OPENAI)
    gate.open()
    await in_flight
    assert (await again).status == 200
    assert calls(proxy) == 2


async def test_who_follows_a_request_that_is_given_back_follows_it_on(start: Start, gate: Gate) -> None:
    """A process that stood still sends nothing under a claim that is over; what it gives back is begun again."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    first = asking(proxy)
    await until(lambda: waiting(proxy) == 1)
    (run,) = proxy.service.work.runner._runs.values()
    run.claimed_until = 0.0
    gate.open()
    assert (await first).status == 200
    await in_flight
    assert calls(proxy) == 2


async def test_what_never_ended_is_begun_anew(start: Start) -> None:
    """A request that was given up since it ended no attempt gets another chance from whoever asks again."""
    proxy = await start()
    jobs, job = proxy.service.work.store.jobs, await claimed_elsewhere(proxy)
    await jobs.fail(job.claim, "it was begun 5 times and never ended")
    told = await ask(proxy)
    assert told.status == 200 and calls(proxy) == 1


async def claimed_elsewhere(proxy: Proxy, asked: Asking = NATIVE) -> Job:
    """A request with the key that another process runs: nothing happens here."""
    jobs, runner = proxy.service.work.store.jobs, proxy.service.work.runner
    find_or_add, found = jobs.find_or_add, []

    async def without_a_word(job: Job, *, lease: float | None = None) -> Any:
        found.append((await find_or_add(job, lease=lease)).job)
        raise JobsUnavailable

    jobs.find_or_add = without_a_word  # type: ignore[method-assign]
    try:
        assert (await ask(proxy, asked)).status == 503
    finally:
        jobs.find_or_add = find_or_add  # type: ignore[method-assign]
    assert runner.run(found[0].id) is None
    return found[0]


async def test_what_runs_elsewhere_is_told_when_it_is_in_the_store(start: Start) -> None:
    """The follower hears of it by the store's news; streams whose client takes no 102 are kept alive meanwhile."""
    proxy = await start(stream_early_200=0.05, heartbeat_interval=0.05)
    job = await claimed_elsewhere(proxy, STREAMS["native"])
    async with opened(proxy, STREAMS["native"]) as response:
        assert await response.content.readuntil(b"\n\n") == b": under way\n\n"
        await proxy.service.work.store.jobs.ack(job.claim, Kept(200, "text/event-stream", b"data: [DONE]\n\n"))
        assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
    assert calls(proxy) == 0


@pytest.mark.parametrize("asked", [NATIVE, OPENAI, RAW], ids=["native", "openai", "raw"])
async def test_a_store_that_is_away_is_a_503_in_the_dialect(
    start: Start, monkeypatch: pytest.MonkeyPatch, asked: Asking
) -> None:
    """Nothing is sent that could not be known again."""
    proxy = await start()

    async def away(*_: Any, **__: Any) -> Any:
        raise JobsUnavailable

    monkeypatch.setattr(proxy.service.work.store.jobs, "find_or_add", away)
    told = await ask(proxy, asked)
    assert told.status == 503 and b"store of jobs cannot be used" in told.body
    assert calls(proxy) == 0


async def test_a_full_store_is_a_507(start: Start) -> None:
    """For who brings a new key; a known one is answered."""
    proxy = await start(jobs_max=1)
    assert (await ask(proxy, key="k1")).status == 200
    assert (await ask(proxy, key="k2")).status == 507
    await is_kept(proxy)
    assert (await ask(proxy, key="k1")).is_replayed


async def test_without_a_store_the_header_is_not_taken_for_granted(start_proxy: StartProxy) -> None:
    """501 with the remedy: whoever sends a key counts on it."""
    proxy = await start_proxy(jobs_url=SecretStr("off"))
    told = await ask(proxy, OPENAI)
    assert told.status == 501 and b"JOBS_URL" in told.body and b"without this header" in told.body
    assert calls(proxy) == 0


async def test_an_answer_is_told_again_for_a_settable_time(start: Start) -> None:
    """With IDEMPOTENCY_KEEP=0 it is not kept at all: the key joins what is under way, and nothing else."""
    proxy = await start(idempotency_keep=0)
    assert (await asyncio.gather(ask(proxy), ask(proxy)))[1].status == 200
    await is_kept(proxy)
    assert not (await ask(proxy)).is_replayed
    assert calls(proxy) == 2


# ---- Streams that break ----


async def rest_of(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """What comes, and whether the connection was cut then."""
    body = b""
    try:
        async for piece in response.content.iter_any():
            body += piece
    except aiohttp.ClientPayloadError:
        return body, True
    return body, False


async def broken(proxy: Proxy, asked: Asking) -> tuple[int, bytes, bool]:
    """Its status, what came, and whether the connection was cut."""
    async with opened(proxy, asked) as response:
        return response.status, *await rest_of(response)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_breaks_ends_so_for_all_and_is_never_told_again(
    start: Start, gate: Gate, name: str
) -> None:
    """By the dialect's error event, GigaChat's by a cut; a repeat afterwards makes another attempt."""
    proxy, asked = await start(Options(chunk_delay=0.05), ext_max_requests=1), STREAMS[name]
    in_flight = await blocked(proxy, gate)
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 3})
    following = [asyncio.create_task(broken(proxy, asked)) for _ in range(2)]
    await until(lambda: followers(proxy) == [2])
    gate.open()
    _, first, second = await asyncio.gather(in_flight, *following)
    assert first == second
    status, body, was_cut = first
    assert status == 200 and was_cut is (name == "raw") and b"[DONE]" not in body
    assert (b"error" in body) is (name != "raw")
    assert calls(proxy) == 2
    await is_kept(proxy)
    assert (await the_job(proxy)).state is State.FAILED
    whole = await ask(proxy, asked)
    assert whole.status == 200 and whole.body.endswith(b"data: [DONE]\n\n") and not whole.is_replayed
    assert calls(proxy) == 3


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_cancelled_in_the_middle_breaks_off(start: Start, name: str) -> None:
    proxy, asked = await start(Options(chunk_delay=0.1)), STREAMS[name]
    async with opened(proxy, asked) as response:
        await response.content.readuntil(b"\n\n")
        await proxy.service.work.cancel((await the_job(proxy)).id, caller=None)
        if name == "raw":
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.content.read()
        else:
            assert b"broke off" in await response.content.read()


async def test_a_broken_stream_found_in_the_store_is_no_answer(start: Start) -> None:
    """Who waited for it from elsewhere gets a real status in place of half an answer."""
    proxy = await start()
    job = await claimed_elsewhere(proxy, STREAMS["openai"])
    follower = asking(proxy, STREAMS["openai"])
    store = proxy.service.work.store.jobs
    await until(lambda: bool(store._hub._listening.get(job.id)))  # type: ignore[attr-defined]
    await store.fail(job.claim, "the upstream broke off", answer=Kept(200, "text/event-stream", b"data: {}\n\n"))
    told = await follower
    assert told.status == 502 and b"the upstream broke off" in told.body


# ---- Signs of life ----


async def test_followers_are_sent_102_while_they_wait(start: Start, gate: Gate) -> None:
    """The first one and the one that joins it, each on its own connection."""
    proxy = await start(ext_max_requests=1, heartbeat_interval=0.05)
    in_flight = await blocked(proxy, gate)
    heard: list[int] = []
    listening = [asyncio.create_task(listen(proxy, heard)) for _ in range(2)]
    await until(lambda: len(heard) > 5 and len(set(heard)) == 2)
    gate.open()
    await asyncio.gather(in_flight, *listening)
    assert calls(proxy) == 2


async def listen(proxy: Proxy, heard: list[int]) -> None:
    """Until the 200; each 102 before it is noted."""
    at = urlsplit(proxy.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    body = b'{"messages": [["user", "\\u041f"]]}'
    head = f"POST / HTTP/1.1\r\nHost: {at.netloc}\r\nX-Heartbeat: 102\r\nIdempotency-Key: k1\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    while (answer := await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 102"):
        heard.append(id(reader))
    assert answer.startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("name", STREAMS)
async def test_a_follower_gets_its_early_200_though_the_first_one_needs_none(
    start: Start, gate: Gate, name: str
) -> None:
    """It reads its place meanwhile; what is kept has no such comments."""
    proxy, asked = await start(ext_max_requests=1, stream_early_200=0.05, heartbeat_interval=0.05), STREAMS[name]
    in_flight = await blocked(proxy, gate)
    first = asking(proxy, asked, User_Agent="curl/8.0")
    await until(lambda: waiting(proxy) == 1)
    async with opened(proxy, asked) as response:
        assert response.status == 200
        assert (await response.content.readuntil(b"\n\n")).startswith(b": queued position=1 eta=")
        gate.open()
        text = await response.content.read()
    whole = await first
    await in_flight
    assert text.endswith(whole.body) and whole.body.startswith(b"data: ") and b"\n: " not in whole.body
    await is_kept(proxy)
    assert (await ask(proxy, asked)).body == whole.body


@pytest.mark.parametrize("name", STREAMS)
async def test_what_fails_after_an_early_200_is_told_as_the_dialect_can(start: Start, gate: Gate, name: str) -> None:
    """Those who have no status yet get the real one."""
    proxy = await start(ext_max_requests=1, ext_retries=0, stream_early_200=0.05, heartbeat_interval=0.05)
    in_flight, asked = await blocked(proxy, gate), STREAMS[name]
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    first = asking(proxy, asked, X_Heartbeat="102")
    await until(lambda: waiting(proxy) == 1)
    async with opened(proxy, asked) as response:
        assert response.status == 200 and (await response.content.readuntil(b"\n\n")).startswith(b": queued")
        gate.open()
        body, was_cut = await rest_of(response)
    assert was_cut is (name == "raw")
    assert (b"error" in body) is (name != "raw")
    assert (await first).status in (500, 502)
    await in_flight


async def test_a_deadline_after_an_early_200_says_that_the_request_goes_on(start: Start, gate: Gate) -> None:
    proxy = await start(ext_max_requests=1, stream_early_200=0.05, heartbeat_interval=0.05)
    in_flight = await blocked(proxy, gate)
    told = await ask(proxy, STREAMS["openai"], X_Request_Timeout="0.3")
    assert told.status == 200 and b"same Idempotency-Key" in told.body
    gate.open()
    await in_flight
    assert (await ask(proxy, STREAMS["openai"])).body.endswith(b"data: [DONE]\n\n")
    assert calls(proxy) == 2


# ---- Beside jobs ----


ASYNC = {"Prefer": "respond-async"}
THE_JOB = Asking("/jobs", {"path": "/v1/chat/completions", "body": spoken("a job")})


@pytest.mark.parametrize(
    ("asked", "headers"), [(THE_JOB, {}), (OPENAI, ASYNC)], ids=["POST /jobs", "Prefer: respond-async"]
)
async def test_a_job_is_accepted_once(start: Start, asked: Asking, headers: dict[str, str]) -> None:
    """Whoever lost the 202 asks again and gets the same job; another one with the key is a 409."""
    proxy = await start()
    accepted = await asyncio.gather(*[ask(proxy, asked, **headers) for _ in range(20)])
    assert {told.status for told in accepted} == {202}
    assert len({told.headers["Location"] for told in accepted}) == 1
    assert [told.is_replayed for told in accepted].count(False) == 1
    await until(lambda: calls(proxy) == 1)
    await is_kept(proxy)
    again = await ask(proxy, asked, **headers)
    assert again.is_replayed and b'"state":"done"' in again.body
    other = Asking("/jobs", {"path": "/", "body": chat("other")})
    assert (await ask(proxy, other)).status == 409
    assert calls(proxy) == 1


async def test_a_job_that_failed_is_begun_anew_under_its_id(start: Start) -> None:
    proxy = await start(jobs_attempts=1, ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    first = await ask(proxy, THE_JOB)
    await until(lambda: calls(proxy) == 1)
    await is_kept(proxy)
    assert (await the_job(proxy)).state is State.FAILED
    again = await ask(proxy, THE_JOB)
    assert again.headers["Location"] == first.headers["Location"]
    await until(lambda: calls(proxy) == 2)
    await is_kept(proxy)
    assert (await the_job(proxy)).state is State.DONE


async def test_whoever_asked_for_a_job_may_wait_for_it_after_all(start: Start, gate: Gate) -> None:
    """The same request with and without Prefer: respond-async is one, where callers are known by their keys."""
    proxy = await start(proxy_api_keys=KEYS, ext_max_requests=1)
    key = {"X_API_Key": "key-of-anna"}
    gate.holds(proxy.giga)
    in_flight = asking(proxy, RAW, "other", **key)
    await until(lambda: calls(proxy) == 1)
    accepted = await ask(proxy, OPENAI, **ASYNC, **key)
    waits = asking(proxy, OPENAI, **key)
    gate.open()
    assert (accepted.status, (await waits).status) == (202, 200)
    assert (await ask(proxy, OPENAI, **ASYNC, **key)).headers["Location"] == accepted.headers["Location"]
    await in_flight
    assert calls(proxy) == 2


async def test_without_keys_jobs_are_everybodys_and_their_keys_are_not(start: Start) -> None:
    proxy = await start(trusted_proxies="127.0.0.1")
    told = [await ask(proxy, THE_JOB, X_Forwarded_For=address) for address in ("10.0.0.1", "10.0.0.2")]
    assert len({one.headers["Location"] for one in told}) == 2


async def test_those_who_wait_with_a_key_do_not_keep_jobs_out_of_the_line(start: Start, gate: Gate) -> None:
    """They are not among the tens that are taken from the store."""
    proxy = await start(ext_max_requests=1)
    in_flight = await blocked(proxy, gate)
    live = [asking(proxy, NATIVE, f"k{number}") for number in range(15)]
    await until(lambda: waiting(proxy) == 15)
    body = b'{"messages": [["user", "job"]]}'
    await proxy.service.work.store.jobs.add(Job(caller="*", operation="request", dialect="native", path="/", body=body))
    await until(lambda: waiting(proxy) == 16)
    gate.open()
    await asyncio.gather(in_flight, *live)


async def test_a_job_put_off_is_brought_forward_by_who_comes_for_it(start: Start, gate: Gate) -> None:
    """Nobody waited when it failed, so it waits for another attempt; whoever asks again does not wait that long."""
    proxy = await start(ext_max_requests=1, ext_retries=0)
    in_flight = await blocked(proxy, gate)
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    first = asking(proxy)
    await until(lambda: waiting(proxy) == 1)
    await leave(first)
    gate.open()
    await in_flight
    await is_kept(proxy)
    assert (await proxy.service.work.store.jobs.state()).delayed == 1
    assert (await ask(proxy)).status == 200


# ---- As the document says ----


async def test_the_example_of_the_document_is_answered_so(tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(ROOT / "docs/jobs.md") if block.section == "Idempotency-Key"]
    (commands,), (example,) = ([block.text for block in blocks if block.language == name] for name in ("sh", "http"))
    settings = load(["--port=0", "--drain-timeout=0"], env={"SANDBOX": "auto"}, cwd=tmp_path, assets=tmp_path)
    async with app.serving(settings, assets=tmp_path) as service, aiohttp.ClientSession() as http:
        *_, answer = [await Curl.read(words).perform(http, service.url) for words in commands_of(commands)]
    (status, shown, body), (its_status, told, its_body) = parted(example), parted(answer)
    assert status == its_status and set(map(shape, shown)) <= set(map(shape, told))
    assert shape(body) == shape(its_body)


# ---- OpenAI's SDK ----


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., AsyncOpenAI]]:
    async with AsyncExitStack() as stack:

        def make(proxy: Proxy, **more: Any) -> AsyncOpenAI:
            made = AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="any", **more)
            stack.push_async_callback(made.close)
            return made

        yield make


ASKED: Any = [{"role": "user", "content": WORDS}]
KEY = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324"}


async def test_the_sdks_own_retries_join_the_first_attempt(
    start: Start, gate: Gate, client: Callable[..., AsyncOpenAI]
) -> None:
    """Its time-out is shorter than the wait: each attempt leaves, the next one joins, there is one call."""
    proxy, attempts = await start(ext_max_requests=1, heartbeat_102="off"), []

    async def count(request: Any) -> None:
        attempts.append(request)

    in_flight = await blocked(proxy, gate)
    http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [count]})
    sdk = client(proxy, timeout=0.25, max_retries=30, http_client=http)
    create = sdk.chat.completions.create(model="GigaChat-2", messages=ASKED, extra_headers=KEY)
    answer = asyncio.create_task(create)
    await until(lambda: len(attempts) == 3)
    assert waiting(proxy) == 1
    gate.open()
    assert (await answer).choices[0].message.content
    await in_flight
    assert calls(proxy) == 2


async def test_the_sdk_reads_what_is_told_again(start: Start, client: Callable[..., AsyncOpenAI]) -> None:
    """Plain, streamed and embeddings; its errors are its own."""
    proxy, texts = await start(), []
    sdk = client(proxy, max_retries=0)
    for _ in range(2):
        raw = await sdk.chat.completions.with_raw_response.create(
            model="GigaChat-2", messages=ASKED, extra_headers={"Idempotency-Key": "plain"}
        )
        stream = await sdk.chat.completions.create(
            model="GigaChat-2", messages=ASKED, stream=True, extra_headers={"Idempotency-Key": "stream"}
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        embedded = await sdk.embeddings.create(
            model="Embeddings", input=["a"], extra_headers={"Idempotency-Key": "embeddings"}
        )
        texts.append((raw.parse().choices[0].message.content, text, embedded.data[0].embedding[:3]))
        await is_kept(proxy)
    assert texts[0] == texts[1] and raw.headers["Idempotency-Replayed"] == "true"
    assert (calls(proxy), calls(proxy, "/embeddings")) == (2, 1)
    with pytest.raises(openai.ConflictError, match="another request"):
        await sdk.chat.completions.create(model="other", messages=ASKED, extra_headers={"Idempotency-Key": "plain"})
