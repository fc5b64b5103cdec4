"""What is kept on disk: REQUESTS_LOG_FILE, a JSON line for each request, and LOG_FILE, the ordinary log.

Rule 1: every request has one line, also one that was refused or whose caller left; signs of life (`/health`) have none.
Rule 2: no secret is in a line: no setting that is secret, nothing that has the name or the form of a key or a token.
Rule 3: what people wrote is there at LOG_LEVEL=DEBUG only, and never on the screen.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from pydantic import SecretStr

from proxy.entry import Entry
from proxy.logfile import Rotated, Writer
from proxy.settings import Settings

#: Operations without a line.
UNTOLD = frozenset({"health", "ready", "metrics", "dashboard"})
#: Characters of a caller's own words (its model, its path) that are looked at and that are kept: a secret that goes
#: beyond the kept ones is still known for one. Bytes of a body that are kept.
TEXT_READ = 1000
TEXT_KEPT = 200
BODY_KEPT = 256 * 1024

HIDDEN = "***"
#: A shorter secret would blot out ordinary words.
SHORTEST_SECRET = 4
NAME = r"[\w-]{0,40}(?:token|api[_-]?key|authorization|password|secret|credentials?)"
#: What has the name or the form of a secret; the first group stays.
SECRETIVE = (
    re.compile(rf'("{NAME}"\s*:\s*")(?:\\.|[^"\\])+', re.IGNORECASE),
    re.compile(rf'(\\"{NAME}\\"\s*:\s*\\")[^"\\]+', re.IGNORECASE),  # JSON within a JSON string
    re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"()\beyJ[\w-]{8,}(?:\.[\w-]*)+"),  # a JSON web token, as the API's are
    re.compile(r"()\bgcp-[\w-]{16,}=*"),  # a pass of ours
)


class Secrets:
    """Blots out what must not be written."""

    def __init__(self, settings: Settings) -> None:
        told = {form for secret in secrets_of(settings) for form in (secret, orjson.dumps(secret)[1:-1].decode())}
        # The longest first: one may be a part of another.
        self._told = sorted((secret for secret in told if len(secret) >= SHORTEST_SECRET), key=len, reverse=True)

    def hidden(self, text: str) -> str:
        for secret in self._told:
            text = text.replace(secret, HIDDEN)
        for pattern in SECRETIVE:
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return text


def secrets_of(settings: Settings) -> Iterator[str]:
    for _, value in settings:
        for part in value.values() if isinstance(value, dict) else (value,):
            if isinstance(part, SecretStr):
                yield part.get_secret_value()


class Journal:
    """Writes the line of each entry that it is told."""

    def __init__(self, write: Callable[[bytes], None], secrets: Secrets) -> None:
        self._write = write
        self._secrets = secrets
        # Callers, models and paths come again and again.
        self._known = lru_cache(1000)(self._text)

    def __call__(self, entry: Entry) -> None:
        if entry.operation not in UNTOLD and not entry.is_double:
            self._write(orjson.dumps(self._line(entry), option=orjson.OPT_APPEND_NEWLINE))

    def _line(self, entry: Entry) -> dict[str, Any]:
        line = {
            "id": self._text(entry.id),
            "time": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "caller": self._known(entry.caller[:TEXT_READ]),
            "lane": entry.lane or None,
            "operation": entry.operation or None,
            "dialect": entry.dialect,
            "model": self._known(entry.model[:TEXT_READ]),
            "method": self._known(entry.method[:TEXT_READ]),
            "path": self._known(entry.path[:TEXT_READ]),
            "wait": round(entry.waited, 3),
            "duration": round(entry.took, 3),
            "attempts": entry.attempts,
            "status": entry.status,
            "error": entry.error or None,
            "tokens_in": entry.usage.prompt_tokens if entry.usage else None,
            "tokens_out": entry.usage.completion_tokens if entry.usage else None,
        }
        if entry.trace.id:
            line["trace"] = entry.trace.id
        bodies = {"request": entry.asked, "answer": entry.answered}
        return line | {name: self._body(body) for name, body in bodies.items() if body is not None}

    def _text(self, text: str) -> str | None:
        """None if it is empty. What is no Unicode, which a header may hold, is replaced."""
        return self._secrets.hidden(text.encode(errors="replace").decode())[:TEXT_KEPT] or None

    def _body(self, body: bytes) -> object:
        """The JSON that it is, or else the text; cut if it is long."""
        if len(body) > BODY_KEPT:
            text = body[:BODY_KEPT].decode(errors="replace")
            return self._secrets.hidden(text) + f"... ({len(body)} bytes, cut)"
        with suppress(orjson.JSONDecodeError):
            body = orjson.dumps(orjson.loads(body))  # written anew, so that no escape disguises a secret
        text = self._secrets.hidden(body.decode(errors="replace"))
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        return orjson.Fragment(text)


Listener = Callable[[Entry], None]


@asynccontextmanager
async def journal_of(settings: Settings) -> AsyncIterator[Sequence[Listener]]:
    """REQUESTS_LOG_FILE: who must be told of each request, nobody if it is unset. Afterwards all is on the disk."""
    if settings.requests_log_file is None:
        yield []
        return
    writer = Writer("REQUESTS_LOG_FILE", Rotated(settings.requests_log_file))
    try:
        yield [Journal(writer.write, Secrets(settings))]
    finally:
        await asyncio.to_thread(writer.close)


class LogHandler(logging.Handler):
    """Hands the records of the ordinary log to a writer."""

    def __init__(self, write: Callable[[bytes], None], secrets: Secrets) -> None:
        super().__init__()
        self._write = write
        self._secrets = secrets

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(f"{self._secrets.hidden(self.format(record))}\n".encode(errors="backslashreplace"))
        except Exception:
            self.handleError(record)


@contextmanager
def log_file_of(settings: Settings, format: str) -> Iterator[None]:
    """LOG_FILE: whatever is logged goes there too, until the block is left."""
    if settings.log_file is None:
        yield
        return
    writer = Writer("LOG_FILE", Rotated(settings.log_file))
    handler = LogHandler(writer.write, Secrets(settings))
    handler.setFormatter(logging.Formatter(format))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        writer.close()
