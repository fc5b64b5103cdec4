"""Many replicas, one account: pace, turns, concurrency and pauses are common to all. Each replica is a limiter here."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from redis_server import RedisServer, free_port
from running import until

from proxy.limits import Permit, Usage
from proxy.limits.local import FIRST_RUN
from proxy.limits.shared import SharedLimits

ONE_AN_HOUR = 1 / 60
ROOT = Path(__file__).resolve().parents[2]


async def sends(limits: SharedLimits, number: int) -> list[float]:
    """When so many calls of one replica went out; each ends when the next has its permit."""
    sent = []
    for _ in range(number):
        permit = await limits.acquire()
        await permit.gate()
        sent.append(permit.sent_at)
        permit.release()
    return sent


def closest(sent: list[float]) -> float:
    sent = sorted(sent)
    return min(later - earlier for earlier, later in pairwise(sent)) + 1e-9


# ---- Pace ----


async def test_two_sends_of_three_replicas_are_never_closer_than_the_interval(replica):
    """600 a minute in all, by a clock that is none of theirs; and nobody is left behind."""
    replicas = [await replica(rpm=600) for _ in range(3)]
    sent = await asyncio.gather(*[sends(limits, 8) for limits in replicas])
    together = sorted((instant, number) for number, instants in enumerate(sent) for instant in instants)
    assert closest([instant for instant, _ in together]) >= 0.1
    counts = Counter(number for _, number in together[:15])
    assert min(counts[number] for number in range(3)) >= 3


async def test_a_replica_that_has_nothing_to_send_holds_nothing(replica):
    """Its last permit went back unsent; the slot is another's at once, though the next would come in an hour."""
    one, other = await replica(rpm=ONE_AN_HOUR), await replica(rpm=ONE_AN_HOUR)
    unsent = await one.acquire()
    unsent.release()
    async with asyncio.timeout(20):
        await sends(other, 1)


async def test_when_all_leave_at_once_the_pace_is_free(replica, common_redis, name):
    """The next caller need not wait for a slot that nobody uses."""
    one, other = await replica(rpm=ONE_AN_HOUR), await replica(rpm=ONE_AN_HOUR)
    first = await one.acquire()
    others = [asyncio.create_task(one.acquire()) for _ in range(3)]
    for waiting in others:
        waiting.cancel()
    first.release()
    async with asyncio.timeout(20):
        await sends(other, 1)
    assert common_redis.waiting(name) == []


async def test_whoever_does_not_say_that_it_was_sent_is_taken_to_have_been_sent(replica, common_redis, name):
    """It may have died in that moment: the next call keeps its distance from the end of its window."""
    one, other = await replica(rpm=300), await replica(rpm=300)
    silent = await one.acquire()
    async with asyncio.timeout(20):
        (sent,) = await sends(other, 1)
    assert sent - silent.slot.closes >= 0.2
    assert one.state().in_flight == 1
    silent.release()


async def test_who_missed_its_window_goes_later(replica):
    """It came to the gate too late: another slot, at a distance from whoever went meanwhile."""
    one, other = await replica(rpm=600), await replica(rpm=600)
    late = await one.acquire()
    sent = await sends(other, 2)
    await late.gate()
    assert closest([*sent, late.sent_at]) >= 0.1
    late.release()


async def test_a_server_clock_that_was_set_back_stops_nothing(replica, common_redis, name):
    """What Redis knows for years ahead is told anew: slots in flight count, all else is forgotten."""
    one, other = [await replica(rpm=600, concurrency=2) for _ in range(2)]
    held = await one.acquire()
    await held.gate()
    key, years = f"gigachat-proxy:{{{name}}}:", 10**15
    for field in ("at", "next", "pause"):
        common_redis.client.hincrby(f"{key}state", field, years)
    common_redis.client.zadd(f"{key}leases", {f"dead-{number}:1:1:1": 10**16 for number in range(9)})
    async with asyncio.timeout(20):
        permit = await other.acquire()
        await permit.gate()
    assert sorted(common_redis.leases(name)) == sorted([held.ticket, permit.ticket])
    assert permit.sent_at - held.sent_at >= 0.1


