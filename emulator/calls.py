"""The record of calls: what came, when, and how it ended.

Rule 1: recording costs next to nothing; bodies stay bytes until somebody reads the record.
Rule 2: the record never holds more than MAX_CALLS calls or MAX_BYTES of bodies; the oldest go first.
Rule 3: a secret leaves the record only as the short hash of itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from emulator.errors import invalid_json

MAX_CALLS = 100_000
MAX_BYTES = 256 * 2**20


@dataclass(slots=True, eq=False)
class Call:
    """One request as it was received. Times are `time.monotonic_ns()`.

    Args:
        arrived_ns: when its first bytes reached the emulator.
        finished_ns: when its answer was written; 0 while it is not.
        in_flight: generation calls in flight on its arrival, this one included.
        disconnected: the caller closed before its answer was complete.
        id: the id in its path, if the endpoint has one.
        certificate: whose client certificate the TLS handshake verified, if any.
    """

    n: int
    method: str
    target: str
    headers: Mapping[str, str]
    arrived_ns: int
    body: bytes = b""
    finished_ns: int = 0
    status: int = 0
    in_flight: int = 0
    account: str = ""
    fault: str = ""
    disconnected: bool = False
    id: str = ""
    certificate: str = ""
    path: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2]))

    def number(self, name: str) -> int:
        """A whole number of the query, 0 if it is absent. Raises the API's 400 if it is none."""
        text = self.query.get(name, "0")
        if not text.isdecimal():
            raise invalid_json()
        return int(text)

    def json(self) -> Any:
        """The body parsed. Raises the API's 400 if it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise invalid_json() from None

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def record(self) -> dict[str, Any]:
        """What `/_emulator/calls` shows of it."""
        return {
            "n": self.n,
            "method": self.method,
            "path": self.path,
            "query": self.target.partition("?")[2],
            "headers": {name.lower(): shown(name, value) for name, value in self.headers.items()},
            "body": readable(self.body),
            "body_sha256": hashlib.sha256(self.body).hexdigest(),
            "arrived_ns": self.arrived_ns,
            "finished_ns": self.finished_ns,
            "status": self.status,
            "in_flight": self.in_flight,
            "account": self.account,
            "fault": self.fault,
            "disconnected": self.disconnected,
        }


class Calls:
    """The last calls, oldest first."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()
        self._bytes = 0
        self.count = 0

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._calls))

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<Calls: {len(self)} kept of {self.count}>"

    def open(self, method: str, target: str, headers: Mapping[str, str], arrived_ns: int) -> Call:
        """Begin the record of a call."""
        self.count += 1
        call = Call(self.count, method, target, headers, arrived_ns)
        self._calls.append(call)
        if len(self._calls) > MAX_CALLS:
            self._drop_oldest()
        return call

    def keep_body(self, call: Call, body: bytes) -> None:
        call.body = body
        self._bytes += len(body)
        while self._bytes > MAX_BYTES and len(self._calls) > 1:
            self._drop_oldest()

    def to(self, path: str) -> list[Call]:
        """Those whose path ends so."""
        return [call for call in self._calls if call.path.endswith(path)]

    def clear(self) -> None:
        self._calls.clear()
        self._bytes = 0

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._calls.popleft().body)


def shown(name: str, value: str) -> str:
    if name.lower() not in {"authorization", "proxy-authorization"}:
        return value
    scheme, _, secret = value.partition(" ")
    return f"{scheme} sha256:{fingerprint(secret)}"


def fingerprint(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def readable(body: bytes) -> Any:
    """JSON as it is, text as text, anything else as `{"base64": ...}`."""
    if not body:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body).decode()}
