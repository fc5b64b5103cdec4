"""POST /jobs and what follows, over real sockets: taken when it is kept, run like any request, told to its owner."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import openai_upstream
import pytest
from aiohttp import web
from jobs_talk import KEYS, Caller, spoken
from pydantic import SecretBytes, SecretStr
from running import StartProxy, busy, chat, until, waiting
from strangers import a_server

from proxy.errors import JobsFull, JobsUnavailable
from proxy.jobs import EVERYBODY, Answer, Job


def keyed(**fields: Any) -> dict[str, Any]:
    return {"proxy_api_keys": {name: SecretStr(key) for name, key in KEYS.items()}, **fields}


#: A chat of the API's second version.
V2 = {"model": "GigaChat-2", "messages": [{"role": "user", "content": [{"text": "Привет"}]}]}


# -- the story


async def test_a_job_is_taken_run_and_told(start_proxy: StartProxy, place: str):
    """From 202 to its answer, its deletion included, whatever keeps it."""
    caller = Caller(await start_proxy(jobs_url=SecretStr(place), **keyed()), KEYS["ann"])

    taken = await caller.bring(chat("Сколько будет 2 + 3?"))
    assert taken.status == 202
    assert taken.headers["Location"] == f"/jobs/{taken.id}"
    assert taken.id.startswith("job_")
    assert taken.body["object"] == "job"
    assert taken.body["state"] in ("queued", "running")

    job = await caller.over(taken.id)
    assert (job["state"], job["attempts"], job["error"]) == ("done", 1, None)
    assert job["created"] <= job["started"] <= job["finished"] < job["expires_at"]
    assert job["answer"]["status"] == 200
    assert job["answer"]["body"]["data"]["choices"][0]["message"]["content"] == "2 + 3 = 5"
    assert await caller.job(taken.id) == job

    answer = await caller.ask("GET", f"/jobs/{taken.id}/answer")
    assert (answer.status, answer.body) == (200, job["answer"]["body"])
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"

    assert (await caller.ask("DELETE", f"/jobs/{taken.id}")).status == 204
    gone = await caller.ask("GET", f"/jobs/{taken.id}")
    assert (gone.status, gone.body["data"]) == (404, {})
    assert f'there is no job "{taken.id}"' in gone.words


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/", chat(), '"app":"gigachat-proxy"'),
        ("/gigachat", spoken(), '"messages"'),
        ("/v1/chat/completions", spoken(), '"object":"chat.completion"'),
        ("/chat/completions/", spoken(), '"object":"chat.completion"'),
        ("/v1/embeddings", {"model": "Embeddings", "input": ["a", "b"]}, '"embedding"'),
        ("/api/v1/chat/completions", spoken(), '"choices"'),
        ("/api/v1/embeddings", {"model": "Embeddings", "input": ["a"]}, '"embedding"'),
        ("/api/v1/tokens/count", {"model": "GigaChat-2", "input": ["a b"]}, '"tokens"'),
        ("/api/v2/chat/completions?x=1", V2, '"messages"'),
    ],
)
async def test_every_dialect_has_its_jobs(caller: Caller, path: str, body: Any, told: str):
    """The answer is the one that the path itself gives."""
    job = await caller.over(await caller.accepted(body, path))
    at_once = await caller.ask("POST", path, body)
    assert job["answer"]["status"] == at_once.status
    assert job["answer"]["content_type"] == at_once.headers["Content-Type"]
    assert told in (await caller.ask("GET", f"/jobs/{job['id']}/answer")).raw.decode().replace(" ", "")


async def test_what_the_api_refuses_is_the_answer_of_a_failed_job(caller: Caller):
    """With its status and its words, in the dialect of the path."""
    job = await caller.over(await caller.accepted(spoken(model="no-such-model"), "/api/v1/chat/completions"))
    assert (job["state"], job["answer"]["status"]) == ("failed", 404)
    assert job["answer"]["body"]["status"] == 404
    assert "404" in job["error"]
    answer = await caller.ask("GET", f"/jobs/{job['id']}/answer")
    assert (answer.status, answer.body) == (404, job["answer"]["body"])


async def test_a_stream_is_kept_as_text_whole(caller: Caller):
    """Every event of it, as a client would have read them."""
    body = spoken("слово, слово, слово", stream=True)
    for path in ("/v1/chat/completions", "/api/v1/chat/completions"):
        job = await caller.over(await caller.accepted(body, path))
        assert job["answer"]["content_type"].startswith("text/event-stream")
        text = job["answer"]["body"]
        assert text.startswith("data: {") and text.endswith("data: [DONE]\n\n")
        assert (await caller.ask("GET", f"/jobs/{job['id']}/answer")).raw.decode() == text


async def test_a_stream_that_waits_long_has_nothing_but_its_answer(start_proxy: StartProxy, tmp_path: Path):
    """No early 200 and no comments: nobody is there to be kept alive."""
    proxy = await start_proxy(
        jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
        ext_max_requests=1,
        stream_early_200=0,
        heartbeat_interval=0.01,
    )
    caller = Caller(proxy)
    first = await busy(proxy, 0.5)
    job = await caller.over(await caller.accepted(chat("a, b", stream=True)))
    assert (await first).status == 200
    assert ": queued" not in job["answer"]["body"]


async def test_what_is_no_text_is_kept_byte_for_byte(caller: Caller):
    """In JSON as base64; by itself as it is."""
    picture = b"\xff\xd8\xff\x00picture"
    job = Job(caller=EVERYBODY, operation="request", dialect="gigachat", path="/api/v1/x", key="k")
    store = caller.proxy.service.work.store.jobs
    found = (await store.find_or_add(job, lease=60)).job
    await store.ack(found.claim, Answer(200, "image/jpeg", picture))
    told = (await caller.job(found.id))["answer"]
    assert (base64.b64decode(told["body"]), told["encoding"]) == (picture, "base64")
    answer = await caller.ask("GET", f"/jobs/{found.id}/answer")
    assert (answer.raw, answer.headers["Content-Type"]) == (picture, "image/jpeg")


async def test_a_job_is_no_nearer_to_the_api_than_a_request(caller: Caller):
    """It counts, and is sent with the ids that it brought."""
    ids = {"X-Request-ID": "mine-1", "X-Session-ID": "session-2", "X-Client-ID": "client-3"}
    await caller.over(await caller.accepted(headers=ids))
    (call,) = await caller.proxy.calls()
    assert {name: call["headers"].get(name.lower()) or call["headers"].get(name) for name in ids} == ids


# -- what is refused


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "a job is a JSON object"),
        ({}, '"body" is missing'),
        ({"body": None}, '"body" is missing'),
        ({"body": {}, "bodies": 1}, 'unknown field "bodies"'),
        ({"body": chat(), "path": 1}, '"path" must be a path'),
        ({"body": chat(), "path": "v1/embeddings"}, '"path" must be a path'),
        ({"body": chat(), "path": "//evil.example/v1"}, '"path" must be a path'),
        ({"body": chat(), "path": "http://evil.example/"}, '"path" must be a path'),
        ({"body": chat(), "path": "/v1/chat\r\nX: y"}, '"path" must be a path'),
        ({"body": chat(), "path": "/" + "a" * 2000}, '"path" must be a path'),
        ({"body": chat(), "path": "/nowhere"}, '"/nowhere" cannot be a job'),
        ({"body": chat(), "path": "/jobs"}, '"/jobs" cannot be a job'),
        ({"body": chat(), "path": "/v1/models"}, '"/v1/models" cannot be a job'),
        ({"body": chat(), "path": "/v1/files"}, '"/v1/files" cannot be a job'),
        ({"body": chat(), "path": "/v1/batches"}, '"/v1/batches" cannot be a job'),
        ({"body": chat(), "path": "/api/v2/oauth"}, '"/api/v2/oauth" cannot be a job'),
        ({"body": chat(), "path": "/api/v1/%2e%2e/x"}, "the path must be plain"),
        ({"body": chat(), "method": "GET"}, '"method" must be "POST"'),
        ({"body": chat(), "headers": []}, '"headers" must be an object'),
        ({"body": chat(), "headers": {"Authorization": "Bearer x"}}, '"headers.Authorization" cannot be kept'),
        ({"body": chat(), "headers": {"Cookie": "x"}}, '"headers.Cookie" cannot be kept'),
        ({"body": chat(), "headers": {"X-Client-ID": "a\r\nX-API-Key: b"}}, '"headers.X-Client-ID" must be a string'),
        ({"body": chat(), "headers": {"X-Client-ID": 1}}, '"headers.X-Client-ID" must be a string'),
        ({"body": chat(), "priority": "urgent"}, '"priority" must be high, normal, low, batch'),
        ({"body": chat(), "priority": 1}, '"priority" must be high, normal, low, batch'),
        ({"body": chat(), "deadline": 0}, '"deadline" must be a number of seconds above 0'),
        ({"body": chat(), "deadline": "1"}, '"deadline" must be a number of seconds above 0'),
        ({"body": chat(), "deadline": True}, '"deadline" must be a number of seconds above 0'),
        ({"body": chat(), "deadline": 1e300}, '"deadline" must be a number of seconds above 0, 31622400 at most'),
        ({"body": chat(), "keep": -1}, '"keep" must be a number of seconds above 0'),
        ({"body": chat(), "keep": 100_000}, '"keep" is at most 86400 seconds here (JOBS_KEEP)'),
        ({"body": chat(), "webhook": "http://example.org/"}, "WEBHOOK_SECRET"),
        ({"body": {"messages": 1}}, '"messages" must be a list'),
        ({"body": {"messages": [["user", "x"]], "nonsense": 1}}, 'unknown field "nonsense"'),
        ({"body": chat(temperature="hot")}, "temperature"),
        ({"body": {"model": "x"}, "path": "/v1/chat/completions"}, "messages"),
        ({"body": {"input": []}, "path": "/v1/embeddings"}, "input"),
        (
            {"body": spoken(), "path": "/chatgpt"},
            'called "chatgpt" is configured here: the service needs URL_GPT, API_KEY',
        ),
    ],
    ids=str,
)
async def test_what_is_wrong_with_a_job_is_told_at_once(caller: Caller, body: Any, words: str):
    """In the words of the operation that it is for, and of it nothing is kept."""
    told = await caller.ask("POST", "/jobs", body)
    assert 400 <= told.status < 500, told.raw
    assert words in told.words
    assert told.body["data"] == {}
    assert (await caller.ask("GET", "/jobs")).body["data"] == []
    assert await caller.proxy.calls("") == []


async def test_who_names_a_wrong_path_reads_the_right_ones(caller: Caller):
    """Every dialect's, as docs/jobs.md has them."""
    told = await caller.bring(path="/nowhere")
    chats = ("/", "/gigachat/", "/chatgpt/", "/v1/chat/completions")
    assert [path for path in (*chats, "/v1/embeddings", "/api/v1/...") if f'"{path}"' not in told.words] == []


