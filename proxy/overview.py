"""The service at a glance, for the dashboard: how it is now, and how it was in the last hour.

Rule 1: what happens is counted as it happens, by an addition or two; a point a second is kept of it.
Rule 2: what takes longer is made once a second for all who look, and not at all while nobody does.
Rule 3: who reads slowly misses some of it and holds up nobody.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from proxy import sse
from proxy.attempt import Attempted
from proxy.entry import Entry
from proxy.errors import ProxyError
from proxy.jobs import State
from proxy.jobs.batches import Batch
from proxy.jobs.store import Store
from proxy.lanes import Lane, Lanes
from proxy.limits.overrides import PAUSED
from proxy.line import Standing
from proxy.series import Sends

log = logging.getLogger("proxy.overview")

#: Seconds of history, and over which times and shares are told.
HOUR, FIVE_MINUTES, MINUTE = 3600, 300, 60
#: Answers whose times are kept for the last minute, requests whose story is, those that are listed, and batches.
TIMES, STORIES, LISTED, BATCHES = 2000, 50, 30, 8
#: Seconds between two looks at the store of jobs.
JOBS_AGE = 3.0
#: Who left before it was answered.
LEFT = "left"
#: A part of the second: sleeping to a whole one may end a little early.
TICK = 0.001


@dataclass(slots=True)
class Sample:
    """A second. Times are seconds, of the last minute; None: nothing was answered in it, or no pace is set."""

    t: int
    waiting: int = 0
    in_flight: int = 0
    used: float | None = None
    wait50: float | None = None
    wait95: float | None = None
    call50: float | None = None
    call95: float | None = None
    ok: int = 0
    failed: int = 0
    retried: int = 0


#: What of the samples is drawn.
DRAWN = ("t", "waiting", "in_flight", "used", "wait95", "call95", "ok", "failed", "retried")


class Times:
    """Durations of the last minute."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, float]] = deque(maxlen=TIMES)

    def add(self, seconds: float) -> None:
        self._known.append((time.monotonic(), seconds))

    def shares(self, *shares: float) -> list[float | None]:
        """The durations below which these shares of all are."""
        since = time.monotonic() - MINUTE
        while self._known and self._known[0][0] < since:
            self._known.popleft()
        ordered = sorted(seconds for _, seconds in self._known)
        if not ordered:
            return [None] * len(shares)
        return [round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4) for share in shares]


class Tallies:
    """Counts by name, forgotten after a while."""

    def __init__(self, seconds: int, parts: int) -> None:
        self._part = seconds // parts
        self._counts: deque[tuple[int, Counter[str]]] = deque(maxlen=parts)

    def add(self, name: str) -> None:
        part = int(time.monotonic()) // self._part
        if not self._counts or self._counts[-1][0] != part:
            self._counts.append((part, Counter()))
        self._counts[-1][1][name] += 1

    def all(self) -> Counter[str]:
        oldest = int(time.monotonic()) // self._part - (self._counts.maxlen or 0)
        return sum((counts for part, counts in self._counts if part > oldest), Counter())


class About(NamedTuple):
    """What does not change."""

    name: str
    version: str
    is_sandbox: bool


@dataclass
class Looks:
    """What is told of the jobs, looked at now and then."""

    at: float = -math.inf
    jobs: Mapping[str, Any] | None = None
    batches: Iterable[Mapping[str, Any]] = field(default_factory=tuple)


