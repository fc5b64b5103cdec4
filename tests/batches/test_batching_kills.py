"""A batch that is cut off at any moment is taken up where it was: the same files, each answer once."""

import asyncio
import inspect
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from batch_talk import Respond, accepted, batching_of, codes, echo, line, lines, now, over, read, running
from batch_victim import RUNNING

from proxy.jobs import Answer, Job, Kind
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.runner import TryLater
from proxy.jobs.store import Store, opened

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Seconds, far more than a victim takes.
PATIENCE = 60.0


class Life:
    """So many steps are left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise asyncio.CancelledError


class Mortal:
    """A part of a store for one who may die before and after each thing that he asks of it."""

    def __init__(self, part: Any, life: Life) -> None:
        self._part = part
        self._life = life

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._part, name)

        async def once(*args: Any, **knobs: Any) -> Any:
            self._life.step()
            told = await asked(*args, **knobs)
            self._life.step()
            return told

        async def each(*args: Any, **knobs: Any) -> Any:
            async for told in asked(*args, **knobs):
                self._life.step()
                yield told

        if inspect.iscoroutinefunction(asked):
            return once
        return each if inspect.isasyncgenfunction(asked) else asked


def mortal(store: Store, steps: int) -> Store:
    life = Life(steps)
    parts: Any = {name: Mortal(getattr(store, name), life) for name in ("jobs", "files", "batches")}
    return replace(store, **parts)


async def claimed(store: Store, kind: Kind) -> Job:
    with store.jobs.news(kind.topic) as news:
        while not (found := (await store.jobs.claim(kind, 1, 60)).jobs):
            await news.next(0.1)
    return found[0]


@asynccontextmanager
async def answering(store: Store) -> AsyncIterator[Counter[str]]:
    """Somebody answers all lines meanwhile; how often each was run, by its id."""
    ran: Counter[str] = Counter()

    async def answer() -> None:
        while True:
            job = await claimed(store, Kind.BATCH)
            ran[job.id] += 1
            if job.custom_id == "bad":
                await store.jobs.fail(job.claim, "no")
            else:
                await store.jobs.ack(job.claim, await echo(job))

    answerer = asyncio.create_task(answer())
    try:
        yield ran
    finally:
        answerer.cancel()
        await asyncio.gather(answerer, return_exceptions=True)


async def live(store: Store, steps: int) -> bool:
    """Work on a batch for so many steps. False if that was not enough to end it."""
    job = await claimed(store, Kind.OWN)
    try:
        await batching_of(mortal(store, steps)).run(job)
    except asyncio.CancelledError:
        await store.jobs.release(job.claim)  # as the end of its lease does
        return False
    await store.jobs.ack(job.claim, await echo(job))
    return True


GOOD = [*lines(2), line("bad")]
#: What becomes of which batch: its lines, its fields, how it ends, and its lines with an answer and without.
STORIES: dict[str, tuple[list[str], dict[str, Any], BatchState, str, list[str]]] = {
    "completed": (GOOD, {}, BatchState.COMPLETED, "01", ["bad"]),
    "failed": ([*GOOD, "{"], {}, BatchState.FAILED, "", []),
    "expired": (GOOD, {"deadline": time.time() - 1}, BatchState.EXPIRED, "", [*"01", "bad"]),
}


async def check(store: Store, batch: Batch, story: str, ran: Counter[str]) -> None:
    _, _, state, answered, unanswered = STORIES[story]
    done = await now(store, batch)
    assert done.state is state
    for file, expected in ((done.output_file, [*answered]), (done.error_file, unanswered)):
        assert (file is not None) == bool(expected)
        assert expected == ([] if file is None else [*await read(store, file)])
    assert set(ran.values()) <= {1}
    assert not (await store.jobs.list(caller=None, batch=batch.id)).entries
    files = (await store.files.list(caller="ann", purpose="batch_output")).entries
    assert {file.id for file in files} == {done.output_file, done.error_file} - {None}


@pytest.mark.parametrize("story", STORIES)
async def test_a_kill_at_any_step_changes_nothing(store: Store, story: str):
    texts, fields, *_ = STORIES[story]
    for steps in count():
        async with answering(store) as ran:
            batch = await accepted(store, texts, **fields)
            is_whole = await live(store, steps)
            while not is_whole and not await live(store, 10_000):
                pass
            await check(store, batch, story, ran)
        for file in (await store.files.list(caller="ann")).entries:
            await store.files.delete(file.id, caller="ann")
        if is_whole:
            break
    assert steps > (10 if story == "failed" else 25)


@pytest.mark.parametrize("seed", range(10))
async def test_kill_after_kill_changes_nothing(store: Store, seed: int):
    """However little is done in each life: it gets there as long as something is."""
    chance = random.Random(seed)
    async with answering(store) as ran:
        batch = await accepted(store, GOOD)
        async with asyncio.timeout(60):
            while not await live(store, chance.randint(5, 40)):
                pass
        await check(store, batch, "completed", ran)


async def test_a_cancelled_batch_is_cancelled_whenever_its_work_is_cut_off(store: Store):
    """Nothing is answered twice, and what was not answered is told as cancelled."""
    for steps in count():
        async with answering(store) as ran:
            batch = await accepted(store, GOOD)
            among = [BatchState.VALIDATING, BatchState.IN_PROGRESS]
            is_whole = await live(store, steps)
            is_cancelled = await store.batches.advance(batch.id, among=among, to=BatchState.CANCELLING)
            while not is_whole and not await live(store, 10_000):
                pass
        done = await now(store, batch)
        assert done.state is BatchState.CANCELLED if is_cancelled else BatchState.COMPLETED
        told = [await read(store, file) for file in (done.output_file, done.error_file) if file is not None]
        assert sum(map(len, told)) == done.total
        if done.error_file and is_cancelled:
            assert set(codes(await read(store, done.error_file)).values()) <= {"batch_cancelled", "request_failed"}
        assert set(ran.values()) <= {1}
        if is_whole:
            break


async def test_two_who_work_on_one_batch_do_it_once(store: Store):
    """The first lost its lease and does not know it yet."""
    async with answering(store) as ran:
        batch = await accepted(store, GOOD)
        first = await claimed(store, Kind.OWN)
        await store.jobs.release(first.claim)
        second = await claimed(store, Kind.OWN)
        ends = await asyncio.gather(*[batching_of(store).run(job) for job in (first, second)], return_exceptions=True)
        assert ends[1] is None and (ends[0] is None or isinstance(ends[0], TryLater))
        await check(store, batch, "completed", ran)


class Witness:
    """What the killed have written down: which answers were given to which line."""

    def __init__(self) -> None:
        self.given: defaultdict[str, list[str]] = defaultdict(list)

    @property
    def runs(self) -> int:
        return sum(map(len, self.given.values()))

    def watch(self, place: str, runs: int) -> None:
        """Let a victim begin so many lines, and kill it."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [sys.executable, str(HERE / "batch_victim.py"), place], env=environment, stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout is not None
            end = Timer(PATIENCE, victim.kill)  # of one that does nothing
            end.start()
            told = [victim.stdout.readline() for _ in range(runs)]
            end.cancel()
            victim.kill()
            told += victim.stdout.read().splitlines()
        for run in told:
            _, id, nonce = run.decode().split()
            self.given[id].append(nonce)


async def test_after_kills_of_whole_processes_each_line_has_one_answer(place: str):
    """And no more runs were in vain than there were lines running at the kills."""
    async with opened(place) as store:
        batch = await accepted(store, lines(600))
    seen, kills = Witness(), (1, 2, 20, 50, 100)
    for runs in kills:
        await asyncio.to_thread(seen.watch, place, runs)
    async with opened(place) as store, running(store, nonces(seen)):
        done = await over(store, batch)
        answers = await read(store, done.output_file)
    assert done.state is BatchState.COMPLETED and len(answers) == 600
    for each in answers.values():
        assert each["response"]["body"] in seen.given[each["response"]["request_id"]]
    assert seen.runs - 600 <= len(kills) * RUNNING


def nonces(seen: Witness) -> Respond:
    async def respond(job: Job) -> Answer:
        seen.given[job.id].append("afterwards")
        return Answer(200, "application/json", b'"afterwards"')

    return respond
