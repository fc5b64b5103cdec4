"""Credentials that callers bring along: each has its own account, lane and memory, and nothing of another's."""

import asyncio
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import gigachat
import pytest
from gigachat.exceptions import AuthenticationError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from running import Proxy, StartProxy, chat, settings_for, until, waiting

import app
import emulator
from emulator import Options
from proxy.clock import Clock
from proxy.credentials import basic_of
from proxy.errors import PassedMalformed
from proxy.passed import PassedCredential, credential_for_token, credential_in
from proxy.settings import SettingsError, load

KEYS = {"anna": SecretStr("key-of-anna")}
FORMS = ["giga-cred-a2V5LW9uZQ==", "giga-cred-a2V5LXR3bw==:GIGACHAT_API_B2B", "giga-user-joe:pa:ss:word"]
TOKEN = "a-token-of-somebody"


def bearing(word: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {word}", **more}


async def raw(proxy: Proxy, headers: dict[str, str], path: str = "/api/v1/chat/completions") -> tuple[int, Any]:
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Привет"}]}
    async with proxy.http.post(proxy.url + path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def accounts(proxy: Proxy, path: str = "/chat/completions") -> list[str]:
    """Whose calls reached the upstream."""
    return [call["account"] for call in await proxy.calls(path)]


@pytest.fixture
async def giga() -> AsyncIterator[emulator.Emulator]:
    """For proxies that a test starts and stops itself."""
    async with emulator.start(Options()) as running:
        yield running


async def oauth(proxy: Proxy, headers: dict[str, str], path: str = "/api/v2/oauth") -> tuple[int, dict[str, Any]]:
    async with proxy.http.post(proxy.url + path, data={"scope": "GIGACHAT_API_PERS"}, headers=headers) as response:
        return response.status, await response.json()


class StoppedClock(Clock):
    """Time moves when the test says so."""

    time = 1000.0

    def now(self) -> float:
        return self.time


# -- how they are written


@pytest.mark.parametrize("bearer", ["Bearer ", "bearer  ", ""])
def test_every_form_is_understood_with_bearer_and_without(bearer: str) -> None:
    assert credential_in(f"{bearer}giga-cred-abc=") == PassedCredential("key", "abc=")
    assert credential_in(f"{bearer}giga-cred-abc=:GIGACHAT_API_CORP") == PassedCredential(
        "key", "abc=", scope="GIGACHAT_API_CORP"
    )
    assert credential_in(f"{bearer}giga-auth-tok.en") == PassedCredential("token", "tok.en")
    assert credential_in(f"{bearer}giga-user-joe:pa:ss") == PassedCredential("password", "pa:ss", "joe")


@pytest.mark.parametrize("other", ["", "Bearer", "Bearer sk-123", "Basic giga-cred-abc", "giga", "Bearer gigacred-a"])
def test_what_has_none_of_the_prefixes_is_no_credential(other: str) -> None:
    assert credential_in(other) is None


@pytest.mark.parametrize(
    "wrong", ["giga-cred-", "giga-cred-:GIGACHAT_API_B2B", "giga-cred-a:", "giga-cred-a:nonsense", "giga-cred-a b"]
)
@pytest.mark.parametrize("bearer", ["Bearer ", ""])
def test_a_key_that_cannot_be_right_is_refused_with_the_form(wrong: str, bearer: str) -> None:
    with pytest.raises(PassedMalformed, match="giga-cred-<"):
        credential_in(bearer + wrong)


@pytest.mark.parametrize("wrong", ["giga-user-", "giga-user-joe", "giga-user-joe:", "giga-user-:pw", "giga-auth-"])
def test_half_a_credential_is_refused(wrong: str) -> None:
    with pytest.raises(PassedMalformed, match=wrong[:10]):
        credential_in(wrong)


@given(user=st.text(min_size=1).filter(lambda text: ":" not in text), password=st.text(min_size=1))
def test_any_password_survives_a_token_request(user: str, password: str) -> None:
    header = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    assert credential_for_token(header, "", is_password=True) == PassedCredential("password", password, user)


def test_a_password_need_not_have_been_written_in_utf8() -> None:
    header = "Basic " + b64encode("joe:пароль".encode("cp1251")).decode()
    credential = credential_for_token(header, "", is_password=True)
    assert credential is not None and basic_of(credential.user, credential.secret) == header.removeprefix("Basic ")


def test_an_access_token_gets_nobody_another() -> None:
    """It would be given back unseen, and count from then on as if the API had issued it to a caller of ours."""
    for header in ("Bearer giga-auth-anything", "giga-auth-anything"):
        with pytest.raises(PassedMalformed, match="send it with your calls"):
            credential_for_token(header, "", is_password=False)


def test_a_scope_has_an_end() -> None:
    """What a stranger sends is remembered for a while."""
    with pytest.raises(PassedMalformed, match="GIGACHAT_API_CORP"):
        credential_for_token("Basic a2V5", "x" * 101, is_password=False)


def test_no_secret_is_in_what_is_printed_of_a_credential() -> None:
    credential = credential_in("giga-user-joe:secret-word")
    assert credential is not None
    assert "secret-word" not in repr(credential) and "joe" not in repr(credential)
    assert "secret-word" not in credential.fingerprint(b"salt")


# -- whose account is called


async def test_each_credential_calls_with_its_own_account(start_proxy: StartProxy) -> None:
    """In every form, native and raw; no Authorization is the server's account."""
    proxy = await start_proxy(Options(access_tokens=(TOKEN,)), gpt2giga_pass_token=True)
    for word in (*FORMS, f"giga-auth-{TOKEN}"):
        assert (await proxy.ask(headers=bearing(word))).status == 200
        assert (await proxy.ask(headers={"Authorization": word})).status == 200
        assert (await raw(proxy, bearing(word)))[0] == 200
    assert (await proxy.ask()).status == 200
    told = await accounts(proxy)
    assert len(set(told)) == 5 and all(told.count(account) == 3 for account in told[:-1])
    assert told[-1] not in told[:-1]


async def test_the_apis_own_token_calls_with_its_account_on_the_apis_paths_alone(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(Options(access_tokens=(TOKEN,)), gpt2giga_pass_token=True)
    assert (await raw(proxy, bearing(TOKEN)))[0] == 200
    assert (await raw(proxy, bearing(TOKEN, **{"User-Agent": "GigaChat-python-lib"}), "/v1/chat/completions"))[0] == 200
    refused = await proxy.ask(headers=bearing(TOKEN))
    assert refused.status == 401 and "X-API-Key" in refused.body["status"]
    assert len(set(await accounts(proxy))) == 1 and await proxy.calls("/api/v2/oauth") == []


@pytest.mark.parametrize("word", ["Basic a2V5", "eyJhbGciOiJ", "Giga-Cred-a2V5", "giga_cred-a2V5", "Token giga-auth-a"])
async def test_what_stands_in_authorization_and_is_not_understood_is_not_the_servers_account(
    start_proxy: StartProxy, word: str
) -> None:
    """Whoever misspells its credential believes to spend its own quota."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    assert (await proxy.ask(headers={"Authorization": word})).status == 401
    assert (await raw(proxy, {"Authorization": word}))[0] == 401
    assert (await proxy.ask(headers={"Authorization": "Bearer "})).status == 200
    assert len(await proxy.calls()) == 1


async def test_the_servers_own_credential_shares_the_servers_lane(start_proxy: StartProxy) -> None:
    """It is one account, so it has one limit."""
    proxy = await start_proxy(gpt2giga_pass_token=True, gigachat_api_key=SecretStr("b3Vycw=="), ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.3})
    first = asyncio.create_task(proxy.ask())
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    second = asyncio.create_task(proxy.ask(headers=bearing("giga-cred-b3Vycw==")))
    await until(lambda: waiting(proxy) == 1)
    assert (await first).status == (await second).status == 200
    assert len(proxy.service.lanes.all()) == 1 and len(await proxy.calls("/api/v2/oauth")) == 1


async def test_lanes_do_not_wait_for_each_other(start_proxy: StartProxy) -> None:
    """A full line of one account holds up nobody else's, and each keeps the limit of its own scope."""
    proxy = await start_proxy(gpt2giga_pass_token=True, ext_max_requests=None)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 5, "times": 1})
    slow = asyncio.create_task(proxy.ask(headers=bearing(FORMS[0])))
    await until(lambda: len(proxy.giga.state.calls.to("/chat/completions")) == 1)
    behind = asyncio.create_task(proxy.ask(headers=bearing(FORMS[0])))
    lanes = proxy.service.lanes
    await until(lambda: len(lanes.all()) == 2 and lanes.all()[1].line.state().waiting == 1)
    assert (await proxy.ask(headers=bearing(FORMS[1]))).status == 200
    assert (await proxy.ask()).status == 200
    assert [lane.line.state().limits.concurrency for lane in lanes.all()] == [1, 1, 10]
    assert not slow.done() and not behind.done()
    for left in (slow, behind):
        left.cancel()
    await asyncio.gather(slow, behind, return_exceptions=True)


async def test_a_token_alone_has_one_call_in_flight(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(Options(access_tokens=(TOKEN,)), gpt2giga_pass_token=True, ext_max_requests=7)
    await proxy.ask(headers=bearing(f"giga-auth-{TOKEN}"))
    await proxy.ask(headers=bearing(FORMS[0]))
    assert [lane.line.state().limits.concurrency for lane in proxy.service.lanes.all()] == [7, 1, 7]


async def test_a_proxy_without_an_account_of_its_own_serves_those_who_bring_one(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, gigachat_api_key=None)
    assert (await proxy.ask(headers=bearing(FORMS[0]))).status == 200
    refused = await proxy.ask()
    assert refused.status == 401 and "giga-cred-" in refused.body["status"]


# -- refusals


async def test_a_refused_credential_is_the_callers_401_and_is_not_shown_again(start_proxy: StartProxy) -> None:
    """It is remembered, and never does the server's own take its place."""
    proxy = await start_proxy(Options(credentials=("a-key",)), gpt2giga_pass_token=True)
    for _ in range(5):
        answer = await proxy.ask(headers=bearing("giga-cred-d3Jvbmc="))
        assert answer.status == 401 and "Retry-After" not in answer.headers
        assert (await raw(proxy, bearing("giga-cred-d3Jvbmc=")))[0] == 401
    assert len(await proxy.calls("/api/v2/oauth")) == 1 and await proxy.calls() == []
    assert (await proxy.ask()).status == 200


async def test_a_refused_token_is_the_apis_own_401(start_proxy: StartProxy) -> None:
    """The SDK asks for another when it hears it; who comes again with the same is told without a call."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    status, body = await raw(proxy, bearing("of-nobody"))
    assert (status, body) == (401, {"status": 401, "message": "Unauthorized"})
    status, body = await raw(proxy, bearing("of-nobody"))
    assert status == 401 and "less than a minute ago" in body["message"]
    assert (await proxy.ask(headers=bearing("giga-auth-of-nobody"))).status == 401
    assert len(await proxy.calls()) == 1


@pytest.mark.parametrize("word", ["of-nobody", "giga-cred-b25l"])
async def test_whoever_waits_behind_a_refusal_is_told_so_without_a_call(start_proxy: StartProxy, word: str) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "status", "status": 401, "times": -1})
    answers = await asyncio.gather(*(raw(proxy, bearing(word)) for _ in range(10)))
    assert [status for status, _ in answers] == [401] * 10
    assert len(await proxy.calls()) == (1 if word == "of-nobody" else 2)


async def test_a_credential_is_told_off_in_the_callers_dialect(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True)
    answer = await proxy.ask(headers=bearing("giga-user-joe"))
    assert answer.status == 401 and "giga-user-<user>:<password>" in answer.body["status"]
    status, body = await raw(proxy, bearing("giga-cred-key:scope"))
    assert status == 401 and "GIGACHAT_API_B2B" in body["message"]


async def test_where_credentials_are_not_taken_none_is_ignored(start_proxy: StartProxy) -> None:
    """Whoever sends one believes to spend its own quota."""
    proxy = await start_proxy()
    answer = await proxy.ask(headers=bearing(FORMS[0]))
    assert answer.status == 401 and "GPT2GIGA_PASS_TOKEN" in answer.body["status"]
    assert (await proxy.ask(headers=bearing("anything"))).status == 200


async def test_a_refusal_is_forgotten_in_time(start_proxy: StartProxy) -> None:
    """After a minute it is shown again: it may have been mended."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    clock = StoppedClock()
    proxy.service.lanes._refused._clock = clock
    assert (await proxy.ask(headers=bearing("giga-auth-late"))).status == 401
    proxy.giga.state.options = proxy.giga.state.options.changed({"access_tokens": ["late"]})
    clock.time += 59
    assert (await proxy.ask(headers=bearing("giga-auth-late"))).status == 401
    clock.time += 1
    assert (await proxy.ask(headers=bearing("giga-auth-late"))).status == 200


async def test_asking_again_makes_no_refusal_longer(start_proxy: StartProxy) -> None:
    """The SDK asks for a token at each call: it must not keep itself out for ever."""
    proxy = await start_proxy(Options(credentials=("a-key",)), gpt2giga_pass_token=True)
    clock = proxy.service.lanes._refused._clock = StoppedClock()
    wrong = {"Authorization": "Basic d3Jvbmc="}
    assert (await oauth(proxy, wrong))[1]["message"] == "credentials doesn't match db data"
    clock.time += 59
    assert "less than a minute ago" in (await oauth(proxy, wrong))[1]["message"]
    clock.time += 1
    assert "less than a minute ago" not in (await oauth(proxy, wrong))[1]["message"]


@pytest.mark.parametrize("path", ["/", "/v1/models", "/api/v1/models"])
async def test_whatever_is_asked_with_a_refused_credential_is_a_401(start_proxy: StartProxy, path: str) -> None:
    """Also what could be told without asking the API."""
    proxy = await start_proxy(Options(credentials=("a-key",)), gpt2giga_pass_token=True)
    for _ in range(2):
        async with proxy.http.get(proxy.url + path, headers=bearing("giga-cred-d3Jvbmc=")) as response:
            assert response.status == 401
    assert len(await proxy.calls("/api/v2/oauth")) == 1


# -- with keys of the proxy


async def test_with_keys_a_credential_needs_a_key_beside_it(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(Options(access_tokens=(TOKEN,)), gpt2giga_pass_token=True, proxy_api_keys=KEYS)
    beside = {"X-API-Key": "key-of-anna"}
    for word in (*FORMS, f"giga-auth-{TOKEN}"):
        assert (await proxy.ask(headers=bearing(word))).status == 401
        assert (await proxy.ask(headers=bearing(word, **beside))).status == 200
    assert (await raw(proxy, bearing(TOKEN)))[0] == 401
    assert (await raw(proxy, bearing(TOKEN, **beside)))[0] == 200
    assert "a-key" not in str(await accounts(proxy))


async def test_with_keys_the_key_alone_is_the_servers_account(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, proxy_api_keys=KEYS)
    assert (await proxy.ask(headers=bearing("key-of-anna"))).status == 200
    assert (await proxy.ask(headers={"X-API-Key": "key-of-anna"})).status == 200
    assert (await proxy.ask(headers=bearing("unknown", **{"X-API-Key": "key-of-anna"}))).status == 401
    assert len(proxy.service.lanes.all()) == 1


async def test_with_keys_nobody_makes_itself_known_by_a_token_of_its_own_invention(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, proxy_api_keys=KEYS)
    for word in ("giga-auth-invented", "Bearer giga-auth-invented"):
        assert (await oauth(proxy, {"Authorization": word}))[0] == 401
    assert (await raw(proxy, bearing("invented")))[0] == 401
    assert await proxy.calls() == []


@pytest.mark.parametrize("key", ["key-of-ana", "0f8e2a7b6c5d4e3f9a8b7c6d5e4f3a2b", "key:of:anna"])
async def test_a_misspelt_key_of_the_proxy_is_not_shown_to_the_api(start_proxy: StartProxy, key: str) -> None:
    """What the API gives out is a text in base64; anything else stays here."""
    proxy = await start_proxy(gpt2giga_pass_token=True, proxy_api_keys=KEYS)
    status, body = await oauth(proxy, {"Authorization": f"Basic {key}"})
    assert (status, body["code"]) == (401, 6)
    assert await proxy.calls("/api/v2/oauth") == []


async def test_a_stranger_cannot_fill_the_memory_by_asking_for_a_token(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, proxy_api_keys=KEYS)
    for form in (b"scope=" + b"x" * 1_000_000, b"a&" * 500_000):
        async with proxy.http.post(
            f"{proxy.url}/api/v2/oauth", data=form, headers={"Authorization": "Basic a2V5"}
        ) as response:
            assert response.status == 413
    assert len(proxy.service.lanes.all()) == 1 and await proxy.calls("/api/v2/oauth") == []


# -- the SDK's own credentials


async def test_the_sdk_with_a_credential_of_its_own_needs_no_key(start_proxy: StartProxy) -> None:
    """Its token request is the API's own, and what it gets for it leads to its credential's lane."""
    proxy = await start_proxy(gpt2giga_pass_token=True, proxy_api_keys=KEYS, ext_max_requests=None)
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": f"{proxy.url}/api/v2/oauth"}
    async with gigachat.GigaChat(credentials="b3du", model="GigaChat-2", scope="GIGACHAT_API_CORP", **urls) as own:
        assert (await own.achat("Привет")).choices
    async with gigachat.GigaChat(credentials="key-of-anna", model="GigaChat-2", **urls) as anna:
        assert (await anna.achat("Привет")).choices
    own_account, servers = await accounts(proxy)
    assert own_account != servers
    assert [lane.line.state().limits.concurrency for lane in proxy.service.lanes.all()] == [1, 10]


async def test_the_sdk_is_told_of_a_wrong_credential_in_the_apis_own_words(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(Options(credentials=("a-key",)), gpt2giga_pass_token=True)
    status, body = await oauth(proxy, {"Authorization": "Basic d3Jvbmc="})
    assert (status, body["code"]) == (401, 6)
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": f"{proxy.url}/api/v2/oauth"}
    async with gigachat.GigaChat(credentials="d3Jvbmc=", model="GigaChat-2", **urls) as client:
        with pytest.raises(AuthenticationError):
            await client.achat("Привет")
    assert len(await proxy.calls("/api/v2/oauth")) == 1


async def test_a_user_and_a_password_get_the_apis_token_too(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(Options(user="joe", password="pa:ss"), gpt2giga_pass_token=True)
    urls = {"base_url": f"{proxy.url}/api/v1"}
    async with gigachat.GigaChat(user="joe", password="pa:ss", model="GigaChat-2", **urls) as client:
        assert (await client.achat("Привет")).choices
    assert len(proxy.service.lanes.all()) == 2


# -- many of them


async def test_token_requests_of_all_lanes_together_stay_within_the_apis_ten_a_second(start_proxy: StartProxy) -> None:
    """The emulator refuses the eleventh in a second, as the API does."""
    proxy = await start_proxy(Options(token_rate=10), gpt2giga_pass_token=True)
    answers = await asyncio.gather(*(proxy.ask(headers=bearing(f"giga-cred-key{n}")) for n in range(25)))
    assert {answer.status for answer in answers} == {200}
    assert [call["status"] for call in await proxy.calls("/api/v2/oauth")] == [200] * 25


async def test_strangers_do_not_keep_the_service_from_a_token_of_its_own(start_proxy: StartProxy) -> None:
    """Its token requests have a pace of their own; together they are still what the API takes."""
    proxy = await start_proxy(Options(token_rate=10), gpt2giga_pass_token=True)
    strangers = [asyncio.create_task(oauth(proxy, {"Authorization": f"Basic key{n}"})) for n in range(20)]
    await until(lambda: len(proxy.service.lanes.all()) == 21)
    assert (await proxy.ask()).status == 200
    assert not all(stranger.done() for stranger in strangers)
    assert {status for status, _ in await asyncio.gather(*strangers)} == {200}


async def test_a_slow_token_of_one_holds_up_no_other(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 30, "path": "/oauth", "times": 1})
    slow = asyncio.create_task(proxy.ask(headers=bearing(FORMS[0])))
    await until(lambda: len(proxy.giga.state.calls.to("/api/v2/oauth")) == 1)
    assert (await proxy.ask(headers=bearing(FORMS[1]))).status == 200
    assert (await proxy.ask()).status == 200 and not slow.done()
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)


async def test_idle_lanes_make_room_and_busy_ones_do_not(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=2)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 30, "times": 2})
    busy = [asyncio.create_task(proxy.ask(headers=bearing(f"giga-cred-busy{n}"))) for n in range(2)]
    await until(lambda: len(proxy.giga.state.calls.to("/chat/completions")) == 2)
    refused = await proxy.ask(headers=bearing("giga-cred-third"))
    assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0
    busy[0].cancel()
    await asyncio.gather(busy[0], return_exceptions=True)
    await until(lambda: any(lane.is_idle for lane in proxy.service.lanes.all()[1:]))
    assert (await proxy.ask(headers=bearing("giga-cred-third"))).status == 200
    assert len(proxy.service.lanes.all()) == 3
    busy[1].cancel()
    await asyncio.gather(busy[1], return_exceptions=True)


async def test_a_lane_that_asks_for_a_token_is_busy(start_proxy: StartProxy) -> None:
    """Its caller is in no line yet, and still gets what it has asked for."""
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.3, "path": "/oauth", "times": 1})
    asking = asyncio.create_task(oauth(proxy, {"Authorization": "Basic b25l"}))
    await until(lambda: len(proxy.giga.state.calls.to("/api/v2/oauth")) == 1)
    assert (await proxy.ask(headers=bearing("giga-cred-two"))).status == 503
    assert (await asking)[0] == 200


