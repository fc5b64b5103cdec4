import asyncio
import base64
import time

import pytest
from aiohttp import web
from running import until

import emulator
from gigachat_connector import Account
from proxy import credentials
from proxy.errors import CredentialMissing, CredentialRefused, UpstreamError
from proxy.settings import SettingsError

OAUTH, TOKEN, CHAT = "/api/v2/oauth", "/token", "/chat/completions"


async def many(account, call, count):
    return await asyncio.gather(*(account.request_api(call) for _ in range(count)), return_exceptions=True)


def failures(answers):
    return [answer for answer in answers if isinstance(answer, BaseException)]


# ---- The ways ----


async def test_key(upstream, account, chat):
    """A key is exchanged at the OAuth address: Basic, RqUID, the scope as a form."""
    upstream.state.change(credentials=["c2VjcmV0"], scopes=["GIGACHAT_API_CORP"])
    served = account(upstream.url, gigachat_api_key="c2VjcmV0", gigachat_scope="GIGACHAT_API_CORP")
    await served.request_api(chat())
    asked = upstream.state.calls.to(OAUTH)[0]
    assert asked.headers["Authorization"] == "Basic c2VjcmV0"
    assert asked.form() == {"scope": "GIGACHAT_API_CORP"}
    assert asked.headers["User-Agent"] == "gigachat-proxy"


async def test_key_with_its_scheme(upstream, account, chat):
    """A key that was copied together with the word Basic, or with spaces around, is taken."""
    upstream.state.change(credentials=["c2VjcmV0"])
    assert await account(upstream.url, gigachat_api_key=" Basic c2VjcmV0 ").request_api(chat())


async def test_each_token_request_has_its_own_id(upstream, account, chat):
    """RqUID is new in each token request."""
    served = account(upstream.url)
    for _ in range(2):
        await served.request_api(chat())
        upstream.state.tokens.expire_all()
    await served.request_api(chat())
    ids = [call.headers["RqUID"] for call in upstream.state.calls.to(OAUTH)]
    assert len(ids) == len(set(ids)) == 3


async def test_user_and_password(upstream, account, chat):
    """User and password are exchanged at the base's own /token, whose answer has another shape."""
    upstream.state.change(user="мария", password="пароль:1")
    served = account(upstream.url, gigachat_user="мария", gigachat_password="пароль:1")
    for _ in range(3):
        await served.request_api(chat())
    asked = upstream.state.calls.to(TOKEN)
    assert len(asked) == 1
    assert asked[0].path == "/api/v1/token"
    assert base64.b64decode(asked[0].headers["Authorization"].removeprefix("Basic ")).decode() == "мария:пароль:1"


async def test_ready_token(upstream, account, chat):
    """A ready access token is used as it is; none is asked for."""
    upstream.state.change(access_tokens=["ready"])
    await account(upstream.url, gigachat_access_token="ready").request_api(chat())
    assert upstream.state.calls.to(CHAT)[0].headers["Authorization"] == "Bearer ready"
    assert upstream.state.tokens.request_count == 0


async def test_ready_token_beside_a_key(upstream, account, chat):
    """A ready token serves first; once it is refused, the key gets others."""
    served = account(upstream.url, gigachat_access_token="stale", gigachat_api_key="a2V5")
    assert await served.request_api(chat())
    assert [call.status for call in upstream.state.calls.to(CHAT)] == [401, 200]


def test_no_credential(choose):
    """Without a credential the start fails with one sentence that names both ways out."""
    with pytest.raises(CredentialMissing) as told:
        Account(choose("http://127.0.0.1:1", gigachat_api_key=None))
    assert "GIGACHAT_API_KEY" in str(told.value)
    assert "assets/env" in str(told.value)
    assert "--sandbox" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"gigachat_user": "u"}, "GIGACHAT_PASSWORD"),
        ({"gigachat_api_key": None, "gigachat_password": "p"}, "GIGACHAT_USER"),
        ({"gigachat_mtls_auth": True}, "GIGACHAT_CERT_FILE"),
        ({"gigachat_api_key": "se cret"}, "GIGACHAT_API_KEY"),
        ({"gigachat_api_key": "ключ"}, "GIGACHAT_API_KEY"),
        ({"gigachat_access_token": "se\ncret"}, "GIGACHAT_ACCESS_TOKEN"),
    ],
)
def test_credentials_that_cannot_be_right(choose, chosen, words):
    """Half of a credential, or one that was copied badly, is told at start by the name of its setting."""
    with pytest.raises(SettingsError, match=words) as told:
        Account(choose("http://127.0.0.1:1", **chosen))
    assert "cret" not in str(told.value)


# ---- One token for many ----


