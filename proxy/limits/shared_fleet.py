"""What replicas tell each other of themselves, in one hash in Redis.

Rule 1: each tells every PERIOD seconds how it is and reads what the others told, in a task of its own: no request waits
        for it.
Rule 2: instants are those of Redis's clock: a machine whose own is wrong looks no older for it.
Rule 3: what cannot be read is nobody's; what is old is taken out by whoever sees it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from proxy.limits.fleet import FORGOTTEN, Report, Sighting
from proxy.limits.link import KEY_LIFE_MS, RedisAway, RedisLink
from proxy.limits.resting import Resting

log = logging.getLogger("proxy.limits")

#: Seconds between two words of a replica.
PERIOD = 2.0


class SharedFleet:
    """A `Fleet` through Redis.

    Args:
        name: what the account is called by all replicas.
    """

    def __init__(self, link: RedisLink, name: str, *, period: float = PERIOD) -> None:
        self._link = link
        self._key = link.names.reports(name)
        self._period = period
        self._resting = Resting(link.clock)
        #: By the process that told it, with the instant at Redis (microseconds).
        self._told: dict[str, tuple[int, Report]] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._is_closing = False

    def start(self, look: Callable[[], Report]) -> None:
        self._keeping = asyncio.create_task(self._keep(look))

    async def close(self) -> None:
        # Nothing that talks to Redis is cancelled: see link.py.
        self._is_closing = True
        self._resting.stir()
        if self._keeping is not None:
            await self._keeping
            with suppress(RedisAway):
                await self._link.command("HDEL", self._key, self._link.id)

    def others(self) -> list[Sighting]:
        seen = (Sighting(report, self._ago(at)) for at, report in self._told.values())
        return sorted((each for each in seen if each.ago < FORGOTTEN), key=lambda each: each.report.name)

    def _ago(self, at: int) -> float:
        return max(0.0, (self._now() - at) / 1_000_000)

    def _now(self) -> int:
        return self._link.time.there(self._link.clock.now())

    async def _keep(self, look: Callable[[], Report]) -> None:
        while not self._is_closing:
            try:
                await self._exchange(look())
            except RedisAway:
                pass  # what was heard last grows old
            except Exception:
                log.exception("telling other replicas failed and goes on")
            if not self._is_closing:
                await self._resting.until(self._link.clock.now() + self._period)

    async def _exchange(self, report: Report) -> None:
        """Raises RedisAway."""
        if not self._link.is_connected:
            raise RedisAway  # its clock may not be known yet
        command, mine = self._link.command, self._link.id
        await command("HSET", self._key, mine, orjson.dumps({"at": self._now(), **report.told()}).decode())
        await command("PEXPIRE", self._key, KEY_LIFE_MS)
        found = {who.decode(): read(told) for who, told in (await command("HGETALL", self._key)).items()}
        self._told = {who: told for who, told in found.items() if told is not None and who != mine}
        gone = [who for who in found if who != mine and self._is_gone(found[who])]
        if gone:
            await command("HDEL", self._key, *gone)

    def _is_gone(self, told: tuple[int, Report] | None) -> bool:
        return told is None or self._ago(told[0]) > FORGOTTEN


def read(told: bytes) -> tuple[int, Report] | None:
    """When something was told, and what; None if it is no word of a replica's."""
    try:
        found: Any = orjson.loads(told)
        return int(found["at"]), Report.of(found)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
