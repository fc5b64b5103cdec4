"""Bulk runs as people make them: a command of its own, a file in, a file out, and what may come between."""

import os
import pty
import re
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bulk_runs import Bulk, Files, bulk, sums
from running import StartProxy, busy, until, waiting

from api_client_example import CannotRun, Ids, Progress, Run, clock, read_line, resume
from emulator import Options

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# -- lines


async def test_every_kind_of_line_has_its_answer(start_proxy: StartProxy, files: Files) -> None:
    """Prompts, native bodies, with and without an id; blank lines do not count; exit code 0."""
    proxy = await start_proxy()
    files.ask(
        {"id": "a", "prompt": "Сколько будет 2 + 3?"},
        {"id": 7, "messages": [["system", "На все вопросы отвечай мяу"], ["user", "Привет"]]},
        "",
        {"messages": [{"role": "user", "content": "6*7"}], "generate_parameters": {"stream": True, "temperature": 0.5}},
        {"prompt": "Скажи: 😀 раз", "generate_parameters": {"max_tokens": 50}},
    )
    code, said = await bulk(files, proxy.url)
    assert (code, files.by_id()) == (0, {"a": "2 + 3 = 5", 7: "мяу", 4: "6*7 = 42", 5: "😀 раз"})
    assert "4 answered, 0 failed" in said
    sent = {call["body"]["messages"][-1]["content"]: call["body"] for call in await proxy.calls()}
    assert (sent["6*7"]["temperature"], sent["6*7"].get("stream")) == (0.5, None)


async def test_wrong_lines_are_told_and_do_not_stop_the_rest(start_proxy: StartProxy, files: Files) -> None:
    """By their number, on the terminal and in the file; exit code 1. What the API refuses has its status."""
    proxy = await start_proxy()
    wrong = ["{bad", "[1]", '{"id": [1], "prompt": "a"}', '{"id": true, "prompt": "a"}', '{"prompt": 5}']
    wrong += ['{"id": "w", "prompt": "a", "messages": []}', "\x00", '{"a":' * 100_000]
    files.ask(*wrong, {"id": "hot", "prompt": "a", "generate_parameters": {"temperature": "hot"}}, *sums(3))
    code, said = await bulk(files, proxy.url)
    assert code == 1
    told = {line["id"]: line for line in files.told()}
    for number in range(1, len(wrong) + 1):
        assert told[number]["error"].startswith(f"line {number}: ")
        assert f"line {number}: " in said
    assert told["hot"]["status"] == 400 and "temperature" in told["hot"]["error"]
    assert "line 9: generate_parameters.temperature must be" in said
    assert [told[f"sum-{n}"]["answer"] for n in range(3)] == ["0 + 1 = 1", "1 + 1 = 2", "2 + 1 = 3"]


async def test_an_id_that_comes_twice_is_asked_once(start_proxy: StartProxy, files: Files) -> None:
    """The first line counts, the other is told; 1 and "1" are two."""
    proxy = await start_proxy()
    files.ask({"id": 1, "prompt": "1+1"}, {"id": 1, "prompt": "2+2"}, {"id": "1", "prompt": "3+3"})
    code, said = await bulk(files, proxy.url)
    assert (code, files.by_id()) == (0, {1: "1+1 = 2", "1": "3+3 = 6"})
    assert "line 2: the id 1 has been there before" in said


async def test_an_answer_that_is_not_a_whole_text_has_the_apis_own_beside_it(
    start_proxy: StartProxy, files: Files
) -> None:
    """Cut short, or a function call; with --full all have it."""
    proxy = await start_proxy()
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    call = {"functions": [weather], "function_call": {"name": "weather"}}
    files.ask(
        {"id": "cut", "prompt": "раз, два, три", "generate_parameters": {"max_tokens": 2}},
        {"id": "call", "prompt": "Погода в Москве?", "generate_parameters": call},
        {"id": "whole", "prompt": "Привет"},
    )
    assert (await bulk(files, proxy.url))[0] == 0
    told = {line["id"]: line for line in files.told()}
    assert told["cut"]["data"]["choices"][0]["finish_reason"] == "length"
    assert told["call"]["data"]["choices"][0]["message"]["function_call"]["name"] == "weather"
    assert set(told["whole"]) == {"id", "answer"}
    files.answers.unlink()
    assert (await bulk(files, proxy.url, "--full"))[0] == 0
    assert all(line["data"]["usage"]["total_tokens"] for line in files.told())


async def test_the_lines_of_the_document_are_answered_as_it_says(start_proxy: StartProxy, files: Files) -> None:
    """docs/client.md: its prompts in, its answers out."""
    proxy = await start_proxy()
    document = (ROOT / "docs" / "client.md").read_text()
    prompts, answers = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    files.prompts.write_text(prompts)
    assert (await bulk(files, proxy.url, "--parallel", "1"))[0] == 1
    assert files.answers.read_text() == answers


