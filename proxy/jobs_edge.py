"""The operations of /jobs, and of requests that prefer to become jobs.

Rule 1: 202 is said when the store has the job, not before.
Rule 2: jobs of others do not exist. The operator sees that they are there and may end them, not what they say.
Rule 3: a job may move at any moment, here or in another replica: what is told is what the store said last.
"""

import math
import time
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

import orjson
from aiohttp import web

from proxy import sse
from proxy.accepting import Accepting
from proxy.admins import Admins
from proxy.delivery import JSON_TYPE, Delivery, headers
from proxy.dialects import Dialect
from proxy.dialects.jobs import ListAsked, Place, Told, for_operator, job_in_brief, job_told, list_told
from proxy.durable import KEY
from proxy.errors import JobNotOver, NoAnswer, NotFound
from proxy.idempotency import REPLAYED, is_final, keyed
from proxy.jobs import SERVICE, Job, State
from proxy.lanes import Lanes
from proxy.line import Line, eta_at
from proxy.work import Work

#: What is said of a preference that was followed.
APPLIED = {"Preference-Applied": "respond-async"}
#: Seconds after which an answer is to be looked for again.
SOONEST, LATEST = 1, 60
#: What may be run again.
AGAIN = (State.FAILED, State.EXPIRED, State.CANCELLED)
#: Of an event: what has changed is the job.
CHANGED = b"state"
#: A look at a place is worth so many times its time until the next one, lest thousands who look wear the store out.
LEISURE = 20.0


class Viewer(NamedTuple):
    """Who looks: which jobs are its own, and whether it is the operator."""

    owner: str
    is_operator: bool

    @property
    def seen(self) -> str | None:
        """Whose jobs there are for it; None: everybody's."""
        return None if self.is_operator else self.owner

    def sees(self, job: Job) -> bool:
        """The service's own work is told by `app.py jobs` alone, which knows what may be done to it."""
        return job.caller != SERVICE

    def has(self, job: Job) -> bool:
        return job.caller == self.owner

    def told(self, job: Job, told: Told) -> Told:
        return for_operator(job, told, is_own=self.has(job)) if self.is_operator else told


