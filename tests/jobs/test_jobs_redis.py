"""What only Redis has to promise: replicas that share, a server that goes and comes, a memory that is full."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from making import ANSWER, SHORT, OpenStore, a_job, lines_of, over, pieces, run_one, some_jobs, state_of
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from redis_server import RedisServer
from running import until

from proxy.errors import JobsFull, JobsUnavailable
from proxy.jobs import Kind
from proxy.jobs.batches import Batch
from proxy.jobs.files import StoredFile
from proxy.jobs.redis import link
from proxy.jobs.store import opened


async def test_replicas_share_the_work(own_redis: RedisServer, open_store: OpenStore):
    """Each job is run by one of them, and what one accepts is news for the other."""
    first, second = [(await open_store(own_redis.url)).jobs for _ in range(2)]
    waiting = asyncio.create_task(run_one(second))
    await first.add(job := a_job())
    assert (await waiting).id == job.id
    await first.add(*some_jobs(40))
    claims = await asyncio.gather(*[jobs.claim(Kind.LIVE, 5, 60) for jobs in (first, second) * 8])
    ids = [job.id for claimed in claims for job in claimed.jobs]
    assert len(ids) == len(set(ids)) == 40


async def test_a_job_whose_replica_died_is_taken_over(own_redis: RedisServer, open_store: OpenStore):
    """When its lease ends, without any news; and the dead one's answer, should it come after all, is refused."""
    first, second = [(await open_store(own_redis.url)).jobs for _ in range(2)]
    await first.add(a_job())
    taken = asyncio.create_task(run_one(second))
    died = await run_one(first, lease=SHORT) if not taken.done() else None
    if died is None or taken.done():
        died, first, second = await taken, second, first
        taken = asyncio.create_task(run_one(second))
    other = await taken
    assert other.fence == died.fence + 1
    assert not await first.ack(died.claim, ANSWER)
    assert await second.ack(other.claim, ANSWER)


async def test_a_cancel_at_one_replica_stops_the_run_at_another(own_redis: RedisServer, open_store: OpenStore):
    first, second = [(await open_store(own_redis.url)).jobs for _ in range(2)]
    await first.add(a_job())
    running = await run_one(first)
    with first.news(running.id) as news:
        await second.cancel(running.id, caller=None)
        assert await news.next(20)
    assert await first.renew([running.claim], 60) == {running.id}


async def test_whoever_is_cancelled_while_it_asks_hears_of_it(own_redis: RedisServer, open_store: OpenStore):
    """At whichever moment: else a runner that is to stop would go on."""
    store = await open_store(own_redis.url)

    async def ask() -> None:
        await store.purge()
        await asyncio.Event().wait()

    for turns in range(120):
        asking = asyncio.create_task(ask())
        for _ in range(turns % 40):
            await asyncio.sleep(0)
        asking.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait((asking,))
        assert asking.cancelled()


async def test_all_keys_are_on_one_node_of_a_cluster(cluster_redis: RedisServer, open_store: OpenStore):
    """They share a hash tag, whatever callers call themselves."""
    cluster_redis.client.flushall()
    store = await open_store(cluster_redis.url)
    await store.jobs.add(a_job("{other}"), *lines_of("batch_1", 2))
    await store.jobs.find_or_add(a_job("}{", key="{k}"))
    await store.files.add(StoredFile(caller="{x}", purpose="batch", filename="f"), pieces(b"x"))
    await store.batches.add(Batch(caller="{y}", endpoint="/", window="24h", input_file="f"))
    keys = cluster_redis.client.keys("*")
    assert len(keys) > 10 and all(key.startswith("gigachat-proxy:{jobs}:") for key in keys)


