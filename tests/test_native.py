"""The native API: what goes in reaches GigaChat, what GigaChat says comes back whole, what is wrong is told."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest
from running import StartProxy, chat, until, waiting

from proxy.dialects.native import Native
from proxy.serving import Asked

EXAMPLE = {
    "messages": [["system", "Ты робот киска, на все вопросы отвечай мяу-мяу"], ["user", "Привет, как дела?"]],
    "generate_parameters": {
        "temperature": 1,
        "top_p": 0,
        "repetition_penalty": 1,
        "max_tokens": 2000,
        "model": "GigaChat-Max",
        "profanity_check": False,
    },
}


async def test_the_example_of_the_readme_is_answered_in_the_envelope(start_proxy: StartProxy) -> None:
    """`POST /` with pairs gives the API's whole answer in `data`."""
    proxy = await start_proxy(app_name="киска")
    async with proxy.http.post(proxy.url, json=EXAMPLE) as response:
        body = await response.json()
    assert response.status == 200
    assert (body["app"], body["status"]) == ("киска", "ok")
    assert set(body["data"]) >= {"choices", "usage", "model", "created", "object"}
    assert body["data"]["model"].startswith("GigaChat")


async def test_every_attempt_has_data_of_its_own() -> None:
    """Whatever a connector does with what it was given, the next attempt begins with what the caller sent."""
    body, given = orjson.dumps(EXAMPLE), []

    class Careless:
        async def request(self, data: dict[str, Any]) -> None:
            given.append(orjson.dumps(data))
            data["messages"].clear()
            data["generate_parameters"].pop("model")

    asked: Any = Asked(Native("app"), body, Native("app").request(orjson.loads(body)))
    for _ in range(3):
        await asked(Careless())
    assert len(given) == 3 and len(set(given)) == 1


async def test_every_parameter_reaches_the_api_untouched(start_proxy: StartProxy) -> None:
    """Everything in generate_parameters arrives as it was, unknown fields and nulls too; pairs became objects."""
    proxy = await start_proxy()
    parameters = {**EXAMPLE["generate_parameters"], "surprise": {"deep": [1, None, "ё"]}, "update_interval": None}  # type: ignore[dict-item]
    async with proxy.http.post(proxy.url, json={**EXAMPLE, "generate_parameters": parameters}) as response:
        assert response.status == 200
    sent = (await proxy.calls())[0]["body"]
    assert {name: sent[name] for name in parameters} == parameters
    assert sent["messages"] == [
        {"role": "system", "content": EXAMPLE["messages"][0][1]},  # type: ignore[index]
        {"role": "user", "content": EXAMPLE["messages"][1][1]},  # type: ignore[index]
    ]


@pytest.mark.parametrize(
    "body", [{"messages": [["user", "hi"]]}, {"messages": [["user", "hi"]], "generate_parameters": None}]
)
async def test_defaults_fill_what_is_absent(start_proxy: StartProxy, body: dict[str, Any]) -> None:
    """generate_parameters may be absent or null; the model and the censor come from the settings then."""
    proxy = await start_proxy(gigachat_model="GigaChat-2-Pro", gigachat_profanity_check=True)
    async with proxy.http.post(proxy.url, json=body) as response:
        assert response.status == 200
    sent = (await proxy.calls())[0]["body"]
    assert (sent["model"], sent["profanity_check"]) == ("GigaChat-2-Pro", True)


async def test_message_objects_pass_as_they_are(start_proxy: StartProxy) -> None:
    """Messages may be objects with any field that the API knows."""
    proxy = await start_proxy()
    messages = [{"role": "user", "content": "hi", "name": "Аня", "attachments": []}]
    async with proxy.http.post(proxy.url, json={"messages": messages}) as response:
        assert response.status == 200
    assert (await proxy.calls())[0]["body"]["messages"] == messages


