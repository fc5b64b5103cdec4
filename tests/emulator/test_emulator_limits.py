"""The two limits: calls in flight, and an even pace."""

import asyncio
from itertools import pairwise

from emulator_callers import KEY, Caller, Start, bearer, until

TOO_MANY = {"status": 429, "message": "Too Many Requests"}


async def together(caller: Caller, count: int, path: str = "/v1/chat/completions") -> list[int]:
    answers = await asyncio.gather(*(caller.chat() for _ in range(count)))
    return sorted(answer.status for answer in answers)


async def test_one_call_too_many_in_flight_is_answered_429_without_retry_after(begin: Start) -> None:
    caller = await begin(concurrency=1, latency=0.05)
    answers = await asyncio.gather(caller.chat(), caller.chat())
    refused = max(answers, key=lambda answer: answer.status)
    assert sorted(answer.status for answer in answers) == [200, 429]
    assert refused.json == TOO_MANY
    assert "Retry-After" not in refused.headers


async def test_without_limits_all_are_served_at_once(begin: Start) -> None:
    caller = await begin(latency=0.05)
    assert await together(caller, 50) == [200] * 50
    assert caller.emulator.state.accounts.peak == 50


async def test_a_place_is_free_when_the_answer_has_come(begin: Start) -> None:
    caller = await begin(concurrency=1)
    for _ in range(50):
        assert (await caller.chat()).status == 200


async def test_a_stream_keeps_its_place_until_its_last_byte(begin: Start) -> None:
    caller = await begin(concurrency=1, chunk_delay=0.02)
    stream = asyncio.create_task(caller.chat("раз, два, три, четыре", stream=True))
    await until(lambda: caller.emulator.state.accounts.in_flight)
    assert (await caller.chat()).status == 429
    assert (await stream).status == 200
    assert (await caller.chat()).status == 200


async def test_a_caller_that_leaves_frees_its_place(begin: Start) -> None:
    caller = await begin(concurrency=1)
    accounts = caller.emulator.state.accounts
    caller.emulator.state.faults.add({"kind": "stall"})
    call = asyncio.create_task(caller.chat())
    await until(lambda: accounts.in_flight)
    call.cancel()
    await until(lambda: not accounts.in_flight)
    assert (await caller.chat()).status == 200


async def test_each_account_has_its_own_limit(begin: Start) -> None:
    caller = await begin(concurrency=1, latency=0.05)
    tokens = [(await caller.oauth(key)).json["access_token"] for key in (KEY, "b3RoZXI6a2V5")]
    answers = await asyncio.gather(*(caller.chat(headers=bearer(token)) for token in tokens))
    assert [answer.status for answer in answers] == [200, 200]


async def test_models_and_files_count_against_no_limit(begin: Start) -> None:
    caller = await begin(concurrency=1, interval=60)
    assert (await caller.chat()).status == 200
    assert (await caller.get("/v1/models")).status == 200
    assert (await caller.get("/v1/files")).status == 200


async def test_embeddings_and_the_second_version_share_the_limit(begin: Start) -> None:
    caller = await begin(interval=60)
    assert (await caller.chat()).status == 200
    assert (await caller.chat_v2("Привет")).status == 429
    assert (await caller.post("/v1/embeddings", {"model": "Embeddings", "input": "x"})).status == 429


async def test_a_call_that_comes_too_early_is_answered_429(begin: Start) -> None:
    caller = await begin(interval=60)
    assert (await caller.chat()).status == 200
    answer = await caller.chat()
    assert (answer.status, answer.json) == (429, TOO_MANY)


async def test_a_refused_call_does_not_put_off_the_next_one(begin: Start) -> None:
    """The pace counts from the last accepted call, not from the last attempt."""
    caller = await begin(interval=0.05)
    statuses = []
    async with asyncio.timeout(5):
        while statuses.count(200) < 3:
            statuses.append((await caller.chat()).status)
    accepted = [call.arrived_ns for call in caller.emulator.state.calls if call.status == 200]
    gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(accepted)]
    assert min(gaps) >= 0.049
    assert 429 in statuses


async def test_rpm_is_another_name_for_an_interval(begin: Start) -> None:
    caller = await begin(rpm=1)
    assert caller.emulator.state.options.pace == 60
    assert [(await caller.chat()).status for _ in range(2)] == [200, 429]


async def test_limits_change_while_it_runs(begin: Start) -> None:
    caller = await begin(interval=60)
    await caller.chat()
    assert (await caller.send("PATCH", "/_emulator/options", json={"interval": 0})).status == 200
    assert (await caller.chat()).status == 200


async def test_a_call_without_a_token_uses_nothing_up(begin: Start) -> None:
    caller = await begin(interval=60)
    assert (await caller.chat(headers=bearer("unknown"))).status == 401
    assert (await caller.chat()).status == 200


async def test_latency_is_waited_before_a_plain_answer_and_chunk_delay_before_each_chunk(begin: Start) -> None:
    caller = await begin(latency=0.05, chunk_delay=0.02)
    await caller.chat()
    stream = await caller.chat("раз, два", stream=True)
    plain, streamed = ((call.finished_ns - call.arrived_ns) / 1e9 for call in caller.emulator.state.calls)
    assert plain >= 0.05
    assert streamed >= 0.02 * len(stream.events)


async def test_the_caller_can_ask_for_slower_chunks(caller: Caller) -> None:
    stream = await caller.chat(stream=True, update_interval=0.02)
    call = next(iter(caller.emulator.state.calls))
    assert (call.finished_ns - call.arrived_ns) / 1e9 >= 0.02 * len(stream.events)
