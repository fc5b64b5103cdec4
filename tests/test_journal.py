"""The journal: a line for each request with what is known of it, no secret in it, and no request suffers for it."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr, ValidationError
from running import Proxy, StartProxy, busy, chat, settings_for, until, waiting

import app
import emulator
from proxy.journal import BODY_KEPT, Secrets
from proxy.settings import Settings

ROOT = Path(__file__).parents[1]
IDENTITY = ["id", "time", "caller", "lane", "operation", "dialect", "model", "method", "path"]
OUTCOME = ["wait", "duration", "attempts", "status", "error", "tokens_in", "tokens_out"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def lines(file: Path) -> list[dict[str, Any]]:
    """Those that are written to their end: a long one may be seen half."""
    return [json.loads(line) for line in text_of(file).splitlines(keepends=True) if line.endswith("\n")]


async def told(file: Path, count: int = 1) -> list[dict[str, Any]]:
    """The lines, when there are so many."""
    await until(lambda: len(lines(file)) >= count)
    return lines(file)


# -- what a line tells


async def test_an_answered_request_has_a_line_with_all_that_is_known(start_proxy: StartProxy, file: Path) -> None:
    """Who, what, when, how long, what came of it and what it cost; nothing of what was said."""
    proxy = await start_proxy(
        emulator.Options(latency=0.05), requests_log_file=file, proxy_api_keys={"alice": SecretStr("a-long-key")}
    )
    answer = await proxy.ask(headers={"X-API-Key": "a-long-key", "X-Request-ID": "mine"}, model="GigaChat-2-Pro")
    (line,) = await told(file)
    assert list(line) == IDENTITY + OUTCOME
    usage = answer.body["data"]["usage"]
    expected = {"id": "mine", "caller": "alice", "lane": "main", "operation": "chat", "dialect": "native"}
    expected |= {"model": "GigaChat-2-Pro", "method": "POST", "path": "/", "attempts": 1, "status": 200, "error": None}
    expected |= {"tokens_in": usage["prompt_tokens"], "tokens_out": usage["completion_tokens"]}
    assert {name: line[name] for name in expected} == expected
    assert 0.05 <= line["duration"] < 5 and 0 <= line["wait"] <= line["duration"]
    age = datetime.now(UTC) - datetime.fromisoformat(line["time"])
    assert line["time"].endswith("Z") and 0 <= age.total_seconds() < 10


async def test_a_stream_has_its_line_after_its_last_byte(start_proxy: StartProxy, file: Path) -> None:
    """With its tokens and its whole time; its model is the one that answers if the caller named none."""
    proxy = await start_proxy(emulator.Options(chunk_delay=0.1), requests_log_file=file)
    async with proxy.http.post(f"{proxy.url}/api/v1/chat/completions", json=stream_of()) as response:
        await response.content.readany()
        assert lines(file) == []
        await response.read()
    (line,) = await told(file)
    assert (line["dialect"], line["status"], line["error"]) == ("gigachat", 200, None)
    assert line["model"].startswith("GigaChat-2")
    assert line["tokens_in"] > 0 and line["tokens_out"] > 0
    assert line["duration"] >= 0.1


def stream_of() -> dict[str, Any]:
    return {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Привет, как твои дела?"}], "stream": True}


async def test_the_wait_in_line_is_told_apart(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file, ext_max_requests=1)
    first = await busy(proxy, 0.3)
    await asyncio.gather(first, proxy.ask())
    waits = sorted(line["wait"] for line in await told(file, 2))
    assert waits[0] < 0.1 < waits[1]


async def test_every_attempt_is_counted_and_a_failure_has_its_code(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file, ext_retries=1)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "times": 2})
    await proxy.ask()
    (line,) = await told(file)
    assert (line["attempts"], line["status"], line["error"], line["tokens_in"]) == (2, 502, "upstream_error", None)


@pytest.mark.parametrize("status", [404, 407, 500, 503])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_that_is_passed_on_has_its_status_and_a_code(
    start_proxy: StartProxy, file: Path, caplog: pytest.LogCaptureFixture, status: int, is_stream: bool
) -> None:
    """The same in both logs: what the caller got."""
    caplog.set_level("INFO", "proxy")
    proxy = await start_proxy(requests_log_file=file, ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": status})
    body = stream_of() | {"stream": is_stream}
    async with proxy.http.post(f"{proxy.url}/api/v1/chat/completions", json=body) as response:
        assert response.status == status
    (line,) = await told(file)
    assert (line["status"], line["error"], line["attempts"]) == (status, "upstream_error", 1)
    assert f"request {line['id']} of 127.0.0.1: {status} upstream_error, waited " in caplog.text


async def test_a_refusal_after_an_early_200_has_the_status_that_it_deserves(
    start_proxy: StartProxy, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In both logs; its caller has not left, but was cut off."""
    caplog.set_level("INFO", "proxy")
    knobs = {"ext_max_requests": 1, "stream_early_200": 0.05, "heartbeat_102": "off"}
    proxy = await start_proxy(requests_log_file=file, **knobs)
    first = await busy(proxy, 0.4)
    with pytest.raises(aiohttp.ClientPayloadError):
        async with proxy.http.post(
            f"{proxy.url}/api/v1/chat/completions", json=stream_of() | {"model": "nope"}
        ) as response:
            assert response.status == 200
            await response.read()
    await first
    line = next(line for line in await told(file, 2) if line["model"] == "nope")
    assert (line["status"], line["error"]) == (404, "upstream_error")
    assert f"request {line['id']} of 127.0.0.1: 404 upstream_error, waited " in caplog.text