async def test_nothing_is_left_of_what_is_forgotten(own_redis: RedisServer, open_store: OpenStore):
    """No key, but for the counts and the turns."""
    store = await open_store(own_redis.url)
    await store.jobs.add(*some_jobs(3, keep=0), *lines_of("batch_1", 3, keep=0))
    await store.jobs.find_or_add(a_job(key="k", keep=0))
    for kind in (*[Kind.LIVE] * 4, *[Kind.BATCH] * 3):
        await store.jobs.ack((await run_one(store.jobs, kind)).claim, ANSWER)
    file = await store.files.add(StoredFile(caller="ann", purpose="batch", filename="f"), pieces(b"x"))
    batch = Batch(caller="ann", endpoint="/", window="24h", input_file=file.id)
    await store.batches.add(batch)
    await store.files.delete(file.id, caller=None)
    await store.batches.delete(batch.id, caller=None)
    assert await store.purge() == 7
    assert {key.rpartition(":")[2] for key in own_redis.client.keys("*")} == {"total", "turns", "heard"}
    assert own_redis.fields("gigachat-proxy:{jobs}:total") == {"seq": 9, "jobs": 0, "bytes": 0}


async def test_parts_of_a_file_that_was_given_up_vanish(
    own_redis: RedisServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
):
    """After a while; whoever comes with the rest too late is told to begin again."""
    monkeypatch.setattr("proxy.jobs.redis.files.LIFE", SHORT)
    store = await open_store(own_redis.url)
    file = StoredFile(caller="ann", purpose="batch", filename="f")

    async def slow():
        yield bytes(300_000)
        await over(time.time() + SHORT)
        assert (await store.jobs.state()).bytes > 0
        await store.purge()
        assert (await store.jobs.state()).bytes == 0
        yield bytes(300_000)

    with pytest.raises(JobsUnavailable, match="send it again"):
        await store.files.add(file, slow())
    assert await store.files.get(file.id, caller=None) is None
    assert own_redis.client.keys("*parts*") == []


# ---- There and away ----


async def test_a_redis_that_is_not_there_is_told_at_the_start(open_store: OpenStore):
    with pytest.raises(JobsUnavailable, match=r"Redis of the jobs \(JOBS_URL\) is not reached"):
        await open_store("redis://127.0.0.1:1")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port", "memcached://there", "redis+sentinel://host"])
async def test_an_address_of_no_use_is_told_by_the_name_of_its_setting(url: str, open_store: OpenStore):
    with pytest.raises(ValueError, match=r"JOBS_URL cannot be used; allowed: .*, the path of an SQLite file, or off$"):
        await open_store(url)


async def test_a_password_is_never_told(own_redis: RedisServer):
    """Neither in what is printed, nor in what goes wrong."""
    own_redis.client.config_set("requirepass", "secret-word")
    async with opened(own_redis.url.replace("://", "://:secret-word@")) as store:
        assert "secret" not in f"{store!r}"
    with pytest.raises(JobsUnavailable) as refused:
        async with opened(own_redis.url.replace("://", "://:secret-wrong@")):
            pass
    assert "secret" not in str(refused.value)


async def test_a_connection_that_breaks_is_nobodys_failure(own_redis: RedisServer, open_store: OpenStore):
    """The operation is said again; and news are heard again."""
    jobs = (await open_store(own_redis.url)).jobs
    await jobs.add(a_job())
    for kind in ("normal", "pubsub"):
        own_redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await jobs.add(a_job())
    assert (await jobs.state()).jobs == 3
    with jobs.news(Kind.BATCH.topic) as news:
        await jobs.add(*lines_of("batch_1", 1))
        assert await news.next(20)


async def test_a_server_without_the_script_is_given_it(own_redis: RedisServer, open_store: OpenStore):
    jobs = (await open_store(own_redis.url)).jobs
    own_redis.client.script_flush()
    await jobs.add(a_job())
    assert (await jobs.state()).jobs == 1


