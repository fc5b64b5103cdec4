"""The async provider as bots have it: straight at the API, and through the service."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from authority import Authority
from forward_proxy import forwarding
from running import StartProxy, until
from test_client import PROGRAM, run, server

import api_client_example
import emulator
from api_client_example import (
    TODAYS_NAMES,
    GigaChatProvider,
    MissingAuthError,
    ProviderError,
    Tokens,
    create_async_generator,
)
from gigachat_connector import LEGACY_MODELS
from proxy.tls import API_DOMAINS, RUSSIAN_ROOT_SHA256

MESSAGES = [{"role": "user", "content": "Сколько будет 2 + 3?"}]
ANSWER = "2 + 3 = 5"
#: Its answer comes in many chunks.
LONG = [{"role": "user", "content": "раз, два, три, четыре, пять, шесть, семь, восемь"}]
CHAT = "/chat/completions"
OAUTH = "/oauth"

Giga = Callable[..., Any]


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has the tokens of another, nor the environment of whoever runs it."""
    for name in [name for name in os.environ if name.startswith("GIGACHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(api_client_example, "TOKENS", Tokens())


@pytest.fixture
async def giga(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Giga]:
    """`await giga(token_ttl=30)`: an emulator, and the environment says that it is GigaChat."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> emulator.Emulator:
            running = await stack.enter_async_context(emulator.start(emulator.Options(**options)))
            monkeypatch.setenv("GIGACHAT_BASE_URL", f"{running.url}/api/v1")
            monkeypatch.setenv("GIGACHAT_AUTH_URL", f"{running.url}/api/v2/oauth")
            return running

        yield start


async def pieces(model: str = "GigaChat-2", messages: Any = MESSAGES, **more: Any) -> list[str]:
    return [piece async for piece in create_async_generator(model, messages, **{"api_key": "key", **more})]


async def refusal(**more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as told:
        await pieces(**more)
    return told.value


# -- what it yields


@pytest.mark.parametrize("way", ["straight", "through the service"])
async def test_the_pieces_joined_are_the_answer(way: str, giga: Giga, start_proxy: StartProxy) -> None:
    """Streamed it comes in several, else whole, and it is the same."""
    address = {} if way == "straight" else {"proxy_url": (await start_proxy()).url, "api_key": None}
    await giga()
    streamed = await pieces(messages=LONG, **address)
    (whole,) = await pieces(messages=LONG, stream=False, **address)
    assert len(streamed) > 1 and all(streamed)
    assert "".join(streamed) == whole


@pytest.mark.parametrize("stream", [True, False])
async def test_parameters_reach_the_api_as_they_are(stream: bool, giga: Giga, start_proxy: StartProxy) -> None:
    """Those that it knows, and those that it does not."""
    more = {"temperature": 0.5, "max_tokens": 50, "unheard_of": [1], "update_interval": 0.01, "stream": stream}
    straight, proxy = await giga(), await start_proxy()
    await pieces(**more)
    await pieces(proxy_url=proxy.url, **more)
    for called in (straight, proxy.giga):
        (call,) = called.state.calls.to(CHAT)
        assert call.json() == {"model": "GigaChat-2", "messages": MESSAGES, **more}


async def test_it_is_a_provider_as_collections_have_them(giga: Giga) -> None:
    """The class with its attributes, positional arguments in their usual order, and the function by itself."""
    await giga()
    assert GigaChatProvider.default_model in GigaChatProvider.models
    assert {"GigaChat:latest", "GigaChat-Plus", "GigaChat-Pro"} == set(GigaChatProvider.models)
    usual = GigaChatProvider.create_async_generator("", MESSAGES, True, None, "key", None, "GIGACHAT_API_PERS", 0)
    assert "".join([piece async for piece in usual]) == ANSWER


# -- the key


async def test_without_a_key_for_gigachat_it_says_where_to_put_one(giga: Giga) -> None:
    """And asks nobody."""
    running = await giga()
    for nothing in (None, "", "  "):
        with pytest.raises(MissingAuthError, match=r"api_key=.* or GIGACHAT_API_KEY"):
            await pieces(api_key=nothing)
    assert not list(running.state.calls)


@pytest.mark.parametrize("name", ["GIGACHAT_API_KEY", "GIGACHAT_CREDENTIALS"])
async def test_the_key_may_be_in_the_environment(name: str, giga: Giga, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names that the service and the SDK have for it."""
    await giga(credentials=("secret-key",))
    monkeypatch.setenv(name, "secret-key")
    assert "".join(await pieces(api_key=None)) == ANSWER


async def test_the_service_is_given_its_own_key_if_any(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of GigaChat is not sent there; a wrong one is told."""
    monkeypatch.setenv("GIGACHAT_API_KEY", "gigachats-secret")
    async with server(refused) as there:
        assert (await refusal(api_key=None, proxy_url=there.url)).status == 418
        assert "Authorization" not in there.requests[0].headers
    proxy = await start_proxy(proxy_api_keys={"anna": "word"})
    assert "".join(await pieces(api_key="word", proxy_url=proxy.url)) == ANSWER
    assert (await refusal(api_key=None, proxy_url=proxy.url)).status == 401
    monkeypatch.setenv("GIGACHAT_PROXY_URL", proxy.url)
    monkeypatch.setenv("GIGACHAT_PROXY_KEY", "word")
    assert "".join(await pieces(api_key=None)) == ANSWER


async def refused(request: aiohttp.web.Request) -> aiohttp.web.Response:
    return aiohttp.web.json_response({"status": "no"}, status=418)


# -- the token


async def test_many_calls_ask_for_one_token(giga: Giga) -> None:
    """Twenty at once, and the next one."""
    running = await giga()
    assert await asyncio.gather(*(pieces(stream=False) for _ in range(20))) == [[ANSWER]] * 20
    await pieces()
    assert running.state.tokens.request_count == 1


async def test_a_token_belongs_to_its_key_scope_and_address(giga: Giga) -> None:
    """Nobody gets another one's."""
    running = await giga()
    elsewhere = f"http://localhost:{running.port}/api/v2/oauth"
    for more in ({}, {"api_key": "other"}, {"scope": "GIGACHAT_API_B2B"}, {"auth_url": elsewhere}):
        await pieces(**more)
        await pieces(**more)
    assert running.state.tokens.request_count == 4
    assert len({call.account for call in running.state.calls.to(CHAT)}) == 2
    scopes = [call.form()["scope"] for call in running.state.calls.to(OAUTH)]
    assert scopes == ["GIGACHAT_API_PERS"] * 2 + ["GIGACHAT_API_B2B", "GIGACHAT_API_PERS"]


@pytest.mark.parametrize(("life", "requests"), [(61.5, 1), (59, 2)])
async def test_a_token_is_renewed_a_minute_before_its_end(life: float, requests: int, giga: Giga) -> None:
    """Not before, and not so late that it ends on the way."""
    running = await giga(token_ttl=life)
    await pieces()
    await pieces()
    assert running.state.tokens.request_count == requests


async def test_a_token_that_is_refused_is_replaced_once_for_all(giga: Giga) -> None:
    """Ten calls with a token that was taken back need one other."""
    running = await giga()
    await pieces()
    running.state.tokens.expire_all()
    assert await asyncio.gather(*(pieces(stream=False) for _ in range(10))) == [[ANSWER]] * 10
    assert running.state.tokens.request_count == 2


async def test_a_second_refusal_is_told(giga: Giga) -> None:
    """In the API's words."""
    running = await giga()
    running.state.faults.add({"kind": "expired_token", "times": -1})
    told = await refusal()
    assert (told.status, str(told)) == (401, "127.0.0.1 says 401: Token has expired")
    assert len(running.state.calls.to(CHAT)) == running.state.tokens.request_count == 2


async def test_a_caller_that_leaves_leaves_the_others_their_token(giga: Giga) -> None:
    """The first one began to ask for it."""
    running = await giga()
    running.state.faults.add({"kind": "slow", "seconds": 0.3, "path": OAUTH})
    first, *others = [asyncio.create_task(pieces(stream=False)) for _ in range(5)]
    await until(lambda: len(running.state.calls) == 1)
    first.cancel()
    assert await asyncio.gather(*others) == [[ANSWER]] * 4
    assert running.state.tokens.request_count == 1


async def test_a_refused_key_is_told_to_all_and_asked_once(giga: Giga) -> None:
    """In the API's words, and without the key."""
    running = await giga(credentials=("another",))
    told = await asyncio.gather(*(refusal(api_key="c2VjcmV0LWtleQ==") for _ in range(5)))
    assert {(error.status, str(error)) for error in told} == {
        (401, "127.0.0.1 says 401: credentials doesn't match db data")
    }
    assert len(running.state.calls) == 1


async def test_event_loops_come_and_go(giga: Giga) -> None:
    """A bot that runs each call by `asyncio.run` asks for one token all the same, and leaves nothing open."""
    running = await giga()
    story = """
import asyncio
from api_client_example import create_async_generator
async def ask():
    messages = [{"role": "user", "content": "2+3"}]
    print("".join([piece async for piece in create_async_generator("GigaChat-2", messages)]))
for _ in range(2):
    asyncio.run(ask())
"""
    addresses = {"GIGACHAT_BASE_URL": f"{running.url}/v1", "GIGACHAT_AUTH_URL": f"{running.url}/api/v2/oauth"}
    assert await run("-c", story, GIGACHAT_API_KEY="key", **addresses) == (0, "2+3 = 5\n2+3 = 5\n", "")
    assert running.state.tokens.request_count == 1


# -- what goes wrong


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_has_the_words_of_who_refused(stream: bool, giga: Giga, start_proxy: StartProxy) -> None:
    """The API's, or the service's; the status, and the pause that was asked for."""
    running, proxy = await giga(), await start_proxy(ext_retries=0)
    running.state.faults.add({"kind": "429", "retry_after": 7})
    told = await refusal(stream=stream)
    assert (told.status, told.retry_after, str(told)) == (429, 7.0, "127.0.0.1 says 429: Too Many Requests")
    running.state.faults.add({"kind": "html502"})
    told = await refusal(stream=stream)
    assert (told.status, str(told)) == (502, "127.0.0.1 says 502: Bad Gateway")
    told = await refusal(stream=stream, proxy_url=proxy.url, temperature=-1)
    assert (told.status, "generate_parameters.temperature" in str(told)) == (400, True)


@pytest.mark.parametrize("body", ["[]", "5", "null", '{"choices": 5}', '{"choices": [5]}', "[" * 99999])
async def test_what_is_no_answer_is_told_as_such(body: str, giga: Giga) -> None:
    """Whatever it is instead, streamed or whole."""
    running = await giga()
    running.state.faults.add({"kind": "bad_json", "body": body}, {"kind": "html200", "body": f"data: {body}\n\n"})
    assert "no answer" in str(await refusal(stream=False))
    assert "no answer" in str(await refusal())


async def test_a_stream_that_breaks_off_is_no_answer(giga: Giga, start_proxy: StartProxy) -> None:
    """What was said before is there; then it is told."""
    running, proxy = await giga(), await start_proxy(ext_retries=0)
    for called, more in ((running, {}), (proxy.giga, {"proxy_url": proxy.url})):
        called.state.faults.add({"kind": "cut_stream", "after_chunks": 2})
        heard: list[str] = []
        with pytest.raises(ProviderError):
            async for piece in create_async_generator("", LONG, api_key="key", **more):
                heard.append(piece)  # noqa: PERF401 - what was heard before it broke counts
        assert len(heard) == 2


async def test_nobody_there(unused_tcp_port: int) -> None:
    """The host is named, the port and the reason."""
    told = await refusal(proxy_url=f"http://127.0.0.1:{unused_tcp_port}", api_key="secret")
    assert "no answer from 127.0.0.1" in str(told) and str(unused_tcp_port) in str(told)
    assert told.status is None


@pytest.mark.parametrize("answer", ["[]", "{}", '{"access_token": null, "expires_at": 1}', "<html>"])
async def test_an_answer_without_a_token_is_told(answer: str, giga: Giga) -> None:
    running = await giga()
    running.state.faults.add({"kind": "html200", "path": OAUTH, "body": answer})
    assert "has no token in it" in str(await refusal())


async def test_a_clock_that_is_wrong_does_no_harm(giga: Giga) -> None:
    """A token that was over before it came, by this machine's clock, is used for as long as tokens usually live."""
    running = await giga()
    token = {"access_token": running.state.tokens.issue("a", 1800).text, "expires_at": 1}
    running.state.faults.add({"kind": "html200", "path": OAUTH, "body": json.dumps(token)})
    for _ in range(3):
        assert "".join(await pieces()) == ANSWER
    assert len(running.state.calls.to(OAUTH)) == 1


# -- leaving early


@pytest.mark.parametrize("way", ["straight", "through the service"])
async def test_closing_it_early_hangs_up(way: str, giga: Giga, start_proxy: StartProxy) -> None:
    """The API sees it, and the place in flight is free."""
    running, proxy = await giga(chunk_delay=0.1), await start_proxy(emulator.Options(chunk_delay=0.1))
    called, more = (running, {}) if way == "straight" else (proxy.giga, {"proxy_url": proxy.url})
    async with aclosing(create_async_generator("", LONG, api_key="key", **more)) as heard:
        assert await anext(heard)
    await until(lambda: called.state.calls.to(CHAT)[0].disconnected)


async def test_one_that_ran_to_its_end_did_not_hang_up(giga: Giga) -> None:
    """The last bytes of a complete answer are waited for."""
    running = await giga()
    for _ in range(10):
        await pieces()
    assert not any(call.disconnected for call in running.state.calls)


async def test_a_connector_of_ones_own_is_used_and_stays_open(giga: Giga) -> None:
    """Its connections serve one call after the other."""
    running = await giga()
    async with aiohttp.TCPConnector() as connector:
        for stream in (True, False, True):
            await pieces(connector=connector, stream=stream)
        assert not connector.closed
        assert len(connector._conns) == 1
    assert len(running.state.calls) == 4


# -- the models


@pytest.mark.parametrize(("name", "today"), [("", "GigaChat-2"), ("GigaChat-Pro", "GigaChat-2-Pro"), ("Own", "Own")])
async def test_on_the_new_host_old_names_become_todays(name: str, today: str, giga: Giga, tmp_path: Path) -> None:
    """Where they are unknown; on any other host they are what they are."""
    running = await giga(access_tokens=("t",))
    with forwarding(running.port, tmp_path) as forward:
        for host in ("api.giga.chat", "gigachat.devices.sberbank.ru"):
            with_host = {"base_url": f"http://{host}/v1", "auth_url": f"http://{host}/api/v2/oauth"}
            if name != "Own":
                await pieces(name, proxy=forward.url, **with_host)
            else:
                assert (await refusal(model=name, proxy=forward.url, **with_host)).status == 404
    new, old = (call.json()["model"] for call in running.state.calls.to(CHAT))
    assert (new, old) == (today, name or GigaChatProvider.default_model)


def test_it_knows_what_the_service_knows() -> None:
    """The same old names, the same hosts, the same certificate."""
    assert TODAYS_NAMES == LEGACY_MODELS
    assert api_client_example.ROOT_SHA256 == RUSSIAN_ROOT_SHA256
    assert tuple(f".{domain}" for domain in API_DOMAINS) == api_client_example.ROOT_HOSTS


# -- the way out


@pytest.mark.parametrize("stream", [True, False])
async def test_a_proxy_with_a_password_is_used_for_all(stream: bool, giga: Giga, tmp_path: Path) -> None:
    """Token and chat; its password does not reach the API."""
    running = await giga()
    with forwarding(running.port, tmp_path, "anna:p@ss:word") as forward:
        await pieces(proxy=forward.url_for("anna", "p@ss:word"), stream=stream)
        assert [target.partition(" ")[2] for target in forward.targets] == [
            f"{running.url}/api/v2/oauth",
            f"{running.url}/api/v1/chat/completions",
        ]
    assert not any("Proxy-Authorization" in call.headers for call in running.state.calls)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_password_that_the_proxy_refuses_is_told_without_it(
    scheme: str, tmp_path: Path, unused_tcp_port: int
) -> None:
    """With a tunnel and without one."""
    address = dict.fromkeys(("base_url", "auth_url"), f"{scheme}://api.giga.test")
    with forwarding(unused_tcp_port, tmp_path, "anna:right") as forward:
        told = await refusal(proxy=forward.url_for("anna", "hunter2"), **address)
    assert told.status == 407
    assert "`proxy`" in str(told) and "hunter2" not in f"{told!r} {told.__cause__}"


@pytest.mark.parametrize("proxy", ["socks5://a:hunter2@h:1", "https://a:hunter2@h", "http://a:hunter2#@h", "http://"])
async def test_what_is_no_http_proxy_is_told_without_its_password(proxy: str, giga: Giga) -> None:
    """With what there is for SOCKS."""
    await giga()
    told = await refusal(proxy=proxy)
    assert "connector" in str(told) and "hunter2" not in str(told)


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def secure(giga: Giga, authority: Authority) -> emulator.Emulator:
    """GigaChat behind TLS, by an authority that nobody knows, under the names that it really has, too."""
    certificate, key = authority.issue("api.giga.chat", "ngw.devices.sberbank.ru")
    running: emulator.Emulator = await giga(tls_cert=certificate, tls_key=key)
    return running


async def test_an_unknown_authority_is_refused(secure: emulator.Emulator) -> None:
    """Before anything is said; and the remedy is named."""
    told = await refusal()
    assert "GIGACHAT_CA_BUNDLE_FILE" in str(told) and "russian_trusted_root_ca.pem" in str(told)
    assert not list(secure.state.calls)


async def test_an_authority_of_ones_own_is_trusted(
    secure: emulator.Emulator, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variable that the SDK has for it, or by a connector's own context."""
    context = api_client_example.ssl.create_default_context(cafile=authority.root)
    async with aiohttp.TCPConnector(ssl=context) as connector:
        assert "".join(await pieces(connector=connector)) == ANSWER
    monkeypatch.setenv("GIGACHAT_CA_BUNDLE_FILE", str(authority.root))
    assert "".join(await pieces()) == ANSWER
    monkeypatch.setenv("GIGACHAT_CA_BUNDLE_FILE", str(authority.root.with_name("nothing.pem")))
    assert "GIGACHAT_CA_BUNDLE_FILE" in str(await refusal())


async def test_its_usual_addresses_are_gigachats(
    secure: emulator.Emulator, authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With nothing but a key: the token is asked for where GigaChat gives them out, the call goes to the new host."""
    monkeypatch.delenv("GIGACHAT_BASE_URL")
    monkeypatch.delenv("GIGACHAT_AUTH_URL")
    monkeypatch.setenv("GIGACHAT_CA_BUNDLE_FILE", str(authority.root))
    with forwarding(secure.port, tmp_path) as forward:
        assert "".join(await pieces(proxy=forward.url)) == ANSWER
        assert forward.targets == ["CONNECT ngw.devices.sberbank.ru:9443", "CONNECT api.giga.chat:443"]


def roots_for(host: str) -> set[str]:
    """Whom it trusts for this host; nobody: it is left to the connector."""
    context = api_client_example.tls_for(host)
    if isinstance(context, bool):
        assert context
        return set()
    return {dict(pair[0] for pair in root["subject"]).get("commonName", "") for root in context.get_ca_certs()}


def test_the_russian_root_is_trusted_for_gigachat_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It comes with the service; the file may lie beside this one, or be missing. A forged one is told."""
    api_client_example.with_russian_root.cache_clear()
    for host in ("api.giga.chat", "gigachat.devices.sberbank.ru", "ngw.devices.sberbank.ru"):
        assert "Russian Trusted Root CA" in roots_for(host)
    for host in ("example.org", "mygiga.chat", "giga.chat.example.org", "127.0.0.1"):
        assert not roots_for(host)
    monkeypatch.setattr(api_client_example, "ROOT_FILES", (tmp_path / "root.pem",))
    api_client_example.with_russian_root.cache_clear()
    assert not roots_for("api.giga.chat")
    (tmp_path / "root.pem").write_text("forged")
    api_client_example.with_russian_root.cache_clear()
    with pytest.raises(ProviderError, match=r"root\.pem is not the Russian Trusted Root CA"):
        roots_for("api.giga.chat")


async def test_the_file_does_by_itself(giga: Giga, tmp_path: Path) -> None:
    """Copied into another project, without the certificate, the SDK or anything else of the service."""
    running = await giga()
    shutil.copy(PROGRAM, tmp_path / "giga_provider.py")
    story = """
import asyncio, sys
sys.modules["gigachat"] = None
from giga_provider import create_async_generator
async def ask(**more):
    return [piece async for piece in create_async_generator("", [{"role": "user", "content": "2+3"}], **more)]
print("".join(asyncio.run(ask())))
"""
    addresses = {"GIGACHAT_BASE_URL": f"{running.url}/v1", "GIGACHAT_AUTH_URL": f"{running.url}/api/v2/oauth"}
    told = await run("-c", story, PYTHONPATH=str(tmp_path), GIGACHAT_API_KEY="key", **addresses)
    assert told == (0, "2+3 = 5\n", "")


def test_no_secret_is_in_what_is_printed() -> None:
    """Neither the key nor a token nor the proxy's password."""
    way = api_client_example.Way.straight(None, None, "hush", "scope")
    reach = api_client_example.Reach(None, "http://a:hush@h:1")
    assert "hush" not in f"{way} {reach} {api_client_example.Token('hush', 1.0)}"
