"""Requests as OpenTelemetry's spans: one for each request of the edge, under it one for each wait and for each call.

Rule 1: whose child a span is is said, never looked up in the surroundings: thousands of requests are under way at once.
Rule 2: all spans of a request go by one clock, the monotonic one from its arrival on: none begins before its parent.
Rule 3: labels hold names of our own things, of keys, and of models; no word of anybody's, no address, nothing secret.
Rule 4: whoever is not known begins no trace, so what strangers send costs none.

Names of attributes: https://opentelemetry.io/docs/specs/semconv/http/http-spans and .../gen-ai; what they do not name
begins with OURS.
"""

import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.entry import Entry, Note, route_of
from proxy.line import Priority
from proxy.metrics import LEFT, METHODS, PASSED
from proxy.tracing import UNTRACED, Trace, Tracing, Trail

OURS = "gigachat_proxy."
#: What GenAI's conventions call our operations.
GEN_AI = {"chat": "chat", "embeddings": "embeddings"}
#: Characters of a caller's own words (its model, its request's id) that are looked at, and that are kept.
READ, LONGEST = 1000, 200
SECOND = 1_000_000_000
#: Headers of a request by which it continues a trace, and of a call by which the upstream does.
W3C = TraceContextTextMapPropagator()
PARENT, STATE = "traceparent", "tracestate"
FAILED = Status(StatusCode.ERROR)


class Spans(Tracing):
    """Makes them.

    Args:
        keys: names of callers that may be told.
        hidden: blots out what is secret in a text.
    """

    def __init__(self, tracer: Tracer, keys: Collection[str], hidden: Callable[[str], str]) -> None:
        self.tracer = tracer
        self._keys = keys
        self._hidden = lru_cache(1000)(hidden)  # models come again and again
        self.listeners = (self.tell,)

    def begin(self, request: web.Request, note: Note) -> Trace:
        if note.trace is not UNTRACED or (note.within is not None and note.within.is_rehearsal):
            return note.trace
        return RequestSpan(self, request, note)

    def tell(self, entry: Entry) -> None:
        """This request is over."""
        if isinstance(entry.trace, RequestSpan):
            entry.trace.end(entry)

    def text(self, word: str) -> str:
        """A caller's own word as it may be told; what is no Unicode, which a header may hold, is replaced."""
        return self._hidden(word[:READ].encode(errors="replace").decode())[:LONGEST]

    def caller(self, name: str) -> str | None:
        """A caller as it may be told: by the name of its key."""
        return name if name in self._keys else None


class RequestSpan(Trace):
    """The span of a request, which is begun late: when it is known who sent it."""

    __slots__ = ("_at", "_began", "_context", "_span", "_spans", "headers", "id")

    def __init__(self, spans: Spans, request: web.Request, note: Note) -> None:
        self._spans = spans
        self._at = int(note.at * SECOND)
        self._began = note.began
        method = request.method if request.method in METHODS else "HTTP"
        kind = SpanKind.SERVER if note.within is None else SpanKind.CONSUMER
        before, links = parent_of(request, note)
        self._span = spans.tracer.start_span(
            f"{method} {route_of(request)}", before, kind=kind, links=links, start_time=self._at
        )
        self._context = set_span_in_context(self._span, Context())
        self.headers = headers_of(self._context)
        own = self._span.get_span_context()
        self.id = format_trace_id(own.trace_id) if own.is_valid else ""  # it is not with OTEL_SDK_DISABLED=true

    def trail(self) -> Trail:
        return LineSpans(self._spans.tracer, self._context, self.id, self.now)

    def now(self) -> int:
        """Nanoseconds since the epoch, by the clock of this request."""
        return self._at + int((time.monotonic() - self._began) * SECOND)

    def end(self, entry: Entry) -> None:
        """It is over."""
        span = self._span
        if span.is_recording():
            span.set_attributes(told_of(entry, self._spans))
            if entry.status is None or entry.status >= 500:
                span.set_status(FAILED)
        span.end(self._at + int(entry.took * SECOND))


