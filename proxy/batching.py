"""Batches: a file of requests is checked, its lines become jobs, and their answers become files.

Rule 1: what is to be done for a batch is one job of the service's own, from the batch's making to its end. It may be
        cut off at any moment and taken up by any process: each step is found again by the batch's state, may be taken
        twice, and is taken on by one alone.
Rule 2: no line becomes a job before all of them are known to be good. How many have is noted with the job of rule 1.
Rule 3: the ids of lines and of files follow from the batch's: what is written twice is there once.
Rule 4: a few lines are in memory at once. All batches together hold no more lines than the store has room for, so that
        none waits for another's room while that one waits for its own.
Rule 5: lines leave the store when they stand in the files, not before.

| from        | what is done                                      | to                           |
|-------------|---------------------------------------------------|------------------------------|
| validating  | the file is inspected                             | in_progress, or failed       |
| in_progress | lines are added, until all have ended or are late | finalizing                   |
| finalizing  | both files are written                            | completed, or expired        |
| cancelling  | what runs ends, then both files are written       | cancelled                    |
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict
from hashlib import blake2b
from typing import Any, NamedTuple

from proxy.dialects.openai.batches import (
    CANCELLED,
    ENDPOINTS,
    EXPIRED,
    OUTPUT,
    Inspection,
    line_of,
    output_line,
    unbegun_line,
)
from proxy.errors import JobsFull, NotFound, ProxyError
from proxy.jobs import DAY, SERVICE, Job, State
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.files import StoredFile, lines_of
from proxy.jobs.news import News
from proxy.jobs.runner import TryLater
from proxy.jobs.store import Store
from proxy.line import Priority
from proxy.tracing import NOTHING

log = logging.getLogger("proxy.batching")

GONE = "The input file is gone: the batch ended where it was."

OPERATION = "batch"
#: What lines are.
REQUEST = "request"
DIALECT = "openai"
HEADERS = {"Content-Type": "application/json"}
#: Lines of the largest batch, as OpenAI has it.
MOST_LINES = 50_000
#: The share of the jobs in the store that lines of batches may be.
SHARE = 0.75
#: Lines, and bytes of them, that are added at once.
AT_ONCE, BYTES_AT_ONCE = 200, 1024 * 1024
#: Lines after which others get their turn.
TURN = 50
#: Seconds between two looks at a batch of which nothing is heard.
LOOK = 10.0
#: Seconds before another attempt where there is no room; many times as many where much has to be done again.
PAUSE, MOST_PAUSES = 15.0, 20
#: Seconds between two looks at a batch of which much is heard.
SETTLING = 0.2
#: Seconds for which a batch is kept when it is over, and its lines if nobody comes to take them out.
KEEP = 30 * DAY
#: What is noted when all lines are jobs.
ALL = "all"
#: States in which lines of a batch may be in the store.
HOLDING = (BatchState.IN_PROGRESS, BatchState.FINALIZING, BatchState.CANCELLING)
#: States in which a batch may still be cancelled.
CANCELLABLE = (BatchState.VALIDATING, BatchState.IN_PROGRESS)
UNENDED = (State.QUEUED, State.RUNNING)


# ---- Making one ----


class Order(NamedTuple):
    """What the job of a batch says: the batch as it was asked for, and for how many seconds its files are kept.

    `origin` are the headers of the trace in which it was.
    """

    batch: Batch
    life: float
    origin: Mapping[str, str] = NOTHING

    def job(self) -> Job:
        told = {name: value for name, value in asdict(self.batch).items() if name in ASKED}
        body = json.dumps({"batch": told, "life": self.life}).encode()
        return Job(
            id=f"run_{self.batch.id}",
            caller=SERVICE,
            operation=OPERATION,
            dialect=DIALECT,
            priority=Priority.HIGH,
            headers=dict(self.origin),
            body=body,
        )

    @classmethod
    def of(cls, job: Job) -> "Order":
        told = json.loads(job.body)
        return cls(Batch(**told["batch"]), told["life"], job.headers)


#: Fields of a batch that its maker knows.
ASKED = frozenset({"id", "caller", "endpoint", "window", "input_file", "metadata", "created", "deadline"})


async def accept(store: Store, order: Order) -> None:
    """It is kept, and will be run, when this returns. Raises JobsFull, JobsUnavailable."""
    job = order.job()
    # The job first: without it nobody would care for the batch, while it can do without.
    await store.jobs.add(job)
    try:
        await store.batches.add(order.batch)
    except JobsFull:
        if await store.batches.get(order.batch.id, caller=None) is None:
            await store.jobs.cancel(job.id, caller=SERVICE)
        raise


# ---- Running it ----


class Batching:
    """The service's own work on batches.

    Args:
        longest: bytes that a line may have.
        room: jobs that the store may hold.
        cancel_waiting: cancels the lines of a batch that wait in the line of this process.
    """

    def __init__(
        self,
        store: Store,
        *,
        longest: int,
        room: int,
        cancel_waiting: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._cancel_waiting = cancel_waiting
        self._longest = longest
        self._room = max(1, int(room * SHARE))
        self._most = min(MOST_LINES, self._room)
        self._entering = asyncio.Lock()
        self._steps: Mapping[BatchState, Callable[[Order, Job, Batch], Awaitable[object]]] = {
            BatchState.VALIDATING: self._validate,
            BatchState.IN_PROGRESS: self._progress,
            BatchState.FINALIZING: self._finish,
            BatchState.CANCELLING: self._cancel,
        }

    def __repr__(self) -> str:
        return f"<Batching in {self._store.where} lines={self._room}>"

    async def run(self, job: Job) -> None:
        """Take the batch of this job from wherever it stands to its end. Raises TryLater."""
        order = Order.of(job)
        try:
            if await self._now(order) is None:
                await self._store.batches.add(order.batch)
            while (batch := await self._now(order)) is not None and (step := self._steps.get(batch.state)):
                await step(order, job, batch)
            await self._store.jobs.delete_lines(order.batch.id)
        except ProxyError as error:  # no room, or no store
            raise TryLater(PAUSE * min(job.attempts, MOST_PAUSES), str(error)) from None

    async def _now(self, order: Order) -> Batch | None:
        return await self._store.batches.get(order.batch.id, caller=None)

    # -- validating

    async def _validate(self, order: Order, job: Job, batch: Batch) -> None:
        if not batch.total:
            await self._inspect(batch)
        elif left(batch) <= 0:  # it needs no room any more
            await self._advance(batch, BatchState.IN_PROGRESS)
        else:
            await self._enter(batch)

    async def _inspect(self, batch: Batch) -> None:
        inspection = Inspection(batch.endpoint, most=self._most, longest=self._longest)
        try:
            async with aclosing(self._texts(batch)) as texts:
                async for number, text in texts:
                    inspection.hear(number, text)
                    if inspection.has_seen_enough:
                        break
            inspection.end()
        except NotFound:
            inspection.miss()
        if inspection.errors:
            await self._end(batch, BatchState.FAILED, errors=tuple(inspection.errors))
        else:
            await self._advance(batch, None, total=inspection.lines)

    async def _enter(self, batch: Batch) -> None:
        """Begin with it if its lines have room beside those of all others. Raises TryLater."""
        async with self._entering:
            if await self._held() + batch.total > self._room:
                raise TryLater(PAUSE, f"{batch.total} lines have no room beside those of other batches (JOBS_MAX)")
            await self._advance(batch, BatchState.IN_PROGRESS)

    async def _held(self) -> int:
        """Lines of all batches that may be in the store."""
        total, after = 0, None
        while True:
            page = await self._store.batches.list(caller=None, states=HOLDING, after=after)
            total += sum(batch.total for batch in page.entries)
            after = page.after
            if after is None:
                return total

    # -- in progress

    async def _progress(self, order: Order, job: Job, batch: Batch) -> None:
        if job.progress != ALL:
            try:
                await self._add_lines(order, job)
            except NotFound:
                error = {"code": "file_not_found", "line": None, "message": GONE, "param": "input_file_id"}
                await self._advance(batch, BatchState.CANCELLING, errors=(error,))
        with self._store.jobs.news(batch.id) as news:
            while (now := await self._now(order)) is not None and now.state is BatchState.IN_PROGRESS:
                if await self._is_over(now):
                    await self._advance(now, BatchState.FINALIZING)
                else:
                    await heard(news, left(now))

    async def _add_lines(self, order: Order, job: Job) -> None:
        """From where it was left. Raises NotFound, JobsFull, TryLater."""
        begun = int(job.progress or 0)
        async with aclosing(self._lines(order, begun)) as parts:
            async for part in parts:
                now = await self._now(order)
                if now is None or now.state is not BatchState.IN_PROGRESS or left(now) <= 0:
                    return
                # What fills the store may be its own answers, and those leave at its end alone.
                await self._store.jobs.add(*part, is_owed=any(now.ended.values()))
                await self._note(job, str(number_of(part[-1].id)))
        await self._note(job, ALL)

    async def _note(self, job: Job, progress: str) -> None:
        if not await self._store.jobs.note(job.claim, progress):
            raise TryLater(0, "another process goes on with it")

    async def _is_over(self, batch: Batch) -> bool:
        """Whether no line of it will end any more."""
        if batch.is_over or left(batch) > 0:
            return batch.is_over
        await self._store.jobs.purge()  # which is when lines that are late expire
        return not await self._has_unended(batch)

    async def _has_unended(self, batch: Batch) -> bool:
        return bool((await self._store.jobs.list(caller=None, batch=batch.id, states=UNENDED, limit=1)).entries)

    # -- the end

    async def _cancel(self, order: Order, job: Job, batch: Batch) -> None:
        with self._store.jobs.news(batch.id) as news:
            # Again and again: what runs may be put back in line.
            while await self._store.jobs.cancel_lines(batch.id) or await self._has_unended(batch):
                if self._cancel_waiting is not None:
                    await self._cancel_waiting(batch.id)
                await heard(news)
        await self._finish(order, job, batch)

    async def _finish(self, order: Order, job: Job, batch: Batch) -> None:
        now = await self._now(order)
        if now is None or now.state is not batch.state:
            return
        done = now.ended.get(State.DONE, 0)
        output = await self._written(order, "output", self._answers(now)) if done else None
        error = await self._written(order, "error", self._errors(now)) if now.total > done else None
        await self._end(now, end_of(now), output_file=output, error_file=error)

    async def _written(self, order: Order, kind: str, lines: AsyncGenerator[bytes, None]) -> str:
        """The id of a file of these lines, which is written unless it is there."""
        batch, files = order.batch, self._store.files
        id = f"file_{blake2b(f'{batch.id} {kind}'.encode(), digest_size=16).hexdigest()}"
        if await files.get(id, caller=None) is None:
            file = StoredFile(
                id=id,
                caller=batch.caller,
                purpose=OUTPUT,
                filename=f"{batch.id}_{kind}.jsonl",
                expires_at=time.time() + order.life,
            )
            async with aclosing(lines):
                await files.add(file, lines, is_owed=True)  # its lines, which go then, have taken that room
        return id

    async def _answers(self, batch: Batch) -> AsyncGenerator[bytes, None]:
        async for job in self._store.jobs.lines(batch.id):
            if job.state is State.DONE:
                yield output_line(job)

    async def _errors(self, batch: Batch) -> AsyncGenerator[bytes, None]:
        """What has no answer: lines that ended otherwise, and those that never became jobs."""
        last = 0
        async for job in self._store.jobs.lines(batch.id):
            last = max(last, number_of(job.id))
            if job.state is not State.DONE:
                yield output_line(job)
        if not batch.is_over:
            async for line in self._unbegun(batch, last):
                yield line

    async def _unbegun(self, batch: Batch, after: int) -> AsyncGenerator[bytes, None]:
        error = CANCELLED if batch.state is BatchState.CANCELLING else EXPIRED
        with suppress(NotFound):  # then nobody knows them
            async for number, text in self._texts(batch):
                if number > after:
                    yield unbegun_line(line_id(batch, number), text, batch.endpoint, error)

    # -- steps

    async def _advance(self, batch: Batch, to: BatchState | None, **changes: Any) -> None:
        """The next step, unless somebody has taken another one."""
        await self._store.batches.advance(batch.id, among=[batch.state], to=to, **changes)

    async def _end(self, batch: Batch, to: BatchState, **changes: Any) -> None:
        await self._advance(batch, to, expires_at=time.time() + KEEP, **changes)
        log.info("batch %s of %s: %s, %d lines", batch.id, batch.caller, to, batch.total)

    # -- lines

    async def _texts(self, batch: Batch) -> AsyncGenerator[tuple[int, bytes], None]:
        """The lines of its input file that are not empty, by their numbers from 1. Raises NotFound."""
        number = 0
        async for text in lines_of(self._store.files.content(batch.input_file), self._longest):
            number += 1
            if number % TURN == 0:
                await asyncio.sleep(0)
            if text and not text.isspace():
                yield number, text

    async def _lines(self, order: Order, after: int) -> AsyncGenerator[list[Job], None]:
        """The jobs that it consists of, behind the line of this number, some at a time."""
        part: list[Job] = []
        size = 0
        async with aclosing(self._texts(order.batch)) as texts:
            async for number, text in texts:
                if number <= after:
                    continue
                part.append(job_of(order.batch, number, text, order.origin))
                size += len(text)
                if len(part) >= AT_ONCE or size >= BYTES_AT_ONCE:
                    yield part
                    part, size = [], 0
        if part:
            yield part


def job_of(batch: Batch, number: int, text: bytes, origin: Mapping[str, str] = NOTHING) -> Job:
    """The job that a line is."""
    line = line_of(text, batch.endpoint)
    return Job(
        id=line_id(batch, number),
        caller=batch.caller,
        operation=REQUEST,
        dialect=ENDPOINTS[batch.endpoint],
        path=batch.endpoint,
        headers={**HEADERS, **origin},
        body=line.body,
        priority=Priority.BATCH,
        batch=batch.id,
        custom_id=line.custom_id,
        deadline=batch.deadline,
        keep=KEEP,
    )


def line_id(batch: Batch, number: int) -> str:
    return f"{batch.id}_{number}"


def number_of(id: str) -> int:
    """The number of the line with this id."""
    return int(id.rpartition("_")[2])


def left(batch: Batch) -> float:
    """Seconds until the end of its window."""
    return float("inf") if batch.deadline is None else batch.deadline - time.time()


async def heard(news: News, seconds: float = LOOK) -> None:
    """Wait until there may be something new, `seconds` at most if they are not over: for much at once, one look."""
    await news.next(min(LOOK, seconds) if seconds > 0 else LOOK)
    await asyncio.sleep(SETTLING)


def end_of(batch: Batch) -> BatchState:
    """How it ends whose lines will end no more."""
    if batch.state is BatchState.CANCELLING:
        return BatchState.CANCELLED
    return BatchState.EXPIRED if batch.ended.get(State.EXPIRED, 0) or not batch.is_over else BatchState.COMPLETED
