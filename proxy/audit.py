"""Who changed which limit, when, from what to what: so that nobody need guess afterwards.

Rule 1: a change is in force before it is in the record, and goes on if it cannot be recorded: the log has it anyway.
Rule 2: nothing secret is in it: operators are told by their address.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson

from proxy.logfile import Rotated

log = logging.getLogger("proxy.audit")

#: Entries that may be asked for at once; of a record in memory or in Redis, those that are kept.
MOST = 1000
#: Bytes at the end of the file that are looked at: MOST entries are shorter.
TAIL = 1024 * 1024

#: `at` (Unix seconds), `who`, `address`, `lane`, `field`, `from`, `to`, `is_setting`.
Entry = dict[str, Any]


class Audit(Protocol):
    """The record of changes."""

    async def note(self, entries: Sequence[Entry]) -> None:
        """These were made, in this order. What cannot be recorded is told to the log."""

    async def newest(self, limit: int) -> list[Entry]:
        """The last ones, the newest first. Raises LimitsUnavailable where they cannot be read."""


class MemoryAudit:
    """An `Audit` for a service that has no place for what outlives it."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    async def note(self, entries: Sequence[Entry]) -> None:
        self._entries = [*self._entries, *entries][-MOST:]

    async def newest(self, limit: int) -> list[Entry]:
        return self._entries[: -limit - 1 : -1]


class FileAudit:
    """An `Audit` in a file, a line an entry: see `proxy.logfile`."""

    def __init__(self, path: Path) -> None:
        self._file = Rotated(path)

    async def note(self, entries: Sequence[Entry]) -> None:
        try:
            await asyncio.to_thread(self._append, lines_of(entries))
        except OSError as error:
            log.warning("%s cannot be written (%s): this log alone has the change", self._file.path, error)

    async def newest(self, limit: int) -> list[Entry]:
        return read(await asyncio.to_thread(self._tail))[: -limit - 1 : -1]

    def _append(self, lines: bytes) -> None:
        try:
            self._file.append(lines)
        finally:
            self._file.close()

    def _tail(self) -> bytes:
        try:
            with open(self._file.path, "rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - TAIL))
                tail = file.read(TAIL)
        except OSError:
            return b""
        return tail if length <= TAIL else tail.partition(b"\n")[2]


def lines_of(entries: Sequence[Entry]) -> bytes:
    return b"".join(orjson.dumps(entry) + b"\n" for entry in entries)


def read(lines: bytes) -> list[Entry]:
    """What `lines_of` wrote; whatever else somebody put there is left out."""
    entries = []
    for line in lines.splitlines():
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
