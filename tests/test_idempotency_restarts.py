"""Idempotency-Key over stops, kills and replicas: what was accepted is answered, and paid for twice only in need."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from held_upstream import Gate
from processes import Process, copy_tree, launch
from pydantic import SecretStr
from redis_server import RedisServer
from running import chat, settings_for, until

import app
import emulator

#: Seconds for which a replica of these tests holds a job without renewing it.
LEASE = 1.5


@dataclass
class Caller:
    """Asks services, and knows what reached the API behind them."""

    giga: emulator.Emulator
    http: aiohttp.ClientSession
    gate: Gate

    async def ask(self, url: str, text: str, key: str = "") -> tuple[int, Any, bytes]:
        headers = {"Idempotency-Key": key or text.replace(" ", "-")}
        async with self.http.post(url, json=chat(text), headers=headers) as answer:
            return answer.status, answer.headers, await answer.read()

    def asking(self, url: str, text: str, key: str = "") -> "asyncio.Task[tuple[int, Any, bytes]]":
        return asyncio.create_task(self.ask(url, text, key))

    def sent(self) -> list[str]:
        """The text of each call."""
        bodies = [orjson.loads(call.body) for call in self.giga.state.calls.to("/chat/completions") if call.body]
        return [body["messages"][-1]["content"] for body in bodies]

    def stalls(self) -> None:
        """The next call is never answered."""
        self.giga.state.faults.add({"kind": "stall"})

    def holds(self) -> None:
        """The next call is answered when the gate is opened."""
        self.gate.holds(self.giga)


@pytest.fixture
async def caller(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Caller]:
    async with emulator.start(emulator.Options()) as giga, aiohttp.ClientSession() as http:
        yield Caller(giga, http, Gate(monkeypatch))


def serving(caller: Caller, place: str | Path, **knobs: Any) -> Any:
    """A service in this process."""
    usual = {"jobs_url": SecretStr(str(place)), "ext_max_requests": 1, "drain_timeout": 0}
    return app.serving(settings_for(caller.giga, **{**usual, **knobs}))


class Waiting:
    """A caller of whom it is known that it waits: it was sent a sign of life."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def at(cls, url: str, text: str) -> "Waiting":
        to, body = urlsplit(url), json.dumps(chat(text)).encode()  # to the byte as the other client
        reader, writer = await asyncio.open_connection(to.hostname, to.port)
        head = f"POST / HTTP/1.1\r\nHost: {to.netloc}\r\nX-Heartbeat: 102\r\nIdempotency-Key: {text}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b" 102 " in await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def answer(self) -> bytes:
        """All of it, from its final status on."""
        while b" 102 " in (head := await self._reader.readuntil(b"\r\n\r\n")):
            pass
        (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await self._reader.readexactly(int(length.split(b":")[1]))
        self._writer.close()
        await self._writer.wait_closed()
        return head + body


# ---- A stop, and another start ----


async def test_a_stop_answers_who_is_in_flight_and_keeps_who_waits(caller: Caller, tmp_path: Path) -> None:
    """Whoever is not answered gets 503 with Retry-After; the next start goes on, and the repeat is answered."""
    place = tmp_path / "jobs.sqlite"
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(caller, place, drain_timeout=2))
        caller.holds()
        caller.stalls()
        in_flight = caller.asking(service.url, "in flight")
        await until(lambda: caller.sent() == ["in flight"])
        cut = caller.asking(service.url, "cut")
        await until(lambda: service.line.state().waiting == 1)
        waits = caller.asking(service.url, "waits")
        await until(lambda: service.line.state().waiting == 2)
        stopping = asyncio.create_task(stack.aclose())
        await until(lambda: service.line.state().is_stopping)
        caller.gate.open()
        await stopping
    assert (await in_flight)[0] == 200
    for task in (cut, waits):
        status, headers, body = await task
        assert status == 503 and headers["Retry-After"] == "1" and b"stopping" in body
    assert caller.sent() == ["in flight", "cut"]
    async with serving(caller, place) as service:
        await until(lambda: len(caller.sent()) == 4)
        for text in ("in flight", "cut", "waits"):
            status, _, body = await caller.ask(service.url, text)
            assert status == 200 and text.encode() in body
    assert sorted(caller.sent()) == ["cut", "cut", "in flight", "waits"]