async def test_a_body_that_is_nested_too_deeply_is_told(caller: Caller):
    """As JSON it can be read, but not be written."""
    told = await caller.ask("POST", "/jobs", b'{"body": ' + b"[" * 600 + b"]" * 600 + b"}")
    assert (told.status, told.words) == (400, '"body" is nested too deeply')


async def test_no_address_that_a_job_names_is_called_before_it_is_taken(caller: Caller):
    """What it brings along is fetched when it runs; if that fails, so does the job."""
    picture = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/cat.png"}}
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": [picture]}]}
    job = await caller.over(await caller.accepted(body, "/v1/chat/completions"))
    assert (job["state"], job["answer"]["status"]) == ("failed", 400)
    assert "no public address" in job["error"]


async def test_a_body_that_is_too_large_is_refused(start_proxy: StartProxy, tmp_path: Path):
    """By MAX_BODY_BYTES, as everywhere."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), max_body_bytes=10_000)
    told = await Caller(proxy).bring(chat("x" * 10_000))
    assert told.status == 413


async def test_a_body_that_is_no_json_is_refused(caller: Caller):
    told = await caller.ask("POST", "/jobs", b"{")
    assert (told.status, "not valid JSON" in told.words) == (400, True)


async def test_numbers_and_texts_reach_the_api_as_they_were_written(caller: Caller):
    """Large ones, and any letter."""
    body = spoken("\u0000 ☃ 𝄞 \u202e", top_p=0.1)
    await caller.over(await caller.accepted(body, "/api/v1/chat/completions"))
    (call,) = await caller.proxy.calls()
    assert call["body"] == body


async def test_where_no_jobs_are_kept_it_says_so(start_proxy: StartProxy):
    """All of /jobs is 501, with the remedy."""
    caller = Caller(await start_proxy(jobs_url=SecretStr("off")))
    for method, path in [
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/jobs/x"),
        ("DELETE", "/jobs/x"),
        ("GET", "/jobs/x/answer"),
        ("GET", "/jobs/x/events"),
        ("POST", "/jobs/x/retry"),
    ]:
        told = await caller.ask(method, path, {"body": chat()} if path == "/jobs" and method == "POST" else None)
        assert (told.status, "JOBS_URL" in told.words) == (501, True)


@pytest.mark.parametrize(("trouble", "status"), [(JobsFull, 507), (JobsUnavailable, 503)])
async def test_a_store_that_cannot_keep_it_refuses_it(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, trouble: type[JobsFull], status: int
):
    """With the reason, and nothing is accepted."""

    async def refuse(*jobs: Job) -> None:
        raise trouble

    monkeypatch.setattr(caller.proxy.service.work.store.jobs, "add", refuse)
    told = await caller.bring()
    assert (told.status, told.words) == (status, trouble.__doc__)


async def test_the_store_is_bounded(start_proxy: StartProxy, tmp_path: Path):
    """JOBS_MAX; what ended and is deleted makes room."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), jobs_max=2)
    caller = Caller(proxy)
    first, _ = [await caller.accepted(), await caller.accepted()]
    told = await caller.bring()
    assert (told.status, "2 at most" in told.words) == (507, True)
    await caller.over(first)
    await caller.ask("DELETE", f"/jobs/{first}")
    await caller.accepted()


