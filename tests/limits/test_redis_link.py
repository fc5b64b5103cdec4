"""How Redis is reached: addresses, passwords, TLS, Sentinel; and what nobody gets to see."""

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from authority import Authority
from redis_server import RedisServer, free_port
from running import until

from proxy.limits.address import Address
from proxy.limits.link import RedisLink
from proxy.limits.wire import Reply

PASSWORD = "pass/word@with:signs"


async def dispatch(replica, url: str) -> None:
    """One call through this Redis."""
    limits = await replica(url, rpm=6000, concurrency=1, name="main")
    async with asyncio.timeout(20):
        permit = await limits.acquire()
        await permit.gate()
    permit.release()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[type]:
    """`server("--option", "value", username=..., ssl=...)`: a server with these options, stopped after the test."""
    servers = []

    def start(*options: str, **client: object) -> RedisServer:
        servers.append(RedisServer(tmp_path / f"redis-{len(servers)}", *options, **client))
        servers[-1].start()
        return servers[-1]

    yield start
    for one in servers:
        one.stop()


# ---- Where it is ----


async def test_a_password_and_a_database_may_be_in_the_address(server, replica):
    redis = server("--requirepass", PASSWORD, password=PASSWORD)
    await dispatch(replica, f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{redis.port}/5")
    assert redis.client.info("keyspace").keys() == {"db5"}


#: What a user of the limits must be allowed to do.
RIGHTS = (
    "resetkeys ~gigachat-proxy:* resetchannels &gigachat-proxy:* -@all +@connection +eval +evalsha +time +info +set"
    " +hmget +hset +pexpire +zadd +zcard +zcount +zrange +zrank +zrem +zremrangebyscore +zscore"
    " +publish +subscribe +unsubscribe"
)


async def test_a_user_needs_few_rights(server, replica):
    """Its own keys and channels, and these commands."""
    redis = server()
    redis.client.execute_command("ACL", "SETUSER", "limits", "on", ">secret", *RIGHTS.split())
    await dispatch(replica, f"redis://limits:secret@127.0.0.1:{redis.port}")


async def test_a_socket_of_this_machine_will_do(server, replica, tmp_path):
    server("--unixsocket", str(tmp_path / "s"))
    await dispatch(replica, f"unix://{tmp_path}/s")


async def test_over_tls_the_certificate_is_verified(replica, tmp_path, server, caplog):
    """By the roots that the address names; without them it is refused, and that is said."""
    authority = Authority.found(tmp_path)
    certificate, key = authority.issue("localhost")
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key)
    server(*tls, "--tls-ca-cert-file", str(authority.root), "--tls-auth-clients", "no")
    await dispatch(replica, f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority.root}")
    link = RedisLink(f"rediss://127.0.0.1:{port}")
    await link.start()
    assert not link.is_connected
    assert "is not reached" in caplog.text and "certificate" in caplog.text
    await link.close()


@pytest.fixture
def sentinel(server, tmp_path) -> Iterator[tuple[int, RedisServer, RedisServer]]:
    """A Sentinel with a master and its replica; they ask for a password, the Sentinel for another."""
    own = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    master = server(*own, password=PASSWORD)
    second = server(*own, "--replicaof", f"127.0.0.1 {master.port}", password=PASSWORD)
    port, config = free_port(), tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nrequirepass sentinels\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\nsentinel auth-pass main {PASSWORD}\n"
        "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
    )
    program = shutil.which("redis-server")
    assert program is not None
    with subprocess.Popen([program, str(config), "--sentinel"], stdout=subprocess.DEVNULL) as process:
        yield port, master, second
        process.kill()


async def test_the_master_that_sentinels_name_is_used_and_the_next_one_when_it_dies(sentinel, replica):
    """The address names the Sentinels; whichever does not answer is passed over."""
    port, master, second = sentinel
    url = (
        f"redis+sentinel://:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()},127.0.0.1:{port}/main/3"
        "?sentinel_password=sentinels"
    )
    limits = await replica(url, concurrency=1, name="main", link={"grace": 60})
    await until(lambda: limits.status().mode == "shared" and limits.status().replicas == 1)
    assert master.client.info("keyspace").keys() == {"db3"}
    await until(lambda: second.client.info("replication")["master_link_status"] == "up")
    (await limits.acquire()).release()
    master.kill()
    await until(lambda: second.client.info("replication")["role"] == "master")
    async with asyncio.timeout(20):
        (await limits.acquire()).release()
    assert limits.status().mode == "shared"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "localhost:6379",
        "http://:hush@localhost",
        "redis://:hush@localhost:port",
        "redis://:hush@localhost:99999",
        "redis://:hush@localhost?socket_timeout=soon",
        "redis://:hush@localhost?no_such_option=1",
        "redis+sentinel://:hush@localhost",
        "redis+sentinel://:hush@/main",
        "redis+sentinel://:hush@localhost:port/main",
        "redis+sentinel://:hush@localhost/main?no_such_option=1",
        "redis://[:hush",
    ],
)
async def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(url):
    """It may hold a password."""
    with pytest.raises(ValueError, match="REDIS_URL cannot be used; allowed: redis://") as refused:
        RedisLink(url)
    assert "hush" not in str(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:hush@host:6380/2", "redis://host:6380/2"),
        ("rediss://:hush@host?ssl_keyfile=hush", "rediss://host"),
        ("redis+sentinel://:hush@a,b:1/main/2?sentinel_password=hush", "redis+sentinel://a,b:1/main/2"),
        ("unix://:hush@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("redis://host?password=hush", "redis://host"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url, shown):
    """Neither here nor in what is made of it."""
    address = Address(url)
    assert address.text == shown
    assert "hush" not in repr(address)


async def test_a_wrong_password_is_told_and_not_shown(server, caplog):
    """The log says what is wrong; the password is nowhere."""
    redis = server("--requirepass", PASSWORD, password=PASSWORD)
    link = RedisLink(f"redis://:hush-hush@127.0.0.1:{redis.port}")
    with caplog.at_level(logging.DEBUG):
        await link.start()
    assert not link.is_connected
    assert f"redis://127.0.0.1:{redis.port} (REDIS_URL) is not reached" in caplog.text
    assert "password" in caplog.text
    assert "hush-hush" not in caplog.text + repr(link)
    await link.close()


# ---- What others may do ----


async def test_messages_that_are_not_ours_are_passed_over(redis, replica, caplog):
    """Whoever may write to our channels by mistake ends nothing."""
    limits = await replica(redis.url, name="main")
    for message in (
        b"\xff\xfe",
        b"hello",
        b"1 2 3",
        " ".join(["x"] * (len(Reply._fields) + 1)),
        " ".join([*map(str, range(len(Reply._fields))), "nobody:1:2"]),
    ):
        redis.client.publish("gigachat-proxy:to:all", message)
    (await limits.acquire()).release()
    assert limits.status().mode == "shared"
    assert "none of ours" in caplog.text


async def test_a_server_that_is_no_redis_is_away(unused_tcp_port):
    """A web server, say: nothing is sent, nothing fails."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", unused_tcp_port):
        link = RedisLink(f"redis://127.0.0.1:{unused_tcp_port}", timeout=0.3)
        await link.start()
        assert not link.is_connected
        await link.close()


async def test_a_limiter_needs_a_name(common_redis):
    """Without one its keys would not stay together."""
    from proxy.limits.shared import SharedLimits

    link = RedisLink(common_redis.url)
    with pytest.raises(ValueError, match="name"):
        SharedLimits(link, "")
    with pytest.raises(ValueError, match="beats"):
        SharedLimits(link, "main", lease=5, beat=5)
    await link.close()
