"""`Prefer: respond-async`: any request that the API is called for becomes a job, and is checked as ever before that."""

from pathlib import Path
from typing import Any

import pytest
from jobs_talk import KEYS, Caller, spoken
from pydantic import SecretStr
from running import StartProxy, chat

ASYNC = {"Prefer": "respond-async"}
#: The User-Agent of GigaChat's SDK, for which /v1 is the API's own.
SDK = {"User-Agent": "GigaChat-python-lib"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/", chat(), {}),
        ("/gigachat/", spoken(), {}),
        ("/v1/chat/completions", spoken(), {}),
        ("/chat/completions", spoken(), {}),
        ("/v1/embeddings", {"model": "Embeddings", "input": "a"}, {}),
        ("/api/v1/chat/completions", spoken(), {}),
        ("/api/v1/tokens/count?x=1", {"model": "GigaChat-2", "input": ["a b"]}, {}),
        ("/v1/chat/completions", spoken(), SDK),
        ("/v1/tokens/count", {"model": "GigaChat-2", "input": ["a b"]}, SDK),
    ],
)
async def test_a_request_becomes_a_job_and_its_answer_is_the_same(
    caller: Caller, path: str, body: Any, headers: dict[str, str]
):
    """202 and where to look, in JSON in whichever dialect; later what it would have been told at once."""
    at_once = await caller.ask("POST", path, body, headers)
    taken = await caller.ask("POST", path, body, {**headers, **ASYNC})
    assert (taken.status, taken.body["object"], taken.body["path"]) == (202, "job", path)
    assert taken.headers["Location"] == f"/jobs/{taken.id}"
    assert taken.headers["Preference-Applied"] == "respond-async"
    assert taken.headers["Content-Type"].startswith("application/json")
    job = await caller.over(taken.id)
    assert (job["state"], job["answer"]["status"]) == ("done", at_once.status)
    assert job["answer"]["content_type"] == at_once.headers["Content-Type"]
    assert shape(job["answer"]["body"]) == shape(at_once.body)


def shape(value: Any) -> Any:
    """Its fields, not what is in them."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value[:1]] if isinstance(value, list) else type(value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"messages": [["user", "x"]], "nonsense": 1}),
        ("/", b"{"),
        ("/gigachat", {"model": "GigaChat-2"}),
        ("/v1/chat/completions", {"model": "GigaChat-2", "messages": "x"}),
        ("/v1/chat/completions", {"model": "GigaChat-2", "messages": [], "stream": True}),
        ("/v1/chat/completions", {"model": "chatgpt/gpt-4o", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/embeddings", {"model": "Embeddings", "input": [[1, 2]]}),
        ("/api/v1//chat/completions", spoken()),
        ("/chatgpt", spoken()),
    ],
    ids=str,
)
async def test_what_would_be_refused_is_refused_with_the_same_words(caller: Caller, path: str, body: Any):
    """By the same checks, in the dialect of the path; nothing is kept and nothing is sent."""
    at_once = await caller.ask("POST", path, body)
    assert at_once.status >= 400
    preferred = await caller.ask("POST", path, body, ASYNC)
    assert (preferred.status, preferred.body) == (at_once.status, at_once.body)
    assert (await caller.ask("GET", "/jobs")).body["data"] == []
    assert await caller.proxy.calls("") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("GET", "/api/v1/models"), ("GET", "/"), ("GET", "/jobs"), ("GET", "/health")],
)
async def test_the_preference_is_one_for_what_can_be_a_job(caller: Caller, method: str, path: str):
    """Anything else is answered at once; whoever prefers must expect that (RFC 7240)."""
    told = await caller.ask(method, path, None, ASYNC)
    assert (told.status, "Preference-Applied" in told.headers) == (200, False)


async def test_a_token_request_is_answered_at_once(caller: Caller):
    told = await caller.ask("POST", "/api/v2/oauth", b"scope=GIGACHAT_API_PERS", ASYNC)
    assert (told.status, "access_token" in told.body) == (200, True)


async def test_a_form_is_served_at_once(caller: Caller):
    """Files are no jobs: what they bring outlives its caller anyway."""
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nx\r\n--b--\r\n'
    headers = {**ASYNC, "Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/v1/files", "/api/v1/files"):
        told = await caller.ask("POST", path, form, headers)
        assert told.status != 202, told.raw


@pytest.mark.parametrize(
    ("prefer", "is_job"),
    [
        ("respond-async", True),
        ("Respond-Async", True),
        ("wait=10, respond-async", True),
        ("respond-async; x=1, wait=10", True),
        ('return=minimal, respond-async="" ', False),
        ("respond-asynchronously", False),
        ("wait=10", False),
        ("", False),
    ],
)
async def test_preferences_are_read_as_they_are_written(caller: Caller, prefer: str, is_job: bool):
    """In any case, among others, with parameters."""
    told = await caller.ask("POST", "/", chat(), {"Prefer": prefer})
    assert told.status == (202 if is_job else 200)


async def test_the_jobs_priority_is_the_requests(caller: Caller):
    told = await caller.ask("POST", "/", chat(), {**ASYNC, "X-Priority": "low"})
    assert told.body["priority"] == "low"
    wrong = await caller.ask("POST", "/", chat(), {**ASYNC, "X-Priority": "urgent"})
    assert (wrong.status, "X-Priority" in wrong.words) == (400, True)


async def test_the_headers_that_the_api_sees_are_the_callers(caller: Caller):
    """Those of the request that brought the job; what was said to us is not among them."""
    brought = {"X-Session-ID": "s", "X-Client-ID": "c", "User-Agent": "mine/1", "X-Request-ID": "r", "X-Custom": "y"}
    told = await caller.ask("POST", "/api/v1/chat/completions", spoken(), {**ASYNC, **brought, "X-Priority": "low"})
    await caller.over(told.id)
    (call,) = await caller.proxy.calls()
    sent = {name.lower(): value for name, value in call["headers"].items()}
    assert {name: sent.get(name.lower()) for name in brought} == brought
    assert not {"prefer", "x-priority"} & set(sent)


async def test_a_patience_is_for_those_who_wait(caller: Caller):
    """X-Request-Timeout says how long its caller stays; a job's does not."""
    caller.proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.3})
    told = await caller.ask("POST", "/", chat(), {**ASYNC, "X-Request-Timeout": "0.1"})
    assert (await caller.over(told.id))["state"] == "done"


async def test_without_a_store_it_is_told_in_the_paths_dialect(start_proxy: StartProxy):
    """501: a preference that is known and cannot be followed is not passed over in silence."""
    caller = Caller(await start_proxy(jobs_url=SecretStr("off")))
    told = await caller.ask("POST", "/v1/chat/completions", spoken(), ASYNC)
    assert (told.status, told.body["error"]["code"]) == (501, "jobs_off")
    raw = await caller.ask("POST", "/api/v1/chat/completions", spoken(), ASYNC)
    assert (raw.status, raw.body["status"]) == (501, 501)


async def test_its_owner_is_whoever_brought_it(start_proxy: StartProxy, tmp_path: Path):
    keys = {name: SecretStr(key) for name, key in KEYS.items()}
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), proxy_api_keys=keys)
    ann, bob = Caller(proxy, KEYS["ann"]), Caller(proxy, KEYS["bob"])
    told = await ann.ask("POST", "/v1/chat/completions", spoken(), ASYNC)
    assert (await ann.over(told.id))["state"] == "done"
    assert (await bob.ask("GET", f"/jobs/{told.id}")).status == 404
    assert (await Caller(proxy).ask("POST", "/v1/chat/completions", spoken(), ASYNC)).status == 401
