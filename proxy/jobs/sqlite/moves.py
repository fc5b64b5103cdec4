"""How jobs come and go, and move from state to state: operations on a connection, each within a commit.

Each returns what was asked for and the topics that there is news of.
"""

from collections.abc import Collection, Iterable, Sequence
from sqlite3 import Connection, Row
from typing import Any, Generic, NamedTuple, TypeVar

from proxy.errors import JobsFull, KeyReused
from proxy.jobs import Answer, Claim, Claimed, Found, Job, Kind, Room, State
from proxy.jobs.record import fields_of, job_of, name_of, plain, tag, tags
from proxy.jobs.sqlite.database import bytes_in_use, now, placeholders

T = TypeVar("T")

#: Jobs that one operation moves. Whoever has more to move goes step by step, and lets others in between.
SLICE = 500
#: Bytes that a job takes besides its body, roughly.
OVERHEAD = 1024

WHOLE = """
SELECT jobs.*, bodies.bytes AS body, answers.bytes AS answer
FROM jobs JOIN bodies ON bodies.job = seq LEFT JOIN answers ON answers.job = seq
"""


class Told(NamedTuple, Generic[T]):
    value: T
    topics: Collection[str] = ()


# ---- Looking ----


def whole(row: Row) -> Job:
    """With its body, and its answer if there is one."""
    return job_of(dict(row), body=row["body"], answer=row["answer"] or b"")


def found(connection: Connection, id: str, caller: str | None = None) -> Row | None:
    """The job, if it is this caller's and has not expired."""
    row: Row | None = connection.execute(
        "SELECT * FROM jobs WHERE id = :id AND (:caller IS NULL OR caller = :caller)"
        " AND (expires_at IS NULL OR expires_at > :now)",
        {**tags(id=id, caller=caller), "now": now()},
    ).fetchone()
    return row


def topics_of(row: Row) -> list[str]:
    """Who hears of a move of this job: whoever waits for it, or for its batch."""
    return [name_of(row[field]) for field in ("id", "batch") if row[field] is not None]


def topic_of_line(row: Row) -> str:
    return Kind.at(row["rank"]).topic


# ---- Coming ----


def add(connection: Connection, jobs: Sequence[Job], room: Room | None) -> Told[None]:
    """Without `room` there is enough of it."""
    fresh = [job for job in jobs if not connection.execute("SELECT 1 FROM jobs WHERE id = ?", [tag(job.id)]).fetchone()]
    if room is not None:
        check_room(connection, fresh, room)
    for job in fresh:
        insert(connection, job)
    return Told(None, {job.kind.topic for job in fresh})


def find_or_add(connection: Connection, job: Job, lease: float | None, room: Room) -> Told[Found]:
    row = connection.execute(
        "SELECT * FROM jobs WHERE caller = :caller AND key = :key", tags(caller=job.caller, key=job.key)
    ).fetchone()
    if row is not None and row["expires_at"] is not None and row["expires_at"] <= now():
        connection.execute("DELETE FROM jobs WHERE seq = ?", [row["seq"]])
        row = None
    if row is not None:
        if row["fingerprint"] != plain(job.fingerprint):
            raise KeyReused
        return Told(Found(one(connection, row["seq"]), is_new=False))
    check_room(connection, [job], room)
    seq = insert(connection, job)
    if lease is not None:
        start(connection, [seq], now() + lease)  # out of turn: nobody's turn has come by that
    return Told(Found(one(connection, seq), is_new=True), [job.kind.topic] if lease is None else [])


def one(connection: Connection, seq: int) -> Job:
    return whole(connection.execute(f"{WHOLE} WHERE seq = ?", [seq]).fetchone())


def check_room(connection: Connection, jobs: Collection[Job], room: Room) -> None:
    (count,) = connection.execute("SELECT jobs FROM total").fetchone()
    if count + len(jobs) > room.jobs:
        raise JobsFull(f"the store of jobs holds {count} jobs, and {room.jobs} at most: delete some that are over")
    if bytes_in_use(connection) + sum(len(job.body) + OVERHEAD for job in jobs) > room.bytes:
        raise JobsFull


def insert(connection: Connection, job: Job) -> int:
    fields = fields_of(job)
    fields |= {"state": State.QUEUED.value, "turn": next_turn(connection, fields["rank"], fields["caller"])}
    names, values = ", ".join(fields), placeholders(fields)
    seq = connection.execute(f"INSERT INTO jobs ({names}) VALUES ({values})", [*fields.values()]).lastrowid
    assert seq is not None
    connection.execute("INSERT INTO bodies VALUES (?, ?)", (seq, job.body))
    return seq