# -- waiting


async def test_many_stand_in_line_at_once_and_let_people_pass(start_proxy: StartProxy, files: Files) -> None:
    """As many as --parallel says; whoever comes later without low priority goes before most of them."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 1.5)
    files.ask(*sums(40))
    run = await Bulk.begin(files, proxy.url, "--parallel", "30")
    await until(lambda: waiting(proxy) == 30)
    person = await proxy.ask("person")
    assert (await run.end())[0] == 0
    assert len(files.by_id()) == 40
    assert person.status == (await first).status == 200
    assert (await proxy.sent_texts()).index("person") <= 3


async def test_429_is_waited_for(start_proxy: StartProxy, files: Files) -> None:
    """With a line much shorter than the run is broad, all are answered."""
    proxy = await start_proxy(Options(latency=0.02), ext_max_requests=1, ext_queue_size=4)
    files.ask(*sums(12))
    assert (await bulk(files, proxy.url, "--parallel", "12"))[0] == 0
    assert len(files.by_id()) == 12
    assert len(await proxy.calls()) == 12


async def test_a_proxy_that_is_not_there_is_waited_for(
    start_proxy: StartProxy, files: Files, unused_tcp_port: int
) -> None:
    """It says what it waits for, once, and goes on."""
    files.ask(*sums(5))
    run = await Bulk.begin(files, f"http://127.0.0.1:{unused_tcp_port}")
    assert run.process.stderr is not None
    said = await run.process.stderr.readline()
    assert b"is not there" in said
    await start_proxy(port=unused_tcp_port)
    code, more = await run.end()
    assert (code, len(files.by_id())) == (0, 5)
    assert "going on" in more and "is not there" not in more


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_waited_out(files: Files, status: int) -> None:
    """For its Retry-After."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if len(asked) < 3:
            return web.json_response({"status": "no"}, status=status, headers={"Retry-After": "0.1"})
        choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
        return web.json_response({"status": "ok", "data": {"choices": [choice]}})

    files.ask({"id": "a", "prompt": "b"})
    async with serving(answer) as url:
        assert (await bulk(files, url))[0] == 0
    assert asked == [{"messages": [["user", "b"]]}] * 3
    assert files.by_id() == {"a": "yes"}


# -- stopping and going on


async def test_ctrl_c_leaves_a_file_from_which_it_goes_on(start_proxy: StartProxy, files: Files) -> None:
    """Exit code 130; whoever waited leaves the line; nothing that has its answer is asked again."""
    proxy = await start_proxy(Options(latency=0.05), ext_max_requests=1)
    files.ask(*sums(30))
    run = await Bulk.begin(files, proxy.url, "--parallel", "5")
    await until(lambda: files.answers.exists() and len(files.answers.read_bytes().splitlines()) >= 3)
    run.process.send_signal(signal.SIGINT)
    code, said = await run.end()
    assert code == 130 and "The same command goes on" in said
    await until(lambda: waiting(proxy) == 0)
    before = files.by_id()
    assert 3 <= len(before) < 30
    proxy.giga.state.change(latency=0.0)
    code, said = await bulk(files, proxy.url)
    assert code == 0 and f"has {len(before)} answers already" in said
    assert set(files.by_id()) == {f"sum-{n}" for n in range(30)}
    sent = await proxy.sent_texts()
    assert all(sent.count(line["prompt"]) == 1 for line in sums(30) if line["id"] in before)
    assert len(sent) <= 30 + 5  # who was in flight may have been asked twice


