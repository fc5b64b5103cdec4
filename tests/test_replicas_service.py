"""Three replicas as people run them: processes on one real Redis, before one API. Together they keep one limit."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from processes import Process, copy_tree, launch
from redis_server import RedisServer, missing
from running import chat

import emulator
from benchmarks.processes import upstream

RPM = 600
INTERVAL = 60 / RPM
REPLICAS = 3
#: Seconds in which everything is over; far more than it takes.
PATIENCE = 60.0
#: The status of a request whose connection broke, or was refused.
LOST = 0


# ---- What is started ----


@dataclass
class Witness:
    """The API of the benchmarks: the kernel tells it when a call came, so that no busy loop blurs it."""

    url: str
    tell: Callable[[], list[dict[str, Any]]]
    calls: list[dict[str, Any]] = field(default_factory=list)

    async def look(self) -> None:
        self.calls += await asyncio.to_thread(self.tell)
        self.calls.sort(key=lambda call: float(call["at"]))

    async def received(self, number: int) -> None:
        """Until so many calls have come."""
        async with asyncio.timeout(PATIENCE):
            while len(self.calls) < number:
                await self.look()
                await asyncio.sleep(0.02)

    @property
    def numbers(self) -> list[int]:
        """Which requests came, in their order."""
        return [call["number"] for call in self.calls]

    def was_called_evenly(self) -> bool:
        """No gap is short; a busy machine may take a process off its core between a look at the clock and a send."""
        stamps = [call["at"] for call in self.calls]
        gaps = sorted(later - earlier for earlier, later in pairwise(stamps))
        return gaps[0] > INTERVAL / 2 and gaps[len(gaps) // 20] >= 0.99 * INTERVAL


@dataclass
class Fleet:
    """The replicas, and a client of all of them."""

    replicas: Sequence[Process]
    redis: RedisServer
    http: aiohttp.ClientSession

    async def ask(self, number: int, replica: int | None = None, **parameters: Any) -> int:
        """The status of one request; its number says which replica, if nothing else does."""
        url = self.replicas[number % REPLICAS if replica is None else replica].url
        try:
            body, headers = chat(str(number), **parameters), {"X-Request-ID": str(number)}
            async with self.http.post(url, json=body, headers=headers) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientError:
            return LOST

    def ask_all(self, number: int, **parameters: Any) -> list[asyncio.Task[int]]:
        return [asyncio.create_task(self.ask(n, **parameters)) for n in range(number)]

    async def insist(self, number: int) -> list[int]:
        """As a caller behind a balancer does: what is no answer is asked again, elsewhere. All the statuses."""
        told = [await self.ask(number)]
        while told[-1] in {LOST, 503} and len(told) <= REPLICAS:
            told.append(await self.ask(number, (number + len(told)) % REPLICAS))
        return told

    async def ready(self, replica: int) -> tuple[int, dict[str, Any]]:
        async with self.http.get(f"{self.replicas[replica].url}/ready") as answer:
            return answer.status, await answer.json()

    async def until_all(self, is_so: Callable[[str], bool]) -> None:
        """Until what `/ready` says of the limits is so everywhere."""
        async with asyncio.timeout(PATIENCE):
            for replica in range(REPLICAS):
                while not is_so((await self.ready(replica))[1]["trouble"] or ""):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)


StartFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
async def start_fleet(tree: Path, tmp_path: Path) -> AsyncIterator[StartFleet]:
    """`await start_fleet(url, EXT_API_RPM="600")`: a Redis, and three replicas that call the API at this address."""
    if shutil.which("redis-server") is None:
        missing()
    async with AsyncExitStack() as stack:

        async def start(api: str, token: str = "/api/v2/oauth", **env: str) -> Fleet:
            redis = RedisServer(tmp_path / "redis")
            stack.callback(redis.stop)
            await asyncio.to_thread(redis.start)
            settings = {
                "GIGACHAT_API_KEY": "a-key",
                "GIGACHAT_BASE_URL": f"{api}/v1",
                "GIGACHAT_AUTH_URL": api + token,
                "REDIS_URL": redis.url,
                **env,
            }
            replicas = [launch(tree, tmp_path / f"log{n}", env=settings) for n in range(REPLICAS)]
            for replica in replicas:
                stack.callback(end, replica)
            for replica in replicas:
                await asyncio.to_thread(replica.wait_until_it_listens)
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            fleet = Fleet(replicas, redis, http)
            await asyncio.gather(*(fleet.ask(n) for n in range(REPLICAS)))  # connections and tokens are there
            return fleet

        yield start


def end(replica: Process) -> None:
    if replica.process.poll() is None:
        replica.process.kill()
    replica.wait()


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    with upstream(latency=0.05) as api:
        yield Witness(api.url, lambda: list(api.ask("/calls")))


@pytest.fixture
async def paced(start_fleet: StartFleet, witness: Witness) -> Fleet:
    """600 a minute in all; what came before the test does not count."""
    fleet = await start_fleet(witness.url, token="/oauth", EXT_API_RPM=str(RPM), EXT_MAX_REQUESTS="10")
    await witness.look()
    witness.calls.clear()
    return fleet


async def statuses(asking: Sequence[asyncio.Task[int]]) -> list[int]:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*asking)


# ---- Pace ----


async def test_three_replicas_keep_one_pace_and_take_turns(paced: Fleet, witness: Witness) -> None:
    """A hundred milliseconds between any two calls, whoever makes them, and nobody is left behind."""
    asked = 60
    assert set(await statuses(paced.ask_all(asked))) == {200}
    await witness.look()
    assert sorted(witness.numbers) == list(range(asked))
    assert witness.was_called_evenly()
    for start in range(0, asked, 15):
        turns = Counter(number % REPLICAS for number in witness.numbers[start : start + 15])
        assert min(turns[replica] for replica in range(REPLICAS)) >= 3


async def test_one_killed_loses_only_what_it_held(paced: Fleet, witness: Witness) -> None:
    """-9 in the middle: the others go on in the same pace, and answer all that was asked of them."""
    asking = paced.ask_all(60)
    await witness.received(15)
    paced.replicas[0].process.kill()
    told = await statuses(asking)
    await witness.look()
    assert {status for number, status in enumerate(told) if number % REPLICAS} == {200}
    assert 0 < told.count(LOST) == sum(status != 200 for status in told)
    assert witness.was_called_evenly()
    assert len(witness.numbers) == len(set(witness.numbers))


async def test_a_redis_that_comes_back_empty_loses_no_request(paced: Fleet, witness: Witness) -> None:
    """Nor is the pace broken: nobody sends while it is away, nor before all have told what they hold."""
    asking = paced.ask_all(60)
    await witness.received(15)
    await asyncio.to_thread(paced.redis.restart)
    assert set(await statuses(asking)) == {200}
    await witness.look()
    assert sorted(witness.numbers) == list(range(60))
    assert witness.was_called_evenly()


async def test_one_that_is_stopped_under_load_costs_nobody_an_answer(paced: Fleet, witness: Witness) -> None:
    """SIGTERM: it answers who waits, refuses newcomers in a way that a retry mends, and leaves; the pace holds."""
    asking = [asyncio.create_task(paced.insist(number)) for number in range(45)]
    await witness.received(12)
    paced.replicas[0].signal()
    later = []
    for number in range(45, 75):
        later.append(asyncio.create_task(paced.insist(number)))
        await asyncio.sleep(INTERVAL)
    async with asyncio.timeout(PATIENCE):
        first, newcomers = await asyncio.gather(*asking), await asyncio.gather(*later)
        assert await paced.replicas[0].gone() == 0
    assert first == [[200]] * 45
    assert {told[-1] for told in newcomers} == {200}
    assert any(len(told) > 1 for told in newcomers)
    await witness.look()
    assert sorted(witness.numbers) == list(range(75))
    assert witness.was_called_evenly()


# ---- In flight ----


async def test_with_one_in_flight_three_replicas_never_have_two(start_fleet: StartFleet) -> None:
    """By the API's own record, plain calls and streams alike; each replica has its turn all the same."""
    async with emulator.start(emulator.Options(latency=0.02, chunk_delay=0.01)) as giga:
        fleet = await start_fleet(giga.url, EXT_MAX_REQUESTS="1")
        giga.state.calls.clear()
        asking = [*fleet.ask_all(30), *fleet.ask_all(30, stream=True)]
        assert set(await statuses(asking)) == {200}
        calls = giga.state.calls.to("/chat/completions")
    assert [call.in_flight for call in calls] == [1] * 60
    turns = Counter(int(call.json()["messages"][-1]["content"]) % REPLICAS for call in calls[:15])
    assert min(turns[replica] for replica in range(REPLICAS)) >= 3


