"""Runs jobs: takes them from the store in tens, has them served, has the store told how they ended.

Rule 1: at most WAITING jobs of a kind wait in the line at once, however many there are; what else comes finds it short.
Rule 2: what did not begin is given back, at a stop too. What fails and may succeed another time is tried again, with
        pauses that grow, unless somebody waits for its answer here and now.
Rule 3: what the service has to do for itself is a job too, so that it outlives this process like all others.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Protocol

from proxy.errors import Cancelled, ClaimOver, LanesFull, LineFull, ProxyError, Stopping, WaitTooLong
from proxy.jobs import SERVICE, Answer, Claim, Job, Kind
from proxy.jobs.ledger import LONGEST_PAUSE, Ledger, insisting
from proxy.jobs.recording import Ended, Recording
from proxy.jobs.run import Run
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
#: Begins in which it was not sent, for each call that it may take: processes that die alone make few.
FALSE_STARTS = 10
#: There was no room for it, and nothing is wrong with the job.
NO_ROOM = (Stopping, LineFull, WaitTooLong, LanesFull)
#: Of what the API may do, what another attempt may mend: 504 is not among it, as it may be paid for.
PASSING = frozenset({429, 500, 502, 503})
BUG = "internal error; the log tells more"
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
        self._ledger = Ledger(store.jobs, after)
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
        run = self._runs[job.id] = Run(job, LEASE)
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
        """Its deadline has come: it counts if it still waits in the line."""
        if self._runs.get(run.job.id) is run and run.is_waiting and not run.is_over:
            run.expire()

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
                claimed = await insisting(partial(jobs.claim, kind, most, LEASE))
                for job in claimed.jobs:
                    if self._stopping.is_set():
                        await insisting(partial(jobs.release, job.claim))
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
                await self._ledger.put_off(run, f"this service knows no {job.operation}", LONGEST_BACKOFF)
            elif run.calls >= self._attempts or job.attempts > self._attempts * FALSE_STARTS:
                await self._ledger.failed(run, f"it was begun {job.attempts - 1} times and never ended")
            else:
                await self._request(run)
        except asyncio.CancelledError:
            await self._ledger.give_back(run)
        except Exception:
            log.exception("job %s: a bug in the proxy", job.id)
            if job.operation in self._own:  # else a batch, say, would stand still for good
                await self._ledger.put_off(run, BUG, self._backoff(run))
            else:
                await self._ledger.failed(run, BUG)

    async def _request(self, run: Run) -> None:
        ended = await self._serve(run.job, run.recording, partial(self._called, run))
        failure, status = ended.failure, ended.answer.status
        run.end()
        await run.noted()
        if isinstance(failure, ClaimOver):
            await self._ledger.release(run)
        elif isinstance(failure, Stopping) or (isinstance(failure, NO_ROOM) and not run.is_told):
            self._rest(failure.retry_after or 1.0)
            await self._ledger.release(run)
        elif failure is None and status < 400:
            await self._ledger.done(run, ended.answer)
        elif not isinstance(failure, Cancelled) and self._may_try_again(run, failure.status if failure else status):
            asked = failure.retry_after if failure else None
            await self._ledger.put_off(run, told(ended), max(self._backoff(run), asked or 0.0), ended.answer)
        else:
            await self._ledger.failed(run, told(ended), ended.answer)

    async def _work(self, run: Run, own: OwnWork) -> None:
        """Of the service's own."""
        job = run.job
        try:
            await own(job)
        except TryLater as later:
            await self._ledger.put_off(run, str(later), later.seconds)
        except GiveUp as failure:
            await self._ledger.failed(run, str(failure))
        except ProxyError as error:
            log.warning("%s %s is tried again: %s", job.operation, job.id, error)
            await self._ledger.put_off(run, str(error), self._backoff(run))
        else:
            run.is_over = True
            await self._ledger.done(run, DONE)

    def _called(self, run: Run) -> None:
        """It leaves the line. Raises ClaimOver if nobody has held its claim: this process may have stood still."""
        if time.time() > run.claimed_until:
            raise ClaimOver
        if run.is_waiting:
            run.is_waiting = False
            run.calls += 1
            run.noting = asyncio.create_task(self._ledger.sent(run))
            self._room.set()

    def _rest(self, seconds: float) -> None:
        """The line has no room: take nothing for a while."""
        self._resumes_at = max(self._resumes_at, time.monotonic() + seconds)

    def _may_try_again(self, run: Run, status: int) -> bool:
        return status in PASSING and not run.is_told and run.tries < self._attempts

    def _backoff(self, run: Run) -> float:
        return min(FIRST_BACKOFF * 3.0 ** max(0, run.tries - 1), LONGEST_BACKOFF) * (0.5 + random.random() / 2)

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
                lost = await insisting(partial(self._store.jobs.renew, claims, LEASE))
                for run, claim in zip(runs, claims, strict=True):
                    run.claimed_until = began + LEASE
                    if claim.id in lost and run.job.claim == claim and self._runs.get(claim.id) is run:
                        self.lose(claim.id)

    async def _purge(self) -> None:
        while True:
            await insisting(self._store.purge)
            await asyncio.sleep(PURGE)


def told(ended: Ended) -> str:
    """Why it failed, in one sentence."""
    return str(ended.failure) if ended.failure else f"the API answered {ended.answer.status}"
