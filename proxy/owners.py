"""Who owns which file and which batch of the service's own account: the caller whose key it was made with, by name.

Rule 1: the first claim counts. What has an owner does not exist for anybody else.
Rule 2: what nobody has claimed is nobody's: made before there were keys, by another program, or forgotten. It is in
        nobody's list, and whoever knows its id may use it.
Rule 3: an id has one owner however it is spelt, for who reads it at the API may not look at its spelling.
Rule 4: the record outlives the process if its file can be written; if not, that costs a warning, not the service.
"""

import asyncio
import json
import logging
import os
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from proxy.errors import NotFound
from proxy.logfile import Rotated, Writer

log = logging.getLogger("proxy.owners")

NO_FILE = "No such file"
#: How many ids are remembered; the oldest are forgotten first.
MOST = 100_000
#: Characters of the longest id.
LONGEST = 200
#: Bytes at which the file is written anew; or at twice of what counts, if that is more.
SIZE = 32 * 1024 * 1024
#: Characters of the parts of a UUID.
PARTS = (8, 4, 4, 4, 12)
STRANGE = re.compile(r"[^a-z0-9_-]")


class Ownership(Protocol):
    """Who owns what."""

    def claim(self, id: str, caller: str) -> None:
        """The caller has made it. Is idempotent; what has an owner keeps it."""

    def drop(self, id: str) -> None:
        """It is deleted. Is idempotent."""

    def is_anothers(self, id: str, caller: str) -> bool:
        """Whether somebody else owns it."""

    def check(self, id: str, caller: str, message: str = NO_FILE) -> None:
        """Raises NotFound with this message if somebody else owns it."""

    def mine(self, things: Iterable[Any], caller: str) -> list[dict[str, Any]]:
        """Those of the things, as the API describes them (`{"id": ...}`), that the caller owns."""

    def inherit(self, id: str, other: object) -> None:
        """`other`, an id or nothing, was made from what has the id `id`, so it belongs to the same owner."""


class Owners:
    """An `Ownership` of one process.

    Args:
        known: owners by id, the oldest first.
        write: takes a line for the file; it must not block.
        most: ids that are remembered.
    """

    def __init__(
        self,
        known: Mapping[str, str] | None = None,
        write: Callable[[bytes], None] | None = None,
        *,
        most: int = MOST,
    ) -> None:
        self._owners = {plain(id): owner for id, owner in (known or {}).items()}
        self._write = write
        self._most = most

    def __repr__(self) -> str:
        return f"<Owners of {len(self._owners)}/{self._most}>"

    def claim(self, id: str, caller: str) -> None:
        key = plain(id)
        if not key or len(id) > LONGEST or key in self._owners:
            return
        self._owners[key] = caller
        if len(self._owners) > self._most:
            del self._owners[next(iter(self._owners))]
        self._note(id, caller)

    def drop(self, id: str) -> None:
        if self._owners.pop(plain(id), None) is not None:
            self._note(id, None)

    def is_anothers(self, id: str, caller: str) -> bool:
        return self._owners.get(plain(id), caller) != caller

    def check(self, id: str, caller: str, message: str = NO_FILE) -> None:
        if self.is_anothers(id, caller):
            raise NotFound(message)

    def mine(self, things: Iterable[Any], caller: str) -> list[dict[str, Any]]:
        return [thing for thing in things if (id := id_of(thing)) and self._owners.get(plain(id)) == caller]

    def inherit(self, id: str, other: object) -> None:
        if isinstance(other, str) and (owner := self._owners.get(plain(id))) is not None:
            self.claim(other, owner)

    def _note(self, id: str, owner: str | None) -> None:
        if self._write is not None:
            self._write(line_of(id, owner))


class Unowned:
    """An `Ownership` where there are no keys: everything is everybody's."""

    def claim(self, id: str, caller: str) -> None: ...

    def drop(self, id: str) -> None: ...

    def is_anothers(self, id: str, caller: str) -> bool:
        return False

    def check(self, id: str, caller: str, message: str = NO_FILE) -> None: ...

    def mine(self, things: Iterable[Any], caller: str) -> list[dict[str, Any]]:
        return list(things)

    def inherit(self, id: str, other: object) -> None: ...


