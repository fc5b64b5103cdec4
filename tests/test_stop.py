"""The stop, with real processes and real signals: refuse new, finish old until the deadline, answer the rest, leave."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from processes import Process, copy_tree, started
from running import chat

import emulator

#: Seconds by which a loaded machine may be late.
TOLERANCE = 1.0
LONG = ", ".join(["слово"] * 40)


@dataclass
class Told:
    """An answer, and when it came."""

    status: int
    headers: Any
    body: dict[str, Any]
    at: float

    def is_stopping(self) -> bool:
        """A 503 as it should be: Retry-After, and the native envelope with its reason."""
        return (
            self.status == 503
            and 1 <= int(self.headers["Retry-After"]) <= 30
            and self.body["app"] == "gigachat-proxy"
            and "stopping" in self.body["status"]
            and self.body["data"] == {}
        )


@dataclass
class Running:
    """A service of its own process, with the emulator of this one behind it."""

    process: Process
    giga: emulator.Emulator
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.process.url

    async def ask(self, text: str = "Привет") -> Told:
        async with self.http.post(self.url, json=chat(text)) as answer:
            return Told(answer.status, answer.headers, await answer.json(), time.monotonic())

    async def ask_many(self, number: int) -> list[asyncio.Task[Told]]:
        """So many requests, one in flight and the others in line, each there before the next one comes."""
        asking = []
        for place in range(number):
            asking.append(asyncio.create_task(self.ask(f"n{place}")))
            if place == 0:
                await self.sent(1)
            else:
                await asyncio.sleep(0.01)
        return asking

    async def sent(self, number: int) -> None:
        """Until the upstream has received so many chats."""
        async with asyncio.timeout(20):
            while len(self.giga.state.calls.to("/chat/completions")) < number:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)

    def stalls(self) -> None:
        """From now on the upstream answers nobody."""
        self.giga.state.faults.add({"kind": "stall", "times": -1})

    async def is_stopping(self) -> None:
        """Until the signal has been heard."""
        async with asyncio.timeout(20):
            while "stopping" not in self.process.output:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.005)


Start = Callable[..., Any]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
async def start(tree: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """`await start(Options(...), DRAIN_TIMEOUT="5")`: an emulator, and a service of its own process before it."""
    async with AsyncExitStack() as stack:

        async def start_it(options: emulator.Options | None = None, **env: str) -> Running:
            giga = await stack.enter_async_context(emulator.start(options or emulator.Options()))
            settings = {
                "GIGACHAT_API_KEY": "a-key",
                "GIGACHAT_BASE_URL": f"{giga.url}/v1",
                "GIGACHAT_AUTH_URL": f"{giga.url}/api/v2/oauth",
                "HEARTBEAT_INTERVAL": "0.2",
                **env,
            }
            process = stack.enter_context(started(tree, tmp_path / "log", env=settings))
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            return Running(process, giga, http)

        yield start_it


# ---- The drain ----


async def test_twenty_in_line_and_a_drain_of_five_seconds(start: Start) -> None:
    """What can be answered is answered in its order, the rest and newcomers get 503, and it is gone in time."""
    service = await start(emulator.Options(latency=0.4), DRAIN_TIMEOUT="5")
    asking = await service.ask_many(20)
    began = time.monotonic()
    service.process.signal()
    await service.is_stopping()
    await asyncio.sleep(1)
    newcomer = await service.ask("newcomer")
    assert newcomer.is_stopping() and newcomer.at - began < 1 + TOLERANCE
    assert 2 <= int(newcomer.headers["Retry-After"]) <= 5
    answers = await asyncio.gather(*asking)
    assert await service.process.gone() == 0
    assert time.monotonic() - began < 5 + TOLERANCE
    statuses = [answer.status for answer in answers]
    answered = statuses.count(200)
    assert statuses == [200] * answered + [503] * (20 - answered)
    assert 5 <= answered < 20  # 0.4 s each, one at a time
    assert all(answer.is_stopping() for answer in answers[answered:])
    sent = [call.json()["messages"][-1]["content"] for call in service.giga.state.calls.to("/chat/completions")]
    assert sent[:answered] == [f"n{place}" for place in range(answered)] and len(sent) <= answered + 1
    assert "newcomer" not in sent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_when_all_is_answered_it_leaves_without_waiting(start: Start, number: int) -> None:
    """The deadline is a bound, not a delay; Ctrl-C is as polite as kill."""
    service = await start(emulator.Options(latency=0.2), DRAIN_TIMEOUT="30")
    asking = await service.ask_many(3)
    began = time.monotonic()
    service.process.signal(number)
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
    assert await service.process.gone() == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in service.process.output and service.process.output.rstrip().endswith("stopped")


async def test_an_open_stream_is_finished_during_the_drain(start: Start) -> None:
    """Its caller reads to [DONE]; who waits behind it is answered too."""
    service = await start(emulator.Options(chunk_delay=0.05), DRAIN_TIMEOUT="20")
    async with service.http.post(service.url, json=chat(LONG, stream=True)) as stream:
        beginning = await stream.content.readany()
        behind = asyncio.create_task(service.ask("behind"))
        await asyncio.sleep(0.05)
        service.process.signal()
        whole = beginning + await stream.content.read()
    assert whole.endswith(b"data: [DONE]\n\n") and b"event: error" not in whole
    assert (await behind).status == 200
    assert await service.process.gone() == 0


async def test_a_stream_that_outlasts_the_drain_is_told_so(start: Start) -> None:
    """Its 200 is out already, so an error event says that the service stops; there is no [DONE]."""
    service = await start(emulator.Options(chunk_delay=0.5), DRAIN_TIMEOUT="1")
    async with service.http.post(service.url, json=chat(LONG, stream=True)) as stream:
        beginning = await stream.content.readany()
        began = time.monotonic()
        service.process.signal()
        whole = beginning + await stream.content.read()
    assert b"event: error\ndata: {" in whole and b"stopping" in whole and b"[DONE]" not in whole
    assert await service.process.gone() == 0
    assert time.monotonic() - began < 1 + TOLERANCE


# ---- What must not delay it ----


async def test_a_second_signal_stops_at_once(start: Start) -> None:
    """In flight and waiting get their 503, nobody waits for the drain, and the exit code is still 0."""
    service = await start(DRAIN_TIMEOUT="30")
    service.stalls()
    asking = await service.ask_many(4)
    service.process.signal()
    await service.is_stopping()
    assert (await service.ask("newcomer")).is_stopping()
    began = time.monotonic()
    service.process.signal()
    assert all(answer.is_stopping() for answer in await asyncio.gather(*asking))
    assert await service.process.gone() == 0
    assert time.monotonic() - began < TOLERANCE + 1


@pytest.mark.parametrize(
    "fault",
    [{"kind": "stall"}, {"kind": "429"}, {"kind": "429", "retry_after": 60}],
    ids=["stalls", "throttles", "pauses"],
)
async def test_an_upstream_that_answers_nobody_cannot_outlast_the_drain(start: Start, fault: dict[str, Any]) -> None:
    """In flight, in line, or behind a pause: 503 when the time is up."""
    service = await start(DRAIN_TIMEOUT="1")
    service.giga.state.faults.add({**fault, "times": -1})
    asking = await service.ask_many(3)
    began = time.monotonic()
    service.process.signal()
    assert all(answer.is_stopping() for answer in await asyncio.gather(*asking))
    assert await service.process.gone() == 0
    assert time.monotonic() - began < 1 + TOLERANCE


async def test_with_no_drain_everybody_is_told_at_once(start: Start) -> None:
    """DRAIN_TIMEOUT=0: 503 for all, and gone."""
    service = await start(DRAIN_TIMEOUT="0")
    service.stalls()
    asking = await service.ask_many(5)
    began = time.monotonic()
    service.process.signal()
    assert all(answer.is_stopping() for answer in await asyncio.gather(*asking))
    assert await service.process.gone() == 0
    assert time.monotonic() - began < TOLERANCE + 0.5


async def test_connections_without_a_request_do_not_delay_it(start: Start) -> None:
    """Idle keep-alive connections, silent ones, and one that stopped in the middle of its request."""
    service = await start(DRAIN_TIMEOUT="30")
    address = urlsplit(service.url)
    head = f"POST / HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    opened = []
    for beginning in (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"",
        b"POST / HT",
        head.encode(),
        head.encode() + b"{",
    ):
        for _ in range(5):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(beginning)
            if b"health" in beginning:
                await reader.readuntil(b'{"status":"ok"}')
            opened.append(writer)
    await asyncio.sleep(0.2)
    began = time.monotonic()
    service.process.signal()
    assert await service.process.gone() == 0
    assert time.monotonic() - began < 1 + TOLERANCE
    for writer in opened:
        writer.close()


ENDLESS = """
def validate_data(data): return True
async def request_api(data): return {}
def get_info(): return {}
async def stream_api(data):
    while True:
        yield {"piece": "x" * 100_000}
"""


async def test_a_caller_who_reads_nothing_does_not_delay_it(tree: Path, tmp_path: Path) -> None:
    """A stream that its caller does not read is cut when the time is up."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    env = {"CONNECTOR": "endless", "DRAIN_TIMEOUT": "1"}
    with started(tree, tmp_path / "log", env=env, cwd=tmp_path) as process:
        address = urlsplit(process.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024)
        body = b'{"messages": [], "generate_parameters": {"stream": true}}'
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert b" 200 OK" in await reader.readline()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        process.signal()
        assert await process.gone() == 0
        assert time.monotonic() - began < 1 + TOLERANCE
        writer.close()