class LineSpans(Trail):
    """The spans of a request in a line."""

    __slots__ = ("_attempt", "_context", "_now", "_number", "_reason", "_tracer", "id")

    def __init__(self, tracer: Tracer, context: Context, id: str, now: Callable[[], int]) -> None:
        self._tracer = tracer
        self._context = context
        self._now = now
        self.id = id
        #: Why it is sent again: how its last attempt ended.
        self._reason = ""
        self._number = 0
        self._attempt: Span

    def waited(self, seconds: float, place: int) -> None:
        told: dict[str, Any] = self._again() or {OURS + "position": place}
        now = self._now()
        start = now - int(seconds * SECOND)
        self._tracer.start_span("wait", self._context, attributes=told, start_time=start).end(now)

    def attempt(self, number: int) -> Mapping[str, str]:
        self._number = number
        self._attempt = self._tracer.start_span("attempt", self._context, kind=SpanKind.CLIENT, start_time=self._now())
        return headers_of(set_span_in_context(self._attempt, Context()))

    def attempted(self, status: int | None, error: str, took: float | None, first_chunk: float | None) -> None:
        span, now, before = self._attempt, self._now(), self._again()
        self._reason = error if status is None else str(status)
        if span.is_recording():
            if took is not None:
                sent = now - int(took * SECOND)
                span.add_event("sent", timestamp=sent)
                if first_chunk is not None:
                    span.add_event("first_chunk", timestamp=sent + int(first_chunk * SECOND))
            has_failed = status is None or status >= 400
            told = {
                OURS + "attempt": self._number,
                "http.request.resend_count": self._number - 1 or None,
                "http.response.status_code": status,
                "error.type": (self._reason or LEFT) if has_failed else None,
                **before,
            }
            span.set_attributes(known(told))
            if has_failed:
                span.set_status(FAILED)
        span.end(now)

    def _again(self) -> dict[str, str]:
        return {OURS + "retry.reason": self._reason} if self._reason else {}


def told_of(entry: Entry, spans: Spans) -> dict[str, Any]:
    """The attributes of a request that is over."""
    usage = None if entry.is_double else entry.usage  # whoever adds up must not find it twice
    told = {
        "http.request.method": entry.method if entry.method in METHODS else "_OTHER",
        "http.route": entry.route,
        "http.response.status_code": entry.status,
        "error.type": error_of(entry),
        "gen_ai.operation.name": GEN_AI.get(entry.operation),
        "gen_ai.request.model": spans.text(entry.model) or None,
        "gen_ai.usage.input_tokens": usage.prompt_tokens if usage else None,
        "gen_ai.usage.output_tokens": usage.completion_tokens if usage else None,
        OURS + "request.id": spans.text(entry.id),
        OURS + "caller": spans.caller(entry.caller),
        OURS + "dialect": entry.dialect,
        # Of a credential that a caller brought along the lane has a name of its own.
        OURS + "lane": PASSED if entry.lane.startswith(f"{PASSED}-") else entry.lane or None,
        OURS + "operation": entry.operation,
        OURS + "attempts": entry.attempts,
        OURS + "wait": round(entry.waited, 6),
    }
    return known(told)


def known(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def error_of(entry: Entry) -> str | None:
    """What went wrong, if anything did: the code of our own failure, or the status that the API gave."""
    if entry.status is None:
        return LEFT
    return (entry.error or str(entry.status)) if entry.status >= 400 else None


def parent_of(request: web.Request, note: Note) -> tuple[Context, list[Link]]:
    """What a request continues, and what it is told to come from.

    Lines of a batch continue nothing: tens of thousands in one trace would be of no use to anybody.
    """
    before = context_of(request.headers)
    if note.within is None or note.within.priority is not Priority.BATCH:
        return before, []
    origin = get_current_span(before).get_span_context()
    return Context(), [Link(origin)] if origin.is_valid else []


def context_of(headers: CIMultiDictProxy[str]) -> Context:
    """What the headers of a request say of its trace; what is malformed says nothing."""
    parents = headers.getall(PARENT, ())
    if len(parents) != 1:
        return Context()
    return W3C.extract({PARENT: parents, STATE: headers.getall(STATE, ())}, Context())


def headers_of(context: Context) -> dict[str, str]:
    """What continues the trace of this context elsewhere."""
    headers: dict[str, str] = {}
    W3C.inject(headers, context)
    return headers
