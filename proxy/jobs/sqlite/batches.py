"""The batches in SQLite."""

import json
from collections.abc import Collection, Mapping
from functools import partial
from sqlite3 import Connection
from typing import Any

from proxy.errors import JobsFull
from proxy.jobs import ENDS, Page
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.record import batch_of, changed, fields_of_batch, tag, tags
from proxy.jobs.sqlite.database import Database, bytes_in_use, now, placeholders
from proxy.jobs.sqlite.moves import forget
from proxy.jobs.sqlite.pages import page

MINE = "id = :id AND (:caller IS NULL OR caller = :caller) AND (expires_at IS NULL OR expires_at > :now)"


class SqliteBatches:
    """See `BatchStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteBatches in {self._database}>"

    async def add(self, batch: Batch) -> None:
        fields = fields_of_batch(batch) | {"times": json.dumps({batch.state.value: batch.created})}

        def insert(connection: Connection) -> None:
            if bytes_in_use(connection) > self._database.room.bytes:
                raise JobsFull
            connection.execute(
                f"INSERT INTO batches ({', '.join(fields)}) VALUES ({placeholders(fields)}) ON CONFLICT DO NOTHING",
                [*fields.values()],
            )

        await self._database.write(insert)

    async def get(self, id: str, *, caller: str | None) -> Batch | None:
        return await self._database.read(partial(found, id=id, caller=caller))

    async def list(
        self,
        *,
        caller: str | None,
        states: Collection[BatchState] = (),
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[Batch]:
        look = partial(
            page,
            table="batches",
            entry=told,
            tests={} if caller is None else {"caller = ?": [tag(caller)]},
            states=states,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )
        return await self._database.read(look)

    async def advance(
        self, id: str, *, among: Collection[BatchState], to: BatchState | None = None, **changes: Any
    ) -> Batch | None:
        fields = changed(changes)

        def change(connection: Connection) -> Batch | None:
            batch = found(connection, id)
            if batch is None or batch.state not in among:
                return None
            if to is not None and to is not batch.state:
                fields.update(state=to.value, times=json.dumps({**batch.times, to: now()}))
            for name, value in fields.items():
                connection.execute(f"UPDATE batches SET {name} = ? WHERE id = ?", (value, tag(id)))
            return found(connection, id)

        return await self._database.write(change)

    async def delete(self, id: str, *, caller: str | None) -> bool:
        def drop(connection: Connection) -> bool:
            names = {**tags(id=id, caller=caller), "now": now()}
            return connection.execute(f"DELETE FROM batches WHERE {MINE}", names).rowcount > 0

        return await self._database.write(drop)

    async def purge(self) -> int:
        return await self._database.write(partial(forget, table="batches"))


def found(connection: Connection, id: str, caller: str | None = None) -> Batch | None:
    row = connection.execute(
        f"SELECT * FROM batches WHERE {MINE}", {**tags(id=id, caller=caller), "now": now()}
    ).fetchone()
    return None if row is None else told(dict(row))


def told(fields: Mapping[str, Any]) -> Batch:
    times = {BatchState(state): at for state, at in json.loads(fields["times"]).items()}
    return batch_of(fields, ended={state: fields[state] for state in ENDS}, times=times)
