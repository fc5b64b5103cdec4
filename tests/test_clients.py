"""Client libraries as their users run them: each waits in line longer than its own time-out, and gets its answer."""

import asyncio
import http.client
import json
import shutil
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import gigachat
import httpx
import pytest
from gigachat.exceptions import RateLimitError, ResponseError, UnprocessableEntityError
from gigachat.models import Chat
from running import Proxy, StartProxy, busy, chat, until, waiting

from emulator import Options

TEXT = "Привет, как дела?"


def sdk(proxy: Proxy, timeout: float = 0.5, base: str = "/api/v1") -> gigachat.GigaChat:
    return gigachat.GigaChat(base_url=proxy.url + base, model="GigaChat-2", timeout=timeout)


# -- the official SDK


async def plain(client: gigachat.GigaChat) -> str:
    def ask() -> str:
        with client:
            return client.chat(TEXT).choices[0].message.content

    return await asyncio.to_thread(ask)


async def stream(client: gigachat.GigaChat) -> str:
    def ask() -> str:
        with client:
            return "".join(chunk.choices[0].delta.content or "" for chunk in client.stream(TEXT))

    return await asyncio.to_thread(ask)


async def plain_async(client: gigachat.GigaChat) -> str:
    async with client:
        return (await client.achat(TEXT)).choices[0].message.content


async def stream_async(client: gigachat.GigaChat) -> str:
    async with client:
        return "".join([chunk.choices[0].delta.content or "" async for chunk in client.astream(TEXT)])


WAYS = [plain, stream, plain_async, stream_async]


@pytest.mark.parametrize("base", ["/api/v1", "/v1"])
async def test_the_sdk_waits_longer_than_its_time_out(start_proxy: StartProxy, base: str) -> None:
    """It gets the whole answer of the API, plain and streaming, sync and async, wherever its base address ends."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2)
    first = await busy(proxy, 1.2)
    since = time.monotonic()
    answers = await asyncio.gather(*(way(sdk(proxy, base=base)) for way in WAYS))
    assert time.monotonic() - since > 1
    assert answers == [(await proxy.ask(TEXT)).body["data"]["choices"][0]["message"]["content"]] * 4
    await first


async def test_the_sdk_with_two_seconds_of_patience_waits_ten(start_proxy: StartProxy) -> None:
    """With every setting at its default, plain and streaming, sync and async."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 10)
    since = time.monotonic()
    answers = await asyncio.gather(*(way(sdk(proxy, timeout=2)) for way in WAYS))
    assert time.monotonic() - since >= 9.9
    assert len(answers) == 4 and all(answers)
    await first


async def test_the_sdk_without_signs_of_life_gives_up(start_proxy: StartProxy) -> None:
    """The same wait with HEARTBEAT_102=off: this is what the signs are for."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2, heartbeat_102="off")
    first = await busy(proxy, 1.2)
    with pytest.raises(httpx.ReadTimeout):
        await plain_async(sdk(proxy))
    await first


async def test_everything_that_the_sdk_sends_reaches_the_api(start_proxy: StartProxy) -> None:
    """Parameters, additional fields, and the answer's fields that the SDK knows."""
    proxy = await start_proxy()
    payload = Chat.model_validate(
        {
            "messages": [{"role": "system", "content": "кратко"}, {"role": "user", "content": TEXT}],
            "temperature": 0.7,
            "max_tokens": 50,
            "additional_fields": {"surprise": {"deep": [1, None]}},
        }
    )
    async with sdk(proxy) as client:
        answer = await client.achat(payload)
    sent = (await proxy.calls())[0]["body"]
    assert sent["messages"] == [{"role": "system", "content": "кратко"}, {"role": "user", "content": TEXT}]
    assert (sent["temperature"], sent["max_tokens"], sent["surprise"]) == (0.7, 50, {"deep": [1, None]})
    assert sent["model"] == "GigaChat-2"
    assert answer.usage.total_tokens > 0
    assert answer.x_headers and answer.x_headers["x-request-id"]


async def test_the_sdk_raises_its_own_errors(start_proxy: StartProxy) -> None:
    """Our refusals and the API's come in GigaChat's shape, so that the SDK's exceptions carry them."""
    proxy = await start_proxy(ext_retries=0)
    async with sdk(proxy) as client:
        with pytest.raises(UnprocessableEntityError) as wrong:
            await client.achat({"messages": [{"role": "user", "content": TEXT}], "temperature": -1})
        told = json.loads(wrong.value.content)
        assert told["status"] == 422 and "temperature" in told["message"]

        proxy.giga.state.faults.add({"kind": "status", "status": 402}, {"kind": "status", "status": 500})
        for status in (402, 500):
            with pytest.raises(ResponseError) as refused:
                await client.achat(TEXT)
            assert refused.value.status_code == json.loads(refused.value.content)["status"] == status


async def test_the_sdk_is_told_when_to_come_back(start_proxy: StartProxy) -> None:
    """A full line is its RateLimitError with the seconds to wait."""
    proxy = await start_proxy(ext_max_requests=1, ext_queue_size=1)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    async with sdk(proxy) as client:
        with pytest.raises(RateLimitError) as refused:
            await client.achat(TEXT)
    assert refused.value.retry_after and refused.value.retry_after >= 1
    await asyncio.gather(first, second)


