"""Lists, page by page: the same for jobs, files and batches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, TypeVar

from proxy.errors import BadRequest
from proxy.jobs import Page
from proxy.jobs.record import name_of, tag
from proxy.jobs.sqlite.database import now, placeholders

T = TypeVar("T")


def page(
    connection: Connection,
    *,
    table: str,
    entry: Callable[[Mapping[str, Any]], T],
    tests: Mapping[str, Sequence[Any]],
    states: Collection[str] = (),
    after: str | None,
    limit: int,
    newest_first: bool,
) -> Page[T]:
    """
    Those that pass all `tests` (conditions with their values), in the order of age.

    Raises BadRequest if `after` is not among them, whatever its state.
    """
    conditions = {"(expires_at IS NULL OR expires_at > ?)": [now()], **tests}
    if states:
        conditions[f"state IN ({placeholders(states)})"] = [*states]
    if after is not None:
        conditions["seq < ?" if newest_first else "seq > ?"] = [place(connection, table, after, tests)]
    rows = connection.execute(
        f"SELECT * FROM {table} WHERE {' AND '.join(conditions)}"
        f" ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ?",
        [*(value for values in conditions.values() for value in values), limit + 1],
    ).fetchall()
    entries = tuple(entry(dict(row)) for row in rows[:limit])
    return Page(entries, name_of(rows[limit - 1]["id"]) if len(rows) > limit else None)


def place(connection: Connection, table: str, id: str, tests: Mapping[str, Sequence[Any]]) -> int:
    row = connection.execute(
        f"SELECT seq FROM {table} WHERE {' AND '.join(['id = ?', *tests])}",
        [tag(id), *(value for values in tests.values() for value in values)],
    ).fetchone()
    if row is None:
        raise BadRequest("there is nothing with this id: begin the list anew without it", param="after")
    return int(row["seq"])
