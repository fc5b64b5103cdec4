"""What is told of a request to whoever follows it from service to service: as it stands here nobody does.

With OTEL_EXPORTER_OTLP_ENDPOINT it is told to `spans.py`, which has the same three. What is told costs next to nothing
here, so nobody asks first whether anybody listens.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, str] = MappingProxyType({})


class Trail:
    """A request's way through a line. Seconds; must not raise."""

    __slots__ = ()

    #: The id of the trace that it belongs to, "" without one.
    id = ""

    def waited(self, seconds: float, place: int) -> None:
        """It has stood in line; if it had not been sent before, its place was this one when it came."""

    def attempt(self, number: int) -> Mapping[str, str]:
        """A call begins, the first one is 1: the headers by which the upstream continues the trace."""
        return NOTHING

    def attempted(self, status: int | None, error: str, took: float | None, first_chunk: float | None) -> None:
        """The call is over; see `proxy.attempt.Attempted`."""


class Trace:
    """A request of the edge, which may take several ways through lines."""

    __slots__ = ()

    #: See `Trail`.
    id = ""
    #: The headers by which whoever runs it later continues its trace.
    headers = NOTHING

    def trail(self) -> Trail:
        """For a request in a line that is made for this one."""
        return UNFOLLOWED


class Tracing:
    """Begins traces. `listeners` must be told the entry of each request of the edge when it is over."""

    listeners: Sequence[Callable[[Any], None]] = ()

    def begin(self, request: Any, note: Any) -> Trace:
        """That of a request whose caller is known by now, and of its note. Is idempotent."""
        return UNTRACED


UNFOLLOWED = Trail()
UNTRACED = Trace()
