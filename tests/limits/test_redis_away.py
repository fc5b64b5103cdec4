"""Redis is away: for a moment nobody sends and nobody fails; for longer, each replica keeps to its fallback."""

import asyncio
import logging
import time
from itertools import pairwise
from typing import Any

import pytest
from redis_server import RedisServer, free_port
from running import until

from proxy.limits import Usage
from proxy.limits.shared import SharedLimits

#: Seconds: of a grace that ends soon, and of one that does not end within a test.
SHORT, LONG = 0.3, 300.0


#: Replicas hear of each other soon.
LIVELY = {"beat": 0.1, "lease": 30}


def link(grace: float) -> dict[str, Any]:
    return {"grace": grace, "timeout": 0.3}


async def send(limits: SharedLimits) -> Any:
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    return permit


async def gone(limits: SharedLimits, mode: str) -> None:
    """Until it does without Redis in this way."""
    await until(lambda: limits.status().mode == mode)


# ---- For a moment ----


@pytest.mark.parametrize("how", ["held", "killed"])
async def test_within_the_grace_nobody_is_let_off_and_nobody_fails(redis, replica, how):
    """Whoever asks meanwhile goes when Redis is back; whoever ended meanwhile has given its slot back."""
    limits = await replica(redis.url, concurrency=1, name="main", link=link(LONG))
    ended = await send(limits)
    redis.hold() if how == "held" else redis.kill()
    waiting = asyncio.create_task(send(limits))
    ended.release()
    await gone(limits, "grace")
    assert limits.status().away > 0
    assert not waiting.done()
    redis.go_on() if how == "held" else redis.start()
    permit = await waiting
    assert limits.status() == ("shared", 0.0, 1)
    await until(lambda: redis.leases("main") == [permit.ticket])


async def test_whoever_misses_its_slot_meanwhile_gets_another_one(redis, replica):
    """It was let off before, and comes to the gate while Redis is away."""
    limits = await replica(redis.url, rpm=6000, name="main", link=link(LONG))
    late = await limits.acquire()
    redis.hold()
    waiting = asyncio.create_task(send(limits))
    await gone(limits, "grace")
    at_the_gate = asyncio.create_task(late.gate())
    redis.go_on()
    await asyncio.gather(at_the_gate, waiting)
    assert abs(waiting.result().sent_at - late.sent_at) >= 0.01


async def test_whoever_leaves_while_redis_is_away_has_left(redis, replica):
    """Nothing of it is found when Redis is back."""
    limits = await replica(redis.url, concurrency=1, name="main", link=link(LONG))
    held = await send(limits)
    waiting = asyncio.create_task(send(limits))
    await until(lambda: len(redis.waiting("main")) == 1)
    redis.hold()
    asking = asyncio.create_task(send(limits))
    await gone(limits, "grace")
    for task in (waiting, asking):
        task.cancel()
    held.release()
    redis.go_on()
    await until(lambda: redis.leases("main") == redis.waiting("main") == [])
    (await send(limits)).release()


async def test_a_stop_does_not_wait_for_a_redis_that_is_away(redis, replica):
    """What it holds comes back by time."""
    limits = await replica(redis.url, concurrency=1, name="main", link=link(LONG))
    await send(limits)
    redis.hold()
    begun = time.monotonic()
    await limits.close()
    assert time.monotonic() - begun < 5
    redis.go_on()


# ---- For longer ----


async def test_each_replica_keeps_to_its_share(redis, replica, caplog):
    """The rate divided by the replicas last seen, and a whole number of the calls in flight."""
    replicas = [
        await replica(redis.url, rpm=6000, concurrency=5, name="main", link=link(SHORT), **LIVELY) for _ in range(2)
    ]
    one, other = replicas
    await until(lambda: one.status().replicas == 2)
    (await send(one)).release()
    redis.kill()
    await gone(one, "local_share")
    permits = [await send(limits) for limits in (one, one, other, other)]
    for limits in replicas:
        state = limits.state()
        assert (state.rpm, state.concurrency, state.in_flight) == (3000, 2, 2)
    waiting = asyncio.create_task(send(one))
    permits[2].release()
    await asyncio.sleep(0)
    assert not waiting.done()
    permits[0].release()
    await waiting
    assert "local_share among 2 replicas" in caplog.text
    assert one.status().replicas == 2


