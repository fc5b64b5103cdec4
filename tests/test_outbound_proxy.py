"""The way out through a company's proxy: a real one, in a process of its own, before a real emulator."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from authority import Authority
from forward_proxy import ForwardProxy, forwarding
from pydantic import SecretStr
from running import Proxy, chat, settings_for
from yarl import URL

import app
import emulator
from proxy.connector import current_gate
from proxy.errors import UpstreamError
from proxy.outbound import Outbound
from proxy.settings import Settings, SettingsError, load
from proxy.tls import Tls
from proxy.upstream import Upstream

#: Resolves nowhere: who reaches it was led there by the proxy.
HOST = "api.giga.test"
CHAT = "/chat/completions"
PASSWORD = "p@ss: %/?#[]пароль"
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])

Start = Callable[..., Awaitable[tuple[Proxy, ForwardProxy]]]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def options(authority: Authority) -> Callable[[str], emulator.Options]:
    def options_for(scheme: str) -> emulator.Options:
        certificate, key = authority.issue(HOST) if scheme == "https" else ("", "")
        return emulator.Options(tls_cert=certificate, tls_key=key)

    return options_for


@pytest.fixture
async def start(authority: Authority, options: Any, tmp_path: Path) -> AsyncIterator[Start]:
    """`await start("https", demand="user:password", user=..., password=...)`: service, forward proxy, emulator."""
    async with AsyncExitStack() as stack:

        async def begin(
            scheme: str,
            demand: str = "",
            user: str = "",
            password: str = "",
            setting: str = "outbound_proxy",
            **knobs: Any,
        ) -> tuple[Proxy, ForwardProxy]:
            giga = await stack.enter_async_context(emulator.start(options(scheme)))
            forward = stack.enter_context(forwarding(giga.port, tmp_path, demand))
            chosen = {
                "gigachat_base_url": f"{scheme}://{HOST}/v1",
                "gigachat_auth_url": f"{scheme}://{HOST}:9443/api/v2/oauth",
                "gigachat_ca_bundle_file": authority.root,
                setting: SecretStr(forward.url_for(user, password) if user else forward.url),
                "drain_timeout": 0,
            }
            service = await stack.enter_async_context(app.serving(settings_for(giga, **{**chosen, **knobs})))
            http = await stack.enter_async_context(aiohttp.ClientSession(headers={"User-Agent": "test"}))
            return Proxy(service, giga, http), forward

        yield begin


async def stream(proxy: Proxy) -> str:
    async with proxy.http.post(proxy.url, json=chat("2 + 3?", stream=True)) as response:
        return await response.text()


# -- all of it goes through


async def test_every_request_of_plain_http_is_asked_of_the_proxy(start: Start) -> None:
    """Token, chat, stream, models and the API's own paths, each with the whole address; nothing goes past it."""
    proxy, forward = await start("http")
    assert (await proxy.ask()).status == 200
    assert "[DONE]" in await stream(proxy)
    async with proxy.http.get(proxy.url) as info, proxy.http.get(f"{proxy.url}/api/v1/balance") as balance:
        assert "GigaChat-2" in await info.text()
        assert balance.status == 200
    assert forward.targets == [
        f"POST http://{HOST}:9443/api/v2/oauth",
        *[f"POST http://{HOST}/v1/chat/completions"] * 2,
        f"GET http://{HOST}/v1/models",
        f"GET http://{HOST}/v1/balance",
    ]
    assert len(proxy.giga.state.calls) == len(forward.targets)


async def test_https_goes_through_a_tunnel_that_is_kept(start: Start) -> None:
    """One for the tokens, one for all calls that follow each other; the certificate is the API's own."""
    proxy, forward = await start("https")
    for _ in range(3):
        assert (await proxy.ask()).status == 200
        assert "[DONE]" in await stream(proxy)
    assert forward.targets == [f"CONNECT {HOST}:9443", f"CONNECT {HOST}:443"]
    assert len(proxy.giga.state.calls.to(CHAT)) == 6


