"""The jobs in SQLite."""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from functools import partial
from sqlite3 import Connection, Row
from typing import TypeVar

from proxy.jobs import Answer, Claim, Claimed, Found, Job, Kind, Page, State, StoreState
from proxy.jobs.news import Hub, News
from proxy.jobs.record import check_key, job_of, tag, without_keys
from proxy.jobs.sqlite import moves
from proxy.jobs.sqlite.database import Database, bytes_in_use, now, shrink
from proxy.jobs.sqlite.moves import Told
from proxy.jobs.sqlite.pages import page

T = TypeVar("T")

#: Lines of a batch that are in memory at once.
HELD = 20
#: Who may be claimed; without a word SQLite would choose an index that does not suffice to count.
WAITING = "FROM jobs INDEXED BY jobs_line WHERE state = 'queued' AND due IS NULL"


class SqliteJobs:
    """See `JobStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hub = Hub()
        #: When whoever runs jobs was last heard.
        self._heard = now()

    def __repr__(self) -> str:
        return f"<SqliteJobs in {self._database}>"

    async def _move(self, move: Callable[[Connection], Told[T]]) -> T:
        told = await self._database.write(move, lambda told: self._hub.tell(*told.topics))
        return told.value

    # -- coming

    async def add(self, *jobs: Job, is_owed: bool = False) -> None:
        room = None if is_owed else self._database.room
        await self._move(partial(moves.add, jobs=without_keys(jobs), room=room))

    async def find_or_add(self, job: Job, *, lease: float | None = None) -> Found:
        check_key(job)
        return await self._move(partial(moves.find_or_add, job=job, lease=lease, room=self._database.room))

    # -- looking

    async def get(self, id: str, *, caller: str | None) -> Job | None:
        def look(connection: Connection) -> Job | None:
            row = moves.found(connection, id, caller)
            return None if row is None else moves.one(connection, row["seq"])

        return await self._database.read(look)

    async def list(
        self,
        *,
        caller: str | None,
        states: Collection[State] = (),
        batch: str | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[Job]:
        look = partial(
            page,
            table="jobs",
            entry=job_of,
            tests={
                # Said in these words it is what an index is for.
                **({"batch IS NULL": []} if batch is None else {"batch = ?": [tag(batch)]}),
                **({} if caller is None else {"caller = ?": [tag(caller)]}),
            },
            states=states,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )
        return await self._database.read(look)

    async def lines(self, batch: str) -> AsyncIterator[Job]:
        seq = 0
        while True:
            rows = await self._database.read(partial(some_lines, batch=batch, seq=seq))
            for row in rows:
                yield moves.whole(row)
            if not rows:
                return
            seq = rows[-1]["seq"]

    async def position(self, id: str) -> int | None:
        def look(connection: Connection) -> int | None:
            row = moves.found(connection, id)
            return None if row is None or row["state"] != State.QUEUED else ahead_of(connection, row)

        return await self._database.read(look)

    async def state(self) -> StoreState:
        return await self._database.read(counted)

    def news(self, *topics: str) -> News:
        return self._hub.listen(*topics)

    # -- running

    async def claim(self, kind: Kind, most: int, lease: float) -> Claimed:
        return await self._move(partial(moves.claim, kind=kind, most=most, lease=lease, respite=self._respite(lease)))

    async def claim_one(self, id: str, *, caller: str | None, lease: float) -> Job | None:
        return await self._move(partial(moves.claim_one, id=id, caller=caller, lease=lease))

    async def renew(self, claims: Iterable[Claim], lease: float) -> frozenset[str]:
        return await self._database.write(
            partial(moves.renew, claims=[*claims], lease=lease, respite=self._respite(lease))
        )

    def _respite(self, lease: float) -> float:
        """Seconds to renew after a silence, see `JobStore`; 0 if there was none."""
        silence, self._heard = now() - self._heard, now()
        return lease / 3 if silence > lease / 2 else 0.0

    async def note(self, claim: Claim, progress: str) -> bool:
        return await self._move(partial(moves.note, claim=claim, progress=progress))

    # -- ending

    async def ack(self, claim: Claim, answer: Answer) -> bool:
        return await self._move(partial(moves.finish, claim=claim, state=State.DONE, error="", answer=answer))

    async def fail(
        self, claim: Claim, error: str, *, answer: Answer | None = None, retry_at: float | None = None
    ) -> bool:
        if retry_at is not None:
            return await self._move(partial(moves.put_back, claim=claim, due=retry_at, error=error, attempts=0))
        return await self._move(partial(moves.finish, claim=claim, state=State.FAILED, error=error, answer=answer))

    async def release(self, claim: Claim, *, why: str = "") -> bool:
        return await self._move(partial(moves.put_back, claim=claim, due=None, error=why, attempts=1))

    async def cancel(self, id: str, *, caller: str | None) -> State | None:
        return await self._move(partial(moves.cancel, id=id, caller=caller))

    async def cancel_lines(self, batch: str) -> int:
        return await self._step_by_step(partial(moves.cancel_lines, batch=batch))

    async def retry(self, id: str, *, caller: str | None) -> State | None:
        return await self._move(partial(moves.retry, id=id, caller=caller))

    # -- going

    async def delete(self, id: str, *, caller: str | None) -> bool:
        return await self._database.write(partial(moves.delete, id=id, caller=caller))

    async def delete_lines(self, batch: str) -> int:
        return await self._step_by_step(lambda connection: Told(moves.delete_lines(connection, batch)))

    async def purge(self) -> int:
        late = await self._step_by_step(moves.expire)
        old = await self._step_by_step(lambda connection: Told(moves.forget(connection)))
        await self._step_by_step(lambda connection: Told(shrink(connection)))
        return late + old

    async def _step_by_step(self, move: Callable[[Connection], Told[int]]) -> int:
        """All that `move` does a part of; others come in between."""
        total = 0
        while done := await self._move(move):
            total += done
        return total


def some_lines(connection: Connection, batch: str, seq: int) -> Sequence[Row]:
    """A few lines of a batch behind `seq`."""
    return connection.execute(
        f"{moves.WHOLE} WHERE batch = ? AND seq > ? ORDER BY seq LIMIT ?", (tag(batch), seq, HELD)
    ).fetchall()


def ahead_of(connection: Connection, row: Row) -> int:
    """How many are claimed before it. Of its own rank those are counted that stand at the nearer end."""
    rank, place = row["rank"], (row["turn"], row["seq"])
    before, level, first, last = connection.execute(
        f"SELECT (SELECT total(jobs) FROM waiting WHERE rank < ?1), (SELECT total(jobs) FROM waiting WHERE rank = ?1),"
        f" (SELECT min(turn) {WAITING} AND rank = ?1), (SELECT max(turn) {WAITING} AND rank = ?1)",
        [rank],
    ).fetchone()
    is_late = bool(level) and row["turn"] - first > last - row["turn"]
    comparison = ">=" if is_late else "<"
    (near,) = connection.execute(
        f"SELECT count(*) {WAITING} AND rank = ? AND (turn, seq) {comparison} (?, ?)", (rank, *place)
    ).fetchone()
    return int(before + (level - near if is_late else near))


def counted(connection: Connection) -> StoreState:
    first_batch, _ = Kind.BATCH.ranks
    (found,) = connection.execute(
        f"SELECT (SELECT CAST(total(jobs) AS INTEGER) FROM waiting WHERE rank < {first_batch}),"
        f" (SELECT CAST(total(jobs) AS INTEGER) FROM waiting WHERE rank >= {first_batch}),"
        " (SELECT count(*) FROM jobs WHERE due IS NOT NULL AND state = 'queued'),"
        " (SELECT count(*) FROM jobs WHERE state = 'running'), (SELECT jobs FROM total)"
    ).fetchall()
    return StoreState._make([*found, bytes_in_use(connection)])