async def test_202_is_not_said_before_the_store_has_it(caller: Caller, monkeypatch: pytest.MonkeyPatch):
    """Whoever reads it may pull the plug."""
    jobs, stored, kept = caller.proxy.service.work.store.jobs, asyncio.Event(), asyncio.Event()
    add = jobs.add

    async def slowly(*which: Job) -> None:
        await add(*which)
        stored.set()
        await kept.wait()

    monkeypatch.setattr(jobs, "add", slowly)
    bringing = asyncio.create_task(caller.bring())
    await stored.wait()
    assert len((await caller.ask("GET", "/jobs")).body["data"]) == 1
    assert not bringing.done()
    kept.set()
    assert (await bringing).status == 202


async def test_a_caller_that_leaves_leaves_its_job(caller: Caller):
    """What is in the store is run."""
    id = await caller.accepted()
    await caller.proxy.http.close()
    jobs = caller.proxy.service.work.store.jobs
    async with asyncio.timeout(20):
        with jobs.news(id) as news:
            while not (job := await jobs.get(id, caller="*")).state.is_end:  # type: ignore[union-attr]
                await news.next(1)
    assert job is not None and job.answer is not None and job.answer.status == 200


# -- where it waits


async def test_a_job_that_waits_tells_its_place_and_its_eta(start_proxy: StartProxy, tmp_path: Path):
    """Counted over the line and the store: whoever is before it in either."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, ext_api_rpm=600)
    caller = Caller(proxy)
    first = await busy(proxy, 20)
    ids = [await caller.accepted() for _ in range(15)]
    await until(lambda: waiting(proxy) == 10)
    last = await caller.bring()
    assert last.body["position"] == 16
    assert last.body["eta"] >= 1.5  # at a tenth of a second each
    assert last.body["state"] == "queued"
    third = await caller.job(ids[2])
    assert (third["state"], third["position"]) == ("running", 3)
    told = await caller.ask("GET", f"/jobs/{last.id}/answer")
    assert told.status == 202
    assert 1 <= int(told.headers["Retry-After"]) <= 60
    assert told.id == last.id
    first.cancel()


async def test_a_job_of_another_lane_waits_in_that_one(start_proxy: StartProxy, tmp_path: Path):
    """Before it has come there, too: it is not behind those who wait for GigaChat, and its eta is by its own pace."""
    async with openai_upstream.running() as other:
        gpt = {"url_gpt": other.base, "api_key": SecretStr(openai_upstream.KEY), "chatgpt_ext_max_requests": 1}
        proxy = await start_proxy(
            jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, ext_api_rpm=1, **gpt
        )
        caller, first = Caller(proxy), await busy(proxy, 20)
        crowd = [asyncio.create_task(proxy.ask("live")) for _ in range(3)]
        await until(lambda: waiting(proxy) == 3)
        proxy.service.work.runner._rest(3600)
        native, named = spoken(), spoken(model="chatgpt/gpt-6-luna")
        ids = [await caller.accepted(native, "/chatgpt/"), await caller.accepted(named, "/v1/chat/completions")]
        places = [(job["position"], job["eta"]) for job in [await caller.job(id) for id in ids]]
        assert places == [(1, 0.0), (2, 0.0)]
        theirs = await caller.job(await caller.accepted())
        assert theirs["position"] == 6 and theirs["eta"] > 60
        for asking in (first, *crowd):
            asking.cancel()


async def test_a_job_in_flight_has_no_place(caller: Caller):
    caller.proxy.giga.state.faults.add({"kind": "slow", "seconds": 20})
    id = await caller.accepted()
    await until(lambda: caller.proxy.service.line.state().limits.in_flight == 1)
    job = await caller.job(id)
    assert (job["state"], job["position"], job["eta"], job["answer"]) == ("running", None, None, None)


async def test_a_line_of_a_thousand_puts_ten_into_the_line(start_proxy: StartProxy, tmp_path: Path):
    """A backlog never fills EXT_QUEUE_SIZE, and live requests find the line short."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, ext_queue_size=20)
    caller = Caller(proxy)
    first = await busy(proxy, 20)
    await asyncio.gather(*[caller.accepted() for _ in range(1000)])
    await until(lambda: waiting(proxy) == 10)
    live = asyncio.create_task(proxy.ask("live"))
    await until(lambda: waiting(proxy) == 11)
    state = await proxy.service.work.store.jobs.state()
    assert (state.live, state.running) == (990, 10)
    first.cancel()
    assert (await live).status == 200
    await until(lambda: proxy.giga.state.calls.count > 30)
    assert waiting(proxy) <= 10


