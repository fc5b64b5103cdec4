"""Server-sent events, encode and decode. No I/O."""

from collections.abc import Iterator
from typing import NamedTuple

DONE = b"data: [DONE]\n\n"


class Event(NamedTuple):
    """One event: its data lines joined, and its name ("" is the unnamed one)."""

    data: bytes
    name: bytes = b""


def encode(data: bytes, name: bytes = b"") -> bytes:
    """An event on the wire. `data` must be one line, as JSON from orjson is."""
    head = b"event: " + name + b"\n" if name else b""
    return head + b"data: " + data + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients skip; it keeps the connection alive and tells people who look."""
    return f": {text}\n\n".encode()


class Decoder:
    """Turns the bytes of a stream, however they are cut, into events. Comments and unknown fields are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._name = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that `piece` completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                yield event

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._finish()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None

    def _finish(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._name) if self._data else None
        self._data, self._name = [], b""
        return event
