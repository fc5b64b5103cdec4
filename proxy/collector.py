"""Where spans go: OpenTelemetry's own exporter, in a thread of its own, to a collector that may be away.

Rule 1: nobody waits for the collector: neither a request, nor the start; the stop does for FLUSH seconds at most.
Rule 2: what the library says is told once in QUIET seconds, by us: a collector that is away is one line, not many.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Tracer

from proxy.settings import Settings, SettingsError
from proxy.threads import in_thread
from proxy.values import TRACES

log = logging.getLogger("proxy.traces")

#: Seconds that the stop waits for the last spans to be taken.
FLUSH = 3.0
#: Seconds between two words about troubles with the collector.
QUIET = 60.0
#: Characters of the library's words that are told.
LONGEST = 300
#: After words that are cut.
MORE = " ..."

#: Whatever the library says goes through us alone.
LIBRARY = logging.getLogger("opentelemetry")
LIBRARY.addHandler(logging.NullHandler())
LIBRARY.propagate = False
#: Parts of the library that complain of what callers send: nobody here can do anything about it.
ABOUT_CALLERS = "opentelemetry.trace"


class Allowed(NamedTuple):
    """What a variable of the library's may be, in an expression and in words."""

    form: str
    words: str


COUNT = Allowed(r"0*[1-9]\d{0,8}", "whole number, 1 or more")
#: Those that would be passed over in silence if they were wrong. A middle `_TRACES` changes nothing.
VARIABLES = {
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": COUNT,
    "OTEL_BSP_MAX_QUEUE_SIZE": COUNT,
    "OTEL_BSP_SCHEDULE_DELAY": COUNT,
    "OTEL_EXPORTER_OTLP_COMPRESSION": Allowed("none|gzip|deflate", "none, gzip, deflate"),
    "OTEL_EXPORTER_OTLP_PROTOCOL": Allowed("http/protobuf", "http/protobuf, on port 4318 of most collectors"),
    "OTEL_EXPORTER_OTLP_TIMEOUT": Allowed(r"(?=.*[1-9])\d{1,6}(\.\d+)?", "seconds, above 0"),
    "OTEL_RESOURCE_ATTRIBUTES": Allowed(r"([^=,]+=[^,]*)(,[^=,]+=[^,]*)*,?", "name=value,name2=value2"),
    "OTEL_TRACES_SAMPLER": Allowed(
        "(parentbased_)?(always_on|always_off|traceidratio)",
        "always_on, always_off, traceidratio, each also with parentbased_ before it",
    ),
    "OTEL_TRACES_SAMPLER_ARG": Allowed(r"0|1|[01]\.0*|0?\.\d+", "0 to 1"),
}


class Troubles(logging.Handler):
    """Tells what the library complains of."""

    def __init__(self, hidden: Callable[[str], str]) -> None:
        super().__init__(logging.WARNING)
        self._hidden = hidden
        self._again = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._again and not record.name.startswith(ABOUT_CALLERS):
            self._again = now + QUIET
            log.warning("traces are lost, requests are not: %s", cut(self._hidden(record.getMessage())))


def cut(text: str) -> str:
    """LONGEST characters at most, up to the end of a word."""
    if len(text) <= LONGEST:
        return text
    head = text[: LONGEST - len(MORE)]
    return (head.rpartition(" ")[0] or head) + MORE


@contextmanager
def told_of(hidden: Callable[[str], str]) -> Iterator[None]:
    troubles = Troubles(hidden)
    LIBRARY.addHandler(troubles)
    try:
        yield
    finally:
        LIBRARY.removeHandler(troubles)


def check_variables() -> None:
    """Raises SettingsError that names each of VARIABLES that is wrong."""
    given = {name: value.strip() for name, value in os.environ.items() if name.startswith("OTEL_") and value.strip()}
    allowed = {name: VARIABLES.get(name.replace("_TRACES_", "_") if "OTLP" in name else name) for name in given}
    wrong = [
        f"{name}={given[name]} is wrong; allowed: {rule.words}"
        for name, rule in allowed.items()
        if rule is not None and not re.fullmatch(rule.form, given[name], re.IGNORECASE)
    ]
    if wrong:
        raise SettingsError("\n".join(sorted(wrong)))


@asynccontextmanager
async def tracer_of(settings: Settings, version: str, hidden: Callable[[str], str]) -> AsyncIterator[Tracer]:
    """What makes spans and sends them to OTEL_EXPORTER_OTLP_ENDPOINT; afterwards the last ones are sent.

    Raises SettingsError for a wrong variable of the library's.
    """
    check_variables()
    exporter = exporter_of(settings)
    provider = TracerProvider(resource=resource_of(settings, version), shutdown_on_exit=False)
    try:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise SettingsError(f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE, OTEL_BSP_MAX_QUEUE_SIZE: {error}") from None
    with told_of(hidden):
        try:
            yield provider.get_tracer("gigachat-proxy", version)
        finally:
            await closed(provider, exporter)


def exporter_of(settings: Settings) -> OTLPSpanExporter:
    headers = {name: value.get_secret_value() for name, value in settings.otel_exporter_otlp_headers.items()}
    base = str(settings.otel_exporter_otlp_endpoint).rstrip("/")
    return OTLPSpanExporter(f"{base}{TRACES}", headers=headers)


def resource_of(settings: Settings, version: str) -> Resource:
    """Who we are, unless OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES know better."""
    told = OTELResourceDetector().detect().attributes
    return Resource.create({"service.name": settings.app_name, "service.version": version, **told})


async def closed(provider: TracerProvider, exporter: OTLPSpanExporter) -> None:
    """Send what there is, in a thread: whatever does not go within FLUSH seconds is lost."""
    closing = in_thread(provider.shutdown)
    await asyncio.wait({closing}, timeout=FLUSH)
    if not closing.done():
        log.warning("the last traces are lost: OTEL_EXPORTER_OTLP_ENDPOINT did not take them within %g s", FLUSH)
        exporter.shutdown()  # type: ignore[no-untyped-call]
