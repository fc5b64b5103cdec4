"""Requests from within: a job is served by the very operations that serve everybody, however large, however it ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jobs_talk import spoken
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, chat, until, waiting

from proxy.errors import BadRequest, NotFound, UpstreamError
from proxy.jobs import Job
from proxy.jobs.recording import Ended, Recording
from proxy.line import Priority
from proxy.replay import Replay


def replay_of(proxy: Proxy) -> Replay:
    """What runs its jobs."""
    serve: Any = proxy.service.work.runner._serve
    replay: Replay = serve.__self__
    return replay


def a_request(body: Any = None, path: str = "/", **fields: Any) -> Job:
    return Job(
        **{
            "caller": "ann",
            "operation": "request",
            "dialect": "native",
            "path": path,
            "headers": {"Content-Type": "application/json"},
            "body": json.dumps(chat() if body is None else body).encode(),
            **fields,
        }
    )


@pytest.fixture
async def proxy(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    started: Proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1)
    return started


async def serve(proxy: Proxy, job: Job, recording: Recording | None = None) -> Ended:
    return await replay_of(proxy).serve(job, recording or Recording(), lambda: None)


async def test_a_request_from_within_is_answered_like_any_other(proxy: Proxy):
    ended = await serve(proxy, a_request(chat("Сколько будет 2 + 3?")))
    assert (ended.failure, ended.answer.status) == (None, 200)
    assert ended.answer.content_type == "application/json; charset=utf-8"
    assert "2 + 3 = 5" in ended.answer.body.decode()


async def test_a_large_body_is_read_to_its_end(proxy: Proxy):
    """Larger than what a connection holds at once."""
    text = "слово " * 30_000
    ended = await serve(proxy, a_request(spoken(text), "/api/v1/chat/completions"))
    assert ended.answer.status == 200
    (call,) = await proxy.calls()
    assert call["body"]["messages"][0]["content"] == text


async def test_its_head_and_its_pieces_can_be_followed_as_they_come(proxy: Proxy):
    """By any number, from the beginning on."""
    recording = Recording()
    serving = asyncio.create_task(serve(proxy, a_request(chat("a, b, c", stream=True)), recording))
    followers = [asyncio.create_task(followed(recording)) for _ in range(3)]
    ended = await serving
    assert recording.status == 200 and ended.answer.content_type.startswith("text/event-stream")
    for pieces in await asyncio.gather(*followers):
        assert b"".join(pieces) == ended.answer.body
        assert len(pieces) > 2
    assert b"".join(await followed(recording)) == ended.answer.body


async def followed(recording: Recording) -> list[bytes]:
    assert await recording.begun()
    return [piece async for piece in recording.pieces()]


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/api/v1/chat/completions"])
async def test_a_stream_that_breaks_has_failed(proxy: Proxy, path: str):
    """What came of it is kept, and why it broke is known."""
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 2})
    body = chat("a, b, c, d, e", stream=True) if path == "/" else spoken("a, b, c, d, e", stream=True)
    ended = await serve(proxy, a_request(body, path))
    assert isinstance(ended.failure, UpstreamError) and ended.failure.status == 502
    assert ended.answer.body.count(b"data: ") >= 2
    assert b"[DONE]" not in ended.answer.body


async def test_a_failure_is_told_in_the_dialect_of_its_path(proxy: Proxy):
    """And as what it is."""
    native = await serve(proxy, a_request({"messages": 1}))
    assert isinstance(native.failure, BadRequest) and native.answer.status == 400
    assert json.loads(native.answer.body)["app"] == "gigachat-proxy"
    openai = await serve(proxy, a_request({"messages": 1}, "/v1/chat/completions"))
    assert json.loads(openai.answer.body)["error"]["type"] == "invalid_request_error"
    nowhere = await serve(proxy, a_request(path="/nowhere"))
    assert isinstance(nowhere.failure, NotFound) and nowhere.answer.status == 404


async def test_what_the_api_says_of_a_raw_request_is_its_answer(proxy: Proxy):
    """No failure of ours: its status tells."""
    proxy.giga.state.faults.add({"kind": "status", "status": 422})
    ended = await serve(proxy, a_request(spoken(), "/api/v1/chat/completions"))
    assert (ended.failure, ended.answer.status) == (None, 422)


async def test_it_has_all_the_time_there_is(proxy: Proxy):
    """Neither RESP_TIMEOUT nor a header ends its wait; nobody waits for it."""
    first = await busy(proxy, 0.4)
    headers = {"X-Request-Timeout": "0.05", "Content-Type": "application/json"}
    ended = await serve(proxy, a_request(headers=headers))
    assert ended.answer.status == 200
    await first


async def test_it_stands_in_line_as_its_caller_with_its_priority(proxy: Proxy):
    """Batch work lets others go first."""
    first, called = await busy(proxy, 0.3), []

    async def run(name: str, priority: Priority) -> None:
        job = a_request(chat(name), priority=priority)
        await replay_of(proxy).serve(job, Recording(), lambda: called.append(name))

    batch = asyncio.create_task(run("batch", Priority.BATCH))
    await until(lambda: waiting(proxy) == 1)
    live = asyncio.create_task(run("live", Priority.NORMAL))
    await until(lambda: waiting(proxy) == 2)
    await asyncio.gather(first, batch, live)
    assert called == ["live", "batch"]


async def test_one_that_is_ended_early_leaves_the_line(proxy: Proxy):
    """Its task is cancelled; whoever follows it hears that nothing more comes."""
    first, recording = await busy(proxy, 20), Recording()
    serving = asyncio.create_task(serve(proxy, a_request(), recording))
    await until(lambda: waiting(proxy) == 1)
    serving.cancel()
    await asyncio.wait({serving})
    assert waiting(proxy) == 0
    assert (await recording.begun(), recording.is_complete) == (False, False)
    first.cancel()


async def test_it_is_in_the_log_of_requests_as_its_caller(start_proxy: StartProxy, tmp_path: Path):
    """With its path, its status and its id."""
    file = tmp_path / "requests.jsonl"
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), requests_log_file=file)
    job = a_request()
    await proxy.service.work.store.jobs.add(job)
    await until(lambda: file.exists() and job.id in file.read_text())
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    told = {name: line[name] for name in ("id", "caller", "path", "status", "operation")}
    assert told == {"id": job.id, "caller": "ann", "path": "/", "status": 200, "operation": "chat"}


# -- rehearsals


async def test_a_rehearsal_costs_nothing(proxy: Proxy):
    """It does not stand in line, and nobody is called; it tells in which dialect the request is."""
    first = await busy(proxy, 20)
    await until(lambda: proxy.giga.state.accounts.in_flight == 1)
    calls = proxy.giga.state.calls.count
    note = await replay_of(proxy).rehearse(a_request(spoken(n=3), "/v1/chat/completions"))
    assert (note.dialect, note.operation, waiting(proxy)) == ("openai", "chat", 0)
    assert proxy.giga.state.calls.count == calls
    first.cancel()


async def test_a_rehearsal_raises_what_the_request_would_be_refused_with(proxy: Proxy):
    with pytest.raises(BadRequest, match='"messages" must be a list'):
        await replay_of(proxy).rehearse(a_request({"messages": 1}))


@pytest.mark.parametrize("path", ["/nowhere", "/jobs", "/v1/files", "/v1/batches", "/health", "/api/v1/token"])
async def test_what_is_no_operation_for_jobs_is_not_even_rehearsed(proxy: Proxy, path: str):
    """A rehearsal of what does not stand in line would be the deed itself."""
    with pytest.raises(BadRequest, match="cannot be a job"):
        await replay_of(proxy).rehearse(a_request(path=path))