async def test_a_service_that_stops_takes_no_more(caller: Caller, tmp_path: Path) -> None:
    """503, and nothing is kept that would be sent later: who is refused need not come back."""
    place = tmp_path / "jobs.sqlite"
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(caller, place, drain_timeout=5))
        caller.holds()
        in_flight = caller.asking(service.url, "in flight")
        await until(lambda: caller.sent() == ["in flight"])
        stopping = asyncio.create_task(stack.aclose())
        await until(lambda: service.line.state().is_stopping)
        status, headers, _ = await caller.ask(service.url, "late")
        assert status == 503 and "Retry-After" in headers
        caller.gate.open()
        await asyncio.gather(in_flight, stopping)
    async with serving(caller, place) as service:
        assert (await service.work.store.jobs.state()).jobs == 1
    assert caller.sent() == ["in flight"]


async def test_an_answer_is_told_again_after_a_restart(caller: Caller, tmp_path: Path) -> None:
    place, told = tmp_path / "jobs.sqlite", []
    for _ in range(2):
        async with serving(caller, place) as service:
            told.append(await caller.ask(service.url, "mine"))
            await until(lambda: service.work.runner.under_way == 0)
    (status, _, body), (again, headers, same) = told
    assert (status, body) == (again, same) == (200, body) and headers["Idempotency-Replayed"] == "true"
    assert caller.sent() == ["mine"]


# ---- A kill ----

