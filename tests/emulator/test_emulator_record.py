"""The record of calls, by which tests judge what a caller sent and when."""

import asyncio
import hashlib
import time
from typing import Any

import pytest
from emulator_callers import TOKEN, Caller, Start, bearer, until

from emulator import calls as record


async def recorded(caller: Caller, query: str = "") -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = (await caller.get(f"/_emulator/calls{query}")).json
    return calls


async def test_a_call_is_recorded_as_it_came(caller: Caller) -> None:
    body = b'{"model": "GigaChat-2",  "messages": [{"role": "user", "content": "\xd1\x8f"}]}'
    await caller.send("POST", "/v1/chat/completions?a=1&b=2", data=body, headers={"X-Client-ID": "cat"})
    (call,) = await recorded(caller)
    assert (call["n"], call["method"], call["path"], call["query"]) == (1, "POST", "/v1/chat/completions", "a=1&b=2")
    assert call["headers"]["x-client-id"] == "cat"
    assert call["body"]["messages"][0]["content"] == "я"
    assert call["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert (call["status"], call["in_flight"], call["disconnected"], call["fault"]) == (200, 1, False, "")


async def test_arrivals_are_stamped_in_order_on_the_monotonic_clock(caller: Caller) -> None:
    before = time.monotonic_ns()
    for _ in range(3):
        await caller.chat()
    after = time.monotonic_ns()
    stamps = [stamp for call in await recorded(caller) for stamp in (call["arrived_ns"], call["finished_ns"])]
    assert [before, *stamps, after] == sorted([before, *stamps, after])


async def test_arrival_is_the_first_byte_even_if_the_body_comes_later(caller: Caller) -> None:
    gate = asyncio.Event()

    async def slow_body() -> Any:
        yield b'{"model": "GigaChat-2", '
        await gate.wait()
        yield b'"messages": [{"role": "user", "content": "1"}]}'

    call = asyncio.create_task(caller.send("POST", "/v1/chat/completions", data=slow_body()))
    await until(lambda: caller.emulator.state.calls.count)
    opened = time.monotonic_ns()
    gate.set()
    assert (await call).status == 200
    assert next(iter(caller.emulator.state.calls)).arrived_ns < opened


async def test_each_call_on_one_connection_has_its_own_stamp(caller: Caller) -> None:
    await caller.chat()
    between = time.monotonic_ns()
    await caller.get("/_emulator/state")
    await caller.chat()
    first, second = caller.emulator.state.calls
    assert first.arrived_ns < between < second.arrived_ns


async def test_a_secret_is_recorded_only_as_its_hash(caller: Caller) -> None:
    await caller.chat(headers=bearer("very-secret"))
    (call,) = await recorded(caller)
    digest = hashlib.sha256(b"very-secret").hexdigest()[:12]
    assert call["headers"]["authorization"] == f"Bearer sha256:{digest}"
    assert "very-secret" not in (await caller.get("/_emulator/calls")).text


async def test_the_record_can_be_narrowed_to_a_path_and_to_later_calls(caller: Caller) -> None:
    await caller.oauth()
    await caller.chat()
    await caller.chat()
    assert [call["n"] for call in await recorded(caller, "?path=/oauth")] == [1]
    assert [call["n"] for call in await recorded(caller, "?path=/chat/completions")] == [2, 3]
    assert [call["n"] for call in await recorded(caller, "?since=2")] == [3]


async def test_the_record_is_cleared_on_request(caller: Caller) -> None:
    await caller.chat()
    await caller.send("DELETE", "/_emulator/calls")
    assert await recorded(caller) == []


async def test_a_caller_that_left_early_is_noted(caller: Caller) -> None:
    caller.emulator.state.faults.add({"kind": "stall"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.chat(), 0.05)
    call = next(iter(caller.emulator.state.calls))
    await until(lambda: call.finished_ns)
    assert call.disconnected


async def test_calls_in_flight_are_counted_on_arrival(begin: Start) -> None:
    caller = await begin(latency=0.05)
    await asyncio.gather(*(caller.chat() for _ in range(3)))
    assert [call["in_flight"] for call in await recorded(caller)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "shown"), [(b"", None), (b"a=1", "a=1"), (b"\xff\xfe", {"base64": "//4="}), (b"[1]", [1])]
)
async def test_every_kind_of_body_is_readable(caller: Caller, body: bytes, shown: Any) -> None:
    await caller.send("POST", "/v1/chat/completions", data=body)
    assert (await recorded(caller))[0]["body"] == shown


async def test_the_record_keeps_the_last_calls_only(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_CALLS", 3)
    for _ in range(5):
        await caller.get("/v1/models")
    assert [call["n"] for call in await recorded(caller)] == [3, 4, 5]


async def test_big_bodies_push_old_calls_out(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_BYTES", 1000)
    for _ in range(4):
        await caller.send("POST", "/v1/chat/completions", data=b"x" * 400)
    assert [call["n"] for call in await recorded(caller)] == [3, 4]


async def test_counters_tell_what_happened(begin: Start) -> None:
    caller = await begin(interval=60)
    await caller.oauth()
    await caller.chat()
    await caller.chat()
    state = (await caller.get("/_emulator/state")).json
    assert state == {
        "calls": 3,
        "token_requests": 1,
        "tokens": 1,
        "in_flight": 0,
        "peak_in_flight": 1,
        "accepted": 1,
        "refused": 1,
        "faults_waiting": 0,
    }
    await caller.send("DELETE", "/_emulator/state")
    assert (await caller.get("/_emulator/state")).json["accepted"] == 0


async def test_a_caller_that_asks_before_sending_is_told_to_go_on(caller: Caller) -> None:
    """curl does so with big files."""
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "2+2"}]}
    answer = await caller.post("/v1/chat/completions", body, expect100=True)
    assert answer.said == "2+2 = 4"


async def test_an_old_caller_gets_a_stream_without_chunked_encoding(caller: Caller) -> None:
    """As nginx asks by default: HTTP/1.0, and the end of the connection ends the answer."""
    body = b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "2+2"}], "stream": true}'
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.emulator.port)
    head = f"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    received = await reader.read()
    writer.close()
    assert b"chunked" not in received
    assert received.endswith(b"data: [DONE]\n\n")
