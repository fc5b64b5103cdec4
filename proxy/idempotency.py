"""Idempotency-Key: a request that comes again is the same request, not another one.

Rule 1: the first one with a key becomes a job, which is begun at once and stands in the line like any request.
Rule 2: who brings the key again waits for that job. Its answer is told again once it is there, if another attempt
        could not better it; else it is begun anew.
Rule 3: a caller that leaves leaves its job in the line, for whoever comes back with the key.
Rule 4: keys belong to their caller: to its key of the proxy, else to its address.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.accepting import Accepting, fingerprint_of
from proxy.dialects import Dialect
from proxy.durable import KEY
from proxy.entry import NOTE
from proxy.errors import BadRequest, JobsOff, Stopping
from proxy.following import Follower, Following, kept, whole
from proxy.jobs import Job, State
from proxy.reception import Reception
from proxy.settings import Settings
from proxy.work import Work

OPERATION = "once"
REPLAYED = "Idempotency-Replayed"
#: What a key must look like, without its quotes.
VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")
#: Of the 4xx those that are no answer to the request itself: another attempt may end otherwise.
PASSING = frozenset({401, 402, 403, 407, 408, 409, 425, 429})


class Idempotency:
    """Serves requests that have an Idempotency-Key. See `proxy.durable.Once`.

    Args:
        dialect_for: in which dialect a stream that breaks is told to.
    """

    def __init__(
        self,
        settings: Settings,
        accepting: Accepting,
        reception: Reception,
        work: Work,
        following: Following,
        dialect_for: Callable[[web.Request], Dialect],
    ) -> None:
        self._keep = settings.idempotency_keep
        self._accepting = accepting
        self._reception = reception
        self._work = work
        self._following = following
        self._dialect_for = dialect_for
        self._beginning: set[asyncio.Task[Job]] = set()

    async def serve(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        """The answer to the request that came first with its key. Raises BadRequest, KeyReused, JobsOff, Stopping."""
        ends = asyncio.get_running_loop().time() + self._reception.patience(request)
        asked = await self._asked(request)
        with Follower(self._work, request[NOTE]) as follower:
            async with self._following.patience(ends, follower):
                job = await self._begun(asked, follower)
            if is_final(job):
                return again(request, job)
            is_stream, dialect = asks_for_stream(asked.body), self._dialect_for(request)
            return await self._following.follow(dialect, request, follower, job.id, is_stream=is_stream, ends=ends)

    async def _asked(self, request: web.Request) -> Job:
        """The job that it is if it is the first one. Raises what the request would be refused with."""
        job, note = await self._accepting.request(request), request[NOTE]
        note.operation = OPERATION
        if not self._work.is_on:
            raise JobsOff(
                f"this service keeps no jobs, so it cannot know a request again by its {KEY}: send it without this "
                "header, or let the operator name a place for them (JOBS_URL)"
            )
        if self._work.runner.is_stopping:
            raise Stopping(retry_after=1)
        ids = {name: value for name, value in job.headers.items() if name.lower() != "x-request-id"}
        # Not EVERYBODY: without keys of ours, too, its place in line and its answer are its caller's alone.
        job = replace(job, caller=note.caller, headers={**ids, "X-Request-ID": note.id}, keep=self._keep)
        return keyed(request, job, job.body)

    async def _begun(self, asked: Job, follower: Follower) -> Job:
        """The job of its key, which is under way or over. What is claimed is begun, though its caller leaves."""
        beginning = asyncio.create_task(self._begin(asked, follower))
        self._beginning.add(beginning)
        beginning.add_done_callback(self._forget)
        await asyncio.wait((beginning,))
        return beginning.result()

    async def _begin(self, asked: Job, follower: Follower) -> Job:
        jobs, runner = self._work.store.jobs, self._work.runner
        job, is_new = await jobs.find_or_add(asked, lease=runner.lease)
        while (run := runner.run(job.id)) is not None and run.is_over:  # its end is on the way to the store
            await asyncio.wait((run.task,))
            job, is_new = await jobs.find_or_add(asked, lease=runner.lease)
        claimed = job if is_new else None
        if not is_new and job.state is not State.RUNNING and not is_final(job):
            claimed = await jobs.claim_one(job.id, caller=job.caller, lease=runner.lease)
        if claimed is not None:
            follower.join(runner.begin(claimed))
        return job

    def _forget(self, beginning: asyncio.Task[Job]) -> None:
        self._beginning.discard(beginning)
        if not beginning.cancelled():
            beginning.exception()  # it was for a caller who may have left


def key_of(request: web.Request) -> str:
    """Its key; as a quoted string, which the IETF's draft wants, it is the same one. Raises BadRequest."""
    told = request.headers.getall(KEY)
    key = told[0].strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(told) > 1 or not VISIBLE.fullmatch(key):
        raise BadRequest(
            f"the header {KEY} must come once, with 1 to 255 visible ASCII characters: a UUID does well", param=KEY
        )
    return key


def keyed(request: web.Request, job: Job, body: bytes) -> Job:
    """The job with the key of its request, whose body is this. Raises BadRequest."""
    key, caller = key_of(request), request[NOTE].caller
    # Where jobs are everybody's, keys are not.
    own = key if job.caller == caller else f"{caller} {key}"
    return replace(job, key=own, fingerprint=fingerprint_of(request, body))


def is_final(job: Job) -> bool:
    """Whether whoever brings its key again gets the answer that it has, and not another attempt."""
    if job.state is not State.FAILED or job.answer is None:
        return job.state is State.DONE
    return 400 <= job.answer.status < 500 and job.answer.status not in PASSING


def again(request: web.Request, job: Job) -> web.Response:
    """An answer that was there before."""
    response = whole(request, kept(job))
    response.headers[REPLAYED] = "true"
    return response


def asks_for_stream(body: bytes) -> bool:
    """Whether a body that is in order, in whichever dialect, asks for a stream."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(asked, dict):
        return False
    parameters = asked.get("generate_parameters")
    return (parameters if isinstance(parameters, dict) else asked).get("stream") is True
