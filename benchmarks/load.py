"""The callers: one process, one connection each, raw asyncio, so that they cost little of what they measure.

`python -m benchmarks.load LOAD`, a `Load` as JSON; prints an `Outcome` as JSON when all is over, or at SIGTERM.
"""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

#: Connections that are opened at once: more would overrun the server's backlog.
OPENED_AT_ONCE = 200
#: A native chat: what is asked unless a load says otherwise.
BODY = json.dumps(
    {
        "messages": [
            ["system", "Ты робот киска, на все вопросы отвечай мяу-мяу"],
            ["user", "Привет, как дела? Расскажи, что нового в мире, и не забудь про погоду."],
        ],
        "generate_parameters": {"temperature": 1, "top_p": 0, "max_tokens": 2000, "profanity_check": False},
    },
    ensure_ascii=False,
).encode()


#: What is counted for an answer that is a 200 by its head and tells of a failure after it.
BROKEN = "200, then an error"
#: The end of a body whose length was not told before it.
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What is asked of the callers.

    Args:
        seconds: for how long each connection asks again when it is answered; or, if `is_once`, for how long to wait
            for the answers.
        is_once: one request on each connection, all together, numbered in X-Request-ID in the order of sending.
        body: what each request asks.
        first: the number of the first request.
    """

    url: str
    connections: int
    seconds: float
    is_once: bool = False
    body: str = BODY.decode()
    first: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of the requests: how many got which status, or BROKEN. Latencies in ms."""

    answers: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    beats: int = 0
    p50: float = 0.0
    p99: float = 0.0

    @property
    def answered(self) -> int:
        """How many got a 200."""
        return self.answers.get("200", 0)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds


class Tally:
    """What the connections have seen so far; `is_over` is set when nobody waits for an answer any more."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.ends = 0.0
        self.answers: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.beats = 0
        self.waiting = 0
        self.is_over = asyncio.Event()

    def add(self, status: str, latency: float) -> bool:
        """Note an answer. True if its connection should ask again."""
        self.answers[status] += 1
        self.latencies.append(latency)
        if not self.load.is_once and time.monotonic() < self.ends:
            return True
        self.waiting -= 1
        if not self.waiting:
            self.is_over.set()
        return False

    def outcome(self, seconds: float) -> Outcome:
        ordered = sorted(self.latencies) or [0.0]
        p50, p99 = (1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
        return Outcome(dict(self.answers), seconds, self.beats, p50, p99)


class Connection(asyncio.Protocol):
    """One caller."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._request = request
        self._sent_at = time.monotonic()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        while (head := buffer.find(b"\r\n\r\n")) >= 0:
            status = buffer[9:12]
            if status == b"102":
                self._tally.beats += 1
                buffer = buffer[head + 4 :]
                continue
            end = end_of(buffer, head)
            if len(buffer) < end:
                break
            told = BROKEN if status == b"200" and b'"error"' in buffer[:end] else status.decode()
            buffer = buffer[end:]
            if self._tally.add(told, time.monotonic() - self._sent_at):
                self.send(self._request)
        self._buffer = buffer

    def connection_lost(self, error: Exception | None) -> None:
        if not self._tally.is_over.is_set():
            self._tally.add("lost", time.monotonic() - self._sent_at)


def end_of(buffer: bytes, head: int) -> int:
    """Where the answer ends whose head ends at `head`; beyond the buffer while it is not here as a whole."""
    if b"transfer-encoding: chunked" not in buffer[:head].lower():
        return head + 4 + content_length(buffer[:head])
    last = buffer.find(LAST_CHUNK, head + 2)
    return last + len(LAST_CHUNK) if last >= 0 else len(buffer) + 1


def content_length(head: bytes) -> int:
    start = head.lower().find(b"\r\ncontent-length:")
    return int(head[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else 0


def request_of(load: Load, number: int | None) -> bytes:
    """The bytes of one request, that of a client which is known to skip 102s."""
    parts, body = urlsplit(load.url), load.body.encode()
    lines = [
        f"POST {parts.path or '/'} HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: aiohttp/3 benchmark",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if number is not None:
        lines.append(f"X-Request-ID: {number}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def opened(load: Load, tally: Tally) -> list[Connection]:
    """All connections, in groups."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(load.url)
    assert parts.hostname is not None
    assert parts.port is not None
    host, port = parts.hostname, parts.port
    connections: list[Connection] = []
    while len(connections) < load.connections:
        count = min(OPENED_AT_ONCE, load.connections - len(connections))
        group = [loop.create_connection(lambda: Connection(tally), host, port) for _ in range(count)]
        connections += [connection for _, connection in await asyncio.gather(*group)]
    return connections


async def call(load: Load) -> Outcome:
    tally = Tally(load)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, tally.is_over.set)
    connections = await opened(load, tally)
    tally.waiting = len(connections)
    began = time.monotonic()
    tally.ends = began + load.seconds
    for number, connection in enumerate(connections):
        connection.send(request_of(load, load.first + number if load.is_once else None))
    # Answers to the last requests of a timed load come after its end; nothing on loopback takes ten seconds.
    limit = load.seconds if load.is_once else load.seconds + 10
    try:
        async with asyncio.timeout(limit):
            await tally.is_over.wait()
    except TimeoutError:
        tally.is_over.set()
    return tally.outcome(time.monotonic() - began)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(call(Load(**json.loads(sys.argv[1])))))))
