"""A request's life over real sockets: order, limits, retries, refusals, departures. The upstream tells what it saw."""

import asyncio
import itertools
import time
from typing import Any

import aiohttp
import orjson
import pytest
from running import Answer, Proxy, StartProxy, until, waiting

from emulator import Options


async def ask_in_order(proxy: Proxy, texts: list[str], **more: Any) -> list[asyncio.Task[Answer]]:
    """Ask all of them at once, each in line before the next one comes."""
    tasks = []
    for text in texts:
        before = waiting(proxy)
        tasks.append(asyncio.create_task(proxy.ask(text, **more)))
        await until(lambda before=before: waiting(proxy) > before)  # type: ignore[misc]
    return tasks


async def occupy(proxy: Proxy) -> asyncio.Task[Answer]:
    """One call in flight that takes the only slot: the upstream has it."""
    first = asyncio.create_task(proxy.ask("first"))
    await until(lambda: bool(proxy.giga.state.calls.to("/chat/completions")))
    return first


# -- the limits


async def test_sixty_at_once_leave_evenly_in_order_and_none_is_refused(start_proxy: StartProxy) -> None:
    """600 RPM against an upstream that refuses closer calls: all 200, first come first served, none refused."""
    proxy = await start_proxy(Options(latency=0.05, rpm=600, pace_tolerance=0.001), ext_api_rpm=600, ext_max_requests=1)
    texts = [f"n{number}" for number in range(20)]
    answers = await asyncio.gather(*(proxy.ask(text) for text in texts))
    assert [answer.status for answer in answers] == [200] * 20
    assert await proxy.sent_texts() == texts
    arrivals = [call["arrived_ns"] / 1e6 for call in await proxy.calls()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert min(gaps) >= 99


async def test_never_more_in_flight_than_allowed(start_proxy: StartProxy) -> None:
    """EXT_MAX_REQUESTS is kept, streams included, to the last byte of each answer."""
    proxy = await start_proxy(Options(latency=0.02, chunk_delay=0.01), ext_max_requests=3)

    async def one(number: int) -> int:
        async with proxy.http.post(
            proxy.url,
            json={"messages": [["user", "привет, как дела, друг"]], "generate_parameters": {"stream": number % 2 == 0}},
        ) as response:
            await response.read()
            return response.status

    assert set(await asyncio.gather(*(one(number) for number in range(30)))) == {200}
    assert max(call["in_flight"] for call in await proxy.calls()) == 3


async def test_an_upstream_that_allows_one_while_we_are_set_to_six(start_proxy: StartProxy) -> None:
    """50 callers at once all get 200: a 429 of the upstream never reaches a caller and uses up no retry."""
    proxy = await start_proxy(Options(concurrency=1, latency=0.01), ext_max_requests=6, ext_retries=0)
    answers = await asyncio.gather(*(proxy.ask() for _ in range(50)))
    assert [answer.status for answer in answers] == [200] * 50


async def test_retry_after_of_the_upstream_pauses_the_whole_lane(start_proxy: StartProxy) -> None:
    """After a 429 with Retry-After nobody is sent before that time is over."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "429", "retry_after": 1})
    answers = await asyncio.gather(proxy.ask(), proxy.ask(), proxy.ask())
    assert [answer.status for answer in answers] == [200] * 3
    calls = await proxy.calls()
    refused = next(call for call in calls if call["status"] == 429)
    later = [call for call in calls if call["arrived_ns"] > refused["finished_ns"] + 50e6]
    assert later and min(call["arrived_ns"] for call in later) - refused["finished_ns"] >= 0.99e9


async def test_only_the_callers_deadline_ends_the_wait_for_a_throttled_upstream(start_proxy: StartProxy) -> None:
    """An upstream that throttles for ever: 504 at the deadline, not a 429."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "429", "times": -1})
    answer = await proxy.ask(headers={"X-Request-Timeout": "1"})
    assert answer.status == 504 and "X-Request-Timeout" in answer.body["status"]


# -- retries


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 504},
        {"kind": "html502"},
        {"kind": "cut"},
        {"kind": "bad_json"},
        {"kind": "html200"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
async def test_what_may_pass_is_tried_again(start_proxy: StartProxy, fault: dict[str, Any]) -> None:
    """500, 502, 504, a cut connection and an unreadable answer: retried and answered."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add(fault)
    assert (await proxy.ask()).status == 200
    assert len(await proxy.calls()) == 2


async def test_a_stream_is_tried_again_before_its_first_byte(start_proxy: StartProxy) -> None:
    """A 500 before the first chunk costs a stream nothing."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 500})
    answer = proxy.http.post(proxy.url, json={"messages": [["user", "hi"]], "generate_parameters": {"stream": True}})
    async with answer as response:
        assert response.status == 200 and "[DONE]" in await response.text()
    assert len(await proxy.calls()) == 2


async def test_retries_are_paced_like_any_other_call(start_proxy: StartProxy) -> None:
    """Failed calls count: no two sends are closer than the interval."""
    proxy = await start_proxy(ext_api_rpm=300)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "times": 3})
    answers = await asyncio.gather(*(proxy.ask() for _ in range(4)))
    assert {answer.status for answer in answers} == {200}
    arrivals = sorted(call["arrived_ns"] for call in await proxy.calls())
    assert len(arrivals) == 7
    assert min(later - earlier for earlier, later in itertools.pairwise(arrivals)) >= 198e6


