import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

import emulator
import gigachat_connector
from gigachat_connector import KNOWN_MODELS
from proxy import models
from proxy.connector import current_gate, from_functions
from proxy.errors import BadRequest, UpstreamError


def body_of(upstream, number=-1):
    return orjson.loads(upstream.state.calls.to("/chat/completions")[number].body)


def answering(body, content_type="application/json", status=200):
    async def handler(request):
        return web.Response(body=body, content_type=content_type, status=status)

    return handler


def streaming(*pieces, content_type="text/event-stream", is_cut=False):
    async def handler(request):
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.005)
        if is_cut:
            request.transport.close()
        return response

    return handler


async def collected(chunks):
    return [chunk async for chunk in chunks]


# ---- A plain answer ----


async def test_answer(upstream, account, chat):
    """A chat gets the API's answer whole."""
    answer = await account(upstream.url).request_api(chat())
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert {"usage", "model", "created", "object"} <= answer.keys()


async def test_everything_given_is_sent(upstream, account, chat):
    """All parameters reach the API as they are: unknown ones, nulls and zeros too."""
    given = {
        "model": "GigaChat-2-Max",
        "temperature": None,
        "top_p": 0,
        "update_interval": 0,
        "max_tokens": 5,
        "profanity_check": False,
        "brand_new": {"deep": [None, 0, ""]},
        "flags": [],
        "stream": False,
    }
    call = chat(**given)
    call["messages"] = [{"role": "user", "content": "Привет", "brand_new": None}]
    await account(upstream.url).request_api(call)
    assert body_of(upstream) == given | {"messages": call["messages"]}


async def test_defaults(upstream, account, chat):
    """The settings fill in the model and the censor that a caller does not name; null is not naming."""
    served = account(upstream.url, gigachat_model="GigaChat-2-Pro", gigachat_profanity_check=True)
    for given in ({}, {"model": None, "profanity_check": None}):
        await served.request_api(chat(**given))
        sent = body_of(upstream)
        assert (sent["model"], sent["profanity_check"]) == ("GigaChat-2-Pro", True)
    await served.request_api(chat(model="GigaChat-2", profanity_check=False))
    sent = body_of(upstream)
    assert (sent["model"], sent["profanity_check"]) == ("GigaChat-2", False)
    await served.request_api({"messages": chat()["messages"]})
    assert body_of(upstream)["model"] == "GigaChat-2-Pro"


async def test_flags_that_a_caller_does_not_give(upstream, account, chat):
    """GIGACHAT_FLAGS stands in for them; an empty list is one."""
    served = account(upstream.url, gigachat_flags=("preprocess",))
    seen = []
    for given in ({}, {"flags": None}, {"flags": []}, {"flags": ["mine"]}):
        await served.request_api(chat(**given))
        seen.append(body_of(upstream)["flags"])
    assert seen == [["preprocess"], ["preprocess"], [], ["mine"]]
    await account(upstream.url).request_api(chat())
    assert "flags" not in body_of(upstream)


async def test_no_default_where_the_api_has_its_own(upstream, account, serve, chat):
    """Unset, the censor is the API's; an assistant or a thread brings its own model."""
    await account(upstream.url).request_api(chat())
    assert "profanity_check" not in body_of(upstream)
    seen = []

    async def handler(request):
        seen.append(await request.json())
        return web.json_response({})

    served = account(await serve({"/api/v1/chat/completions": handler}))
    for storage in ({"assistant_id": "1"}, {"thread_id": "2"}, {"limit": 5}):
        await served.request_api(chat(storage=storage))
    assert ["model" in body for body in seen] == [False, False, True]


async def test_caller_keeps_its_data(upstream, account, chat):
    """The caller's own dictionaries are not changed: a retry sends the same."""
    call = chat(stream=True)
    before = orjson.dumps(call)
    await account(upstream.url).request_api(call)
    await collected(account(upstream.url).stream_api(call))
    assert orjson.dumps(call) == before