async def test_a_share_of_nothing_waits(redis, replica):
    """One call in flight among two replicas is none for either; when Redis is back it goes on."""
    one, other = [await replica(redis.url, concurrency=1, name="main", link=link(SHORT), **LIVELY) for _ in range(2)]
    await until(lambda: one.status().replicas == 2)
    redis.kill()
    await gone(one, "local_share")
    await gone(other, "local_share")
    waiting = [asyncio.create_task(send(limits)) for limits in (one, other)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    redis.start()
    for done in asyncio.as_completed(waiting):
        (await done).release()


async def test_closed_waits(redis, replica):
    limits = await replica(redis.url, name="main", fallback="closed", link=link(SHORT))
    redis.kill()
    await gone(limits, "closed")
    waiting = asyncio.create_task(send(limits))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    redis.start()
    await waiting


async def test_open_takes_all_of_the_limits(redis, replica):
    """Each replica for itself."""
    replicas = [
        await replica(redis.url, concurrency=2, rpm=6000, name="main", fallback="open", link=link(SHORT), **LIVELY)
        for _ in range(2)
    ]
    await until(lambda: replicas[0].status().replicas == 2)
    redis.kill()
    for limits in replicas:
        await gone(limits, "open")
        assert [await send(limits), await send(limits)]
        assert limits.state().rpm == 6000
        assert limits.state().in_flight == 2


async def test_calls_that_were_in_flight_before_count_in_the_share(redis, replica):
    """And whoever ends gives its place to the next."""
    limits = await replica(redis.url, concurrency=2, name="main", link=link(SHORT))
    first, _ = await send(limits), await send(limits)
    redis.kill()
    await gone(limits, "local_share")
    waiting = asyncio.create_task(send(limits))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert limits.state().in_flight == 2
    first.release()
    await waiting


async def test_a_redis_that_was_never_there_leaves_no_share(replica):
    """How many replicas there are, nobody knows; only `open` does not care. When it comes, it is found."""
    port = free_port()
    careful = await replica(f"redis://127.0.0.1:{port}", name="main", link=link(SHORT))
    bold = await replica(f"redis://127.0.0.1:{port}", name="main", fallback="open", link=link(SHORT))
    assert careful.status().replicas == 0
    waiting = asyncio.create_task(send(careful))
    (await send(bold)).release()
    assert not waiting.done()
    waiting.cancel()


async def test_a_redis_that_comes_late_is_found(tmp_path, replica, caplog):
    """The start goes on without it, and says so."""
    server = RedisServer(tmp_path / "late")
    with caplog.at_level(logging.WARNING):
        limits = await replica(server.url, name="main", link=link(LONG))
    assert "REDIS_URL" in caplog.text
    waiting = asyncio.create_task(send(limits))
    await asyncio.to_thread(server.start)
    try:
        (await waiting).release()
    finally:
        await limits.close()
        server.stop()


async def test_a_redis_that_answers_nothing_but_errors_is_away(redis, replica, caplog):
    """Here something else is under our name. The grace ends though every connection succeeds, and it is said once."""
    limits = await replica(redis.url, name="main", fallback="open", link=link(SHORT))
    (await send(limits)).release()
    redis.client.set("gigachat-proxy:{main}:state", "what is this?")
    waiting = asyncio.create_task(send(limits))
    await waiting
    assert limits.status().mode == "open"
    assert caplog.text.count("is away") == 1
    redis.client.delete("gigachat-proxy:{main}:state")
    await gone(limits, "shared")


@pytest.mark.parametrize(("knob", "value"), [("maxmemory", 1), ("min-replicas-to-write", 1)])
async def test_a_redis_that_cannot_be_written_is_away(redis, replica, knob, value):
    """Full, or a master that has lost its replicas; when it can be written again it is there."""
    limits = await replica(redis.url, concurrency=1, name="main", link=link(SHORT))
    redis.client.config_set(knob, value)
    (await send(limits)).release()
    assert limits.status().mode == "local_share"
    redis.client.config_set(knob, 0)
    await gone(limits, "shared")
    (await send(limits)).release()


# ---- And back ----


async def test_calls_begun_without_redis_count_when_it_is_back(redis, replica):
    """So that all replicas together keep to the limit again at once."""
    one, other = [await replica(redis.url, concurrency=2, name="main", link=link(SHORT), **LIVELY) for _ in range(2)]
    await until(lambda: one.status().replicas == 2)
    redis.kill()
    for limits in (one, other):
        await gone(limits, "local_share")
    permits = [await send(one), await send(other)]
    redis.start()
    await until(lambda: len(redis.leases("main")) == 2)
    waiting = asyncio.create_task(send(one))
    await until(lambda: len(redis.waiting("main")) == 1)
    assert not waiting.done()
    permits[1].release()
    await waiting


async def test_one_replica_keeps_its_pace_through_an_absence(redis, replica):
    """From Redis to its own and back: two sends are never closer than the interval."""
    limits = await replica(redis.url, rpm=600, name="main", link=link(SHORT))
    sent: list[float] = []

    async def run() -> None:
        while True:
            permit = await send(limits)
            sent.append(permit.sent_at)
            permit.release()

    running = asyncio.create_task(run())
    await until(lambda: len(sent) > 2)
    redis.kill()
    await gone(limits, "local_share")
    await until(lambda: len(sent) > 6)
    redis.start()
    await gone(limits, "shared")
    seen = len(sent)
    await until(lambda: len(sent) > seen + 3)
    running.cancel()
    assert min(later - earlier for earlier, later in pairwise(sent)) + 1e-9 >= 0.1


async def test_whoever_waits_at_its_own_gate_when_redis_is_back_keeps_its_distance(redis, replica):
    """It goes after a pause that the API asked for, as another replica does by then through Redis."""
    one, other = [await replica(redis.url, rpm=600, name="main", link=link(SHORT), **LIVELY) for _ in range(2)]
    await until(lambda: one.status().replicas == other.status().replicas == 2)
    redis.kill()
    await gone(one, "local_share")
    refused = await send(one)
    at_the_gate = await one.acquire()
    going = asyncio.create_task(at_the_gate.gate())
    refused.throttled(1.5)
    redis.start()
    await gone(one, "shared")
    await gone(other, "shared")
    await until(lambda: other.state().paused > 0)
    permit = await send(other)
    await going
    assert abs(permit.sent_at - at_the_gate.sent_at) + 1e-9 >= 0.1


async def test_a_429_seen_without_redis_pauses_all_when_it_is_back(redis, replica):
    """Meanwhile it pauses whoever saw it."""
    one, other = [await replica(redis.url, name="main", link=link(SHORT), **LIVELY) for _ in range(2)]
    await until(lambda: one.status().replicas == 2)
    redis.kill()
    await gone(one, "local_share")
    refused = await send(one)
    refused.throttled(60)
    assert one.state().paused > 59
    redis.start()
    await until(lambda: 0 < other.state().paused < 61)
    assert other.state().paused > 30
    refused.release()


async def test_a_success_without_redis_is_settled(redis, replica):
    """As any other."""
    limits = await replica(redis.url, name="main", link=link(SHORT))
    redis.kill()
    await gone(limits, "local_share")
    permit = await send(limits)
    permit.settle(Usage())
    permit.release()
    permit.release()
    assert limits.state().in_flight == 0
