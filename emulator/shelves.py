"""What callers leave with the API: files, assistants, threads, batches. Each is seen by its own account only."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from emulator.dialogue import Message
from emulator.errors import ApiError


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> int:
    return int(time.time())


@dataclass(slots=True, kw_only=True)
class Stored:
    """Times are unix time in seconds."""

    account: str
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)
    updated_at: int = field(default_factory=now)


@dataclass(slots=True, kw_only=True)
class File(Stored):
    """`client` is the X-Client-ID it was made with: only with the same one can it be read."""

    filename: str
    content: bytes
    mime: str
    purpose: str = "general"
    client: str = ""


@dataclass(slots=True, kw_only=True)
class Assistant(Stored):
    model: str
    name: str = ""
    description: str = ""
    instructions: str = ""
    file_ids: list[str] = field(default_factory=list)
    functions: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class ThreadMessage:
    message: Message
    finish: str = ""
    id: str = field(default_factory=new_id)
    created_at: int = field(default_factory=now)


@dataclass(slots=True, kw_only=True)
class Thread(Stored):
    model: str
    assistant_id: str = ""
    messages: list[ThreadMessage] = field(default_factory=list)

    def add(self, message: Message, finish: str = "") -> ThreadMessage:
        added = ThreadMessage(message=message, finish=finish)
        self.messages.append(added)
        self.updated_at = now()
        return added


@dataclass(slots=True, kw_only=True)
class Batch(Stored):
    method: str
    total: int
    failed: int = 0
    output_file_id: str = ""


Thing = TypeVar("Thing", bound=Stored)


class Shelf(Generic[Thing]):
    """Things of one kind by id. `missing` is what the API says when there is none."""

    def __init__(self, missing: str) -> None:
        self.missing = missing
        self._things: dict[str, Thing] = {}

    def add(self, thing: Thing) -> Thing:
        self._things[thing.id] = thing
        return thing

    def get(self, account: str, id: Any) -> Thing:
        """Raises the API's 404 if there is none, or it is somebody else's."""
        thing = self._things.get(id) if isinstance(id, str) else None
        if thing is None or thing.account != account:
            raise ApiError(404, self.missing)
        return thing

    def of(self, account: str) -> list[Thing]:
        return [thing for thing in self._things.values() if thing.account == account]

    def remove(self, account: str, id: Any) -> Thing:
        thing = self.get(account, id)
        del self._things[thing.id]
        return thing
