"""A line on a held clock before an API without sockets, and its callers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from held import HeldClock

from proxy.connector import Chunk, Connector, Data
from proxy.lanes import Account
from proxy.limits.local import LocalLimits
from proxy_request import ProxyQueue, ProxyRequest, Story


class FakeApi:
    """An API in this process. A call ends after `latency` seconds, or when the test says so.

    `outcomes` are for the next calls, in the order of their sends: an error to raise, or an answer to give at once.
    """

    def __init__(self, clock: HeldClock, latency: float | None) -> None:
        self._clock = clock
        self._latency = latency
        self._open: dict[str, asyncio.Future[None]] = {}
        self.outcomes: deque[Exception | dict[str, Any]] = deque()
        #: What was sent, in the order of the sends, and when.
        self.sent: list[str] = []
        self.times: list[float] = []
        #: Of a stream: chunks to give, seconds to wait, errors to raise.
        self.script: list[dict[str, Any] | float | Exception] = []

    def answer(self, name: str) -> None:
        self._open[name].set_result(None)

    def fail(self, name: str, error: Exception) -> None:
        self._open[name].set_exception(error)

    # -- what a connector is

    def validate_data(self, data: Data) -> bool:
        return True

    def get_info(self) -> dict[str, Any]:
        return {}

    async def request_api(self, data: Data) -> dict[str, Any]:
        name = self._note_sent(data)
        if self.outcomes:
            return told(self.outcomes.popleft())
        if self._latency is not None:
            await self._clock.until(self._clock.now() + self._latency)
            return {"answer": name}
        self._open[name] = asyncio.get_running_loop().create_future()
        try:
            await self._open[name]
            return {"answer": name}
        finally:
            del self._open[name]

    async def stream_api(self, data: Data) -> AsyncIterator[Chunk]:
        self._note_sent(data)
        for step in self.script:
            if isinstance(step, float):
                await self._clock.until(self._clock.now() + step)
            else:
                yield told(step)

    def _note_sent(self, data: Data) -> str:
        name = str(data["messages"][0]["content"])
        self.sent.append(name)
        self.times.append(self._clock.now())
        return name


def told(outcome: Exception | dict[str, Any]) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class Line:
    """The line, its clock and its API (or another connector's object); `ask` is a caller."""

    def __init__(
        self,
        *,
        rpm: float | None = None,
        concurrency: int | None = None,
        latency: float | None = None,
        api: Any = None,
        **knobs: Any,
    ) -> None:
        self.clock = HeldClock()
        self.api = api or FakeApi(self.clock, latency)
        self.limits = LocalLimits(rpm=rpm, concurrency=concurrency, clock=self.clock, jitter=lambda: 1.0)
        self.stories: list[Story] = []
        connector = Connector("fake", self.api.validate_data, self.api.request_api, self.api.get_info, self.api)
        self.queue = ProxyQueue(
            [Account(connector, self.limits)], clock=self.clock, listeners=[self.stories.append], **knobs
        )
        self.requests: dict[str, ProxyRequest] = {}
        self.streams: set[ProxyRequest] = set()

    async def ask(self, name: str, *, is_stream: bool = False, **knobs: Any) -> "asyncio.Task[list[Chunk]]":
        """A caller who has just come; the task ends with the chunks of its answer."""
        asking = asyncio.create_task(self.chunks(self.enrol(name, is_stream=is_stream, **knobs)))
        await self.clock.settle()
        return asking

    def enrol(self, name: str, *, is_stream: bool = False, **knobs: Any) -> ProxyRequest:
        data = {"messages": [{"role": "user", "content": name}], "generate_parameters": {}}
        call = (lambda c: c.stream(data)) if is_stream else (lambda c: c.request(data))
        self.requests[name] = request = self.queue.enrol(call, id=name, **knobs)
        if is_stream:
            self.streams.add(request)
        return request

    async def chunks(self, request: ProxyRequest) -> list[Chunk]:
        if request not in self.streams:
            return [await self.queue.answer(request)]
        async with aclosing(self.queue.run(request)) as chunks:
            return [chunk async for chunk in chunks]

    @property
    def waiting(self) -> int:
        return self.queue.state().waiting

    @property
    def is_idle(self) -> bool:
        """Nobody waits, nothing is in flight, nothing is taken."""
        return not (
            self.waiting
            or self.limits.state().in_flight
            or self.limits._unsent
            or self.queue.in_flight
            or self.queue._present
        )


@asynccontextmanager
async def a_line(**knobs: Any) -> AsyncIterator[Line]:
    """A running line. Whatever a test does, nothing may be left of it when the line is closed."""
    line = Line(**knobs)
    line.queue.start()
    yield line
    await line.queue.close()
    await line.clock.settle()
    assert line.is_idle, line.queue