# -- priorities, deadlines


async def test_the_higher_priority_goes_first(start_proxy: StartProxy, tmp_path: Path):
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, **keyed())
    caller = Caller(proxy, KEYS["ann"])
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.5})
    await caller.accepted()
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    ids = [await caller.accepted(chat(word), priority=word) for word in ("batch", "low", "normal", "high")]
    for id in ids:
        await caller.over(id)
    assert [(await caller.job(id))["priority"] for id in ids] == ["batch", "low", "normal", "high"]
    texts = await proxy.sent_texts()
    assert texts[1] == "high" and texts[-1] == "batch"


async def test_high_needs_a_key(caller: Caller):
    """Without keys everybody would be high."""
    assert (await caller.bring(priority="high")).body["priority"] == "normal"


async def test_a_job_that_has_not_begun_at_its_deadline_expires(start_proxy: StartProxy, tmp_path: Path):
    """And has no answer."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1)
    caller = Caller(proxy)
    first = await busy(proxy, 20)
    for _ in range(10):
        await caller.accepted()
    await until(lambda: waiting(proxy) == 10)
    late = await caller.bring(deadline=0.05)
    assert late.body["deadline"] == pytest.approx(late.body["created"] + 0.05, abs=0.02)
    await asyncio.sleep(0.06)
    await proxy.service.work.store.purge()
    job = await caller.over(late.id)
    assert (job["state"], job["answer"]) == ("expired", None)
    answer = await caller.ask("GET", f"/jobs/{late.id}/answer")
    assert (answer.status, answer.words) == (410, "the job is expired, and there is no answer")
    first.cancel()


# -- ending, and beginning again


async def test_a_job_that_is_queued_is_cancelled(start_proxy: StartProxy, tmp_path: Path):
    """It is never sent."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1)
    caller = Caller(proxy)
    first = await busy(proxy, 0.5)
    ids = [await caller.accepted(chat(f"number {number}")) for number in range(12)]
    await until(lambda: waiting(proxy) == 10)
    for id in (ids[5], ids[11]):  # in the line, and before it
        told = await caller.ask("DELETE", f"/jobs/{id}")
        assert (told.status, told.body["state"], told.body["position"]) == (200, "cancelled", None)
    for id in ids:
        await caller.over(id)
    assert not {"number 5", "number 11"} & set(await proxy.sent_texts())
    answer = await caller.ask("GET", f"/jobs/{ids[5]}/answer")
    assert (answer.status, answer.words) == (410, "the job is cancelled, and there is no answer")
    assert (await first).status == 200


