"""What kill -9 costs durable jobs: `python -m benchmarks.jobs_kill`.

Jobs are submitted and run while what serves them dies. Every job that was answered 202 must get one answer, its own,
which never changes; and a call may be made again only for a job whose call was in flight. Once the only service is
killed again and again, in the middle of everything, and started anew (SQLite); once one of two replicas is killed and
stays dead; once one of them is held still for longer than its lease and goes on then (both on one Redis, if there is a
`redis-server`). The API is the emulator, which tells what it received.
"""

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiohttp

from benchmarks.processes import emulated, service
from benchmarks.replicas import redis_server
from benchmarks.report import Check, Report, Size, Table, command
from proxy.jobs import State
from proxy.jobs.store import Store, opened

#: Seconds of a call, and how many of a service are in flight at most.
LATENCY, IN_FLIGHT = 0.2, 10
#: How many submit at once, and how many jobs may have been accepted and not begun.
SUBMITTING, AHEAD = 10, 100
#: Seconds between two looks, and for a whole run; if jobs are lost it may never end.
LOOK, PATIENCE = 0.02, 200.0
#: Seconds after which a replica's jobs are another's, where the product's own 30 are too long.
SHORT_LEASE = 5.0

Place = str | Path


class Served(Protocol):
    """A service that runs."""

    @property
    def pid(self) -> int: ...

    @property
    def url(self) -> str: ...


Start = Callable[[], AbstractContextManager[Served]]


class Ended(NamedTuple):
    """Which claim an answer was told for, and when; neither changes."""

    fence: int
    at: float | None


class Death(NamedTuple):
    """Calls in flight when a service died: to be paid for, and their answers are in no store.

    `broken` are those whose caller vanished, `unkept` those that had been answered a moment before.
    """

    broken: int
    unkept: int


@dataclass(frozen=True)
class Seen:
    """What came of it.

    Args:
        accepted: how many jobs were answered 202.
        lost: those of them that have no answer, or not their own.
        changed: answers that were others later.
        kept: how many jobs ended, also those whose 202 did not arrive.
        calls: how many the API received.
        deaths: what was in flight at each.
        seconds: from the first job to the last answer.
    """

    accepted: int
    lost: Collection[str]
    changed: Collection[str]
    kept: int
    calls: int
    deaths: Sequence[Death]
    seconds: float

    @property
    def repeated(self) -> int:
        """Calls beyond one for each job."""
        return self.calls - self.kept

    @property
    def in_flight(self) -> int:
        """At all the deaths."""
        return sum(map(sum, self.deaths))


# ---- Who asks the API, and who submits ----


