"""What only the file of SQLite has to promise: few commits, a private file, a lock, a disk that is full or broken."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from making import ANSWER, LONG, OpenStore, a_job, pieces, run_one, some_jobs, state_of, take

from proxy.errors import JobsFull, JobsUnavailable
from proxy.jobs import Kind, Room, State
from proxy.jobs.batches import Batch
from proxy.jobs.files import StoredFile
from proxy.jobs.sqlite import schema
from proxy.jobs.sqlite.database import Database
from proxy.jobs.sqlite.database import opened as opened_database
from proxy.jobs.sqlite.jobs import SqliteJobs
from proxy.jobs.sqlite.session import Writer
from proxy.jobs.store import opened

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


# ---- Commits ----


async def test_a_thousand_adds_at_once_share_a_few_commits(path: Path):
    """Each is on the disk when it returns, and they do not wait for a thousand writes of the disk."""
    async with opened_database(path, Room()) as database:
        jobs = SqliteJobs(database)
        await asyncio.gather(*map(jobs.add, some_jobs(1000)))
        assert database.commits <= 20
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT count(*) FROM jobs").fetchone() == (1000,)


async def test_what_is_written_together_is_refused_apart(path: Path):
    """One of many that fails, by its own fault or for want of room, takes no other with it."""
    async with opened_database(path, Room()) as database:
        jobs = SqliteJobs(database)
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count = 200").fetchall())

        def bug(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO total VALUES (7)")
            raise ZeroDivisionError

        outcomes = await asyncio.gather(
            jobs.add(a_job()),
            database.write(bug),
            jobs.add(a_job(body=bytes(10_000_000))),
            database.write(lambda connection: connection.execute("NONSENSE")),
            jobs.add(a_job()),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [
            type(None), ZeroDivisionError, JobsFull, sqlite3.OperationalError, type(None)
        ]  # fmt: skip
        state = await jobs.state()
        assert (state.jobs, state.live) == (2, 2)


async def test_a_place_is_told_without_counting_the_whole_line(path: Path):
    """Whoever is accepted behind thousands hears its place as soon as the first did; SQLite counts its own steps."""
    async with opened_database(path, Room()) as database:
        jobs, told, steps = SqliteJobs(database), some_jobs(5000), []
        await jobs.add(*told)
        await database.read(lambda connection: connection.set_progress_handler(lambda: steps.append(1), 100))
        assert [await jobs.position(told[number].id) for number in (0, 4999)] == [0, 4999]
        assert (await jobs.state()).live == 5000
        assert len(steps) < 50  # a look at each job of the line takes several


async def test_whoever_leaves_does_not_undo_what_it_handed_over(path: Path, open_store: OpenStore):
    """The job is there, and whoever waits for one is told."""
    jobs = (await open_store(path)).jobs
    job = a_job()
    with jobs.news(Kind.LIVE.topic) as news:
        adding = asyncio.create_task(jobs.add(job))
        await asyncio.sleep(0)
        adding.cancel()
        assert await news.next(20)
    assert (await state_of(jobs, job)).state is State.QUEUED


async def test_what_was_handed_over_before_the_end_is_written(path: Path, open_store: OpenStore):
    """And what comes after it is refused in so many words."""
    async with opened_database(path, Room()) as database:
        jobs = SqliteJobs(database)
        adding = [asyncio.create_task(jobs.add(job)) for job in some_jobs(100)]
        await asyncio.sleep(0)
    await asyncio.gather(*adding)
    with pytest.raises(JobsUnavailable, match="closed"):
        await jobs.add(a_job())
    with pytest.raises(JobsUnavailable, match="closed"):
        await jobs.state()
    assert (await (await open_store(path)).jobs.state()).jobs == 100


async def test_the_database_tells_its_state_when_printed(path: Path):
    async with opened_database(path, Room()) as database:
        assert repr(database) == f"<Database {path} <Writer jobs writer open waiting=0> commits=0>"


# ---- The file ----


@pytest.mark.parametrize("mode", [None, 0o666])
async def test_the_files_are_their_owners_alone(path: Path, open_store: OpenStore, mode: int | None):
    """Also if it was there with wider rights: prompts are in it."""
    if mode is not None:
        os.close(os.open(path, os.O_CREAT, mode))
        os.chmod(path, mode)
    store = await open_store(path)
    await store.jobs.add(a_job())
    files = [*path.parent.glob("jobs.sqlite*")]
    assert {file.suffix for file in files} >= {".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_the_next_process_finds_everything(path: Path, open_store: OpenStore):
    """Jobs, files, batches; and what ran is claimable at once, though its lease has not ended."""
    async with opened(path) as store:
        await store.jobs.add(*some_jobs(3))
        running = await run_one(store.jobs)
        done = await run_one(store.jobs)
        await store.jobs.ack(done.claim, ANSWER)
        file = await store.files.add(StoredFile(caller="ann", purpose="batch", filename="f"), pieces(b"content"))
        await store.batches.add(batch := Batch(caller="ann", endpoint="/", window="24h", input_file=file.id))
    store = await open_store(path)
    again = await take(store.jobs)
    assert again[0].id == running.id and again[0].fence == 2 and len(again) == 2
    assert (await state_of(store.jobs, done)).answer == ANSWER
    assert await store.files.get(file.id, caller="ann") == file
    assert (await store.batches.get(batch.id, caller="ann")) is not None


async def test_half_a_file_is_gone_at_the_next_start(path: Path, open_store: OpenStore):
    """Its writer was killed."""
    async with opened_database(path, Room()):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO files VALUES (1, 'file_half', 'ann', 'batch', 0, FALSE, 0, NULL, '{}')")
        other.execute("INSERT INTO parts VALUES (1, 0, 'half')")
    store = await open_store(path)
    assert await store.files.get("file_half", caller=None) is None
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM files").fetchone() == (0,)


async def test_room_goes_back_to_the_disk(path: Path, open_store: OpenStore):
    """The file shrinks when what was in it is forgotten."""
    store = await open_store(path)
    await store.jobs.add(a_job(body=bytes(8_000_000), keep=0))
    await store.jobs.cancel((await take(store.jobs))[0].id, caller=None)
    await store.purge()
    with closing(sqlite3.connect(path)) as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    assert pages * 4096 < 1_000_000


# ---- Who may open it ----


async def test_a_second_service_is_told_that_the_file_is_in_use(path: Path, open_store: OpenStore):
    """And by what way out; the first goes on."""
    first = await open_store(path)
    with pytest.raises(JobsUnavailable, match=r"jobs\.sqlite: another service works on it: .*JOBS_URL"):
        await open_store(path)
    story = f"""