async def test_a_job_in_flight_is_cancelled_and_its_slot_free(caller: Caller):
    """Its call is broken off at once."""
    proxy = caller.proxy
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 20})
    id = await caller.accepted()
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    told = await caller.ask("DELETE", f"/jobs/{id}")
    assert (told.status, told.body["state"]) == (200, "cancelled")
    await until(lambda: proxy.service.line.state().limits.in_flight == 0)
    assert (await caller.job(id))["state"] == "cancelled"


async def test_what_failed_or_was_cancelled_is_run_again_when_asked(caller: Caller):
    """With all its attempts; what it said before is forgotten."""
    proxy = caller.proxy
    proxy.giga.state.faults.add({"kind": "status", "status": 422})
    id = await caller.accepted()
    assert (await caller.over(id))["state"] == "failed"
    again = await caller.ask("POST", f"/jobs/{id}/retry")
    assert (again.status, again.headers["Location"]) == (202, f"/jobs/{id}")
    assert (again.body["error"], again.body["answer"]) == (None, None)
    assert (await caller.over(id))["state"] == "done"


async def test_what_has_not_ended_or_ended_well_is_not_run_again(caller: Caller):
    """409, with its state."""
    done = await caller.accepted()
    await caller.over(done)
    caller.proxy.giga.state.faults.add({"kind": "slow", "seconds": 20})
    running = await caller.accepted()
    await caller.until(running, "running")
    for id, state in ((done, "done"), (running, "running")):
        told = await caller.ask("POST", f"/jobs/{id}/retry")
        assert (told.status, f"the job is {state}" in told.words) == (409, True)


