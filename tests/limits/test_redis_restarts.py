"""Redis forgets: restarted empty or with old data, flushed, without its scripts. No slot is given out twice for it."""

import asyncio
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis_server import RedisServer
from running import until

from proxy.limits.link import RedisAway
from proxy.limits.shared import SharedLimits


async def send(limits: SharedLimits) -> Any:
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    return permit


@pytest.fixture
def keeping(tmp_path: Path):
    """A server that starts with what it had when it was last told to save."""
    server = RedisServer(tmp_path / "keeping", "--save", "3600 1000000", "--dbfilename", "dump.rdb")
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("loss", ["restart", "flush"])
async def test_slots_in_flight_outlive_the_data(redis, replica, loss):
    """Whoever holds one tells the empty Redis before anybody takes another."""
    one, other = [await replica(redis.url, concurrency=1, name="main") for _ in range(2)]
    permit = await send(one)
    redis.restart() if loss == "restart" else redis.client.flushall()
    waiting = asyncio.create_task(send(other))
    await until(lambda: len(redis.waiting("main")) == 1 and redis.leases("main") == [permit.ticket])
    assert not waiting.done()
    permit.release()
    assert (await waiting).sent_at > permit.sent_at


async def test_a_newcomer_waits_too_until_all_have_told_what_they_hold(redis, replica):
    """It is the first to ask the empty Redis, and knows nothing of its loss."""
    one = await replica(redis.url, concurrency=1, name="main", link={"settle": 1.0})
    permit = await send(one)
    redis.restart()
    newcomer = await replica(redis.url, concurrency=1, name="main", link={"settle": 1.0})
    waiting = asyncio.create_task(send(newcomer))
    await until(lambda: len(redis.waiting("main")) == 1 and redis.leases("main") == [permit.ticket])
    permit.release()
    await waiting


async def test_nobody_takes_a_slot_before_all_had_time_to_tell(redis, replica):
    """Not even one that seems free."""
    limits = await replica(redis.url, name="main", link={"settle": 0.7})
    (await send(limits)).release()
    redis.kill()
    lost = time.monotonic()
    redis.start()
    assert (await send(limits)).sent_at - lost >= 0.7


async def test_scripts_are_loaded_again(common_redis, replica):
    """SCRIPT FLUSH, or a restart: nobody notices."""
    limits = await replica()
    (await send(limits)).release()
    common_redis.client.script_flush()
    (await send(limits)).release()


async def test_what_old_data_bring_back_does_not_stay(keeping, replica):
    """A slot that was given back after the last save is held by nobody; its replica says so."""
    one = await replica(keeping.url, concurrency=1, name="main")
    permit = await send(one)
    keeping.client.save()
    permit.release()
    await until(lambda: not keeping.leases("main"))
    keeping.restart()
    assert keeping.leases("main") == [permit.ticket]
    other = await replica(keeping.url, concurrency=1, name="main")
    await send(other)


async def test_what_old_data_do_not_know_is_told(keeping, replica):
    """A slot that was taken after the last save is not given to another."""
    one, other = [await replica(keeping.url, concurrency=1, name="main") for _ in range(2)]
    (await send(one)).release()
    await until(lambda: not keeping.leases("main"))
    keeping.client.save()
    permit = await send(one)
    keeping.restart()
    waiting = asyncio.create_task(send(other))
    await until(lambda: len(keeping.waiting("main")) == 1 and keeping.leases("main") == [permit.ticket])
    assert not waiting.done()
    permit.release()
    await waiting


async def test_a_pause_outlives_the_data(redis, replica):
    """Whoever knows of it tells it to all, also to those who come later."""
    one = await replica(redis.url, name="main")
    refused = await send(one)
    refused.throttled(60)
    await until(lambda: one.state().paused > 50)
    redis.restart()
    other = await replica(redis.url, name="main")
    await until(lambda: 30 < other.state().paused < 61)


@pytest.mark.parametrize("loss", ["restart", "flush"])
async def test_three_replicas_keep_their_pace_through_a_loss(redis, replica, loss):
    """Two sends are never closer than the interval, and nobody's call is lost."""
    replicas = [await replica(redis.url, rpm=600, name="main") for _ in range(3)]
    sent: list[float] = []

    async def run(limits: SharedLimits) -> None:
        for _ in range(8):
            permit = await send(limits)
            sent.append(permit.sent_at)
            permit.release()

    running = asyncio.gather(*map(run, replicas))
    await until(lambda: len(sent) == 8)
    await asyncio.to_thread(redis.restart if loss == "restart" else redis.client.flushall)
    await running
    assert len(sent) == 24
    assert min(later - earlier for earlier, later in pairwise(sorted(sent))) + 1e-9 >= 0.1


async def test_slots_in_flight_outlive_a_silence_of_all(redis, replica):
    """Nobody reached Redis for longer than a lease, or its clock was set: leases ended under calls that went on."""
    one, other = [await replica(redis.url, concurrency=1, name="main", lease=0.6, beat=0.1) for _ in range(2)]
    permit = await send(one)
    waiting = asyncio.create_task(send(other))
    await until(lambda: len(redis.waiting("main")) == 1)
    for limits in (one, other):
        cut_off(limits)
    await until(lambda: time.time() > float(redis.ends("main")[permit.ticket]) + 0.05)
    reached = asyncio.Event()
    reconnect(other, reached.set)
    await reached.wait()
    reconnect(one)
    await until(lambda: redis.leases("main") == [permit.ticket])
    assert not waiting.done()
    permit.release()
    await waiting


def cut_off(limits: SharedLimits) -> None:
    """What it says does not reach Redis."""

    async def say(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(0.01)
        raise RedisAway

    limits._account.say = say


def reconnect(limits: SharedLimits, then: Callable[[], object] = lambda: None) -> None:
    """It does again; `then` is called when it was heard first."""
    del limits._account.say
    say = limits._account.say

    async def told(*args: Any, **words: Any) -> Any:
        try:
            return await say(*args, **words)
        finally:
            then()

    limits._account.say = told


async def test_never_two_in_flight_through_a_loss(redis, replica):
    """Three replicas, one slot, Redis killed in the middle."""
    replicas = [await replica(redis.url, concurrency=1, name="main") for _ in range(3)]
    in_flight = most = ended = 0

    async def run(limits: SharedLimits) -> None:
        nonlocal in_flight, most, ended
        for _ in range(10):
            permit = await send(limits)
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.01)
            in_flight -= 1
            ended += 1
            permit.release()

    running = asyncio.gather(*map(run, replicas))
    await until(lambda: ended == 10)
    await asyncio.to_thread(redis.restart)
    await running
    assert (most, ended) == (1, 30)
