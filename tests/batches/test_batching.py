"""A batch from its file to its files, in every store."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from batch_talk import (
    CHAT,
    LIFE,
    accepted,
    batching_of,
    become,
    codes,
    echo,
    eventually,
    line,
    lines,
    now,
    ordered,
    over,
    pieces,
    read,
    running,
    uploaded,
    work_on,
)
from running import until

from proxy import batching
from proxy.batching import accept
from proxy.errors import JobsFull
from proxy.jobs import Answer, Job, Room, State, runner
from proxy.jobs.batches import BatchState
from proxy.jobs.files import StoredFile
from proxy.jobs.store import Store, opened
from proxy.line import Priority


async def test_a_batch_becomes_a_file_of_answers(store: Store):
    """Each line's answer is there once; the lines themselves are gone, and so is nothing else."""
    async with running(store):
        batch = await accepted(store, lines(5))
        done = await over(store, batch)
    assert done.state is BatchState.COMPLETED and done.error_file is None
    assert (done.total, done.ended[State.DONE]) == (5, 5)
    answers = await read(store, done.output_file)
    assert {id: each["response"]["body"]["n"] for id, each in answers.items()} == {str(n): str(n) for n in range(5)}
    assert codes(answers) == {}
    assert [*done.times] == [
        BatchState.VALIDATING,
        BatchState.IN_PROGRESS,
        BatchState.FINALIZING,
        BatchState.COMPLETED,
    ] or store.where.startswith("redis")
    assert await store.files.get(batch.input_file, caller="ann") is not None


async def test_the_files_are_its_callers_and_are_kept_as_long_as_was_asked_for(store: Store):
    async with running(store):
        done = await over(store, await accepted(store, lines(1)))
    file = await store.files.get(str(done.output_file), caller="ann")
    assert file is not None and (file.purpose, file.filename) == ("batch_output", f"{done.id}_output.jsonl")
    assert file.expires_at == pytest.approx(time.time() + LIFE, abs=60)
    assert await store.files.get(str(done.output_file), caller="bob") is None
    assert done.expires_at == pytest.approx(time.time() + batching.KEEP, abs=60)


async def test_what_fails_stands_in_a_file_of_its_own(store: Store):
    """With what the API said of it; the batch is completed all the same."""

    async def respond(job: Job) -> Answer:
        return Answer(400 if job.custom_id == "1" else 200, "application/json", b'{"error": {"message": "no"}}')

    async with running(store, respond):
        done = await over(store, await accepted(store, lines(3)))
    assert done.state is BatchState.COMPLETED and (done.ended[State.DONE], done.ended[State.FAILED]) == (2, 1)
    assert (await read(store, done.output_file)).keys() == {"0", "2"}
    (error,) = (await read(store, done.error_file)).values()
    assert (error["custom_id"], error["error"]) == ("1", None)
    assert error["response"]["status_code"] == 400 and error["response"]["body"]["error"]["message"] == "no"


async def test_without_an_answer_there_is_no_file_of_answers(store: Store):
    async def respond(job: Job) -> Answer:
        return Answer(404, "application/json", b"{}")

    async with running(store, respond):
        done = await over(store, await accepted(store, lines(2)))
    assert (done.state, done.output_file) == (BatchState.COMPLETED, None)
    assert len(await read(store, done.error_file)) == 2


async def test_a_line_is_a_job_of_the_batchs_caller(store: Store):
    """It may be run at leisure until the window is over."""
    ran: list[Job] = []

    async def respond(job: Job) -> Answer:
        ran.append(job)
        return await echo(job)

    async with running(store, respond):
        batch = await accepted(store, [line("a")])
        await over(store, batch)
    (job,) = ran
    assert (job.method, job.path, job.dialect, job.operation) == ("POST", CHAT, "openai", "request")
    assert (job.caller, job.batch, job.custom_id) == ("ann", batch.id, "a")
    assert (job.priority, job.deadline) == (Priority.BATCH, pytest.approx(batch.deadline))
    assert json.loads(job.body) == {"messages": [], "n": "a"}
    assert {name.lower() for name in job.headers} == {"content-type"}


async def test_empty_lines_are_no_requests(store: Store):
    texts = ["", line("a"), "  \t", "\r", line("b") + "\r", ""]
    async with running(store):
        done = await over(store, await accepted(store, texts))
    assert (done.total, done.state) == (2, BatchState.COMPLETED)
    assert (await read(store, done.output_file)).keys() == {"a", "b"}


