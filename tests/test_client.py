"""The drop-in class as its users have it: GigaChat's own, but for where it calls and what that costs."""

import asyncio
import inspect
import os
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gigachat
import httpx
import pytest
from aiohttp import web
from gigachat.exceptions import AuthenticationError, BadRequestError, NotFoundError, RateLimitError, ServerError
from gigachat.models import Chat, Messages, MessagesRole
from pydantic import BaseModel
from running import StartProxy, busy, until, waiting

import api_client_example
import emulator
from api_client_example import GigaChat, proxy_url
from benchmarks import client
from benchmarks.report import Size

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "api_client_example.py"
TEXT = "Сколько будет 2 + 3?"
ANSWER = "2 + 3 = 5"
PAYLOADS: list[Any] = [
    TEXT,
    {"messages": [{"role": "user", "content": TEXT}], "temperature": 0.5},
    Chat(messages=[Messages(role=MessagesRole.USER, content=TEXT)]),
]


class Sum(BaseModel):
    result: int


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIGACHAT_")]:
        monkeypatch.delenv(name)


@dataclass
class Server:
    """A server that answers as it is told to, and remembers what it was asked."""

    url: str
    script: list[web.StreamResponse | Callable[[web.Request], Any]]
    requests: list[web.Request] = field(default_factory=list)


@asynccontextmanager
async def server(*script: web.StreamResponse | Callable[[web.Request], Any]) -> AsyncIterator[Server]:
    """It answers one after the other, the last one again and again."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        scripted.requests.append(request)
        told = scripted.script.pop(0) if len(scripted.script) > 1 else scripted.script[0]
        if callable(told):
            response: web.StreamResponse = await told(request)
            return response
        return told

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted = Server(f"http://127.0.0.1:{runner.addresses[0][1]}", list(script))
    try:
        yield scripted
    finally:
        await runner.cleanup()


async def says(request: web.Request) -> web.Response:
    """A right answer."""
    message = {"role": "assistant", "content": ANSWER}
    choice = {"message": message, "index": 0, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"choices": [choice], "created": 1, "model": "m", "object": "chat.completion", "usage": usage}
    return web.json_response(body)


def refuses(status: int, **headers: str) -> Callable[[web.Request], Any]:
    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"status": status, "message": "no"}, status=status, headers=headers)

    return refuse


async def in_both_ways(client: GigaChat, payload: Any = TEXT) -> list[str]:
    """The answers of chat and achat."""
    sync = await asyncio.to_thread(client.chat, payload)
    return [answer.choices[0].message.content for answer in (sync, await client.achat(payload))]


def spoken(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


# -- it is GigaChat


def test_it_is_a_gigachat_and_takes_all_of_its_arguments() -> None:
    """isinstance holds, `chat` and `achat` have their methods, and no argument of the SDK is unknown."""
    known = [name for name in inspect.signature(gigachat.GigaChat).parameters if "kwargs" not in name]
    arguments: dict[str, Any] = dict.fromkeys(known, "text")
    arguments |= dict.fromkeys([name for name in known if "file" in name or name == "ssl_context"])
    arguments |= {"verify_ssl_certs": False, "profanity_check": True, "flags": ["a"], "max_connections": 7}
    arguments |= {"max_retries": 2, "retry_on_status_codes": (500,), "retry_backoff_factor": 0.1, "timeout": 1}
    with GigaChat(**arguments) as giga:
        assert isinstance(giga, gigachat.GigaChat)
        for namespace in (giga.chat, giga.achat):
            assert all(callable(getattr(namespace, name)) for name in ("create", "stream", "parse", "__call__"))
    for sides in (gigachat.GigaChatSyncClient, gigachat.GigaChatAsyncClient):
        assert issubclass(GigaChat, sides)


@pytest.mark.parametrize("payload", PAYLOADS, ids=["str", "dict", "Chat"])
async def test_it_answers_a_text_a_dict_and_a_chat(start_proxy: StartProxy, payload: Any) -> None:
    """Sync and async, plain and streamed, with nothing but the proxy's address, in the SDK's own models."""
    proxy = await start_proxy()
    async with GigaChat(base_url=proxy.url) as giga:
        assert await in_both_ways(giga, payload) == [ANSWER, ANSWER]
        assert spoken(await asyncio.to_thread(lambda: list(giga.stream(payload)))) == ANSWER
        assert spoken([chunk async for chunk in giga.astream(payload)]) == ANSWER
        answer = await giga.achat(payload)
    assert isinstance(answer, gigachat.ChatCompletion)
    assert answer.x_headers and answer.x_headers["x-request-id"]


async def test_it_parses_into_a_model_of_ones_own(start_proxy: StartProxy) -> None:
    """chat_parse and achat_parse."""
    proxy = await start_proxy()
    async with GigaChat(base_url=proxy.url) as giga:
        _, sync = await asyncio.to_thread(giga.chat_parse, "6*7?", response_format=Sum)
        _, parsed = await giga.achat_parse("6*7?", response_format=Sum)
    assert sync == parsed == Sum(result=42)


async def test_the_other_paths_have_the_same_address() -> None:
    """v1 under /api/v1, the second chat under /api/v2, wherever the proxy is."""
    async with server(refuses(404)) as there, GigaChat(base_url=f"{there.url}/behind/nginx/") as giga:
        for call in (giga.aget_models(), giga.achat.create("hi"), giga.aembeddings(["hi"])):
            with pytest.raises(NotFoundError):
                await call
        paths = [request.path for request in there.requests]
    assert paths == [f"/behind/nginx/api/{path}" for path in ("v1/models", "v2/chat/completions", "v1/embeddings")]


async def test_it_raises_the_exceptions_of_the_sdk(start_proxy: StartProxy) -> None:
    """The proxy's refusals and those of the API; 429 with its Retry-After."""
    proxy = await start_proxy(ext_retries=0)
    async with GigaChat(base_url=proxy.url) as giga:
        for status, error in ((400, BadRequestError), (404, NotFoundError), (500, ServerError)):
            proxy.giga.state.faults.add(*[{"kind": "status", "status": status}] * 2)
            with pytest.raises(error):
                await giga.achat(TEXT)
            with pytest.raises(error):
                await asyncio.to_thread(giga.chat, TEXT)
    async with server(refuses(429, **{"Retry-After": "7"})) as there, GigaChat(base_url=there.url) as giga:
        with pytest.raises(RateLimitError) as refused:
            await giga.achat(TEXT)
    assert refused.value.retry_after == 7.0


