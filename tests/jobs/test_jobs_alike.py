"""The engines are alike: whatever is done, in whatever order, they tell the same."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from making import ANSWER, LONG, a_job
from redis_server import RedisServer

from proxy.jobs import Job, Kind
from proxy.jobs.batches import Batch
from proxy.jobs.store import Store, opened
from proxy.line import Priority

WHAT = ["add", "key", "claim", "claim", "ack", "fail", "later", "release", "renew", "note"]
WHAT += ["cancel", "retry", "delete", "purge", "cancel_lines", "delete_lines"]
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 5)), max_size=40)
BATCH = Batch(id="batch_1", caller="ann", endpoint="/", window="24h", input_file="f", created=1.0)


class Story:
    """The same steps for each store, each named by a number that is read as the step needs it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.jobs = store.jobs
        self.known: list[str] = []
        self.claimed: list[Job] = []

    async def step(self, what: str, number: int) -> Any:
        """What the store says to it."""
        priority = [*Priority][number % 4]
        job = a_job(
            id=f"job_{len(self.known)}",
            created=1.0,
            keep=0 if number == 5 else LONG,
            priority=priority,
            batch=BATCH.id if priority is Priority.BATCH else None,
        )
        if what == "add":
            self.known.append(job.id)
            return await self.jobs.add(job)
        if what == "key":
            found = await self.jobs.find_or_add(a_job(id=job.id, key=str(number), created=1.0))
            self.known += [job.id] if found.is_new else []
            return found.job.id, found.is_new
        if what == "claim":
            told = await self.jobs.claim([*Kind][number % 2], number, LONG)
            self.claimed += told.jobs
            return [(told.id, told.fence, told.attempts) for told in told.jobs]
        if what == "purge":
            return await self.store.purge()
        if what.endswith("_lines"):
            return await getattr(self.jobs, what)(BATCH.id)
        return await self.with_one(what, number)

    async def with_one(self, what: str, number: int) -> Any:
        """A step with a job that was claimed, or at least added."""
        if what in ("cancel", "retry", "delete"):
            return (
                await getattr(self.jobs, what)(self.known[-number % len(self.known)], caller=None) if self.known else 0
            )
        if not self.claimed:
            return None
        claim = self.claimed[-number % len(self.claimed)].claim
        steps = {
            "ack": lambda: self.jobs.ack(claim, ANSWER),
            "fail": lambda: self.jobs.fail(claim, "no"),
            "later": lambda: self.jobs.fail(claim, "not now", retry_at=4e9),
            "release": lambda: self.jobs.release(claim),
            "renew": lambda: self.jobs.renew([claim], LONG),
            "note": lambda: self.jobs.note(claim, str(number)),
        }
        return await steps[what]()

    async def told(self) -> Any:
        """Everything that can be seen, but for times and bytes."""
        jobs = [await self.jobs.get(id, caller="ann") for id in self.known]
        seen = [job and (job.state, job.fence, job.attempts, job.answer, job.error, job.progress) for job in jobs]
        places = [await self.jobs.position(id) for id in self.known]
        lists = [(await self.jobs.list(caller="ann", batch=batch)).entries for batch in (None, BATCH.id)]
        batch = await self.store.batches.get(BATCH.id, caller=None)
        return seen, places, [[job.id for job in page] for page in lists], batch, (await self.jobs.state())[:5]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_both_engines_tell_the_same_of_any_story(jobs_redis: RedisServer, steps: list[tuple[str, int]]):
    """Step by step: what is returned, and what can be seen afterwards."""

    async def compare(place: Path) -> None:
        jobs_redis.client.flushall()
        async with opened(place) as sqlite, opened(jobs_redis.url) as redis:
            stories = Story(sqlite), Story(redis)
            for story in stories:
                await story.store.batches.add(BATCH)
            for step in steps:
                ours, theirs = [await story.step(*step) for story in stories]
                assert ours == theirs, step
                ours, theirs = [await story.told() for story in stories]
                assert ours == theirs, step

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder) / "jobs.sqlite"))
