"""The control paths."""

import socket

import aiohttp
import pytest
from emulator_callers import Caller, Start

import emulator
from emulator import Options, control


async def test_options_are_shown_and_changed(caller: Caller) -> None:
    assert (await caller.get("/_emulator/options")).json["latency"] == 0
    answer = await caller.send("PATCH", "/_emulator/options", json={"latency": 0.01, "concurrency": 2})
    assert (answer.json["latency"], answer.json["concurrency"]) == (0.01, 2)
    assert caller.emulator.state.options.concurrency == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latensy": 1}, "unknown option: latensy"),
        ({"latency": -1}, "latency must be a number, 0 or more, not -1"),
        ({"concurrency": 1.5}, "concurrency must be a whole number, 0 or more, not 1.5"),
        ({"legacy": "yes"}, "legacy must be true or false, not 'yes'"),
        ({"tariff": "free"}, "tariff must be any or prepaid or postpaid, not 'free'"),
        ({"credentials": "key"}, "credentials must be a list of texts that are not empty, not 'key'"),
    ],
)
async def test_a_wrong_option_is_refused_and_nothing_changes(caller: Caller, change: object, said: str) -> None:
    before = caller.emulator.state.options
    answer = await caller.send("PATCH", "/_emulator/options", json=change)
    assert (answer.status, answer.json) == (400, {"error": said})
    assert caller.emulator.state.options is before


async def test_the_same_can_be_done_in_process(begin: Start) -> None:
    caller = await begin()
    caller.emulator.state.change(interval=60)
    assert [(await caller.chat()).status for _ in range(2)] == [200, 429]
    with pytest.raises(ValueError, match="unknown option: speed"):
        caller.emulator.state.change(speed=1)


async def test_an_unknown_control_path_names_the_known_ones(caller: Caller) -> None:
    answer = await caller.get("/_emulator/nothing")
    assert answer.status == 404
    assert "GET /_emulator/calls" in answer.json["error"]


async def test_a_control_body_that_is_no_json_is_refused(caller: Caller) -> None:
    answer = await caller.send("POST", "/_emulator/faults", data=b"{")
    assert answer.status == 400


@pytest.mark.parametrize(
    ("peer", "is_loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("192.168.1.5", False), ("fe80::1%eth0", False)],
)
def test_control_answers_on_loopback_only(peer: str, is_loopback: bool) -> None:
    answer = control.answer(emulator.State(Options()), "GET /_emulator/state", {}, b"", peer)
    assert answer.status == (200 if is_loopback else 403)


async def test_another_machine_sees_the_api_but_not_the_control(begin: Start) -> None:
    """The peer is whoever the connection comes from: this machine's own outer address is not loopback."""
    address = outer_address()
    async with (
        emulator.start(Options(access_tokens=("t",)), host="0.0.0.0") as giga,
        aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session,
    ):
        async with session.get(f"http://{address}:{giga.port}/v1/models") as response:
            assert response.status == 200
        async with session.get(f"http://{address}:{giga.port}/_emulator/calls") as response:
            assert response.status == 403


def outer_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Choosing a route sends nothing.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return address
