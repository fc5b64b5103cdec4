"""The API's own paths, byte for byte, before an API that answers in ways which the emulator does not have."""

import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

import app
from proxy.settings import Settings

MODELS = gzip.compress(b'{"object":"list","data":[]}', mtime=0)
ZIPPED = {"Content-Type": "application/json", "Content-Encoding": "gzip"}


class Api:
    """Lists its models zipped, whatever is asked of it, and gives any other body back. `asked` is what reached it."""

    def __init__(self) -> None:
        self.asked: list[web.BaseRequest] = []

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request)
        if request.path.endswith("/models"):
            return web.Response(body=MODELS, headers=ZIPPED)
        answer = web.Response(body=await request.read(), headers={"Content-Type": "text/strange; charset=koi8-r"})
        answer.headers.extend([("X-Request-ID", "of-the-api"), ("X-Trace", "one"), ("X-Trace", "two")])
        return answer


@pytest.fixture
async def api() -> Api:
    return Api()


@pytest.fixture
async def http(api: Api) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a proxy before that API."""
    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(api))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        settings = Settings(
            port=0,
            gigachat_base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1",
            gigachat_access_token=SecretStr("the-proxys-own"),
            drain_timeout=0,
        )
        service = await stack.enter_async_context(app.serving(settings))
        key = {"X-API-Key": "key-of-anna"}
        yield await stack.enter_async_context(aiohttp.ClientSession(service.url, headers=key, auto_decompress=False))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_any_method_takes_its_body_there_and_back(http: aiohttp.ClientSession, api: Api, method: str) -> None:
    """Bytes that are no text, under a path and a query that nobody writes anew."""
    body = bytes(range(256))
    async with http.request(method, "/api/v1/any/%D1%84;a=b?x=a+b%20c", data=body) as response:
        assert (response.status, await response.read()) == (200, body)
        assert response.headers["Content-Type"] == "text/strange; charset=koi8-r"
        assert response.headers.getall("X-Request-ID") == ["of-the-api"]
        assert response.headers.getall("X-Trace") == ["one", "two"]
    assert api.asked[0].method == method
    assert api.asked[0].raw_path == "/v1/any/%D1%84;a=b?x=a+b%20c"


async def test_the_callers_names_arrive_once_and_its_key_does_not(http: aiohttp.ClientSession, api: Api) -> None:
    """In whatever letters they are written: JavaScript's clients know small ones only."""
    sent = {"x-session-id": "s", "x-client-id": "c", "x-request-id": "r", "x-custom": "any", "user-agent": "Mine/1"}
    async with http.post("/api/v1/any", data=b"x", headers=sent) as response:
        assert response.status == 200
    told: Any = api.asked[0].headers
    assert {name: told.getall(name) for name in sent} == {name: [value] for name, value in sent.items()}
    assert told.getall("Authorization") == ["Bearer the-proxys-own"]
    assert "key-of-anna" not in str(told)


async def test_a_remembered_list_is_said_to_be_zipped_if_it_is(http: aiohttp.ClientSession, api: Api) -> None:
    for _ in range(2):
        async with http.get("/api/v1/models") as response:
            assert (response.status, await response.read()) == (200, MODELS)
            assert {name: response.headers[name] for name in ZIPPED} == ZIPPED
    assert len(api.asked) == 1