# ---- Concurrency ----


@pytest.mark.parametrize(("concurrency", "rpm"), [(1, None), (2, None), (1, 6000)])
async def test_no_more_calls_are_in_flight_than_allowed_to_all_together(replica, concurrency, rpm):
    """Counted by the test, at the gate."""
    in_flight, most = 0, 0

    async def calls(limits: SharedLimits) -> None:
        nonlocal in_flight, most
        for _ in range(15):
            permit = await limits.acquire()
            await permit.gate()
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0.002)
            in_flight -= 1
            permit.release()

    replicas = [await replica(concurrency=concurrency, rpm=rpm) for _ in range(3)]
    await asyncio.gather(*map(calls, replicas))
    assert most == concurrency


async def test_replicas_are_served_in_turn(replica, common_redis, name):
    """Who asks first gets the next slot, so that nobody goes twice while another waits."""
    order = []

    async def calls(number: int, limits: SharedLimits) -> None:
        for _ in range(10):
            permit = await limits.acquire()
            order.append(number)
            # Nothing is given back before all others that are still at work stand in line.
            others = 2 - sum(order.count(other) == 10 for other in range(3) if other != number)
            await until(lambda others=others: len(common_redis.waiting(name)) == others)
            permit.release()

    replicas = [await replica(concurrency=1) for _ in range(3)]
    await asyncio.gather(*[calls(number, limits) for number, limits in enumerate(replicas)])
    assert all(order[place] == order[place % 3] for place in range(27))


async def test_those_who_wait_in_one_replica_go_in_the_order_of_asking(replica, common_redis, name):
    limits = await replica(concurrency=1)
    busy = await limits.acquire()
    order = []

    async def call(number: int) -> None:
        permit = await limits.acquire()
        order.append(number)
        permit.release()

    calls = []
    for number in range(5):
        calls.append(asyncio.create_task(call(number)))
        await until(lambda number=number: len(common_redis.waiting(name)) == number + 1)
    busy.release()
    await asyncio.gather(*calls)
    assert order == [0, 1, 2, 3, 4]


async def test_a_call_that_lasts_longer_than_its_lease_keeps_its_slot(replica, common_redis, name):
    """For it is renewed with every sign of life."""
    one, other = await replica(concurrency=1, lease=0.3, beat=0.05), await replica(concurrency=1, lease=0.3, beat=0.05)
    permit = await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    asked = common_redis.questions()
    await until(lambda: common_redis.questions() > asked + 30)  # two replicas, 0.05 s a beat: more than two leases
    assert not waiting.done()
    permit.release()
    (await waiting).release()


async def test_a_call_that_is_sent_once_more_does_not_wait_for_those_who_wait_for_its_slot(replica, common_redis, name):
    """Else neither would ever go."""
    one, other = [await replica(concurrency=1, rpm=6000) for _ in range(2)]
    permit = await one.acquire()
    await permit.gate()
    waiting = asyncio.create_task(other.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 1)
    async with asyncio.timeout(20):
        await permit.gate()
    permit.release()
    (await waiting).release()


# ---- Pauses ----


async def test_a_429_seen_by_one_pauses_all(replica):
    """Those who wait, and those who were let off before they could know."""
    one, other, third = [await replica(rpm=6000, jitter=lambda: 1.0) for _ in range(3)]
    refused, at_the_gate = await one.acquire(), await other.acquire()
    await refused.gate()
    refused.throttled(0.5)
    end = refused.sent_at + 0.49
    await until(lambda: other.state().paused > 0)
    refused.release()
    await at_the_gate.gate()
    assert at_the_gate.sent_at >= end
    at_the_gate.release()
    assert min(await sends(third, 1)) >= end


async def test_whoever_sleeps_until_a_slot_within_the_pause_gets_one_after_it(replica, common_redis, name):
    """A pause that comes later than the slot was given holds all the same."""
    one, other = await replica(rpm=200), await replica(rpm=200)
    refused = await one.acquire()
    await refused.gate()
    sleeping = asyncio.create_task(sends(other, 1))
    await until(lambda: len(common_redis.leases(name)) == 2)
    refused.throttled(0.8)
    end = refused.sent_at + 0.79
    assert (await sleeping)[0] >= end


