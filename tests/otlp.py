"""A collector of OpenTelemetry's for tests: takes traces by OTLP over HTTP, and does with them what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from running import until


@dataclass(frozen=True)
class Span:
    """A span as it came. Ids are hexadecimal, times nanoseconds; `links` are the traces that it comes from."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    start: int
    end: int
    attributes: Mapping[str, Any]
    events: Mapping[str, int]
    has_failed: bool
    links: tuple[str, ...]
    resource: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """An attribute; None if it has none of this name, which may leave out that it is ours."""
        return self.attributes.get(name, self.attributes.get(f"gigachat_proxy.{name}"))

    def is_around(self, other: "Span") -> bool:
        """Whether the other one is its child and neither begins before it nor ends after it."""
        return (other.trace, other.parent) == (
            self.trace,
            self.id,
        ) and self.start <= other.start <= other.end <= self.end


def attributes_of(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def read(span: Any, resource: Mapping[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        state=span.trace_state,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=attributes_of(span.attributes),
        events={event.name: event.time_unix_nano for event in span.events},
        has_failed=span.status.code == 2,
        links=tuple(link.trace_id.hex() for link in span.links),
        resource=resource,
    )


@dataclass
class Collector:
    """`status` is what it answers; while `is_hanging` it answers nothing. `raw` is all that came, as bytes."""

    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    raw: bytes = b""
    is_hanging: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.headers.append(request.headers.copy())
        if self.is_hanging:
            await self.released.wait()
        if self.status == 200:
            self.raw += body
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = attributes_of(group.resource.attributes)
                self.spans += [read(span, resource) for scope in group.scope_spans for span in scope.spans]
        return web.Response(status=self.status)

    def named(self, name: str) -> list[Span]:
        """Those with this name, in the order of their beginnings."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start)

    async def requests(self, count: int = 1) -> list[Span]:
        """The spans of requests, when there are so many; those of a request are there before it."""
        await until(lambda: len(self._of_requests()) >= count)
        return self._of_requests()

    async def request(self) -> Span:
        """The only one."""
        (span,) = await self.requests()
        return span

    def children(self, parent: Span, name: str) -> list[Span]:
        return [span for span in self.named(name) if span.parent == parent.id]

    def _of_requests(self) -> list[Span]:
        found = [span for span in self.spans if span.kind in ("SERVER", "CONSUMER")]
        return sorted(found, key=lambda span: span.start)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A running one."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        collector.released.set()
        await runner.cleanup()
