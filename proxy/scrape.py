"""What `GET /metrics` answers: what was counted, and a look at the lanes, the jobs and the process as they are now."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from proxy.clock import Clock
from proxy.estimate import Lanewide
from proxy.jobs import JobStore, Room, StoreState
from proxy.known import Known
from proxy.lanes import Lane, Lanes
from proxy.line import LaneState
from proxy.metrics import PASSED, PREFIX, Metrics
from proxy.once import Once
from proxy.readiness import PATIENCE, Readiness
from proxy.series import text_of

#: Seconds for which an answer serves, whoever asks: so much is spent on them at most.
AGE = 0.5
#: Seconds for which the state of the store of jobs serves: it has to count.
JOBS_AGE = 10.0


class Seen(NamedTuple):
    """A lane as it is now: how it is told, its state, its own calls in flight, and whether its limits are as set."""

    name: str
    state: LaneState
    in_flight: int
    is_kept: bool

    @property
    def limits(self) -> Lanewide:
        return self.state.limits


class Jobs:
    """The store of jobs, looked at now and then, and what it may hold."""

    def __init__(self, store: JobStore, room: Room) -> None:
        self.room = room
        self.state: Known[StoreState | None] = Known(store.state, None, age=JOBS_AGE)


class Scrape:
    """Writes the answer.

    Args:
        jobs: None: none are kept.
        about: labels that say what runs here.
        has_redis: whether the limits are kept through Redis.
    """

    def __init__(
        self,
        metrics: Metrics,
        lanes: Lanes,
        readiness: Readiness,
        jobs: Jobs | None,
        *,
        about: Mapping[str, str],
        has_redis: bool,
    ) -> None:
        self._metrics = metrics
        self._lanes = lanes
        self._readiness = readiness
        self._jobs = jobs
        self._about = about
        self._has_redis = has_redis
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._writing = Once(self._written, clock=Clock(), memory=lambda error: 0.0 if error else AGE)

    async def text(self) -> bytes:
        """At most AGE old; nobody is held up."""
        return await self._writing()

    async def close(self) -> None:
        await self._writing.close()
        if self._jobs is not None:
            await self._jobs.state.close()

    async def _written(self) -> bytes:
        # It lists the open files, of which there may be ten thousand.
        process = await asyncio.to_thread(lambda: list(self._registry.collect()))
        is_ready = (await self._readiness.verdict()).is_ready
        if self._jobs is not None:
            await self._jobs.state.found(PATIENCE)
        return await text_of(chain(self._metrics.parts(), self._looks(is_ready), process))

    # -- what is looked at

    def _looks(self, is_ready: bool) -> Iterator[Metric]:
        about = GaugeMetricFamily(PREFIX + "build_info", "What runs here.", labels=list(self._about))
        about.add_metric(list(self._about.values()), 1)
        yield about
        yield single("ready", "1 if GET /ready answers 200.", is_ready)
        lanes = self._lanes.all()
        own = dict.fromkeys([self._lanes.main, *self._lanes.others.values()])
        passed = [lane for lane in lanes if lane not in own]
        yield gauge("lanes", "Lanes by whose credential they have.", "of", {"own": len(own), PASSED: len(passed)})
        seen = [seen_of(lane) for lane in own]
        yield from lines_of({lane.name: [lane] for lane in seen} | {PASSED: [seen_of(lane) for lane in passed]})
        yield from limits_of(seen)
        yield from self._pace_of(seen)
        if self._has_redis:
            yield single("redis_up", "1 if the limits are kept through Redis.", all(lane.is_kept for lane in seen))
        if self._jobs is not None:
            yield from jobs_of(self._jobs)

    def _pace_of(self, seen: list[Seen]) -> Iterator[Metric]:
        sends = CounterMetricFamily(PREFIX + "upstream_sends", "Calls sent, each at its pace slot.", labels=["lane"])
        for lane, sent in self._metrics.sends.items():
            sends.add_metric([lane], sent.total)
        yield sends
        rpms = {lane.name: rpm for lane in seen if (rpm := lane.limits.rpm)}
        used = {name: min(1.0, self._metrics.sends[name].last_minute() / rpm) for name, rpm in rpms.items()}
        yield by_lane("pace_limit_per_minute", "EXT_API_RPM: calls that may be sent in a minute.", rpms)
        yield by_lane("pace_utilisation_ratio", "Share of it that this process used in the last 60 s.", used)


def seen_of(lane: Lane) -> Seen:
    return Seen(lane.name, lane.line.state(), lane.line.in_flight, not lane.line.trouble)


def lines_of(groups: Mapping[str, list[Seen]]) -> Iterator[Metric]:
    """Sums of lanes that are told together."""
    depth = {name: sum(lane.state.waiting for lane in group) for name, group in groups.items()}
    flying = {name: sum(lane.in_flight for lane in group) for name, group in groups.items()}
    yield by_lane("queue_depth", "Requests that wait in line.", depth)
    yield by_lane("in_flight", "Calls of this process that are in flight.", flying)


def limits_of(seen: list[Seen]) -> Iterator[Metric]:
    """What is set, and what holds; nothing where there is no limit."""
    most = {lane.name: lane.limits.concurrency for lane in seen if lane.limits.concurrency is not None}
    allowed = {lane.name: lane.limits.allowed for lane in seen if lane.limits.allowed is not None}
    yield by_lane("queue_limit", "EXT_QUEUE_SIZE: requests that may wait.", {s.name: s.state.size for s in seen})
    yield by_lane("queue_eta_seconds", "Wait of a newcomer.", {s.name: s.state.eta for s in seen})
    yield by_lane("in_flight_limit", "EXT_MAX_REQUESTS: calls that may be in flight.", most)
    yield by_lane("in_flight_allowed", "The same after what 429s have taught.", allowed)
    yield by_lane("pause_remaining_seconds", "Left of a pause.", {s.name: s.limits.paused for s in seen})
    yield by_lane("held", "1 if operators have paused it.", {s.name: s.limits.is_held for s in seen})
    yield by_lane("limits_kept", "1 if the limits are kept as they are set.", {s.name: s.is_kept for s in seen})


def jobs_of(jobs: Jobs) -> Iterator[Metric]:
    if (state := jobs.state.look()) is not None:
        known = state.live + state.batch + state.delayed + state.running
        states = {
            "queued": state.live,
            "queued_batch": state.batch,
            "delayed": state.delayed,
            "running": state.running,
            "ended": max(0, state.jobs - known),
        }
        yield gauge("jobs", "Jobs in the store; delayed: they wait for another attempt.", "state", states)
        yield single("jobs_stored_bytes", "What the store of jobs takes.", state.bytes)
    yield single("jobs_store_up", "1 if the store of jobs can be asked.", not jobs.state.has_failed)
    yield single("jobs_limit", "JOBS_MAX: jobs that the store may hold.", jobs.room.jobs)
    yield single("jobs_limit_bytes", "JOBS_MAX_BYTES: what it may take.", jobs.room.bytes)


def single(name: str, sentence: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, sentence, value=value)


def by_lane(name: str, sentence: str, values: Mapping[str, float]) -> Metric:
    return gauge(name, sentence, "lane", values)


def gauge(name: str, sentence: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, sentence, labels=[label])
    for row, value in values.items():
        family.add_metric([row], value)
    return family
