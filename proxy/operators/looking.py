"""`app.py jobs list` and `show`."""

import sys
import time
from argparse import Namespace
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

from yarl import URL

from proxy.jobs import Job, JobStore, Page, State
from proxy.jobs.batches import Batch
from proxy.jobs.store import Store
from proxy.operators.telling import absent, harmless, moment, size, span, tell, tell_json, tell_outcomes, tell_rows

#: Jobs of a list that are asked for at once.
AT_ONCE = 500
HEADS = ("ID", "STATE", "AGE", "TRIES", "PRIORITY", "CALLER", "REQUEST", "NOTE")
#: What is told as it stands, and what as a time, of a job and of a batch.
FACTS = ("id", "state", "caller", "operation", "dialect", "method", "batch", "custom_id", "key")
TIMES = ("created", "started", "finished", "deadline", "expires_at", "again_at")
FACTS_OF_BATCH = ("id", "state", "caller", "endpoint", "window", "input_file", "output_file", "error_file")


# ---- list ----


async def list_jobs(store: Store, asked: Namespace) -> int:
    jobs: list[Job] = []
    async for page in pages(store.jobs, asked.state, asked.caller, batch=asked.batch, most=asked.limit):
        if asked.json:
            for job in page:
                tell_json(facts(job))
        else:
            jobs += page
    if not asked.json:
        await tell_table(store, jobs, may_be_more=len(jobs) == asked.limit)
    return 0


async def pages(
    jobs: JobStore, states: Collection[State], caller: str | None, *, batch: str | None = None, most: int = sys.maxsize
) -> AsyncIterator[Sequence[Job]]:
    """A list, some of it at a time, the newest first. The jobs of a page may be deleted before the next one comes."""
    page: Page[Job] | None = None
    while most and (page is None or page.after):
        after = page.after if page else None
        following = await jobs.list(caller=caller, states=states, batch=batch, after=after, limit=min(AT_ONCE, most))
        if page:
            yield page.entries
        page, most = following, most - len(following.entries)
    if page:
        yield page.entries


async def tell_table(store: Store, jobs: Sequence[Job], *, may_be_more: bool) -> None:
    tell_rows(HEADS, [row(job) for job in jobs])
    now = await store.jobs.state()
    tell("")
    tell(f"{len(jobs)} listed{', there may be more: --limit' if may_be_more else ''}")
    tell(
        f"{now.live} queued, {now.batch} lines of batches queued, {now.delayed} waiting for another attempt, "
        f"{now.running} running; {now.jobs} kept, {size(now.bytes)} in {store.where}"
    )


def row(job: Job) -> list[str]:
    cells = [
        job.id,
        job.state,
        span(time.time() - job.created),
        str(job.attempts),
        job.priority.name.lower() if job.caller else "-",
        job.caller or "(the service)",
        f"{job.method} {path_of(job)}" if job.caller else job.operation,
        note(job),
    ]
    return [harmless(cell) for cell in cells]


def note(job: Job) -> str:
    """What there is to say of it; first when it is tried again, if it is put off."""
    pause = "" if job.again_at is None else f"again in {span(job.again_at - time.time())}"
    return ": ".join(filter(None, (pause, job.error or job.progress)))


# ---- show ----


async def show(store: Store, asked: Namespace) -> int:
    told = await known(store, asked.id, has_bodies=asked.body)
    if told is None:
        return tell_outcomes([absent(asked.id)], is_json=asked.json)
    if asked.json:
        tell_json(told)
    else:
        for line in lines_of(told):
            tell(line, keeps="\n\t")
    return 0


async def known(store: Store, id: str, *, has_bodies: bool) -> dict[str, Any] | None:
    """What there is under this id."""
    if (batch := await store.batches.get(id, caller=None)) is not None:
        return facts_of_batch(batch)
    if (job := await store.jobs.get(id, caller=None)) is None:
        return None
    told = {**facts(job), "before_it": await store.jobs.position(id), **facts_of_answer(job)}
    return {**told, **bodies(job)} if has_bodies else told


def facts(job: Job) -> dict[str, Any]:
    """What is known of a job but what it says. Times are seconds since the epoch; of a webhook the host is told."""
    return {
        **{name: getattr(job, name) for name in FACTS},
        "path": path_of(job),
        "priority": job.priority.name.lower(),
        "webhook": URL(job.webhook).host if job.webhook else None,
        **{name: getattr(job, name) for name in (*TIMES, "attempts", "error", "progress")},
    }


def facts_of_answer(job: Job) -> dict[str, Any]:
    if job.answer is None:
        return {}
    status, content_type, body = job.answer
    return {"status": status, "content_type": content_type, "bytes": len(body)}


def bodies(job: Job) -> dict[str, Any]:
    """What was sent, and what was answered."""
    told = {"headers": dict(job.headers), "body": text_of(job.body)}
    return told if job.answer is None else {**told, "answer": text_of(job.answer.body)}


def facts_of_batch(batch: Batch) -> dict[str, Any]:
    return {
        **{name: getattr(batch, name) for name in FACTS_OF_BATCH},
        **{name: getattr(batch, name) for name in ("created", "deadline", "expires_at", "total")},
        "ended": {state.value: count for state, count in batch.ended.items() if count},
        "errors": len(batch.errors),
    }


def path_of(job: Job) -> str:
    """Where it goes to; a query may hold anything."""
    return job.path.partition("?")[0]


def text_of(body: bytes) -> str:
    """As it is, or as base64 if it is no text."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return f"base64:{b64encode(body).decode()}"


def lines_of(told: Mapping[str, Any]) -> list[str]:
    """For people: what there is, times by their clock."""
    there = {name: value for name, value in told.items() if value is not None and value != ""}
    return [f"{name:<12} {in_words(name, value)}" for name, value in there.items()]


def in_words(name: str, value: Any) -> str:
    if name in TIMES:
        return moment(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items()) or "none"
    return str(value)
