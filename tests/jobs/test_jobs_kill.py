"""kill -9 at any moment: what was accepted is there and is answered once, in every engine."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from making import OpenStore, Place, run_one, some_jobs
from redis_server import RedisServer
from running import until
from victim import RUNNING

from proxy.errors import JobsUnavailable
from proxy.jobs import Answer, JobStore, Kind, State

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@dataclass
class Witness:
    """What the killed have written down."""

    added: list[str] = field(default_factory=list)
    began: Counter[str] = field(default_factory=Counter)
    acked: dict[str, str] = field(default_factory=dict)
    kills: int = 0

    def watch(self, place: Place, lines: int) -> None:
        """Let a victim work until it has written that many lines, and kill it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [sys.executable, str(HERE / "victim.py"), str(place)], env=environment, stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout is not None
            told = [victim.stdout.readline() for _ in range(lines)]
            victim.kill()
            told += victim.stdout.read().splitlines()
        self.kills += 1
        for line in told:
            self.note(*line.decode().split())

    def note(self, what: str, id: str, nonce: str = "") -> None:
        if what == "added":
            self.added.append(id)
        elif what == "began":
            self.began[id] += 1
        else:
            assert id not in self.acked, "an answer was taken twice"
            self.acked[id] = nonce


async def finish(jobs: JobStore, seen: Witness) -> None:
    """Run what is left, as the next process would."""
    while (left := await jobs.state()).live + left.delayed + left.running:
        job = await run_one(jobs)
        seen.note("began", job.id)
        assert await jobs.ack(job.claim, Answer(200, "text/plain", b"afterwards"))
        seen.note("acked", job.id, "afterwards")


async def test_after_kills_every_accepted_job_is_answered_once(place: Place, open_store: OpenStore):
    """In the middle of adds and of answers. An answer that was told is the one that is kept; and no more runs were
    in vain than there were jobs running at the kills."""
    seen = Witness()
    for lines in (1, 2, 30, 100, 333):
        await asyncio.to_thread(seen.watch, place, lines)
    jobs = (await open_store(place)).jobs
    await finish(jobs, seen)
    assert len(seen.added) > 300
    for id in seen.added:
        job = await jobs.get(id, caller="ann")
        assert job is not None and job.state is State.DONE
        assert id not in seen.acked or job.answer.body.decode() == seen.acked[id]
    everything = await jobs.list(caller=None, limit=100_000)
    assert {job.state for job in everything.entries} == {State.DONE}
    assert sum(seen.began.values()) - len(everything.entries) <= seen.kills * RUNNING


async def test_what_a_killed_process_ran_is_claimed_at_once_from_a_file(tmp_path: Path, open_store: OpenStore):
    """Nobody has to wait for its leases: whoever held the file is dead, or the file would be locked."""
    path = tmp_path / "jobs.sqlite"
    story = f"""
import asyncio, os, signal
from pathlib import Path
from proxy.jobs import Job, Kind
from proxy.jobs.store import opened
async def main():
    async with opened(Path({str(path)!r})) as store:
        await store.jobs.add(Job(id="job_1", caller="ann", operation="chat", dialect="openai"))
        await store.jobs.claim(Kind.LIVE, 1, 3600)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", story], cwd=ROOT, check=False)
    claimed = await (await open_store(path)).jobs.claim(Kind.LIVE, 1, 60)
    assert [(job.id, job.fence, job.attempts) for job in claimed.jobs] == [("job_1", 2, 2)]


async def test_a_redis_that_is_killed_has_lost_nothing_that_was_accepted(own_redis: RedisServer, open_store: OpenStore):
    """Where it persists. The service notices nothing but the time in which Redis was away."""
    jobs = (await open_store(own_redis.url)).jobs
    accepted: list[str] = []

    async def add() -> None:
        with pytest.raises(JobsUnavailable, match="JOBS_URL"):
            while True:
                told = some_jobs(3)
                await jobs.add(*told)
                accepted.extend(job.id for job in told)

    adding = [asyncio.create_task(add()) for _ in range(5)]
    await until(lambda: len(accepted) > 200)
    await asyncio.to_thread(own_redis.kill)
    await asyncio.gather(*adding)
    with jobs.news(Kind.LIVE.topic) as news:
        await asyncio.to_thread(own_redis.start)
        assert await news.next(20)  # whatever was told meanwhile
    there = {job.id for job in (await jobs.list(caller=None, limit=100_000)).entries}
    assert set(accepted) <= there