def next_turn(connection: Connection, rank: int, caller: str) -> int:
    """Behind the caller's own jobs, and level with the others' that come next: so callers take turns."""
    (turn,) = connection.execute(
        "SELECT 1 + max(coalesce((SELECT turn FROM turns WHERE rank = :rank), 0), coalesce("
        "(SELECT max(turn) FROM jobs WHERE state = 'queued' AND rank = :rank AND caller = :caller), 0))",
        {"rank": rank, "caller": caller},
    ).fetchone()
    return int(turn)


# ---- Running ----


def claim(connection: Connection, kind: Kind, most: int, lease: float, respite: float) -> Told[Claimed]:
    give_time(connection, respite)
    topics = [*lapse(connection), *expire(connection).topics]
    first, last = kind.ranks
    chosen = [
        row["seq"]
        for row in connection.execute(
            "SELECT seq FROM jobs WHERE state = 'queued' AND due IS NULL AND rank BETWEEN ? AND ?"
            " AND (deadline IS NULL OR deadline > ?) ORDER BY rank, turn, seq LIMIT ?",
            (first, last, now(), most),
        )
    ]
    start(connection, chosen, now() + lease)
    take_turns(connection, chosen)
    jobs = tuple(one(connection, seq) for seq in chosen)
    return Told(Claimed(jobs, again(connection, lease)), [*topics, *(job.id for job in jobs)])


def claim_one(connection: Connection, id: str, caller: str | None, lease: float) -> Told[Job | None]:
    row, told = found(connection, id, caller), retry(connection, id, caller)
    if row is None or told.value is not State.QUEUED:
        return Told(None)
    start(connection, [row["seq"]], now() + lease)
    return Told(one(connection, row["seq"]), topics_of(row))


def start(connection: Connection, chosen: Sequence[int], due: float) -> None:
    connection.executemany(
        "UPDATE jobs SET state = 'running', due = ?, started = ?, fence = fence + 1, attempts = attempts + 1"
        " WHERE seq = ?",
        [(due, now(), seq) for seq in chosen],
    )


def take_turns(connection: Connection, chosen: Sequence[int]) -> None:
    """Their turns have come."""
    connection.executemany(
        "INSERT INTO turns SELECT rank, turn FROM jobs WHERE seq = ?"
        " ON CONFLICT (rank) DO UPDATE SET turn = max(turn, excluded.turn)",
        [(seq,) for seq in chosen],
    )


def again(connection: Connection, lease: float) -> float:
    """Seconds until something may be claimable without news: a lease that others took may end after one of ours."""
    (due,) = connection.execute("SELECT min(due) FROM jobs WHERE due IS NOT NULL").fetchone()
    return lease if due is None else min(lease, max(0.0, due - now()))


def give_time(connection: Connection, respite: float) -> None:
    """Leases that have ended end so many seconds later; 0: they have ended."""
    if respite:
        connection.execute(
            "UPDATE jobs SET due = ?1 + ?2 WHERE due <= ?1 AND state = 'running'",
            (now(), respite),
        )


def lapse(connection: Connection) -> list[str]:
    """Put back in line what is due: leases that ended, waits for another attempt that are over. Returns the topics."""
    rows = connection.execute("SELECT * FROM jobs WHERE due <= ?", [now()]).fetchall()
    connection.executemany(
        "UPDATE jobs SET state = 'queued', due = NULL WHERE seq = ?", [(row["seq"],) for row in rows]
    )
    return [topic for row in rows for topic in (*topics_of(row), topic_of_line(row))]


def expire(connection: Connection) -> Told[int]:
    """End some of those that have not begun in time."""
    rows = connection.execute(
        "SELECT * FROM jobs WHERE state = 'queued' AND deadline <= ? LIMIT ?", (now(), SLICE)
    ).fetchall()
    return Told(len(rows), end_all(connection, rows, State.EXPIRED))


def ours(connection: Connection, claim: Claim) -> Row | None:
    """The job, if nobody has claimed it since and it has not been given back."""
    row: Row | None = connection.execute(
        "SELECT * FROM jobs WHERE id = ? AND fence = ?", (tag(claim.id), claim.fence)
    ).fetchone()
    return row


def is_held(row: Row) -> bool:
    """Whether it runs; also if its lease has ended since, and nobody has claimed it anew."""
    return row["state"] == State.RUNNING or (row["state"] == State.QUEUED and row["started"] is not None)


def held(connection: Connection, claim: Claim) -> Row | None:
    row = ours(connection, claim)
    return row if row is not None and is_held(row) else None


def renew(connection: Connection, claims: Iterable[Claim], lease: float, respite: float) -> frozenset[str]:
    give_time(connection, respite)
    lost = set()
    for claim in claims:
        if (row := held(connection, claim)) is None:
            lost.add(claim.id)
        else:
            connection.execute("UPDATE jobs SET state = 'running', due = ? WHERE seq = ?", (now() + lease, row["seq"]))
    return frozenset(lost)


