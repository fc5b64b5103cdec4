"""Work that many wait for and that runs once."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from proxy.clock import Clock
from proxy.errors import UpstreamError

T = TypeVar("T")

#: How long an outcome is good, in seconds, from the error that the work ended with (None: it succeeded).
Memory = Callable[[BaseException | None], float]


class Once(Generic[T]):
    """One run at a time, however many call; each caller gets its result or its error.

    1. The run belongs to no caller: one that is cancelled leaves the others and the run alone.
    2. A failed run fails everybody who waits for it, once; the next call starts another.
    3. With a memory, calls after the end of a run get its outcome for that long.
    """

    def __init__(self, work: Callable[[], Awaitable[T]], *, clock: Clock, memory: Memory = lambda error: 0.0) -> None:
        self._work = work
        self._clock = clock
        self._memory = memory
        self._run: asyncio.Task[T] | None = None
        self._good_until = 0.0

    async def __call__(self) -> T:
        run = self._run = self._current()
        # Not asyncio.shield: it would report an error that comes after its last waiter has left as a lost one.
        await asyncio.wait((run,))
        if run.cancelled():
            raise UpstreamError(None, message="the connection to the upstream was closed")
        return run.result()

    @property
    def is_good(self) -> bool:
        """Whether a call now gets a remembered outcome."""
        return self._run is not None and self._run.done() and self._clock.now() < self._good_until

    def start(self) -> None:
        """See that it runs, without waiting for it; its error is for those who wait."""
        self._run = self._current()

    async def close(self) -> None:
        """Stop the run that is under way; whoever waits for it gets UpstreamError."""
        run, self._run = self._run, None
        if run is not None and not run.done():
            run.cancel()
            await asyncio.wait((run,))

    def _current(self) -> "asyncio.Task[T]":
        """The run that is under way, or the one whose outcome is still good, or else a new one."""
        run = self._run
        if run is None or (run.done() and self._clock.now() >= self._good_until):
            # An empty context: a run must not go out under the permit of whoever happened to be first.
            run = asyncio.create_task(self._watched(), context=Context())
            run.add_done_callback(_seen)
        return run

    async def _watched(self) -> T:
        error: BaseException | None = None
        try:
            return await self._work()
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._good_until = self._clock.now() + self._memory(error)


def _seen(run: "asyncio.Task[T]") -> None:
    # A run that nobody waited for to its end may fail; asyncio would say that its error was never looked at.
    if not run.cancelled():
        run.exception()
