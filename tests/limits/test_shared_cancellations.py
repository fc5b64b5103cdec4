"""Whoever leaves shared limits, at whatever await, leaves nothing behind: no slot, no place in line, no pace slot."""

import asyncio

import pytest
from redis_server import RedisServer
from running import until

from proxy.limits.shared import SharedLimits

ONE_AN_HOUR = 1 / 60


async def use(limits: SharedLimits) -> None:
    """One call, as the dispatcher and the request make it."""
    permit = await limits.acquire()
    try:
        await permit.gate()
        await asyncio.sleep(0)
    finally:
        permit.release()


async def cancelled_after(turns: int, limits: SharedLimits) -> bool:
    """Cancel a call after so many turns of the loop. False if it was over by then."""
    call = asyncio.create_task(use(limits))
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    return call.cancelled()


async def nothing_is_left(redis: RedisServer, name: str, limits: SharedLimits) -> None:
    await until(lambda: redis.leases(name) == redis.waiting(name) == [] and limits.state().in_flight == 0)


@pytest.mark.parametrize("knobs", [{"rpm": 60_000}, {"concurrency": 1}, {"rpm": 60_000, "concurrency": 2}], ids=str)
async def test_a_call_may_be_cancelled_at_every_turn_of_the_loop(replica, common_redis, name, knobs):
    """From before it asks until after it was sent."""
    limits = await replica(**knobs)
    await use(limits)
    for turns in range(60):
        await cancelled_after(turns, limits)
    await nothing_is_left(common_redis, name, limits)
    async with asyncio.timeout(20):
        await use(limits)


async def test_whoever_is_cancelled_before_its_slot_leaves_it_to_the_next(replica, common_redis, name):
    """A pace slot an hour away from the next is not lost, at whatever turn of the loop its owner leaves."""
    limits = await replica(rpm=ONE_AN_HOUR)
    for turns in range(40):
        permit = asyncio.create_task(limits.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        permit.cancel()
        if (result := (await asyncio.gather(permit, return_exceptions=True))[0]) and not permit.cancelled():
            result.release()
        await nothing_is_left(common_redis, name, limits)
    async with asyncio.timeout(20):
        await use(limits)


async def test_whoever_is_cancelled_while_it_waits_is_skipped(replica, common_redis, name):
    """Its turn is the next one's."""
    one, other = await replica(concurrency=1), await replica(concurrency=1)
    busy = await one.acquire()
    leaving = asyncio.create_task(other.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 1)
    staying = asyncio.create_task(one.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 2)
    leaving.cancel()
    busy.release()
    (await staying).release()
    await nothing_is_left(common_redis, name, one)


async def test_whoever_is_cancelled_at_the_moment_of_its_turn_passes_it_on(replica, common_redis, name):
    """The push that gives it a slot may be on its way."""
    one, other = await replica(concurrency=1), await replica(concurrency=1)
    for turns in range(40):
        busy = await one.acquire()
        leaving = asyncio.create_task(other.acquire())
        await until(lambda: len(common_redis.waiting(name)) == 1)
        busy.release()
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        if (result := (await asyncio.gather(leaving, return_exceptions=True))[0]) and not leaving.cancelled():
            result.release()
        await until(lambda: common_redis.leases(name) == common_redis.waiting(name) == [])


async def test_a_limiter_may_be_closed_while_calls_are_cancelled(replica, common_redis, name):
    """As at a stop."""
    limits = await replica(concurrency=2)
    calls = [asyncio.create_task(limits.acquire()) for _ in range(5)]
    await until(lambda: len(common_redis.waiting(name)) == 3)
    for call in calls:
        call.cancel()
    await limits.close()
    await asyncio.gather(*calls, return_exceptions=True)
    assert common_redis.leases(name) == common_redis.waiting(name) == []