def note(connection: Connection, claim: Claim, progress: str) -> Told[bool]:
    if (row := held(connection, claim)) is None:
        return Told(False)
    connection.execute("UPDATE jobs SET progress = ? WHERE seq = ?", (plain(progress), row["seq"]))
    return Told(True, topics_of(row))


# ---- Ending ----


def finish(connection: Connection, claim: Claim, state: State, error: str, answer: Answer | None) -> Told[bool]:
    row = ours(connection, claim)
    if row is not None and row["state"] == state:  # it was told before
        return Told(True)
    if row is None or not is_held(row):
        return Told(False)
    if answer is not None:
        connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (row["seq"], answer.body))
        connection.execute(
            "UPDATE jobs SET status = ?, content_type = ? WHERE seq = ?",
            (answer.status, plain(answer.content_type), row["seq"]),
        )
    connection.execute("UPDATE jobs SET error = ? WHERE seq = ?", (plain(error), row["seq"]))
    return Told(True, end_all(connection, [row], state))


def end_all(connection: Connection, rows: Collection[Row], state: State) -> list[str]:
    """They have ended so. Returns the topics."""
    connection.executemany(
        "UPDATE jobs SET state = ?1, due = NULL, finished = ?2, expires_at = ?2 + keep WHERE seq = ?3",
        [(state.value, now(), row["seq"]) for row in rows],
    )
    count(connection, state, [row["batch"] for row in rows if row["batch"] is not None])
    return [topic for row in rows for topic in topics_of(row)]


def count(connection: Connection, state: State, batches: Collection[str], by: int = 1) -> None:
    """Lines of these batches have ended so, or with `by` of -1 have not."""
    connection.executemany(
        f"UPDATE batches SET {state.value} = {state.value} + ? WHERE id = ?", [(by, batch) for batch in batches]
    )


def put_back(connection: Connection, claim: Claim, due: float | None, error: str, attempts: int) -> Told[bool]:
    """Queue it where it was, for `due` or for now; `attempts` is how many of them do not count."""
    row = held(connection, claim)
    if row is None:
        return Told(False)
    connection.execute(
        "UPDATE jobs SET state = 'queued', started = NULL, due = ?, error = ?, attempts = attempts - ? WHERE seq = ?",
        (due, plain(error), attempts, row["seq"]),
    )
    return Told(True, [*topics_of(row), topic_of_line(row)])


def cancel(connection: Connection, id: str, caller: str | None) -> Told[State | None]:
    if (row := found(connection, id, caller)) is None:
        return Told(None)
    if (state := State(row["state"])).is_end:
        return Told(state)
    return Told(State.CANCELLED, end_all(connection, [row], State.CANCELLED))


def cancel_lines(connection: Connection, batch: str) -> Told[int]:
    """Some of them."""
    rows = connection.execute(
        "SELECT * FROM jobs WHERE batch = ? AND state = 'queued' LIMIT ?", (tag(batch), SLICE)
    ).fetchall()
    return Told(len(rows), end_all(connection, rows, State.CANCELLED))


def retry(connection: Connection, id: str, caller: str | None) -> Told[State | None]:
    if (row := found(connection, id, caller)) is None:
        return Told(None)
    state = State(row["state"])
    if not state.is_end or state is State.DONE:
        return Told(state)
    if row["batch"] is not None:
        count(connection, state, [row["batch"]], by=-1)
    anew: dict[str, Any] = {
        "state": State.QUEUED.value,
        "turn": next_turn(connection, row["rank"], row["caller"]),
        **dict.fromkeys(("started", "finished", "expires_at", "deadline", "status", "content_type")),
        **{"attempts": 0, "error": "", "progress": ""},
    }
    changes = ", ".join(f"{name} = ?" for name in anew)
    connection.execute(f"UPDATE jobs SET {changes} WHERE seq = ?", [*anew.values(), row["seq"]])
    connection.execute("DELETE FROM answers WHERE job = ?", [row["seq"]])
    return Told(State.QUEUED, [*topics_of(row), topic_of_line(row)])


# ---- Going ----


def delete(connection: Connection, id: str, caller: str | None) -> bool:
    row = found(connection, id, caller)
    if row is None or not State(row["state"]).is_end:
        return False
    connection.execute("DELETE FROM jobs WHERE seq = ?", [row["seq"]])
    return True


def delete_lines(connection: Connection, batch: str) -> int:
    """Some of those that have ended."""
    gone = connection.execute(
        "DELETE FROM jobs WHERE seq IN (SELECT seq FROM jobs WHERE batch = ? AND finished IS NOT NULL LIMIT ?)",
        (tag(batch), SLICE),
    )
    return gone.rowcount


def forget(connection: Connection, table: str = "jobs") -> int:
    """Some of what has expired."""
    gone = connection.execute(
        f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM {table} WHERE expires_at <= ? LIMIT ?)", (now(), SLICE)
    )
    return gone.rowcount
