"""The list of an API's models: asked for in turn, remembered for a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from proxy.clock import Clock
from proxy.connector import current_gate
from proxy.errors import PassedRefused, UpstreamError
from proxy.once import Once
from proxy.upstream import decoded

logger = logging.getLogger(__name__)

#: Seconds for which the list is remembered, for which a failure to get it is, and which getting it may take.
MEMORY: Final = 600.0
PAUSE: Final = 5.0
TIMEOUT: Final = 10.0


class Models:
    """What an API offers.

    Args:
        read: gets the body of the API's list.
    """

    def __init__(self, read: Callable[[], Awaitable[bytes]], *, clock: Clock) -> None:
        self._read = read
        self._once = Once(self._ask, clock=clock, memory=lambda error: MEMORY if error is None else PAUSE)

    async def answer(self) -> dict[str, Any]:
        """The API's own answer, at most ten minutes old. Raises UpstreamError."""
        return await self._once()

    async def names(self, known: Sequence[str]) -> list[str]:
        """Their names; those that are `known` without asking, while the API cannot be asked.

        Raises PassedRefused: whose credential is refused is told so, whatever it asks.
        It is asked in turn only: outside the line nothing keeps the pace.
        """
        gate = current_gate.get()
        if gate is None and not self._once.is_good:
            return list(known)
        if gate is not None and not self._once.is_good:
            await gate.gate()
        try:
            return [model["id"] for model in (await self.answer())["data"]]
        except PassedRefused:
            raise
        except UpstreamError as error:
            logger.warning("the API's models cannot be listed: %s", error, extra={"action": "models_failed"})
            return list(known)

    async def close(self) -> None:
        await self._once.close()

    async def _ask(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = decoded(await self._read())
        except TimeoutError:
            raise UpstreamError(None, message=f"the upstream named no models in {TIMEOUT:g} s") from None
        models = answer.get("data")
        if not isinstance(models, list) or not all(isinstance(model, dict) and "id" in model for model in models):
            raise UpstreamError(None, message="the upstream's list of models is not one")
        return answer
