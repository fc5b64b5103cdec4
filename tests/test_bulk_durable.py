"""Bulk runs that hand their lines over: closed and opened again, before a service that loses things, and a real one."""

import asyncio
import json
import os
import pty
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from batch_service import BatchService, batch_service
from bulk_runs import Bulk, Files, sums
from bulk_runs import bulk as plain_bulk
from processes import Process, copy_tree, launch
from pydantic import SecretStr
from redis_server import free_port
from running import Proxy, StartProxy, until

import api_client_example
import emulator
from api_client_example import CannotRun, Handed
from proxy.jobs import State
from proxy.jobs.store import opened


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
async def service() -> AsyncIterator[BatchService]:
    async with batch_service() as service:
        yield service


def state_of(files: Files) -> Path:
    """The file that says what the service has."""
    return files.answers.with_name("answers.jsonl.batches")


async def bulk(files: Files, url: str, *flags: str, **more: Any) -> tuple[int, str]:
    return await plain_bulk(files, url, "--durable", *flags, **more)


def echoes(count: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Lines, and what is answered to them here."""
    lines = sums(count)
    return lines, {line["id"]: line["prompt"] for line in lines}


# -- the whole way


async def test_lines_go_there_in_a_batch_and_come_back_as_in_a_plain_run(service: BatchService, files: Files) -> None:
    """Prompts and native bodies, in their order; nothing is left behind, there or here."""
    files.ask({"id": "a", "prompt": "one"}, "", {"id": 7, "messages": [["user", "two"]]}, {"prompt": "three"}, "{bad")
    code, said = await bulk(files, service.url)
    assert code == 1
    assert files.told() == [
        {"id": 5, "error": "line 5: this is no JSON: Expecting property name enclosed in double quotes"},
        {"id": "a", "answer": "one"},
        {"id": 7, "answer": "two"},
        {"id": 4, "answer": "three"},
    ]
    assert "3 lines are at the service: batch_0" in said and "3 answered, 1 failed" in said
    assert len(service.batches) == 1 and service.files == {}
    assert sorted(os.listdir(files.answers.parent)) == ["answers.jsonl", "prompts.jsonl"]


async def test_what_has_its_answer_is_not_sent(service: BatchService, files: Files) -> None:
    """Whichever way it was asked; with nothing to ask the service is not called."""
    lines, answers = echoes(5)
    files.ask(*lines)
    files.answers.write_text('{"id": "sum-1", "answer": "known"}\n{"id": "sum-2", "error": "no"}\n')
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == {**answers, "sum-1": "known"}
    assert lines[1]["prompt"] not in service.requests() and len(service.requests()) == 4
    calls = len(service.calls)
    assert (await bulk(files, service.url))[0] == 0
    assert len(service.calls) == calls


async def test_the_whole_answer_stands_beside_the_text_if_that_is_asked(service: BatchService, files: Files) -> None:
    files.ask({"id": "a", "prompt": "one"})
    assert (await bulk(files, service.url, "--full"))[0] == 0
    assert files.told()[0]["data"]["choices"][0]["message"] == {"content": "one"}


async def test_errors_end_as_in_a_plain_run(service: BatchService, files: Files) -> None:
    """With the API's words and status; those that never had an answer say why. The next run asks them again."""
    told = {"status": "messages must not be empty"}
    service.errors = {
        "refused": {"response": {"status_code": 400, "request_id": "r", "body": told}},
        "late": {"error": {"code": "batch_expired", "message": "it was not begun in time"}},
    }
    service.ends = "expired"
    files.ask(*({"id": text, "prompt": text} for text in ("fine", "refused", "late")))
    code, said = await bulk(files, service.url)
    assert code == 1 and "1 answered, 2 failed" in said and "line 3: it was not begun in time" in said
    assert files.told() == [
        {"id": "fine", "answer": "fine"},
        {"id": "refused", "error": "messages must not be empty", "status": 400},
        {"id": "late", "error": "it was not begun in time"},
    ]
    service.errors, service.ends = {}, "completed"
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == {text: text for text in ("fine", "refused", "late")}
    assert Counter(service.requests()) == {"fine": 1, "refused": 2, "late": 2}


async def test_a_line_without_a_word_is_an_error(service: BatchService, files: Files) -> None:
    """Should the service lose its files, nobody waits for ever."""
    service.ends = "cancelled"
    lines, _ = echoes(2)
    files.ask(*lines)
    service.refusals["content"] = [(404, {"error": {"message": "gone"}})]
    code, said = await bulk(files, service.url)
    assert code == 1 and "line 2: the batch batch_0 is cancelled, without this line" in said


# -- closed and opened again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_closed_and_opened_again_it_goes_on(service: BatchService, files: Files, number: signal.Signals) -> None:
    """The service works meanwhile; nothing is sent twice, and what stands beside the answers is no longer than ids."""
    service.is_held = True
    lines, answers = echoes(20)
    files.ask(*lines)
    run = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "look" in service.calls)
    run.process.send_signal(number)
    code, said = await run.end()
    assert code == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert number is signal.SIGKILL or "The service goes on with what it has" in said
    (known,) = json.loads(state_of(files).read_text())["batches"]
    assert (known["batch"], known["ids"]["1"]) == ("batch_0", "sum-0")
    service.is_held = False
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == answers
    assert Counter(service.requests()) == dict.fromkeys(answers.values(), 1)
    assert not state_of(files).exists()


