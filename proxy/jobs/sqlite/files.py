"""The files in SQLite."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from functools import partial
from secrets import token_hex
from sqlite3 import Connection

from proxy.errors import JobsFull, JobsUnavailable
from proxy.jobs import Page, Room
from proxy.jobs.files import StoredFile, content_of, put_all
from proxy.jobs.record import fields_of_file, file_of, tag, tags
from proxy.jobs.sqlite.database import Database, bytes_in_use, now, placeholders
from proxy.jobs.sqlite.moves import forget
from proxy.jobs.sqlite.pages import page

MINE = "id = :id AND is_whole AND (:caller IS NULL OR caller = :caller) AND (expires_at IS NULL OR expires_at > :now)"


class SqliteFiles:
    """See `FileStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteFiles in {self._database}>"

    async def add(self, file: StoredFile, content: AsyncIterable[bytes], *, is_owed: bool = False) -> StoredFile:
        room = None if is_owed else self._database.room
        seq = await self._database.write(partial(begin, file=file, attempt=token_hex(8)))
        write = self._database.write
        try:
            size = await put_all(content, lambda *part: write(partial(put, seq=seq, part=part, room=room)))
            return await self._database.write(partial(complete, seq=seq, id=file.id, size=size))
        except BaseException:
            with suppress(JobsUnavailable):  # then the next start does it
                self._database.post(partial(undo, seq=seq))
            raise

    async def get(self, id: str, *, caller: str | None) -> StoredFile | None:
        def look(connection: Connection) -> StoredFile | None:
            row = connection.execute(
                f"SELECT * FROM files WHERE {MINE}", {**tags(id=id, caller=caller), "now": now()}
            ).fetchone()
            return None if row is None else file_of(dict(row))

        return await self._database.read(look)

    async def list(
        self,
        *,
        caller: str | None,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[StoredFile]:
        look = partial(
            page,
            table="files",
            entry=file_of,
            tests={
                "is_whole": [],
                **({} if caller is None else {"caller = ?": [tag(caller)]}),
                **({} if purpose is None else {"purpose = ?": [tag(purpose)]}),
            },
            after=after,
            limit=limit,
            newest_first=newest_first,
        )
        return await self._database.read(look)

    async def content(self, id: str) -> AsyncIterator[bytes]:
        file, read = await self.get(id, caller=None), self._database.read
        async for part in content_of(file, lambda number: read(partial(part_of, id=id, number=number))):
            yield part

    async def delete(self, id: str, *, caller: str | None) -> bool:
        def drop(connection: Connection) -> bool:
            names = {**tags(id=id, caller=caller), "now": now()}
            return connection.execute(f"DELETE FROM files WHERE {MINE}", names).rowcount > 0

        return await self._database.write(drop)

    async def purge(self) -> int:
        return await self._database.write(partial(forget, table="files"))


def begin(connection: Connection, file: StoredFile, attempt: str) -> int:
    """Until it is whole its id is its attempt's: another one may bring the same file."""
    fields = fields_of_file(file) | {"id": attempt, "bytes": 0, "is_whole": False}
    made = connection.execute(
        f"INSERT INTO files ({', '.join(fields)}) VALUES ({placeholders(fields)})", [*fields.values()]
    )
    assert made.lastrowid is not None
    return made.lastrowid


def put(connection: Connection, seq: int, part: tuple[int, bytes], room: Room | None) -> None:
    """A part with its number. Without `room` there is enough of it."""
    if room is not None and bytes_in_use(connection) + len(part[1]) > room.bytes:
        raise JobsFull
    connection.execute("INSERT INTO parts VALUES (?, ?, ?)", (seq, *part))


def complete(connection: Connection, seq: int, id: str, size: int) -> StoredFile:
    """The file as it is then; one that was there before stays."""
    find = "SELECT * FROM files WHERE id = ?"
    if connection.execute(find, [tag(id)]).fetchone():
        undo(connection, seq)
    else:
        connection.execute("UPDATE files SET id = ?, bytes = ?, is_whole = TRUE WHERE seq = ?", (tag(id), size, seq))
    return file_of(dict(connection.execute(find, [tag(id)]).fetchone()))


def undo(connection: Connection, seq: int) -> None:
    connection.execute("DELETE FROM files WHERE seq = ?", [seq])


def part_of(connection: Connection, id: str, number: int) -> bytes | None:
    row = connection.execute(
        "SELECT parts.bytes FROM parts JOIN files ON file = seq WHERE id = ? AND number = ?", (tag(id), number)
    ).fetchone()
    return None if row is None else row["bytes"]
