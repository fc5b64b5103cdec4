"""A line that operators have paused: nobody knows when who waits in it is sent, and whoever gave up is told why."""

from pathlib import Path
from typing import Any

import pytest
from jobs_talk import Caller
from pydantic import SecretStr
from running import Proxy, StartProxy, chat, pause, until, waiting

HELD = "the line was paused by an operator"


@pytest.fixture
async def proxy(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    """With a line that is paused."""
    started: Proxy = await start_proxy(
        jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
        ext_max_requests=1,
        heartbeat_interval=0.02,
        stream_early_200=0.05,
    )
    await pause(started)
    return started


@pytest.fixture
def caller(proxy: Proxy) -> Caller:
    return Caller(proxy)


# -- when it is sent


async def test_a_job_has_a_place_and_no_eta(caller: Caller):
    """As /queue tells it: in the line, before it, and in its events. Who asks for the answer need not ask soon."""
    ids = [await caller.accepted() for _ in range(12)]
    await until(lambda: waiting(caller.proxy) == 10)
    in_line, before_it = await caller.job(ids[2]), await caller.job(ids[11])
    assert (in_line["state"], in_line["position"], in_line["eta"]) == ("running", 3, None)
    assert (before_it["state"], before_it["position"], before_it["eta"]) == ("queued", 12, None)
    told = await caller.ask("GET", f"/jobs/{ids[2]}/answer")
    assert (told.status, told.headers["Retry-After"]) == (202, "60")
    events = caller.events(ids[2])
    assert (await anext(events))[1]["eta"] is None
    await events.aclose()  # type: ignore[attr-defined]


async def test_an_eta_is_told_again_when_the_line_goes_on(caller: Caller):
    ids = [await caller.accepted() for _ in range(3)]
    await until(lambda: waiting(caller.proxy) == 3)
    caller.proxy.giga.state.faults.add({"kind": "stall"})
    await pause(caller.proxy, is_held=False)
    await until(lambda: waiting(caller.proxy) == 2)
    assert (await caller.job(ids[2]))["eta"] is not None


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["plain", "keyed"])
async def test_a_stream_that_waits_reads_that_nobody_knows(proxy: Proxy, key: dict[str, str]):
    """Its place all the same."""
    async with proxy.http.post(proxy.url, json=chat(stream=True), headers=key) as response:
        assert await response.content.readuntil(b"\n\n") == b": queued position=1 eta=unknown\n\n"


# -- why it was not


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions"])
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}], ids=["plain", "keyed"])
async def test_whoever_could_not_wait_is_told_of_the_pause(caller: Caller, path: str, key: dict[str, str]):
    """Of a request that goes on, too."""
    body: Any = chat() if path == "/" else {"messages": [{"role": "user", "content": "Привет"}]}
    told = await caller.ask("POST", path, body, {"X-Request-Timeout": "0.1", **key})
    assert told.status == 504
    assert f"(X-Request-Timeout, RESP_TIMEOUT): {HELD}" in told.raw.decode()


async def test_a_job_that_expired_in_the_line_says_why(caller: Caller):
    job = await caller.over(await caller.accepted(deadline=0.1))
    assert (job["state"], job["error"]) == ("expired", f"it had not begun at its deadline: {HELD}")
    answer = await caller.ask("GET", f"/jobs/{job['id']}/answer")
    assert (answer.status, answer.words.endswith(HELD)) == (410, True)


async def test_a_pause_that_is_over_is_no_reason(caller: Caller):
    """The upstream was slow, and nothing else."""
    await pause(caller.proxy, is_held=False)
    caller.proxy.giga.state.faults.add({"kind": "stall"})
    id = await caller.accepted()
    await until(lambda: caller.proxy.service.line.state().limits.in_flight == 1)
    told = await caller.ask("POST", "/", chat(), {"X-Request-Timeout": "0.1"})
    assert (told.status, HELD in told.words) == (504, False)
    late = await caller.over(await caller.accepted(deadline=0.1))
    assert (late["state"], late["error"]) == ("expired", None)
    await caller.ask("DELETE", f"/jobs/{id}")