async def test_a_second_run_beside_the_first_is_refused(service: BatchService, files: Files) -> None:
    """Both would write the same answers; the first goes on, and each answer is there once."""
    service.is_held = True
    lines, answers = echoes(20)
    files.ask(*lines)
    first = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "look" in service.calls)
    code, said = await bulk(files, service.url)
    assert code == 2 and "another run writes to" in said
    service.is_held = False
    assert (await first.end())[0] == 0
    assert files.by_id() == answers


async def test_a_plain_run_does_not_ask_what_the_service_works_on(service: BatchService, files: Files) -> None:
    """It says how to go on, or to begin anew."""
    service.is_held = True
    files.ask(*sums(3))
    run = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "look" in service.calls)
    run.process.kill()
    await run.end()
    code, said = await plain_bulk(files, service.url)
    assert code == 2 and "3 lines are at the service" in said and "--durable" in said and str(state_of(files)) in said


async def test_lines_that_come_later_go_along(service: BatchService, files: Files) -> None:
    """A file of prompts that has grown meanwhile: what is new is handed over, what was is not."""
    service.is_held = True
    lines, answers = echoes(6)
    files.ask(*lines[:4])
    run = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "look" in service.calls)
    run.process.kill()
    await run.end()
    files.ask(*lines)
    service.is_held = False
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == answers and sorted(service.requests()) == sorted(answers.values())


async def test_answers_that_were_written_before_a_crash_are_not_written_again(
    service: BatchService, files: Files
) -> None:
    """The crash came between the answers and the word that the batch is taken back; a torn line is mended."""
    lines, answers = echoes(4)
    files.ask(*lines)
    service.is_held = True
    run = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "look" in service.calls)
    run.process.kill()
    await run.end()
    written = json.dumps({"id": "sum-0", "answer": answers["sum-0"]})
    files.answers.write_text(written + '\n{"id": "sum-1", "ans')
    service.is_held = False
    code, said = await bulk(files, service.url)
    assert code == 0 and files.by_id() == answers and "3 answered, 0 failed, 1 had their answers before" in said


# -- when something is lost on the way


@pytest.mark.parametrize("call", ["upload", "create", "look", "content", "delete"])
async def test_an_answer_that_is_lost_costs_nothing(service: BatchService, files: Files, call: str) -> None:
    """What was asked is asked again: each line is in one batch, and has one answer."""
    service.lost = [call]
    lines, answers = echoes(8)
    files.ask(*lines)
    assert (await bulk(files, service.url))[0] == 0
    assert service.lost == [] and files.by_id() == answers
    assert sorted(service.requests()) == sorted(answers.values())


async def test_a_batch_whose_making_was_not_heard_of_is_not_made_twice(service: BatchService, files: Files) -> None:
    """The command died with the answer on its way: the next one asks with the same Idempotency-Key."""
    service.is_held, service.refusals["create"] = True, [(503, {"error": {"message": "wait"}})] * 10_000
    lines, answers = echoes(3)
    files.ask(*lines)
    run = await Bulk.begin(files, service.url, "--durable")
    await until(lambda: "create" in service.calls)
    run.process.kill()
    await run.end()
    (known,) = json.loads(state_of(files).read_text())["batches"]
    service.keys[f"bulk-{known['file']}"] = "batch_0"  # it was made all the same
    del service.refusals["create"]
    service.is_held = False
    assert (await bulk(files, service.url))[0] == 0
    assert service.calls.count("upload") == 1 and list(service.batches) == ["batch_0"]
    assert files.by_id() == answers