async def test_stream_flag(upstream, account, chat):
    """A plain request never asks for a stream, a stream always does, whatever the parameters say."""
    served = account(upstream.url)
    await served.request_api(chat(stream=True))
    assert body_of(upstream)["stream"] is False
    await collected(served.stream_api(chat(stream=False)))
    assert body_of(upstream)["stream"] is True
    await served.request_api(chat())
    assert "stream" not in body_of(upstream)


async def test_headers(upstream, account, chat):
    """Each call says who we are, what it sends and what it takes."""
    await account(upstream.url).request_api(chat())
    headers = upstream.state.calls.to("/chat/completions")[0].headers
    assert headers["User-Agent"] == "gigachat-proxy"
    assert headers["Accept"] == headers["Content-Type"] == "application/json"
    await collected(account(upstream.url).stream_api(chat()))
    assert upstream.state.calls.to("/chat/completions")[1].headers["Accept"] == "text/event-stream"


async def test_unknown_fields_of_the_answer_survive(serve, account, chat):
    """A field that nobody knows yet reaches the caller, nulls and deep ones too."""
    answer = {"choices": [{"message": {"content": "x", "brand_new": None}, "odd": [1]}], "brand_new": {"a": {"b": 1.5}}}
    url = await serve({"/api/v1/chat/completions": answering(orjson.dumps(answer))})
    assert await account(url).request_api(chat()) == answer


@pytest.mark.parametrize(
    "base", ["/api/v1", "/v1", "/api/v1/", "/v1/chat/completions", "/deep/contour/api/v1"], ids=lambda base: base
)
async def test_base_addresses(serve, account, chat, base):
    """Old, new and preview bases, with a slash at the end or the full chat address: the path is the base's own."""
    path = base.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    url = await serve({path: answering(b'{"ok": 1}')})
    assert await account(url, gigachat_base_url=url + base).request_api(chat()) == {"ok": 1}


# ---- Errors ----