@pytest.mark.parametrize(("upstream", "ours"), [(500, 502), (502, 502), (503, 503), (504, 504)])
async def test_retries_spent(start_proxy: StartProxy, upstream: int, ours: int) -> None:
    """EXT_RETRIES further attempts, then our own status, which tells client libraries not to try again."""
    proxy = await start_proxy(ext_retries=1)
    proxy.giga.state.faults.add({"kind": "status", "status": upstream, "times": -1})
    answer = await proxy.ask()
    assert answer.status == ours
    assert answer.headers["x-should-retry"] == "false"
    assert len(await proxy.calls()) == 2


async def test_a_refusal_of_the_api_is_not_tried_again(start_proxy: StartProxy) -> None:
    """400 is the caller's to mend."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 400, "times": -1})
    assert (await proxy.ask()).status == 400
    assert len(await proxy.calls()) == 1


async def test_an_upstream_that_stalls_is_a_504_and_is_not_asked_again(start_proxy: StartProxy) -> None:
    """EXP_RESP_TIMEOUT for a whole plain answer; the call may have been billed, so it is not repeated."""
    proxy = await start_proxy(exp_resp_timeout=0.5)
    proxy.giga.state.faults.add({"kind": "stall", "times": -1})
    began = time.monotonic()
    answer = await proxy.ask()
    assert answer.status == 504 and "EXP_RESP_TIMEOUT" in answer.body["status"]
    assert time.monotonic() - began < 1.5
    assert len(await proxy.calls()) == 1


async def test_a_stream_may_take_longer_than_the_time_out_but_not_stall(start_proxy: StartProxy) -> None:
    """For a stream EXP_RESP_TIMEOUT is the time to the first chunk and between chunks."""
    proxy = await start_proxy(Options(chunk_delay=0.2), exp_resp_timeout=0.5)
    text = "раз, два, три, четыре, пять, шесть"
    body = {"messages": [["user", text]], "generate_parameters": {"stream": True}}
    async with proxy.http.post(proxy.url, json=body) as response:
        assert (await response.text()).endswith("data: [DONE]\n\n")


async def test_a_stream_that_breaks_later_ends_with_an_error_event_and_is_never_restarted(
    start_proxy: StartProxy,
) -> None:
    """After the first byte there is no second attempt: the caller would read the beginning twice."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 1})
    body = {"messages": [["user", "раз, два, три, четыре"]], "generate_parameters": {"stream": True}}
    async with proxy.http.post(proxy.url, json=body) as response:
        text = await response.text()
    assert response.status == 200
    assert "event: error\ndata: {" in text and "[DONE]" not in text
    assert len(await proxy.calls()) == 1


# -- the line


async def test_a_caller_with_two_is_not_held_up_by_one_with_two_hundred(start_proxy: StartProxy) -> None:
    """One caller has 200 waiting, another comes with 2: sent within 4 and within 7 dispatches."""
    proxy = await start_proxy(ext_max_requests=1, proxy_api_keys="anna:key-a,boris:key-b", gigachat_api_key="k")
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 4})
    first = asyncio.create_task(proxy.ask("first", headers={"X-API-Key": "key-a"}))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    annas = [asyncio.create_task(proxy.ask("anna", headers={"X-API-Key": "key-a"})) for _ in range(200)]
    await until(lambda: waiting(proxy) == 200)
    boris = [asyncio.create_task(proxy.ask("boris", headers={"X-API-Key": "key-b"})) for _ in range(2)]
    await until(lambda: waiting(proxy) == 202)
    answers = await asyncio.gather(first, *annas, *boris)
    assert {answer.status for answer in answers} == {200}
    places = [place for place, text in enumerate((await proxy.sent_texts())[1:], 1) if text == "boris"]
    assert places[0] <= 4 and places[1] <= 7