async def test_who_asks_for_tokens_has_half_of_the_lanes_at_most(start_proxy: StartProxy) -> None:
    """They may be strangers; whoever calls still finds one."""
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=4)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.5, "path": "/oauth", "times": 2})
    asking = [asyncio.create_task(oauth(proxy, {"Authorization": f"Basic a2V5{n}"})) for n in range(2)]
    await until(lambda: len(proxy.giga.state.calls.to("/api/v2/oauth")) == 2)
    assert (await oauth(proxy, {"Authorization": "Basic b25l"}))[0] == 503
    assert (await proxy.ask(headers=bearing("giga-cred-b25l"))).status == 200
    assert [status for status, _ in await asyncio.gather(*asking)] == [200, 200]


@pytest.mark.parametrize("path", ["/", "/api/v1/chat/completions"])
async def test_a_stream_on_its_way_to_the_line_keeps_its_lane_open(start_proxy: StartProxy, path: str) -> None:
    """All come at once, for two accounts of which one has room: none is told that the service stops."""
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=1)
    theirs = {"model": "GigaChat-2", "stream": True, "messages": [{"role": "user", "content": "Привет"}]}
    body = chat(stream=True) if path == "/" else theirs

    async def ask(n: int) -> str:
        async with proxy.http.post(proxy.url + path, json=body, headers=bearing(f"giga-cred-{n % 2}")) as response:
            return f"{response.status} {await response.text() if response.status != 200 else ''}"

    told = await asyncio.gather(*(ask(n) for n in range(12)))
    assert any(answer.startswith("200") for answer in told)
    assert all("LANES_MAX" in answer for answer in told if not answer.startswith("200"))