@pytest.mark.parametrize(
    ("fault", "status", "is_retryable"),
    [
        ({"kind": "status", "status": 400}, 400, False),
        ({"kind": "status", "status": 402}, 402, False),
        ({"kind": "status", "status": 403}, 403, False),
        ({"kind": "status", "status": 422}, 422, False),
        ({"kind": "status", "status": 500}, 502, True),
        ({"kind": "status", "status": 503}, 503, True),
        ({"kind": "html502"}, 502, True),
        ({"kind": "html200"}, 502, True),
        ({"kind": "bad_json"}, 502, True),
        ({"kind": "html200", "body": "[1]"}, 502, True),
        ({"kind": "cut"}, 502, True),
        ({"kind": "cut_stream"}, 502, True),
        ({"kind": "cut_stream", "after_chunks": 1}, 502, True),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
async def test_errors(upstream, account, chat, fault, status, is_retryable, is_stream):
    """Whatever comes from the API or its edge is an UpstreamError with a clean status, and no HTML in its text."""
    upstream.state.faults.add(fault)
    served = account(upstream.url)
    with pytest.raises(UpstreamError) as told:
        await (collected(served.stream_api(chat())) if is_stream else served.request_api(chat()))
    assert (told.value.status, told.value.is_retryable) == (status, is_retryable)
    assert "<" not in str(told.value)


async def test_throttled(upstream, account, chat):
    """The API's 429 is known as such, with the Retry-After it gave."""
    upstream.state.faults.add({"kind": "429", "retry_after": 7})
    with pytest.raises(UpstreamError) as told:
        await account(upstream.url).request_api(chat())
    assert told.value.is_throttled
    assert told.value.retry_after == 7


async def test_words_of_the_api(upstream, account, chat):
    """The API's own refusal passes with its own words and its body."""
    call = chat()
    call["messages"] = [*call["messages"], {"role": "system", "content": "late"}]
    with pytest.raises(UpstreamError, match="system message must be the first message") as told:
        await account(upstream.url).request_api(call)
    assert told.value.status == 422
    assert orjson.loads(told.value.body)["status"] == 422


async def test_words_that_come_in_pieces(serve, account, chat):
    """An error body that arrives in pieces is read whole."""

    async def handler(request):
        response = web.StreamResponse(status=422)
        await response.prepare(request)
        for piece in (b'{"status":422,', b'"message":"in ', b'pieces"}'):
            await response.write(piece)
            await asyncio.sleep(0.01)
        return response

    url = await serve({"/api/v1/chat/completions": handler})
    with pytest.raises(UpstreamError, match="in pieces"):
        await account(url).request_api(chat())


async def test_nobody_listens(account, chat, unused_tcp_port):
    """A refused connection is a 502 that may be retried; the address is not in the text."""
    with pytest.raises(UpstreamError) as told:
        await account(f"http://127.0.0.1:{unused_tcp_port}").request_api(chat())
    assert told.value.status == 502
    assert told.value.is_retryable
    assert "127.0.0.1" not in str(told.value)


async def test_parameters_that_are_no_json(upstream, account, chat):
    """Parameters nested beyond what can be written are the caller's mistake, not ours."""
    deep = {}
    for _ in range(300):
        deep = {"deeper": deep}
    with pytest.raises(BadRequest):
        await account(upstream.url).request_api(chat(brand_new=deep))


# ---- A stream ----


async def test_stream(upstream, account, chat):
    """A stream gives each chunk's JSON as bytes, the usage in the last one, and no [DONE]."""
    chunks = [orjson.loads(chunk) for chunk in await collected(account(upstream.url).stream_api(chat()))]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert "usage" in chunks[-1]


async def test_chunks_are_not_touched(serve, account, chat):
    """Chunks pass byte for byte, however the network cuts them; comments and blank lines are skipped."""
    first, second = b'{ "choices":[ {"delta":{"content":"\\u043f"}}],  "odd":1.50}', '{"ё":null}'.encode()
    wire = b": hello\n\n\n" + b"data: " + first + b"\r\n\r\n" + b"data:" + second + b"\n\ndata: [DONE]\n\n"
    for size in (1, 3, 7, len(wire)):
        pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
        url = await serve({"/api/v1/chat/completions": streaming(*pieces)})
        assert await collected(account(url).stream_api(chat())) == [first, second]


async def test_stream_without_done(serve, account, chat):
    """A stream that just ends has been cut: the chunks that came are given, then an UpstreamError."""
    url = await serve({"/api/v1/chat/completions": streaming(b'data: {"a":1}\n\n', b'data: {"b":')})
    chunks = account(url).stream_api(chat())
    assert await anext(chunks) == b'{"a":1}'
    with pytest.raises(UpstreamError, match=r"before \[DONE\]") as told:
        await anext(chunks)
    assert told.value.is_retryable


async def test_stream_with_a_broken_connection(serve, account, chat):
    """A connection that breaks in the middle of a stream is an UpstreamError, not a foreign one."""
    url = await serve({"/api/v1/chat/completions": streaming(b'data: {"a":1}\n\n', is_cut=True)})
    chunks = account(url).stream_api(chat())
    assert await anext(chunks) == b'{"a":1}'
    with pytest.raises(UpstreamError):
        await anext(chunks)


async def test_broken_chunk(serve, account, chat):
    """A chunk that is not a JSON object never reaches a caller."""
    url = await serve({"/api/v1/chat/completions": streaming(b"data: <html>\n\n")})
    with pytest.raises(UpstreamError):
        await collected(account(url).stream_api(chat()))


@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
async def test_no_stream(serve, account, chat, content_type):
    """An answer that is no stream is an UpstreamError, even if it is JSON."""
    url = await serve({"/api/v1/chat/completions": answering(b'{"choices": []}', content_type)})
    with pytest.raises(UpstreamError, match="did not answer with a stream"):
        await collected(account(url).stream_api(chat()))


async def test_connection_is_used_again_after_a_stream(serve, account, chat):
    """A stream is read to its end, so that its connection serves the next call."""
    ports = []

    async def handler(request):
        ports.append(request.transport.get_extra_info("peername")[1])
        return await streaming(b'data: {"a":1}\n\n', b"data: [DONE]\n\n")(request)

    served = account(await serve({"/api/v1/chat/completions": handler}))
    for _ in range(3):
        await collected(served.stream_api(chat()))
    assert len(set(ports)) == 1


async def test_upstream_that_does_not_close_after_done(serve, account, chat, monkeypatch):
    """[DONE] is the end, even if the upstream leaves the stream open."""
    monkeypatch.setattr("proxy.upstream.END_TIMEOUT", 0.05)
    is_over = asyncio.Event()

    async def handler(request):
        response = await streaming(b'data: {"a":1}\n\ndata: [DONE]\n\n')(request)
        await is_over.wait()
        return response

    url = await serve({"/api/v1/chat/completions": handler})
    async with asyncio.timeout(2):
        assert await collected(account(url).stream_api(chat())) == [b'{"a":1}']
    is_over.set()


async def test_connection_that_breaks_after_done(serve, account, chat):
    """After [DONE] the answer is complete, however the connection ends."""
    pieces = [b'data: {"a":1}\n\ndata: [DONE]\n\n']
    url = await serve({"/api/v1/chat/completions": streaming(*pieces, is_cut=True)})
    assert await collected(account(url).stream_api(chat())) == [b'{"a":1}']


async def test_caller_who_leaves_ends_the_call(upstream, account, chat):
    """A stream that is closed half-way is closed at the API too."""
    upstream.state.change(chunk_delay=0.05)
    chunks = account(upstream.url).stream_api(chat())
    await anext(chunks)
    await chunks.aclose()
    async with asyncio.timeout(2):
        while not upstream.state.calls.to("/chat/completions")[0].disconnected:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what the emulator sees, it does not announce


# ---- Models and information ----


async def test_info(upstream, account):
    """The information names the default model and the models that the API offers."""
    info = await account(upstream.url, gigachat_model="GigaChat-2-Max").get_info()
    assert info["default-model"] == "GigaChat-2-Max"
    assert "GigaChat-2-Pro" in info["avail-models"]


async def test_models_are_remembered(upstream, account, clock, gate):
    """The API is asked for its models once in ten minutes, however many want to know."""
    served = account(upstream.url, clock=clock)
    await asyncio.gather(*(served.get_info() for _ in range(20)))
    clock.time += models.MEMORY - 1
    listed = await served.list_models()
    assert listed["object"] == "list"
    assert len(upstream.state.calls.to("/models")) == 1
    clock.time += 1
    await served.get_info()
    assert len(upstream.state.calls.to("/models")) == 2


async def test_info_without_the_api(upstream, account, clock, gate):
    """If the API cannot be asked, the models known to us are shown; it is asked again some seconds later."""
    upstream.state.faults.add({"kind": "status", "path": "/models"})
    served = account(upstream.url, clock=clock)
    for _ in range(3):
        assert (await served.get_info())["avail-models"] == list(KNOWN_MODELS)
    assert len(upstream.state.calls.to("/models")) == 1
    upstream.state.change(legacy=True)
    clock.time += models.PAUSE
    assert "GigaChat-Plus" in (await served.get_info())["avail-models"]


async def test_info_outside_the_line_asks_nobody(upstream, account):
    """Where nothing keeps the pace no call goes out."""
    assert (await account(upstream.url).get_info())["avail-models"] == list(KNOWN_MODELS)
    assert upstream.state.calls.to("/models") == []


async def test_info_in_line_waits_for_its_slot(upstream, account, gate):
    """There the call for the models is one like any other, once in a while."""
    served = account(upstream.url)
    await served.get_info()
    await served.get_info()
    assert (gate.passed, len(upstream.state.calls.to("/models"))) == (1, 1)


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"data": {}}', b'{"data": ["GigaChat"]}', b"<html>"])
async def test_models_of_a_wrong_shape(serve, account, answer):
    """A list of models that is none is not believed."""
    served = account(await serve({"/api/v1/models": answering(answer)}))
    assert (await served.get_info())["avail-models"] == list(KNOWN_MODELS)
    with pytest.raises(UpstreamError):
        await served.list_models()


async def test_slow_models(upstream, account, monkeypatch):
    """The information does not wait for ever for the list of models."""
    monkeypatch.setattr(models, "TIMEOUT", 0.05)
    upstream.state.faults.add({"kind": "stall", "path": "/models"})
    async with asyncio.timeout(2):
        assert (await account(upstream.url).get_info())["avail-models"] == list(KNOWN_MODELS)


# ---- The module ----


async def test_module_is_a_connector(default_account, upstream, chat):
    """The module's functions serve the account that the settings describe, through the contract."""
    connector = from_functions(
        gigachat_connector.validate_data, gigachat_connector.request_api, gigachat_connector.get_info
    )
    assert connector.dialect == "gigachat"
    assert connector.is_gated
    await connector.startup()
    connector.validate(chat())
    assert (await connector.request(chat()))["choices"]
    assert len([chunk async for chunk in connector.stream(chat())]) >= 2
    assert (await connector.info())["avail-models"]
    assert (await gigachat_connector.list_models())["data"]
    await connector.shutdown()


def test_import_reads_nothing():
    """Importing the connector reads no setting, so that it may be imported before they are known."""
    code = "import gigachat_connector; from proxy import settings; assert not settings._in_force"
    root = Path(gigachat_connector.__file__).parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={"GIGACHAT_SCOPE": "nonsense"})


