"""LanguageModelChat's clients: the conversation comes back with the answer appended."""

import asyncio
from typing import Any

import openai_upstream
import pytest
from pydantic import SecretStr
from running import Proxy, StartProxy, busy

from emulator import Options
from proxy.settings import LMC_SYSTEM, load

SYSTEM = {"role": "system", "content": LMC_SYSTEM}
HELLO = {"role": "user", "content": "Привет!"}


async def post(proxy: Proxy, body: Any, path: str = "/gigachat/", **headers: str) -> tuple[int, Any, Any]:
    async with proxy.http.post(proxy.url + path, json=body, headers=headers) as response:
        return response.status, await response.json(), response.headers


@pytest.mark.parametrize("path", ["/gigachat/", "/gigachat"])
async def test_the_answer_is_the_last_message_of_the_conversation(start_proxy: StartProxy, path: str) -> None:
    """A system message stands first, and the model is told as it was asked for."""
    proxy = await start_proxy()
    status, body, headers = await post(proxy, {"model": "GigaChat:latest", "messages": [HELLO]}, path)
    assert status == 200 and headers["X-Queue-Position"] == "1"
    assert list(body) == ["model", "messages"] and body["model"] == "GigaChat:latest"
    assert body["messages"][:2] == [SYSTEM, HELLO]
    assert body["messages"][2]["role"] == "assistant" and body["messages"][2]["content"]
    (call,) = await proxy.calls()
    assert call["body"]["messages"] == [SYSTEM, HELLO]


async def test_the_conversation_goes_on_with_what_came_back(start_proxy: StartProxy) -> None:
    """Nothing is put in twice."""
    proxy = await start_proxy()
    _, first, _ = await post(proxy, {"model": "GigaChat-2", "messages": [HELLO]})
    asked = [*first["messages"], {"role": "user", "content": "Сколько будет 2 + 3?"}]
    status, second, _ = await post(proxy, {"model": "GigaChat-2", "messages": asked})
    assert status == 200 and second["messages"][:-1] == asked and "5" in second["messages"][-1]["content"]


async def test_a_system_message_of_the_callers_own_is_left_alone(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    own = {"role": "system", "content": "Отвечай стихами"}
    _, body, _ = await post(proxy, {"messages": [own, HELLO]})
    assert body["messages"][:-1] == [own, HELLO]
    assert body["model"].startswith("GigaChat-2")


async def test_the_system_message_is_the_operators_to_choose(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(lmc_system="Be brief")
    _, body, _ = await post(proxy, {"messages": [HELLO]})
    assert body["messages"][0] == {"role": "system", "content": "Be brief"}


async def test_parameters_of_the_call_reach_the_api(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    await post(proxy, {"model": "GigaChat-2-Max", "messages": [HELLO], "temperature": 0.5})
    (call,) = await proxy.calls()
    assert call["body"]["temperature"] == 0.5 and call["body"]["model"] == "GigaChat-2-Max"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "messages"),
        ({}, "messages"),
        ({"messages": "Привет"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [HELLO], "stream": True}, "stream"),
        ({"messages": [HELLO], "temperature": "hot"}, "temperature"),
        ({"messages": [HELLO], "model": 5}, "model"),
    ],
)
async def test_what_is_wrong_is_named(start_proxy: StartProxy, body: Any, field: str) -> None:
    proxy = await start_proxy()
    status, told, _ = await post(proxy, body)
    assert status == 400 and field in told["error"]
    assert "generate_parameters" not in told["error"]
    assert await proxy.calls() == []


async def test_statuses_are_those_of_the_service(start_proxy: StartProxy) -> None:
    """401 without a key, the API's own 402 as it is, 502 for its 500, 405 for another method."""
    proxy = await start_proxy(proxy_api_keys={"anna": SecretStr("key")}, ext_retries=0)
    body = {"model": "GigaChat-2", "messages": [HELLO]}
    assert (await post(proxy, body))[0] == 401
    for kind, status, told in (("status", 402, 402), ("status", 500, 502)):
        proxy.giga.state.faults.add({"kind": kind, "status": status, "times": 1})
        assert (await post(proxy, body, Authorization="Bearer key"))[0] == told
    async with proxy.http.get(f"{proxy.url}/gigachat/") as response:
        assert response.status == 405 and "error" in await response.json()


async def test_it_waits_in_the_one_line(start_proxy: StartProxy) -> None:
    """The upstream's one slot is shared with everybody else."""
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1)

    answers = await asyncio.gather(*(post(proxy, {"messages": [HELLO]}) for _ in range(5)), proxy.ask())
    assert {answers[number][0] for number in range(5)} == {200} and answers[5].status == 200


async def test_chatgpt_has_a_lane_of_its_own_if_it_is_configured(start_proxy: StartProxy) -> None:
    """Its calls wait for GigaChat's as little as GigaChat's for them."""
    async with openai_upstream.running() as other:
        gpt = {"url_gpt": other.base, "api_key": SecretStr(openai_upstream.KEY), "chatgpt_ext_max_requests": 3}
        proxy = await start_proxy(ext_max_requests=1, **gpt)
        first = await busy(proxy, 30)
        status, body, _ = await post(proxy, {"model": openai_upstream.MODELS[0], "messages": [HELLO]}, "/chatgpt/")
        assert (
            status == 200 and body["model"] == openai_upstream.MODELS[0] and body["messages"][-1]["role"] == "assistant"
        )
        (call,) = other.to("/v1/chat/completions")
        assert call.json["messages"] == [SYSTEM, HELLO]
        lane = proxy.service.lanes.named("chatgpt").line.state().limits
        assert (lane.concurrency, lane.in_flight) == (3, 0)
        assert first.cancel() and await asyncio.gather(first, return_exceptions=True)


async def test_without_one_there_is_nothing_at_chatgpt(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    status, body, _ = await post(proxy, {"messages": [HELLO]}, "/chatgpt/")
    assert status == 404 and "chatgpt" in body["error"]


async def test_a_credential_of_gigachats_does_not_call_chatgpt_on_the_servers_account(start_proxy: StartProxy) -> None:
    async with openai_upstream.running() as other:
        gpt = {"url_gpt": other.base, "api_key": SecretStr(openai_upstream.KEY)}
        proxy = await start_proxy(gpt2giga_pass_token=True, **gpt)
        status, _, _ = await post(proxy, {"messages": [HELLO]}, "/chatgpt/", Authorization="Bearer giga-cred-abc")
        assert status == 400 and other.to("/v1/chat/completions") == []


def test_its_environment_names_work() -> None:
    settings = load(
        env={
            "URL_GIGACHAT": "https://api.giga.chat/v1/chat/completions",
            "AUTH_URL": "https://auth.example/api/v2/oauth",
            "SCOPE": "GIGACHAT_API_CORP",
            "AUTH_CREDENTIALS": "c2VjcmV0",
        }
    )
    assert settings.gigachat_base == "https://api.giga.chat/v1"
    assert settings.gigachat_auth_url == "https://auth.example/api/v2/oauth"
    assert settings.gigachat_scope == "GIGACHAT_API_CORP"
    assert settings.gigachat_api_key is not None and settings.gigachat_api_key.get_secret_value() == "c2VjcmV0"
