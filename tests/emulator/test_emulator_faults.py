"""Faults on request."""

import asyncio
from typing import Any

import aiohttp
import pytest
from emulator_callers import Answer, Caller, bearer


async def suffered(caller: Caller, fault: dict[str, Any], **fields: Any) -> Answer:
    """One chat call that meets the fault."""
    caller.emulator.state.faults.add(fault)
    return await caller.chat(**fields)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (402, "Payment Required"),
        (403, "Permission denied"),
        (413, "Payload too large"),
        (500, "Internal Server Error"),
        (503, "Service Unavailable"),
    ],
)
async def test_a_status_comes_with_the_words_of_the_real_one(caller: Caller, status: int, message: str) -> None:
    answer = await suffered(caller, {"kind": "status", "status": status})
    assert (answer.status, answer.json) == (status, {"status": status, "message": message})
    assert "Retry-After" not in answer.headers


async def test_a_status_can_have_any_body_and_a_retry_after(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "status", "status": 503, "body": {"x": 1}, "retry_after": 1.5})
    assert (answer.status, answer.json, answer.headers["Retry-After"]) == (503, {"x": 1}, "1.5")


async def test_429_is_the_one_of_the_real_api(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "429"})
    assert (answer.status, answer.json) == (429, {"status": 429, "message": "Too Many Requests"})


async def test_html502_is_a_page_and_no_json(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "html502"})
    assert (answer.status, answer.headers["Content-Type"]) == (502, "text/html")
    assert "<h1>502 Bad Gateway</h1>" in answer.text
    assert (await suffered(caller, {"kind": "html502", "status": 504})).status == 504


async def test_html200_is_a_page_where_json_should_be(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "html200"})
    assert (answer.status, answer.text[:6]) == (200, "<html>")


async def test_bad_json_breaks_off(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "bad_json"})
    assert answer.status == 200
    with pytest.raises(ValueError, match="unexpected end of data"):
        _ = answer.json


async def test_bad_json_in_a_stream_stands_among_good_chunks(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "bad_json", "after_chunks": 1}, stream=True)
    _, broken, *_ = answer.text.split("\n\n")
    assert broken == 'data: {"choices":[{"delta":'


async def test_cut_closes_before_the_first_byte(caller: Caller) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await suffered(caller, {"kind": "cut"})


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_cut_stream_closes_after_so_many_chunks(caller: Caller, count: int) -> None:
    caller.emulator.state.faults.add({"kind": "cut_stream", "after_chunks": count})
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "раз, два, три"}], "stream": True}
    received = b""
    async with caller.session.post(f"{caller.emulator.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            async for chunk in response.content.iter_any():
                received += chunk
    assert received.count(b"data: ") == count


async def test_cut_stream_cuts_a_plain_answer_too(caller: Caller) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await suffered(caller, {"kind": "cut_stream", "after_chunks": 1})


async def test_stall_answers_nothing_for_so_long_and_hangs_up(caller: Caller) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await suffered(caller, {"kind": "stall", "seconds": 0.05})
    call = next(iter(caller.emulator.state.calls))
    assert (call.finished_ns - call.arrived_ns) / 1e9 >= 0.05


async def test_stall_lasts_until_the_caller_leaves(caller: Caller) -> None:
    caller.emulator.state.faults.add({"kind": "stall"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(caller.chat(), 0.05)
    assert (await caller.chat()).status == 200


async def test_drip_gives_all_of_it_slowly(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "drip", "seconds": 0.1})
    call = next(iter(caller.emulator.state.calls))
    assert answer.json["choices"]
    assert (call.finished_ns - call.arrived_ns) / 1e9 >= 0.1


async def test_slow_is_late_but_right(caller: Caller) -> None:
    answer = await suffered(caller, {"kind": "slow", "seconds": 0.05})
    assert answer.status == 200


async def test_expired_token_ends_the_token_too(caller: Caller) -> None:
    token = (await caller.oauth()).json["access_token"]
    caller.emulator.state.faults.add({"kind": "expired_token"})
    for _ in range(2):
        answer = await caller.chat(headers=bearer(token))
        assert (answer.status, answer.json) == (401, {"status": 401, "message": "Token has expired"})
    assert (await caller.oauth()).status == 200


async def test_faults_are_used_up_in_order(caller: Caller) -> None:
    faults = [{"kind": "status", "status": 500, "times": 2}, {"kind": "429"}]
    assert (await caller.post("/_emulator/faults", faults)).status == 200
    assert [(await caller.chat()).status for _ in range(4)] == [500, 500, 429, 200]


async def test_a_fault_can_last_until_it_is_cleared(caller: Caller) -> None:
    await caller.post("/_emulator/faults", [{"kind": "status", "times": -1}])
    assert [(await caller.chat()).status for _ in range(3)] == [500] * 3
    await caller.send("DELETE", "/_emulator/faults")
    assert (await caller.chat()).status == 200


async def test_a_fault_waits_for_its_path(caller: Caller) -> None:
    caller.emulator.state.faults.add({"kind": "status", "status": 503, "path": "/oauth"})
    assert (await caller.chat()).status == 200
    assert (await caller.oauth()).status == 503
    assert (await caller.oauth()).status == 200


async def test_the_record_names_the_fault(caller: Caller) -> None:
    await suffered(caller, {"kind": "429"})
    assert [call.fault for call in caller.emulator.state.calls] == ["429"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "flood"}, "unknown fault kind 'flood'"),
        ({"kind": "cut", "often": 3}, "unknown fault field: often"),
        ({}, "a fault needs a kind"),
        (None, "a fault must be an object, not None"),
        ({"kind": "stall", "seconds": -1}, "seconds of a fault must be seconds or null, not -1"),
        ({"kind": "cut", "times": 0}, "times of a fault must be a whole number from 1 on, or -1 for ever, not 0"),
        ({"kind": "cut", "times": "3"}, "times of a fault must be a whole number from 1 on, or -1 for ever, not '3'"),
    ],
)
async def test_a_wrong_fault_is_refused(caller: Caller, fault: Any, said: str) -> None:
    answer = await caller.post("/_emulator/faults", [{"kind": "cut"}, fault])
    assert answer.status == 400
    assert said in answer.json["error"]
    assert (await caller.get("/_emulator/faults")).json == []