async def test_nobody_asks_for_a_slot_before_a_429_was_told(replica):
    """Else it might get one within the pause."""
    limits = await replica(rpm=6000)
    refused = await limits.acquire()
    await refused.gate()
    told, tell = asyncio.Event(), limits._reports.tell_refused

    async def tell_late():
        await told.wait()
        await tell()

    limits._reports.tell_refused = tell_late
    refused.throttled(None)
    refused.release()
    asking = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0.1)
    has_asked = asking.done()
    told.set()
    assert not has_asked
    async with asyncio.timeout(20):
        (await asking).release()


async def test_a_429_halves_the_concurrency_of_all_and_successes_of_any_raise_it_again(replica):
    one, other = await replica(concurrency=4), await replica(concurrency=4)
    refused = await one.acquire()
    await refused.gate()
    refused.throttled(0.05)
    refused.release()
    await until(lambda: one.state().allowed == other.state().allowed == 2)
    for limits in [one, other] * (FIRST_RUN // 2):
        permit = await limits.acquire()
        permit.settle(Usage())
        permit.release()
    await until(lambda: other.state().allowed == 3)


# ---- What is told ----


@pytest.mark.parametrize("knobs", [{"rpm": 600}, {"concurrency": 1}], ids=str)
async def test_a_replica_knows_how_many_have_somebody_waiting(replica, knobs):
    """So that whoever asks it is told a wait that counts their turns, too."""
    replicas = [await replica(**knobs) for _ in range(4)]
    assert replicas[0].state().lines == 1
    going = [asyncio.create_task(keep_busy(limits)) for limits in replicas[:3]]
    await until(lambda: {limits.state().lines for limits in replicas[:3]} == {3})
    for task in going[1:]:
        task.cancel()
    await until(lambda: replicas[0].state().lines == 1)
    going[0].cancel()


async def keep_busy(limits: SharedLimits) -> None:
    """As a dispatcher does whose line is never empty: the next one waits while calls are in flight."""
    async with asyncio.TaskGroup() as calls:
        while True:
            calls.create_task(call(await limits.acquire()))


async def call(permit: Permit) -> None:
    try:
        await permit.gate()
        await asyncio.sleep(0.01)
    finally:
        permit.release()


# ---- Round trips ----


async def test_a_dispatch_takes_two_round_trips(replica, common_redis, name):
    """To ask and to give back, also when all want the only slot; Redis itself counts."""
    replicas = [await replica(concurrency=1, lease=300, beat=100) for _ in range(3)]
    await asyncio.gather(*[sends(limits, 1) for limits in replicas])  # the first may have to wait for Redis to settle
    await until(lambda: not common_redis.leases(name))
    asked = common_redis.questions()
    await asyncio.gather(*[sends(limits, 20) for limits in replicas])
    await until(lambda: not common_redis.leases(name))
    assert common_redis.questions() - asked <= 2 * 60


async def test_a_missed_pace_slot_takes_one_round_trip_more(replica, common_redis, name, caplog):
    """And nothing else does."""
    replicas = [await replica(rpm=3000, lease=300, beat=100) for _ in range(3)]
    await asyncio.gather(*[sends(limits, 1) for limits in replicas])
    await until(lambda: not common_redis.leases(name))
    asked = common_redis.questions()
    with caplog.at_level(logging.DEBUG):
        await asyncio.gather(*[sends(limits, 10) for limits in replicas])
    await until(lambda: not common_redis.leases(name))
    missed = sum("a pace slot was over" in record.message for record in caplog.records)
    assert common_redis.questions() - asked <= 2 * 30 + missed


async def test_while_somebody_waits_nobody_polls(replica, common_redis, name):
    """One question puts it in line; it is told when its turn comes."""
    one, other = await replica(concurrency=1, lease=300, beat=100), await replica(concurrency=1, lease=300, beat=100)
    permit = await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 1)
    asked = common_redis.questions()
    await asyncio.sleep(0.3)
    assert common_redis.questions() == asked
    permit.release()
    (await waiting).release()