Launch = Callable[..., Awaitable[Process]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The service with a lease that tests can wait for."""
    (tmp_path / "tree").mkdir()
    tree = copy_tree(tmp_path / "tree")
    runner = tree / "proxy" / "jobs" / "runner.py"
    code = runner.read_text(encoding="utf-8")
    assert code.count("LEASE = 30.0\n") == 1
    runner.write_text(code.replace("LEASE = 30.0\n", f"LEASE = {LEASE}\n"), encoding="utf-8")
    return tree


@contextmanager
def launching(caller: Caller, tree: Path, home: Path, place: str | Path) -> Iterator[Launch]:
    """`start()`: a service of its own process; all are gone afterwards."""
    started: list[Process] = []
    settings = {
        "GIGACHAT_API_KEY": "a-key",
        "GIGACHAT_BASE_URL": f"{caller.giga.url}/v1",
        "GIGACHAT_AUTH_URL": f"{caller.giga.url}/api/v2/oauth",
        "JOBS_URL": str(place),
        "EXT_MAX_REQUESTS": "1",
        "HEARTBEAT_INTERVAL": "0.05",
    }

    async def start(**more: str) -> Process:
        process = launch(tree, home / f"log-{len(started)}", env=settings | more)
        started.append(process)
        await asyncio.to_thread(process.wait_until_it_listens)
        return process

    try:
        yield start
    finally:
        for process in started:
            if process.process.poll() is None:
                process.process.kill()
            process.wait()


async def killed(process: Process) -> None:
    process.process.kill()
    await process.gone()


async def unanswered(*tasks: "asyncio.Task[Any]") -> None:
    """Their connections broke."""
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, aiohttp.ClientError)


async def test_after_kill_9_the_repeat_is_answered(caller: Caller, tree: Path, tmp_path: Path) -> None:
    """What was done is told again, what waited is one call, what was in flight is two at most."""
    with launching(caller, tree, tmp_path, tmp_path / "jobs.sqlite") as start:
        first = await start()
        done = await caller.ask(first.url, "done")
        await is_stored(caller, first.url, "done")
        caller.stalls()
        in_flight = caller.asking(first.url, "in flight")
        await until(lambda: caller.sent()[-1:] == ["in flight"])
        waits = caller.asking(first.url, "waits")
        await is_taken(tmp_path / "jobs.sqlite", 3)
        await killed(first)
        await unanswered(in_flight, waits)
        second = await start()
        for text in ("waits", "in flight", "done"):
            status, headers, body = await caller.ask(second.url, text)
            assert status == 200 and text.encode() in body
        assert body == done[2] and headers["Idempotency-Replayed"] == "true"
    assert sorted(caller.sent()) == ["done", "in flight", "in flight", "waits"]


async def is_stored(caller: Caller, url: str, text: str) -> None:
    """Until the answer is in the store: it is told to its caller a moment before."""
    async with asyncio.timeout(20):
        while "Idempotency-Replayed" not in (await caller.ask(url, text))[1]:
            pass


async def is_taken(place: Path, number: int) -> None:
    """Until the store of another process holds so many jobs."""

    def jobs() -> int:
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])

    await until(lambda: jobs() == number)


async def test_when_a_replica_is_killed_another_answers_who_follows_there(
    caller: Caller, redis: RedisServer, tree: Path, tmp_path: Path
) -> None:
    """The repeat at the other replica joins; when the first one dies, its request is taken over and answered."""
    with launching(caller, tree, tmp_path, redis.url) as start:
        first, second = await start(), await start()
        caller.stalls()
        lost = caller.asking(first.url, "mine")
        await until(lambda: caller.sent() == ["mine"])
        followers = [await Waiting.at(second.url, "mine") for _ in range(3)]
        await killed(first)
        await unanswered(lost)
        answers = await asyncio.gather(*[follower.answer() for follower in followers])
        status, _, body = await caller.ask(second.url, "mine")
    assert status == 200 and all(b" 200 " in answer and answer.endswith(body) for answer in answers)
    assert caller.sent() == ["mine", "mine"]


async def test_whoever_follows_what_is_elsewhere_is_told_to_come_back(
    caller: Caller, redis: RedisServer, tree: Path, tmp_path: Path
) -> None:
    """When its own replica stops: there is no line in which it would be answered. It comes back to the other one."""
    with launching(caller, tree, tmp_path, redis.url) as start:
        first, second = await start(), await start()
        caller.holds()
        runs = caller.asking(first.url, "mine")
        await until(lambda: caller.sent() == ["mine"])
        follower = await Waiting.at(second.url, "mine")
        second.signal()
        answer = await follower.answer()
        assert b" 503 " in answer and b"Retry-After: 1" in answer
        assert await second.gone() == 0
        again = caller.asking(first.url, "mine")
        caller.gate.open()
        assert (await again)[0] == (await runs)[0] == 200
    assert caller.sent() == ["mine"]


async def test_what_a_stopping_replica_gives_back_the_other_answers(
    caller: Caller, redis: RedisServer, tree: Path, tmp_path: Path
) -> None:
    """The repeat there is answered, and so is who followed there all the time."""
    with launching(caller, tree, tmp_path, redis.url) as start:
        first, second = await start(DRAIN_TIMEOUT="0"), await start()
        caller.stalls()
        blocks = caller.asking(first.url, "blocks")
        await until(lambda: caller.sent() == ["blocks"])
        waits = caller.asking(first.url, "waits")
        await until(lambda: len(redis.client.keys("*:job:*")) == 2)
        follower = await Waiting.at(second.url, "waits")
        first.signal()
        assert (await waits)[0] == (await blocks)[0] == 503
        assert b" 200 " in await follower.answer()
        assert (await caller.ask(second.url, "waits"))[0] == 200
        assert (await caller.ask(second.url, "blocks"))[0] == 200
        assert await first.gone() == 0
    assert sorted(caller.sent()) == ["blocks", "blocks", "waits"]


# ---- Two replicas ----


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def is_listened_for(service: app.Service) -> bool:
    """Somebody waits for news of a job."""
    listening = service.work.store.jobs._link.hub._listening  # type: ignore[attr-defined]
    return any(topic.startswith("job_") for topic in listening)


@asynccontextmanager
async def two(caller: Caller, redis: RedisServer) -> AsyncIterator[tuple[app.Service, app.Service]]:
    async with serving(caller, redis.url) as one, serving(caller, redis.url) as other:
        yield one, other


async def test_a_repeat_at_the_other_replica_joins(caller: Caller, redis: RedisServer) -> None:
    """While it runs and when it is done; there is one call."""
    async with two(caller, redis) as (one, other):
        caller.holds()
        first = caller.asking(one.url, "mine")
        await until(lambda: caller.sent() == ["mine"])
        joins = caller.asking(other.url, "mine")
        await until(lambda: is_listened_for(other))
        caller.gate.open()
        joined = await joins
        assert joined[0] == 200 and "Idempotency-Replayed" not in joined[1]
        assert joined[2] == (await first)[2]
        again = await caller.ask(other.url, "mine")
        assert again[2] == joined[2] and again[1]["Idempotency-Replayed"] == "true"
        assert again[1]["X-Request-ID"] == (await first)[1]["X-Request-ID"]
    assert caller.sent() == ["mine"]


async def test_a_hundred_at_two_replicas_are_one_call(caller: Caller, redis: RedisServer) -> None:
    async with two(caller, redis) as services:
        asking = [caller.ask(services[number % 2].url, "mine") for number in range(100)]
        answers = await asyncio.gather(*asking)
    assert {(status, body) for status, _, body in answers} == {(200, answers[0][2])}
    assert caller.sent() == ["mine"]


async def test_the_other_replica_refuses_another_request_with_the_key(caller: Caller, redis: RedisServer) -> None:
    async with two(caller, redis) as (one, other):
        await caller.ask(one.url, "mine", "k")
        assert (await caller.ask(other.url, "another", "k"))[0] == 409
    assert caller.sent() == ["mine"]
