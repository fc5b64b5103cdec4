"""The service at a glance, for the dashboard: how it is now, and how it was in the last hour.

Rule 1: what happens is counted as it happens, by an addition or two; a sample a second is kept of it.
Rule 2: what takes longer is made once a second for all who look, and not at all while nobody does.
Rule 3: who reads slowly misses some of it and holds up nobody.
Rule 4: nothing here waits for another service: what it takes time to find out is told when it is known.
"""

import asyncio
import logging
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from proxy import sse
from proxy.attempt import Attempted
from proxy.dialects import dashboard as told
from proxy.dialects.dashboard import About as About
from proxy.entry import Entry
from proxy.info import Balances
from proxy.jobs.store import Store
from proxy.known import Known
from proxy.lanes import Lane, Lanes
from proxy.limits.fleet import Fleet, LaneReport, Report
from proxy.metrics import PASSED
from proxy.recent import HOUR, MINUTE, Hour, Sample, Tallies, Times
from proxy.request import Story
from proxy.series import Sends

log = logging.getLogger("proxy.overview")

#: Seconds over which the callers' shares are told.
FIVE_MINUTES = 300
#: Requests whose story is told, those that are listed while they wait, batches, lanes.
STORIES, LISTED, BATCHES, LANES = 50, 30, 8, 20
#: Seconds between two looks at the store of jobs, and that one is waited for.
JOBS_AGE, PATIENCE = 3.0, 0.3
#: Who left before it was answered.
LEFT = "left"
#: A part of the second: sleeping to a whole one may end a little early.
TICK = 0.001
#: Why a lane pauses: what the API answered to a call, to a request for a token, or to somebody else.
CALL_REFUSED, TOKEN_REFUSED, ELSEWHERE = "upstream 429", "token 429", "429 elsewhere"
#: Seconds for which a 429 is told though its pause is over, and by which it may come before its pause is known.
SLACK = 2.0


class Looks(NamedTuple):
    """What is told of jobs; None: there is no store, or it is away."""

    jobs: Mapping[str, Any] | None = None
    batches: Iterable[Mapping[str, Any]] = ()


class LaneWatch:
    """What happens in the lines of one lane: a listener and an observer of each."""

    def __init__(self, overview: "Overview") -> None:
        self._overview = overview
        self.sends = Sends()
        self.tokens = Tallies(HOUR, 60)
        #: What the last 429 answered, and when it came (monotonic seconds).
        self.refused = ELSEWHERE, -math.inf

    def __call__(self, story: Story) -> None:
        """A request has left the line."""
        self._overview.retried(max(0, story.attempts - 1))
        if story.usage is not None:
            self.tokens.add("in", story.usage.prompt_tokens)
            self.tokens.add("out", story.usage.completion_tokens)

    def sent(self, at: float) -> None:
        self.sends.add(at)

    def attempted(self, attempt: Attempted) -> None:
        """A call is over."""
        if attempt.status == 429:
            self.refused = TOKEN_REFUSED if attempt.took is None else CALL_REFUSED, time.monotonic()
        elif attempt.status is not None and attempt.status < 400 and attempt.took is not None:
            self._overview.called(attempt.took)


