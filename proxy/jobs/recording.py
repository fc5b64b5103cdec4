"""The answer to a request from within, kept as it comes: whoever waits for it in this process can follow it."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from proxy.entry import Note
from proxy.errors import ProxyError
from proxy.jobs import Answer


class Recording(AbstractStreamWriter):
    """Takes what would go on the wire, from its head to its last byte."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: CIMultiDict[str] = CIMultiDict()
        #: What is known of the request.
        self.note: Note | None = None
        #: Whether it comes in pieces, as a stream or a long answer does, and not whole.
        self.is_in_pieces = False
        #: Whether what serves it came to its end; else it was broken off.
        self.is_complete = False
        self._pieces: list[bytes] = []
        self._is_over = False
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Recording {self.status} pieces={len(self._pieces)}>"

    @classmethod
    def of(cls, answer: Answer) -> "Recording":
        """An answer that was kept."""
        recording = cls()
        recording.status, content_type, body = answer
        recording.headers["Content-Type"] = content_type
        recording._add(body)
        recording.is_complete = True
        recording.end()
        return recording

    @property
    def is_over(self) -> bool:
        """Nothing more comes."""
        return self._is_over

    @property
    def failure(self) -> ProxyError | None:
        """Why it failed, as far as that is our own word."""
        return self.note.failure if self.note is not None else None

    @property
    def answer(self) -> Answer:
        """What there is of it."""
        content_type = self.headers.get("Content-Type", "application/octet-stream")
        return Answer(self.status or ProxyError.status, content_type, b"".join(self._pieces))

    async def begun(self) -> bool:
        """Wait for its head: `status` and `headers`. False if there will be none."""
        while self.status is None and not self._is_over:
            await self._changed.wait()
        return self.status is not None

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of its body from the beginning on, as it comes; any number may follow it at once."""
        told = 0
        while True:
            changed = self._changed
            while told < len(self._pieces):
                told += 1
                yield self._pieces[told - 1]
            if self._is_over:
                return
            await changed.wait()

    def take(self, response: web.Response) -> None:
        """A whole answer."""
        self.status = response.status
        self.headers = CIMultiDict(response.headers)
        self._add(cast(bytes, response.body or b""))

    def end(self) -> None:
        """Nothing more comes. Is idempotent."""
        self._is_over = True
        self._tell()

    def _add(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- as the server library writes a stream

    async def write_headers(self, status_line: str, headers: CIMultiDict[str]) -> None:
        self.is_in_pieces = True
        self.status = int(status_line.split(" ", 2)[1])
        self.headers = CIMultiDict(headers)
        self._tell()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self._add(bytes(chunk))

    async def write_eof(self, chunk: bytes = b"") -> None:
        self._add(chunk)

    async def drain(self) -> None: ...

    def enable_chunking(self) -> None: ...

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...


class Ended(NamedTuple):
    """What became of it; `failure` is why it failed, as far as that is our own word and not the API's."""

    answer: Answer
    failure: ProxyError | None
