"""What callers speak: pure translation, bytes and dicts in, bytes and dicts out. Sockets live in `proxy.serving`."""

from typing import Protocol

from proxy.connector import Chunk, Data
from proxy.errors import ProxyError


class Dialect(Protocol):
    """How one family of clients is told that something went wrong."""

    #: What the journal calls it.
    name: str

    def error(self, error: ProxyError) -> bytes:
        """The body of an error answer."""

    def error_event(self, error: ProxyError) -> bytes | None:
        """How a stream that breaks ends; None: by cutting the connection."""


class Reply(Protocol):
    """How the answer to one request is told. It lives as long as the request waits, so it is small."""

    def answer(self, answer: Chunk) -> bytes:
        """The body of a 200."""

    def event(self, chunk: Chunk) -> bytes:
        """One chunk of a stream, on the wire."""

    @property
    def end(self) -> bytes:
        """What a complete stream ends with."""


class ChatDialect(Dialect, Protocol):
    """How one family of clients writes a chat and reads its answer."""

    def request(self, body: object) -> Data:
        """What a parsed body asks for. Raises BadRequest naming the field."""

    def completed(self, data: Data) -> Data:
        """The call for the connector: with what the caller left to the dialect."""

    def reply(self, body: bytes) -> Reply:
        """How the answer to this body is told."""
