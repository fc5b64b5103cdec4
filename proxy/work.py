"""Jobs at work in this service: their store, who runs them, and what is done when they have ended."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

from proxy.batching import OPERATION as BATCH
from proxy.batching import Batching
from proxy.errors import JobsOff, JobsUnavailable
from proxy.jobs import Found, Job, JobStore, Room, State, StoreState
from proxy.jobs.runner import OwnWork, Runner, Serve
from proxy.jobs.store import Store, opened
from proxy.public_hosts import PublicHosts
from proxy.settings import Settings, SettingsError
from proxy.webhooks import OPERATION as WEBHOOK
from proxy.webhooks import Webhooks

log = logging.getLogger("proxy.jobs")

OFF = "off"
#: Where the store is unless JOBS_URL says so, in the folder for what outlives the process.
FILE = "jobs.sqlite"


class Work:
    """What the edge needs of jobs. Without a store its properties, and all that is done to a job, raise JobsOff.

    Args:
        serve: runs a job that is a request.
    """

    def __init__(self, settings: Settings, store: Store | None, serve: Serve) -> None:
        self._store = store
        self._webhooks: Webhooks | None = None
        self._runner: Runner | None = None
        if store is not None:
            self._webhooks = Webhooks(store.jobs, settings.webhook_secret, PublicHosts(settings.webhook_allow))
            own: dict[str, OwnWork] = {WEBHOOK: self._webhooks.deliver}
            self._runner = Runner(store, serve, own, after=hook_for, attempts=settings.jobs_attempts)
            batching = Batching(
                store,
                longest=settings.max_body_bytes,
                room=settings.jobs_max,
                cancel_waiting=self._runner.cancel_waiting,
            )
            own[BATCH] = batching.run

    def __repr__(self) -> str:
        return f"<Work {self._store.where if self._store else OFF} {self._runner}>"

    @property
    def is_on(self) -> bool:
        return self._store is not None

    @property
    def store(self) -> Store:
        if self._store is None:
            raise JobsOff
        return self._store

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            raise JobsOff
        return self._runner

    @property
    def webhooks(self) -> Webhooks:
        if self._webhooks is None:
            raise JobsOff
        return self._webhooks

    # -- what is done to a job

    async def accept(self, job: Job) -> Found:
        """It is kept when this returns, or was before with its key. Raises KeyReused, JobsFull, JobsUnavailable."""
        jobs = self.store.jobs
        late = [Webhooks.late_hook_for(job)] if job.webhook is not None and job.deadline is not None else []
        if job.key is None:
            await jobs.add(job, *late)
            return Found(job, is_new=True)
        found = await jobs.find_or_add(job)
        if found.is_new:
            await jobs.add(*late, is_owed=True)
        return found

    async def cancel(self, id: str, *, caller: str | None) -> State | None:
        """See `cancel`; what runs here ends at once."""
        state = await cancel(self.store.jobs, id, caller=caller)
        if state is State.CANCELLED:
            self.runner.lose(id)
        return state

    async def retry(self, id: str, *, caller: str | None) -> State | None:
        """See `retry`."""
        return await retry(self.store.jobs, id, caller=caller)

    # -- start and stop

    def start(self) -> None:
        if self._runner is not None:
            self._runner.start()

    async def stop(self) -> None:
        """Take no more."""
        if self._runner is not None:
            await self._runner.stop()

    async def close(self) -> None:
        """Give back what has not ended."""
        if self._runner is not None:
            await self._runner.close()
        if self._webhooks is not None:
            await self._webhooks.close()


# ---- What is done to a job, also where none are run ----


async def cancel(jobs: JobStore, id: str, *, caller: str | None) -> State | None:
    """See `JobStore.cancel`; whoever wants to hear of its end is told."""
    job = await jobs.get(id, caller=caller)
    if job is not None and not job.state.is_end and (hook := hook_for(job)) is not None:
        await jobs.add(hook, is_owed=True)
    return await jobs.cancel(id, caller=caller)


async def retry(jobs: JobStore, id: str, *, caller: str | None) -> State | None:
    """See `JobStore.retry`; its end will be told anew."""
    job = await jobs.get(id, caller=caller)
    if job is not None and (hook := hook_for(job)) is not None:
        await jobs.delete(hook.id, caller=None)
    return await jobs.retry(id, caller=caller)


def hook_for(job: Job) -> Job | None:
    """The work of telling that this job has ended, if anybody wants to hear it."""
    return Webhooks.hook_for(job) if job.webhook is not None else None


# ---- Where they are ----


def place_of(settings: Settings, assets: Path | None) -> str | Path | None:
    """Where jobs are kept: a path or an address. None if they are not."""
    place = settings.jobs_url.get_secret_value() if settings.jobs_url else assets and assets / FILE
    return None if place == OFF else place


def store_at(place: str | Path, settings: Settings, *, is_shared: bool = False) -> AbstractAsyncContextManager[Store]:
    """See `proxy.jobs.store.opened`."""
    room = Room(settings.jobs_max, settings.jobs_max_bytes)
    return opened(place, room=room, is_shared=is_shared, prefix=settings.redis_prefix)


@asynccontextmanager
async def store_of(settings: Settings, assets: Path | None) -> AsyncIterator[Store | str]:
    """The store that the settings name while the block runs; why there is none, "" if none is asked for.

    Raises SettingsError if they name one that cannot be used.
    """
    place = place_of(settings, assets)
    if place is None:
        yield ""
        return
    async with AsyncExitStack() as stack:
        yield await taken(stack, place, settings)


async def taken(stack: AsyncExitStack, place: str | Path, settings: Settings) -> Store | str:
    """The store at this place, until the stack is left; why there is none. Raises SettingsError."""
    try:
        store = await stack.enter_async_context(store_at(place, settings))
        log_backlog(await store.jobs.state(), store.resumed)
        return store
    except ValueError as error:
        raise SettingsError(str(error)) from None
    except JobsUnavailable as error:
        if settings.jobs_url:
            raise SettingsError(f"JOBS_URL: {error}") from None
        return str(error)


def log_backlog(state: StoreState, resumed: int) -> None:
    """Say what goes on from before, if anything does."""
    counts = {
        "queued": state.live,
        "lines of batches queued": state.batch,
        "waiting for another attempt": state.delayed,
        "of them were under way and begin again": resumed,
        "under way in other processes, or in one that has just died": state.running,
    }
    if told := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
        log.info("jobs from before go on: %s", told)
