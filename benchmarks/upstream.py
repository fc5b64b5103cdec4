"""An API that costs next to nothing: `python -m benchmarks.upstream LATENCY ENFORCED`, both in seconds.

It answers `/oauth` with a token, `GET /calls` with what it has received since it was asked last, and everything else
after LATENCY with the same chat answer of 613 bytes, or with a stream if the body asks for one. Calls closer than
ENFORCED to the last accepted one get 429. Times are the kernel's, so that it does not matter when this process gets its
turn on a busy machine; but each chunk of a stream says when it was written, by `time.monotonic_ns()`.
"""

import asyncio
import json
import re
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
#: Only numbered calls are noted: in a test of throughput there would be a great many.
NUMBER = re.compile(rb"\r\nx-request-id: *(\d{1,9})(?:\r|$)", re.IGNORECASE)
ANSWER_BYTES = 613
#: Linux: tell with the data when the kernel received it. Python names neither this nor the structure that comes.
SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@qq")


def response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def chat_answer() -> bytes:
    text = "Мяу-мяу! Мурр, мяу, мяу-мяу-мяу. "
    usage = {"prompt_tokens": 33, "completion_tokens": 51, "total_tokens": 84, "precached_prompt_tokens": 0}
    answer = {
        "choices": [{"message": {"content": "", "role": "assistant"}, "index": 0, "finish_reason": "stop"}],
        "created": 1790000000,
        "model": "GigaChat-2:2.0.28.2",
        "object": "chat.completion",
        "usage": usage,
    }
    bare = len(json.dumps(answer, ensure_ascii=False).encode())
    content = (text * 30).encode()[: ANSWER_BYTES - bare].decode(errors="ignore")
    answer["choices"][0]["message"]["content"] = content  # type: ignore[index]
    return json.dumps(answer, ensure_ascii=False).encode()


#: Seconds between the chunks of a stream: each has arrived before the next is written.
CHUNK_GAP = 0.005
CHUNKS = 20
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
IS_STREAM = re.compile(rb'"stream": ?true')


def event(data: str) -> bytes:
    """A server-sent event as a chunk of the body."""
    body = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


#: A chunk of a chat, all but its text.
DELTA = {"content": "%d", "role": "assistant"}
CHUNK = {"choices": [{"delta": DELTA, "index": 0}], "created": 1790000000, "model": "GigaChat-2:2.0.28.2"}
STAMPED = json.dumps({**CHUNK, "object": "chat.completion"})


def stamped() -> bytes:
    """A chunk of a chat whose text is the time."""
    return event(STAMPED % time.monotonic_ns())


CHAT = response("200 OK", chat_answer())
REFUSAL = response("429 Too Many Requests", b'{"status":429,"message":"Too Many Requests"}')
LIFE = 30 * 60


@dataclass(frozen=True)
class Arrival:
    """A call: when the kernel received it (seconds), the number in its X-Request-ID, whether it was refused."""

    at: float
    number: int
    is_refused: bool


@dataclass
class Api:
    latency: float
    enforced: float
    arrivals: list[Arrival] = field(default_factory=list)
    accepted_at: float = float("-inf")

    def call(self, at: float, head: bytes) -> bool:
        """Note it. False if it is refused."""
        # Connections are not read in the order in which their bytes came: this call may be the earlier one.
        is_refused = abs(at - self.accepted_at) < self.enforced
        if not is_refused:
            self.accepted_at = max(self.accepted_at, at)
        if number := NUMBER.search(head):
            self.arrivals.append(Arrival(at, int(number[1]), is_refused))
        return not is_refused

    def told(self) -> bytes:
        arrivals, self.arrivals = self.arrivals, []
        return response("200 OK", json.dumps([asdict(arrival) for arrival in arrivals]).encode())

    def token(self) -> bytes:
        token = {"access_token": "a-token", "expires_at": int((time.time() + LIFE) * 1000)}
        return response("200 OK", json.dumps(token).encode())


class Connection:
    """One caller's connection: a bare socket, since a transport does not tell when the kernel received the bytes."""

    def __init__(self, api: Api, sock: socket.socket) -> None:
        self._api = api
        self._socket = sock
        self._buffer = b""
        self._began = 0.0
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def _read(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(65536, socket.CMSG_SPACE(TIMESPEC.size))
        except ConnectionError:
            data, notes = b"", []
        if not data:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            return
        if not self._buffer:
            self._began = received_at(notes)
        buffer = self._buffer + data
        while (head := buffer.find(b"\r\n\r\n")) >= 0:
            length = CONTENT_LENGTH.search(buffer, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(buffer) < end:
                break
            self._answer(buffer[:head], buffer[head + 4 : end])
            buffer = buffer[end:]
        self._buffer = buffer

    def _answer(self, head: bytes, body: bytes) -> None:
        api = self._api
        if head.startswith(b"GET /calls"):
            self._write(api.told())
        elif head.startswith(b"POST /oauth"):
            self._write(api.token())
        elif not api.call(self._began, head):
            self._write(REFUSAL)
        elif IS_STREAM.search(body):
            asyncio.get_running_loop().call_later(api.latency, self._stream, STREAM, CHUNKS)
        elif api.latency:
            asyncio.get_running_loop().call_later(api.latency, self._write, CHAT)
        else:
            self._write(CHAT)

    def _stream(self, head: bytes, left: int) -> None:
        if left:
            self._write(head + stamped())
            asyncio.get_running_loop().call_later(CHUNK_GAP, self._stream, b"", left - 1)
        else:
            self._write(event("[DONE]") + b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        if self._socket.fileno() >= 0:
            with suppress(ConnectionError):
                self._socket.send(data)  # small enough for the kernel's buffer


def received_at(notes: Sequence[tuple[int, int, bytes]]) -> float:
    """When the kernel received the bytes; now, if it does not say."""
    for _, kind, stamp in notes:
        if kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = TIMESPEC.unpack(stamp)
            return float(seconds + nanoseconds / 1e9)
    return time.time()


async def serve(api: Api) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    asyncio.get_running_loop().add_reader(listener, lambda: Connection(api, listener.accept()[0]))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve(Api(float(sys.argv[1]), float(sys.argv[2]))))