async def test_a_redis_that_says_nothing_is_a_clear_error(
    own_redis: RedisServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
):
    """After a time-out; when it speaks again all goes on."""
    monkeypatch.setattr(link, "TIMEOUT", 1.0)
    jobs = (await open_store(own_redis.url)).jobs
    own_redis.hold()
    try:
        with pytest.raises(JobsUnavailable):
            await jobs.add(a_job())
    finally:
        own_redis.go_on()
    await jobs.state()


async def test_what_is_said_twice_is_done_once(own_redis: RedisServer, open_store: OpenStore):
    """The first answer may be lost on the way: adds, keys, ends and steps of batches do not mind."""
    store = await open_store(own_redis.url)
    jobs, run = store.jobs, store.jobs._link.run

    async def twice(*args, **words):
        await run(*args, **words)
        return await run(*args, **words)

    store.jobs._link.run = twice
    await jobs.add(a_job())
    found = await jobs.find_or_add(a_job(key="k"), lease=60)
    assert found.is_new and found.job.fence == 1
    assert await jobs.ack(found.job.claim, ANSWER)
    await store.batches.add(batch := Batch(caller="ann", endpoint="/", window="24h", input_file="f"))
    assert await store.batches.advance(batch.id, among=[batch.state], to="in_progress") is not None
    file = await store.files.add(StoredFile(caller="ann", purpose="batch", filename="f"), pieces(bytes(600_000)))
    assert sum([len(part) async for part in store.files.content(file.id)]) == file.bytes == 600_000
    state = await jobs.state()
    assert (state.jobs, state.live) == (2, 1)


# ---- What it must be ----


async def test_what_redis_refuses_for_now_is_told_as_such(own_redis: RedisServer, open_store: OpenStore):
    """A master that has lost its replicas, say: whoever runs jobs tries again, and does not die of it."""
    jobs = (await open_store(own_redis.url)).jobs
    await jobs.add(job := a_job())
    own_redis.client.config_set("min-replicas-to-write", 1)
    with pytest.raises(JobsUnavailable, match="NOREPLICAS"):
        await jobs.add(a_job())
    own_redis.client.config_set("min-replicas-to-write", 0)
    assert (await run_one(jobs)).id == job.id


async def test_jobs_that_redis_has_lost_stop_no_others(own_redis: RedisServer, open_store: OpenStore):
    """Thrown away for want of memory, or by hand: queued, running, delayed, with a deadline, or in a batch."""
    store = await open_store(own_redis.url)
    jobs = store.jobs
    await jobs.add(a_job(), a_job(), a_job())
    for end in (None, time.time()):
        running = await run_one(jobs, lease=SHORT)
        if end:
            await jobs.fail(running.claim, "no", retry_at=end)
    await jobs.add(a_job(deadline=time.time()), *lines_of("batch_1", 2))
    for key in own_redis.client.keys("*:job:*"):
        own_redis.client.delete(key)
    await jobs.add(good := a_job(), line := lines_of("batch_1", 3)[2])
    await over(time.time() + SHORT)
    assert (await run_one(jobs)).id == good.id
    assert (await run_one(jobs, Kind.BATCH)).id == line.id
    await store.purge()
    assert [found.id async for found in jobs.lines("batch_1")] == [line.id]
    assert (await jobs.state())[:3] == (0, 0, 0)


async def test_services_with_different_prefixes_do_not_meet(own_redis: RedisServer, open_store: OpenStore):
    """Two services may share a Redis: neither runs the other's jobs with its own key of the API."""
    one = await open_store(own_redis.url)
    other = await open_store(own_redis.url, prefix="another")
    await one.jobs.add(a_job())
    assert (await other.jobs.claim(Kind.LIVE, 1, 60)).jobs == ()
    await other.jobs.add(a_job())
    assert {key.partition(":")[0] for key in own_redis.client.keys("*")} == {"gigachat-proxy", "another"}


