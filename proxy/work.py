"""Jobs at work in this service: their store, who runs them, and what is done when they have ended."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from proxy.errors import JobsOff, JobsUnavailable
from proxy.jobs import Room
from proxy.jobs.runner import Runner
from proxy.jobs.store import Store, opened
from proxy.settings import Settings, SettingsError

log = logging.getLogger("proxy.jobs")

OFF = "off"
#: Where the store is unless JOBS_URL says so, in the folder for what outlives the process.
FILE = "jobs.sqlite"


class Work:
    """What the edge needs of jobs. Its properties raise JobsOff if none are kept."""

    def __init__(self, store: Store | None, runner_of: Callable[[Store], Runner]) -> None:
        self._store = store
        self._runner = runner_of(store) if store is not None else None

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


@asynccontextmanager
async def store_of(settings: Settings, assets: Path | None) -> AsyncIterator[Store | None]:
    """The store that the settings name while the block runs, None if they name none. Raises SettingsError."""
    place = settings.jobs_url.get_secret_value() if settings.jobs_url else assets and assets / FILE
    if place is None or place == OFF:
        yield None
        return
    async with AsyncExitStack() as stack:
        store = None
        try:
            room = Room(settings.jobs_max, settings.jobs_max_bytes)
            store = await stack.enter_async_context(opened(place, room=room))
        except (JobsUnavailable, ValueError) as error:
            if settings.jobs_url:
                raise SettingsError(f"JOBS_URL: {error}") from None
            log.warning("no jobs are taken: %s", error)
        yield store
