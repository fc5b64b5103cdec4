"""The file of jobs, and its two connections: one that writes, in commits of many, and one that reads.

Rule 1: the file is its owner's alone (0600) before anything is in it, and so are those beside it.
Rule 2: a service has the file to itself, by a lock that ends with its process: what runs when it starts is nobody's.
        Other programs may look, cancel and delete meanwhile; they open it with `is_shared`. What they change is no
        news for the service: it finds it when it claims next.
Rule 3: an operation that has returned is on the disk (WAL, synchronous=FULL), in the file that the next process finds:
        SQLite would go on writing to one that was deleted.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, TypeVar

from proxy.errors import JobsFull, JobsUnavailable, ProxyError
from proxy.jobs import Room
from proxy.jobs.sqlite.schema import check, migrate
from proxy.jobs.sqlite.session import Operation, Reader, Writer

T = TypeVar("T")

#: Seconds to wait for another program that writes to the file at this moment.
PATIENCE = 5.0
#: Bytes to which the write-ahead log is cut after it has grown.
LOG_SIZE = 64 * 1024 * 1024
#: Pages that one operation gives back to the disk.
PAGES = 256
#: The share of the file that may be free: what is taken again soon need not be given back.
SPARE = 0.25

IN_USE = "another service works on it: stop that one, choose another file, or share jobs by Redis (JOBS_URL)"
GONE = "the store of jobs cannot be used: its file was moved or deleted: put it back, or start the service anew"
BROKEN = "it is damaged or no database: move it away together with its -wal and -shm, or put a good copy in its place"

#: What SQLite's failures mean, by their primary codes.
MEANINGS: dict[int, tuple[type[ProxyError], str]] = {
    sqlite3.SQLITE_FULL: (JobsFull, "its disk is full: make room there"),
    sqlite3.SQLITE_BUSY: (JobsUnavailable, "another program keeps it locked: end that one"),
    sqlite3.SQLITE_LOCKED: (JobsUnavailable, "another program keeps it locked: end that one"),
    sqlite3.SQLITE_READONLY: (JobsUnavailable, "it cannot be written: mind its rights, and those of its folder"),
    sqlite3.SQLITE_CANTOPEN: (JobsUnavailable, "it cannot be opened: mind its folder, and the rights there"),
    sqlite3.SQLITE_CORRUPT: (JobsUnavailable, BROKEN),
    sqlite3.SQLITE_NOTADB: (JobsUnavailable, BROKEN),
    sqlite3.SQLITE_IOERR: (JobsUnavailable, "its disk fails: look at the system's log"),
}


def meaning(error: sqlite3.Error) -> ProxyError | None:
    """A failure of SQLite as one of ours, without the name of the file; None for a bug of ours."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or code & 0xFF not in MEANINGS:
        return None
    kind, remedy = MEANINGS[code & 0xFF]
    return kind(f"the store of jobs cannot be used ({error}): {remedy}")


def translated(error: sqlite3.Error) -> Exception:
    return meaning(error) or error