async def test_a_memory_that_is_full_is_a_clear_error_and_loses_nothing(own_redis: RedisServer, open_store: OpenStore):
    jobs = (await open_store(own_redis.url)).jobs
    await jobs.add(job := a_job())
    own_redis.client.config_set("maxmemory", 1)
    with pytest.raises(JobsFull, match="maxmemory"):
        await jobs.add(a_job())
    own_redis.client.config_set("maxmemory", 0)
    assert (await state_of(jobs, job)).id == job.id
    await jobs.add(a_job())


async def test_a_replica_that_cannot_be_written_is_told(own_redis: RedisServer, open_store: OpenStore):
    jobs = (await open_store(own_redis.url)).jobs
    own_redis.client.replicaof("127.0.0.1", "1")
    with pytest.raises(JobsUnavailable, match="name its master"):
        await jobs.add(a_job())


async def test_a_redis_that_would_lose_jobs_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """One that does not persist, and one that makes room by throwing away."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "no", "--maxmemory-policy", "allkeys-lru")
    try:
        server.start()
        with caplog.at_level(logging.WARNING, "proxy.jobs"):
            async with opened(server.url):
                pass
    finally:
        server.stop()
    assert "appendonly yes" in caplog.text and "noeviction" in caplog.text


async def test_a_redis_that_keeps_jobs_is_not_warned_of(own_redis: RedisServer, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "proxy.jobs"):
        async with opened(own_redis.url):
            pass
    assert caplog.text == ""


@pytest.mark.parametrize(
    "rights", [["~*", "+@all", "-@scripting"], ["~other*", "+@all", "&*"], ["~*", "+@all", "resetchannels"]]
)
async def test_a_user_without_the_rights_is_told_at_the_start(
    own_redis: RedisServer, open_store: OpenStore, rights: list[str]
):
    """To run scripts, to use our keys, to hear and tell news: not in the middle of the first job."""
    own_redis.client.execute_command("ACL", "SETUSER", "poor", "on", ">secret", *rights)
    with pytest.raises(JobsUnavailable, match="rights"):
        await open_store(own_redis.url.replace("://", "://poor:secret@"))


async def test_a_long_silence_is_no_failure(
    own_redis: RedisServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Whoever hears nothing for longer than an answer may take still listens, and asks now and then."""
    monkeypatch.setattr(link, "TIMEOUT", 1.0)
    monkeypatch.setattr(link, "QUIET", 0.2)
    jobs = (await open_store(own_redis.url)).jobs
    with jobs.news(Kind.LIVE.topic) as news:
        assert not await news.next(1.5)
        await jobs.add(a_job())
        assert await news.next(20)
    assert "no news" not in caplog.text


async def test_a_subscription_that_died_in_silence_is_opened_anew(
    own_redis: RedisServer, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
):
    """As when something on the way forgets idle connections: what may have been missed is taken for told."""
    monkeypatch.setattr(link, "TIMEOUT", 1.0)
    monkeypatch.setattr(link, "QUIET", 0.1)
    jobs = (await open_store(own_redis.url)).jobs
    with jobs.news("job_1") as news:
        own_redis.hold()
        await until(lambda: "not subscribed" in repr(jobs))
        own_redis.go_on()
        assert await news.next(20)


@pytest.mark.parametrize("fails", [False, True], ids=["silence", "an error"])
async def test_a_cancellation_that_the_client_library_swallows_ends_it_too(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, fails: bool
):
    """As it does when the time-out of a read ends in the same moment: a service that stops would never end."""
    get_message, swallowed = PubSub.get_message, []

    async def deaf(messages: PubSub, *args: Any, **kwargs: Any) -> Any:
        try:
            return await get_message(messages, *args, **kwargs)
        except asyncio.CancelledError:
            swallowed.append(messages)
            if fails:
                raise RedisError from None
            return None

    monkeypatch.setattr(PubSub, "get_message", deaf)
    async with asyncio.timeout(20):
        async with opened(own_redis.url):
            await asyncio.sleep(0)  # by now it listens
    assert swallowed