async def test_priority_high_needs_a_key_and_goes_first(start_proxy: StartProxy) -> None:
    """X-Priority orders the line between flows; low is not starved."""
    proxy = await start_proxy(Options(latency=0.2), ext_max_requests=1, proxy_api_keys="anna:key-a")
    key = {"X-API-Key": "key-a"}
    first = asyncio.create_task(proxy.ask("first", headers=key))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    low = await ask_in_order(proxy, ["low"], headers={**key, "X-Priority": "low"})
    high = await ask_in_order(proxy, ["high"], headers={**key, "X-Priority": "high"})
    await asyncio.gather(first, *low, *high)
    assert await proxy.sent_texts() == ["first", "high", "low"]


async def test_without_keys_nobody_is_high(start_proxy: StartProxy) -> None:
    """Without keys X-Priority: high is normal: the line stays first come, first served."""
    proxy = await start_proxy(Options(latency=0.2), ext_max_requests=1)
    first = await occupy(proxy)
    others = await ask_in_order(proxy, ["a", "b"])
    others += await ask_in_order(proxy, ["c"], headers={"X-Priority": "high"})
    await asyncio.gather(first, *others)
    assert await proxy.sent_texts() == ["first", "a", "b", "c"]


async def test_clients_of_one_caller_take_turns(start_proxy: StartProxy) -> None:
    """X-Client-ID makes sub-flows within a caller."""
    proxy = await start_proxy(Options(latency=0.2), ext_max_requests=1)
    first = await occupy(proxy)
    others = await ask_in_order(proxy, ["a1", "a2", "a3"], headers={"X-Client-ID": "a"})
    others += await ask_in_order(proxy, ["b1"], headers={"X-Client-ID": "b"})
    await asyncio.gather(first, *others)
    assert await proxy.sent_texts() == ["first", "a1", "b1", "a2", "a3"]


@pytest.mark.parametrize(
    ("trusted", "expected"), [("127.0.0.1", ["first", "a1", "b1", "a2"]), ("", ["first", "a1", "a2", "b1"])]
)
async def test_behind_a_trusted_proxy_the_caller_is_the_address_that_it_names(
    start_proxy: StartProxy, trusted: str, expected: list[str]
) -> None:
    """X-Forwarded-For is believed from TRUSTED_PROXIES only."""
    proxy = await start_proxy(Options(latency=0.2), ext_max_requests=1, trusted_proxies=trusted)
    first = await occupy(proxy)
    others = await ask_in_order(proxy, ["a1", "a2"], headers={"X-Forwarded-For": "10.0.0.1"})
    others += await ask_in_order(proxy, ["b1"], headers={"X-Forwarded-For": "10.0.0.2"})
    await asyncio.gather(first, *others)
    assert await proxy.sent_texts() == expected


async def test_those_who_leave_while_waiting_are_never_sent(start_proxy: StartProxy) -> None:
    """100 callers leave the line: none of their requests reaches the upstream, the others lose no time."""
    proxy = await start_proxy(ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 1})
    first = await occupy(proxy)
    leavers = [asyncio.create_task(proxy.ask("leaver")) for _ in range(100)]
    await until(lambda: waiting(proxy) == 100)
    stayers = await ask_in_order(proxy, ["a", "b"])
    for leaver in leavers:
        leaver.cancel()
    await asyncio.gather(*leavers, return_exceptions=True)
    await until(lambda: waiting(proxy) == 2)
    answers = await asyncio.gather(first, *stayers)
    assert {answer.status for answer in answers} == {200}
    assert await proxy.sent_texts() == ["first", "a", "b"]
    gone = [call["finished_ns"] for call in await proxy.calls()]
    assert (gone[-1] - gone[0]) / 1e9 < 0.5


async def test_who_leaves_in_flight_frees_the_slot_and_ends_the_call(start_proxy: StartProxy) -> None:
    """The upstream sees the connection close; the next one goes at once."""
    proxy = await start_proxy(ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "stall", "seconds": 60})
    leaver = await occupy(proxy)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    assert (await proxy.ask("next")).status == 200
    await until(lambda: proxy.service.line.state().limits.in_flight == 0)
    await until(lambda: proxy.giga.state.calls.to("/chat/completions")[0].disconnected)
    assert [call["status"] for call in await proxy.calls()][1:] == [200]


