"""A waiting client is kept alive, and only one that takes no harm from it. Raw sockets tell what is on the wire."""

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest
from running import Proxy, StartProxy, busy, chat, until, waiting

import app
from emulator import Options
from proxy.heartbeat import AT_ONCE, PROCESSING, Heartbeat

SDK = {"User-Agent": "GigaChat-python-lib"}
STRANGER = {"User-Agent": "python-requests/2.32.3"}
API_CHAT = "/api/v1/chat/completions"
LAST_CHUNK = b"\r\n0\r\n\r\n"
API_BODY = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Привет"}], "stream": True}


def request_of(
    headers: dict[str, str],
    *,
    body: dict[str, Any] | None = None,
    path: str = "/",
    version: str = "1.1",
    length_first: bool = False,
) -> bytes:
    """A request as clients write it: what they say of themselves, then how long the body is."""
    content = json.dumps(body or chat()).encode()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines.insert(0 if length_first else len(lines), f"Content-Length: {len(content)}")
    return "\r\n".join([f"POST {path} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode() + content


@dataclass
class Heard:
    """What came over the wire: each status, the seconds that it took to come, and what followed the final one."""

    statuses: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    head: bytes = b""
    body: bytes = b""

    @property
    def beats(self) -> list[float]:
        return self.times[:-1]

    @property
    def status(self) -> int:
        return self.statuses[-1]


@asynccontextmanager
async def connected(proxy: Proxy) -> Any:
    host, port = urlsplit(proxy.url).hostname, urlsplit(proxy.url).port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def heads(reader: asyncio.StreamReader, heard: Heard) -> None:
    """Read up to the final status."""
    since = time.monotonic()
    while not heard.statuses or heard.status == 102:
        heard.head = await reader.readuntil(b"\r\n\r\n")
        heard.statuses.append(int(heard.head.split(b" ", 2)[1]))
        heard.times.append(time.monotonic() - since)


async def hear(proxy: Proxy, request: bytes, *, silence: float = 0.2) -> Heard:
    """Everything that comes until the body or the connection ends, or nothing comes for `silence` seconds."""
    heard = Heard()
    async with asyncio.timeout(20), connected(proxy) as (reader, writer):
        writer.write(request)
        await heads(reader, heard)
        try:
            while not heard.body.endswith(LAST_CHUNK) and (
                piece := await asyncio.wait_for(reader.read(65536), silence)
            ):
                heard.body += piece
        except TimeoutError:
            pass
    return heard


@pytest.fixture
def heartbeats(monkeypatch: pytest.MonkeyPatch) -> list[Heartbeat]:
    """The heartbeats of the proxies that the test starts."""
    made: list[Heartbeat] = []

    def make(interval: float) -> Heartbeat:
        made.append(Heartbeat(interval))
        return made[-1]

    monkeypatch.setattr(app, "Heartbeat", make)
    return made


# -- 102 Processing


async def test_a_sign_of_life_every_interval_in_line_and_in_flight(start_proxy: StartProxy) -> None:
    """The first one interval after arrival, one an interval until the final status, and then no more."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2)
    first = await busy(proxy, 0.5)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.6})
    heard = await hear(proxy, request_of(SDK), silence=0.5)
    assert heard.status == 200
    assert heard.times[-1] >= 1.0
    assert len(heard.beats) in (4, 5, 6)
    assert heard.beats[0] >= 0.19
    assert min(later - earlier for earlier, later in pairwise(heard.beats)) >= 0.1
    assert json.loads(heard.body)["status"] == "ok", "the body is the answer and nothing after it"
    await first


async def test_an_answer_within_the_interval_needs_no_sign(start_proxy: StartProxy) -> None:
    """The default is a second: a quick answer comes as ever, also from a client that would skip a 102."""
    proxy = await start_proxy()
    assert (await hear(proxy, request_of(SDK))).statuses == [200]


async def test_the_connection_serves_again_after_signs_of_life(start_proxy: StartProxy) -> None:
    """What was beaten on is an ordinary keep-alive connection afterwards."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05)
    async with connected(proxy) as (reader, writer):
        for seconds in (0.3, 0.2):
            proxy.giga.state.faults.add({"kind": "slow", "seconds": seconds})
            heard = Heard()
            writer.write(request_of(SDK))
            await heads(reader, heard)
            length = next(line for line in heard.head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            answer = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            assert heard.beats and heard.status == 200 and answer["status"] == "ok"


async def test_a_refusal_keeps_its_status_after_signs_of_life(start_proxy: StartProxy) -> None:
    """A 102 spends nothing: what fails later is told by its real status, plain and streaming."""
    proxy = await start_proxy(ext_max_requests=2, ext_retries=0, heartbeat_interval=0.05, exp_resp_timeout=0.3)
    proxy.giga.state.faults.add({"kind": "stall", "times": -1})
    for stream in (False, True):
        heard = await hear(proxy, request_of(SDK, body=chat(stream=stream)))
        assert heard.beats and heard.status == 504


TAKES = {
    "the SDK of GigaChat": request_of(SDK),
    "openai": request_of({"User-Agent": "OpenAI/Python 2.7.1"}),
    "openai, async": request_of({"User-Agent": "AsyncOpenAI/Python 2.7.1"}),
    "httpx": request_of({"User-Agent": "python-httpx/0.28.1"}),
    "aiohttp": request_of({"User-Agent": "Python/3.11 aiohttp/3.14.5"}),
    "curl": request_of({"User-Agent": "curl/7.88.1", "Accept": "*/*"}),
    "who asks for it": request_of({**STRANGER, "X-Heartbeat": "102"}),
    "who asks for it and has no name": request_of({"X-Heartbeat": "102"}, length_first=True),
}
TAKES_NOT = {
    "requests": request_of(STRANGER),
    "urllib": request_of({"User-Agent": "Python-urllib/3.11"}),
    "a browser": request_of({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/130.0"}),
    "no name": request_of({}),
    "another wish": request_of({**STRANGER, "X-Heartbeat": "no"}),
    "HTTP/1.0": request_of({**SDK, "X-Heartbeat": "102"}, version="1.0"),
    **{
        f"behind {name}": request_of({**SDK, "X-Heartbeat": "102", name: value})
        for name, value in {
            "Via": "1.1 squid",
            "Forwarded": "for=10.0.0.1",
            "X-Real-IP": "10.0.0.1",
            "X-Forwarded-For": "10.0.0.1",
            "x-forwarded-proto": "https",
            "X-Forwarded-Host": "example.org",
            "X-Forwarded-Port": "443",
        }.items()
    },
    "behind nginx, by its Connection: close": request_of({"Connection": "close", **SDK}),
    "behind nginx, by its order of headers": request_of(SDK, length_first=True),
    "curl behind nginx, by its order of headers": request_of({"User-Agent": "curl/7.88.1"}, length_first=True),
}


@pytest.mark.parametrize("stream", [False, True])
async def test_who_is_sent_102_and_who_never(start_proxy: StartProxy, stream: bool) -> None:
    """Those who are known to skip it, and who ask for it; nobody else, and nobody behind a proxy. All get a 200."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05)
    first = await busy(proxy, 0.5)
    clients = {**TAKES, **TAKES_NOT}
    requests = [with_stream(request) if stream else request for request in clients.values()]
    heard = dict(zip(clients, await asyncio.gather(*(hear(proxy, request) for request in requests)), strict=True))
    assert {name: one.status for name, one in heard.items()} == dict.fromkeys(clients, 200)
    assert {name for name, one in heard.items() if one.beats} == TAKES.keys()
    await first


def with_stream(request: bytes) -> bytes:
    """The same request, its answer wanted as a stream."""
    head, _, body = request.partition(b"\r\n\r\n")
    wanted = json.dumps(chat(stream=True)).encode()
    return head.replace(b"Content-Length: %d" % len(body), b"Content-Length: %d" % len(wanted)) + b"\r\n\r\n" + wanted


async def test_heartbeats_off_means_off(start_proxy: StartProxy) -> None:
    """With HEARTBEAT_102=off nobody is sent a 102, whoever asks."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05, heartbeat_102="off")
    first = await busy(proxy, 0.3)
    heard = await asyncio.gather(*(hear(proxy, request) for request in TAKES.values()))
    assert [one.statuses for one in heard] == [[200]] * len(TAKES)
    await first


async def test_nothing_is_left_of_those_who_leave(start_proxy: StartProxy, heartbeats: list[Heartbeat]) -> None:
    """Callers who leave while they wait, and callers who were answered, are beaten for no more."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05)
    first = await busy(proxy, 0.6)
    async with connected(proxy) as (reader, writer):
        writer.write(request_of(SDK))
        stays = asyncio.create_task(hear(proxy, request_of(SDK)))
        await until(lambda: len(heartbeats[0]) == 2)
        await reader.readuntil(b"\r\n\r\n")
    await until(lambda: len(heartbeats[0]) == 1 and waiting(proxy) == 1)
    assert (await stays).status == 200
    await first
    assert len(heartbeats[0]) == 0


# -- one timer for all


class Wire(asyncio.WriteTransport):
    """A transport that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = 0
        self.unread = 0
        self.has_gone = False

    def write(self, data: Any) -> None:
        assert data == PROCESSING
        self.beats += 1

    def is_closing(self) -> bool:
        return self.has_gone

    def get_write_buffer_size(self) -> int:
        return self.unread


def timers_of(pulse: Heartbeat) -> int:
    """How many of the loop's timers are this heartbeat's."""
    scheduled: Any = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return sum(getattr(timer._callback, "__self__", None) is pulse for timer in scheduled if not timer.cancelled())


@pytest.fixture
def pulse() -> Iterator[Heartbeat]:
    beating = Heartbeat(0.05)
    yield beating
    beating.close()


async def test_one_timer_and_no_task_whatever_the_number(pulse: Heartbeat) -> None:
    """Thousands who wait cost one timer, before the first beat and after it."""
    wires = [Wire() for _ in range(3000)]
    before = len(asyncio.all_tasks())
    with ExitStack() as all_of_them:
        for wire in wires:
            all_of_them.enter_context(pulse.alive(wire))
        assert timers_of(pulse) == 1
        await until(lambda: wires[-1].beats == 2)
        assert len(asyncio.all_tasks()) == before
        await until(lambda: timers_of(pulse) == 1)
        assert len(pulse) == 3000
    assert len(pulse) == 0
    await until(lambda: timers_of(pulse) == 0)


async def test_ten_thousand_do_not_hold_up_the_loop(pulse: Heartbeat) -> None:
    """All due at once are beaten for in slices, and everything else has its turn between two of them."""
    wires = [Wire() for _ in range(10_000)]
    with ExitStack() as all_of_them:
        for wire in wires:
            all_of_them.enter_context(pulse.alive(wire))
        counts = [0]
        while counts[-1] < len(wires):
            await asyncio.sleep(0)
            counts.append(sum(wire.beats > 0 for wire in wires[counts[-1] : counts[-1] + 2 * AT_ONCE]) + counts[-1])
    slices = [later - earlier for earlier, later in pairwise(counts)]
    assert max(slices) <= AT_ONCE <= 200, "about a millisecond of writes"


async def test_who_joins_later_is_beaten_for_in_its_own_time(pulse: Heartbeat) -> None:
    """Each has its own interval from its own arrival, though the timer is one."""
    loop = asyncio.get_running_loop()
    early, late = Wire(), Wire()
    with pulse.alive(early):
        await until(lambda: early.beats == 1)
        since = loop.time()
        with pulse.alive(late):
            await until(lambda: late.beats == 1)
            assert loop.time() - since >= 0.05
            await until(lambda: late.beats == 3)
        assert abs(early.beats - late.beats) <= 2
        seen = late.beats
        await until(lambda: early.beats >= 6)
        assert late.beats == seen, "who has left hears nothing more"


async def test_nothing_is_written_to_who_does_not_read_or_has_gone(pulse: Heartbeat) -> None:
    """A client that does not read piles up no bytes with us; one that has gone is not written to."""
    reads, reads_not, has_gone = Wire(), Wire(), Wire()
    reads_not.unread, has_gone.has_gone = 25, True
    with pulse.alive(reads), pulse.alive(reads_not), pulse.alive(has_gone):
        await until(lambda: reads.beats >= 2)
        assert (reads_not.beats, has_gone.beats) == (0, 0)
        reads_not.unread = 0
        await until(lambda: reads_not.beats >= 1)


# -- other clients' streams


async def test_a_stream_that_waits_long_gets_its_200_its_place_and_then_its_chunks(start_proxy: StartProxy) -> None:
    """After STREAM_EARLY_200 comments tell the place in line, an interval apart; the chunks follow as ever."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.1, stream_early_200=0.3)
    first = await busy(proxy, 0.9)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.4})
    heard = await hear(proxy, request_of(STRANGER, body=chat(stream=True)), silence=3)
    assert heard.statuses == [200]
    assert 0.29 <= heard.times[0] < 0.9
    assert b"text/event-stream" in heard.head
    lines = [line for line in heard.body.split(b"\n") if line[:1] == b":" or line[:5] == b"data:"]
    comments = [line for line in lines if line[:1] == b":"]
    assert lines[: len(comments)] == comments, "nothing but chunks once they have begun"
    assert comments[0].startswith(b": queued position=1 eta=")
    assert b": in flight" in comments
    assert len(comments) >= 5
    assert lines[-1] == b"data: [DONE]"
    assert heard.body.count(b'"delta"') >= 2
    await first


@pytest.mark.parametrize("early", [0, 5])
async def test_a_stream_that_need_not_wait_sees_no_comment(start_proxy: StartProxy, early: float) -> None:
    """The early 200 is for those who wait; 0 gives it at once, and then one comment may come."""
    proxy = await start_proxy(stream_early_200=early)
    heard = await hear(proxy, request_of(STRANGER, body=chat(stream=True)))
    assert heard.status == 200 and heard.body.count(b"\n:") <= 1
    assert (b": in flight" in heard.body or b": queued" in heard.body) is (early == 0)
    assert b"data: [DONE]" in heard.body


async def test_before_the_early_200_a_stream_fails_with_its_real_status(start_proxy: StartProxy) -> None:
    """The API's 402 and our own 504 are statuses as long as nothing was written."""
    proxy = await start_proxy(stream_early_200=2, exp_resp_timeout=0.3)
    proxy.giga.state.faults.add({"kind": "status", "status": 402}, {"kind": "stall"})
    statuses = [(await hear(proxy, request_of(STRANGER, body=chat(stream=True)))).status for _ in range(2)]
    assert statuses == [402, 504]


async def test_after_the_early_200_a_failure_is_told_by_the_dialects_event(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """The native error event, with the same words as the status would have had; the stream ends neatly."""
    proxy = await start_proxy(stream_early_200=0.1, heartbeat_interval=0.1, exp_resp_timeout=0.5)
    proxy.giga.state.faults.add({"kind": "stall"})
    heard = await hear(proxy, request_of(STRANGER, body=chat(stream=True)), silence=2)
    assert heard.status == 200
    _, _, event = heard.body.partition(b"event: error\n")
    told = json.loads(event.split(b"\n")[0].removeprefix(b"data: "))
    assert told["data"] == {} and "EXP_RESP_TIMEOUT" in told["status"]
    assert b"[DONE]" not in heard.body
    assert heard.body.endswith(LAST_CHUNK)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_apis_own_stream_follows_its_early_200(start_proxy: StartProxy) -> None:
    """Byte for byte, behind the comments."""
    proxy = await start_proxy(stream_early_200=0, heartbeat_interval=0.1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.3})
    heard = await hear(proxy, request_of(STRANGER, body=API_BODY, path=API_CHAT), silence=5)
    assert heard.statuses == [200]
    assert heard.body.index(b": in flight") < heard.body.index(b'"delta"') < heard.body.index(b"data: [DONE]")
    assert heard.body.endswith(LAST_CHUNK)


@pytest.mark.parametrize(
    ("fault", "timeout"),
    [({"kind": "stall"}, 0.5), ({"kind": "cut_stream", "after_chunks": 2}, 20)],
    ids=["after comments", "after chunks"],
)
async def test_gigachats_dialect_has_no_error_event_so_the_connection_is_cut(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture, fault: dict[str, Any], timeout: float
) -> None:
    """What was sent before still arrives, but neither `[DONE]` nor the last chunk: nobody takes it for whole."""
    proxy = await start_proxy(
        Options(chunk_delay=0.05), stream_early_200=0.1, heartbeat_interval=0.1, exp_resp_timeout=timeout
    )
    proxy.giga.state.faults.add(fault)
    heard = await hear(proxy, request_of(STRANGER, body=API_BODY, path=API_CHAT), silence=5)
    assert heard.status == 200
    assert (b": in flight" if fault["kind"] == "stall" else b'"delta"') in heard.body
    assert b"[DONE]" not in heard.body
    assert not heard.body.endswith(LAST_CHUNK)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_bug_in_a_stream_that_has_begun_is_told_like_any_failure(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No second status line in the midst of a body."""
    proxy = await start_proxy(stream_early_200=0, heartbeat_interval=0.1)
    monkeypatch.setattr("proxy.dialects.native.Native.event", lambda *_: 1 / 0)
    heard = await hear(proxy, request_of(STRANGER, body=chat(stream=True)))
    assert b"HTTP/1.1" not in heard.body
    assert b"event: error\n" in heard.body and b"internal error" in heard.body
    assert "ZeroDivisionError" in caplog.text


async def test_who_leaves_among_comments_leaves_nothing_behind(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request leaves the line with it, nothing is sent for it, and nothing is called a bug."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05, stream_early_200=0.1)
    first = await busy(proxy, 0.8)
    async with connected(proxy) as (reader, writer):
        writer.write(request_of(STRANGER, body=chat("leaves", stream=True)))
        await reader.readuntil(b": queued")
        assert waiting(proxy) == 1
    await until(lambda: waiting(proxy) == 0)
    await first
    assert await proxy.sent_texts() == ["first"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