async def test_account_is_a_connector(upstream, account, chat):
    """An account has the same functions, so that there may be many."""
    made = account(upstream.url)
    assert (made.DIALECT, made.validate_data(chat())) == ("gigachat", True)
    assert repr(made).startswith("<Account: ")
    assert "a2V5" not in repr(made)


async def test_start_asks_nobody(default_account, upstream):
    """The start checks the settings without a word to the API; it may be repeated after a stop."""
    for _ in range(2):
        gigachat_connector.startup()
        await gigachat_connector.shutdown()
    assert not list(upstream.state.calls)


async def test_calls_pass_the_gate(upstream, account, chat, gate):
    """A chat passes the gate of its permit once, plain or stream; token and model requests do not."""
    served = account(upstream.url)
    await served.request_api(chat())
    assert gate.passed == 1
    await collected(served.stream_api(chat()))
    assert gate.passed == 2
    await served.list_models()
    assert gate.passed == 2
    assert current_gate.get() is gate


@pytest.mark.parametrize(
    ("host", "sent", "told"),
    [
        ("api.giga.chat", "GigaChat-2-Max", "GigaChat-Max -> GigaChat-2-Max"),
        ("127.0.0.1", "GigaChat-Max", None),
    ],
)
async def test_a_name_of_the_old_host_is_mapped_on_the_new_one_only(
    start_proxy: Any, monkeypatch: pytest.MonkeyPatch, host: str, sent: str, told: str | None
) -> None:
    """The new host answers old names 404, so they go as today's there, and the answer says so in a header."""
    here = socket.getaddrinfo("127.0.0.1", 80)
    real = socket.getaddrinfo

    def resolve(name: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        if name != "api.giga.chat":
            return real(name, port, *args, **kwargs)
        return [(family, kind, proto, "", (address[0], int(port))) for family, kind, proto, _, address in here]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with emulator.start() as giga:
        address = f"http://{host}:{giga.port}"
        proxy = await start_proxy(gigachat_base_url=f"{address}/v1", gigachat_auth_url=f"{address}/api/v2/oauth")
        answer = await proxy.ask(model="GigaChat-Max")
        assert answer.status == 200
        assert answer.headers.get("X-Model-Mapped") == told
        assert body_of(giga)["model"] == sent
