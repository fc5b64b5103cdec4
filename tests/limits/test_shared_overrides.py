"""What operators set is in Redis: every replica has it at once, also those that start later, whatever happens there."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from redis_server import RedisServer, started
from replicas import Replica, opener
from running import until

from proxy.audit import MOST
from proxy.errors import LimitsUnavailable
from proxy.limits.overrides import Override
from proxy.limits.shared import SharedLimits
from proxy.limits.shared_audit import SharedAudit

SHORT = {"grace": 0.3}


async def override(limits: SharedLimits, **wishes: float | None) -> None:
    await limits.override(
        {field: value if value is None else Override(value, 1.0, "me") for field, value in wishes.items()}
    )


async def at(limits: SharedLimits) -> float:
    """When a call was sent that is over by now."""
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    permit.release()
    assert permit.sent_at is not None
    return permit.sent_at


async def stays_waiting(*tasks: "asyncio.Task[float]") -> bool:
    for _ in range(100):
        await asyncio.sleep(0.001)
    return not any(task.done() for task in tasks)


@pytest.fixture
async def own(redis: RedisServer) -> AsyncIterator[Replica]:
    """Replicas on a Redis of the test's own."""
    async with AsyncExitStack() as stack:
        yield opener(stack, redis.url, "main")


# ---- All replicas ----


async def test_a_change_at_one_replica_holds_at_the_others(replica):
    """Nobody asks for it: they are told."""
    one, other = await replica(rpm=600, concurrency=3), await replica(rpm=600, concurrency=3)
    told = asyncio.Event()
    other.listen(told.set)
    await override(one, rpm=300, concurrency=2, timeout=4.0)
    async with asyncio.timeout(20):
        await told.wait()
    assert other.overrides == one.overrides
    assert (other.state().rpm, other.state().concurrency) == (300, 2)


async def test_replicas_that_start_later_have_what_was_set_before(replica):
    """Before they let anybody go."""
    one = await replica(rpm=600)
    await override(one, rpm=60, paused=True, queue_size=5)
    later = await replica(rpm=600)
    async with asyncio.timeout(20):
        await later.settled()
    assert later.overrides == one.overrides
    assert later.state().is_held


async def test_a_replica_that_has_not_heard_yet_cannot_call_too_often(replica):
    """The script keeps to the change whatever the replica that asks believes."""
    one, deaf = await replica(rpm=6000), await replica(rpm=6000)
    before = await at(deaf)
    deaf._set.heard_of = lambda revision: None
    await override(one, rpm=300)
    sent = [await at(deaf) for _ in range(3)]
    gaps = [later - earlier for earlier, later in pairwise([before, *sent])]
    assert min(gaps) >= 0.2 - 1e-9


async def test_a_line_before_two_replicas_keeps_the_new_pace_from_the_change_on(replica):
    """Neither of them sends too soon after the other."""
    replicas = [await replica(rpm=6000), await replica(rpm=6000)]
    sent: list[float] = []

    async def call(limits: SharedLimits) -> None:
        while len(sent) < 40:
            sent.append(await at(limits))

    calling = [asyncio.create_task(call(limits)) for limits in replicas for _ in range(2)]
    await until(lambda: len(sent) >= 15)
    await override(replicas[0], rpm=600)
    await until(lambda: replicas[1].state().rpm == 600)
    changed = time.monotonic()
    await asyncio.gather(*calling)
    after = sorted(instant for instant in sent if instant > changed)
    assert min(later - earlier for earlier, later in pairwise(after)) >= 0.1 - 1e-9


async def test_a_call_held_back_at_one_replica_holds_up_nobody_at_another_when_resumed(replica):
    """Whoever has a slot in a pause has none afterwards, and asks anew."""
    one, other = await replica(rpm=600, concurrency=4), await replica(rpm=600, concurrency=4)
    permit = await one.acquire()
    await override(other, paused=True)
    await until(lambda: one.state().is_held)
    held = [asyncio.create_task(permit.gate()), asyncio.create_task(at(other))]
    assert await stays_waiting(*held)
    await override(one, paused=None)
    async with asyncio.timeout(20):
        await asyncio.gather(*held)
    assert abs(permit.sent_at - held[1].result()) >= 0.1 - 1e-9
    permit.release()


async def test_who_was_told_to_wait_an_hour_by_a_replica_goes_when_another_one_is_faster(replica):
    one, other = await replica(rpm=1 / 60), await replica(rpm=1 / 60)
    before = await at(one)
    waiting = [asyncio.create_task(at(limits)) for limits in (one, other, one)]
    assert await stays_waiting(*waiting)
    await override(other, rpm=600)
    async with asyncio.timeout(20):
        sent = sorted(await asyncio.gather(*waiting))
    assert min(later - earlier for earlier, later in pairwise([before, *sent])) >= 0.1 - 1e-9