async def test_a_bad_gateway_is_tried_again_by_itself(
    start_proxy: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Beyond the retries of a request, with pauses between; the story tells of the last failure meanwhile."""
    monkeypatch.setattr("proxy.jobs.runner.FIRST_BACKOFF", 0.05)
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_retries=0)
    caller = Caller(proxy)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "times": 2})
    job = await caller.over(await caller.accepted())
    assert (job["state"], job["attempts"]) == ("done", 3)


async def test_until_it_is_tried_again_its_eta_is_no_sooner(start_proxy: StartProxy, tmp_path: Path):
    """Whoever asks for the answer need not ask before that."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_retries=0)
    caller = Caller(proxy)
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    id = await caller.accepted()
    async with asyncio.timeout(20):
        async for _, job in caller.events(id):
            if job["state"] == "queued" and job["attempts"]:
                break
    assert 3 < job["eta"] <= 10
    assert 3 < int((await caller.ask("GET", f"/jobs/{id}/answer")).headers["Retry-After"]) <= 10


# -- webhooks


async def test_whoever_named_a_webhook_hears_of_the_end(start_proxy: StartProxy, tmp_path: Path):
    """Done, or cancelled while it waited; the answer is fetched as ever."""
    heard: list[tuple[str, str]] = []

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        event = await request.json()
        heard.append((event["type"], event["data"]["id"]))
        return web.Response()

    async with a_server() as receiver:
        receiver.says = says
        proxy = await start_proxy(
            jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
            webhook_secret=(SecretBytes(b"x" * 24),),
            webhook_allow=("127.0.0.1",),
            ext_max_requests=1,
        )
        caller, hook = Caller(proxy), receiver.url("127.0.0.1")
        refused = await caller.bring(webhook="http://10.0.0.1/")
        assert (refused.status, '"webhook" leads to a host' in refused.words) == (400, True)
        done = await caller.accepted(webhook=hook)
        await until(lambda: heard == [("job.done", done)])
        first = await busy(proxy, 20)
        cancelled = await caller.accepted(webhook=hook)
        await caller.ask("DELETE", f"/jobs/{cancelled}")
        await until(lambda: heard[1:] == [("job.cancelled", cancelled)])
        first.cancel()


# -- lists


async def test_lists_come_in_pages_the_newest_first(caller: Caller):
    """Without bodies and answers; `after` leads to the next page."""
    ids = [await caller.accepted() for _ in range(5)]
    for id in ids:
        await caller.over(id)
    first = (await caller.ask("GET", "/jobs?limit=2")).body
    assert [job["id"] for job in first["data"]] == [ids[4], ids[3]]
    assert (first["object"], first["has_more"], first["after"]) == ("list", True, ids[3])
    assert "answer" not in first["data"][0]
    second = (await caller.ask("GET", f"/jobs?limit=2&after={first['after']}")).body
    assert [job["id"] for job in second["data"]] == [ids[2], ids[1]]
    last = (await caller.ask("GET", f"/jobs?limit=2&after={second['after']}")).body
    assert ([job["id"] for job in last["data"]], last["has_more"], last["after"]) == ([ids[0]], False, None)
    oldest = (await caller.ask("GET", "/jobs/?order=asc&limit=1")).body
    assert [job["id"] for job in oldest["data"]] == [ids[0]]


async def test_lists_are_chosen_by_state(caller: Caller):
    """One, or several."""
    done = await caller.accepted()
    await caller.over(done)
    caller.proxy.giga.state.faults.add({"kind": "status", "status": 422})
    failed = await caller.accepted()
    await caller.over(failed)
    for states, ids in (("done", [done]), ("failed", [failed]), ("done,failed", [failed, done]), ("queued", [])):
        listed = (await caller.ask("GET", f"/jobs?state={states}")).body["data"]
        assert [job["id"] for job in listed] == ids


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=finished", '"state" must be among queued, running, done, failed, cancelled, expired'),
        ("limit=0", '"limit" must be a whole number from 1 to 1000'),
        ("limit=1001", '"limit" must be a whole number'),
        ("limit=ten", '"limit" must be a whole number'),
        ("limit=-1", '"limit" must be a whole number'),
        ("limit=%D9%A1", '"limit" must be a whole number'),
        ("order=up", '"order" must be desc'),
        ("after=job_nobody", "begin the list anew"),
    ],
)
async def test_a_wrong_parameter_of_a_list_is_named(caller: Caller, query: str, words: str):
    told = await caller.ask("GET", f"/jobs?{query}")
    assert (told.status, words in told.words) == (400, True), told.raw


