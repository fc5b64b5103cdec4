"""What an endpoint gives back: a whole answer or a stream of chunks. No sockets here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json; charset=utf-8"
HTML = "text/html"
EVENTS = "text/event-stream"


@dataclass(slots=True)
class Answer:
    """A whole answer, written with its length."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Stream:
    """An answer written chunk by chunk.

    Args:
        delay: seconds before each chunk; None means as the options say.
        interval: seconds that the caller asked for between chunks at least.
        cut: close the connection after the last chunk, without the end mark.
    """

    chunks: Sequence[bytes]
    content_type: str = EVENTS
    status: int = 200
    delay: float | None = None
    interval: float = 0.0
    cut: bool = False


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(orjson.dumps(value), status)


def html_answer(status: int, title: str) -> Answer:
    """The page of the nginx in front of the API."""
    page = (
        f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Answer(page.encode(), status, HTML)