async def test_a_lane_of_a_refused_credential_makes_room_first(start_proxy: StartProxy) -> None:
    """Whoever tries many wrong ones drives nobody else's lane away."""
    proxy = await start_proxy(Options(credentials=("b25l",)), gpt2giga_pass_token=True, lanes_max=2)
    assert (await proxy.ask(headers=bearing("giga-cred-b25l"))).status == 200
    for n in range(5):
        assert (await proxy.ask(headers=bearing(f"giga-cred-wrong{n}"))).status == 401
    assert (await proxy.ask(headers=bearing("giga-cred-b25l"))).status == 200
    assert [call["status"] for call in await proxy.calls("/api/v2/oauth")].count(200) == 1


async def test_a_dropped_lane_that_comes_back_keeps_its_pace(start_proxy: StartProxy) -> None:
    """Leaving and coming back is no way around the limit."""
    proxy = await start_proxy(gpt2giga_pass_token=True, lanes_max=1, ext_api_rpm=120)
    for word in ("giga-cred-one", "giga-cred-two", "giga-cred-one"):
        assert (await proxy.ask(headers=bearing(word))).status == 200
    first, _, third = [call["arrived_ns"] for call in await proxy.calls()]
    assert third - first >= 0.499e9


async def test_after_a_stop_no_lane_is_opened_and_all_are_closed(start_proxy: StartProxy) -> None:
    giga_options = Options()
    async with emulator.start(giga_options) as giga:
        async with app.serving(settings_for(giga, gpt2giga_pass_token=True, drain_timeout=0)) as service:
            lane = service.lanes.of(PassedCredential("key", "abc"))
        assert lane.line._dispatchers[0].done()  # type: ignore[attr-defined]