import asyncio
from pathlib import Path
from proxy.jobs.store import opened
async def main():
    async with opened(Path({str(path)!r})):
        pass
asyncio.run(main())
"""
    other = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", story], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "another service works on it" in other.stderr
    await first.jobs.add(a_job())


async def test_an_operator_looks_on_and_cancels_while_the_service_works(path: Path, open_store: OpenStore):
    """Its jobs run on: whoever opens the file with `is_shared` does not think that their runner is gone."""
    service = await open_store(path)
    await service.jobs.add(*some_jobs(2))
    running = await run_one(service.jobs)
    operator = await open_store(path, is_shared=True)
    assert {job.state for job in (await operator.jobs.list(caller=None)).entries} == {State.QUEUED, State.RUNNING}
    assert await operator.jobs.cancel(running.id, caller=None) is State.CANCELLED
    assert not await service.jobs.ack(running.claim, ANSWER)
    assert await service.jobs.renew([running.claim], LONG) == {running.id}


async def test_a_file_that_another_program_keeps_locked_is_told(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
):
    """At once, or at the write that it keeps off; afterwards all is well."""
    monkeypatch.setattr("proxy.jobs.sqlite.database.PATIENCE", 0.01)
    jobs = (await open_store(path)).jobs
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(*map(jobs.add, some_jobs(50)), return_exceptions=True)
        assert all(isinstance(outcome, JobsUnavailable) and "locked" in str(outcome) for outcome in outcomes)
        other.execute("ROLLBACK")
    await jobs.add(a_job())
    assert (await jobs.state()).jobs == 1


# ---- Files that are of no use ----


def spoil(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def tear(path: Path) -> None:
    """What a bad disk leaves: a right beginning, and nonsense in the tables."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        schema.migrate(other)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def age_backwards(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.executescript(
            f"CREATE TABLE jobs (id); PRAGMA user_version = 99; PRAGMA application_id = {schema.APPLICATION};"
        )


def be_anothers(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.executescript("CREATE TABLE bookmarks (url)")


def content_of(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (spoil, "damaged or no database: move it away"),
        (tear, "damaged or no database: move it away"),
        (age_backwards, "newer version"),
        (be_anothers, "another program: choose another file"),
        (Path.mkdir, "not a file: choose another path"),
    ],
)
async def test_a_file_of_no_use_is_told_at_the_start_with_the_remedy(
    path: Path, open_store: OpenStore, make, told: str
):
    """The text names the file; and the file is left as it is."""
    make(path)
    before = content_of(path)
    with pytest.raises(JobsUnavailable, match=told) as refused:
        await open_store(path)
    assert str(path) in str(refused.value)
    assert content_of(path) == before


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path, open_store: OpenStore):
    with pytest.raises(JobsUnavailable, match="No such file or directory: mind its folder"):
        await open_store(tmp_path / "nowhere" / "jobs.sqlite")