# -- belonging


async def test_jobs_of_others_do_not_exist(start_proxy: StartProxy, tmp_path: Path):
    """Not to be seen, not to be ended, not to be guessed."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), **keyed())
    ann, bob = (Caller(proxy, KEYS[name]) for name in ("ann", "bob"))
    id = await ann.accepted()
    await ann.over(id)
    for method, path in [
        ("GET", f"/jobs/{id}"),
        ("DELETE", f"/jobs/{id}"),
        ("GET", f"/jobs/{id}/answer"),
        ("GET", f"/jobs/{id}/events"),
        ("POST", f"/jobs/{id}/retry"),
    ]:
        theirs, nobodys = await bob.ask(method, path), await bob.ask(method, path.replace(id, "job_x"))
        assert theirs.status == nobodys.status == 404
        assert theirs.words.replace(id, "job_x") == nobodys.words
    assert (await bob.ask("GET", "/jobs")).body["data"] == []
    assert (await bob.ask("GET", f"/jobs?after={id}")).status == 400
    assert len((await ann.ask("GET", "/jobs")).body["data"]) == 1


async def test_where_keys_are_asked_for_jobs_need_one(start_proxy: StartProxy, tmp_path: Path):
    """Whatever it is about jobs."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), **keyed())
    for caller in (Caller(proxy), Caller(proxy, "wrong")):
        assert (await caller.bring()).status == 401
        assert (await caller.ask("GET", "/jobs")).status == 401
        assert (await caller.ask("GET", "/jobs/x/events")).status == 401