async def test_who_waits_for_a_token_at_a_stop_is_told_to_come_back(giga: emulator.Emulator) -> None:
    async with aiohttp.ClientSession() as http:
        async with app.serving(settings_for(giga, gpt2giga_pass_token=True, drain_timeout=0.5)) as service:
            proxy = Proxy(service, giga, http)
            giga.state.faults.add({"kind": "slow", "seconds": 30, "path": "/oauth", "times": 1})
            asking = asyncio.create_task(oauth(proxy, {"Authorization": "Basic b25l"}))
            await until(lambda: len(giga.state.calls.to("/api/v2/oauth")) == 1)
        status, body = await asking
        assert status == 503 and "stopping" in body["message"]


async def test_a_token_that_is_on_its_way_at_a_stop_is_waited_for(giga: emulator.Emulator) -> None:
    async with aiohttp.ClientSession() as http:
        async with app.serving(settings_for(giga, gpt2giga_pass_token=True, drain_timeout=10)) as service:
            proxy = Proxy(service, giga, http)
            giga.state.faults.add({"kind": "slow", "seconds": 0.2, "path": "/oauth", "times": 1})
            asking = asyncio.create_task(oauth(proxy, {"Authorization": "Basic b25l"}))
            await until(lambda: len(giga.state.calls.to("/api/v2/oauth")) == 1)
        assert (await asking)[0] == 200