class Overview:
    """A listener of the edge and an observer of all lines.

    Args:
        sends: by the name of a lane, what was sent there.
    """

    def __init__(self, sends: Mapping[str, Sends], about: About) -> None:
        self._sends = sends
        self._about = about
        self._lanes: Lanes
        self._store: Store | None = None
        self._started = time.time()
        self._samples: deque[Sample] = deque(maxlen=HOUR)
        self._running = Sample(int(time.time()))
        self._waits, self._calls = Times(), Times()
        self._statuses, self._callers = Tallies(HOUR, 60), Tallies(FIVE_MINUTES, 30)
        self._last: deque[Entry] = deque(maxlen=STORIES)
        self._looks = Looks()
        #: How many look.
        self.watchers = 0
        self._told = b""
        self._news = asyncio.Event()
        self._is_over = False
        self._beating: asyncio.Task[None] | None = None

    # -- what happens

    def __call__(self, entry: Entry) -> None:
        """A request is over."""
        if not entry.lane:
            return  # it never came to a line
        self._last.appendleft(entry)
        self._callers.add(entry.caller)
        self._statuses.add(LEFT if entry.status is None else str(entry.status))
        if entry.attempts:
            self._waits.add(entry.waited)
        if entry.status is not None and entry.status < 400:
            self._running.ok += 1
        else:
            self._running.failed += 1

    def sent(self, at: float) -> None: ...

    def attempted(self, attempt: Attempted) -> None:
        """A call is over."""
        status = attempt.status
        if status is not None and status < 400 and attempt.took is not None:
            self._calls.add(attempt.took)
        elif status in (None, 429) or (status or 0) >= 500:
            self._running.retried += bool(attempt.error)

    # -- start and stop

    def start(self, lanes: Lanes, store: Store | None) -> None:
        """Begin to keep points. Without a store nothing is told of jobs."""
        self._lanes, self._store = lanes, store
        self._beating = asyncio.create_task(self._beat())

    async def stop(self, app: web.Application) -> None:
        """End all streams: the service stops."""
        self._is_over = True
        self._tell(b"")
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: `history` once, then `now` every second."""
        self.watchers += 1
        try:
            yield event("history", self._history())
            while not self._is_over:
                await self._news.wait()
                if self._told:
                    yield self._told
        finally:
            self.watchers -= 1

    # -- every second

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1 - time.time() % 1 + TICK)
            try:
                self._close_sample()
                if self.watchers:
                    self._tell(event("now", await self._now()))
            except Exception:
                log.exception("the overview failed and goes on")

    def _tell(self, told: bytes) -> None:
        self._told = told
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _close_sample(self) -> None:
        sample, self._running = self._running, Sample(int(time.time()))
        state = self._lanes.main.line.state()
        sample.t = self._running.t
        sample.waiting, sample.in_flight = state.waiting, state.limits.in_flight
        sample.used = self._used(self._lanes.main)
        sample.wait50, sample.wait95 = self._waits.shares(0.5, 0.95)
        sample.call50, sample.call95 = self._calls.shares(0.5, 0.95)
        self._samples.append(sample)

    def _used(self, lane: Lane) -> float | None:
        """The share of a lane's rate that was used in the last minute, or since the start."""
        rpm, sends = lane.line.state().limits.rpm, self._sends.get(lane.name)
        if rpm is None or sends is None:
            return None
        age = min(MINUTE, max(1.0, time.time() - self._started))
        return round(min(1.0, sends.last_minute() / max(1.0, rpm * age / MINUTE)), 4)

    # -- what is told

    def _history(self) -> dict[str, Any]:
        return {name: [getattr(sample, name) for sample in self._samples] for name in DRAWN}

    async def _now(self) -> dict[str, Any]:
        main = self._lanes.main
        total, first = await main.line.places.waiting(None, LISTED)
        named = dict.fromkeys([main, *self._lanes.others.values()])
        statuses, sample = self._statuses.all(), asdict(self._samples[-1])
        looks = await self._looked()
        return {
            "at": time.time(),
            "app": {**about_told(self._about), "started": self._started, "replicas": main.line.state().limits.lines},
            "lanes": [self._lane_told(lane) for lane in named],
            "sample": sample,
            "hour": self._hour(),
            "callers": self._callers_told(first),
            "statuses": statuses,
            "waiting": {"total": total, "requests": [standing_told(each, main.name) for each in first]},
            "last": [entry_told(entry) for entry in self._last],
            "jobs": looks.jobs,
            "batches": looks.batches,
        }

    def _hour(self) -> dict[str, int]:
        return {name: sum(getattr(each, name) for each in self._samples) for name in ("ok", "failed", "retried")}

    def _lane_told(self, lane: Lane) -> dict[str, Any]:
        state, helm = lane.line.state(), lane.line.steered
        limits = state.limits
        overrides = {name: each.value for name, each in helm.overrides.items() if name != PAUSED}
        return {
            "name": lane.name,
            "connector": lane.connector.name,
            "rpm": limits.rpm,
            "concurrency": limits.concurrency,
            "allowed": limits.allowed,
            "timeout": overrides.get("timeout", helm.settings["timeout"]),
            "size": state.size,
            "waiting": state.waiting,
            "in_flight": limits.in_flight,
            "eta": round(state.eta, 3),
            "used": self._used(lane),
            "paused": round(limits.paused, 3),
            "reason": "upstream 429",
            "held": limits.is_held,
            "trouble": lane.line.trouble,
            "stopping": state.is_stopping,
            "overrides": overrides,
        }

    def _callers_told(self, waiting: Iterable[Standing]) -> list[dict[str, Any]]:
        answered, lined = self._callers.all(), Counter(each.caller for each in waiting)
        total = max(1, answered.total())
        names = [*dict(answered.most_common()), *(name for name in lined if name not in answered)]
        return [
            {"name": name, "share": answered[name] / total, "answered": answered[name], "waiting": lined[name]}
            for name in names[:LISTED]
        ]

    async def _looked(self) -> Looks:
        if self._store is None or time.monotonic() - self._looks.at < JOBS_AGE:
            return self._looks
        try:
            batches = (await self._store.batches.list(caller=None, limit=BATCHES)).entries
            state = await self._store.jobs.state()
            self._looks = Looks(time.monotonic(), state._asdict(), [batch_told(batch) for batch in batches])
        except ProxyError:  # the store is away, the lines are not
            self._looks = Looks(time.monotonic())
        return self._looks


def event(name: str, told: Mapping[str, Any]) -> bytes:
    return sse.encode(orjson.dumps(told), name.encode())


def about_told(about: About) -> dict[str, Any]:
    return {"name": about.name, "version": about.version, "sandbox": about.is_sandbox}


def standing_told(standing: Standing, lane: str) -> dict[str, Any]:
    return {
        "id": standing.id,
        "lane": lane,
        "place": standing.place,
        "caller": standing.caller,
        "priority": standing.priority.name.lower(),
        "model": standing.model[:100],
        "waited": round(standing.waited, 3),
        "eta": standing.eta and round(standing.eta, 3),
        "attempts": standing.attempts,
    }


def entry_told(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at,
        "caller": entry.caller,
        "path": entry.path[:100],
        "model": entry.model[:100],
        "status": entry.status,
        "error": entry.error,
        "waited": round(entry.waited, 3),
        "took": round(entry.took, 3),
        "attempts": entry.attempts,
    }


def batch_told(batch: Batch) -> dict[str, Any]:
    done = batch.ended.get(State.DONE, 0)
    return {
        "id": batch.id,
        "state": batch.state,
        "total": batch.total,
        "done": done,
        "failed": sum(batch.ended.values()) - done,
    }