async def test_answers_that_break_off_are_read_again(service: BatchService, files: Files) -> None:
    """In the middle of a line or between two; each is written once."""
    service.breaks_after = 3
    lines, answers = echoes(8)
    files.ask(*lines)
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == answers and service.calls.count("content") == 2


@pytest.mark.parametrize("status", [429, 502, 503, 507])
async def test_a_service_without_time_or_room_is_waited_for(service: BatchService, files: Files, status: int) -> None:
    for call in ("upload", "create", "look"):
        service.refusals[call] = [(status, {"error": {"message": "come later"}})] * 2
    files.ask(*sums(2))
    code, said = await bulk(files, service.url)
    assert (code, len(files.by_id())) == (0, 2)
    assert status == 429 or f"says {status}: come later; waiting" in said


async def test_a_service_that_is_not_there_yet_is_waited_for(files: Files, unused_tcp_port: int) -> None:
    files.ask(*sums(2))
    run = await Bulk.begin(files, f"http://127.0.0.1:{unused_tcp_port}", "--durable")
    assert run.process.stderr is not None
    assert b"is not there" in await run.process.stderr.readline()
    run.process.send_signal(signal.SIGINT)
    assert (await run.end())[0] == 130 and not state_of(files).exists()


# -- what a batch may not be


async def test_a_wrong_line_does_not_keep_the_others_from_their_answers(service: BatchService, files: Files) -> None:
    """A batch with it is refused whole; it is told, and the rest is handed over anew."""

    def inspect(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {"code": "invalid_request", "line": number, "message": "too long", "param": None}
            for number, line in enumerate(lines, 1)
            if "4" in line["body"]["messages"][-1][1]
        ]

    service.inspect = inspect
    lines, answers = echoes(6)
    files.ask("", *lines)
    code, said = await bulk(files, service.url)
    assert code == 1 and "5 answered, 1 failed" in said and "line 6: too long" in said
    assert files.told()[0] == {"id": "sum-4", "error": "too long", "status": 400}
    assert files.by_id() == {**answers, "sum-4": None}
    assert "Сколько будет 4 + 1?" not in service.requests()


