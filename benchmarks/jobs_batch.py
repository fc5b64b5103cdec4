"""What a batch of 50,000 lines costs who is there beside it: `python -m benchmarks.jobs_batch`.

Waits: live requests come at random, at six tenths of what the API takes; first alone, then with a batch behind them,
and both times at the same moments. The service says how long each waited (X-Queue-Wait-Ms). A batch's call that has
just been sent is one call more before them, and while live requests always wait, one call in twenty is a batch's.
Memory: what the service holds before, while and after it runs as many lines of one batch, or jobs that come one by one.
"""

import asyncio
import json
import random
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import accumulate, count, pairwise, takewhile
from statistics import median
from typing import Any

import aiohttp

from benchmarks.load import BODY, Load
from benchmarks.processes import Process, emulated, run_load, service, upstream
from benchmarks.report import Check, Report, Size, Table, command, differences

#: Seconds of an API's turn: between two calls, or in flight one after the other; and how much of it live requests take.
TURN, LIVE = 0.05, 0.6
#: Live requests for one of a batch, while both wait.
RUN = 19
#: Callers that bring jobs, and seconds between two looks.
CALLERS, LOOK = 32, 0.05
#: Seconds in which nothing is waited for any more.
PATIENCE = 900.0


# ---- A batch, as OpenAI's clients bring it ----


def line(number: int) -> str:
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": f"Сколько будет {number} + 1?"}]}
    return json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": body})


async def brought(http: aiohttp.ClientSession, url: str, lines: int) -> str:
    """The id of a batch of so many lines."""
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", "\n".join(map(line, range(lines))).encode(), filename="lines.jsonl")
    file = await told(http.post(f"{url}/v1/files", data=form))
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str((await told(http.post(f"{url}/v1/batches", json=wanted)))["id"])


async def told(request: Any) -> Any:
    """The JSON of an answer. Raises RuntimeError with what it says if it is a refusal."""
    async with request as answer:
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status}: {await answer.text()}")
        return await answer.json()


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


# ---- How long live requests wait ----


@dataclass(frozen=True)
class Limit:
    """What makes requests wait: a pace, or one call at a time."""

    name: str
    latency: float
    knobs: dict[str, object]


PACED = Limit("paced", 0.0, {"ext_api_rpm": 60 / TURN})
ONE = Limit("one at a time", TURN, {"ext_max_requests": 1})


@dataclass(frozen=True)
class Waits:
    """In ms, request by request, in order; `rule` is what they are at least with a batch, `turn` seconds."""

    turn: float
    alone: Sequence[float]
    behind: Sequence[float]
    rule: Sequence[float]

    @property
    def added(self) -> Sequence[float]:
        return differences(self.behind, self.alone)


@contextmanager
def limited(limit: Limit) -> Iterator[tuple[Process, Process]]:
    """An API, and the service before it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream(limit.latency) as api,
        service(api, jobs_url=f"{folder}/jobs.sqlite", **limit.knobs) as ours,
    ):
        yield api, ours


async def compared(url: str, seconds: float, lines: int) -> Waits:
    """The batch is still there afterwards."""
    async with client() as http:
        await asyncio.gather(*[wait_of(http, url, 0) for _ in range(CALLERS)])  # connections and a token are there
        turn = max(await asyncio.gather(*[wait_of(http, url, 0) for _ in range(CALLERS)])) / 1000 / (CALLERS - 1)
        alone = await live(http, url, seconds)
        batch = await brought(http, url, lines)
        while not (await told(http.get(f"{url}/v1/batches/{batch}")))["request_counts"]["completed"]:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        return Waits(turn, alone, await live(http, url, seconds), by_the_rule(seconds, turn))


async def live(http: aiohttp.ClientSession, url: str, seconds: float) -> list[float]:
    """The waits of requests that come at these moments."""
    return await asyncio.gather(*[wait_of(http, url, moment) for moment in moments(seconds)])


def moments(seconds: float) -> Iterator[float]:
    """At random, but always the same."""
    chance = random.Random(1)
    return takewhile(lambda at: at < seconds, accumulate(chance.expovariate(LIVE / TURN) for _ in count()))


def by_the_rule(seconds: float, turn: float) -> list[float]:
    """Their waits in ms if turn follows turn, and one in twenty is the batch's, and whatever nobody else wants."""
    coming, waits, at, run = deque(moments(seconds)), [], 0.0, 0
    while coming:
        if coming[0] <= at and run < RUN:
            waits.append(1000 * (at - coming.popleft()))
            run += 1
        else:
            run = 0
        at += turn
    return waits