async def test_the_services_own_work_is_nobodys(caller: Caller):
    """It is in the same store, and no caller sees it."""
    own = Job(caller="", operation="errand", dialect="")
    await caller.proxy.service.work.store.jobs.add(own)
    assert (await caller.ask("GET", f"/jobs/{own.id}")).status == 404
    assert (await caller.ask("GET", "/jobs")).body["data"] == []


async def test_a_credential_of_the_callers_own_is_not_kept(start_proxy: StartProxy, tmp_path: Path):
    """400: no secret is at rest. That goes for every way into the store."""
    place = tmp_path / "jobs.sqlite"
    proxy = await start_proxy(jobs_url=SecretStr(str(place)), gpt2giga_pass_token=True)
    caller, theirs = Caller(proxy), {"Authorization": "giga-cred-c2VjcmV0OnNlY3JldA=="}
    ways = [
        ("/jobs", {"body": chat()}, theirs),
        ("/v1/chat/completions", spoken(), {**theirs, "Prefer": "respond-async"}),
        ("/api/v1/chat/completions", spoken(), {"Authorization": "Bearer of-the-api", "Prefer": "respond-async"}),
    ]
    for path, body, headers in ways:
        told = await caller.ask("POST", path, body, headers)
        assert (told.status, b"cannot be kept" in told.raw) == (400, True), told.raw
    assert (await caller.ask("GET", "/jobs")).body["data"] == []
    assert not any(secret in on_disk(tmp_path) for secret in (b"c2VjcmV0", b"of-the-api"))


async def test_no_key_is_in_the_store(start_proxy: StartProxy, tmp_path: Path):
    """Of the headers that brought a job only those are kept that the API may see."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), **keyed())
    secrets = {
        "Cookie": "session=hidden",
        "X-Auth-Token": "hidden",
        "Cf-Access-Jwt-Assertion": "hidden",
        "X-Bearer": "hidden",
    }
    told = await Caller(proxy, KEYS["ann"]).ask("POST", "/", chat(), {"Prefer": "respond-async", **secrets})
    assert told.status == 202
    assert b'"path":"/"' in on_disk(tmp_path)
    assert not any(secret in on_disk(tmp_path) for secret in (KEYS["ann"].encode(), b"hidden"))


@pytest.mark.parametrize(
    "query", ["api_key=hidden", "x=1&accessToken=hidden", "X-Amz-Signature=hidden", "%6bey=hidden"]
)
async def test_no_secret_of_a_query_is_kept(caller: Caller, tmp_path: Path, query: str):
    """400 naming it: without it, it would be another call, so it is not left out in silence."""
    path = f"/api/v1/chat/completions?{query}"
    for told in (
        await caller.bring(spoken(), path),
        await caller.ask("POST", path, spoken(), {"Prefer": "respond-async"}),
        await caller.ask("POST", path, spoken(), {"Idempotency-Key": "k"}),
    ):
        assert told.status == 400 and b"no secret is" in told.raw
    assert b"hidden" not in on_disk(tmp_path)


def on_disk(folder: Path) -> bytes:
    """All that the store has written."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob("jobs.sqlite*")))


async def test_a_path_or_method_that_there_is_not_is_told_natively(caller: Caller):
    for method, path, status in [
        ("PUT", "/jobs", 405),
        ("POST", "/jobs/x", 405),
        ("GET", "/jobs/x/retry", 405),
        ("GET", "/jobs/x/y", 404),
        ("GET", "/jobs/" + "x" * 5000, 404),
        ("GET", "/jobs/%00%ff", 404),
    ]:
        told = await caller.ask(method, path)
        assert (told.status, told.body["app"]) == (status, "gigachat-proxy"), (method, path)
