"""Callers who wait for the answer of a job: they are told it as it is made, wherever that is.

Rule 1: who follows a job that is under way in this process gets its answer as that is recorded, a stream piece by
        piece; from elsewhere it comes whole, when it is in the store.
Rule 2: whoever leaves, or has no more time, leaves the job where it is.
Rule 3: what broke off ends for those who follow it as it does for all others: nobody takes it for whole.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from aiohttp import web
from multidict import CIMultiDict

from proxy.accepting import request_id_of
from proxy.delivery import Delivery, begin, headers, where
from proxy.dialects import Dialect
from proxy.entry import NOTE, Note
from proxy.errors import AnswerPending, Cancelled, ClaimOver, NoAnswer, Stopping, UpstreamError
from proxy.jobs import Job, State
from proxy.jobs.news import News
from proxy.jobs.recording import Recording
from proxy.jobs.run import Run
from proxy.line import HELD
from proxy.work import Work

#: Seconds between two looks at whether a job that was elsewhere is under way here by now.
GLANCE = 1.0
#: Headers of a connection, and of who is at its end; each answer has its own.
OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "vary"})


class Follower:
    """Waits for the answer of a job. Until the block is left it counts among those who do."""

    def __init__(self, work: Work, note: Note) -> None:
        self._note = note
        self._jobs = work.store.jobs
        self._runner = work.runner
        self._run: Run | None = None
        #: One that was followed and ended, and the job did not.
        self._spent: Run | None = None
        self._has_left = False

    def __repr__(self) -> str:
        return f"<Follower of {self._run}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None and self._run.untold is not None:
            self._note.take(self._run.untold)
            self._run.untold = None
        self._part()
        self._has_left = True

    def join(self, run: Run) -> None:
        """Wait for this one's answer. Whoever has left joins nothing."""
        self._part()
        if not self._has_left:
            self._run = run
            run.followers += 1

    def _part(self) -> None:
        if self._run is not None:
            self._run.followers -= 1
            self._run = None

    async def recording(self, id: str) -> Recording:
        """The answer of this job, as soon as it has begun. Raises ProxyError if there will be none."""
        with self._jobs.news(id) as news:
            while (recording := await self._here(id)) is None:
                job = await self._jobs.get(id, caller=None)
                if job is None or job.state.is_end:
                    return kept(job)
                await self._change(id, news)
            return recording

    async def _here(self, id: str) -> Recording | None:
        """Its answer in this process; None if it is not under way here, or has ended here and not for good."""
        run = self._run or self._runner.run(id)
        if run is None or run is self._spent:
            return None
        if run is not self._run:
            self.join(run)
        if await run.recording.begun() and not isinstance(run.recording.failure, ClaimOver):
            return run.recording
        self._part()
        self._spent = run
        return None

    async def _change(self, id: str, news: News) -> None:
        """Until the store has news of it, or it is begun here."""
        while self._runner.run(id) in (None, self._spent) and not await news.next(GLANCE):
            pass

    @property
    def is_held(self) -> bool:
        """Whether it waits in a line of this process that operators have paused."""
        return self._run is not None and self._run.is_held

    def progress(self, _: web.Request) -> str:
        """What a person who looks at the raw stream reads while it waits."""
        note = self._run.recording.note if self._run is not None else None
        return "under way" if note is None else where(note)


