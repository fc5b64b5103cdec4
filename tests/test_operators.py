"""`app.py jobs`: what operators see and do, in both engines, with and without a service beside them."""

import asyncio
import json
import os
import pty
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from processes import copy_tree, started
from pydantic import SecretStr
from running import StartProxy, until

import app
from proxy.jobs import SERVICE, Answer, Job, Kind, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.store import Store, opened
from proxy.line import Priority
from proxy.operators import jobs, looking
from proxy.operators.telling import size, span, table

ROOT = Path(__file__).resolve().parent.parent
GOOD = Answer(200, "application/json", b'{"text": "the answer"}')
BAD = Answer(502, "application/json", b'{"error": "no"}')


@pytest.fixture
async def store(place: str) -> AsyncIterator[Store]:
    """That of the service, which has it open meanwhile."""
    async with opened(place) as store:
        yield store


class Told(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def ids(self) -> list[str]:
        return [told["id"] for told in self.objects]


class Operator:
    """Types commands, in a folder with nothing in it."""

    def __init__(self, assets: Path, place: str | None, capsys: pytest.CaptureFixture[str]) -> None:
        self._assets = assets
        self._flags = ["--url", place] if place else []
        self._capsys = capsys

    async def jobs(self, *argv: str) -> Told:
        self._capsys.readouterr()
        code = await asyncio.to_thread(jobs.main, [*argv, *self._flags], self._assets)
        return Told(code, *self._capsys.readouterr())


@pytest.fixture
def operator(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Operator:
    monkeypatch.chdir(tmp_path)
    return Operator(tmp_path, place, capsys)


def a_job(caller: str = "ann", **fields: Any) -> Job:
    known = {"operation": "request", "dialect": "openai", "path": "/v1/chat/completions", "body": b'{"model": "x"}'}
    return Job(**{"caller": caller, **known, **fields})


async def ended(store: Store, *, error: str = "", **fields: Any) -> Job:
    """A job that has run."""
    job = a_job(**fields)
    await store.jobs.add(job)
    (claimed,) = (await store.jobs.claim(Kind.of(job.priority), 1, 60)).jobs
    assert claimed.id == job.id
    if error:
        await store.jobs.fail(claimed.claim, error, answer=BAD)
    else:
        await store.jobs.ack(claimed.claim, GOOD)
    return job


async def state_of(store: Store, job: Job) -> State | None:
    found = await store.jobs.get(job.id, caller=None)
    return found.state if found else None


# -- list


async def test_the_list_is_a_table_of_the_newest_first(store: Store, operator: Operator) -> None:
    """Whose, what, how old, how often begun, what went wrong; and below how many there are at all."""
    failed = await ended(store, error="the API answered 502")
    waiting = a_job("bob", path="/?token=hidden", priority=Priority.LOW)
    await store.jobs.add(waiting)
    told = await operator.jobs()
    heads, first, second, _, listed, whole = told.out.splitlines()
    assert heads.split() == ["ID", "STATE", "AGE", "TRIES", "PRIORITY", "CALLER", "REQUEST", "NOTE"]
    assert first.split() == [waiting.id, "queued", "0", "s", "0", "low", "bob", "POST", "/"]
    assert second.split()[:2] == [failed.id, "failed"] and second.endswith("the API answered 502")
    assert (told.code, listed) == (0, "2 listed")
    assert whole.startswith("1 queued, 0 lines of batches queued, 0 waiting for another attempt, 0 running; 2 kept, ")


async def test_what_is_put_off_tells_when_it_is_tried_again(store: Store, operator: Operator) -> None:
    """A webhook that nobody heard, a job that failed and may succeed; what waits for its turn alone does not."""
    hook, job, waiting = a_job(SERVICE, operation="webhook"), a_job(), a_job()
    await store.jobs.add(hook, job)
    at = time.time() + 330
    for kind, error in ((Kind.OWN, "hooks.example: it answered 500"), (Kind.LIVE, "the API answered 502")):
        (claimed,) = (await store.jobs.claim(kind, 1, 60)).jobs
        await store.jobs.fail(claimed.claim, error, retry_at=at)
    await store.jobs.add(waiting)
    rows = {line.split()[0]: line for line in (await operator.jobs()).out.splitlines() if line}
    assert rows[hook.id].endswith("  again in 5 min: hooks.example: it answered 500")
    assert rows[job.id].endswith("again in 5 min: the API answered 502")
    assert "again" not in rows[waiting.id]
    known = {told["id"]: told["again_at"] for told in (await operator.jobs("--json")).objects}
    assert known == {hook.id: pytest.approx(at), job.id: pytest.approx(at), waiting.id: None}
    assert "again_at" in (await operator.jobs("show", job.id)).out
    assert "again_at" not in (await operator.jobs("show", waiting.id)).out


async def test_when_it_is_tried_again_is_told_until_then_alone(store: Store, operator: Operator) -> None:
    """Not of a job that runs, that was taken before its time, or that has ended."""
    await store.jobs.add(job := a_job())
    (claimed,) = (await store.jobs.claim(Kind.LIVE, 1, 60)).jobs
    await store.jobs.fail(claimed.claim, "no", retry_at=time.time() + 330)

    async def again_at() -> float | None:
        (told,) = (await operator.jobs("--json")).objects
        again: float | None = told["again_at"]
        return again

    assert await again_at()
    early = await store.jobs.claim_one(job.id, caller=None, lease=60)
    assert early and await again_at() is None
    await store.jobs.release(early.claim)
    assert await again_at() is None
    await store.jobs.cancel(job.id, caller=None)
    assert await again_at() is None


async def test_an_empty_list_is_no_failure(store: Store, operator: Operator) -> None:
    assert "0 listed" in (await operator.jobs("list")).out
    assert await operator.jobs("list", "--json") == (0, "", "")


async def test_scripts_get_an_object_a_line(store: Store, operator: Operator) -> None:
    """With ids and times as they are kept, and without what callers say."""
    job = await ended(store, caller="Анна", custom_id="\x1b[2J", webhook="https://hooks.example/secret?t=1")
    told = await operator.jobs("--json")
    (known,) = told.objects
    assert told.out.isascii() and told.err == ""
    assert {name: known[name] for name in ("id", "state", "caller", "custom_id", "webhook", "priority")} == {
        "id": job.id,
        "state": "done",
        "caller": "Анна",
        "custom_id": "\x1b[2J",
        "webhook": "hooks.example",
        "priority": "normal",
    }
    assert known["created"] == pytest.approx(job.created) and known["finished"] >= known["started"]
    assert not {"body", "headers", "answer"} & known.keys()


async def test_lists_are_filtered_and_bounded(
    store: Store, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By states, caller and batch; over more than one page; lines of batches only where they are asked for."""
    monkeypatch.setattr(looking, "AT_ONCE", 3)
    done = await ended(store)
    many = [a_job("bob") for _ in range(10)]
    await store.jobs.add(*many)
    lines = [a_job(batch="batch_1", priority=Priority.BATCH) for _ in range(4)]
    await store.jobs.add(*lines)
    newest_first = [job.id for job in reversed(many)]

    async def listed(*flags: str) -> list[str]:
        return (await operator.jobs("list", "--json", *flags)).ids

    assert await listed() == [*newest_first, done.id]
    assert await listed("--state", "done,failed") == [done.id]
    assert await listed("--caller", "bob") == newest_first
    assert await listed("--caller", "") == []
    assert await listed("--caller", "bob", "--limit", "7") == newest_first[:7]
    assert await listed("--limit", "3") == newest_first[:3]
    assert await listed("--batch", "batch_1") == [job.id for job in reversed(lines)]
    assert "3 listed, there may be more: --limit" in (await operator.jobs("--limit", "3")).out


# -- show


async def test_a_job_is_shown_without_what_was_said(store: Store, operator: Operator) -> None:
    """Its place while it waits, its answer's status when it has one; bodies and headers only with --body."""
    job = await ended(store, body=b'{"secret": "prompt"}', headers={"X-Session-ID": "s-1"})
    await store.jobs.add(a_job("bob"), waiting := a_job("bob"))
    told = await operator.jobs("show", job.id)
    lines = [line.split() for line in told.out.splitlines()]
    assert told.code == 0 and ["status", "200"] in lines and ["bytes", "22"] in lines
    assert not [word for word in ("prompt", "s-1", "the answer") if word in told.out]
    told = await operator.jobs("show", job.id, "--body")
    assert '{"secret": "prompt"}' in told.out and "s-1" in told.out and "the answer" in told.out
    (known,) = (await operator.jobs("show", job.id, "--body", "--json")).objects
    assert (known["body"], known["answer"]) == ('{"secret": "prompt"}', GOOD.body.decode())
    (known,) = (await operator.jobs("show", waiting.id, "--json")).objects
    assert known["before_it"] == 1 and "status" not in known


async def test_a_body_that_is_no_text_is_shown_as_base64(store: Store, operator: Operator) -> None:
    await store.jobs.add(job := a_job(body=b"\xff\x00"))
    assert "base64:/wA=" in (await operator.jobs("show", job.id, "--body")).out


async def test_nothing_of_a_caller_steers_the_terminal(store: Store, operator: Operator) -> None:
    """Escape codes, carriage returns and line ends in names, paths, errors and bodies are no marks but one."""
    steer = "\x1b]0;owned\x07\r\x9b2J"
    job = await ended(store, caller=f"ann{steer}", path=f"/{steer}", custom_id=steer, body=steer.encode(), error=steer)
    for command in (["list"], ["show", job.id], ["show", job.id, "--body"], ["cancel", job.id], ["cancel", steer]):
        told = await operator.jobs(*command)
        assert not set(told.out + told.err) & set("\x1b\x07\r\x9b"), command
    assert len((await operator.jobs()).out.splitlines()) == 5


async def test_a_batch_is_shown_with_its_counts(store: Store, operator: Operator) -> None:
    batch = Batch(caller="ann", endpoint="/v1/embeddings", window="24h", input_file="file_1")
    await store.batches.add(batch)
    await store.batches.advance(batch.id, among=[BatchState.VALIDATING], to=BatchState.IN_PROGRESS, total=2)
    await ended(store, batch=batch.id, priority=Priority.BATCH)
    told = await operator.jobs("show", batch.id)
    assert told.code == 0 and "state        in_progress" in told.out and "ended        done 1" in told.out
    (known,) = (await operator.jobs("show", batch.id, "--json")).objects
    assert (known["total"], known["ended"], known["endpoint"]) == (2, {"done": 1}, "/v1/embeddings")


# -- cancel


async def test_a_queued_job_is_cancelled_and_never_claimed(store: Store, operator: Operator) -> None:
    await store.jobs.add(job := a_job())
    assert await operator.jobs("cancel", job.id) == (0, f"{job.id} is cancelled\n", "")
    assert (await store.jobs.claim(Kind.LIVE, 1, 60)).jobs == ()
    assert (await operator.jobs("cancel", job.id)).code == 0  # as it was wished


async def test_whoever_runs_a_cancelled_job_hears_of_it_when_it_renews_its_lease(
    store: Store, operator: Operator
) -> None:
    """Its answer is not kept then. The operator is told how long that takes."""
    await store.jobs.add(job := a_job())
    (running,) = (await store.jobs.claim(Kind.LIVE, 1, 60)).jobs
    told = await operator.jobs("cancel", job.id)
    assert told.out == f"{job.id} is cancelled; the service lets go of it within 10 s\n"
    assert await store.jobs.renew([running.claim], 60) == {job.id}
    assert not await store.jobs.ack(running.claim, GOOD)


async def test_what_cannot_be_cancelled_is_told_and_the_rest_is_done(store: Store, operator: Operator) -> None:
    """Exit code 1."""
    done = await ended(store)
    await store.jobs.add(waiting := a_job())
    told = await operator.jobs("cancel", done.id, "job_nowhere", waiting.id, "--json")
    assert told.code == 1
    assert [(known["id"], known["is_done"]) for known in told.objects] == [
        (done.id, False),
        ("job_nowhere", False),
        (waiting.id, True),
    ]
    assert "it is done" in told.objects[0]["told"] and "is not there" in told.objects[1]["told"]
    assert (await state_of(store, done), await state_of(store, waiting)) == (State.DONE, State.CANCELLED)


async def test_the_server_of_a_cancelled_job_is_told(store: Store, operator: Operator) -> None:
    """Its webhook is queued, once."""
    await store.jobs.add(job := a_job(webhook="https://hooks.example/"))
    for _ in range(2):
        assert (await operator.jobs("cancel", job.id)).code == 0
    (hook,) = (await store.jobs.list(caller=SERVICE)).entries
    assert (hook.operation, hook.id, hook.state) == ("webhook", f"hook_{job.id}", State.QUEUED)
    row = next(line for line in (await operator.jobs()).out.splitlines() if line.startswith(hook.id))
    assert row.split()[1:] == ["queued", "0", "s", "0", "-", "(the", "service)", "webhook"]


async def test_a_job_that_is_queued_again_tells_its_end_again(store: Store, operator: Operator) -> None:
    """The word of its first end does not stand in the way."""
    await store.jobs.add(job := a_job(webhook="https://hooks.example/"))
    assert (await operator.jobs("cancel", job.id)).code == 0
    (hook,) = (await store.jobs.claim(Kind.OWN, 1, 60)).jobs
    await store.jobs.ack(hook.claim, GOOD)
    assert (await operator.jobs("retry", job.id)).code == 0
    assert await state_of(store, hook) is None
    assert (await operator.jobs("cancel", job.id)).code == 0
    assert await state_of(store, hook) is State.QUEUED


async def test_a_batch_is_cancelled_as_a_whole(store: Store, operator: Operator) -> None:
    """Not by ending the service's own work on it, which is refused."""
    batch = Batch(caller="ann", endpoint="/v1/embeddings", window="24h", input_file="file_1")
    await store.batches.add(batch)
    work = Job(id=f"run_{batch.id}", caller=SERVICE, operation="batch", dialect="openai", priority=Priority.HIGH)
    await store.jobs.add(work)
    told = await operator.jobs("cancel", work.id)
    assert told.code == 1 and "cancel the batch itself" in told.out
    assert (await operator.jobs("cancel", batch.id)).code == 0
    now = await store.batches.get(batch.id, caller=None)
    assert now and now.state is BatchState.CANCELLING
    told = await operator.jobs("cancel", batch.id)
    assert told.code == 1 and "is cancelling" in told.out


# -- retry


async def test_what_failed_is_queued_again(store: Store, operator: Operator) -> None:
    """And what was cancelled; what is done, runs or is not there stays as it is, and that is told."""
    failed, cancelled, done = await ended(store, error="no"), a_job(), await ended(store)
    await store.jobs.add(cancelled)
    await store.jobs.cancel(cancelled.id, caller=None)
    told = await operator.jobs("retry", failed.id, cancelled.id)
    assert told.code == 0 and told.out.count("is queued again") == 2
    assert {await state_of(store, failed), await state_of(store, cancelled)} == {State.QUEUED}
    told = await operator.jobs("retry", failed.id, done.id, "job_nowhere")
    assert told.code == 1
    assert [line.split(" ", 1)[1] for line in told.out.splitlines()] == [
        "is queued: it has not ended",
        "is done: it has its answer",
        "is not there: it is forgotten by now, or the id is wrong",
    ]


async def test_a_line_is_queued_again_only_while_its_batch_is_in_progress(store: Store, operator: Operator) -> None:
    """Afterwards nobody would look for its answer."""
    batch = Batch(caller="ann", endpoint="/v1/embeddings", window="24h", input_file="file_1")
    await store.batches.add(batch)
    line = await ended(store, batch=batch.id, priority=Priority.BATCH, error="no")
    assert "of a batch that is over" in (await operator.jobs("retry", line.id)).out
    await store.batches.advance(batch.id, among=[BatchState.VALIDATING], to=BatchState.IN_PROGRESS, total=1)
    assert (await operator.jobs("retry", line.id)).code == 0


# -- purge


async def test_purge_forgets_what_has_ended_and_nothing_else(
    store: Store, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many pages; what is queued, what runs and the lines of batches stay."""
    monkeypatch.setattr(looking, "AT_ONCE", 2)
    for _ in range(5):
        await ended(store)
    failed, of_bob = await ended(store, error="no"), await ended(store, caller="bob")
    line = await ended(store, batch="batch_1", priority=Priority.BATCH)
    await store.jobs.add(waiting := a_job())
    assert (await operator.jobs("purge", "--state", "done", "--caller", "ann", "--yes")).out == "5 forgotten\n"
    left = [await state_of(store, job) for job in (failed, of_bob, line, waiting)]
    assert left == [State.FAILED, State.DONE, State.DONE, State.QUEUED]
    assert (await operator.jobs("purge", "--json")).objects == [{"forgotten": 2}]
    assert [await state_of(store, job) for job in (failed, of_bob, waiting)] == [None, None, State.QUEUED]
    assert await operator.jobs("purge") == (0, "0 forgotten\n", "")


async def test_purge_minds_how_long_ago_jobs_have_ended(
    store: Store, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await ended(store)
    assert (await operator.jobs("purge", "--older-than", "1h")).out == "0 forgotten\n"
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3700)
    assert (await operator.jobs("purge", "--older-than", "1h")).out == "1 forgotten\n"
    assert await state_of(store, job) is None


async def test_two_who_purge_at_once_do_not_disturb_each_other(
    store: Store, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the next page would begin is gone: the list is begun anew."""
    monkeypatch.setattr(looking, "AT_ONCE", 2)
    for _ in range(20):
        await ended(store)
    told = await asyncio.gather(
        operator.jobs("purge"), *(store.jobs.delete(id, caller=None) for id in await ids(store))
    )
    assert told[0].code == 0
    assert await ids(store) == []


async def ids(store: Store) -> list[str]:
    return [job.id for job in (await store.jobs.list(caller=None)).entries]


@pytest.mark.parametrize(("word", "is_done"), [("y\n", True), ("\n", False), ("no\n", False), ("\x04", False)])
async def test_on_a_terminal_purge_asks_before(tmp_path: Path, word: str, is_done: bool) -> None:
    """It tells how many; with --yes it does not ask. Without a terminal, in scripts, there is nobody to ask."""
    async with opened(tmp_path / "jobs.sqlite") as store:
        job = await ended(store)
        assert "Forget 1 jobs that are over" in await typed(tmp_path, word, "purge")
        assert (await state_of(store, job) is None) is is_done
        assert "Forget" not in await typed(tmp_path, "", "purge", "--yes")
        assert await state_of(store, job) is None


async def typed(folder: Path, word: str, *argv: str) -> str:
    """What a terminal shows where `app.py jobs` was started, and this was typed."""
    screen, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "app.py"), "jobs", *argv, "--url", str(folder / "jobs.sqlite")),
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
        env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"},
        cwd=folder,
    )
    os.close(terminal)
    os.write(screen, word.encode())
    await process.wait()
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    return shown


# -- when there is nothing to look at


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Operator:
    """An operator where no place is named."""
    monkeypatch.chdir(tmp_path)
    return Operator(tmp_path, None, capsys)


async def test_without_a_store_it_says_so_and_makes_none(alone: Operator, tmp_path: Path) -> None:
    told = await alone.jobs("list")
    assert told.code == 1 and told.out == ""
    assert f"no jobs are kept at {tmp_path / 'jobs.sqlite'}" in told.err and "JOBS_URL" in told.err
    assert os.listdir(tmp_path) == []


async def test_the_place_is_the_one_that_the_service_has(alone: Operator, tmp_path: Path) -> None:
    """assets/jobs.sqlite, or what JOBS_URL says in the environment, in .env or in another such file."""
    async with opened(tmp_path / "jobs.sqlite") as store:
        await store.jobs.add(job := a_job())
        assert (await alone.jobs("--json")).ids == [job.id]
    (tmp_path / "jobs.sqlite").rename(tmp_path / "mine.sqlite")
    (tmp_path / ".env").write_text("JOBS_URL=mine.sqlite\n")
    assert (await alone.jobs("--json")).ids == [job.id]
    (tmp_path / "other").write_text("JOBS_URL=off\n")
    told = await alone.jobs("--env-path", "other")
    assert told.code == 1 and "keeps no jobs (JOBS_URL=off)" in told.err


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("redis://:s3cret@127.0.0.1:1/0", 1, "is not reached"),
        ("redis://:s3cret@host:port/", 2, "app.py jobs: JOBS_URL cannot be used"),
        ("broken.sqlite", 1, "damaged or no database"),
    ],
)
async def test_a_store_that_cannot_be_used_is_told_without_its_secrets(
    alone: Operator, tmp_path: Path, place: str, code: int, said: str
) -> None:
    (tmp_path / "broken.sqlite").write_text("dear diary, " * 1000)
    told = await alone.jobs("--url", place)
    assert told.code == code and said in told.err
    assert "s3cret" not in told.err + told.out


