"""`app.py jobs cancel`, `retry` and `purge`."""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import Collection, Sequence

from proxy import work
from proxy.batching import CANCELLABLE
from proxy.batching import OPERATION as BATCH
from proxy.errors import BadRequest
from proxy.jobs import SERVICE, Job, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.runner import LEASE, RENEWAL
from proxy.jobs.store import Store
from proxy.operators.looking import pages
from proxy.operators.telling import Outcome, absent, tell, tell_json, tell_outcomes

# ---- cancel ----


async def cancel(store: Store, asked: Namespace) -> int:
    return tell_outcomes([await cancelled(store, id) for id in asked.ids], is_json=asked.json)


async def cancelled(store: Store, id: str) -> Outcome:
    if (batch := await store.batches.get(id, caller=None)) is not None:
        return await cancelled_batch(store, batch)
    if (job := await store.jobs.get(id, caller=None)) is None:
        return absent(id)
    if job.caller == SERVICE and job.operation == BATCH:
        return Outcome(id, False, "is what the service does for a batch: cancel the batch itself")
    state = await work.cancel(store.jobs, id, caller=None)
    if state is None:
        return absent(id)
    if state is not State.CANCELLED or job.state.is_end:
        return Outcome(id, state is State.CANCELLED, f"has ended: it is {state}")
    if job.state is State.RUNNING:
        return Outcome(id, True, f"is cancelled; the service lets go of it within {RENEWAL:g} s")
    return Outcome(id, True, "is cancelled")


async def cancelled_batch(store: Store, batch: Batch) -> Outcome:
    told = await store.batches.advance(batch.id, among=CANCELLABLE, to=BatchState.CANCELLING)
    if told is None:
        return Outcome(batch.id, False, f"is {batch.state}: there is nothing to cancel")
    await store.jobs.cancel_lines(batch.id)  # it would be done anyway, though not at once
    return Outcome(batch.id, True, "is being cancelled; what is in flight ends first")


# ---- retry ----


async def retry(store: Store, asked: Namespace) -> int:
    return tell_outcomes([await queued_again(store, id) for id in asked.ids], is_json=asked.json)


async def queued_again(store: Store, id: str) -> Outcome:
    if (job := await store.jobs.get(id, caller=None)) is None:
        return absent(id)
    if not job.state.is_end:
        return Outcome(id, False, f"is {job.state}: it has not ended")
    if job.state is State.DONE:
        return Outcome(id, False, "is done: it has its answer")
    if not await is_wanted(store, job):
        return Outcome(id, False, "is a line of a batch that is over: send it in another one")
    if await work.retry(store.jobs, id, caller=None) is None:
        return absent(id)
    return Outcome(id, True, f"is queued again; if the service runs, it is seen within {LEASE:g} s")


async def is_wanted(store: Store, job: Job) -> bool:
    """Whether anybody asks for what becomes of it: of a line, its batch does while it is in progress."""
    if job.batch is None:
        return True
    batch = await store.batches.get(job.batch, caller=None)
    return batch is not None and batch.state is BatchState.IN_PROGRESS


# ---- purge ----


async def purge(store: Store, asked: Namespace) -> int:
    before = time.time() - asked.older_than
    if sys.stdin.isatty() and not asked.yes and not await is_sure(store, asked.state, asked.caller, before):
        tell("nothing is forgotten")
        return 1
    forgotten = await forget(store, asked.state, asked.caller, before)
    await store.purge()  # room is given back to the disk
    if asked.json:
        tell_json({"forgotten": forgotten})
    else:
        tell(f"{forgotten} forgotten")
    return 0


async def is_sure(store: Store, states: Collection[State], caller: str | None, before: float) -> bool:
    found = 0
    async for page in pages(store.jobs, states, caller):
        found += len(over(page, before))
    print(f"Forget {found} jobs that are over, and their answers? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def forget(store: Store, states: Collection[State], caller: str | None, before: float) -> int:
    """Returns how many."""
    total = 0
    while True:
        try:
            async for page in pages(store.jobs, states, caller):
                ids = [job.id for job in over(page, before)]
                total += sum(await asyncio.gather(*(store.jobs.delete(id, caller=None) for id in ids)))
            return total
        except BadRequest:  # somebody else has deleted where the next page begins
            continue


def over(jobs: Sequence[Job], before: float) -> list[Job]:
    """Those that had ended before this time."""
    return [job for job in jobs if job.finished is not None and job.finished <= before]
