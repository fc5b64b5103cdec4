"""The batches in Redis."""

from collections.abc import Collection, Mapping
from secrets import token_hex
from typing import Any

from proxy.jobs import ENDS, Page
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.record import batch_of, changed, fields_of_batch, tag, tags
from proxy.jobs.redis.link import JobsLink, flat, page, paired, read

TEXTS = ("id", "caller", "state", "about", "output_file", "error_file", "errors")
COUNTS = ("total",)
NUMBERS = ("created", "deadline", "expires_at")
#: How many lines ended so, and when a state began.
ENDED = {f"ended:{state}": state for state in ENDS}
TIMES = {f"at:{state}": state for state in BatchState}
FIELDS = (*TEXTS, *COUNTS, *NUMBERS, *ENDED, *TIMES)


class RedisBatches:
    """See `BatchStore`."""

    def __init__(self, link: JobsLink) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<RedisBatches in {self._link}>"

    async def add(self, batch: Batch) -> None:
        fields = fields_of_batch(batch) | {f"at:{batch.state}": batch.created}
        names = tags(id=batch.id, caller=batch.caller)
        await self._link.run("add_batch", **names, expires_at=batch.expires_at, fields=flat(fields))

    async def get(self, id: str, *, caller: str | None) -> Batch | None:
        told = await self._link.run("entry", kind="batch", **tags(id=id, caller=caller))
        return batch_in(paired(told)) if told else None

    async def list(
        self,
        *,
        caller: str | None,
        states: Collection[BatchState] = (),
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[Batch]:
        tests = {"state": states}
        entries, last = await page(
            self._link, "batch", FIELDS, "batches", caller, tests, after=after, limit=limit, newest_first=newest_first
        )
        return Page(tuple(map(batch_in, entries)), last)

    async def advance(
        self, id: str, *, among: Collection[BatchState], to: BatchState | None = None, **changes: Any
    ) -> Batch | None:
        fields = changed(changes)
        told = await self._link.run(
            "advance",
            id=tag(id),
            ticket=token_hex(8),
            among=dict.fromkeys(among, True),
            to=to,
            changes={name: str(value) for name, value in fields.items() if value is not None},
            erased=[name for name, value in fields.items() if value is None],
        )
        return batch_in(paired(told)) if told else None

    async def delete(self, id: str, *, caller: str | None) -> bool:
        return bool(await self._link.run("delete_batch", **tags(id=id, caller=caller)))

    async def purge(self) -> int:
        return await self._link.all_of("forget_batches")


def batch_in(found: Mapping[str, bytes | None]) -> Batch:
    fields = {
        **read(found, TEXTS, bytes.decode),
        **read(found, COUNTS, int),
        **read(found, NUMBERS, float),
    }
    return batch_of(
        fields,
        ended={state: int(found.get(name) or 0) for name, state in ENDED.items()},
        times={state: float(at) for name, state in TIMES.items() if (at := found.get(name))},
    )
