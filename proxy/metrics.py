"""What Prometheus is told of requests and calls, counted as they end.

Rule 1: counting costs a microsecond and waits for nobody; whatever takes longer is done when somebody asks (scrape.py).
Rule 2: labels hold the names of our own things, of keys, and of models that have answered; nothing secret, no address,
        and no more different ones than the bounds here allow.
Rule 3: each service has its own.
"""

from collections.abc import Callable, Collection, Iterator

from prometheus_client.metrics_core import Metric

from proxy.attempt import Attempted
from proxy.entry import Entry
from proxy.errors import ProxyError
from proxy.journal import UNTOLD
from proxy.limits import LimitsState
from proxy.request import Story
from proxy.series import OTHER, Counts, Names, Sends, Spans

PREFIX = "gigachat_proxy_"
#: Callers and models that are told apart, and series of a family in which callers are.
CALLERS = 100
MODELS = 50
SERIES = 1000
#: Who has no key: addresses are not told.
ANONYMOUS = "anonymous"
#: The status of a request whose caller left, as nginx writes it; the one of its call.
LEFT_STATUS = "499"
LEFT = "left"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
#: Bounds in seconds, from a hundredth to RESP_TIMEOUT.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
#: The lane of all accounts that callers have brought along.
PASSED = "passed"


class Metrics:
    """A listener of the edge: call it with each entry. `of_lane` makes the observers of lines.

    Args:
        keys: names of callers that may be told.
        hidden: blots out what is secret in a text.
    """

    def __init__(self, keys: Collection[str], hidden: Callable[[str], str]) -> None:
        self._keys = keys
        self._callers = Names(CALLERS)
        self._models = Names(MODELS, hidden)
        #: By lane.
        self.sends: dict[str, Sends] = {}
        self.requests = counts(
            "requests",
            "HTTP requests by route, method, dialect, caller and status; 499: its caller left.",
            *("route", "method", "dialect", "caller", "status"),
            spared="caller",
        )
        self.durations = spans("request_duration_seconds", "From arrival to the last byte of the answer.", "route")
        self.errors = counts("errors", "Failed requests by the code that docs/behaviour.md lists.", "code")
        for code in codes_of(ProxyError):
            self.errors.add((code,), 0)  # so that the first one is a rise
        self.cancellations = counts("cancellations", "Requests whose caller left, by when.", "stage")
        self.answers = counts("model_answers", "Requests that were answered, by model.", "model")
        self.waits = spans("queue_wait_seconds", "Wait in line, all attempts of a request together.", "lane")
        self.tokens = counts(
            "tokens", "Tokens that calls cost, as the API counts them.", "lane", "caller", "direction", spared="caller"
        )
        self.attempts = counts(
            "upstream_attempts",
            "Calls by the API's status; if it gave none, by what happened, or left: the caller did.",
            *("lane", "status"),
        )
        self.latencies = spans("upstream_latency_seconds", "From a call's send to its end.", "lane")
        self.first_chunks = spans("upstream_first_chunk_seconds", "From a stream's send to its first chunk.", "lane")
        self.pauses = counts("pauses", "Pauses of a lane after a 429 of the API.", "lane")

    def of_lane(self, lane: str, look: Callable[[], LimitsState]) -> "LaneMetrics":
        """The observer and listener of a line; `look` tells of its limits."""
        return LaneMetrics(self, lane, look)

    def __call__(self, entry: Entry) -> None:
        if entry.is_double:
            return
        route, status = route_of(entry), LEFT_STATUS if entry.status is None else str(entry.status)
        method = entry.method if entry.method in METHODS else OTHER
        self.requests.add((route, method, entry.dialect, self.caller(entry.caller), status))
        if entry.operation not in UNTOLD:
            self.durations.add((route,), entry.took)
        if entry.status is None:
            if entry.lane:  # else it only looked on, and there was nothing to cancel
                self.cancellations.add(("in_flight" if entry.attempts else "waiting",))
        elif entry.error:
            self.errors.add((entry.error,))
        elif has_model(entry):
            self.answers.add((self._models(entry.served or entry.model),))

    def caller(self, name: str) -> str:
        """How a caller is told: by the name of its key."""
        return self._callers(name) if name in self._keys else ANONYMOUS

    def parts(self) -> Iterator[Metric]:
        """All families, in parts."""
        for family in vars(self).values():
            if isinstance(family, Counts | Spans):
                yield from family.parts()


class LaneMetrics:
    """What is told of a line; lines of one lane are told together."""

    def __init__(self, metrics: Metrics, lane: str, look: Callable[[], LimitsState]) -> None:
        self._metrics = metrics
        self._lane = (lane,)
        self._look = look
        self._sends = metrics.sends.setdefault(lane, Sends())
        metrics.attempts.add((lane, "429"), 0)  # so that the first one is a rise
        metrics.pauses.add((lane,), 0)

    def __call__(self, story: Story) -> None:
        metrics, usage = self._metrics, story.usage
        if story.attempts or story.waited:  # else it was refused at once
            metrics.waits.add(self._lane, story.waited)
        if usage is not None:
            caller = metrics.caller(story.caller)
            metrics.tokens.add((*self._lane, caller, "in"), max(0, usage.prompt_tokens))
            metrics.tokens.add((*self._lane, caller, "out"), max(0, usage.completion_tokens))

    def sent(self, at: float) -> None:
        self._sends.add(at)

    def attempted(self, attempt: Attempted) -> None:
        metrics, lane = self._metrics, self._lane
        if attempt.took is None and attempt.status == 200:
            return  # the connector knew the answer
        status = attempt.error if attempt.status is None else str(attempt.status)
        metrics.attempts.add((*lane, status or LEFT))
        if attempt.took is not None:
            metrics.latencies.add(lane, attempt.took)
        if attempt.first_chunk is not None:
            metrics.first_chunks.add(lane, attempt.first_chunk)
        if attempt.status == 429 and not self._look().paused:
            metrics.pauses.add(lane)


def codes_of(kind: type[ProxyError]) -> Iterator[str]:
    """Those of a kind of failure and of all under it."""
    yield kind.code
    for child in kind.__subclasses__():
        yield from codes_of(child)


def has_model(entry: Entry) -> bool:
    """Whether the model that it names has answered it; else anybody could make names up.

    The API's own paths take any body, but only where a model was at work do they tell what it cost.
    """
    is_answered = entry.status == 200 and entry.attempts > 0
    return is_answered and bool(entry.model) and (entry.operation != "forward" or entry.usage is not None)


def counts(name: str, sentence: str, *labels: str, spared: str = "") -> Counts:
    return Counts(PREFIX + name, sentence, *labels, spared=spared, most=SERIES)


def spans(name: str, sentence: str, *labels: str) -> Spans:
    return Spans(PREFIX + name, sentence, *labels, bounds=BOUNDS)


def route_of(entry: Entry) -> str:
    """The pattern of its path; OTHER for paths at which there is nothing."""
    is_nowhere = not entry.route or (entry.error == "not_found" and not entry.operation)
    return OTHER if is_nowhere else entry.route