async def test_whoever_could_not_open_it_holds_no_lock(path: Path, open_store: OpenStore):
    """When the reason is mended, the next try succeeds."""
    spoil(path)
    with pytest.raises(JobsUnavailable):
        await open_store(path)
    os.unlink(path)
    await (await open_store(path)).jobs.add(a_job())


async def test_an_older_file_is_brought_up_to_date(path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch):
    """Step by step, keeping what is in it; each step once."""
    async with opened(path) as store:
        await store.jobs.add(job := a_job())
    steps = (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT;", "UPDATE jobs SET colour = 'red';")
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    for _ in range(2):
        async with opened(path) as store:
            assert (await state_of(store.jobs, job)).id == job.id
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT colour FROM jobs").fetchone() == ("red",)
        assert other.execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_step_that_fails_leaves_the_older_file(
    path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
):
    """Whole and usable by the older version."""
    async with opened(path) as store:
        await store.jobs.add(a_job())
    with monkeypatch.context() as newer:
        newer.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour; NONSENSE;"))
        with pytest.raises(sqlite3.OperationalError):
            await open_store(path)
    assert (await (await open_store(path)).jobs.state()).jobs == 1


# ---- A disk that is full ----


async def limited(database: Database, pages: int) -> None:
    """So many pages more and the file is as full as its disk could be: SQLite itself says SQLITE_FULL."""

    def limit(connection: sqlite3.Connection) -> None:
        (now,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {now + pages}").fetchall()

    await database.write(limit)


async def test_a_full_disk_is_a_clear_error_and_loses_nothing(path: Path):
    """What was accepted is there, can be read and run; when there is room again, all goes on."""
    async with opened_database(path, Room()) as database:
        jobs = SqliteJobs(database)
        await limited(database, 40)
        accepted = []
        with pytest.raises(JobsFull, match=r"disk is full: make room") as refused:
            while True:
                await jobs.add(job := a_job(body=bytes(2000)))
                accepted.append(job.id)
        assert refused.value.status == 507
        assert (await jobs.state()).jobs == len(accepted) > 10
        await limited(database, 10_000)
        await jobs.add(a_job())
        assert [job.id for job in await take(jobs)][:-1] == accepted
        assert {job.state for job in (await jobs.list(caller=None)).entries} == {State.RUNNING}


async def test_an_answer_that_finds_no_room_can_be_told_again(path: Path):
    """The job still runs, and its claim holds."""
    async with opened_database(path, Room()) as database:
        jobs = SqliteJobs(database)
        await jobs.add(a_job())
        running = await run_one(jobs)
        await limited(database, 2)
        with pytest.raises(JobsFull):
            await jobs.ack(running.claim, ANSWER._replace(body=bytes(100_000)))
        assert (await state_of(jobs, running)).state is State.RUNNING
        await limited(database, 1000)
        assert await jobs.ack(running.claim, ANSWER)


async def test_a_file_that_is_gone_keeps_nothing_and_says_so(path: Path, open_store: OpenStore):
    """SQLite would go on writing to it, and the next process find nothing; when it is back all goes on."""
    jobs = (await open_store(path)).jobs
    await jobs.add(before := a_job())
    elsewhere = await asyncio.to_thread(path.rename, path.with_name("elsewhere"))
    with pytest.raises(JobsUnavailable, match="put it back"):
        await jobs.add(a_job())
    await asyncio.to_thread(path.write_bytes, b"another file")
    with pytest.raises(JobsUnavailable, match="put it back"):
        await jobs.add(a_job())
    await asyncio.to_thread(elsewhere.rename, path)
    await jobs.add(after := a_job())
    assert {job.id for job in (await jobs.list(caller=None)).entries} == {before.id, after.id}


def test_every_session_is_a_thread_that_ends(path: Path):
    """When its loop is gone before it, nothing is raised in it."""

    async def story() -> None:
        writer = Writer("jobs writer", lambda: sqlite3.connect(path, isolation_level=None), lambda error: error)
        await writer.open()
        _ = writer.submit(lambda connection: connection.execute("SELECT 1").fetchone())
        threads.append(writer._thread)
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        closing.cancel()

    threads = []
    asyncio.run(story())
    threads[0].join(20)
    assert not threads[0].is_alive()