# ---- What is wrong with a file ----


async def test_no_line_of_a_file_is_run_that_has_a_bad_one(store: Store):
    """Though it is the last one."""
    ran: list[str | None] = []

    async def respond(job: Job) -> Answer:
        ran.append(job.custom_id)
        return await echo(job)

    async with running(store, respond):
        failed = await over(store, await accepted(store, [*lines(20), "{", line("3")]))
    assert failed.state is BatchState.FAILED and (failed.total, ran) == (0, [])
    assert [(error["line"], error["code"]) for error in failed.errors] == [
        (21, "invalid_json_line"),
        (22, "duplicate_custom_id"),
    ]
    assert (failed.output_file, failed.error_file) == (None, None)
    assert failed.expires_at is not None


async def test_a_file_that_is_gone_is_an_error_of_its_batch(store: Store):
    async with running(store):
        failed = await over(store, await accepted(store, [], input_file="file_none"))
    assert failed.state is BatchState.FAILED and failed.errors[0]["code"] == "file_not_found"


async def test_an_empty_file_is_an_error_of_its_batch(store: Store):
    async with running(store):
        failed = await over(store, await accepted(store, ["", ""]))
    assert failed.state is BatchState.FAILED and failed.errors[0]["code"] == "empty_file"


async def test_a_file_has_no_more_lines_than_the_store_has_room_for(store: Store):
    async with running(store, room=4):  # of which batches may have three
        batch = await accepted(store, lines(4))
        assert (await over(store, batch)).errors[0]["code"] == "too_many_tasks"
        assert (await over(store, await accepted(store, lines(3)))).state is BatchState.COMPLETED


async def test_a_line_that_is_too_long_is_an_error_and_never_whole_in_memory(store: Store):
    async with running(store, longest=1000):
        failed = await over(store, await accepted(store, [line("a"), line("b", body={"text": "x" * 100_000})]))
    assert [(error["line"], error["code"]) for error in failed.errors] == [(2, "invalid_request")]


# ---- Room ----


async def test_a_batch_waits_until_the_lines_of_others_have_left(store: Store, monkeypatch: pytest.MonkeyPatch):
    """It is inspected once only, however long it waits."""
    monkeypatch.setattr(batching, "PAUSE", 0.01)
    go = asyncio.Event()
    looks = 0
    hear = batching.Inspection.hear

    def counted(self: Any, number: int, text: bytes) -> None:
        nonlocal looks
        looks += 1
        hear(self, number, text)

    async def respond(job: Job) -> Answer:
        await go.wait()
        return await echo(job)

    monkeypatch.setattr(batching.Inspection, "hear", counted)
    async with running(store, respond, room=8):  # of which batches may have six
        first = await accepted(store, lines(4))
        await become(store, first, BatchState.IN_PROGRESS)
        second = await accepted(store, lines(4))

        async def waits() -> bool:
            return "no room" in (await work_on(store, second)).error

        await eventually(waits)
        assert (await now(store, second)).state is BatchState.VALIDATING
        go.set()
        for batch in (first, second):
            assert (await over(store, batch)).state is BatchState.COMPLETED
    assert looks == 8


async def test_a_store_without_room_only_delays_a_batch(place: str, monkeypatch: pytest.MonkeyPatch):
    """It goes on where it was left; no line is lost, and none is run twice."""
    monkeypatch.setattr(batching, "PAUSE", 0.01)
    ran: list[str | None] = []

    async def respond(job: Job) -> Answer:
        ran.append(job.custom_id)
        return await echo(job)

    async with opened(place, room=Room(jobs=7)) as store:
        held = [Job(caller="bob", operation="chat", dialect="openai") for _ in range(3)]
        await store.jobs.add(*held)
        for job in held:
            await store.jobs.cancel(job.id, caller="bob")
        batch = await accepted(store, lines(5))

        async def waits() -> bool:
            return bool((await work_on(store, batch)).error)

        async with running(store, respond):
            await eventually(waits)
            assert (await now(store, batch)).state is BatchState.IN_PROGRESS
            for job in held:
                await store.jobs.delete(job.id, caller="bob")
            done = await over(store, batch)
    assert done.state is BatchState.COMPLETED
    assert sorted(map(str, ran)) == list("01234")