async def test_who_leaves_in_the_middle_of_a_stream_frees_the_slot(start_proxy: StartProxy) -> None:
    """A stream holds its slot to its last byte, but not for nobody."""
    proxy = await start_proxy(Options(chunk_delay=0.1), ext_max_requests=1)
    body = {"messages": [["user", ", ".join(["слово"] * 200)]], "generate_parameters": {"stream": True}}
    async with proxy.http.post(proxy.url, json=body) as response:
        await response.content.readany()
    response.close()
    async with asyncio.timeout(5):
        assert (await proxy.ask("next")).status == 200


async def test_a_full_line_refuses_and_whoever_comes_back_after_its_retry_after_is_admitted(
    start_proxy: StartProxy,
) -> None:
    """20 of 20 who are refused with Retry-After are served when they come back after it, not before."""
    proxy = await start_proxy(Options(latency=0.05), ext_max_requests=1, ext_api_rpm=1200, ext_queue_size=5)

    async def patient(number: int) -> list[int]:
        statuses = []
        answer = await proxy.ask(f"n{number}")
        statuses.append(answer.status)
        if answer.status == 429:
            await asyncio.sleep(int(answer.headers["Retry-After"]))
            statuses.append((await proxy.ask(f"n{number}")).status)
        return statuses

    stories = await asyncio.gather(*(patient(number) for number in range(30)))
    refused = [story for story in stories if story[0] == 429]
    assert len(refused) >= 20
    assert [story[1] for story in refused] == [200] * len(refused)


async def test_a_wait_that_would_outlast_the_deadline_is_refused_at_once(start_proxy: StartProxy) -> None:
    """429 with the real ETA; whoever comes back after it is served within its deadline."""
    proxy = await start_proxy(ext_api_rpm=60)
    asking = await asyncio.gather(proxy.ask("a"), proxy.ask("b"))
    assert {answer.status for answer in asking} == {200}
    waiting_ones = [asyncio.create_task(proxy.ask(f"w{number}")) for number in range(2)]
    await until(lambda: waiting(proxy) >= 2)
    refused = await proxy.ask("hurry", headers={"X-Request-Timeout": "0.5"})
    assert refused.status == 429
    retry_after = int(refused.headers["Retry-After"])
    assert 2 <= retry_after <= 4
    await asyncio.sleep(retry_after)
    assert (await proxy.ask("hurry", headers={"X-Request-Timeout": "1.5"})).status == 200
    await asyncio.gather(*waiting_ones)


async def test_who_waits_past_its_deadline_gets_504_and_is_not_sent(start_proxy: StartProxy) -> None:
    """The deadline holds in line too, when the wait was longer than expected."""
    proxy = await start_proxy(ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "stall", "seconds": 2})
    first = await occupy(proxy)
    late = await proxy.ask("late", headers={"X-Request-Timeout": "0.3"})
    assert late.status == 504
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert "late" not in await proxy.sent_texts()


async def test_the_place_and_the_eta_are_right(start_proxy: StartProxy) -> None:
    """X-Queue-Position counts from 1, and the wait comes out as the pace says, within one interval."""
    proxy = await start_proxy(ext_api_rpm=600)
    answers = await asyncio.gather(*(proxy.ask() for _ in range(10)))
    by_place = sorted(answers, key=lambda answer: int(answer.headers["X-Queue-Wait-Ms"]))
    for number, answer in enumerate(by_place):
        assert abs(int(answer.headers["X-Queue-Wait-Ms"]) - 100 * number) <= 100
        assert abs(int(answer.headers["X-Queue-Position"]) - number) <= 1  # the first has gone when the second comes


async def test_the_eta_by_latency_is_right_within_a_fifth(start_proxy: StartProxy) -> None:
    """With slots as the bottleneck the ETA comes from the mean latency of late."""
    proxy = await start_proxy(Options(latency=0.2), ext_max_requests=2)
    await asyncio.gather(*(proxy.ask() for _ in range(4)))
    busy = [asyncio.create_task(proxy.ask()) for _ in range(8)]
    await until(lambda: waiting(proxy) == 6)
    told = proxy.service.line.eta(6)
    began = time.monotonic()
    answer = await proxy.ask("mine")
    waited = int(answer.headers["X-Queue-Wait-Ms"]) / 1000
    assert abs(told - waited) <= max(0.2 * waited, 0.2)
    assert time.monotonic() - began >= waited
    await asyncio.gather(*busy)


# -- tokens


async def test_five_hundred_first_requests_make_one_token_request(start_proxy: StartProxy) -> None:
    """However many come at once, the first token is asked for once."""
    proxy = await start_proxy(ext_max_requests=0)
    answers = await asyncio.gather(*(proxy.ask() for _ in range(500)))
    assert {answer.status for answer in answers} == {200}
    assert len(await proxy.calls("/oauth")) == 1