async def test_the_certificate_is_verified_through_the_tunnel(start: Start) -> None:
    """A proxy that opens the TLS on its way is found out, and the text says which setting helps if it may do so."""
    proxy, forward = await start("https", gigachat_ca_bundle_file=None, ext_retries=0)
    answer = await proxy.ask()
    assert (answer.status, "GIGACHAT_CA_BUNDLE_FILE" in answer.body["status"]) == (502, True)
    assert forward.targets == [f"CONNECT {HOST}:9443"]
    assert not list(proxy.giga.state.calls)


@SCHEMES
async def test_the_proxy_gets_its_password_and_the_api_does_not(start: Start, scheme: str) -> None:
    """Whatever signs are in it; the API's token, on the other hand, stays in the tunnel."""
    proxy, forward = await start(scheme, f"anna:{PASSWORD}", "anna", PASSWORD)
    assert (await proxy.ask()).status == 200
    assert "[DONE]" in await stream(proxy)
    assert {request["status"] for request in forward.requests} == {200}
    assert [call.headers for call in proxy.giga.state.calls if "Proxy-Authorization" in call.headers] == []
    assert scheme == "http" or [request for request in forward.requests if "authorization" in request["headers"]] == []


async def test_callers_of_their_own_credentials_go_the_same_way(start: Start) -> None:
    """Their token requests, their calls, and the token that the SDK asks for."""
    proxy, forward = await start("https", f"anna:{PASSWORD}", "anna", PASSWORD, gpt2giga_pass_token=True)
    for word in ("giga-cred-a2V5", "giga-user-joe:pa:ss"):
        assert (await proxy.ask(headers={"Authorization": f"Bearer {word}"})).status == 200
    own = {"Authorization": "Basic b3du"}
    async with proxy.http.post(f"{proxy.url}/api/v2/oauth", headers=own) as token:
        assert token.status == 200
    assert set(forward.targets) == {f"CONNECT {HOST}:9443", f"CONNECT {HOST}:443"}
    assert [call.headers for call in proxy.giga.state.calls if "Proxy-Authorization" in call.headers] == []


async def test_the_lane_of_chatgpt_goes_the_same_way(start: Start) -> None:
    proxy, forward = await start("http", url_gpt="http://api.gpt.test/v1", api_key=SecretStr("sk-key"), ext_retries=0)
    body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Привет"}]}
    async with proxy.http.post(f"{proxy.url}/chatgpt/", json=body):
        pass  # the emulator behind the proxy knows no such key
    assert forward.targets == ["POST http://api.gpt.test/v1/chat/completions"]


async def test_the_usual_variable_does_too(start: Start) -> None:
    """HTTPS_PROXY, for an API on https."""
    proxy, forward = await start("https", setting="https_proxy")
    assert (await proxy.ask()).status == 200
    assert forward.targets == [f"CONNECT {HOST}:9443", f"CONNECT {HOST}:443"]


async def test_the_sandbox_needs_no_proxy() -> None:
    """The built-in emulator is on this machine, which no proxy is asked for, whatever is set."""
    nobody = SecretStr("http://127.0.0.1:1")
    settings = Settings(port=0, sandbox="on", drain_timeout=0, outbound_proxy=nobody, https_proxy=nobody)
    async with (
        app.serving(settings) as service,
        aiohttp.ClientSession() as http,
        http.post(service.url, json=chat("2 + 3?")) as response,
    ):
        assert response.status == 200


@asynccontextmanager
async def client_of(proxy: Proxy) -> AsyncIterator[Upstream]:
    """A client with the settings of this service."""
    upstream = Upstream(tls=Tls(proxy.service.settings), outbound=Outbound(proxy.service.settings))
    try:
        yield upstream
    finally:
        await upstream.close()


# -- the pace holds


class HeldGate:
    """A permit whose slot comes when the test says so."""

    is_sent = False

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.slot = asyncio.Event()

    async def gate(self) -> None:
        self.reached.set()
        await self.slot.wait()

    def mark_sent(self) -> None: ...

    def release_after(self, call: object) -> None: ...


