"""Runs jobs: takes them from the store in tens, has them served, tells the store how they ended.

Rule 1: at most WAITING jobs of a kind wait in the line at once, however many there are; what else comes finds it short.
Rule 2: an answer that was paid for is told to the store until the store takes it, or says that it is ours no more.
Rule 3: what did not begin is given back, at a stop too. What fails and may succeed another time is tried again, with
        pauses that grow, unless somebody waits for its answer here and now.
Rule 4: what the service has to do for itself is a job too, so that it outlives this process like all others.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from proxy.errors import (
    Cancelled,
    ClaimOver,
    JobsFull,
    JobsUnavailable,
    LanesFull,
    LineFull,
    ProxyError,
    Stopping,
    WaitTooLong,
)
from proxy.jobs import SERVICE, Answer, Claim, Job, Kind
from proxy.jobs.recording import Ended, Recording
from proxy.jobs.store import Store

log = logging.getLogger("proxy.jobs")

#: Jobs of a kind that wait in the line at once, and jobs of it under way at all.
WAITING = 10
UNDER_WAY = {Kind.LIVE: 200, Kind.BATCH: 200, Kind.OWN: 1000}
#: Seconds for which a job is claimed, and between two times at which all claims are renewed.
LEASE = 30.0
RENEWAL = LEASE / 3
#: Seconds between two times at which what is over is forgotten.
PURGE = 60.0
#: Seconds in which the store can still be told how jobs ended when the service stops.
FAREWELL = 5.0
#: Seconds before another attempt, half of them random; three times as many before each further one.
FIRST_BACKOFF, LONGEST_BACKOFF = 10.0, 3600.0
#: Seconds between two attempts to reach the store, from the first on.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: Begins in which it was not sent, for each call that it may take: processes that die alone make few.
FALSE_STARTS = 10
#: There was no room for it, and nothing is wrong with the job.
NO_ROOM = (Stopping, LineFull, WaitTooLong, LanesFull)
#: Of what the API may do, what another attempt may mend: 504 is not among it, as it may be paid for.
PASSING = frozenset({429, 500, 502, 503})
#: What of the store may pass: it is away, or its disk is full.
STORE_TROUBLE = (JobsUnavailable, JobsFull)
#: What the note says of how often a job was sent.
SENT = " sent"
DONE = Answer(200, "application/json", b"{}")


class TryLater(Exception):
    """Work of the service's own cannot go on now; it is tried again after so many seconds."""

    def __init__(self, seconds: float, why: str = "") -> None:
        super().__init__(why or f"again in {seconds:g} s")
        self.seconds = seconds


class GiveUp(Exception):
    """Work of the service's own has failed for good; the text says why."""


#: Work of the service's own. Whatever it raises but GiveUp, it is tried again.
OwnWork = Callable[[Job], Awaitable[None]]
#: What a runner has to see to all the time.
Duty = Callable[[], Awaitable[None]]


class Serve(Protocol):
    """`Replay.serve`."""

    async def __call__(self, job: Job, recording: Recording, on_call: Callable[[], None]) -> Ended: ...