async def test_a_refusal_that_is_passed_on_to_a_keyed_request_has_a_code(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file, jobs_url=SecretStr(str(file.parent / "jobs.sqlite")))
    body = stream_of() | {"stream": False, "model": "nope"}
    headers = {"Idempotency-Key": "k1"}
    async with proxy.http.post(f"{proxy.url}/api/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 404
    (line,) = await told(file)
    assert (line["status"], line["error"], line["model"]) == (404, "upstream_error", "nope")


async def test_all_calls_that_a_request_takes_are_what_it_cost(start_proxy: StartProxy, file: Path) -> None:
    """Whole and as streams; of the keyed, too."""
    proxy = await start_proxy(requests_log_file=file, jobs_url=SecretStr(str(file.parent / "jobs.sqlite")))
    body = {"messages": [{"role": "user", "content": "Привет"}], "n": 3}
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
        usage = (await response.json())["usage"]
    for more, headers in (({"stream": True}, {}), ({}, {"Idempotency-Key": "k1"})):
        async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body | more, headers=headers) as response:
            await response.read()
    costs = [(line["tokens_in"], line["tokens_out"]) for line in await told(file, 3)]
    assert costs == [(usage["prompt_tokens"], usage["completion_tokens"])] * 3


async def test_a_stream_that_broke_after_its_200_has_the_status_that_it_deserves(
    start_proxy: StartProxy, file: Path
) -> None:
    proxy = await start_proxy(requests_log_file=file)
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 1})
    async with proxy.http.post(proxy.url, json=chat(stream=True)) as response:
        assert response.status == 200
        await response.read()
    (line,) = await told(file)
    assert (line["status"], line["error"]) == (502, "upstream_error")


# -- refused