@pytest.mark.parametrize(("method", "path", "body"), [("POST", CHAT, b"{}"), ("GET", "/models", None)])
@SCHEMES
async def test_no_byte_of_a_call_leaves_before_its_slot(
    start: Start, scheme: str, method: str, path: str, body: bytes | None
) -> None:
    """The tunnel is there by then; the call itself is held."""
    proxy, forward = await start(scheme)
    url = URL(f"{scheme}://{HOST}/v1{path}")
    gate = HeldGate()

    async def call() -> int:
        current_gate.set(gate)
        async with client_of(proxy) as upstream, upstream.open(method, url, body=body) as response:
            return response.status

    answer = asyncio.create_task(call())
    await gate.reached.wait()
    assert forward.targets == ([f"CONNECT {HOST}:443"] if scheme == "https" else [])
    assert not list(proxy.giga.state.calls)
    gate.slot.set()
    assert await answer == 401  # it has no token
    assert len(proxy.giga.state.calls) == 1


@SCHEMES
async def test_calls_through_it_are_evenly_spaced(start: Start, scheme: str) -> None:
    """As the API sees them: there is no burst."""
    interval, count = 0.2, 6
    proxy, _ = await start(scheme, ext_api_rpm=60 / interval)
    assert {answer.status for answer in await asyncio.gather(*(proxy.ask() for _ in range(count)))} == {200}
    first, *_, last = [call.arrived_ns / 1e9 for call in proxy.giga.state.calls.to(CHAT)]
    assert last - first > interval * (count - 1) / 2


# -- when it does not let calls pass


@pytest.mark.parametrize("user", ["anna", ""], ids=["wrong password", "no password"])
@SCHEMES
async def test_a_refused_password_is_told_by_its_setting(
    start: Start, scheme: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """502, and not tried again: after a few wrong passwords accounts are locked. No secret is told, in no place."""
    caplog.set_level(logging.DEBUG)
    proxy, forward = await start(scheme, "anna:right", user, "hunter2")
    answer = await proxy.ask()
    assert answer.status == 502
    assert "OUTBOUND_PROXY=http://user:password@host:port" in answer.body["status"]
    assert len(forward.requests) == 1
    assert "OUTBOUND_PROXY" in caplog.text
    told = caplog.text + str(answer) + repr(proxy.service)
    assert not any(secret in told for secret in secrets("anna", "hunter2"))
    assert not list(proxy.giga.state.calls)


def secrets(user: str, password: str) -> list[str]:
    """A password in all of its forms."""
    return [password, aiohttp.encode_basic_auth(user, password).removeprefix("Basic ")]


@SCHEMES
async def test_its_407_is_never_taken_for_the_answer_of_the_api(start: Start, scheme: str) -> None:
    """Where the API's answers are passed on as they are, either."""
    proxy, _ = await start(scheme, "anna:right", gigachat_access_token=SecretStr("t"))
    async with proxy.http.get(f"{proxy.url}/api/v1/models") as response:
        assert (response.status, "OUTBOUND_PROXY" in await response.text()) == (502, True)
        assert "Proxy-Authenticate" not in response.headers


async def test_a_proxy_that_is_not_there_is_told_by_its_setting(
    start: Start, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It may come back, so it is tried again; in the end it is a 502 that says where to look."""
    caplog.set_level(logging.DEBUG)
    nobody = SecretStr(f"http://anna:hunter2@127.0.0.1:{unused_tcp_port}")
    proxy, _ = await start("https", outbound_proxy=nobody, ext_retries=1)
    answer = await proxy.ask()
    assert answer.status == 502
    assert answer.body["status"] == "no connection to the proxy on the way out could be opened: check OUTBOUND_PROXY"
    assert f"127.0.0.1:{unused_tcp_port}" in caplog.text
    assert not any(secret in caplog.text for secret in secrets("anna", "hunter2"))


async def test_a_proxy_that_does_not_open_the_tunnel_is_told_with_its_status(start: Start) -> None:
    """The API may be forbidden there, or out of its reach. The setting is the one that is in force."""
    proxy, forward = await start("https", "403", ext_retries=1)
    answer = await proxy.ask()
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert answer.body["status"] == "the proxy on the way out lets no call pass (403): check OUTBOUND_PROXY"
    assert len(forward.requests) == 2
    usual = proxy.service.settings.model_copy(update={"outbound_proxy": None, "https_proxy": SecretStr(forward.url)})
    async with client_of(replace(proxy, service=replace(proxy.service, settings=usual))) as upstream:
        with pytest.raises(UpstreamError, match=r"\(403\): check HTTPS_PROXY"):
            await upstream.read("GET", URL(f"https://{HOST}/v1/models"))


# -- which calls go through it

PROXY = SecretStr("http://proxy:3128")


def setting_for(url: str, **chosen: Any) -> str:
    hop = Outbound(Settings(**chosen))(URL(url))
    return hop.setting if hop else ""


@pytest.mark.parametrize("url", ["http://gateway/v1", "https://api.giga.chat/v1", "https://10.1.2.3:8443/v1"])
def test_outbound_proxy_is_for_every_address(url: str) -> None:
    """Whatever the machine's usual variables say."""
    assert setting_for(url, outbound_proxy=PROXY, https_proxy=PROXY, no_proxy="*") == "OUTBOUND_PROXY"
    assert setting_for(url) == ""


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "giga.localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_this_machine_is_called_directly(host: str) -> None:
    """A proxy would take it for itself."""
    assert setting_for(f"https://{host}:8079/v1", outbound_proxy=PROXY, https_proxy=PROXY) == ""


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("", "https://api.giga.chat/v1", False),
        ("", "http://gateway/v1", True),
        ("*", "https://api.giga.chat/v1", True),
        ("giga.chat", "https://api.giga.chat/v1", True),
        (".giga.chat", "https://api.giga.chat/v1", True),
        ("*.GIGA.chat", "https://api.giga.chat/v1", True),
        ("api.giga.chat", "https://api.giga.chat/v1", True),
        ("example.org giga.chat", "https://api.giga.chat/v1", True),
        ("giga.chat:443,example.org", "https://api.giga.chat/v1", True),
        ("giga.chat:444", "https://api.giga.chat/v1", False),
        ("iga.chat,chat.giga,api", "https://api.giga.chat/v1", False),
        ("10.0.0.0/8", "https://10.1.2.3/v1", True),
        ("10.1.2.3", "https://10.1.2.3/v1", True),
        ("10.0.0.0/8,::/0", "https://11.1.2.3/v1", False),
        (".,:,/,*.,[,10.0.0.0/99", "https://api.giga.chat/v1", False),
    ],
)
def test_no_proxy_names_what_https_proxy_is_not_for(no_proxy: str, url: str, is_direct: bool) -> None:
    """As other programs read it: hosts and all under them, networks, ports; nonsense names nobody."""
    assert setting_for(url, https_proxy=PROXY, no_proxy=no_proxy) == ("" if is_direct else "HTTPS_PROXY")