class Run:
    """A job under way in this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.recording = Recording()
        #: How many wait here for its answer.
        self.followers = 0
        #: How often it left the line for a call, in all processes that ever ran it.
        self.calls = calls_in(job.progress)
        #: That is being noted.
        self.noting: asyncio.Task[None] | None = None
        #: Whether it is one of the tens that are taken from the store, and not begun for somebody who waits for it.
        self.is_taken = False
        #: Whether it counts among those who wait in the line.
        self.is_waiting = True
        #: Whether its claim is another's, or it was cancelled: nobody wants to know how it ends.
        self.is_lost = False
        #: Whether it is queued anew, or about to be.
        self.is_given_back = False
        #: When its claim ends unless it is renewed, by the clock that stores go by.
        self.claimed_until = time.time() + LEASE
        #: Whether it has ended, and the store is being told; and whether somebody here was told how.
        self.is_over = self.is_told = False
        self.task: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<Run {self.job} is_waiting={self.is_waiting} followers={self.followers}>"

    @property
    def tries(self) -> int:
        """Which attempt this is, from 1; those that never left the line do not count if this one did."""
        return self.calls if self.noting is not None else self.job.attempts

    async def noted(self) -> None:
        """Wait until its call is noted, if there was one."""
        if self.noting is not None:
            await self.noting

    @property
    def place(self) -> int:
        """Its place in the line now, from 1, at most a second old; 0 if it is not there, or not there yet."""
        note = self.recording.note
        if note is None or note.lane is None or note.enrolled is None:
            return 0
        return note.lane.line.place(note.enrolled)

    @property
    def eta(self) -> float:
        """Seconds until it is sent, if it has a place."""
        note, place = self.recording.note, self.place
        return note.lane.line.eta(place - 1) if note is not None and note.lane is not None and place else 0.0


class Runner:
    """Runs the jobs of a store.

    Args:
        serve: runs one that is a request.
        own: the service's own work, by the operation of its jobs.
        after: makes of a job that has ended what is to be done then, if anything is; told before the store is.
        attempts: how often a job is begun before it has failed for good.
    """

    def __init__(
        self,
        store: Store,
        serve: Serve,
        own: Mapping[str, OwnWork],
        *,
        after: Callable[[Job], Job | None] = lambda _: None,
        attempts: int = 5,
    ) -> None:
        self._store = store
        self._serve = serve
        self._own = own
        self._after = after
        self._attempts = attempts
        self._runs: dict[str, Run] = {}
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._resumes_at = 0.0
        self._duties: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Runner under way={len(self._runs)}>"

    @property
    def lease(self) -> float:
        """Seconds for which whoever brings a job of its own claims it."""
        return LEASE

    # -- start and stop

    def start(self) -> None:
        duties: list[Duty] = [*(partial(self._take, kind) for kind in Kind), self._renew, self._purge]
        self._duties = [asyncio.create_task(self._for_good(duty)) for duty in duties]

    async def stop(self) -> None:
        """Take no more, and give back what waits; what is in flight goes on, and what somebody waits for here."""
        self._stopping.set()
        self._room.set()
        await asyncio.sleep(0)  # a task that is cancelled before its first step could give nothing back
        for run in self._runs.values():
            is_own = run.job.operation in self._own
            if not run.is_over and (is_own or (run.is_waiting and not run.followers)):
                run.task.cancel()

    async def close(self) -> None:
        """Give back whatever has not ended; what has, is told to the store."""
        await self.stop()
        for duty in self._duties:
            duty.cancel()
        for run in self._runs.values():
            if not run.is_over:
                run.task.cancel()
        tasks = [run.task for run in self._runs.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=FAREWELL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._duties, return_exceptions=True)

    # -- what others may see and do

    @property
    def under_way(self) -> int:
        return len(self._runs)

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def run(self, id: str) -> Run | None:
        """The job with this id, if it is under way in this process."""
        return self._runs.get(id)

    def begin(self, job: Job) -> Run:
        """Run one that is claimed already."""
        if (run := self._runs.get(job.id)) is not None and not (run.is_lost or run.is_given_back):
            run.job = job  # its lease had ended, nobody else took it, and it goes on
            run.claimed_until = time.time() + LEASE
            return run
        run = self._runs[job.id] = Run(job)
        run.is_waiting = job.kind is not Kind.OWN
        run.task = asyncio.create_task(self._whole(run))
        run.task.add_done_callback(lambda _: self._forget(run))
        if job.deadline is not None and run.is_waiting:
            late = asyncio.get_running_loop().call_later(max(0.0, job.deadline - time.time()), self._expire, run)
            run.task.add_done_callback(lambda _: late.cancel())
        return run

    def lose(self, id: str) -> None:
        """It was cancelled, or is another's by now: end it, if it is under way here."""
        if (run := self._runs.get(id)) is not None:
            run.is_lost = True
            run.task.cancel()

    async def cancel_waiting(self, batch: str) -> None:
        """Cancel the lines of a batch that wait in the line here; what is in flight goes on."""
        for run in [*self._runs.values()]:
            if run.job.batch == batch and run.is_waiting:
                await self._store.jobs.cancel(run.job.id, caller=None)
                self.lose(run.job.id)

    def _expire(self, run: Run) -> None:
        """Its deadline has come: if it still waits in the line it is given back, and the store lets it expire."""
        if self._runs.get(run.job.id) is run and run.is_waiting and not run.is_over:
            run.task.cancel()

    def _forget(self, run: Run) -> None:
        run.recording.end()
        if self._runs.get(run.job.id) is run:  # else it is begun anew already
            del self._runs[run.job.id]
        self._room.set()

    # -- taking

    async def _take(self, kind: Kind) -> None:
        jobs = self._store.jobs
        with jobs.news(kind.topic) as news:
            while most := await self._places(kind):
                claimed = await self._insisting(partial(jobs.claim, kind, most, LEASE))
                for job in claimed.jobs:
                    if self._stopping.is_set():
                        await self._insisting(partial(jobs.release, job.claim))
                    else:
                        self.begin(job).is_taken = True
                if not claimed.jobs:
                    await news.next(claimed.again)

    async def _places(self, kind: Kind) -> int:
        """Wait until some of this kind may be taken. Returns how many; 0 if no more are, since the service stops."""
        while not self._stopping.is_set():
            if kind is not Kind.OWN and (wait := self._resumes_at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self._room.clear()
            runs = [run for run in self._runs.values() if run.is_taken and run.job.kind is kind]
            places = min(WAITING - sum(run.is_waiting for run in runs), UNDER_WAY[kind] - len(runs))
            if places > 0:
                return places
            await self._room.wait()
        return 0

    # -- running

    async def _whole(self, run: Run) -> None:
        """From its beginning to the word that the store has of its end."""
        job = run.job
        try:
            if (own := self._own.get(job.operation)) is not None:  # it has a schedule of its own
                await self._work(run, own)
            elif job.caller == SERVICE:  # another version of us has brought it
                await self._fail(run, f"this service knows no {job.operation}", None, again_in=LONGEST_BACKOFF)
            elif run.calls >= self._attempts or job.attempts > self._attempts * FALSE_STARTS:
                await self._fail(run, f"it was begun {job.attempts - 1} times and never ended", None)
            else:
                await self._request(run)
        except asyncio.CancelledError:
            await self._give_back(run)
        except Exception:
            log.exception("job %s: a bug in the proxy", job.id)
            # Else a batch, say, would stand still for good.
            again = self._backoff(run) if job.operation in self._own else None
            await self._fail(run, "internal error; the log tells more", None, again_in=again)

    async def _request(self, run: Run) -> None:
        ended = await self._serve(run.job, run.recording, partial(self._called, run))
        failure, status = ended.failure, ended.answer.status
        run.is_over, run.is_told = True, run.followers > 0
        await run.noted()
        if isinstance(failure, ClaimOver):
            await self._release(run)
        elif isinstance(failure, Stopping) or (isinstance(failure, NO_ROOM) and not run.is_told):
            self._rest(failure.retry_after or 1.0)
            await self._release(run)
        elif failure is None and status < 400:
            await self._ack(run, ended.answer)
        elif not isinstance(failure, Cancelled) and self._may_try_again(run, failure.status if failure else status):
            asked = failure.retry_after if failure else None
            await self._fail(run, told(ended), ended.answer, again_in=max(self._backoff(run), asked or 0.0))
        else:
            await self._fail(run, told(ended), ended.answer)

    async def _work(self, run: Run, own: OwnWork) -> None:
        """Of the service's own."""
        job = run.job
        try:
            await own(job)
        except TryLater as later:
            await self._fail(run, str(later), None, again_in=later.seconds)
        except GiveUp as failure:
            await self._fail(run, str(failure), None)
        except ProxyError as error:
            log.warning("%s %s is tried again: %s", job.operation, job.id, error)
            await self._fail(run, str(error), None, again_in=self._backoff(run))
        else:
            run.is_over = True
            await self._ack(run, DONE)

    def _called(self, run: Run) -> None:
        """It leaves the line. Raises ClaimOver if nobody has held its claim: this process may have stood still."""
        if time.time() > run.claimed_until:
            raise ClaimOver
        if run.is_waiting:
            run.is_waiting = False
            run.calls += 1
            run.noting = asyncio.create_task(self._note_call(run))
            self._room.set()

    async def _note_call(self, run: Run) -> None:
        """Should this process die now, it is known that the job may be to blame, and not those that wait."""
        try:
            await self._store.jobs.note(run.job.claim, f"{run.calls}{SENT}")
        except ProxyError as error:
            log.warning("job %s: that it was sent is not noted: %s", run.job.id, error)

    def _rest(self, seconds: float) -> None:
        """The line has no room: take nothing for a while."""
        self._resumes_at = max(self._resumes_at, time.monotonic() + seconds)

    def _may_try_again(self, run: Run, status: int) -> bool:
        return status in PASSING and not run.is_told and run.tries < self._attempts

    def _backoff(self, run: Run) -> float:
        return min(FIRST_BACKOFF * 3.0 ** max(0, run.tries - 1), LONGEST_BACKOFF) * (0.5 + random.random() / 2)

    # -- telling the store

    async def _ack(self, run: Run, answer: Answer) -> None:
        await self._then(run)
        await self._tell(run, partial(self._store.jobs.ack, answer=answer))

    async def _fail(self, run: Run, error: str, answer: Answer | None, *, again_in: float | None = None) -> None:
        run.is_given_back = again_in is not None
        if again_in is None:
            await self._then(run)
        at = None if again_in is None else time.time() + again_in
        await self._tell(run, partial(self._store.jobs.fail, error=error, answer=answer, retry_at=at))

    async def _release(self, run: Run) -> None:
        run.is_given_back = True
        await self._tell(run, self._store.jobs.release)

    async def _give_back(self, run: Run) -> None:
        """It is ended early. A store that cannot be reached now gives it out again when its lease is over."""
        if not run.is_lost:
            run.is_given_back = True
            try:
                await run.noted()
                await self._store.jobs.release(run.job.claim)
            except STORE_TROUBLE as error:
                log.warning("job %s is not given back: %s", run.job.id, error)

    async def _then(self, run: Run) -> None:
        """What is to be done when it has ended. Before that, lest it be forgotten: such work waits for the end."""
        if (work := self._after(run.job)) is not None:
            await self._insisting(partial(self._store.jobs.add, work, is_owed=True))

    async def _tell(self, run: Run, tell: Callable[[Claim], Awaitable[bool]]) -> None:
        claim = None
        while claim != run.job.claim:
            claim = run.job.claim
            if await self._insisting(partial(tell, claim)):
                return
        log.warning("job %s: its end is not kept, for it is another's by now, or was cancelled", run.job.id)

    async def _insisting(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Until the store can be reached, and has room for what it has accepted before."""
        pause = FIRST_PAUSE
        while True:
            try:
                return await step()
            except STORE_TROUBLE as error:
                log.warning("the store of jobs: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    # -- duties

    async def _for_good(self, duty: Duty) -> None:
        """Whatever may happen, jobs must not stand still."""
        while True:
            try:
                return await duty()
            except Exception:
                log.exception("the runner of jobs failed and goes on")
                await asyncio.sleep(LONGEST_PAUSE)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL)
            runs, began = [*self._runs.values()], time.time()
            claims: list[Claim] = [run.job.claim for run in runs]
            if claims:
                lost = await self._insisting(partial(self._store.jobs.renew, claims, LEASE))
                for run, claim in zip(runs, claims, strict=True):
                    run.claimed_until = began + LEASE
                    if claim.id in lost and run.job.claim == claim and self._runs.get(claim.id) is run:
                        self.lose(claim.id)

    async def _purge(self) -> None:
        while True:
            await self._insisting(self._store.purge)
            await asyncio.sleep(PURGE)


def calls_in(progress: str) -> int:
    """How often a job with this note of its progress was sent."""
    number, sent, _ = progress.partition(SENT)
    return int(number) if sent and number.isdecimal() else 0


def told(ended: Ended) -> str:
    """Why it failed, in one sentence."""
    return str(ended.failure) if ended.failure else f"the API answered {ended.answer.status}"