class Following:
    """Takes callers to the answers of jobs."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._limits: set[asyncio.Timeout] = set()
        self._is_stopping = False

    def __repr__(self) -> str:
        return f"<Following waiting={len(self._limits)}>"

    async def follow(
        self, dialect: Dialect, request: web.Request, follower: Follower, id: str, *, is_stream: bool, ends: float
    ) -> web.StreamResponse:
        """The answer of this job, which must have begun when the loop's time is `ends`. Raises ProxyError."""
        response = web.StreamResponse()
        async with self._delivery.unbroken(dialect, request, response):
            async with self.patience(ends, follower):
                recording = await self._awaited(request, response, follower, id, is_stream)
            response = await self._told(dialect, request, response, recording)
        return response

    async def stop(self, _: web.Application) -> None:
        """Whoever waits still, for what is elsewhere, is told to come back."""
        self._is_stopping = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    @asynccontextmanager
    async def patience(self, ends: float, follower: Follower) -> AsyncIterator[None]:
        """A block of this one's wait, which takes no longer than until the loop's time is `ends`.

        Raises AnswerPending then, Stopping if the service stops before.
        """
        try:
            async with asyncio.timeout_at(ends) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if self._is_stopping:
                raise Stopping(retry_after=1) from None
            why = f": {HELD}" if follower.is_held else ""
            raise AnswerPending(
                f"no answer came in the time that this request may wait (X-Request-Timeout, RESP_TIMEOUT){why}. "
                "It goes on: send it again with the same Idempotency-Key to get its answer",
                retry_after=1,
            ) from None

    async def _awaited(
        self, request: web.Request, response: web.StreamResponse, follower: Follower, id: str, is_stream: bool
    ) -> Recording:
        if is_stream:
            return await self._delivery.awaited(request, response, follower.recording(id), follower.progress)
        with self._delivery.beating(request):
            return await follower.recording(id)

    async def _told(
        self, dialect: Dialect, request: web.Request, response: web.StreamResponse, recording: Recording
    ) -> web.StreamResponse:
        """The answer on the wire, from its head to its end."""
        if isinstance(recording.failure, Stopping) and not response.prepared:
            raise recording.failure  # it closes the connection, too
        if response.prepared and recording.status != 200:
            raise recording.failure or UpstreamError(recording.status, recording.answer.body)
        if recording.is_over and not response.prepared and not is_cut(dialect, recording):
            self._note(request, recording)
            return whole(request, recording)
        if not response.prepared:
            response.set_status(recording.answer.status)
        await begin(request, response, told_headers(request, recording))
        async for piece in recording.pieces():
            await self._delivery.write(request, response, piece)
        if is_cut(dialect, recording):
            raise recording.failure or UpstreamError(None, message="the answer broke off")
        self._note(request, recording)
        return response

    def _note(self, request: web.Request, recording: Recording) -> None:
        if recording.failure is not None:
            request[NOTE].failed(recording.failure)
        elif recording.note is not None:
            request[NOTE].error = recording.note.error  # of an answer of the API's own


def is_cut(dialect: Dialect, recording: Recording) -> bool:
    """Whether an answer that is over ended early, and nothing that it says tells so."""
    if not recording.is_complete:
        return True
    failure = recording.failure
    return recording.is_in_pieces and failure is not None and dialect.error_event(failure) is None


def kept(job: Job | None) -> Recording:
    """The answer of a job that has ended. Raises NoAnswer, Cancelled, UpstreamError if all that there is broke off."""
    if job is None:
        raise NoAnswer("the request is over, and its answer is not kept any more")
    answer = job.answer
    if job.state is State.FAILED and (answer is None or answer.status < 400):
        raise UpstreamError(None, message=job.error)
    if answer is None:
        raise Cancelled if job.state is State.CANCELLED else NoAnswer(f"the request has {job.state}")
    recording = Recording.of(answer)
    # The one under which the log tells of the call.
    recording.headers["X-Request-ID"] = request_id_of(job)
    return recording


def whole(request: web.Request, recording: Recording) -> web.Response:
    """An answer that is over, in one piece."""
    status, _, body = recording.answer
    return web.Response(status=status, body=body, headers=told_headers(request, recording))


def told_headers(request: web.Request, recording: Recording) -> CIMultiDict[str]:
    """Those of the answer as it was made, and of its story in the line."""
    told = CIMultiDict(headers(request, {}))
    told.update([(name, value) for name, value in recording.headers.items() if name.lower() not in OF_THE_CONNECTION])
    return told