async def test_a_stream_brings_the_apis_chunks(start_proxy: StartProxy) -> None:
    """`"stream": true` among the parameters answers as SSE with the chunks of the API and [DONE]."""
    proxy = await start_proxy()
    async with proxy.http.post(proxy.url, json=chat("Сколько будет 2+3?", stream=True)) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        events = [line[6:] for line in (await response.text()).split("\n\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [orjson.loads(event) for event in events[:-1]]
    assert "5" in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert chunks[-1]["usage"]["total_tokens"] > 0


WRONG: list[tuple[Any, str]] = [
    (b"", "empty"),
    (b"{", "JSON"),
    (b"[]", "object"),
    (b'"text"', "object"),
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [["user"]]}, "messages[0]"),
    ({"messages": [["user", "a", "b"]]}, "messages[0]"),
    ({"messages": [["user", 1]]}, "messages[0]"),
    ({"messages": [["user", "a"], 5]}, "messages[1]"),
    ({"messages": [["robot", "a"]]}, "messages[0].role"),
    ({"messages": [{"content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [["user", "a"]], "generate_parameters": []}, "generate_parameters"),
    ({"messages": [["user", "a"]], "temperature": 1}, "temperature"),
    (chat(temperature="hot"), "temperature"),
    (chat(temperature=True), "temperature"),
    (chat(temperature=-1), "temperature"),
    (chat(top_p=2), "top_p"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=1.5), "max_tokens"),
    (chat(repetition_penalty=0), "repetition_penalty"),
    (chat(messages=[]), "generate_parameters.messages"),
    (chat(stream="yes"), "stream"),
    (chat(profanity_check="no"), "profanity_check"),
    (chat(model=5), "model"),
    (chat(model=""), "model"),
    (chat(functions={}), "functions"),
    (chat(update_interval=-1), "update_interval"),
]


async def test_every_wrong_body_is_a_400_that_names_the_field_and_is_never_queued(start_proxy: StartProxy) -> None:
    """400 in the native envelope; the upstream never hears of it, and no place in line is given."""
    proxy = await start_proxy()
    for body, named in WRONG:
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        async with proxy.http.post(proxy.url, data=sent) as response:
            answer = await response.json()
        assert response.status == 400, (body, answer)
        assert named in answer["status"], (body, answer)
        assert answer["data"] == {} and answer["app"] == "gigachat-proxy"
        assert "X-Queue-Position" not in response.headers
    assert await proxy.calls() == []


async def test_the_apis_own_refusals_come_back_with_their_status_and_words(start_proxy: StartProxy) -> None:
    """400, 402, 403, 404, 413, 422 of the API are the caller's business: as they are, not retried."""
    proxy = await start_proxy()
    for status in (400, 402, 403, 404, 413, 422):
        proxy.giga.state.faults.add(
            {"kind": "status", "status": status, "body": {"status": status, "message": "Нельзя"}}
        )
        answer = await proxy.ask()
        assert (answer.status, answer.body) == (status, {"app": "gigachat-proxy", "status": "Нельзя", "data": {}})
    assert len(await proxy.calls()) == 6


async def test_unknown_paths_and_methods_are_told_in_the_native_envelope(start_proxy: StartProxy) -> None:
    """404 and 405, as JSON, with the methods that would do."""
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/nowhere") as response:
        assert (response.status, (await response.json())["data"]) == (404, {})
    async with proxy.http.delete(proxy.url) as response:
        assert response.status == 405
        assert "POST" in response.headers["Allow"]
        assert "DELETE" in (await response.json())["status"]


async def test_a_body_that_is_too_large_is_a_413_chunked_or_not(start_proxy: StartProxy) -> None:
    """MAX_BODY_BYTES counts what comes, not what Content-Length says."""
    proxy = await start_proxy(max_body_bytes=1000)

    async def in_chunks() -> Any:
        for _ in range(20):
            yield b" " * 100

    for data in (b" " * 2000, in_chunks()):
        async with proxy.http.post(proxy.url, data=data) as response:
            assert response.status == 413
            assert "MAX_BODY_BYTES" in (await response.json())["status"]


async def test_info_tells_models_limits_and_state(start_proxy: StartProxy) -> None:
    """`GET /`: default-model, avail-models, and what the lane allows and does."""
    proxy = await start_proxy(ext_api_rpm=600, ext_max_requests=3)
    async with proxy.http.get(proxy.url) as response:
        answer = await response.json()
    assert (response.status, answer["status"]) == (200, "ok")
    info = answer["info"]
    assert info["default-model"] == "GigaChat-2"
    assert "GigaChat-2-Max" in info["avail-models"]
    assert (info["lane"]["requests-a-minute"], info["lane"]["requests-in-flight-limit"]) == (600, 3)
    assert info["lane"]["waiting"] == 0


async def test_info_answers_while_the_line_is_long(start_proxy: StartProxy) -> None:
    """A long line does not hold up `GET /`: it tells what it knows."""
    proxy = await start_proxy(ext_api_rpm=0.5)
    asking = [asyncio.create_task(proxy.ask()) for _ in range(3)]
    await until(lambda: waiting(proxy) == 2)
    async with proxy.http.get(proxy.url) as response:
        info = (await response.json())["info"]
    assert info["default-model"] == "GigaChat-2" and info["avail-models"]
    assert info["lane"]["waiting"] == 2
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_health_answers_200_without_a_key(start_proxy: StartProxy) -> None:
    """`GET /health` needs nothing."""
    proxy = await start_proxy(proxy_api_keys="anna:secret-1")
    async with proxy.http.get(f"{proxy.url}/health") as response:
        assert response.status == 200


async def test_keys_are_asked_for_when_they_are_set(start_proxy: StartProxy) -> None:
    """401 without a key or with a wrong one, never queued; every usual header is taken."""
    proxy = await start_proxy(proxy_api_keys="anna:secret-1,boris:secret-2")
    for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic secret-1"}):
        answer = await proxy.ask(headers=headers)
        assert answer.status == 401 and "X-API-Key" in answer.body["status"]
    assert await proxy.calls() == []
    for headers in (
        {"Authorization": "Bearer secret-1"},
        {"authorization": "bearer secret-2"},
        {"X-API-Key": "secret-1"},
        {"api-key": "secret-1"},
        {"x-goog-api-key": "secret-2"},
    ):
        assert (await proxy.ask(headers=headers)).status == 200


async def test_ids_are_made_echoed_and_passed_on(start_proxy: StartProxy) -> None:
    """X-Request-ID is ours or the caller's own; the caller's ids reach the API, its key does not."""
    proxy = await start_proxy(proxy_api_keys="anna:secret-1")
    key = {"X-API-Key": "secret-1"}
    first = await proxy.ask(headers=key)
    assert str(UUID(ours := first.headers["X-Request-ID"])) == ours and UUID(ours).version == 4
    second = await proxy.ask(headers={**key, "X-Request-ID": "mine-1", "X-Session-ID": "s-1", "X-Client-ID": "c-1"})
    assert second.headers["X-Request-ID"] == "mine-1"
    sent = [call["headers"] for call in await proxy.calls()]
    assert sent[0]["x-request-id"] == first.headers["X-Request-ID"]
    assert (sent[1]["x-request-id"], sent[1]["x-session-id"], sent[1]["x-client-id"]) == ("mine-1", "s-1", "c-1")
    assert "secret-1" not in str(sent)


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"X-Priority": "urgent"}, "X-Priority"),
        ({"X-Request-Timeout": "soon"}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "0"}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "nan"}, "X-Request-Timeout"),
    ],
)
async def test_a_wrong_header_is_a_400_that_names_it(
    start_proxy: StartProxy, headers: dict[str, str], named: str
) -> None:
    """What the caller asks of the line is checked like the body."""
    proxy = await start_proxy()
    answer = await proxy.ask(headers=headers)
    assert answer.status == 400 and named in answer.body["status"]


async def test_every_answer_through_the_line_tells_its_wait_and_the_limits(start_proxy: StartProxy) -> None:
    """X-Queue-Wait-Ms, X-Queue-Position, RateLimit and RateLimit-Policy, on answers and on refusals."""
    proxy = await start_proxy(ext_api_rpm=6000)
    proxy.giga.state.faults.add({"kind": "status", "status": 422, "times": 1})
    for expected in (422, 200):
        answer = await proxy.ask()
        assert answer.status == expected
        assert int(answer.headers["X-Queue-Wait-Ms"]) >= 0
        assert answer.headers["X-Queue-Position"] == "1"
        assert answer.headers["RateLimit-Policy"] == '"pace";q=6000;w=60'
        assert answer.headers["RateLimit"].startswith('"pace";r=')
