"""The operator's key over /jobs: that the jobs of all callers are there, whose each is, and how to end it."""

from pathlib import Path

import pytest
from jobs_talk import KEYS, Caller
from pydantic import SecretStr
from running import Proxy, StartProxy, chat, until, waiting

from proxy.jobs import Job

ADMIN = "key-of-the-operator"


@pytest.fixture
async def proxy(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    started: Proxy = await start_proxy(
        jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
        ext_max_requests=1,
        proxy_api_keys={name: SecretStr(key) for name, key in KEYS.items()},
        admin_api_key=SecretStr(ADMIN),
    )
    return started


@pytest.fixture
def ann(proxy: Proxy) -> Caller:
    return Caller(proxy, KEYS["ann"])


@pytest.fixture
def operator(proxy: Proxy) -> Caller:
    return Caller(proxy, ADMIN)


async def test_the_operator_sees_whose_jobs_there_are(ann: Caller, operator: Caller):
    """In lists, page by page, and one by one; callers are not told, for they know."""
    bob = Caller(ann.proxy, KEYS["bob"])
    ids = [await ann.accepted(), await bob.accepted(), await operator.accepted()]
    listed = (await operator.ask("GET", "/jobs?limit=2")).body
    assert [(job["id"], job["caller"]) for job in listed["data"]] == [(ids[2], "operator"), (ids[1], "bob")]
    listed = (await operator.ask("GET", f"/jobs?after={listed['after']}")).body
    assert [(job["id"], job["caller"]) for job in listed["data"]] == [(ids[0], "ann")]
    assert (await operator.job(ids[1]))["caller"] == "bob"
    (own,) = (await ann.ask("GET", "/jobs")).body["data"]
    assert own["id"] == ids[0] and "caller" not in own and "caller" not in await ann.job(ids[0])


async def test_what_callers_ask_and_are_answered_is_theirs_alone(ann: Caller, operator: Caller):
    """The operator reads its own answers, and of others' that they are done."""
    path = "/api/v1/chat/completions?note=private"
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "Привет"}]}
    id, own = await ann.accepted(body, path), await operator.accepted()
    assert (await ann.over(id))["answer"]["status"] == 200
    events = [job async for _, job in operator.events(id)]
    for job in (*events, await operator.job(id), (await operator.ask("GET", "/jobs?limit=2")).body["data"][1]):
        assert (job["id"], job["state"], job["path"], job.get("answer")) == (id, "done", path.partition("?")[0], None)
    told = await operator.ask("GET", f"/jobs/{id}/answer")
    assert (told.status, "its caller's alone" in told.words) == (404, True)
    assert (await operator.over(own))["answer"]["status"] == 200
    assert (await operator.ask("GET", f"/jobs/{own}/answer")).status == 200


async def test_the_operator_ends_and_repeats_what_is_not_its_own(ann: Caller, operator: Caller):
    """In the line, before it, and when it is over."""
    first = await busy_with(ann)
    ids = [await ann.accepted() for _ in range(12)]
    await until(lambda: waiting(ann.proxy) == 10)
    for id in (ids[3], ids[11]):
        told = await operator.ask("DELETE", f"/jobs/{id}")
        assert (told.status, told.body["state"], told.body["caller"]) == (200, "cancelled", "ann")
        assert (await ann.job(id))["state"] == "cancelled"
        assert (await operator.ask("GET", f"/jobs/{id}/answer")).status == 410
    again = await operator.ask("POST", f"/jobs/{ids[3]}/retry")
    assert (again.status, again.body["caller"]) == (202, "ann")
    assert (await operator.ask("DELETE", f"/jobs/{ids[11]}")).status == 204
    assert (await ann.ask("GET", f"/jobs/{ids[11]}")).status == 404
    await ann.ask("DELETE", f"/jobs/{first}")


async def busy_with(caller: Caller) -> str:
    """The id of a job that is in flight until it is cancelled."""
    caller.proxy.giga.state.faults.add({"kind": "stall"})
    id = await caller.accepted()
    await until(lambda: caller.proxy.service.line.state().limits.in_flight == 1)
    return id


async def test_the_services_own_work_is_for_the_command_line(ann: Caller, operator: Caller):
    """`app.py jobs` knows what may be done to it."""
    own = Job(caller="", operation="errand", dialect="")
    await ann.proxy.service.work.store.jobs.add(own)
    assert (await operator.ask("GET", "/jobs")).body["data"] == []
    for method in ("GET", "DELETE"):
        assert (await operator.ask(method, f"/jobs/{own.id}")).status == 404


async def test_nobody_else_is_the_operator(ann: Caller, operator: Caller):
    """Not with a caller's key, nor a wrong one, nor with a token that the operator's key was changed for."""
    id = await operator.accepted()
    for other, status in ((ann, 404), (Caller(ann.proxy, "wrong"), 401), (Caller(ann.proxy), 401)):
        assert (await other.ask("GET", f"/jobs/{id}")).status == status
    theirs = await ann.accepted()
    form, basic = b"scope=GIGACHAT_API_PERS", {"Authorization": f"Bearer {ADMIN}"}
    token = (await Caller(ann.proxy).ask("POST", "/api/v2/oauth", form, basic)).body["access_token"]
    borrowed = Caller(ann.proxy, token)
    assert (await borrowed.ask("GET", f"/jobs/{theirs}")).status == 404
    assert [job["id"] for job in (await borrowed.ask("GET", "/jobs")).body["data"]] == [id]


async def test_without_callers_keys_the_operators_key_shows_all_jobs(start_proxy: StartProxy, tmp_path: Path):
    """Those of Idempotency-Keys, too, which belong to addresses."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), admin_api_key=SecretStr(ADMIN))
    anybody, operator = Caller(proxy), Caller(proxy, ADMIN)
    id = await anybody.accepted()
    assert (await anybody.ask("POST", "/", chat(), {"Idempotency-Key": "k"})).status == 200
    assert len((await anybody.ask("GET", "/jobs")).body["data"]) == 1
    listed = (await operator.ask("GET", "/jobs")).body["data"]
    assert [job["caller"] for job in listed] == ["127.0.0.1", "*"] and listed[1]["id"] == id
    assert (await operator.over(id))["answer"]["status"] == 200, "it is everybody's"