async def test_first_requests_at_once(upstream, account, chat):
    """500 first requests at once: exactly one token request, and all are answered."""
    answers = await many(account(upstream.url), chat(), 500)
    assert not failures(answers)
    assert upstream.state.tokens.request_count == 1


async def test_token_expires_under_load(upstream, account, chat):
    """The API stops taking the token while calls go on: one refresh, and all are answered."""
    upstream.state.change(latency=0.02, latency_jitter=0.02)
    served = account(upstream.url)
    await served.request_api(chat())
    first = asyncio.create_task(many(served, chat(), 50))
    await asyncio.sleep(0.01)
    upstream.state.tokens.expire_all()
    answers = await many(served, chat(), 100) + await first
    assert not failures(answers)
    assert upstream.state.tokens.request_count == 2


async def test_token_reaches_its_end_under_load(upstream, account, chat, clock):
    """The token's time is over before it is refused: one token request, no 401 at all."""
    served = account(upstream.url, clock=clock)
    await served.request_api(chat())
    clock.time += 1800
    assert not failures(await many(served, chat(), 100))
    assert upstream.state.tokens.request_count == 2
    assert {call.status for call in upstream.state.calls.to(CHAT)} == {200}


async def test_refresh_ahead(upstream, account, chat, clock):
    """A minute before its end the token is renewed behind the calls' backs: they go on with the old one."""
    served = account(upstream.url, clock=clock)
    await served.request_api(chat())
    upstream.state.faults.add({"kind": "slow", "path": OAUTH, "seconds": 1})
    clock.time += 1800 - 59
    assert not failures(await many(served, chat(), 20))
    await until(lambda: len(upstream.state.calls.to(OAUTH)) == 2)
    assert not upstream.state.calls.to(OAUTH)[1].finished_ns
    used = {call.headers["Authorization"] for call in upstream.state.calls.to(CHAT)}
    assert len(used) == 1
    await asyncio.sleep(1.2)
    await served.request_api(chat())
    assert upstream.state.calls.to(CHAT)[-1].headers["Authorization"] not in used
    assert upstream.state.tokens.request_count == 2


async def test_first_caller_leaves(upstream, account, chat):
    """The caller who started the token request leaves: the others get their answers, by one token request."""
    upstream.state.faults.add({"kind": "slow", "path": OAUTH, "seconds": 0.5})
    served = account(upstream.url)
    calls = [asyncio.create_task(served.request_api(chat())) for _ in range(10)]
    await asyncio.sleep(0.03)
    calls[0].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert not failures(answers[1:])
    assert upstream.state.tokens.request_count == 1


async def test_shutdown_while_a_token_is_on_its_way(upstream, account, chat):
    """A stop does not wait for a token that does not come; whoever waits for it is told."""
    upstream.state.faults.add({"kind": "stall", "path": OAUTH})
    served = account(upstream.url)
    call = asyncio.create_task(served.request_api(chat()))
    await asyncio.sleep(0.05)
    await served.shutdown()
    with pytest.raises(UpstreamError):
        await call


# ---- A 401 ----


@pytest.mark.parametrize("is_stream", [False, True], ids=["plain", "stream"])
async def test_refused_once(upstream, account, chat, gate, is_stream):
    """A call that gets a 401 is sent once more with a fresh token; both sends pass the gate."""
    served = account(upstream.url)
    upstream.state.faults.add({"kind": "expired_token"})
    if is_stream:
        assert [chunk async for chunk in served.stream_api(chat())]
    else:
        assert await served.request_api(chat())
    first, second = upstream.state.calls.to(CHAT)
    assert (first.status, second.status) == (401, 200)
    assert first.body == second.body
    assert first.headers["Authorization"] != second.headers["Authorization"]
    assert gate.passed == 2


async def test_refused_twice(upstream, account, chat):
    """A second 401 is the operator's business: it names the settings and is not retried."""
    upstream.state.faults.add({"kind": "expired_token", "times": 2})
    with pytest.raises(CredentialRefused, match=r"GIGACHAT_API_KEY.*GIGACHAT_BASE_URL.*Token has expired") as told:
        await account(upstream.url).request_api(chat())
    assert (told.value.status, told.value.is_retryable) == (502, False)
    assert b"Token has expired" in told.value.body
    assert len(upstream.state.calls.to(CHAT)) == 2


async def test_refused_ready_token(upstream, account, chat):
    """A ready token that is refused cannot be renewed: the first 401 says so."""
    with pytest.raises(CredentialRefused, match="GIGACHAT_ACCESS_TOKEN"):
        await account(upstream.url, gigachat_access_token="stale").request_api(chat())
    assert len(upstream.state.calls.to(CHAT)) == 1