# ---- The API's 429 ----


async def test_a_429_that_one_replica_sees_pauses_all(start_fleet: StartFleet) -> None:
    """Nobody calls for as long as the API asks; then all are answered."""
    async with emulator.start() as giga:
        fleet = await start_fleet(giga.url, EXT_API_RPM=str(RPM), EXT_MAX_REQUESTS="10")
        giga.state.faults.add({"kind": "429", "retry_after": 1.5})
        assert set(await statuses(fleet.ask_all(12))) == {200}
        calls = giga.state.calls.to("/chat/completions")[REPLICAS:]
    (refused,) = [call for call in calls if call.status == 429]
    later = [call.arrived_ns for call in calls if call.arrived_ns > refused.finished_ns]
    assert len(later) == 12
    assert min(later) - refused.finished_ns > 1.4e9


# ---- What probes are told ----


async def test_ready_tells_of_redis_and_of_the_stop(start_fleet: StartFleet) -> None:
    """Away: still 200, since who asks is let wait, with the reason; back: no trouble; stopping: 503."""
    async with emulator.start() as giga:
        fleet = await start_fleet(giga.url, REDIS_GRACE="0.3", REDIS_FALLBACK="closed", EXT_MAX_REQUESTS="1")
        assert [await fleet.ready(n) for n in range(REPLICAS)] == [(200, {"status": "ready", "trouble": None})] * 3
        fleet.redis.kill()
        asking = fleet.ask_all(REPLICAS)
        await fleet.until_all(lambda trouble: "REDIS_FALLBACK=closed holds" in trouble)
        assert {(await fleet.ready(n))[0] for n in range(REPLICAS)} == {200}
        assert not any(call.done() for call in asking)
        await asyncio.to_thread(fleet.redis.start)
        await fleet.until_all(lambda trouble: not trouble)
        assert await statuses(asking) == [200] * REPLICAS
        giga.state.faults.add({"kind": "slow", "seconds": 2})
        last = asyncio.create_task(fleet.ask(0))
        async with asyncio.timeout(PATIENCE):
            while giga.state.faults.waiting:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            fleet.replicas[0].signal()
            while (told := await fleet.ready(0))[0] == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert told == (503, {"status": "stopping", "trouble": None})
        assert (await fleet.ready(1))[0] == 200
        assert await last == 200
        assert await fleet.replicas[0].gone() == 0