async def test_answers_that_fill_the_store_are_delivered(place: str):
    """They are paid for. Once they are in a file, the lines leave the store and make room."""
    long = "x" * 10_000

    async def respond(job: Job) -> Answer:
        return Answer(200, "application/json", json.dumps({"long": long}).encode())

    async with opened(place, room=Room(bytes=1_000_000)) as store:
        batch = await accepted(store, lines(150))
        async with running(store, respond):
            done = await over(store, batch)
        assert done.state is BatchState.COMPLETED
        assert len(await read(store, done.output_file)) == 150


async def test_a_batch_for_which_there_is_no_room_is_refused_and_never_run(place: str):
    async with opened(place, room=Room(bytes=10_000_000)) as store:
        order = await ordered(store, lines(1))
    async with opened(place, room=Room(bytes=1)) as store:
        with pytest.raises(JobsFull):
            await accept(store, order)
    async with opened(place) as store, running(store):
        later = await over(store, await accepted(store, lines(1)))
        assert later.state is BatchState.COMPLETED
        assert await store.batches.get(order.batch.id, caller=None) is None


# ---- Cancelling ----


async def cancel(store: Store, id: str) -> None:
    """As the edge does it."""
    among = [BatchState.VALIDATING, BatchState.IN_PROGRESS]
    assert await store.batches.advance(id, among=among, to=BatchState.CANCELLING)
    await store.jobs.cancel_lines(id)


async def test_a_cancelled_batch_keeps_what_was_answered_and_lets_end_what_runs(store: Store):
    began, go = asyncio.Event(), asyncio.Event()

    async def respond(job: Job) -> Answer:
        if job.custom_id != "0":
            began.set()
            await go.wait()
        return await echo(job)

    async with running(store, respond):
        batch = await accepted(store, lines(300))
        await began.wait()

        async def is_whole() -> bool:
            return (await work_on(store, batch)).progress == "all"

        await eventually(is_whole)
        await cancel(store, batch.id)
        assert (await now(store, batch)).state is BatchState.CANCELLING
        go.set()
        done = await over(store, batch)
    assert done.state is BatchState.CANCELLED and BatchState.FINALIZING not in done.times
    answers, errors = await read(store, done.output_file), await read(store, done.error_file)
    assert {"0", "1"} <= answers.keys() and len(answers) + len(errors) == 300
    assert codes(errors) == dict.fromkeys(errors, "batch_cancelled")


async def test_lines_that_never_became_jobs_are_told_as_cancelled(store: Store, monkeypatch: pytest.MonkeyPatch):
    """The batch was cancelled while they were added."""
    batch = await accepted(store, lines(9))
    add, ran = store.jobs.add, 0

    async def add_and_cancel(*jobs: Job, is_owed: bool) -> None:
        await add(*jobs, is_owed=is_owed)
        if jobs[0].id.endswith("_3"):
            await cancel(store, batch.id)

    async def respond(job: Job) -> Answer:
        nonlocal ran
        ran += 1
        return await echo(job)

    monkeypatch.setattr(store.jobs, "add", add_and_cancel)
    async with running(store, respond):
        done = await over(store, batch)
    assert done.state is BatchState.CANCELLED and ran <= 4
    errors = await read(store, done.error_file)
    answers = await read(store, done.output_file) if done.output_file else {}
    assert sorted([*answers, *errors]) == list("012345678")
    assert codes(errors) == dict.fromkeys(errors, "batch_cancelled")


async def test_a_batch_is_cancelled_before_it_began(store: Store):
    batch = await accepted(store, lines(2))
    await cancel(store, batch.id)
    async with running(store):
        done = await over(store, batch)
    assert done.state is BatchState.CANCELLED
    assert (done.total, done.output_file, done.error_file) == (0, None, None)


async def test_an_attempt_that_failed_is_not_made_again_in_a_cancelled_batch(store: Store):
    """It waits for its next one when the batch is cancelled."""
    failed = asyncio.Event()

    async def respond(job: Job) -> Answer:
        failed.set()
        return Answer(503, "application/json", b"{}")

    async with running(store, respond):
        batch = await accepted(store, lines(1))
        await failed.wait()
        await cancel(store, batch.id)
        done = await over(store, batch)
    assert done.state is BatchState.CANCELLED
    assert codes(await read(store, done.error_file)) == {"0": "batch_cancelled"}


# ---- The window ----