async def test_refused_user(upstream, account, chat):
    """With a user the message names the user's settings."""
    upstream.state.faults.add({"kind": "expired_token", "times": 2})
    with pytest.raises(CredentialRefused, match="GIGACHAT_USER"):
        await account(upstream.url, gigachat_user="u", gigachat_password="p").request_api(chat())


# ---- The token request fails ----


@pytest.mark.parametrize(
    ("options", "chosen", "words"),
    [
        ({"credentials": ("x",)}, {"gigachat_api_key": "b3RoZXI="}, "GIGACHAT_API_KEY.*credentials doesn't match"),
        ({"credentials": ("x",)}, {"gigachat_api_key": "garbage!"}, "GIGACHAT_API_KEY.*Can't decode"),
        ({"scopes": ("GIGACHAT_API_CORP",)}, {}, "GIGACHAT_SCOPE.*scope from db not fully includes"),
        ({"user": "u"}, {"gigachat_user": "other", "gigachat_password": "p"}, "GIGACHAT_USER and GIGACHAT_PASSWORD"),
    ],
)
async def test_refused_credential(account, chat, options, chosen, words):
    """A credential that buys no token is named by its setting, with the API's own words, and is not retried."""
    async with emulator.start(emulator.Options(**options)) as upstream:
        with pytest.raises(CredentialRefused, match=words) as told:
            await account(upstream.url, **chosen).request_api(chat())
        assert (told.value.status, told.value.is_retryable) == (502, False)
        assert "b3RoZXI=" not in str(told.value)
        assert not upstream.state.calls.to(CHAT)


@pytest.mark.parametrize(
    ("status", "chosen", "words"),
    [
        (403, {}, "GIGACHAT_API_KEY and GIGACHAT_SCOPE"),
        (404, {}, "GIGACHAT_AUTH_URL"),
        (405, {}, "GIGACHAT_AUTH_URL"),
        (404, {"gigachat_user": "u", "gigachat_password": "p"}, "GIGACHAT_BASE_URL"),
    ],
)
async def test_refused_by_the_edge(upstream, account, chat, status, chosen, words):
    """HTML from the edge instead of a token: the setting to look at is named, and the page is not repeated."""
    path = TOKEN if chosen else OAUTH
    upstream.state.faults.add({"kind": "html502", "status": status, "path": path})
    with pytest.raises(CredentialRefused, match=words) as told:
        await account(upstream.url, **chosen).request_api(chat())
    assert "<" not in str(told.value)
    assert told.value.status == 502


async def test_refusal_fails_all_who_wait(upstream, account, chat):
    """A refused credential fails all who wait, after one token request."""
    upstream.state.change(credentials=["x"])
    answers = await many(account(upstream.url), chat(), 50)
    assert [type(answer) for answer in answers] == [CredentialRefused] * 50
    assert upstream.state.tokens.request_count == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "html502"},
        {"kind": "html200"},
        {"kind": "html200", "body": '{"odd": 1}'},
        {"kind": "bad_json"},
        {"kind": "cut"},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_token_cannot_be_got_just_now(upstream, account, chat, fault):
    """Trouble at the token address may be retried, and the next call tries again."""
    upstream.state.faults.add(fault | {"path": OAUTH})
    served = account(upstream.url)
    with pytest.raises(UpstreamError) as told:
        await served.request_api(chat())
    assert told.value.is_retryable
    assert await served.request_api(chat())


async def test_too_many_token_requests(upstream, account, chat):
    """A 429 at the token address is a 429 for the line."""
    upstream.state.faults.add({"kind": "429", "path": OAUTH, "retry_after": 3})
    with pytest.raises(UpstreamError) as told:
        await account(upstream.url).request_api(chat())
    assert told.value.is_throttled
    assert told.value.retry_after == 3


async def test_slow_token_request(upstream, account, chat, monkeypatch):
    """A token request has a time-out of its own; what comes of it may be retried."""
    monkeypatch.setattr(credentials, "TOKEN_TIMEOUT", 0.05)
    upstream.state.faults.add({"kind": "stall", "path": OAUTH})
    with pytest.raises(UpstreamError, match="no access token") as told:
        await account(upstream.url).request_api(chat())
    assert told.value.is_retryable


@pytest.mark.parametrize("unit", [1000, 1], ids=["milliseconds", "seconds"])
async def test_units_of_the_end(serve, account, chat, unit):
    """An end in seconds is understood too: no token request for each call."""
    asked = []

    async def oauth(request):
        asked.append(request.path)
        return web.json_response({"access_token": "t", "expires_at": int((time.time() + 1800) * unit)})

    async def answer(request):
        return web.json_response({})

    served = account(await serve({"/api/v2/oauth": oauth, "/api/v1/chat/completions": answer}))
    for _ in range(3):
        await served.request_api(chat())
    assert len(asked) == 1