class Overview:
    """A listener of the edge; `of_lane` watches the lines.

    Args:
        fleet: the replicas that share the main lane's account.
    """

    def __init__(self, about: About, fleet: Fleet) -> None:
        self._about = about
        self._fleet = fleet
        self._lanes: Lanes
        self._started = time.time()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._watches: dict[str, LaneWatch] = {}
        #: When a lane of our own was last seen not to pause (monotonic seconds).
        self._calm: dict[str, float] = {}
        self._hour = Hour()
        self._running = Sample(int(time.time()))
        self._waits, self._calls = Times(), Times()
        self._statuses, self._callers = Tallies(HOUR, 60), Tallies(FIVE_MINUTES, 30)
        self._last: deque[Entry] = deque(maxlen=STORIES)
        self._balances = Balances()
        self._looks: Known[Looks] | None = None
        #: How many look.
        self.watchers = 0
        self._told = b""
        self._news = asyncio.Event()
        self._is_over = False
        self._beating: asyncio.Task[None] | None = None

    # -- what happens

    def __call__(self, entry: Entry) -> None:
        """A request is over."""
        if not entry.lane or entry.is_double:
            return  # it never came to a line, or another entry tells of it
        self._last.appendleft(entry)
        self._callers.add(entry.caller)
        self._statuses.add(LEFT if entry.status is None else str(entry.status))
        if entry.attempts:
            self._waits.add(entry.waited)
        if entry.status is not None and entry.status < 400:
            self._running.ok += 1
        else:
            self._running.failed += 1

    def of_lane(self, lane: str) -> LaneWatch:
        """The listener and observer of a line; lines of one lane are watched together."""
        if lane not in self._watches:
            self._watches[lane] = LaneWatch(self)
        return self._watches[lane]

    def retried(self, times: int) -> None:
        self._running.retried += times

    def called(self, seconds: float) -> None:
        """The API has answered a call."""
        self._calls.add(seconds)

    # -- start and stop

    def start(self, lanes: Lanes, store: Store | None) -> None:
        """Begin to keep samples. Without a store nothing is told of jobs."""
        self._lanes = lanes
        if store is not None:
            self._looks = Known(lambda: looked(store), Looks(), age=JOBS_AGE)
        self._fleet.start(self._report)
        self._beating = asyncio.create_task(self._beat())

    async def stop(self, app: web.Application) -> None:
        """End all streams: the service stops."""
        self._is_over = True
        self._tell(b"")
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
            await asyncio.gather(self._fleet.close(), self._balances.close())
        if self._looks is not None:
            await self._looks.close()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: `history` once, then `now` every second."""
        self.watchers += 1
        try:
            yield event("history", self._hour.columns())
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
        reports = [self._report(), *self._others()]
        lanes = [lane for report in reports for lane in report.lanes.values()]
        sample.t = self._running.t
        sample.waiting = sum(lane.waiting for lane in lanes)
        sample.in_flight = sum(lane.in_flight for lane in lanes)
        sample.used = self._used(self._lanes.main)
        sample.wait50, sample.wait95 = self._waits.shares(0.5, 0.95)
        sample.call50, sample.call95 = self._calls.shares(0.5, 0.95)
        self._hour.add(sample)
        for lane in self._own():
            if not lane.line.state().limits.paused:
                self._calm[lane.name] = time.monotonic()

    # -- replicas

    def _report(self) -> Report:
        """What this process tells of itself. Callers' own accounts are told together."""
        named = {lane.name: [lane] for lane in self._own()}
        if passed := self._passed():
            named[PASSED] = passed
        lanes = {name: self._lane_report(name, group) for name, group in named.items()}
        return Report(self._name, round(time.time() - self._started, 3), lanes)

    def _lane_report(self, name: str, lanes: Iterable[Lane]) -> LaneReport:
        lines = [lane.line for lane in lanes if not lane.line.is_idle]  # of hundreds, a few are in use
        waiting = sum(line.state().waiting for line in lines)
        return LaneReport(waiting, sum(line.in_flight for line in lines), self.of_lane(name).sends.last_minute())

    def _others(self) -> list[Report]:
        return [each.report for each in self._fleet.others() if not each.is_silent]

    def _own(self) -> list[Lane]:
        return list(dict.fromkeys([self._lanes.main, *self._lanes.others.values()]))

    def _passed(self) -> list[Lane]:
        own = self._own()
        return [lane for lane in self._lanes.all() if lane not in own]

    def _used(self, lane: Lane) -> float | None:
        """The share of a lane's rate that all replicas used in the last minute, or since the start."""
        rpm = lane.line.state().limits.rpm
        if rpm is None or lane.name not in self._watches:
            return None
        others = self._others()
        sent = self._watches[lane.name].sends.last_minute()
        sent += sum(report.lanes[lane.name].sent for report in others if lane.name in report.lanes)
        age = max(time.time() - self._started, *(report.age for report in others), 1.0)
        return round(min(1.0, sent / max(1.0, rpm * min(1.0, age / MINUTE))), 4)

    # -- what is told

    async def _now(self) -> dict[str, Any]:
        total, waiting = await self._waiting()
        callers = await self._waiting_by_caller()
        looks = await self._looked()
        main = self._lanes.main
        rpm, others = main.line.state().limits.rpm, self._fleet.others()
        return {
            "at": time.time(),
            "app": told.about_told(self._about, self._started),
            "lanes": [self._lane_told(lane) for lane in self._shown()],
            "replicas": told.replicas_told(self._report(), others, main.name, rpm),
            "sample": {name: getattr(self._hour.last, name) for name in Sample.__slots__},
            "hour": self._hour.sums,
            "callers": told.callers_told(self._callers.all(), callers),
            "statuses": self._statuses.all(),
            "waiting": {"total": total, "requests": waiting},
            "last": [told.entry_told(entry) for entry in self._last],
            "jobs": looks.jobs,
            "batches": looks.batches,
        }

    def _shown(self) -> list[Lane]:
        """Our own, and of the callers' accounts those where most is going on."""
        passed = sorted(self._passed(), key=lambda lane: (lane.line.is_idle, -lane.line.in_flight))
        return [*self._own(), *passed][:LANES]

    async def _waiting(self) -> tuple[int, list[dict[str, Any]]]:
        """How many wait, and those who go first."""
        total, first = 0, []
        for lane in self._lanes.all():
            if not lane.line.is_idle:
                number, standings = await lane.line.places.waiting(None, LISTED)
                total += number
                first += [told.standing_told(standing, lane) for standing in standings]
        # Nobody knows when those of a lane that is held will go, nor those between two attempts.
        first.sort(key=lambda each: (each["eta"] is None, each["eta"] or 0.0))
        return total, first[:LISTED]

    async def _looked(self) -> Looks:
        if self._looks is None:
            return Looks()
        looks = await self._looks.found(PATIENCE)
        return Looks() if self._looks.has_failed else looks

    async def _waiting_by_caller(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for lane in self._lanes.all():
            total.update(await lane.line.places.callers())
        return total

    def _lane_told(self, lane: Lane) -> dict[str, Any]:
        is_own = lane.name in self._watches
        watch = self.of_lane(lane.name if is_own else PASSED)
        # What one of the callers' accounts spends is not counted by itself.
        tokens = watch.tokens.all() if is_own else Counter[str]()
        spending = told.Spending(self._used(lane), tokens, self._balances.of(lane) if is_own else {})
        return told.lane_told(lane, spending, self._reason(lane, watch))

    def _reason(self, lane: Lane, watch: LaneWatch) -> str | None:
        """Why it pauses, or did a moment ago: short pauses would be missed."""
        reason, at = watch.refused
        if lane.line.state().limits.paused:
            return reason if at >= self._calm.get(lane.name, 0.0) - SLACK else ELSEWHERE
        return reason if lane.name in self._watches and at >= time.monotonic() - SLACK else None


async def looked(store: Store) -> Looks:
    """Raises ProxyError: the store is away."""
    batches = (await store.batches.list(caller=None, limit=BATCHES)).entries
    return Looks((await store.jobs.state())._asdict(), [told.batch_told(batch) for batch in batches])


def event(name: str, data: Mapping[str, Any]) -> bytes:
    return sse.encode(orjson.dumps(data), name.encode())