async def test_changes_of_different_fields_at_different_replicas_do_not_undo_each_other(replica):
    replicas = [await replica() for _ in range(2)]
    await asyncio.gather(*(override(replicas[n % 2], **{field: 7}) for n, field in enumerate(("rpm", "concurrency"))))
    await until(lambda: all({*limits.overrides} == {"rpm", "concurrency"} for limits in replicas))


async def test_nobody_polls_while_it_is_paused(own, redis):
    limits = await own()
    await override(limits, paused=True)
    waiting = [asyncio.create_task(at(limits)) for _ in range(3)]
    assert await stays_waiting(*waiting)
    asked = redis.questions()
    assert await stays_waiting(*waiting)
    assert redis.questions() == asked
    await override(limits, paused=None)
    await asyncio.gather(*waiting)


async def test_what_another_version_has_written_there_does_no_harm(own, redis):
    """What is not understood is left out."""
    limits = await own(rpm=600)
    await override(limits, timeout=5.0)
    redis.client.hset("gigachat-proxy:{main}:overrides", mapping={"rpm": "{", "colour": '"red"'})
    await override(limits, concurrency=2)
    assert {*limits.overrides} == {"timeout", "concurrency"}
    await at(limits)


# ---- Redis away ----


async def test_while_redis_is_away_nothing_can_be_changed(own, redis):
    """It is said so, and all goes on as it was."""
    limits = await own(rpm=600, link=SHORT)
    redis.kill()
    await until(lambda: limits.status().mode != "shared")
    with pytest.raises(LimitsUnavailable, match="nothing is changed"):
        await override(limits, rpm=60)
    assert limits.overrides == {} and limits.state().rpm == 600
    await started(redis)
    await until(lambda: limits.status().mode == "shared")
    assert limits.overrides == {}


async def test_a_redis_that_does_not_answer_a_change_may_have_made_it(own, redis):
    """So whoever wanted it is told where to look."""
    limits = await own(rpm=600)
    redis.hold()
    try:
        with pytest.raises(LimitsUnavailable, match="GET /limits"):
            await override(limits, rpm=60)
    finally:
        redis.go_on()


async def test_a_redis_that_has_lost_its_data_is_told_again_what_was_set(own, redis):
    """By whichever replica is there first; the one with the newest word counts."""
    one, other = await own(rpm=600), await own(rpm=600)
    await override(one, rpm=60)
    await override(other, rpm=300, paused=True)
    await until(lambda: one.overrides == other.overrides)
    redis.kill()
    await started(redis)
    await until(lambda: one.status().mode == other.status().mode == "shared")
    later = await own(rpm=600)
    await until(lambda: later.overrides == one.overrides == other.overrides)
    assert later.overrides["rpm"].value == 300 and later.state().is_held


async def test_what_was_set_holds_while_redis_is_away(own, redis):
    """The part of a replica is a part of the changed limits; and what is paused stays paused."""
    limits = await own(rpm=6000, link=SHORT)
    await override(limits, rpm=300)
    redis.kill()
    await until(lambda: limits.status().mode == "local_share")
    sent = [await at(limits) for _ in range(3)]
    assert min(later - earlier for earlier, later in pairwise(sent)) >= 0.2 - 1e-9


async def test_what_is_paused_stays_paused_while_redis_is_away(own, redis):
    limits = await own(link=SHORT)
    await override(limits, paused=True)
    redis.kill()
    await until(lambda: limits.status().mode == "local_share")
    waiting = asyncio.create_task(at(limits))
    assert await stays_waiting(waiting)
    await started(redis)
    await until(lambda: limits.status().mode == "shared")
    assert await stays_waiting(waiting)
    await override(limits, paused=None)
    await waiting


async def test_news_that_redis_has_lost_before_they_were_asked_for_are_not_asked_for_again_and_again(own, redis):
    """It spoke of a change, and knows nothing of it any more."""
    limits = await own(link=SHORT)
    limits._set.heard_of(2**52)
    redis.kill()
    await until(lambda: not limits._link.is_connected)
    await started(redis)
    await until(lambda: limits.status().mode == "shared" and not limits._set.is_outdated)
    async with asyncio.timeout(20):
        await limits.settled()
    await at(limits)


# ---- The record ----


async def test_the_record_is_common_to_all_replicas_and_bounded(own, redis):
    audits = [SharedAudit((await own())._link) for _ in range(2)]
    await audits[0].note([{"field": str(number)} for number in range(MOST)])
    await audits[1].note([{"field": "last"}])
    assert await audits[0].newest(2) == [{"field": "last"}, {"field": str(MOST - 1)}]
    assert len(await audits[0].newest(MOST + 5)) == MOST
    assert await audits[0].newest(0) == []


async def test_a_record_that_cannot_be_read_or_written_is_told(own, redis, caplog):
    """A change that was made stays made."""
    limits = await own()
    audit = SharedAudit(limits._link)
    redis.kill()
    await until(lambda: not limits._link.is_connected)
    await audit.note([{"field": "rpm"}])
    assert "this log alone has the change" in caplog.text
    with pytest.raises(LimitsUnavailable, match="look again"):
        await audit.newest(1)
