"""The jobs in Redis."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from proxy.jobs import Answer, Claim, Claimed, Found, Job, Kind, Page, State, StoreState
from proxy.jobs.news import News
from proxy.jobs.record import (
    JOB_COUNTS,
    JOB_FIELDS,
    JOB_NUMBERS,
    JOB_TEXTS,
    Fields,
    check_key,
    fields_of,
    job_of,
    name_of,
    plain,
    tag,
    tags,
    without_keys,
)
from proxy.jobs.redis.link import JobsLink, flat, page, paired, read

#: Lines of a batch that are in memory at once.
HELD = 20


class RedisJobs:
    """See `JobStore`."""

    def __init__(self, link: JobsLink) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<RedisJobs in {self._link}>"

    # -- coming

    async def add(self, *jobs: Job, is_owed: bool = False) -> None:
        fresh = without_keys(jobs)
        await self._link.run("add", *(job.body for job in fresh), jobs=[said(job) for job in fresh], is_owed=is_owed)

    async def find_or_add(self, job: Job, *, lease: float | None = None) -> Found:
        check_key(job)
        is_new, told = await self._link.run(
            "find_or_add", job.body, job=said(job), fingerprint=plain(job.fingerprint), lease=lease
        )
        return Found(whole(told), bool(is_new))

    # -- looking

    async def get(self, id: str, *, caller: str | None) -> Job | None:
        told = await self._link.run("get", **tags(id=id, caller=caller))
        return whole(told) if told else None

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
        list, of = ("jobs", caller) if batch is None else ("lines", batch)
        tests = {"state": states, "caller": [] if caller is None else [tag(caller)]}
        entries, last = await page(
            self._link, "job", JOB_FIELDS, list, of, tests, after=after, limit=limit, newest_first=newest_first
        )
        return Page(tuple(job_of(typed(entry)) for entry in entries), last)

    async def lines(self, batch: str) -> AsyncIterator[Job]:
        seq = "0"
        while seq:
            told, last = await self._link.run("lines", batch=tag(batch), seq=seq, most=HELD)
            for job in told:
                yield whole(job)
            seq = last.decode()

    async def position(self, id: str) -> int | None:
        ahead: int = await self._link.run("position", id=tag(id))
        return None if ahead < 0 else ahead

    async def state(self) -> StoreState:
        return StoreState(*await self._link.run("state"))

    def news(self, *topics: str) -> News:
        return self._link.hub.listen(*topics)

    # -- running

    async def claim(self, kind: Kind, most: int, lease: float) -> Claimed:
        first, last = kind.ranks
        again, jobs = await self._link.run("claim", first=first, last=last, most=most, lease=lease)
        return Claimed(tuple(map(whole, jobs)), float(again))

    async def claim_one(self, id: str, *, caller: str | None, lease: float) -> Job | None:
        told = await self._link.run("claim_one", **tags(id=id, caller=caller), lease=lease)
        return whole(told) if told else None

    async def renew(self, claims: Iterable[Claim], lease: float) -> frozenset[str]:
        lost = await self._link.run("renew", claims=[named(claim) for claim in claims], lease=lease)
        return frozenset(name_of(id.decode()) for id in lost)

    async def note(self, claim: Claim, progress: str) -> bool:
        return bool(await self._link.run("note", claim=named(claim), progress=plain(progress)))

    # -- ending

    async def ack(self, claim: Claim, answer: Answer) -> bool:
        return await self._finish(claim, State.DONE, "", answer)

    async def fail(
        self, claim: Claim, error: str, *, answer: Answer | None = None, retry_at: float | None = None
    ) -> bool:
        if retry_at is not None:
            return await self._put_back(claim, due=retry_at, error=plain(error), uncounted=0)
        return await self._finish(claim, State.FAILED, plain(error), answer)

    async def release(self, claim: Claim, *, why: str = "") -> bool:
        return await self._put_back(claim, due=None, error=plain(why), uncounted=1)

    async def _finish(self, claim: Claim, state: State, error: str, answer: Answer | None) -> bool:
        words: Fields = {"claim": named(claim), "state": state, "error": error}
        if answer is None:
            return bool(await self._link.run("finish", **words))
        words |= {"status": answer.status, "content_type": plain(answer.content_type)}
        return bool(await self._link.run("finish", answer.body, **words))

    async def _put_back(self, claim: Claim, **words: Any) -> bool:
        return bool(await self._link.run("put_back", claim=named(claim), **words))

    async def cancel(self, id: str, *, caller: str | None) -> State | None:
        return state_in(await self._link.run("cancel", **tags(id=id, caller=caller)))

    async def cancel_lines(self, batch: str) -> int:
        return await self._line_by_line("cancel_lines", batch)

    async def retry(self, id: str, *, caller: str | None) -> State | None:
        return state_in(await self._link.run("retry", **tags(id=id, caller=caller)))

    # -- going

    async def delete(self, id: str, *, caller: str | None) -> bool:
        return bool(await self._link.run("delete", **tags(id=id, caller=caller)))

    async def delete_lines(self, batch: str) -> int:
        return await self._line_by_line("delete_lines", batch)

    async def purge(self) -> int:
        return await self._link.all_of("expire") + await self._link.all_of("forget")

    async def _line_by_line(self, operation: str, batch: str) -> int:
        """All that the operation does a part of; others come in between."""
        total, seq = 0, "0"
        while seq:
            moved, last = await self._link.run(operation, batch=tag(batch), seq=seq)
            total, seq = total + moved, last.decode()
        return total


# ---- What is said, and what is told ----


def said(job: Job) -> Fields:
    """A job that comes, as the script wants it."""
    fields = fields_of(job)
    needed = ("id", "caller", "rank", "batch", "key", "deadline")
    return {name: fields[name] for name in needed if fields[name] is not None} | {"fields": flat(fields)}


def named(claim: Claim) -> Fields:
    return {"id": tag(claim.id), "fence": claim.fence}


def state_in(told: bytes) -> State | None:
    return State(told.decode()) if told else None


def whole(told: list[bytes]) -> Job:
    """The job of a hash, with its body, and its answer if there is one."""
    found = paired(told)
    return job_of(typed(found), body=found["body"], answer=found.get("answer", b""))


def typed(found: Mapping[str, bytes | None]) -> Fields:
    """The fields of a job, None for what is not there."""
    return {
        **read(found, JOB_TEXTS, bytes.decode),
        **read(found, JOB_NUMBERS, float),
        **read(found, JOB_COUNTS, int),
    }