async def test_a_batch_whose_window_is_over_has_what_was_answered_in_it(store: Store):
    """What runs then ends; what did not begin has expired."""
    late = asyncio.Event()
    began: list[str | None] = []

    async def respond(job: Job) -> Answer:
        began.append(job.custom_id)
        if job.custom_id != "0":
            await late.wait()
        return await echo(job)

    async with running(store, respond):
        batch = await accepted(store, lines(400), deadline=time.time() + 1.5)
        await until(lambda: time.time() > batch.deadline)
        late.set()
        done = await over(store, batch)
    assert done.state is BatchState.EXPIRED and done.times[BatchState.EXPIRED]
    errors = await read(store, done.error_file)
    answers = await read(store, done.output_file) if began else {}
    assert len(answers) + len(errors) == 400
    assert answers.keys() == set(began)
    assert codes(errors) == dict.fromkeys(errors, "batch_expired")


async def test_a_batch_that_comes_too_late_runs_nothing(store: Store):
    """As when the service was stopped for longer than its window; each line is told."""
    ran: list[Job] = []

    async def respond(job: Job) -> Answer:
        ran.append(job)
        return await echo(job)

    async with running(store, respond):
        done = await over(store, await accepted(store, lines(3), deadline=time.time() - 1))
    assert (done.state, done.output_file, ran) == (BatchState.EXPIRED, None, [])
    assert codes(await read(store, done.error_file)) == dict.fromkeys("012", "batch_expired")


# ---- The file ----


async def test_a_file_that_is_deleted_in_the_middle_ends_its_batch(store: Store, monkeypatch: pytest.MonkeyPatch):
    """What had begun is answered; the batch says why it has no more."""
    monkeypatch.setattr(batching, "BYTES_AT_ONCE", 1)
    file = await store.files.add(
        StoredFile(caller="ann", purpose="batch", filename="in"),
        pieces("\n".join(line(str(n), body={"n": "x" * 9000}) for n in range(200)).encode()),
    )
    batch = await accepted(store, [], input_file=file.id)
    add = store.jobs.add

    async def add_and_delete(*jobs: Job, is_owed: bool) -> None:
        await add(*jobs, is_owed=is_owed)
        await store.files.delete(file.id, caller="ann")

    monkeypatch.setattr(store.jobs, "add", add_and_delete)
    async with running(store):
        done = await over(store, batch)
    assert done.state is BatchState.CANCELLED and done.errors[0]["code"] == "file_not_found"
    told = [await read(store, each) for each in (done.output_file, done.error_file) if each]
    assert 0 < sum(map(len, told)) < 200


async def test_a_batch_does_not_depend_on_how_its_file_came(store: Store):
    """In pieces of any size."""
    text = "\n".join(lines(7)).encode()

    async def byte_by_byte() -> AsyncIterator[bytes]:
        for each in text:
            yield bytes([each])

    file = await store.files.add(StoredFile(caller="ann", purpose="batch", filename="in"), byte_by_byte())
    async with running(store):
        done = await over(store, await accepted(store, [], input_file=file.id))
    assert len(await read(store, done.output_file)) == 7


async def test_a_name_that_is_no_unicode_owns_batches_like_any_other(store: Store):
    file = await uploaded(store, lines(1), caller="\udcff")
    async with running(store):
        done = await over(store, await accepted(store, [], caller="\udcff", input_file=file))
    assert done.state is BatchState.COMPLETED
    assert await store.files.get(str(done.output_file), caller="\udcff") is not None


async def test_a_batch_says_nothing_of_its_requests_when_it_is_shown(store: Store):
    order = await ordered(store, [line("a", body={"messages": ["secret"]})])
    job = batching.job_of(order.batch, 1, line("a", body={"messages": ["secret"]}).encode())
    told = repr([order.job(), job, batching_of(store)])
    assert "secret" not in told and "Batching" in told
    assert replace(job).id == job.id


async def test_a_bug_only_delays_a_batch(store: Store, monkeypatch: pytest.MonkeyPatch, caplog: Any):
    """The log has it; the batch goes on when another attempt does better."""
    monkeypatch.setattr(runner, "FIRST_BACKOFF", 0.01)
    bugs = [ZeroDivisionError("oops")]
    advance = store.batches.advance

    async def advance_or_not(*args: Any, **changes: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return await advance(*args, **changes)

    monkeypatch.setattr(store.batches, "advance", advance_or_not)
    async with running(store):
        assert (await over(store, await accepted(store, lines(1)))).state is BatchState.COMPLETED
    assert "ZeroDivisionError" in caplog.text
