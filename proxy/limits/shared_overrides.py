"""What operators set, as fields of a hash in Redis: each override as JSON, and beside it what the script needs."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from proxy.limits.account import SharedAccount, wire_interval
from proxy.limits.overrides import (
    CONCURRENCY,
    FIELDS,
    NONE,
    PAUSED,
    RPM,
    Changes,
    Override,
    Overrides,
    as_json,
    of_json,
)

log = logging.getLogger("proxy.limits")

#: A field of the hash and what it is to be; False: it is to go.
Wire = tuple[str, str | bool]

#: What the script needs to know of some overrides, by what names.
OF_THE_SCRIPT: Mapping[str, tuple[str, Callable[[float], str]]] = {
    RPM: ("interval", lambda value: str(wire_interval(value))),
    CONCURRENCY: ("bound", lambda value: str(int(value))),
    PAUSED: ("held", lambda value: "1"),
}


class SharedOverrides:
    """What operators set, as this replica last heard; `revision` grows with each change of it."""

    def __init__(self, account: SharedAccount) -> None:
        self.overrides: Overrides = NONE
        self.revision = 0
        self._account = account
        self._fields: dict[str, str] = {}
        #: The newest revision that Redis has spoken of.
        self._newest = 0

    @property
    def is_outdated(self) -> bool:
        return self._newest > self.revision

    def heard_of(self, revision: int) -> None:
        """Redis has this one, or had it not long ago."""
        self._newest = max(self._newest, revision)

    async def learn(self) -> bool:
        """Ask for it. True if it is news. Raises RedisAway."""
        fields = await self._account.fields()
        revision = int(fields.pop("revision", 0))
        if revision <= self.revision:
            return False
        self.revision, self._fields, self.overrides = revision, fields, overrides_in(fields)
        return True

    def words(self) -> dict[str, Any]:
        """All that is known, for a Redis that may have lost it; what it spoke of before need not be there any more."""
        self._newest = self.revision
        return {"revision": self.revision, "fields": [*self._fields.items()]}


def wire_fields(changes: Changes) -> list[Wire]:
    """What the hash is told of changes."""
    return [wire for field, override in changes.items() for wire in wires_of(field, override)]


def wires_of(field: str, override: Override | None) -> list[Wire]:
    wires: list[Wire] = [(field, as_json(override).decode() if override else False)]
    if field in OF_THE_SCRIPT:
        name, written = OF_THE_SCRIPT[field]
        wires.append((name, written(override.value) if override else False))
    return wires


def overrides_in(fields: Mapping[str, str]) -> Overrides:
    """What the hash tells. What another version of us has written there, and we do not understand, is left out."""
    overrides = {}
    for field, text in fields.items():
        if field in FIELDS:
            try:
                overrides[field] = of_json(field, orjson.loads(text))
            except ValueError as error:
                log.warning("Redis: what operators set cannot be read, and the setting holds: %s", error)
    return overrides