@asynccontextmanager
async def owners_of(folder: Path | None, *, has_keys: bool) -> AsyncIterator[Ownership]:
    """Who owns what, kept in `folder`; in memory alone if that is None. Without keys nobody owns anything."""
    if not has_keys:
        yield Unowned()
        return
    if folder is None:
        yield Owners()
        return
    register = Register(folder / "owners.jsonl")
    known = await asyncio.to_thread(register.known)
    writer = Writer("owners", register)
    try:
        yield Owners(known, writer.write)
    finally:
        await asyncio.to_thread(writer.close)


class Register(Rotated):
    """The file: a line for each claim and each drop, the last one of an id counts.

    Instead of being rotated it is written anew with what still counts. Its methods may block.
    """

    def __init__(self, path: Path, *, size: int = SIZE, most: int = MOST) -> None:
        super().__init__(path, size=size)
        self._most = most

    def known(self) -> dict[str, str]:
        """Owners by id, the oldest first; what cannot be read is told to the log and left out."""
        try:
            return self._compacted()
        except OSError as error:
            log.warning("owners=%s cannot be read (%s): who owned what until now is not known", self.path, error)
            return {}

    def _rotate(self) -> None:
        self.close()
        self._compacted()
        # Not again at the next line, if most of it counts or it could not be written.
        self._size = max(self._size, 2 * os.path.getsize(self.path))

    def _compacted(self) -> dict[str, str]:
        """What counts. If the file says more than that, it is written anew where that is possible."""
        try:
            told = Path(self.path).read_bytes()
        except FileNotFoundError:
            return {}
        owners, wrong = read(told)
        if wrong:
            log.warning("owners=%s: lines that cannot be read, and are left out: %d", self.path, wrong)
        newest = dict(list(owners.items())[-self._most :])
        lines = b"".join(line_of(id, owner) for id, owner in newest.items())
        if lines != told:
            self._write_anew(lines)
        return newest

    def _write_anew(self, lines: bytes) -> None:
        fresh = Rotated(Path(f"{self.path}.new"))
        try:
            Path(fresh.path).unlink(missing_ok=True)
            fresh.append(lines)
            os.replace(fresh.path, self.path)
        except OSError as error:
            log.warning("owners=%s cannot be written anew (%s): it goes on growing", self.path, error)
        finally:
            fresh.close()


def read(text: bytes) -> tuple[dict[str, str], int]:
    """The owners that these lines tell, the oldest first, and how many of the lines cannot be read."""
    owners: dict[str, str] = {}
    wrong = 0
    for line in text.splitlines():
        match told_by(line):
            case {"id": str(id), "owner": str(owner)}:
                owners.setdefault(id, owner)
            case {"id": str(id), "owner": None}:
                owners.pop(id, None)
            case _:
                wrong += 1
    return owners, wrong


def told_by(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def line_of(id: str, owner: str | None) -> bytes:
    # Not orjson: the name of a key need not be Unicode.
    return json.dumps({"id": id, "owner": owner}).encode() + b"\n"


def id_of(thing: object) -> str:
    """The id in the API's description of something; "" if it has none."""
    id = thing.get("id") if isinstance(thing, dict) else None
    return id if isinstance(id, str) else ""


def plain(id: str) -> str:
    """The one spelling of an id.

    UUIDs are read by many without regard to case, dashes, braces, zeros before a part, and the alphabet of digits.
    """
    text = unicodedata.normalize("NFKC", id).casefold().removeprefix("urn:uuid:")
    parts = STRANGE.sub("", text).split("-")
    if len(parts) == len(PARTS):
        parts = [part.zfill(length)[-length:] for part, length in zip(parts, PARTS, strict=True)]
    return "".join(parts)