async def wait_of(http: aiohttp.ClientSession, url: str, delay: float) -> float:
    await asyncio.sleep(delay)
    async with http.post(url, data=BODY, headers={"Content-Type": "application/json"}) as answer:
        answer.raise_for_status()
        return float(answer.headers["X-Queue-Wait-Ms"])


def share_of_batch(api: Process, ours: Process, requests: int) -> float:
    """Of the evenly paced calls, in percent, from the first to the last of so many live requests that come at once.

    A gap of two turns between two of them is where a call of the batch's was.
    """
    api.ask("/calls")
    run_load(Load(ours.url, requests, PATIENCE, is_once=True))
    stamps = sorted(call["at"] for call in api.ask("/calls"))
    turns: int = sum(max(1, round((later - earlier) / TURN)) for earlier, later in pairwise(stamps))
    return 100 * (1 - (requests - 1) / turns)


# ---- What it weighs ----


@dataclass(frozen=True)
class Weight:
    """MB before, at most while it runs, and after; seconds to the first call, until all is accepted, and to the end."""

    name: str
    before: float
    most: float
    after: float
    first: float
    accepted: float
    end: float


Bring = Callable[[aiohttp.ClientSession, str, int], Awaitable[Callable[[], Awaitable[bool]]]]


async def one_batch(http: aiohttp.ClientSession, url: str, lines: int) -> Callable[[], Awaitable[bool]]:
    batch = await brought(http, url, lines)

    async def is_over() -> bool:
        return bool((await told(http.get(f"{url}/v1/batches/{batch}")))["status"] == "completed")

    return is_over


async def one_by_one(http: aiohttp.ClientSession, url: str, jobs: int) -> Callable[[], Awaitable[bool]]:
    body, left = {"body": json.loads(BODY)}, iter(range(jobs))

    async def bring() -> None:
        for _ in left:
            await told(http.post(f"{url}/jobs", json=body))

    await asyncio.gather(*[bring() for _ in range(CALLERS)])

    async def is_over() -> bool:
        return not (await told(http.get(f"{url}/jobs?state=queued,running&limit=1")))["data"]

    return is_over


def weighed(name: str, bring: Bring, count: int) -> Weight:
    with tempfile.TemporaryDirectory() as folder, emulated() as api:
        knobs = {"jobs_url": f"{folder}/jobs.sqlite", "gigachat_auth_url": f"{api.url}/api/v2/oauth"}
        with service(api, **knobs) as ours:
            return asyncio.run(weigh(name, bring, count, api.url, ours))


async def weigh(name: str, bring: Bring, count: int, api: str, ours: Process) -> Weight:
    async with client() as http:
        await wait_of(http, ours.url, 0)  # whatever is made at the first request is made now
        before, began = ours.rss() / 1024, time.monotonic()
        watch = Watch(http, api, ours)
        watching = asyncio.create_task(watch.go_on())
        is_over = await bring(http, ours.url, count)
        accepted = time.monotonic() - began
        while not await is_over():  # noqa: ASYNC110 - another process
            await asyncio.sleep(LOOK)
        end = time.monotonic() - began
        watching.cancel()
        first = watch.first - began
        return Weight(name, before, watch.most, ours.rss() / 1024, first, accepted, end)