async def test_a_token_that_expires_under_load_is_renewed_once(start_proxy: StartProxy) -> None:
    """One refresh, all 200."""
    proxy = await start_proxy(Options(latency=0.02))
    assert (await proxy.ask()).status == 200
    proxy.giga.state.faults.add({"kind": "expired_token", "times": 1})
    answers = await asyncio.gather(*(proxy.ask() for _ in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert len(await proxy.calls("/oauth")) == 2


async def test_credentials_that_are_refused_are_a_502_that_names_the_setting(start_proxy: StartProxy) -> None:
    """It is the operator's fault, not the caller's; no secret is told."""
    proxy = await start_proxy(Options(credentials=("another",)), gigachat_api_key="my-very-secret-key")
    answer = await proxy.ask()
    assert answer.status == 502 and "GIGACHAT_API_KEY" in answer.body["status"]
    assert "my-very-secret-key" not in str(answer)


async def test_a_dead_upstream_is_a_502_without_its_address(start_proxy: StartProxy, unused_tcp_port: int) -> None:
    """Nothing listens there: said in words, without the address."""
    proxy = await start_proxy(ext_retries=0, gigachat_base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    answer = await proxy.ask()
    assert answer.status == 502
    assert str(unused_tcp_port) not in str(answer.body)


async def test_a_bug_is_a_500_with_the_id_and_no_trace(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback stays in the log."""
    proxy = await start_proxy()

    def broken(*_: Any) -> None:
        raise RuntimeError("very private")

    monkeypatch.setattr(proxy.service.line, "answer", broken)
    answer = await proxy.ask(headers={"X-Request-ID": "id-1"})
    assert answer.status == 500 and "id-1" in answer.body["status"]
    assert "private" not in str(answer.body)


async def test_many_connections_are_taken_at_once(start_proxy: StartProxy) -> None:
    """A thousand callers in the same moment: all are answered."""
    proxy = await start_proxy(ext_max_requests=0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one() -> int:
            async with http.post(proxy.url, json={"messages": [["user", "hi"]]}) as response:
                return response.status

        assert set(await asyncio.gather(*(one() for _ in range(1000)))) == {200}


async def test_a_429_to_the_token_request_costs_the_lane_a_moment_and_no_slot(start_proxy: StartProxy) -> None:
    """However many wait for the token: all 200 soon, and as many in flight as before."""
    proxy = await start_proxy(ext_max_requests=10)
    proxy.giga.state.faults.add({"kind": "429", "path": "/oauth"})
    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(proxy.ask() for _ in range(60)))
    assert {answer.status for answer in answers} == {200}
    assert proxy.service.line.state().limits.allowed == 10


async def test_twenty_with_a_deadline_come_back_after_their_retry_after_and_are_served(start_proxy: StartProxy) -> None:
    """The places kept are spaced, and whoever came back first goes first."""
    proxy = await start_proxy(ext_api_rpm=300)
    waiting_ones = [asyncio.create_task(proxy.ask(f"w{number}")) for number in range(20)]
    await until(lambda: waiting(proxy) >= 18)

    async def hurried() -> list[int]:
        first = await proxy.ask("hurried", headers={"X-Request-Timeout": "2"})
        if first.status != 429:
            return [first.status]
        await asyncio.sleep(int(first.headers["Retry-After"]))
        return [first.status, (await proxy.ask("hurried", headers={"X-Request-Timeout": "2"})).status]

    stories = await asyncio.gather(*(hurried() for _ in range(20)))
    assert [story for story in stories if story != [429, 200]] == []
    await asyncio.gather(*waiting_ones)


async def test_whoever_does_not_read_its_stream_does_not_hold_its_slot(start_proxy: StartProxy) -> None:
    """A write that is not taken within EXP_RESP_TIMEOUT ends the stream."""
    proxy = await start_proxy(ext_max_requests=1, exp_resp_timeout=0.5)
    text = ", ".join(["слово" * 200] * 4000)
    host, port = proxy.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = orjson.dumps({"messages": [["user", text]], "generate_parameters": {"stream": True}})
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    async with asyncio.timeout(10):
        assert (await proxy.ask("next")).status == 200
    writer.transport.abort()


async def test_a_body_that_is_not_encoded_as_it_says_is_a_400(start_proxy: StartProxy) -> None:
    """Garbage is the caller's, not a bug of ours."""
    proxy = await start_proxy()
    async with proxy.http.post(proxy.url, data=b"xxxx", headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 400 and "body" in (await response.json())["status"]
