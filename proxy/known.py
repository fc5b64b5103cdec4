"""What takes time to find out: asked for now and then in the background, so that nobody has to wait for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Generic, TypeVar

from proxy.clock import Clock

log = logging.getLogger("proxy.known")

T = TypeVar("T")


class Known(Generic[T]):
    """What was last found out.

    Args:
        ask: finds it out. If it raises, what was known before stays.
        unknown: what is told before the first answer.
        age: seconds for which an answer serves; whoever looks after that has it asked for again.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], unknown: T, *, age: float, clock: Clock | None = None) -> None:
        self._ask = ask
        self._value = unknown
        self._age = age
        self._clock = clock or Clock()
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None
        #: Whether it was ever answered, and whether the last answer failed to come.
        self.is_known = self.has_failed = False

    @property
    def last(self) -> T:
        """Without having it asked for again."""
        return self._value

    def look(self) -> T:
        """At once."""
        if self._asking is None and (self._asked_at is None or self._clock.now() - self._asked_at >= self._age):
            # An empty context: what happens to be under way has nothing to do with it.
            self._asking = asyncio.create_task(self._find_out(), context=Context())
        return self._value

    async def found(self, patience: float) -> T:
        """The same; whoever has it asked for waits for the answer, for at most so many seconds.

        So does everybody before the first one, and nobody else where an answer is long in coming.
        """
        is_under_way = self._asking is not None
        self.look()
        if self._asking is not None and not (is_under_way and self.is_known):
            await asyncio.wait((self._asking,), timeout=patience)
        return self._value

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _find_out(self) -> None:
        try:
            self._value = await self._ask()
        except Exception as error:
            self.has_failed = True
            log.debug("%s: %s", self._ask, error, exc_info=True)
        else:
            self.is_known, self.has_failed = True, False
        finally:
            self._asked_at, self._asking = self._clock.now(), None