async def test_a_stream_that_breaks_is_no_whole_answer_to_the_sdk(start_proxy: StartProxy) -> None:
    """It yields what came and then raises."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 2})
    came = 0
    async with sdk(proxy) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in client.astream(TEXT):
                came += 1
    assert came == 2


@pytest.mark.parametrize(
    ("path", "agent", "dialect"),
    [
        ("/api/v3/nothing", "test", "gigachat"),
        ("/v1/", "GigaChat-python-lib", "gigachat"),
        ("/v1/nothing", "test", "openai"),
        ("/chat/nothing", "test", "openai"),
        ("/nothing", "GigaChat-python-lib", "native"),
    ],
)
async def test_a_wrong_path_is_told_in_the_callers_dialect(
    start_proxy: StartProxy, path: str, agent: str, dialect: str
) -> None:
    """It goes by the path; under /v1 by who asks, too."""
    proxy = await start_proxy()
    async with proxy.http.post(proxy.url + path, headers={"User-Agent": agent}) as response:
        assert response.status == 404
        told = f"there is nothing at {path}"
        expected: dict[str, Any] = {
            "gigachat": {"status": 404, "message": told},
            "openai": {"error": {"message": told, "type": "invalid_request_error", "param": None, "code": "not_found"}},
            "native": {"app": "gigachat-proxy", "status": told, "data": {}},
        }
        assert await response.json() == expected[dialect]


async def test_what_the_api_says_to_a_wrong_body_or_path_comes_back_as_it_is(start_proxy: StartProxy) -> None:
    """Forwarded bodies are not validated: status, type and bytes are the API's own."""
    proxy = await start_proxy()
    token = {"Authorization": f"Bearer {await token_of(proxy)}"}
    for path, body in (("/v1/chat/completions", b"[]"), ("/v1/nothing", b"x"), ("/v1/models/none", b"")):
        async with proxy.http.post(f"{proxy.giga.url}{path}", data=body, headers=token) as direct:
            expected = direct.status, direct.content_type, await direct.read()
        async with proxy.http.post(f"{proxy.url}/api{path}", data=body) as response:
            assert (response.status, response.content_type, await response.read()) == expected


async def token_of(proxy: Proxy) -> str:
    """A token for the emulator itself."""
    headers = {"Authorization": "Basic a-key", "RqUID": str(uuid4())}
    form = {"scope": "GIGACHAT_API_PERS"}
    async with proxy.http.post(f"{proxy.giga.url}/api/v2/oauth", data=form, headers=headers) as response:
        return str((await response.json())["access_token"])


# -- those who skip a 102


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("agent", ["", "OpenAI/Python 2.7.1", "AsyncOpenAI/Python 2.7.1"])
async def test_httpx_and_what_is_built_on_it(start_proxy: StartProxy, agent: str, streaming: bool) -> None:
    """httpx itself, and the openai library, which is httpx under another name."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2)
    first = await busy(proxy, 1.2)
    async with httpx.AsyncClient(timeout=0.5, headers={"User-Agent": agent} if agent else {}) as client:
        response = await client.post(proxy.url, json=chat(stream=streaming))
    assert response.status_code == 200
    assert response.text.endswith("data: [DONE]\n\n") if streaming else response.json()["status"] == "ok"
    await first


@pytest.mark.parametrize("streaming", [False, True])
async def test_aiohttp(start_proxy: StartProxy, streaming: bool) -> None:
    """Its time-out for a read starts anew with each sign of life."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2)
    first = await busy(proxy, 1.2)
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_read=0.5)) as client,
        client.post(proxy.url, json=chat(stream=streaming)) as response,
    ):
        assert response.status == 200
        text = await response.text()
    assert text.endswith("data: [DONE]\n\n") if streaming else json.loads(text)["status"] == "ok"
    await first


async def test_curl(start_proxy: StartProxy) -> None:
    """It ends with the final status and prints the answer alone."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.1)
    first = await busy(proxy, 0.6)
    command = ["curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", proxy.url, "-d", json.dumps(chat())]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    printed, _ = await curl.communicate()
    answer, _, status = printed.decode().rpartition("\n")
    assert (curl.returncode, status) == (0, "200")
    assert json.loads(answer)["status"] == "ok"
    await first


# -- those who would take a 102 for the answer


async def test_urllib_waits_and_sees_only_the_answer(start_proxy: StartProxy) -> None:
    """urllib and http.client, on which urllib3 and requests are built, get one status: the final one."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.1)
    first = await busy(proxy, 0.8)
    body = json.dumps(chat()).encode()

    def by_urllib() -> tuple[int, Any]:
        asked = urllib.request.Request(proxy.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as response:
            return response.status, json.load(response)

    def as_requests() -> tuple[int, Any]:
        connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
        headers = {"User-Agent": "python-requests/2.32.3", "Accept": "*/*", "Connection": "keep-alive"}
        connection.request("POST", "/", body, headers)
        response = connection.getresponse()
        answer = response.status, json.load(response)
        connection.close()
        return answer

    for status, answer in await asyncio.gather(asyncio.to_thread(by_urllib), asyncio.to_thread(as_requests)):
        assert (status, answer["status"]) == (200, "ok")
    await first


async def test_requests_reads_a_long_stream_through_comments(start_proxy: StartProxy) -> None:
    """A stream keeps such a client alive after all: it has its 200 early, and a line before each time-out."""
    proxy = await start_proxy(
        Options(chunk_delay=0.01), ext_max_requests=1, heartbeat_interval=0.2, stream_early_200=0.3
    )
    first = await busy(proxy, 1.2)

    def ask() -> list[bytes]:
        connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=0.5)
        connection.request("POST", "/", json.dumps(chat(stream=True)), {"User-Agent": "python-requests/2.32.3"})
        response = connection.getresponse()
        assert response.status == 200
        lines = response.read().splitlines()
        connection.close()
        return lines

    lines = await asyncio.to_thread(ask)
    assert lines[0].startswith(b": queued position=1")
    assert lines[-2] == b"data: [DONE]"
    await first