@dataclass
class Api:
    """The emulator, as it is asked; `said` is the last call that it has told."""

    http: aiohttp.ClientSession
    url: str
    said: int = 0

    async def ask(self, path: str) -> Any:
        async with self.http.get(f"{self.url}/_emulator/{path}") as answer:
            return await answer.json()

    async def received(self) -> int:
        """How many calls."""
        return int((await self.ask("state"))["accepted"])

    async def has_received(self, calls: int) -> None:
        while await self.received() < calls:  # noqa: ASYNC110 - another process
            await asyncio.sleep(LOOK)

    async def is_quiet(self) -> None:
        """Until it has noticed who is gone."""
        while (await self.ask("state"))["in_flight"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(LOOK)

    async def new_calls(self) -> list[dict[str, Any]]:
        """Those since it was asked last."""
        calls: list[dict[str, Any]] = await self.ask(f"calls?path=/chat/completions&since={self.said}")
        self.said = max([self.said, *(call["n"] for call in calls)])
        return calls


@dataclass
class Submitter:
    """Brings jobs to those who serve, and knows which were accepted: `accepted` has the number of each by its id."""

    api: Api
    urls: list[str] = field(default_factory=list)
    accepted: dict[str, int] = field(default_factory=dict)

    async def submit(self, jobs: int) -> None:
        """Each of them until it is accepted; those who serve come and go."""
        numbers = iter(range(jobs))
        async with asyncio.TaskGroup() as group:
            for _ in range(SUBMITTING):
                group.create_task(self._insist(numbers))

    async def _insist(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            while not await self._is_taken(number):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(LOOK)

    async def _is_taken(self, number: int) -> bool:
        """False if nobody says so, or enough wait."""
        if len(self.accepted) - await self.api.received() > AHEAD or not self.urls:
            return False
        body = {"body": {"messages": [["user", f"Скажи: {number}"]], "generate_parameters": {}}}
        try:
            async with self.api.http.post(f"{self.urls[number % len(self.urls)]}/jobs", json=body) as answer:
                if answer.status == 202:
                    self.accepted[(await answer.json())["id"]] = number
                return answer.status == 202
        except aiohttp.ClientError:
            return False

    async def lost(self) -> list[str]:
        """The accepted jobs that do not get their own answers; all are waited for."""
        return [id for id, number in self.accepted.items() if await self._answer(id) != str(number)]

    async def _answer(self, id: str) -> str | None:
        while True:
            async with self.api.http.get(f"{self.urls[0]}/jobs/{id}/answer") as answer:
                if answer.status == 200:
                    return str((await answer.json())["data"]["choices"][0]["message"]["content"])
                if answer.status != 202:
                    return None
            await asyncio.sleep(LOOK)


# ---- Who takes stock ----


@dataclass
class Witness:
    """Looks at what is there while nobody runs anything."""

    api: Api
    place: Place
    ended: dict[str, Ended] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    calls: int = 0

    async def look(self) -> Death:
        """What somebody's death at this moment has left."""
        died = time.monotonic_ns()
        await self.api.is_quiet()
        ended = await self._answers()
        self.changed |= {id for id, before in self.ended.items() if ended.get(id) != before}
        self.ended |= ended
        calls = await self.api.new_calls()
        self.calls += len(calls)
        waiting = [call for call in calls if call["headers"]["x-request-id"] not in ended]
        return Death(
            broken=sum(call["disconnected"] for call in waiting),
            unkept=sum(not call["disconnected"] and call["finished_ns"] <= died for call in waiting),
        )

    async def _answers(self) -> dict[str, Ended]:
        async with looked_at(self.place) as store:
            page = await store.jobs.list(caller=None, states=[State.DONE], limit=100_000)
        return {job.id: Ended(job.fence, job.finished) for job in page.entries}


@asynccontextmanager
async def looked_at(place: Place) -> AsyncIterator[Store]:
    """The store as it was left. Of a file a copy is opened, so that the next service finds what the dead one left."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(place, Path):
            for file in place.parent.glob(f"{place.name}*"):
                shutil.copy2(file, folder)
            place = Path(folder) / place.name
        async with opened(place, is_shared=True) as store:
            yield store


# ---- What happens ----


class Ordeal:
    """One run before one API, with what `start` starts."""

    def __init__(self, http: aiohttp.ClientSession, api: str, start: Start, place: Place) -> None:
        self.api = Api(http, api)
        self.submitter = Submitter(self.api)
        self.witness = Witness(self.api, place)
        self._start = start

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Served]:
        """One that jobs are brought to while the block runs."""
        context = self._start()
        served = await asyncio.to_thread(context.__enter__)
        self.submitter.urls.append(served.url)
        try:
            yield served
        finally:
            if served.url in self.submitter.urls:
                self.submitter.urls.remove(served.url)
            await asyncio.to_thread(context.__exit__, None, None, None)

    @asynccontextmanager
    async def submitting(self, jobs: int) -> AsyncIterator["asyncio.Task[None]"]:
        """So many, while the block runs and after it; it ends with the block if it fails."""
        async with asyncio.TaskGroup() as group:
            yield group.create_task(self.submitter.submit(jobs))

    async def killed_often(self, jobs: int, moments: Sequence[int]) -> Seen:
        """`moments` are numbers of calls, at which the only service is killed."""
        began, deaths = time.monotonic(), []
        async with self.submitting(jobs) as submitting:
            for moment in moments:
                async with self.service() as served:
                    await self.api.has_received(moment)
                    os.kill(served.pid, signal.SIGKILL)
                deaths.append(await self.witness.look())
            async with self.service():
                await submitting
                lost, ended = await self.submitter.lost(), time.monotonic()
        return await self._seen(lost, deaths, ended - began)

    async def one_killed(self, jobs: int, moment: int) -> Seen:
        """One of two replicas, which stays dead."""
        began = time.monotonic()
        async with self.service() as survivor, AsyncExitStack() as short:
            victim = await short.enter_async_context(self.service())
            async with self.submitting(jobs):
                await self.api.has_received(moment)
                os.kill(survivor.pid, signal.SIGSTOP)  # so that nothing happens while stock is taken
                os.kill(victim.pid, signal.SIGKILL)
                await short.aclose()
                death = await self.witness.look()
                os.kill(survivor.pid, signal.SIGCONT)
            lost, ended = await self.submitter.lost(), time.monotonic()
        return await self._seen(lost, [death], ended - began)

    async def one_held(self, jobs: int, moment: int) -> Seen:
        """One of two replicas, until the other has run everything."""
        began = time.monotonic()
        async with self.service(), self.service() as victim:
            self.submitter.urls.remove(victim.url)  # what it were brought would wait as long as it does
            async with self.submitting(jobs):
                await self.api.has_received(moment)
                os.kill(victim.pid, signal.SIGSTOP)
            lost, ended = await self.submitter.lost(), time.monotonic()
            await self.witness.look()
            os.kill(victim.pid, signal.SIGCONT)
        # Nobody can tell how many of the calls were its own.
        return await self._seen(lost, [Death(broken=IN_FLIGHT, unkept=0)], ended - began)

    async def _seen(self, lost: Collection[str], deaths: Sequence[Death], seconds: float) -> Seen:
        """When all have stopped in order."""
        await self.witness.look()
        accepted, kept = len(self.submitter.accepted), len(self.witness.ended)
        return Seen(accepted, lost, self.witness.changed, kept, self.witness.calls, deaths, seconds)


@asynccontextmanager
async def ordeal(api: str, start: Start, place: Place) -> AsyncIterator[Ordeal]:
    """Raises TimeoutError if it never ends."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Ordeal(http, api, start, place)


def moments(jobs: int, kills: int, seed: int) -> list[int]:
    """Numbers of calls at which to kill, at random: two may be close together, and the first life short."""
    return sorted(random.Random(seed).sample(range(jobs), kills))


# ---- What is measured ----


@dataclass(frozen=True)
class Case:
    name: str
    jobs: int
    happens: Callable[[Ordeal], Awaitable[Seen]]
    is_shared: bool = False


def cases(size: Size) -> Iterator[Case]:
    many, kills = int(size.pick(1000, 300, 30)), int(size.pick(8, 3, 2))
    few = int(size.pick(400, 200, 40))
    when = moments(many, kills, seed=7)
    yield Case(f"SQLite, {kills} kills", many, lambda run: run.killed_often(many, when))
    if shutil.which("redis-server") is not None:
        yield Case("Redis, one of two killed", few, lambda run: run.one_killed(few, few // 3), is_shared=True)
        yield Case("Redis, one of two held", few, lambda run: run.one_held(few, few // 3), is_shared=True)


def run(size: Size) -> Report:
    lease = None if size is Size.FULL else SHORT_LEASE
    checks: list[Check] = []
    rows: list[Sequence[str]] = []
    for case in cases(size):
        seen = measured(case, lease)
        checks += judged(case, seen)
        rows.append(row(case, seen))
    return Report("jobs_kill", checks, [Table("one run each", COLUMNS, rows)])


def measured(case: Case, lease: float | None) -> Seen:
    with ExitStack() as stack:
        api = stack.enter_context(emulated(LATENCY))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place = (
            stack.enter_context(redis_server("--appendonly", "yes")).url if case.is_shared else folder / "jobs.sqlite"
        )
        knobs = {"jobs_url": str(place), "ext_max_requests": IN_FLIGHT, "drain_timeout": 10}
        start = partial(service, api, lease, gigachat_auth_url=f"{api.url}/api/v2/oauth", **knobs)
        return asyncio.run(happened(case, api.url, start, place))


async def happened(case: Case, api: str, start: Start, place: Place) -> Seen:
    async with ordeal(api, start, place) as run:
        return await case.happens(run)


def judged(case: Case, seen: Seen) -> list[Check]:
    return [
        Check(f"{case.name}: accepted jobs without their answer", len(seen.lost), most=0),
        Check(f"{case.name}: answers that changed", len(seen.changed), most=0),
        Check(f"{case.name}: calls repeated beyond those in flight", max(0, seen.repeated - seen.in_flight), most=0),
    ]


COLUMNS = ("case", "accepted", "answered", "calls", "repeated", "in flight at each death", "seconds")


def row(case: Case, seen: Seen) -> Sequence[str]:
    return (
        case.name,
        str(seen.accepted),
        str(seen.accepted - len(seen.lost)),
        str(seen.calls),
        str(seen.repeated),
        " ".join(f"{broken}+{unkept}" for broken, unkept in seen.deaths),
        f"{seen.seconds:.0f}",
    )


if __name__ == "__main__":
    command(run)