async def test_a_keyed_request_has_one_line_with_all_that_is_known(
    start_proxy: StartProxy, file: Path, tmp_path: Path
) -> None:
    """Not another for the job that it becomes. A repeat has a line as well, and has cost nothing."""
    proxy = await start_proxy(requests_log_file=file, jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    key = {"Idempotency-Key": "k1", "X-Request-ID": "mine"}
    first = await proxy.ask(headers=key, model="GigaChat-2-Pro")
    await until(lambda: proxy.service.work.runner.under_way == 0)
    await proxy.ask(headers=key, model="GigaChat-2-Pro")
    once, again = await told(file, 2)
    expected = {"id": "mine", "lane": "main", "operation": "chat", "model": "GigaChat-2-Pro", "attempts": 1}
    expected |= {"status": 200, "tokens_in": first.body["data"]["usage"]["prompt_tokens"]}
    assert {name: once[name] for name in expected} == expected
    assert (again["operation"], again["attempts"], again["tokens_in"], again["status"]) == ("once", 0, None, 200)


async def test_refused_requests_have_their_line_with_what_is_known_of_them(start_proxy: StartProxy, file: Path) -> None:
    """400, 401, 404, 405 and 413: nothing of a lane, and a caller only if it is known."""
    proxy = await start_proxy(
        requests_log_file=file, max_body_bytes=1000, proxy_api_keys={"alice": SecretStr("a-long-key")}
    )
    key = {"X-API-Key": "a-long-key"}
    await proxy.ask(model=5, headers=key)
    await proxy.http.post(proxy.url, data=b"{", headers=key)
    await proxy.ask()
    await proxy.http.get(f"{proxy.url}/api/nowhere?key=a-long-key", headers=key)
    await proxy.http.get(f"{proxy.url}/nowhere")
    await proxy.http.delete(proxy.url, headers=key)
    await proxy.ask("x" * 1000, headers=key)
    seen = [
        tuple(line[name] for name in ("status", "error", "caller", "operation", "dialect", "path"))
        for line in await told(file, 7)
    ]
    assert seen == [
        (400, "bad_request", "alice", "chat", "native", "/"),
        (400, "bad_request", "alice", "chat", "native", "/"),
        (401, "unauthorized", None, "chat", "native", "/"),
        (404, "not_found", "alice", None, "gigachat", "/api/nowhere"),
        (404, "not_found", None, None, "native", "/nowhere"),
        (405, "method_not_allowed", "alice", None, "native", "/"),
        (413, "body_too_large", "alice", "chat", "native", "/"),
    ]
    assert {(line["lane"], line["attempts"], line["wait"]) for line in lines(file)} == {(None, 0, 0.0)}


async def test_who_finds_the_line_full_or_the_service_stopping_has_a_line(start_proxy: StartProxy, file: Path) -> None:
    """429 and 503, with the lane that refused."""
    proxy = await start_proxy(requests_log_file=file, ext_max_requests=1, ext_queue_size=1)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    await proxy.ask()
    await told(file, 1)
    proxy.service.line.interrupt_all()  # type: ignore[attr-defined]
    await asyncio.gather(first, second)
    seen = sorted((line["status"], line["error"], line["lane"]) for line in await told(file, 3))
    assert seen == [(429, "line_full", "main"), (503, "stopping", "main"), (503, "stopping", "main")]


# -- left


async def test_whose_caller_left_has_a_line_without_a_status(start_proxy: StartProxy, file: Path) -> None:
    """In line, in flight, and in the middle of a stream."""
    proxy = await start_proxy(emulator.Options(chunk_delay=0.05), requests_log_file=file, ext_max_requests=1)
    first = await busy(proxy, 30)
    second = asyncio.create_task(proxy.ask("second"))
    await until(lambda: waiting(proxy) == 1)
    second.cancel()
    (in_line,) = await told(file, 1)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    _, in_flight = await told(file, 2)
    async with proxy.http.post(proxy.url, json=chat("Расскажи что-нибудь длинное", stream=True)) as response:
        await response.content.readany()
        response.close()
    *_, streamed = await told(file, 3)
    seen = [(line["status"], line["error"], line["attempts"]) for line in (in_line, in_flight, streamed)]
    assert seen == [(None, None, 0), (None, None, 1), (None, None, 1)]


async def test_signs_of_life_have_no_line(start_proxy: StartProxy, file: Path) -> None:
    """Whoever asks every second whether we live would fill the disk with it. `GET /` has one."""
    proxy = await start_proxy(requests_log_file=file)
    await proxy.http.get(f"{proxy.url}/health")
    await proxy.http.get(proxy.url)
    (line,) = await told(file)
    assert (line["operation"], line["method"], line["status"]) == ("info", "GET", 200)


# -- bodies and secrets


async def test_bodies_are_kept_at_debug_only(start_proxy: StartProxy, file: Path, tmp_path: Path) -> None:
    """JSON as JSON, a stream as the text that it was."""
    for level in ("INFO", "DEBUG"):
        path = tmp_path / level
        proxy = await start_proxy(requests_log_file=path, log_level=level)
        answer = await proxy.ask("секретная беседа")
        async with proxy.http.post(proxy.url, json=chat(stream=True)) as response:
            stream = await response.text()
        await proxy.http.post(proxy.url, data=b"{")
        await told(path, 3)
    assert "беседа" not in (tmp_path / "INFO").read_text()
    plain, streamed, wrong = lines(tmp_path / "DEBUG")
    assert plain["request"] == chat("секретная беседа")
    assert plain["answer"] == answer.body
    assert streamed["answer"] == stream and stream.endswith("data: [DONE]\n\n")
    assert wrong["request"] == "{" and "JSON" in wrong["answer"]["status"]


async def test_a_long_body_is_cut(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file, log_level="DEBUG")
    await proxy.ask("y" * BODY_KEPT)
    (line,) = await told(file)
    assert line["request"].endswith(" bytes, cut)")
    assert len(line["request"].encode()) < BODY_KEPT + 100


async def test_no_secret_is_in_the_journal_whatever_a_caller_writes(start_proxy: StartProxy, file: Path) -> None:
    """Keys and tokens of ours, under any name, in any escape; headers of authorization are not there at all."""
    proxy = await start_proxy(
        requests_log_file=file,
        log_level="DEBUG",
        gigachat_api_key=SecretStr('the-real"key/=='),
        proxy_api_keys={"alice": SecretStr("alices-own-key")},
    )
    text = 'my key is the-real"key/== and alices-own-key, Authorization: Bearer abcdefghijkl, eyJhbGciOiJ.eyJzdWIi.sig-'
    body = {
        "messages": [
            {"role": "user", "content": text},
            {"role": "user", "content": '{"api_key": "inner-word"}', "access_token": 'outer-"word', "name": "ok"},
        ],
        "generate_parameters": {"model": "alices-own-key", "X-API-Key": "third-word"},
    }
    raw = json.dumps(body).replace("alices-own", "alices\\u002down").replace("/", "\\/")
    async with proxy.http.post(
        f"{proxy.url}/?key=alices-own-key", data=raw, headers={"Authorization": "Bearer alices-own-key"}
    ) as response:
        await response.read()
    await proxy.http.get(f"{proxy.url}/alices-own-key/v1", headers={"X-Request-ID": "alices-own-key"})
    line, other = await told(file, 2)
    written = text_of(file)
    for secret in ("the-real", "alices", "abcdefgh", "eyJ", "inner-word", "outer-", "third-word"):
        assert secret not in written
    assert line["request"]["messages"][1]["name"] == "ok"
    assert (line["model"], other["id"], other["path"]) == ("***", "***", "/***/v1")


def test_what_is_hidden_and_what_is_not() -> None:
    """A secret that is a number leaves no broken JSON, a short one no holes, and a prompt stays what it is."""
    hidden = Secrets(Settings(gigachat_password=SecretStr("123456"), proxy_api_keys={"a": SecretStr("abc")})).hidden
    assert hidden("abc 123456") == "abc ***"
    assert hidden('{"max_tokens": 5, "token": "x"}') == '{"max_tokens": 5, "token": "***"}'
    same = "Напиши basic income essay, the token economy, password rules"
    assert hidden(same) == same


async def test_a_body_that_hiding_would_break_is_kept_as_text(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file, log_level="DEBUG", gigachat_password=SecretStr("1234"))
    await proxy.ask(max_tokens=1234)
    (line,) = await told(file)
    assert '"max_tokens":***' in line["request"]


async def test_callers_own_words_are_short_and_cannot_break_a_line(start_proxy: StartProxy, file: Path) -> None:
    """A model's name as long as a book, a line break in it, a header and a path that are no Unicode."""
    proxy = await start_proxy(requests_log_file=file, trusted_proxies="127.0.0.1")
    await proxy.ask(model="x\n" * 10_000)
    reader, writer = await asyncio.open_connection(*proxy.url.removeprefix("http://").split(":"))
    writer.write(b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: \xff\xfe\r\nConnection: close\r\n\r\n")
    await reader.read()
    writer.close()
    line, other = await told(file, 2)
    assert len(line["model"]) == 200
    assert (other["caller"], other["path"], other["status"]) == ("127.0.0.1", "/%ff", 404)


# -- no request suffers


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A disk that hangs."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))


async def test_a_disk_that_hangs_does_not_hold_up_the_loop(start_proxy: StartProxy, fifo: Path) -> None:
    """Requests are answered, and the loop is never away for long."""
    proxy = await start_proxy(requests_log_file=fifo)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    watching = asyncio.create_task(watch())
    answers = [await proxy.ask() for _ in range(50)]
    watching.cancel()
    assert {answer.status for answer in answers} == {200}
    assert longest < 0.5


@pytest.mark.parametrize("path", ["/dev/full", "/dev/null/requests.jsonl", "/proc/requests.jsonl"])
async def test_a_full_disk_or_a_folder_that_cannot_be_written_never_stops_service(
    start_proxy: StartProxy, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither at the start nor later; one warning."""
    proxy = await start_proxy(requests_log_file=Path(path))
    assert {(await proxy.ask()).status for _ in range(20)} == {200}
    await until(lambda: f"REQUESTS_LOG_FILE={path}" in caplog.text)
    assert caplog.text.count("cannot be written") == 1


async def test_a_deleted_journal_is_made_anew(start_proxy: StartProxy, file: Path) -> None:
    proxy = await start_proxy(requests_log_file=file)
    await proxy.ask()
    await told(file)
    os.unlink(file)
    await proxy.ask(headers={"X-Request-ID": "second"})
    assert [line["id"] for line in await told(file)] == ["second"]
    assert mode(file) == 0o600


# -- the whole service


class Running:
    """The service in a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        command = [sys.executable, str(ROOT / "app.py"), "--sandbox", "--port=0", *flags]
        env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = next(line.split()[-1] for line in self.process.stdout if " listens on " in line)

    def stop(self) -> str:
        """What it has said on the screen."""
        self.process.send_signal(signal.SIGTERM)
        _, screen = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return screen


async def test_what_was_served_up_to_the_stop_is_in_both_files(tmp_path: Path) -> None:
    """LOG_FILE has what the screen has, to the last word; the journal has the request that the stop ended."""
    service = await asyncio.to_thread(
        Running, tmp_path, "--log-file=proxy.log", "--requests-log-file=requests.jsonl", "--drain-timeout=0.5"
    )
    async with aiohttp.ClientSession() as http:
        for _ in range(3):
            async with http.post(service.url, json=chat("тайна")) as response:
                assert response.status == 200
    screen = await asyncio.to_thread(service.stop)
    log = (tmp_path / "proxy.log").read_text()
    assert log == screen and log.endswith("stopped\n") and log.count("200") >= 3
    assert [line["status"] for line in lines(tmp_path / "requests.jsonl")] == [200] * 3
    assert "тайна" not in log + (tmp_path / "requests.jsonl").read_text()
    assert (mode(tmp_path / "proxy.log"), mode(tmp_path / "requests.jsonl")) == (0o600, 0o600)


async def test_a_request_that_the_stop_ends_still_has_its_line(file: Path) -> None:
    """The journal closes after the last answer."""
    async with emulator.start(emulator.Options()) as giga, aiohttp.ClientSession() as http:
        settings = settings_for(giga, requests_log_file=file, ext_max_requests=1, drain_timeout=0.2)
        async with app.serving(settings) as service:
            first = await busy(Proxy(service, giga, http), 30)
        await first
    assert [(line["status"], line["error"]) for line in lines(file)] == [(503, "stopping")]


async def test_a_log_that_hangs_neither_delays_the_start_nor_prevents_the_stop(fifo: Path, tmp_path: Path) -> None:
    """Served, stopped, and told on the screen how many lines were lost."""
    service = await asyncio.to_thread(Running, tmp_path, f"--log-file={fifo}")
    async with aiohttp.ClientSession() as http, http.post(service.url, json=chat()) as response:
        assert response.status == 200
    assert f"LOG_FILE={fifo}: lines that were not written: " in await asyncio.to_thread(service.stop)


def test_the_two_files_must_be_two(tmp_path: Path) -> None:
    """Both would rotate it under the other's feet."""
    with pytest.raises(ValidationError, match="LOG_FILE is that file already"):
        Settings(log_file=tmp_path / "log", requests_log_file=tmp_path / "log")
    assert Settings(log_file="~/log").log_file == Path.home() / "log"