class Database:
    """See `opened`."""

    def __init__(self, path: Path, room: Room, *, is_shared: bool) -> None:
        self.path = path
        self.room = room
        self._is_shared = is_shared
        self._lock: Connection | None = None
        #: The file that was opened.
        self._opened: os.stat_result | None = None
        #: How many jobs ran when the last service ended.
        self.resumed = 0
        self._writer = Writer("jobs writer", self._connect_writer, translated, check=self._check)
        self._reader = Reader("jobs reader", self._connect_reader, translated)

    def __repr__(self) -> str:
        return f"<Database {self.path} {self._writer} commits={self.commits}>"

    @property
    def commits(self) -> int:
        """How many there were, of any number of operations each."""
        return self._writer.commits

    async def write(self, operation: Operation[T], then: Callable[[T], object] | None = None) -> T:
        """What `operation` returns, when it is on the disk. It is done, and `then` told, though its caller leaves."""
        return await asyncio.shield(self._hand_over(operation, then))

    def post(self, operation: Operation[Any]) -> None:
        """The same for who does not wait for it. Raises JobsUnavailable when the store closes."""
        _ = self._hand_over(operation, None)

    def _hand_over(self, operation: Operation[T], then: Callable[[T], object] | None) -> "asyncio.Future[T]":
        def tell(done: "asyncio.Future[T]") -> None:
            if done.exception() is None and then is not None:
                then(done.result())

        outcome = self._writer.submit(operation)
        outcome.add_done_callback(tell)
        return outcome

    async def read(self, operation: Operation[T]) -> T:
        return await self._reader.submit(operation)

    async def open(self) -> None:
        """Raises JobsUnavailable, which names the file."""
        try:
            await self._writer.open()
            await self._reader.open()
        except OSError as error:
            raise JobsUnavailable(f"{self.path}: {error.strerror}: mind its folder, and the rights there") from None
        except ProxyError as error:
            raise JobsUnavailable(f"{self.path}: {error}") from None

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()
        if self._lock is not None:
            self._lock.close()

    # -- in the threads

    def _check(self) -> None:
        """Raises JobsUnavailable if another file, or none, is in the place of the one that was opened."""
        with suppress(OSError):
            if self._opened is None or os.path.samestat(self._opened, os.stat(self.path)):
                return
        raise JobsUnavailable(GONE)

    def _connect_writer(self) -> Connection:
        make_private(self.path)
        self._opened = os.stat(self.path)
        if not self._is_shared:
            self._lock = locked(self.path)
        connection = connect(self.path)
        try:
            check(connection)
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # counts while the file is empty
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
            connection.execute("PRAGMA foreign_keys = ON")
            migrate(connection)
            if not self._is_shared:
                self.resumed = resume(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_reader(self) -> Connection:
        connection = connect(self.path)
        connection.execute("PRAGMA query_only = ON")
        return connection


@asynccontextmanager
async def opened(path: Path, room: Room, *, is_shared: bool = False) -> AsyncIterator[Database]:
    """The file at `path`, made if it is not there.

    Args:
        room: what it may hold.
        is_shared: another process works on it; look at it, and change what that one allows.

    Raises JobsUnavailable, with the remedy.
    """
    database = Database(path, room, is_shared=is_shared)
    try:
        await database.open()
        yield database
    finally:
        await database.close()


def make_private(path: Path) -> None:
    """A file of our own alone, made if it is not there. Raises OSError, JobsUnavailable."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    if not path.is_file():
        raise JobsUnavailable("it is not a file: choose another path")
    for beside in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.chmod(f"{path}{beside}", 0o600)


def connect(path: Path) -> Connection:
    # Transactions are begun and ended in so many words.
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def locked(path: Path) -> Connection:
    """What keeps other services off until it is closed. Raises JobsUnavailable."""
    beside = Path(f"{path}.lock")
    make_private(beside)
    connection = sqlite3.connect(beside, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        connection.close()
        raise JobsUnavailable(IN_USE) from None
    return connection


def resume(connection: Connection) -> int:
    """Whoever ran these jobs or wrote these files is gone. Returns how many jobs begin again."""
    connection.execute("BEGIN IMMEDIATE")
    resumed = connection.execute("UPDATE jobs SET state = 'queued', due = NULL, started = NULL WHERE state = 'running'")
    connection.execute("DELETE FROM files WHERE NOT is_whole")
    connection.execute("COMMIT")
    return resumed.rowcount


# ---- Operations that all nouns share ----


def bytes_in_use(connection: Connection) -> int:
    """What of the file is not free."""
    pages, free, size = sizes(connection)
    return (pages - free) * size


def sizes(connection: Connection) -> list[int]:
    """Pages of the file, how many of them are free, and bytes of a page."""
    names = ("page_count", "freelist_count", "page_size")
    return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]


def shrink(connection: Connection) -> int:
    """Give some of the pages that are free back to the disk, where there are many. Returns how many."""
    pages, free, _ = sizes(connection)
    surplus = min(PAGES, int(free - SPARE * pages))
    for _ in range(surplus):
        # Of a statement without columns Python takes one step, which is one page.
        connection.execute("PRAGMA incremental_vacuum")
    return max(0, surplus)


def now() -> float:
    return time.time()


def placeholders(values: Any) -> str:
    """`?, ?, ?`"""
    return ", ".join("?" * len(values))