async def test_nobody_listens(unused_tcp_port: int) -> None:
    """httpx's exception, as from the SDK."""
    async with GigaChat(base_url=f"http://127.0.0.1:{unused_tcp_port}") as giga:
        with pytest.raises(httpx.ConnectError):
            await giga.achat(TEXT)
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(giga.chat, TEXT)


# -- where it calls


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "http://127.0.0.1:8078"),
        ("localhost:9000", "http://localhost:9000"),
        ("http://host:9000/", "http://host:9000"),
        ("http://host/api/v1", "http://host"),
        ("http://host/v1/", "http://host"),
        ("http://api/v1", "http://api"),
        ("http://api", "http://api"),
        ("https://company/giga", "https://company/giga"),
        ("https://company/giga/api/v1", "https://company/giga"),
    ],
)
def test_the_address_may_be_written_in_many_ways(given: str | None, url: str) -> None:
    """With and without a scheme, a slash, /api/v1."""
    assert proxy_url(given) == url


async def test_the_environment_says_where_the_proxy_is(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIGACHAT_PROXY_URL and GIGACHAT_PROXY_KEY; not GIGACHAT_BASE_URL, which is the API's address."""
    proxy = await start_proxy(proxy_api_keys="anna:the-key-of-anna")
    monkeypatch.setenv("GIGACHAT_PROXY_URL", proxy.url)
    monkeypatch.setenv("GIGACHAT_PROXY_KEY", "the-key-of-anna")
    monkeypatch.setenv("GIGACHAT_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with GigaChat() as giga:
        assert await in_both_ways(giga) == [ANSWER, ANSWER]


async def test_it_speaks_https_as_the_sdk_does(tmp_path: Path) -> None:
    """A bundle, a context, no verification; and without any of them a certificate of nobody is refused."""
    made = f"req -x509 -newkey rsa:2048 -nodes -keyout {tmp_path}/key -out {tmp_path}/cert -days 2 -subj /CN=localhost"
    command = ["openssl", *made.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    options = emulator.Options(tls_cert=cert, tls_key=key, access_tokens=("a-key",))
    async with emulator.start(options) as there:
        trusting: list[dict[str, Any]] = [{"ca_bundle_file": cert}, {"verify_ssl_certs": False}]
        for trust in [*trusting, {"ssl_context": ssl.create_default_context(cafile=cert)}]:
            async with GigaChat(base_url=there.url, api_key="a-key", **trust) as giga:
                assert await in_both_ways(giga) == [ANSWER, ANSWER]
        async with GigaChat(base_url=there.url, api_key="a-key") as giga:
            with pytest.raises(httpx.ConnectError):
                await giga.achat(TEXT)
            with pytest.raises(httpx.ConnectError):
                await asyncio.to_thread(giga.chat, TEXT)


# -- keys


@pytest.mark.parametrize("name", ["api_key", "access_token", "credentials"])
async def test_the_key_goes_to_the_proxy_as_it_is(start_proxy: StartProxy, name: str) -> None:
    """By any of its names, with no token asked for; a wrong one is the SDK's AuthenticationError."""
    proxy = await start_proxy(proxy_api_keys="anna:the-key-of-anna")
    async with GigaChat(base_url=proxy.url, **{name: "the-key-of-anna"}) as giga:
        assert await in_both_ways(giga) == [ANSWER, ANSWER]
    async with GigaChat(base_url=proxy.url, **{name: "another-key"}) as giga:
        with pytest.raises(AuthenticationError):
            await giga.achat(TEXT)


async def test_the_secrets_of_the_api_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment holds for the API itself is not sent to the proxy, and nobody is asked for a token."""
    for name in ("CREDENTIALS", "ACCESS_TOKEN", "USER", "PASSWORD"):
        monkeypatch.setenv(f"GIGACHAT_{name}", "a-secret-of-the-api")
    async with server(says) as there, GigaChat(base_url=there.url, auth_url="http://127.0.0.1:1") as giga:
        await in_both_ways(giga)
        assert [request.headers.get("Authorization") for request in there.requests] == [None, None]
        assert {request.path for request in there.requests} == {"/api/v1/chat/completions"}


async def test_get_token_gives_what_opens_the_proxy() -> None:
    """The key as a token that is good for half an hour; any word if none is needed."""
    async with GigaChat(api_key="the-key") as giga:
        for token in (giga.get_token(), await giga.aget_token()):
            assert token is not None
            assert token.access_token == giga.token == "the-key"
            assert token.expires_at > 10**12
    with GigaChat() as giga:
        assert giga.get_token().access_token  # type: ignore[union-attr]


# -- waiting


async def test_waiting_in_line_costs_no_time_out(start_proxy: StartProxy) -> None:
    """With half a second of patience it waits longer, in both ways, plain and streamed."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.2)
    first = await busy(proxy, 1.0)
    async with GigaChat(base_url=proxy.url, timeout=0.5) as giga:
        streams = asyncio.to_thread(lambda: spoken(list(giga.stream(TEXT))))
        both, stream = await asyncio.gather(in_both_ways(giga), streams)
    assert [*both, stream] == [ANSWER] * 3
    await first


async def test_the_time_out_is_one_of_silence() -> None:
    """httpx.ReadTimeout, as in the SDK, when nothing comes; the default outlasts the proxy's own patience."""

    async def sleep(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return await says(request)

    async with server(sleep) as there, GigaChat(base_url=there.url, timeout=0.1) as giga:
        with pytest.raises(httpx.ReadTimeout):
            await giga.achat(TEXT)
        with pytest.raises(httpx.ReadTimeout):
            await asyncio.to_thread(giga.chat, TEXT)
    with GigaChat() as giga:
        assert giga._aclient.timeout.read == giga._client.timeout.read == 660.0
        assert giga._aclient.timeout.pool is None


@pytest.mark.parametrize("connections", [None, 3])
async def test_many_gathered_calls_wait_here_and_in_line(start_proxy: StartProxy, connections: int | None) -> None:
    """All are answered, over no more connections than allowed."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 0.5)
    async with GigaChat(base_url=proxy.url, max_connections=connections) as giga:
        calls = asyncio.gather(*(giga.achat(f"Скажи: {n}") for n in range(150)))
        await until(lambda: waiting(proxy) == (connections or 100))
        answers = [answer.choices[0].message.content for answer in await calls]
    assert answers == [str(n) for n in range(150)]
    await first


async def test_a_cancelled_call_leaves_the_line(start_proxy: StartProxy) -> None:
    """It is never sent to the API."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 0.5)
    async with GigaChat(base_url=proxy.url) as giga:
        call = asyncio.create_task(giga.achat("second"))
        await until(lambda: waiting(proxy) == 1)
        call.cancel()
        await until(lambda: waiting(proxy) == 0)
    await first
    assert await proxy.sent_texts() == ["first"]


# -- streams and retries


async def test_a_stream_that_breaks_is_not_begun_again(start_proxy: StartProxy) -> None:
    """Even with retries its text comes once; the SDK itself would begin anew and say everything twice."""
    proxy = await start_proxy(ext_retries=0)
    for _ in range(2):
        proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 2})
    heard: list[Any] = []

    def listen() -> None:
        heard.extend(giga.stream("раз, два, три, четыре"))

    async with GigaChat(base_url=proxy.url, max_retries=3, retry_backoff_factor=0.01) as giga:
        with pytest.raises(httpx.TransportError):
            await asyncio.to_thread(listen)
        with pytest.raises(httpx.TransportError):
            async for chunk in giga.astream("раз, два, три, четыре"):
                heard.append(chunk)  # noqa: PERF401 - what was heard before it broke counts
    assert len(heard) == 4 and spoken(heard[:2]) == spoken(heard[2:])
    assert len(await proxy.calls()) == 2


async def test_hanging_up_on_a_stream_ends_the_call(start_proxy: StartProxy) -> None:
    """Whoever has heard enough frees the place in flight."""
    proxy = await start_proxy(emulator.Options(chunk_delay=0.1), ext_max_requests=1)
    async with GigaChat(base_url=proxy.url) as giga:
        stream = giga.astream("раз, два, три, четыре, пять, шесть, семь, восемь")
        assert await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: proxy.service.line.state().limits.in_flight == 0)
    (call,) = await proxy.calls()
    assert call["disconnected"]


async def test_max_retries_repeats_what_may_be_repeated() -> None:
    """Refusals, after their Retry-After; and broken connections. In both ways, plain and streamed."""

    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    for ask in (lambda giga: asyncio.to_thread(giga.chat, TEXT), lambda giga: giga.achat(TEXT)):
        script = (refuses(429, **{"Retry-After": "0.05"}), hang_up, says)
        async with server(*script) as there:
            async with GigaChat(base_url=there.url, max_retries=2, retry_backoff_factor=0.01) as giga:
                assert (await ask(giga)).choices[0].message.content == ANSWER
            assert len(there.requests) == 3


@pytest.mark.parametrize(("status", "headers"), [(400, {}), (502, {"x-should-retry": "false"})])
async def test_max_retries_does_not_repeat_what_is_in_vain(status: int, headers: dict[str, str]) -> None:
    """What is wrong stays wrong, and the proxy says where its own retries are spent."""
    async with server(refuses(status, **headers)) as there:
        async with GigaChat(base_url=there.url, max_retries=3, retry_backoff_factor=0.01) as giga:
            with pytest.raises(gigachat.ResponseError):
                await giga.achat(TEXT)
        assert len(there.requests) == 1


# -- life


#: Sockets that nobody closed are collected with a ResourceWarning, which nobody sees unless he asks for it.
UNCLOSED = ("-W", "ignore::ResourceWarning")


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Python with these arguments: exit code, output, complaints. Warnings are errors in it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", *arguments),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaints = await process.communicate()
    return process.returncode or 0, output.decode(), complaints.decode()


async def test_nobody_has_to_close_it_and_loops_may_come_and_go(start_proxy: StartProxy) -> None:
    """As with the SDK: no complaint of a connection left open, and `asyncio.run` twice with one object."""
    proxy = await start_proxy()
    story = """
import asyncio
from api_client_example import GigaChat
giga = GigaChat()
for _ in range(2):
    print(asyncio.run(giga.achat("2+3")).choices[0].message.content)
"""
    code, output, complaints = await run(*UNCLOSED, "-c", story, GIGACHAT_PROXY_URL=proxy.url)
    assert (code, output, complaints) == (0, "2+3 = 5\n2+3 = 5\n", "")


async def test_the_examples_run(start_proxy: StartProxy) -> None:
    """The file without arguments."""
    proxy = await start_proxy()
    code, output, complaints = await run(str(PROGRAM), GIGACHAT_PROXY_URL=proxy.url)
    assert (code, complaints) == (0, "")
    assert output.splitlines() == [
        "мяу-мяу",
        "2 + 3 = 5",
        "4 + 5 = 9",
        "1 * 1 = 1; 2 * 2 = 4; 3 * 3 = 9; 4 * 4 = 16; 5 * 5 = 25",
        "7 + 8 = 15",
    ]


WITHOUT_SDK = """
import runpy, sys
sys.modules["gigachat"] = None
sys.argv = ["api_client_example.py", *sys.argv[1:]]
runpy.run_path("api_client_example.py", run_name="__main__")
"""


async def test_without_the_sdk_it_says_what_to_install(start_proxy: StartProxy) -> None:
    """After the plain example, which needs nothing."""
    proxy = await start_proxy()
    code, output, complaints = await run("-c", WITHOUT_SDK, GIGACHAT_PROXY_URL=proxy.url)
    assert (code, output) == (1, "мяу-мяу\n")
    assert 'pip install "gigachat' in complaints and "Traceback" not in complaints


async def test_without_a_proxy_it_says_how_to_start_one(unused_tcp_port: int) -> None:
    code, _, complaints = await run(str(PROGRAM), GIGACHAT_PROXY_URL=f"127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert "make run" in complaints and "Traceback" not in complaints


def test_its_benchmark_runs() -> None:
    """On the smallest size; how cheap it is, is not tested here."""
    report = client.run(Size.SMOKE)
    assert report.checks[0].name.startswith("CPU a call, SDK with max_connections=1")
    assert [row[0] for row in report.tables[0].rows] == [client.ONE, client.SDK, client.DROP_IN_ONE, client.DROP_IN]


# -- its document


def programs() -> list[tuple[str, str]]:
    """The Python blocks of docs/client.md, each with the output that stands below it."""
    document = (ROOT / "docs" / "client.md").read_text()
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", document, re.DOTALL)


async def test_every_program_in_the_document_prints_what_it_says(start_proxy: StartProxy) -> None:
    """Each in a Python of its own."""
    proxy = await start_proxy()
    found = programs()
    assert len(found) >= 3
    told = await asyncio.gather(*(run(*UNCLOSED, "-c", program, GIGACHAT_PROXY_URL=proxy.url) for program, _ in found))
    assert told == [(0, output, "") for _, output in found]


def test_the_document_names_every_argument_that_differs() -> None:
    document = (ROOT / "docs" / "client.md").read_text()
    own = [name for name in inspect.signature(GigaChat).parameters if name not in ("self", "settings")]
    assert [name for name in [*own, "max_connections", "max_retries"] if f"`{name}`" not in document] == []
    assert api_client_example.DEFAULT_URL in document