# ---- Leaving ----

DYING = """
import asyncio, sys
from proxy.limits.link import RedisLink
from proxy.limits.shared import SharedLimits

async def main(url, name):
    link = RedisLink(url, settle=0.3)
    await link.start()
    limits = SharedLimits(link, name, concurrency=1, lease=1.5, beat=0.5)
    limits.start()
    permit = await limits.acquire()
    print("holds", flush=True)
    waiting = asyncio.create_task(limits.acquire())
    await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def dying(common_redis, name):
    """A replica in a process of its own: it holds the only slot, and waits for another."""
    command = [sys.executable, "-c", DYING, common_redis.url, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        yield process
        process.kill()


async def test_what_a_dead_replica_held_comes_back_by_time(replica, common_redis, name, dying):
    """Killed with -9 it can give nothing back; and a turn that it waited for is skipped, for nobody hears of it."""
    assert await asyncio.to_thread(dying.stdout.readline) == b"holds\n"
    await until(lambda: len(common_redis.waiting(name)) == 1)
    limits = await replica(concurrency=1, lease=1.5, beat=0.5)
    waiting = asyncio.create_task(limits.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 2)
    dying.send_signal(signal.SIGKILL)
    async with asyncio.timeout(20):
        permit = await waiting
    assert common_redis.leases(name) == [permit.ticket]
    permit.release()
    await until(lambda: limits.status().replicas == 1)


@pytest.mark.parametrize("others", [1, 2])
async def test_what_a_dead_replica_held_comes_back_soon_where_its_connection_broke(
    replica, common_redis, name, dying, others
):
    """Not at the end of its lease: others look at each sign of life whether it is still connected."""
    assert await asyncio.to_thread(dying.stdout.readline) == b"holds\n"
    replicas = [await replica(concurrency=1, lease=300, beat=0.3) for _ in range(others)]
    # It was given for 300 s.
    for ticket in common_redis.leases(name):
        common_redis.client.zincrby(f"gigachat-proxy:{{{name}}}:leases", 300_000_000, ticket)
    waiting = [asyncio.create_task(sends(limits, 1)) for limits in replicas]
    await until(lambda: len(common_redis.waiting(name)) == 1 + others)
    dying.send_signal(signal.SIGSTOP)  # it renews nothing, and is connected
    await asyncio.sleep(1)
    assert not any(task.done() for task in waiting)
    dying.kill()
    async with asyncio.timeout(20):
        await asyncio.gather(*waiting)


async def test_whoever_connects_again_in_time_keeps_what_it_holds(replica, common_redis, name):
    """A connection may break without the end of anybody."""
    one, other = [await replica(concurrency=1, lease=30, beat=0.05, link={"settle": 1.5}) for _ in range(2)]
    permit = await one.acquire()
    waiting = asyncio.create_task(other.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 1)
    session = one._link.session
    for channel in list(common_redis.client.pubsub_channels()):
        if one._link.id in channel:
            common_redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: one._link.session > session and one._restored == one._link.session)
    lease = common_redis.ends(name)[permit.ticket]
    await until(lambda: common_redis.ends(name)[permit.ticket] > lease)
    assert common_redis.ends(name)[permit.ticket] - time.time() > 10
    assert not waiting.done()
    permit.release()
    (await waiting).release()


async def test_what_nobody_knows_of_does_not_stay(replica, common_redis, name):
    """A question that reached Redis when it was given up already: what it brought is given back at the next beat."""
    limits = await replica(concurrency=1, lease=30, beat=0.05)
    for key in ("leases", "waiting"):
        common_redis.client.zadd(f"gigachat-proxy:{{{name}}}:{key}", {f"{limits._replica}:0:1:1": 10**16})
    async with asyncio.timeout(20):
        await sends(limits, 1)
    await until(lambda: common_redis.leases(name) == common_redis.waiting(name) == [])


async def test_however_much_there_is_to_tell_leases_are_renewed(replica, common_redis, name):
    """There may always be something to tell."""
    limits = await replica(lease=30, beat=0.05)
    permit = await limits.acquire()
    tell = limits._reports.tell

    async def tell_on(*args, **words):
        try:
            return await tell(*args, **words)
        finally:
            limits._reports.sent(permit, time.monotonic())

    limits._reports.tell = tell_on
    limits._reports.sent(permit, time.monotonic())
    limits._resting.stir()
    before = common_redis.ends(name)[permit.ticket]
    try:
        await until(lambda: common_redis.ends(name)[permit.ticket] > before + 0.2)
    finally:
        limits._reports.tell = tell


async def test_a_replica_that_stops_gives_everything_back_at_once(replica, common_redis, name):
    """Its calls in flight, its places in line, its pace slot; and it counts no longer."""
    one, other = [await replica(concurrency=2, rpm=3000) for _ in range(2)]
    await (await one.acquire()).gate()
    await one.acquire()
    waiting = asyncio.create_task(one.acquire())
    await until(lambda: len(common_redis.waiting(name)) == 1)
    await one.close()
    assert common_redis.leases(name) == common_redis.waiting(name) == []
    async with asyncio.timeout(20):
        await sends(other, 1)
    waiting.cancel()
    assert other.status().replicas == 1


async def test_whoever_asks_a_limiter_that_is_closed_waits_for_ever(replica, common_redis, name):
    """And leaves nothing in Redis."""
    limits = await replica(concurrency=1)
    await limits.close()
    asked = common_redis.questions()
    late = asyncio.create_task(limits.acquire())
    await asyncio.sleep(0.05)
    assert not late.done()
    late.cancel()
    assert common_redis.questions() == asked


async def test_limiters_of_different_accounts_do_not_meet(replica):
    """Even on one prefix."""
    one, other = await replica(concurrency=1, name="one-{x}"), await replica(concurrency=1, name="other-{x}")
    await one.acquire()
    async with asyncio.timeout(20):
        await other.acquire()


async def test_limiters_with_different_prefixes_do_not_meet(replica, common_redis, name):
    """Two services may share a Redis."""
    one, other = await replica(concurrency=1), await replica(concurrency=1, link={"prefix": "another"})
    await one.acquire()
    async with asyncio.timeout(20):
        await other.acquire()
    assert len(common_redis.leases(name)) == len(common_redis.leases(name, "another")) == 1


# ---- What is left in Redis ----


async def test_every_key_has_the_prefix_the_hash_tag_and_an_end(redis, replica):
    """Nothing stays behind when all replicas have gone for good; and a cluster keeps an account's keys together."""
    limits = await replica(redis.url, concurrency=1, rpm=6000, name="main", link={"prefix": "us"})
    permit = await limits.acquire()
    waiting = asyncio.create_task(limits.acquire())
    await until(lambda: len(redis.waiting("main", "us")) == 1)
    keys = set(redis.client.keys())
    assert keys == {"us:probe", *(f"us:{{main}}:{kind}" for kind in ("state", "leases", "waiting", "replicas"))}
    assert all(0 < redis.client.ttl(key) <= 3600 for key in keys)
    waiting.cancel()
    permit.release()


async def test_at_a_very_slow_pace_the_state_outlives_the_interval(redis, replica):
    """Else the second call would go out at once."""
    limits = await replica(redis.url, rpm=1 / 600, name="slow")
    await sends(limits, 1)
    assert redis.client.ttl("gigachat-proxy:{slow}:state") > 600 * 60


async def test_one_node_of_a_cluster_will_do(tmp_path, replica):
    """Each script names the keys that it touches, and they belong together: else a cluster would refuse it."""
    node = RedisServer(tmp_path / "node", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    node.start()
    try:
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await until(lambda: "cluster_state:ok" in str(node.client.execute_command("CLUSTER", "INFO")))
        limits = await replica(node.url, rpm=6000, concurrency=2)
        await sends(limits, 5)
    finally:
        node.stop()