# -- how it is written


@pytest.mark.parametrize("name", ["OUTBOUND_PROXY", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "socks5://anna:hunter2@proxy:1080",
        "https://anna:hunter2@proxy:443",
        "http://anna:hunter2@proxy:99999",
        "http://anna:hunter2@proxy:3128/path",
        "http://anna:hunter2@:3128",
        "http://anna:hun ter2@proxy",
        "anna:hunter2#@proxy",
        "hunter2 hunter2",
        "http://hunter2?",
    ],
)
def test_what_is_no_proxy_stops_the_start_without_its_password(name: str, value: str, tmp_path: Path) -> None:
    """With the name, the place, and how it is written."""
    with pytest.raises(SettingsError, match=r"allowed: http://host:port, http://user:password@host:port") as told:
        load(env={name: value}, cwd=tmp_path, assets=tmp_path)
    assert f"{name}=*** in the environment is wrong" in str(told.value)
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("name", ["OUTBOUND_PROXY", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("value", ["proxy:3128", "http://proxy:3128", "http://proxy:3128/", "anna:hunter2@proxy:3128"])
def test_it_may_be_written_as_people_do(name: str, value: str, tmp_path: Path) -> None:
    """In the environment or a file; its password shows nowhere."""
    chosen = load(env={name: value, "no_proxy": "example.org"}, cwd=tmp_path, assets=tmp_path)
    hop = Outbound(chosen)(URL("https://api.giga.chat"))
    assert hop is not None and (hop.url.host, hop.url.port, hop.url.user) == ("proxy", 3128, None)
    assert bool(hop.headers) == ("anna" in value)
    assert not any(secret in f"{hop!r} {chosen!r}" for secret in secrets("anna", "hunter2"))
