"""Passes, the proxy's own access tokens: for whom they are made, what they open, and how they end."""

import asyncio
import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import gigachat
import pytest
from gigachat.exceptions import AuthenticationError
from pydantic import SecretStr
from running import Proxy, StartProxy, until

from proxy import passes

KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("a2V5LW9mLWJvcmlz")}
PLAIN = {name: key.get_secret_value() for name, key in KEYS.items()}
FORM = {"scope": "GIGACHAT_API_PERS"}
OAUTH, TOKEN = "/api/v2/oauth", "/api/v1/token"


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


async def asked_for(proxy: Proxy, path: str = OAUTH, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """A token request: the status, the body, the headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with proxy.http.post(proxy.url + path, data=FORM, headers=named) as response:
        return response.status, await response.json(), response.headers


async def a_pass(proxy: Proxy) -> str:
    status, body, _ = await asked_for(proxy, Authorization="Bearer key-of-anna")
    assert status == 200
    return str(body["access_token"])


async def opens(proxy: Proxy, token: str) -> bool:
    answer = await proxy.ask(headers={"Authorization": f"Bearer {token}"})
    assert answer.status in (200, 401)
    return answer.status == 200


# -- what they open


@pytest.mark.parametrize("path", [OAUTH, OAUTH + "/", TOKEN])
@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic key-of-anna"},
        {"Authorization": "Bearer key-of-anna"},
        {"Authorization": basic("key-of-anna")},
        {"Authorization": basic("anna:key-of-anna")},
        {"X_API_Key": "key-of-anna"},
        {"Authorization": "Basic a2V5LW9mLWJvcmlz"},
        {"Authorization": basic("boris:a2V5LW9mLWJvcmlz")},
    ],
    ids=str,
)
async def test_a_key_in_any_form_of_credentials_gets_a_pass_in_the_apis_shape(
    start_proxy: StartProxy, path: str, headers: dict[str, str]
) -> None:
    """`access_token` and `expires_at`, or `tok` and `exp`, in milliseconds; the API is not asked."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    status, body, _ = await asked_for(proxy, path, **headers)
    assert status == 200
    token, ends = (body["tok"], body["exp"]) if path == TOKEN else (body["access_token"], body["expires_at"])
    assert len(body) == 2 and ends / 1000 - time.time() == pytest.approx(1800, abs=5)
    assert await opens(proxy, token)
    assert len(await proxy.calls("/oauth")) == 1  # for the answer, with the service's own credential


@pytest.mark.parametrize(
    "credentials",
    [
        {"credentials": "key-of-anna"},
        {"credentials": b64encode(b"anna:key-of-anna").decode()},
        {"user": "anna", "password": "key-of-anna"},
        {"access_token": "key-of-anna"},
    ],
    ids="+".join,
)
async def test_the_official_library_calls_with_a_key_for_its_credentials(
    start_proxy: StartProxy, tmp_path: Path, credentials: dict[str, str]
) -> None:
    """It asks for a token and calls with it; the caller is the key's name."""
    file = tmp_path / "requests.jsonl"
    proxy = await start_proxy(proxy_api_keys=KEYS, requests_log_file=file)
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": proxy.url + OAUTH}
    async with gigachat.GigaChat(**urls, **credentials, model="GigaChat-2") as client:
        assert (await client.achat("Сколько будет 2 + 3?")).choices[0].message.content == "2 + 3 = 5"
    count = 1 if "access_token" in credentials else 2
    await until(lambda: file.exists() and file.read_text().count("\n") == count)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["caller"] for line in lines} == {"anna"}
    assert lines[-1]["operation"] == "forward" and (count == 1 or lines[0]["operation"] == "token")


async def test_without_keys_any_credentials_get_a_pass_and_any_pass_will_do(start_proxy: StartProxy) -> None:
    """Nobody is asked for one."""
    proxy = await start_proxy()
    for headers in ({}, {"Authorization": "Basic whatever"}):
        status, body, _ = await asked_for(proxy, **headers)
        assert status == 200 and await opens(proxy, body["access_token"])
    assert await opens(proxy, "gcp-of-another-time")


# -- how they are refused


@pytest.mark.parametrize(
    ("headers", "number"),
    [
        ({}, 4),
        ({"Authorization": "Basic"}, 4),
        ({"Authorization": "Basic wrong"}, 6),
        ({"Authorization": basic("anna:wrong")}, 6),
        ({"Authorization": basic("key-of-anna:anna")}, 6),
        ({"X_API_Key": "wrong"}, 6),
    ],
    ids=str,
)
async def test_a_wrong_key_gets_no_pass_and_is_told_so_as_the_api_tells_it(
    start_proxy: StartProxy, headers: dict[str, str], number: int
) -> None:
    """From /oauth with its numbers: 4 for no key, 6 for a wrong one; from /token with the status."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    status, body, answered = await asked_for(proxy, OAUTH, **headers)
    assert (status, body) == (401, {"code": number, "message": body["message"]})
    assert answered["WWW-Authenticate"].startswith("Bearer ")
    status, body, _ = await asked_for(proxy, TOKEN, **headers)
    assert (status, body) == (401, {"status": 401, "message": body["message"]})


async def test_the_official_library_is_told_of_a_wrong_key(start_proxy: StartProxy) -> None:
    """By its own exception."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": proxy.url + OAUTH}
    async with gigachat.GigaChat(**urls, credentials="d3Jvbmc=", model="GigaChat-2") as client:
        with pytest.raises(AuthenticationError) as refused:
            await client.achat("Привет")
    assert json.loads(refused.value.content)["code"] == 6