@dataclass
class Watch:
    """Looks at the service while it runs: MB at most, and when the first call came to the API."""

    http: aiohttp.ClientSession
    api: str
    ours: Process
    most: float = 0.0
    first: float = 0.0

    async def go_on(self) -> None:
        before = await self._calls()
        while True:
            self.most = max(self.most, self.ours.rss() / 1024)
            if not self.first and await self._calls() > before:
                self.first = time.monotonic()
            await asyncio.sleep(LOOK)

    async def _calls(self) -> int:
        return int((await told(self.http.get(f"{self.api}/_emulator/state")))["accepted"])


# ---- All of it ----


def run(size: Size) -> Report:
    lines, seconds, rush = int(size.pick(50_000, 2_000, 100)), size.pick(60, 6, 2), int(size.pick(400, 80, 20))
    waits = {}
    with limited(PACED) as (api, ours):
        waits[PACED.name] = asyncio.run(compared(ours.url, seconds, lines))
        share = share_of_batch(api, ours, rush)
    with limited(ONE) as (_, ours):
        waits[ONE.name] = asyncio.run(compared(ours.url, seconds, lines))
    weights = [
        weighed(f"a batch of {lines} lines", one_batch, lines),
        weighed(f"{lines} jobs one by one", one_by_one, lines),
    ]
    # The first and the last of those that rush in need not be the first and the last of their twenty.
    bound = 100 * (1 + rush / RUN) / rush
    checks = [Check("while live requests always wait: % of the calls that are the batch's", share, most=bound)]
    return report(waits, checks, weights)


def report(waits: Mapping[str, Waits], checks: Sequence[Check], weights: Sequence[Weight]) -> Report:
    checks = [*(check for name, each in waits.items() for check in judged(name, each)), *checks]
    checks += [Check(f"{one.name}: MB more at most", one.most - one.before, most=100) for one in weights]
    checks.append(Check(f"{weights[0].name}: seconds to the first call", weights[0].first, most=10))
    waited = Table("ms that live requests wait", WAITS, [row(name, each) for name, each in waits.items()])
    weighed = Table("what the service holds, and how long it takes", WEIGHTS, [weight_row(one) for one in weights])
    return Report("jobs_batch", checks, [waited, weighed])


def judged(name: str, waits: Waits) -> list[Check]:
    """Half of the requests find the call of the batch's that has just been sent, and wait for less than its turn."""
    alone, behind = quantiles(waits.alone), quantiles(waits.behind)
    return [
        Check(f"{name}: p50 of the wait, with a batch / alone", behind[0] / max(alone[0], 1)),
        Check(f"{name}: p99 of the wait, with a batch / alone", behind[1] / max(alone[1], 1)),
        Check(f"{name}: turns more that a request waits, median", median(waits.added) / 1000 / waits.turn, most=1),
        Check(f"{name}: p99 of the wait, with a batch / by the rule", behind[1] / quantiles(waits.rule)[1], most=1.2),
    ]


def quantiles(values: Sequence[float]) -> tuple[float, float]:
    """p50 and p99."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


WAITS = ("limit", "requests", "p50 alone", "with a batch", "by the rule", "p99 alone", "with a batch", "by the rule")


def row(name: str, waits: Waits) -> Sequence[str]:
    each = zip(*map(quantiles, (waits.alone, waits.behind, waits.rule)), strict=True)
    return name, str(len(waits.alone)), *[f"{value:.0f}" for group in each for value in group]


WEIGHTS = ("what", "MB before", "at most", "after", "s to the first call", "s until accepted", "s to the end")


def weight_row(weight: Weight) -> Sequence[str]:
    sizes = [f"{value:.0f}" for value in (weight.before, weight.most, weight.after)]
    return weight.name, *sizes, f"{weight.first:.1f}", f"{weight.accepted:.1f}", f"{weight.end:.0f}"


if __name__ == "__main__":
    command(run)