async def test_a_rerun_asks_only_for_what_is_missing(start_proxy: StartProxy, files: Files) -> None:
    """What failed is asked again and its old line is gone; a torn last line is mended; a whole run asks nothing."""
    proxy = await start_proxy(ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    files.ask(*sums(10))
    assert (await bulk(files, proxy.url, "--parallel", "1"))[0] == 1
    assert files.told()[0] == {"id": "sum-0", "error": "Internal Server Error", "status": 502}
    torn = files.answers.read_bytes()[:-5]
    files.answers.write_bytes(torn)
    assert (await bulk(files, proxy.url))[0] == 0
    assert len(files.by_id()) == 10 and all(files.by_id().values())
    assert len(await proxy.calls()) == 12
    written = files.answers.read_bytes()
    assert (await bulk(files, proxy.url))[0] == 0
    assert files.answers.read_bytes() == written
    assert len(await proxy.calls()) == 12
    assert {path.name for path in files.answers.parent.iterdir()} == {"prompts.jsonl", "answers.jsonl"}


def test_a_last_line_without_its_end_is_kept_if_it_is_whole(files: Files) -> None:
    """What comes next begins a line of its own."""
    files.answers.write_text('{"id": 1, "answer": "a"}\n{"id": 2, "answer": "b"}')
    files.answers.chmod(0o600)
    assert len(resume(files.answers)) == 2
    assert files.answers.read_text().endswith("}\n")
    assert files.answers.stat().st_mode & 0o777 == 0o600


async def test_it_does_not_spoil_another_file(start_proxy: StartProxy, files: Files) -> None:
    """Prompts and answers changed about, the same file twice, a device, no file at all: exit code 2."""
    proxy = await start_proxy()
    files.ask(*sums(2))
    files.answers.write_text("dear diary\n")
    prompts, diary = files.prompts.read_bytes(), files.answers.read_bytes()
    code, said = await bulk(files, proxy.url)
    assert code == 2 and "is it the right file" in said
    files.prompts, files.answers = files.answers, files.prompts
    assert (await bulk(files, proxy.url))[0] == 2
    assert (files.answers.read_bytes(), files.prompts.read_bytes()) == (prompts, diary)
    for name in (files.prompts, Path("/dev/full"), files.prompts.parent / "nowhere" / "file"):
        files.answers = name
        assert (await bulk(files, proxy.url))[0] == 2
    assert await proxy.calls() == []


async def test_a_wrong_key_stops_it_at_once(start_proxy: StartProxy, files: Files) -> None:
    """A thousand lines are not refused one by one; with the key it goes on."""
    proxy = await start_proxy(proxy_api_keys="anna:the-key-of-anna")
    files.ask(*sums(3))
    code, said = await bulk(files, proxy.url, "--key", "wrong")
    assert code == 2 and "401" in said and "--key" in said
    assert files.answers.read_text() == ""
    assert (await bulk(files, proxy.url, "--key", "the-key-of-anna"))[0] == 0
    assert (await bulk(files, "ftp://nowhere", "--key", "the-key-of-anna"))[0] == 0  # nothing is left to ask


async def test_a_full_disk_stops_it_and_leaves_a_file_that_resumes(start_proxy: StartProxy, files: Files) -> None:
    """Exit code 2; what was written is kept."""
    proxy = await start_proxy()
    files.ask(*sums(20))

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    code, said = await bulk(files, proxy.url, preexec_fn=no_room)
    assert code == 2 and "cannot go on" in said
    assert (await bulk(files, proxy.url))[0] == 0
    assert len(files.by_id()) == 20


# -- what is seen


async def test_a_terminal_shows_a_bar(start_proxy: StartProxy, files: Files) -> None:
    """Share, number, rate, time left, failures."""
    proxy = await start_proxy(Options(latency=0.1), ext_max_requests=2)
    files.ask(*sums(12))
    screen, terminal = pty.openpty()
    run = await Bulk.begin(files, proxy.url, stderr=terminal)
    os.close(terminal)
    assert (await run.end())[0] == 0
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    bars = [line for line in shown.split("\r") if line.startswith("[")]
    assert bars[0].startswith("[....................]   0%  0/12  0.0/s  -:-- left  0 failed")
    assert any(line.startswith("[#") and "/12" in line and " 0:0" in line for line in bars)


def test_times_are_told_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3599, 90_061)] == ["0:00", "1:00", "59:59", "25:01:01"]


def test_of_a_thousand_failures_ten_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """And that the others are in the file."""
    progress = Progress(1000)
    for number in range(1000):
        progress.tell(f"line {number}", is_limited=True)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 11 and "in the file" in said[-1]


# -- a great many


def test_a_million_ids_are_small() -> None:
    """Each is found again, none is found that was not added; 32 bytes each at most."""
    ids, count = Ids(), 50_000
    assert all(ids.add(n) for n in range(count)) and all(ids.add(str(n)) for n in range(count))
    assert not any(ids.add(n) for n in range(count))
    assert len(ids) == 2 * count
    assert all(str(n) in ids for n in range(0, count, 7)) and f"{count}" not in ids
    assert len(ids._slots) * 8 <= 32 * 2 * count


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    """However long the file, no more of it is read than is asked."""
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield b'{"prompt": "a"}\n'

    run = Run("", False, endless(), (tmp_path / "a").open("wb", buffering=0), Ids(), Progress(0))  # type: ignore[arg-type]
    lines = run.lines()
    assert [next(lines)[0] for _ in range(3)] == [1, 2, 3]
    assert len(read) == 3
    run.answers.close()


def test_a_line_becomes_a_native_body() -> None:
    assert read_line(3, b'\xef\xbb\xbf{"prompt": "a", "x": 1}\r\n') == (3, b'{"x": 1, "messages": [["user", "a"]]}')


def test_a_file_of_something_else_is_refused(files: Files) -> None:
    files.answers.write_text('{"id": 1, "answer": "a"}\n{"id": 2}\n')
    with pytest.raises(CannotRun, match="line 2"):
        resume(files.answers)


# -- helpers of the above


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """The address of a server that answers every POST so."""
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
