"""Tokens: how one gets them and how they end."""

import base64
import time
from typing import Any

import pytest
from emulator_callers import KEY, Caller, Start, bearer

from emulator import tokens
from emulator.errors import ApiError


async def test_a_key_is_exchanged_for_a_token_that_works(caller: Caller) -> None:
    answer = await caller.oauth()
    assert answer.status == 200
    assert answer.json.keys() == {"access_token", "expires_at"}
    models = await caller.get("/v1/models", headers=bearer(answer.json["access_token"]))
    assert models.status == 200


async def test_the_token_lives_for_thirty_minutes_told_in_milliseconds(caller: Caller) -> None:
    left = (await caller.oauth()).json["expires_at"] / 1000 - time.time()
    assert 1790 < left <= 1800


async def test_the_token_is_as_long_as_a_real_one(caller: Caller) -> None:
    token = (await caller.oauth()).json["access_token"]
    assert token.startswith("eyJ")
    assert 1000 < len(token) < 1400


@pytest.mark.parametrize("rquid", ["", "1", "6f0b1291-c7f3-11c6-bb2e-9f3efb2dc98e"])
async def test_rquid_must_be_a_uuid4(caller: Caller, rquid: str) -> None:
    answer = await caller.oauth(RqUID=rquid)
    assert answer.status == 400
    assert answer.json.keys() == {"code", "message"}


@pytest.mark.parametrize(
    ("scope", "body"),
    [
        ("", {"code": 5, "message": "scope is empty"}),
        ("GIGACHAT", {"code": 1, "message": "scope data format invalid"}),
        ("GIGACHAT_API_CORP", {"code": 7, "message": "scope from db not fully includes consumed scope"}),
    ],
)
async def test_a_wrong_scope_is_refused_in_the_words_of_the_real_one(begin: Start, scope: str, body: Any) -> None:
    caller = await begin(scopes=["GIGACHAT_API_PERS"])
    answer = await caller.oauth(scope=scope)
    assert (answer.status, answer.json) == (400, body)


async def test_only_the_keys_that_were_given_are_accepted(begin: Start) -> None:
    caller = await begin(credentials=[KEY])
    other = base64.b64encode(b"client:other").decode()
    assert (await caller.oauth()).status == 200
    undecodable = await caller.oauth("no-base64!")
    assert (undecodable.status, undecodable.json["code"]) == (401, 4)
    refused = await caller.oauth(other)
    assert (refused.status, refused.json) == (401, {"code": 6, "message": "credentials doesn't match db data"})


@pytest.mark.parametrize("header", ["", "Basic", "Digest abc"])
async def test_an_authorization_header_that_says_nothing_is_refused(caller: Caller, header: str) -> None:
    answer = await caller.oauth(Authorization=header)
    assert (answer.status, answer.json) == (401, {"code": 4, "message": "Can't decode 'Authorization' header"})


async def test_a_bearer_key_is_as_good_as_a_basic_one(caller: Caller) -> None:
    assert (await caller.oauth(Authorization=f"Bearer {KEY}")).status == 200


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_user_and_password_are_exchanged_for_a_token(begin: Start, base: str) -> None:
    caller = await begin(user="cat", password="mouse")
    basic = {"Authorization": "Basic " + base64.b64encode(b"cat:mouse").decode()}
    answer = await caller.post(f"{base}/token", headers=basic)
    assert answer.status == 200
    assert answer.json["exp"] / 1000 - time.time() > 1790
    assert (await caller.get("/v1/models", headers=bearer(answer.json["tok"]))).status == 200


async def test_a_wrong_password_is_unauthorized(begin: Start) -> None:
    caller = await begin(user="cat", password="mouse")
    answer = await caller.post("/v1/token", headers={"Authorization": "Basic " + KEY})
    assert (answer.status, answer.json) == (401, {"status": 401, "message": "Unauthorized"})


async def test_an_unknown_token_is_unauthorized(caller: Caller) -> None:
    answer = await caller.chat(headers=bearer("unknown"))
    assert (answer.status, answer.json) == (401, {"status": 401, "message": "Unauthorized"})


async def test_a_token_expires_after_its_time(begin: Start) -> None:
    caller = await begin(token_ttl=0)
    token = (await caller.oauth()).json["access_token"]
    for _ in range(2):
        answer = await caller.chat(headers=bearer(token))
        assert (answer.status, answer.json) == (401, {"status": 401, "message": "Token has expired"})


async def test_all_tokens_expire_on_request(caller: Caller) -> None:
    token = (await caller.oauth()).json["access_token"]
    await caller.send("DELETE", "/_emulator/tokens")
    assert (await caller.chat(headers=bearer(token))).json["message"] == "Token has expired"


async def test_token_requests_have_a_limit_of_their_own(begin: Start) -> None:
    caller = await begin(token_rate=2)
    statuses = [(await caller.oauth()).status for _ in range(3)]
    assert statuses == [200, 200, 429]


async def test_the_oldest_of_too_many_tokens_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    kept = tokens.Tokens()
    first, *others = [kept.issue("account", 60).text for _ in range(3)]
    assert [kept.account(text) for text in others] == ["account"] * 2
    with pytest.raises(ApiError, match="Token has expired"):
        kept.account(first)
