"""Keeping a waiting client alive: `102 Processing` for clients that are known to skip it.

Rule 1: one timer for the whole process, whatever the number of those who wait.
Rule 2: a beat is a few bytes straight to the transport, between requests' own writes: it stops before the final status.
Rule 3: nobody is sent a 102 who might take it for the answer (`requests`, urllib) or whose proxy might (nginx).
"""

import asyncio
import re
from collections import OrderedDict

from aiohttp import HttpVersion11, web

PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"

#: In the User-Agent of clients that skip interim responses, each shown by a test.
SKIPS_102 = re.compile("GigaChat-python-lib|OpenAI/Python|python-httpx|aiohttp/|curl/")
#: Headers that betray a proxy between the client and us, in a list of names, one a line.
BETWEEN = re.compile(r"^(?:via|forwarded|x-real-ip|x-forwarded-.*)$", re.MULTILINE)
#: A header that says how long the body is, before one that the clients above write first.
REWRITTEN = re.compile(r"^(?:content-length|transfer-encoding)\n(?:.*\n)*(?:user-agent|accept)$", re.MULTILINE)

#: Beats in one go; with more due the loop is let in between, so that ten thousand cannot hold up a send.
AT_ONCE = 100


def takes_102(request: web.Request) -> bool:
    """Whether interim responses surely do this client good.

    Whoever asks by `X-Heartbeat: 102` vouches for itself and for a proxy between that leaves no trace.
    """
    headers = request.headers
    is_known = SKIPS_102.search(headers.get("User-Agent", "")) is not None
    if not (is_known or headers.get("X-Heartbeat") == "102") or request.version < HttpVersion11:
        return False
    names = "\n".join(headers).lower()
    if BETWEEN.search(names):
        return False
    # nginx can be set up to add no header of its own. But it writes the length of the body before all that it passes
    # on, and the clients that we know write it after.
    return not is_known or (headers.get("Connection", "").lower() != "close" and not REWRITTEN.search(names))


class Heartbeat:
    """Beats for everybody who is `alive`, every `interval` seconds, the first one `interval` after it joined."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        # All have the same interval, so the order of joining and beating is the order of being due.
        # (A plain dict would grow slow at its front, where it keeps a hole for each that has gone.)
        self._due: OrderedDict[asyncio.WriteTransport, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def alive(self, transport: asyncio.WriteTransport) -> "Alive":
        """Beat on this transport until the block is left."""
        return Alive(self, transport)

    def close(self) -> None:
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def join(self, transport: asyncio.WriteTransport) -> None:
        loop = asyncio.get_running_loop()
        self._due[transport] = loop.time() + self._interval
        if self._timer is None:
            self._timer = loop.call_at(self._due[transport], self._beat)

    def leave(self, transport: asyncio.WriteTransport) -> None:
        self._due.pop(transport, None)

    def _beat(self) -> None:
        """Beat for those who are due, then set the timer to the next one."""
        loop = asyncio.get_running_loop()
        self._timer = None
        for _ in range(AT_ONCE):
            transport, due = next(iter(self._due.items()), (None, 0.0))
            if transport is None:
                return
            if due > loop.time():
                self._timer = loop.call_at(due, self._beat)
                return
            self._due[transport] = loop.time() + self._interval
            self._due.move_to_end(transport)
            # A client that does not even read the last ones, or has gone, gets no more of them.
            if not transport.is_closing() and not transport.get_write_buffer_size():
                transport.write(PROCESSING)
        self._timer = loop.call_soon(self._beat)


class Alive:
    """A block in which somebody is kept alive. A class, since thousands wait inside of it."""

    __slots__ = ("_heartbeat", "_transport")

    def __init__(self, heartbeat: Heartbeat, transport: asyncio.WriteTransport) -> None:
        self._heartbeat = heartbeat
        self._transport = transport

    def __enter__(self) -> None:
        self._heartbeat.join(self._transport)

    def __exit__(self, *_: object) -> None:
        self._heartbeat.leave(self._transport)
