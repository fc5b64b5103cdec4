"""Who changed which limit, in a list in Redis: the same for all replicas."""

import logging
from collections.abc import Sequence

import orjson

from proxy.audit import MOST, Entry, read
from proxy.errors import LimitsUnavailable
from proxy.limits.link import RedisAway, RedisLink

log = logging.getLogger("proxy.audit")


class SharedAudit:
    """An `Audit` of the newest MOST changes."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._key = link.names.audit

    async def note(self, entries: Sequence[Entry]) -> None:
        try:
            await self._link.command("LPUSH", self._key, *(orjson.dumps(entry).decode() for entry in entries))
            await self._link.command("LTRIM", self._key, 0, MOST - 1)
        except RedisAway:
            log.warning("Redis went away: this log alone has the change")

    async def newest(self, limit: int) -> list[Entry]:
        if limit < 1:
            return []
        try:
            lines: list[bytes] = await self._link.command("LRANGE", self._key, 0, limit - 1)
        except RedisAway:
            raise LimitsUnavailable(
                "the record of changes is in Redis, which is away: look again when it is there"
            ) from None
        return read(b"\n".join(lines))
