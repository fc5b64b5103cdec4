"""Dialects: what a caller speaks. Pure translation, dict in, dict out; sockets live in `proxy.serving`."""

from typing import Protocol

from proxy.connector import Chunk, Data
from proxy.errors import ProxyError


class Dialect(Protocol):
    """How one family of clients writes requests and reads answers."""

    #: The upstream dialect for which nothing is translated; "" if that is the connector's own, whatever it is.
    name: str

    def request(self, body: object) -> Data:
        """A call for the connector from a parsed body. Raises BadRequest naming the field."""

    def answer(self, answer: Chunk) -> bytes:
        """The body of a 200."""

    def event(self, chunk: Chunk) -> bytes:
        """One chunk of a stream, on the wire."""

    @property
    def end(self) -> bytes:
        """What a complete stream ends with."""

    def error(self, error: ProxyError) -> bytes:
        """The body of an error answer."""

    def error_event(self, error: ProxyError) -> bytes | None:
        """How a stream that breaks ends; None: by cutting the connection."""