class JobsEdge:
    """Serves them."""

    def __init__(self, accepting: Accepting, delivery: Delivery, work: Work, lanes: Lanes, admins: Admins) -> None:
        self._accepting = accepting
        self._delivery = delivery
        self._work = work
        self._lanes = lanes
        self._admins = admins

    # -- coming

    async def create(self, request: web.Request) -> web.Response:
        """POST /jobs."""
        return await self._accept(request, await self._accepting.wanted(request), {})

    async def accept(self, request: web.Request) -> web.Response:
        """A request for another operation, which prefers to be a job."""
        return await self._accept(request, await self._accepting.request(request), APPLIED)

    async def _accept(self, request: web.Request, job: Job, more: Mapping[str, str]) -> web.Response:
        if KEY in request.headers:
            job = keyed(request, job, await request.read())
        viewer = Viewer(job.caller, self._admins.has_key(request))
        job, is_new = await self._work.accept(job)
        if job.state.is_end and not is_final(job):
            await self._work.retry(job.id, caller=job.caller)
            job = await self._get(job.id, viewer)
        known = {} if is_new else {REPLAYED: "true"}
        return await self._told(request, viewer, job, 202, {"Location": f"/jobs/{job.id}", **more, **known})

    # -- looking

    async def jobs(self, request: web.Request) -> web.Response:
        """GET /jobs: a page of them, without bodies."""
        viewer, asked = self._viewer(request), ListAsked.read(request.query)
        page = await self._work.store.jobs.list(
            caller=viewer.seen,
            states=asked.states,
            after=asked.after,
            limit=asked.limit,
            newest_first=asked.newest_first,
        )
        told = [viewer.told(job, job_in_brief(job)) for job in page.entries if viewer.sees(job)]
        return self._delivery.plain(request, orjson.dumps(list_told(told, page.after)))

    async def job(self, request: web.Request) -> web.Response:
        """GET /jobs/{id}."""
        return await self._told(request, *await self._found(request))

    async def answer(self, request: web.Request) -> web.Response:
        """GET /jobs/{id}/answer: the answer as its caller would have got it; 202 while there is none."""
        viewer, job = await self._found(request)
        if not job.state.is_end:
            return await self._told(request, viewer, job, 202, later(await self._place(job)))
        if job.answer is None:
            raise NoAnswer(f"the job is {job.state}, and there is no answer{job.error and f': {job.error}'}")
        if not viewer.has(job):
            raise NotFound(f"the answer is its caller's alone; app.py jobs show {job.id} --body shows it")
        told = headers(request, {"Content-Type": job.answer.content_type})
        return web.Response(status=job.answer.status, body=job.answer.body, headers=told)

    async def events(self, dialect: Dialect, request: web.Request) -> web.StreamResponse:
        """GET /jobs/{id}/events: each change of it, to its end. A stream that breaks is simply asked for again."""
        viewer = self._viewer(request)
        return await self._delivery.stream(dialect, request, self._progress(request.match_info["id"], viewer))

    async def _progress(self, id: str, viewer: Viewer) -> AsyncGenerator[bytes, None]:
        with self._work.store.jobs.news(id) as news:
            job, told = await self._get(id, viewer), None
            while True:
                began = time.monotonic()
                place = await self._place(job)
                pause = max(self._delivery.heartbeat_interval, LEISURE * (time.monotonic() - began))
                if (change := (job.state, job.attempts, place and place.position)) != told:
                    told = change
                    yield sse.encode(orjson.dumps(viewer.told(job, job_told(job, place))), CHANGED)
                else:
                    yield sse.comment(job.state)
                if job.state.is_end or self._is_left_behind(job):
                    return
                # That operators have cancelled it is no news: what is nowhere to be found is looked for.
                if await news.next(pause) or (place is None and self._work.runner.run(id) is None):
                    job = await self._get(id, viewer)

    def _is_left_behind(self, job: Job) -> bool:
        """The service stops, and it is not among what is ended before."""
        runner = self._work.runner
        return runner.is_stopping and runner.run(job.id) is None

    # -- ending, and beginning again

    async def end(self, request: web.Request) -> web.Response:
        """DELETE /jobs/{id}: cancel it, or forget it if it has ended."""
        viewer, job = await self._found(request)
        if job.state.is_end:
            if not await self._work.store.jobs.delete(job.id, caller=job.caller):
                raise JobNotOver("the job runs again: cancel it first")
            return web.Response(status=204, headers=headers(request, {}))
        await self._work.cancel(job.id, caller=job.caller)
        return await self._told(request, viewer, await self._get(job.id, viewer))

    async def retry(self, request: web.Request) -> web.Response:
        """POST /jobs/{id}/retry."""
        viewer, job = await self._found(request)
        if job.state not in AGAIN:
            raise JobNotOver(f"the job is {job.state}: only one that failed, expired or was cancelled is run again")
        await self._work.retry(job.id, caller=job.caller)
        again = await self._get(job.id, viewer)
        return await self._told(request, viewer, again, 202, {"Location": f"/jobs/{job.id}"})

    # -- what they share

    def _viewer(self, request: web.Request) -> Viewer:
        return Viewer(self._accepting.owner(request), self._admins.has_key(request))

    async def _found(self, request: web.Request) -> tuple[Viewer, Job]:
        """Raises NotFound."""
        viewer = self._viewer(request)
        return viewer, await self._get(request.match_info["id"], viewer)

    async def _get(self, id: str, viewer: Viewer) -> Job:
        job = await self._work.store.jobs.get(id, caller=viewer.seen)
        if job is None or not viewer.sees(job):
            raise NotFound(f'there is no job "{id[:100]}", or not any more: GET /jobs lists those there are')
        return job

    async def _place(self, job: Job) -> Place | None:
        """Where it waits, in the line of this process or before it; None if it does not, or elsewhere."""
        if (run := self._work.runner.run(job.id)) is not None:
            return Place(run.place, run.eta) if run.place else None
        if job.state is not State.QUEUED:
            return None
        ahead = await self._work.store.jobs.position(job.id)
        if ahead is None:  # it has just been taken
            return None
        line = self._line_of(job)
        place = ahead + line.state().waiting + 1
        eta, pause = eta_at(line, place), 0.0 if job.again_at is None else job.again_at - time.time()
        return Place(place, None if eta is None else max(eta, pause))

    def _line_of(self, job: Job) -> Line:
        """Where it will wait when it has left the store; the main one if its lane is not configured any more."""
        return self._lanes.others.get(job.upstream, self._lanes.main).line

    async def _told(
        self, request: web.Request, viewer: Viewer, job: Job, status: int = 200, more: Mapping[str, str] | None = None
    ) -> web.Response:
        body = orjson.dumps(viewer.told(job, job_told(job, await self._place(job))))
        return web.Response(
            status=status, body=body, headers=headers(request, {"Content-Type": JSON_TYPE, **(more or {})})
        )


def later(place: Place | None) -> dict[str, str]:
    """When it is worth looking again; not soon if nobody knows."""
    eta = 0.0 if place is None else LATEST if place.eta is None else place.eta
    return {"Retry-After": str(min(LATEST, max(SOONEST, math.ceil(eta))))}