async def test_another_programs_database_is_left_alone(alone: Operator, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "theirs.sqlite") as theirs:
        theirs.execute("CREATE TABLE diary (entry TEXT)")
    theirs.close()
    before = (tmp_path / "theirs.sqlite").read_bytes()
    told = await alone.jobs("--url", "theirs.sqlite")
    assert told.code == 1 and (tmp_path / "theirs.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lst"], "invalid choice: 'lst'"),
        (["--state", "asleep"], "'asleep' is none of queued, running"),
        (["purge", "--state", "running"], "'running' is none of done, failed"),
        (["--limit", "0"], "'0' is no whole number above 0"),
        (["purge", "--older-than", "soon"], "'soon' is no time such as 90s, 15m, 1h or 7d"),
        (["purge", "--older-than", "-1h"], "expected one argument"),
        (["cancel"], "the following arguments are required: ID"),
        (["show", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_a_wrong_command_is_told_with_what_is_right(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2."""
    with pytest.raises(SystemExit) as end:
        jobs.main(argv)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_a_wrong_setting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Exit code 2."""
    monkeypatch.setenv("JOBS_MAX", "many")
    assert jobs.main([], tmp_path) == 2
    assert "JOBS_MAX=many in the environment is wrong" in capsys.readouterr().err


def test_the_command_is_found_where_people_look(capsys: pytest.CaptureFixture[str]) -> None:
    """In `app.py --help`; and `app.py jobs --help` names every command with the exit codes."""
    for argv in (["--help"], ["jobs", "--help"]):
        with pytest.raises(SystemExit) as end:
            app.main(argv)
        assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "app.py jobs --help" in " ".join(shown.split())
    assert [name for name in ("list", "show", "cancel", "retry", "purge", "Exit code") if name not in shown] == []


def test_every_command_of_the_document_is_understood() -> None:
    """And its table has the columns that there are."""
    section = (ROOT / "docs" / "jobs.md").read_text().partition("\n## Operators\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^python3 app\.py jobs *(.*?)(?: \| jq .*)?$", section, re.M)
    assert len(commands) == 6
    for command in commands:
        assert jobs.read(shlex.split(command))
    for name in re.findall(r"^\| `jobs(?:`, `jobs)? (\w+)", section, re.M):
        assert jobs.read([name, *(["ID"] if name in ("show", "cancel", "retry") else [])])
    assert "  ".join(looking.HEADS).split() == next(line for line in section.splitlines() if "STATE" in line).split()


# -- beside a service


async def typed_by_scripts(place: str, *argv: str) -> Told:
    """`app.py jobs` as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "app.py"), "jobs", *argv, "--url", place),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"},
    )
    out, err = await process.communicate()
    return Told(process.returncode or 0, out.decode(), err.decode())


def native(text: str) -> Job:
    body = json.dumps({"messages": [["user", text]]}).encode()
    return a_job(dialect="native", path="/", body=body, headers={"Content-Type": "application/json"})


async def test_beside_a_running_service_it_cancels_and_retries(place: str, start_proxy: StartProxy) -> None:
    """A cancelled job is never sent; one that failed is answered after all."""
    proxy = await start_proxy(ext_max_requests=1, jobs_url=SecretStr(place))
    store, giga = proxy.service.work.store, proxy.giga.state
    giga.faults.add({"kind": "stall"}, {"kind": "status", "status": 422})
    holding = asyncio.create_task(proxy.ask("holding"))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    jobs = [native(f"text {number}") for number in range(12)]
    await store.jobs.add(*jobs)
    await until(lambda: proxy.service.line.state().waiting == 10)
    assert (await typed_by_scripts(place, "--state", "queued", "--json")).ids == [jobs[11].id, jobs[10].id]
    assert (await typed_by_scripts(place, "cancel", jobs[11].id)).code == 0
    holding.cancel()
    await until_over(store, *jobs)
    told = await typed_by_scripts(place, "--state", "failed", "--json")
    assert told.ids == [jobs[0].id]
    assert (await typed_by_scripts(place, "retry", jobs[0].id)).code == 0
    await store.jobs.add(another := native("text 12"))  # SQLite tells another process's changes at the next claim
    await until_over(store, jobs[0], another)
    assert await state_of(store, jobs[0]) is State.DONE
    sent = await proxy.sent_texts()
    assert sorted(sent) == sorted(["holding", "text 0", *(f"text {number}" for number in range(11)), "text 12"])


async def until_over(store: Store, *jobs: Job) -> None:
    async with asyncio.timeout(20):
        for job in jobs:
            with store.jobs.news(job.id) as news:
                while not ((state := await state_of(store, job)) and state.is_end):
                    await news.next(1)


def test_the_service_and_its_operator_find_the_same_store(tmp_path: Path) -> None:
    """From whichever folder. `jobs` is a command as the first word alone: the service's own flags go on working."""
    tree = copy_tree(tmp_path)
    with started(tree, tmp_path / "log", "--sandbox", "--port", "0"):
        told = subprocess.run(
            [sys.executable, str(tree / "app.py"), "jobs"],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"},
            cwd=tmp_path,
            check=True,
        )
    assert "0 listed" in told.stdout and str(tree / "assets" / "jobs.sqlite") in told.stdout


def test_who_reads_only_the_first_lines_is_not_complained_to(tmp_path: Path) -> None:
    """`app.py jobs --json | head -1`."""

    async def fill() -> None:
        async with opened(tmp_path / "jobs.sqlite") as store:
            await store.jobs.add(*(a_job() for _ in range(400)))

    asyncio.run(fill())
    command = [sys.executable, str(ROOT / "app.py"), "jobs", "--json", "--limit", "400"]
    process = subprocess.Popen(
        [*command, "--url", str(tmp_path / "jobs.sqlite")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stderr
    assert process.stdout.readline().startswith(b'{"id": ')
    process.stdout.close()
    with process.stderr as errors:
        assert errors.read() == b""
    assert process.wait() == 0


# -- how it is told


def test_spans_and_sizes_are_told_in_one_unit() -> None:
    assert [span(seconds) for seconds in (-1, 0.9, 59, 60, 7199, 86_400, 1e7)] == [
        *("0 s", "0 s", "59 s", "1 min", "1 h", "1 d", "115 d")
    ]
    assert [size(count) for count in (0, 1023, 1536, 3 * 1024**3)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]


def test_a_table_fits_its_terminal() -> None:
    """Columns are as wide as their longest cell; a line that is too long is cut, and shows it."""
    assert list(table(("A", "B"), [("1", "2"), ("long", "longer")])) == ["A     B", "1     2", "long  longer"]
    assert list(table(("A", "B"), [("1", "2"), ("long", "longer")], 8)) == ["A     B", "1     2", "long  l…"]