async def test_a_batch_that_is_too_large_is_divided(service: BatchService, files: Files) -> None:
    """Until it fits; a line that does not even do so alone is told."""

    def inspect(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        is_fine = len(lines) <= 3 and "2" not in lines[0]["body"]["messages"][-1][1]
        return [] if is_fine else [{"code": "too_many_tasks", "line": None, "message": "too many", "param": None}]

    service.inspect = inspect
    lines, answers = echoes(10)
    files.ask(*lines)
    assert (await bulk(files, service.url))[0] == 1
    assert files.by_id() == {**answers, "sum-2": None}
    assert Counter(service.requests()) == {text: 1 for id, text in answers.items() if id != "sum-2"}


async def test_many_lines_are_many_batches(
    service: BatchService, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their number and by their size; no more of them at once than the service is to have."""
    monkeypatch.setattr(api_client_example, "LINES", 10)
    monkeypatch.setattr(api_client_example, "BYTES", 1000)
    monkeypatch.setattr(api_client_example, "AT_ONCE", 25)
    monkeypatch.setattr(api_client_example, "FIRST_LOOK", 0.01)
    service.is_held = True
    lines = [*sums(95), *({"id": f"long-{n}", "prompt": "x" * 1000} for n in range(3))]
    files.ask(*lines)
    run = asyncio.create_task(asyncio.to_thread(in_this_process, files, service.url))
    await until(lambda: len(service.batches) == 3 and "look" in service.calls)
    service.is_held = False
    assert await run == 0
    assert [len(batch["lines"]) for batch in service.batches.values()] == [10] * 9 + [6, 1, 1]
    assert files.by_id() == {line["id"]: line["prompt"] for line in lines}


def in_this_process(files: Files, url: str) -> int:
    return api_client_example.main(["bulk", str(files.prompts), str(files.answers), "--url", url, "--durable"])


# -- when it cannot go on


async def test_a_batch_that_the_service_does_not_know_is_told_with_the_way_out(
    service: BatchService, files: Files
) -> None:
    """It may be another service, or another key: what was paid for is not forgotten by itself."""
    files.ask(*sums(2))
    Handed(state_of(files)).add(api_client_example.Batch("file_9", {"1": "sum-0"}, "batch_9"))
    code, said = await bulk(files, service.url)
    assert code == 2 and "batch_9" in said and "404" in said and f"delete {state_of(files)}" in said
    assert state_of(files).exists()


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (401, "a valid key is needed", "a valid key is needed (--key, GIGACHAT_PROXY_KEY)"),
        (404, "nothing at this path", "/v1/files says 404: nothing at this path"),
        (501, "no jobs are kept", "/v1/files says 501: no jobs are kept"),
        (200, "hello", '/v1/files: this is no answer of gigachat-proxy: b\'{"error"'),
    ],
)
async def test_a_service_that_takes_no_batches_is_told_at_once(
    service: BatchService, files: Files, status: int, text: str, said: str
) -> None:
    """In its words; exit code 2."""
    service.refusals["upload"] = [(status, {"error": {"message": text, "type": "x"}})]
    files.ask(*sums(2))
    code, told = await bulk(files, service.url)
    assert code == 2 and said in told and not state_of(files).exists()


async def test_answers_that_cannot_be_fetched_are_not_given_up(service: BatchService, files: Files) -> None:
    """A failure that is not the batch's leaves it where it is: the next run fetches it."""
    service.refusals["content"] = [(500, {"error": {"message": "a bug"}})]
    lines, answers = echoes(2)
    files.ask(*lines)
    code, said = await bulk(files, service.url)
    assert code == 2 and "says 500: a bug" in said
    assert (await bulk(files, service.url))[0] == 0
    assert files.by_id() == answers and len(service.batches) == 1


@pytest.mark.parametrize("text", ["dear diary", "[]", '{"batches": [{"file": 1}]}', "{}"])
def test_a_file_of_something_else_is_no_state(files: Files, text: str) -> None:
    state_of(files).write_text(text)
    with pytest.raises(CannotRun, match="is it the right file"):
        Handed(state_of(files))


async def test_a_state_that_cannot_be_written_stops_it_before_a_batch_is_made(
    service: BatchService, files: Files
) -> None:
    """Or nobody would know of it."""
    state_of(files).with_name("answers.jsonl.batches.part").mkdir()
    files.ask(*sums(2))
    code, said = await bulk(files, service.url)
    assert code == 2 and "cannot be written" in said and service.batches == {}


async def test_both_ways_at_once_are_no_way(service: BatchService, files: Files) -> None:
    files.ask(*sums(2))
    code, said = await bulk(files, service.url, "--parallel", "5")
    assert code == 2 and "not allowed with argument" in said and service.calls == []


# -- what is seen


async def test_the_bar_shows_what_is_done_there(service: BatchService, files: Files) -> None:
    """By the counts of the batches; what was done before this run is no pace of it."""
    service.is_held, service.completed = True, 6
    files.ask(*sums(12))
    screen, terminal = pty.openpty()
    run = await Bulk.begin(files, service.url, "--durable", stderr=terminal)
    os.close(terminal)
    await until(lambda: service.calls.count("look") == 2)
    service.completed = 9
    await until(lambda: service.calls.count("look") == 4)
    service.is_held = False
    assert (await run.end())[0] == 0
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    bars = [line for line in shown.split("\r") if line.startswith("[")]
    assert any("[##########..........]  50%  6/12" in bar for bar in bars)
    assert any(" 75%  9/12" in bar for bar in bars)
    assert "12 answered, 0 failed" in shown


# -- the real service


@pytest.fixture
async def real(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    return await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))


async def test_it_is_answered_as_in_a_plain_run(real: Proxy, files: Files, tmp_path: Path) -> None:
    """Line by line the same: texts, what is more than text, what the API or the proxy refuses, what is no line."""
    weather = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    files.ask(
        {"id": "a", "prompt": "Сколько будет 2 + 3?"},
        {"id": 7, "messages": [["system", "На все вопросы отвечай мяу"], ["user", "Привет"]]},
        "",
        {"messages": [{"role": "user", "content": "6*7"}], "generate_parameters": {"stream": True}},
        {"id": "cut", "prompt": "раз, два, три", "generate_parameters": {"max_tokens": 2}},
        {"id": "call", "prompt": "?", "generate_parameters": {"functions": [weather], "function_call": "auto"}},
        {"id": "hot", "prompt": "a", "generate_parameters": {"temperature": "hot"}},
        {"id": "none", "messages": []},
        "{bad",
        *sums(5),
    )
    assert (await bulk(files, real.url))[0] == 1
    other = Files(tmp_path)
    other.answers = tmp_path / "plain.jsonl"
    assert (await plain_bulk(other, real.url))[0] == 1
    assert by_id(files) == by_id(other)
    assert len(files.told()) == 13


def by_id(files: Files) -> dict[Any, Any]:
    """The lines, but for what is different each time."""
    told = {line["id"]: line for line in files.told()}
    for line in told.values():
        line.get("data", {}).pop("created", None)
    return told


async def test_people_go_first_and_nothing_is_left_behind(real: Proxy, files: Files) -> None:
    """The lines are of the class of batches; what was given to the service is deleted there."""
    files.ask(*sums(30))
    assert (await bulk(files, real.url))[0] == 0
    assert len(files.by_id()) == 30
    calls = await real.calls()
    assert len(calls) == 30
    store = real.service.work.store
    assert (await store.files.list(caller=None)).entries == ()
    (batch,) = (await store.batches.list(caller=None)).entries
    assert batch.state == "completed"


async def test_with_a_key_what_is_handed_over_is_its_callers(
    start_proxy: StartProxy, files: Files, tmp_path: Path
) -> None:
    """Another's key does not fetch it, and does not make the command forget it."""
    keys = {"proxy_api_keys": "anna:the-key-of-anna,bob:the-key-of-bob"}
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_max_requests=1, **keys)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 1})
    files.ask(*sums(3))
    run = await Bulk.begin(files, proxy.url, "--durable", "--key", "the-key-of-anna")
    await until(lambda: "batch_" in state_text(files))
    run.process.send_signal(signal.SIGINT)
    assert (await run.end())[0] == 130
    code, said = await bulk(files, proxy.url, "--key", "the-key-of-bob")
    assert code == 2 and "404" in said and "another key?" in said
    assert (await bulk(files, proxy.url, "--key", "the-key-of-anna"))[0] == 0
    assert len(files.by_id()) == 3