async def test_a_pass_ends(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time it opens nothing, and its holder is told to ask for another."""
    monkeypatch.setattr(passes, "LIFETIME", 0.4)
    proxy = await start_proxy(proxy_api_keys=KEYS)
    token = await a_pass(proxy)
    assert await opens(proxy, token)
    await asyncio.sleep(0.5)
    answer = await proxy.ask(headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 401 and "new one" in answer.body["status"]
    assert "invalid_token" in answer.headers["WWW-Authenticate"]


async def test_the_official_library_renews_a_pass_that_ended(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call goes through although the pass it holds is over."""
    monkeypatch.setattr(passes, "LIFETIME", 0.2)
    proxy = await start_proxy(proxy_api_keys=KEYS)
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": proxy.url + OAUTH}
    async with gigachat.GigaChat(**urls, credentials="key-of-anna", model="GigaChat-2") as client:
        for _ in range(2):
            assert (await client.achat("Привет")).choices
            await asyncio.sleep(0.3)


async def test_a_pass_is_taken_by_every_replica_and_dies_with_its_key(start_proxy: StartProxy) -> None:
    """Nothing is stored: whoever knows the key knows the pass, whoever does not, does not."""
    first = await start_proxy(proxy_api_keys=KEYS)
    token = await a_pass(first)
    for keys, is_taken in (
        (KEYS, True),
        ({"anna": SecretStr("key-of-anna")}, True),
        ({"anna": SecretStr("changed")}, False),
        ({"boris": SecretStr("key-of-anna")}, False),
    ):
        assert await opens(await start_proxy(proxy_api_keys=keys), token) is is_taken


def forged() -> list[str]:
    now = time.time()
    right, ends = passes.issue("anna", "key-of-anna", now)
    by_wrong_key, _ = passes.issue("anna", "wrong", now)
    by_no_key, _ = passes.issue("anna", "", now)
    of_nobody, _ = passes.issue("nobody", "key-of-anna", now)
    signed = passes.decoded(right.removeprefix(passes.PREFIX)).rpartition(":")[2]

    def made(text: str) -> str:
        return passes.PREFIX + passes.encoded(text)

    return [
        by_wrong_key,
        by_no_key,
        of_nobody,
        right[:-4],
        right + "AAAA",
        right.removeprefix(passes.PREFIX),
        made(f"{ends + 1}:anna:{signed}"),
        made(f"{ends}:boris:{signed}"),
        made(f"{ends}:anna:"),
        made(f"{ends}:anna:ключ"),
        made(f"{'9' * 5000}:anna:{signed}"),
        made(""),
        made(":"),
        passes.PREFIX,
        passes.PREFIX + "!",
    ]


async def test_forged_passes_open_nothing(start_proxy: StartProxy) -> None:
    """Another's key, another name, another end, a part of one, or no pass at all."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for token in forged():
        assert not await opens(proxy, token), token


async def test_a_pass_is_no_key(start_proxy: StartProxy) -> None:
    """It cannot be made into a new one, so that it ends."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    status, body, _ = await asked_for(proxy, Authorization=f"Bearer {await a_pass(proxy)}")
    assert (status, body["code"]) == (401, 6)


@pytest.mark.parametrize("ends", ["", "soon", "9" * 5000, "-1"])
def test_whoever_has_the_key_cannot_break_anything_with_it(ends: str) -> None:
    """A claim that is signed but no time is over."""
    claim = f"{ends}:anna"
    token = passes.PREFIX + passes.encoded(f"{claim}:{passes.signature(claim, PLAIN['anna'])}")
    with pytest.raises(passes.PassExpired):
        passes.holder(token, PLAIN, time.time())


async def test_no_pass_is_passed_on_or_written(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Not even where bodies are."""
    file = tmp_path / "requests.jsonl"
    proxy = await start_proxy(proxy_api_keys=KEYS, requests_log_file=file, log_level="DEBUG")
    made = []
    for path in (OAUTH, TOKEN):
        _, body, _ = await asked_for(proxy, path, Authorization="Bearer key-of-anna")
        made.append(next(value for value in body.values() if isinstance(value, str)))
    for token in made:
        assert await opens(proxy, token)
    await until(lambda: file.exists() and file.read_text().count("\n") == 4)
    assert passes.PREFIX not in file.read_text() + str(await proxy.calls(""))