# -- nothing of one is another's


async def test_the_list_of_models_is_each_accounts_own(start_proxy: StartProxy) -> None:
    """It is remembered for a minute, for the credential that asked."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    bodies = []
    for headers in ({}, bearing(FORMS[0]), {}, bearing(FORMS[0])):
        async with proxy.http.get(f"{proxy.url}/api/v1/models", headers=headers) as response:
            assert response.status == 200 and "X-Request-ID" in response.headers
            bodies.append(await response.read())
    assert len(set(bodies)) == 1
    assert len(await proxy.calls("/models")) == 2 == len(set(await accounts(proxy, "/models")))


async def test_only_the_list_of_models_itself_is_remembered(start_proxy: StartProxy) -> None:
    """Not what another version of the API says at the same path, nor another method."""
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/api/v1/models") as response:
        assert response.status == 200
    for method, path in (("GET", "/api/v2/models"), ("HEAD", "/api/v1/models"), ("GET", "/api/v1/models?a=b")):
        async with proxy.http.request(method, proxy.url + path) as response:
            assert "X-Queue-Position" in response.headers
    assert len(await proxy.calls("/models")) == 4


async def test_no_secret_is_logged(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = await start_proxy(Options(credentials=("a-key",)), gpt2giga_pass_token=True, log_level="DEBUG")
    for word in ("giga-cred-c2VjcmV0", "giga-auth-secret-token", "giga-user-joe:secret-word"):
        await proxy.ask(headers=bearing(word))
        await raw(proxy, bearing(word))
    await oauth(proxy, {"Authorization": "Basic c2VjcmV0LXR3bw=="})
    for secret in ("c2VjcmV0", "secret-token", "secret-word"):
        assert secret not in caplog.text


# -- the settings


def test_the_flag_is_spelt_as_elsewhere() -> None:
    for flag in ("--pass-token", "--gpt2giga-pass-token", "--proxy.pass-token"):
        assert load([flag], env={}).gpt2giga_pass_token is True


async def test_a_connector_of_one_account_refuses_the_setting() -> None:
    async with emulator.start(Options()) as giga:
        settings = settings_for(giga, gpt2giga_pass_token=True, connector="wrong_connectors.clings")
        with pytest.raises(SettingsError, match="open_connector"):
            async with app.serving(settings):
                pass