def state_text(files: Files) -> str:
    return state_of(files).read_text() if state_of(files).exists() else ""


async def test_a_service_without_jobs_says_so(start_proxy: StartProxy, files: Files) -> None:
    """With the remedy; exit code 2."""
    proxy = await start_proxy(jobs_url=SecretStr("off"))
    files.ask(*sums(2))
    code, said = await bulk(files, proxy.url)
    assert code == 2 and "501" in said and "JOBS_URL" in said


async def test_neither_the_services_death_nor_its_own_costs_an_answer(tmp_path: Path) -> None:
    """Both are killed with -9 in the middle: one answer a line, and only what was not kept yet is paid twice."""
    files, count = Files(tmp_path), 150
    files.ask(*sums(count))
    async with emulator.start(emulator.Options(latency=0.02)) as giga:
        env = {
            "GIGACHAT_BASE_URL": f"{giga.url}/v1",
            "GIGACHAT_AUTH_URL": f"{giga.url}/api/v2/oauth",
            "GIGACHAT_API_KEY": "a-key",
            "EXT_MAX_REQUESTS": "5",
            "PORT": str(free_port()),
        }
        tree = copy_tree(tmp_path)

        def sent() -> int:
            return len(giga.state.calls.to("/chat/completions"))

        first = await asyncio.to_thread(launched, tree, tmp_path / "log", env)
        run = await Bulk.begin(files, first.url, "--durable")
        try:
            await until(lambda: sent() >= 20)
            first.signal(signal.SIGKILL)
            await first.gone()
        finally:
            first.process.kill()
        before = sent()
        unanswered = before - await kept(tree / "assets" / "jobs.sqlite")
        second = await asyncio.to_thread(launched, tree, tmp_path / "log", env)
        try:
            await until(lambda: sent() >= before + 20)
            run.process.kill()
            await run.end()
            code, said = await bulk(files, second.url)
        finally:
            second.process.kill()
            await second.gone()
        assert code == 0, said
        assert files.by_id() == {f"sum-{n}": f"{n} + 1 = {n + 1}" for n in range(count)}
        assert count <= sent() <= count + unanswered


async def kept(place: Path) -> int:
    """How many lines of the one batch have their answers."""
    async with opened(place, is_shared=True) as store:
        (batch,) = (await store.batches.list(caller=None)).entries
    return batch.ended[State.DONE]


def launched(tree: Path, log: Path, env: dict[str, str]) -> Process:
    service = launch(tree, log, env=env)
    service.wait_until_it_listens()
    return service
