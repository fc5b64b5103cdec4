"""What each replica tells of itself, and what the dashboard of any of them makes of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from events import told
from pydantic import SecretStr
from redis_server import RedisServer
from running import Proxy, settings_for, until

import app
import emulator
from proxy.limits.fleet import FORGOTTEN, SILENT, LaneReport, Report
from proxy.limits.link import RedisLink
from proxy.limits.shared_fleet import SharedFleet, read

REPORT = Report("a-host:1", 5.0, {"main": LaneReport(waiting=2, in_flight=1, sent=30)})


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def replicas(stack: AsyncExitStack, redis: RedisServer, number: int, **knobs: Any) -> list[Proxy]:
    """So many services on one account and one Redis, under a prefix that no other test has."""
    shared = {"redis_url": SecretStr(redis.url), "redis_prefix": f"test-{id(stack)}", "drain_timeout": 0, **knobs}
    giga = await stack.enter_async_context(emulator.start(emulator.Options()))
    http = await stack.enter_async_context(aiohttp.ClientSession())
    return [
        Proxy(await stack.enter_async_context(app.serving(settings_for(giga, **shared))), giga, http)
        for _ in range(number)
    ]


# ---- What the dashboard is told ----


async def test_each_replica_is_told_with_its_part_of_the_whole(stack: AsyncExitStack, redis: RedisServer) -> None:
    """Whoever looks at one sees what all use of the rate."""
    one, other = await replicas(stack, redis, 2, ext_api_rpm=600)
    await asyncio.gather(*(one.ask("x") for _ in range(3)), *(other.ask("x") for _ in range(6)))
    # Each that is looked at asks once what is left at the API.
    now = await told(one, until=lambda now: [each["sent"] for each in now["replicas"]] == [4, 6])
    mine, theirs = now["replicas"]
    assert (mine["ago"], mine["silent"], theirs["silent"]) == (0, False, False)
    assert (mine["share"], theirs["share"]) == (4 / 600, 6 / 600)
    age = max(1.0, now["at"] - now["app"]["started"])
    assert now["lanes"][0]["used"] == pytest.approx(10 / (600 * age / 60), rel=0.5)
    await told(other, until=lambda now: [each["sent"] for each in now["replicas"]] == [7, 4])


async def test_who_waits_elsewhere_is_counted(stack: AsyncExitStack, redis: RedisServer) -> None:
    one, other = await replicas(stack, redis, 2, ext_max_requests=1)
    one.giga.state.faults.add({"kind": "slow", "seconds": 6})
    asked = [asyncio.create_task(other.ask("x")) for _ in range(3)]
    now = await told(one, until=lambda now: now["sample"]["waiting"] == 2)
    assert now["sample"]["in_flight"] == 1
    assert [each["waiting"] for each in now["replicas"]] == [0, 2]
    assert {(await each).status for each in asked} == {200}


async def test_a_pause_that_another_replica_earned_is_told_as_such(stack: AsyncExitStack, redis: RedisServer) -> None:
    one, other = await replicas(stack, redis, 2)
    one.giga.state.faults.add({"kind": "status", "status": 429, "retry_after": 4})
    asked = asyncio.create_task(other.ask("x"))
    now = await told(one, until=lambda now: now["lanes"][0]["paused"] > 0)
    assert now["lanes"][0]["reason"] == "429 elsewhere"
    assert (await told(other))["lanes"][0]["reason"] == "upstream 429"
    assert (await asked).status == 200


async def test_whoever_is_alone_has_no_replicas(stack: AsyncExitStack, redis: RedisServer) -> None:
    (one,) = await replicas(stack, redis, 1)
    assert (await told(one))["replicas"] == []


async def test_whoever_leaves_in_order_is_gone(stack: AsyncExitStack, redis: RedisServer) -> None:
    (one,) = await replicas(stack, redis, 1)
    async with AsyncExitStack() as short:
        other = app.serving(one.service.settings.model_copy(update={"port": 0}))
        await short.enter_async_context(other)
        await told(one, until=lambda now: len(now["replicas"]) == 2)
    await told(one, until=lambda now: now["replicas"] == [])


async def test_requests_ask_redis_for_nothing_of_it(stack: AsyncExitStack, redis: RedisServer) -> None:
    """It is told every two seconds, whatever goes on."""
    (one,) = await replicas(stack, redis, 1)

    def asked() -> int:
        return int(redis.client.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0))

    before = asked()
    for _ in range(100):
        assert (await one.ask("x")).status == 200
    assert asked() - before < 50


# ---- What is told in Redis ----


@pytest.fixture
async def fleet(redis: RedisServer, tmp_path: Path) -> AsyncIterator[SharedFleet]:
    link = RedisLink(redis.url, prefix=tmp_path.name)
    await link.start()
    fleet = SharedFleet(link, "account", period=0.01)
    yield fleet
    await fleet.close()
    await link.close()


def put(fleet: SharedFleet, redis: RedisServer, who: str, told: Any) -> None:
    redis.client.hset(fleet._key, who, told if isinstance(told, str | bytes) else orjson.dumps(told))


def word(fleet: SharedFleet, ago: float) -> dict[str, Any]:
    return {"at": fleet._now() - int(ago * 1e6), **REPORT.told()}


async def test_a_replica_that_died_is_silent_and_then_forgotten(fleet: SharedFleet, redis: RedisServer) -> None:
    put(fleet, redis, "silent", word(fleet, SILENT + 1))
    put(fleet, redis, "dead", word(fleet, FORGOTTEN + 1))
    fleet.start(lambda: REPORT)
    await until(lambda: bool(fleet.others()) and not redis.client.hexists(fleet._key, "dead"))
    (silent,) = fleet.others()
    assert silent.is_silent and silent.report == REPORT
    assert 0 < redis.client.ttl(fleet._key) <= 3600


@pytest.mark.parametrize(
    "told",
    [
        *("", "no JSON", "[]", "{}", b"\xff\xfe", '{"at": 1}', '{"at": "x", "name": "a", "age": 1, "lanes": {}}'),
        *({"at": 1, "name": "a", "age": 1, "lanes": {"main": [1]}}, {"at": 1, "name": "a", "age": 1, "lanes": 5}),
        {"at": 1, "name": "a", "age": None, "lanes": {}},
    ],
)
async def test_what_is_no_word_of_a_replica_is_taken_out(fleet: SharedFleet, redis: RedisServer, told: Any) -> None:
    """Another version may have written it, or anybody."""
    put(fleet, redis, "strange", told)
    fleet.start(lambda: REPORT)
    await until(lambda: not redis.client.hexists(fleet._key, "strange"))
    assert fleet.others() == []


def test_a_word_is_read_as_it_was_told() -> None:
    assert read(orjson.dumps({"at": 17, **REPORT.told()})) == (17, REPORT)


async def test_while_redis_is_away_what_was_heard_grows_old(tmp_path: Path) -> None:
    """And when it is back the others are heard again."""
    server = RedisServer(tmp_path / "redis")
    await asyncio.to_thread(server.start)
    link = RedisLink(server.url)
    await link.start()
    fleet = SharedFleet(link, "account", period=0.01)
    try:
        put(fleet, server, "other", word(fleet, 0))
        fleet.start(lambda: REPORT)
        await until(lambda: bool(fleet.others()))
        await asyncio.to_thread(server.kill)
        await until(lambda: not link.is_connected)
        (before,) = fleet.others()
        await until(lambda: fleet.others()[0].ago > before.ago)
        await asyncio.to_thread(server.start)
        await until(lambda: link.is_connected and bool(server.client.hexists(fleet._key, link.id)))
    finally:
        await fleet.close()
        await link.close()
        await asyncio.to_thread(server.stop)
