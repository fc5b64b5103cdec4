"""Webhooks: who named one hears of every end of its job, signed, in the end; and nobody else is reached or told."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import ssl
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp.connector
import pytest
from aiohttp import web
from authority import Authority
from redis_server import RedisServer
from running import until
from standardwebhooks import Webhook, WebhookVerificationError
from strangers import HOST, Names, Says, Server, a_server, never, saying

from proxy import webhooks as module
from proxy.errors import BadRequest, JobsUnavailable
from proxy.jobs import Answer, Job, JobStore, Kind, State
from proxy.jobs.recording import Ended
from proxy.jobs.runner import GiveUp, Runner, TryLater
from proxy.jobs.store import Store, opened
from proxy.public_hosts import PublicHosts
from proxy.settings import Settings
from proxy.webhooks import Webhooks, signature

ROOT = Path(__file__).resolve().parents[1]
SECRET = f"whsec_{base64.b64encode(b'hush' * 8).decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(b'wind' * 6).decode()}"
ANSWER = Answer(200, "application/json", b'{"text": "a secret answer"}')
#: Seconds: a lease that outlives the test, and one that does not.
LONG, SHORT = 60.0, 0.05
#: A token in the path of an address, and one in its query.
TOKENS = "/in/tok-path?key=tok-query"
#: As the specification has them, in seconds.
SCHEDULE = [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600]


# -- the other side


@dataclass
class Heard:
    """A request as the receiver got it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def told(self, *secrets: str) -> Any:
        """What it says, if it is signed with just these secrets: by the words of the specification alone."""
        content = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets or [SECRET]]
        right = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
        assert self.headers["webhook-signature"] == " ".join(f"v1,{text}" for text in right)
        assert abs(int(self.headers["webhook-timestamp"]) - time.time()) < 60
        return json.loads(self.body)


@dataclass
class Receiver:
    """The server of somebody who named it; `says` is how it answers."""

    server: Server
    says: Says = field(default_factory=lambda: saying(status=204))
    heard: list[Heard] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url(path=TOKENS)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.heard.append(Heard(request.method, request.path_qs, dict(request.headers), await request.read()))
        return await self.says(request)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_server() as server:
        server.says = receiver = Receiver(server)
        yield receiver


# -- this side


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Store]:
    """Where the engine does not matter."""
    async with opened(tmp_path / "jobs.sqlite") as store:
        yield store


@pytest.fixture
def jobs(shelf: Store) -> JobStore:
    return shelf.jobs


Making = Callable[..., Webhooks]


@pytest.fixture
async def making() -> AsyncIterator[Making]:
    """`making(jobs)`: webhooks that may go to HOST alone, which is this machine, closed after the test."""
    async with AsyncExitStack() as stack:

        def make(
            jobs: JobStore, secret: str = SECRET, allow: tuple[str, ...] = (HOST,), names: Any = None, **knobs: Any
        ) -> Webhooks:
            settings = Settings(webhook_secret=secret, webhook_allow=allow)
            hosts = PublicHosts(settings.webhook_allow, names or Names())
            webhooks = Webhooks(jobs, settings.webhook_secret, hosts, **{"jitter": lambda: 0.0, **knobs})
            stack.push_async_callback(webhooks.close)
            return webhooks

        yield make


def a_job(webhook: str | None, **fields: Any) -> Job:
    path = "/v1/chat/completions?tok-query=1"
    return Job(
        **{"caller": "ann", "operation": "chat", "dialect": "openai", "path": path, "webhook": webhook, **fields}
    )


async def claimed(jobs: JobStore, lease: float = LONG) -> Job:
    """The next one, of whichever kind, when its time has come."""
    async with asyncio.timeout(20):
        with jobs.news(*(kind.topic for kind in Kind)) as news:
            while True:
                found = [await jobs.claim(kind, 1, lease) for kind in (Kind.LIVE, Kind.OWN)]
                if claimed := [job for each in found for job in each.jobs]:
                    return claimed[0]
                await news.next(min(each.again for each in found))


async def ended(jobs: JobStore, webhook: str | None, **fields: Any) -> Job:
    """A job that is done."""
    await jobs.add(a_job(webhook, **fields))
    job = await claimed(jobs)
    assert await jobs.ack(job.claim, ANSWER)
    return job


async def hook_of(jobs: JobStore, job: Job) -> Job:
    """The claimed work of telling of its end."""
    await jobs.add(Webhooks.hook_for(job))
    hook = await claimed(jobs)
    assert hook.id == f"hook_{job.id}"
    return hook


async def put_off(webhooks: Webhooks, hook: Job) -> TryLater:
    with pytest.raises(TryLater) as later:
        await webhooks.deliver(hook)
    return later.value


async def again(jobs: JobStore, hook: Job, later: TryLater) -> Job:
    """The hook claimed anew, as if its time had come."""
    assert await jobs.fail(hook.claim, str(later), retry_at=time.time())
    return await claimed(jobs)


async def said(jobs: JobStore, webhooks: Webhooks, url: str) -> TryLater:
    """What comes of a webhook to this address that is not heard."""
    return await put_off(webhooks, await hook_of(jobs, await ended(jobs, url)))


# -- what is told


async def make_done(jobs: JobStore, job: Job) -> None:
    assert await jobs.ack((await claimed(jobs)).claim, ANSWER)


async def make_failed(jobs: JobStore, job: Job) -> None:
    assert await jobs.fail((await claimed(jobs)).claim, "the API said no", answer=Answer(422, "text/plain", b"no"))


async def make_cancelled(jobs: JobStore, job: Job) -> None:
    await jobs.cancel(job.id, caller="ann")


async def make_expired(jobs: JobStore, job: Job) -> None:
    assert await jobs.purge() == 1


ENDS = [
    (make_done, "done", {"status": 200}),
    (make_failed, "failed", {"status": 422, "error": "the API said no"}),
    (make_cancelled, "cancelled", {"status": None}),
    (make_expired, "expired", {"status": None}),
]


@pytest.mark.parametrize(("end", "state", "more"), ENDS, ids=[state for _, state, _ in ENDS])
async def test_every_end_of_a_job_is_told_and_signed(
    place: str, receiver: Receiver, making: Making, end: Any, state: str, more: dict[str, Any]
) -> None:
    """What it is and how it ended; of its answer, of its body and of its query nothing at all."""
    async with opened(place) as store:
        deadline = time.time() - 1 if state == "expired" else None
        job = a_job(receiver.url, body=b"a secret prompt", deadline=deadline)
        await store.jobs.add(job)
        await end(store.jobs, job)
        assert await making(store.jobs).deliver(await hook_of(store.jobs, job)) is None
        kept = await store.jobs.get(job.id, caller=None)
    (heard,) = receiver.heard
    told = heard.told()
    assert kept is not None and kept.finished is not None
    assert (heard.method, heard.target, told["type"]) == ("POST", TOKENS, f"job.{state}")
    assert told["timestamp"].endswith("Z")
    assert datetime.fromisoformat(told["timestamp"]).timestamp() == pytest.approx(kept.finished, abs=0.002)
    times = {"created": round(job.created, 3), "finished": round(kept.finished, 3)}  # as everywhere in jobs
    assert told["data"] == {"id": job.id, "state": state, "path": "/v1/chat/completions", **times, **more}
    assert b"secret" not in heard.body and b"tok-" not in heard.body


async def test_the_standards_own_library_takes_it(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    """With the secret as it is set; with another it is refused."""
    await making(jobs).deliver(await hook_of(jobs, await ended(jobs, receiver.url)))
    (heard,) = receiver.heard
    assert Webhook(SECRET).verify(heard.body, heard.headers)["type"] == "job.done"
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(heard.body, heard.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(heard.body + b" ", heard.headers)


def test_a_signature_is_what_the_other_libraries_make_of_it() -> None:
    """A case that the standard's libraries share."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_while_a_secret_is_replaced_the_old_one_and_the_new_one_both_fit(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    await making(jobs, f"{SECRET},{OTHER_SECRET}").deliver(await hook_of(jobs, await ended(jobs, receiver.url)))
    (heard,) = receiver.heard
    heard.told(SECRET, OTHER_SECRET)
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(heard.body, heard.headers)


async def test_nothing_goes_along_but_what_belongs_to_the_webhook(
    jobs: JobStore, receiver: Receiver, making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header of the job's, no cookie of an earlier reply, nothing that the environment knows; the same each time."""
    (tmp_path / "netrc").write_text(f"machine {HOST} login joe password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    receiver.says = saying(status=200, **{"Set-Cookie": "who=you"})
    webhooks = making(jobs)
    for _ in range(2):
        job = await ended(jobs, receiver.url, headers={"X-Client-ID": "ann", "Cookie": "a=b"})
        await webhooks.deliver(await hook_of(jobs, job))
    for heard in receiver.heard:
        signed = {name: heard.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
        assert heard.headers == {
            "Host": f"{HOST}:{receiver.server.port}",
            "User-Agent": "gigachat-proxy",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "Content-Length": str(len(heard.body)),
            "Connection": "close",
            **signed,
        }


async def test_whatever_words_a_job_has_it_is_told_in_plain_json(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    """Short, too, however much there is to say of a failure."""
    await jobs.add(a_job(receiver.url, path="/api/\udcff\n"))
    job = await claimed(jobs)
    await jobs.fail(job.claim, "ошибка \0 ☃" * 10_000)
    await making(jobs).deliver(await hook_of(jobs, job))
    (heard,) = receiver.heard
    assert heard.told()["data"]["path"] == "/api/\udcff\n"
    assert heard.told()["data"]["error"].startswith("ошибка \0 ☃")
    assert heard.body.isascii() and len(heard.body) < 20_000


# -- when it is told


async def test_a_job_that_ends_while_it_is_looked_at_is_told_at_once(
    place: str, receiver: Receiver, making: Making
) -> None:
    """The work is added before the end is kept, so the two come close."""
    async with opened(place) as store:
        jobs = store.jobs
        await jobs.add(a_job(receiver.url))
        job = await claimed(jobs)
        delivery = asyncio.create_task(making(jobs).deliver(await hook_of(jobs, job)))
        await asyncio.sleep(0)
        assert await jobs.ack(job.claim, ANSWER)
        await delivery
    assert [heard.told()["type"] for heard in receiver.heard] == ["job.done"]


async def test_a_job_that_has_not_ended_is_looked_at_again_and_that_is_no_attempt(
    jobs: JobStore, receiver: Receiver, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: the first attempt that fails is followed by the shortest pause."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    await jobs.add(a_job(receiver.url))
    job, webhooks = await claimed(jobs), making(jobs)
    hook = await hook_of(jobs, job)
    for _ in range(12):
        later = await put_off(webhooks, hook)
        assert later.seconds == 0.01
        hook = await again(jobs, hook, later)
    assert receiver.heard == []
    await jobs.ack(job.claim, ANSWER)
    receiver.says = saying(status=500)
    assert (await put_off(webhooks, hook)).seconds == SCHEDULE[0]


async def test_nobody_is_told_of_a_job_that_is_gone(place: str, receiver: Receiver, making: Making) -> None:
    """Deleted or too old: there is nothing to be fetched. And a job without a webhook has nobody to tell."""
    async with opened(place) as store:
        jobs, webhooks = store.jobs, making(store.jobs)
        deleted, purged = await ended(jobs, receiver.url), await ended(jobs, receiver.url, keep=0.0)
        hooks = [await hook_of(jobs, job) for job in (deleted, purged, await ended(jobs, None))]
        assert await jobs.delete(deleted.id, caller="ann")
        await jobs.purge()
        for hook in hooks:
            assert await webhooks.deliver(hook) is None
    assert receiver.heard == []


async def test_the_work_of_telling_is_added_once(jobs: JobStore) -> None:
    """It is the service's own, goes before all else, and says neither to whom nor what."""
    job = a_job(f"http://{HOST}{TOKENS}", keep=7.0)
    hook = Webhooks.hook_for(job)
    assert (hook.id, hook.caller, hook.operation, hook.priority.name) == (f"hook_{job.id}", "", "webhook", "HIGH")
    assert hook.keep == 7.0 and hook.webhook is None and b"tok-" not in hook.body
    await jobs.add(hook)
    await jobs.add(Webhooks.hook_for(job))
    assert (await jobs.state()).live == 1


async def test_each_end_of_a_job_is_an_event_of_its_own(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    """One that failed and was run again: whoever heard of the failure must not take its end for a repetition."""
    webhooks = making(jobs)
    await jobs.add(a_job(receiver.url))
    job = await claimed(jobs)
    await jobs.fail(job.claim, "no")
    hook = await hook_of(jobs, job)
    receiver.says = saying(status=500)
    later = await put_off(webhooks, hook)
    await jobs.retry(job.id, caller="ann")
    assert await jobs.ack((await claimed(jobs)).claim, ANSWER)
    receiver.says = saying(status=200)
    await webhooks.deliver(await again(jobs, hook, later))
    assert [heard.told()["type"] for heard in receiver.heard] == ["job.failed", "job.done"]
    assert len({heard.id for heard in receiver.heard}) == 2


# -- again, until it is heard


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
async def test_any_2xx_means_that_it_was_heard(jobs: JobStore, receiver: Receiver, making: Making, status: int) -> None:
    receiver.says = saying(status=status)
    assert await making(jobs).deliver(await hook_of(jobs, await ended(jobs, receiver.url))) is None


async def test_410_means_never_again(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    receiver.says = saying(status=410)
    assert await making(jobs).deliver(await hook_of(jobs, await ended(jobs, receiver.url))) is None
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("status", [300, 302, 304, 400, 401, 404, 409, 418, 429, 500, 502, 503, 504, 599])
async def test_anything_else_means_again_later(jobs: JobStore, receiver: Receiver, making: Making, status: int) -> None:
    receiver.says = saying(status=status)
    later = await said(jobs, making(jobs), receiver.url)
    assert (later.seconds, str(later)) == (5, f"{HOST}: it answered {status}")


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 1.0), (1.0, 1.2)])
async def test_it_is_told_ten_times_as_the_standard_has_it_and_then_no_more(
    place: str, receiver: Receiver, making: Making, jitter: float, factor: float
) -> None:
    """With the same id and the same body, and a timestamp of the attempt. What became of it is kept for operators."""
    receiver.says = saying(status=500)
    async with opened(place) as store:
        jobs, webhooks = store.jobs, making(store.jobs, jitter=lambda: jitter)
        hook = await hook_of(jobs, await ended(jobs, receiver.url))
        for number, pause in enumerate(SCHEDULE, 1):
            later = await put_off(webhooks, hook)
            assert later.seconds == pytest.approx(pause * factor)
            hook = await again(jobs, hook, later)
            assert hook.progress == f"{number} in vain: it answered 500"
        with pytest.raises(GiveUp, match=f"^{HOST} was told 10 times in vain, lastly: it answered 500$"):
            await webhooks.deliver(hook)
    assert len(receiver.heard) == 10
    assert len({(heard.id, heard.body) for heard in receiver.heard}) == 1
    for heard in receiver.heard:
        heard.told()


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [
        *((429, "120", 120), (503, "120", 120), (503, "999999", 3600), (429, "0", 5), (429, "4.9", 5)),
        *(
            (429, "inf", 5),
            (429, "-9", 5),
            (429, "soon", 5),
            (500, "120", 5),
            (404, "120", 5),
            (503, "Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        ),
    ],
)
async def test_a_server_may_ask_for_a_longer_pause_of_up_to_an_hour(
    jobs: JobStore, receiver: Receiver, making: Making, status: int, asked: str, seconds: float
) -> None:
    receiver.says = saying(status=status, **{"Retry-After": asked})
    assert (await said(jobs, making(jobs), receiver.url)).seconds == seconds


async def test_an_operator_may_have_it_told_anew(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    """What was given up begins with the shortest pause again."""
    receiver.says, webhooks = saying(status=500), making(jobs)
    hook = await hook_of(jobs, await ended(jobs, receiver.url))
    await put_off(webhooks, hook)
    await jobs.fail(hook.claim, "given up")
    await jobs.retry(hook.id, caller=None)
    assert (await put_off(webhooks, await claimed(jobs))).seconds == 5


async def test_without_a_secret_nothing_is_told_until_there_is_one(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    """It was taken away after the job was accepted."""
    hook = await hook_of(jobs, await ended(jobs, receiver.url))
    later = await put_off(making(jobs, secret=""), hook)
    assert str(later) == f"{HOST}: WEBHOOK_SECRET is not set" and receiver.heard == []
    await making(jobs).deliver(await again(jobs, hook, later))
    assert len(receiver.heard) == 1


# -- hostile receivers


async def half(request: web.BaseRequest) -> web.StreamResponse:
    """A body that stops in the middle."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 500)
    return await never(request)


async def test_a_server_that_does_not_answer_is_left(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    receiver.says = never
    assert "it took too long" in str(await said(jobs, making(jobs, seconds=0.1), receiver.url))


async def test_a_name_that_nobody_answers_for_is_left_too(jobs: JobStore, making: Making) -> None:
    async def silent(host: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    webhooks = making(jobs, names=silent, seconds=0.05)
    assert "it took too long" in str(await said(jobs, webhooks, f"http://{HOST}/"))


async def test_a_reply_that_does_not_end_has_been_heard(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    """The status is all that counts; what follows is not waited for longer than an attempt may take."""
    receiver.says = half
    assert await making(jobs, seconds=0.1).deliver(await hook_of(jobs, await ended(jobs, receiver.url))) is None


async def test_a_reply_without_an_end_is_left(jobs: JobStore, receiver: Receiver, making: Making) -> None:
    """What was written and not read is in the system's buffers. No timeout is waited for."""

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)
            receiver.server.written += 10_000

    receiver.says = endless
    assert await making(jobs, seconds=3600).deliver(await hook_of(jobs, await ended(jobs, receiver.url))) is None
    assert receiver.server.written < 20_000_000


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 No\r\nRetry-After: \xff\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_valid_answer_is_told_again(
    jobs: JobStore, making: Making, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a stranger's server writes. No word of its address is repeated."""
    caplog.set_level(logging.DEBUG)

    async def say(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await source.readuntil(b"\r\n\r\n")
        sink.write(answer)
        sink.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        later = await said(jobs, making(jobs), f"http://{HOST}:{server.sockets[0].getsockname()[1]}{TOKENS}")
    assert later.seconds == 5
    assert "tok-" not in caplog.text and "tok-" not in "".join(traceback.format_exception(later))


async def test_a_broken_reply_of_a_server_that_has_heard_changes_nothing(jobs: JobStore, making: Making) -> None:
    async def say(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await source.readuntil(b"\r\n\r\n")
        sink.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        sink.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
        assert await making(jobs).deliver(await hook_of(jobs, await ended(jobs, url))) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(jobs: JobStore, receiver: Receiver, making: Making, status: int) -> None:
    """To a host within, or to a public one."""
    async with a_server() as inner:
        for host in ("127.0.0.1", HOST):
            receiver.says = saying(status=status, Location=inner.url(host))
            assert f"it answered {status}" in str(await said(jobs, making(jobs), receiver.url))
        assert inner.asked == []


async def test_nobody_there_is_tried_again(jobs: JobStore, making: Making) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://{HOST}:{closed.getsockname()[1]}/"
        assert "no connection" in str(await said(jobs, making(jobs), url))


async def test_a_server_that_never_answers_holds_up_nobody_elses(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    """It gets a few connections, and the others theirs."""
    names = Names({HOST: [["127.0.0.1"]], "quick.test": [["127.0.0.1"]]})
    webhooks = making(jobs, allow=("test",), names=names, seconds=3600)
    receiver.says = never
    hooks = [await hook_of(jobs, await ended(jobs, receiver.url)) for _ in range(module.AT_ONE_HOST + 5)]
    waiting = [asyncio.create_task(webhooks.deliver(hook)) for hook in hooks]
    await until(lambda: len(receiver.heard) == module.AT_ONE_HOST)
    async with a_server() as quick:
        quick.says = other = Receiver(quick)
        url = quick.url("quick.test")
        await webhooks.deliver(await hook_of(jobs, await ended(jobs, url)))
        assert len(other.heard) == 1
    assert len(receiver.heard) == module.AT_ONE_HOST
    for task in waiting[: module.AT_ONE_HOST]:
        task.cancel()
    await until(lambda: len(receiver.heard) == len(hooks))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_many_servers_that_never_answer_take_a_bounded_number_of_connections(
    jobs: JobStore, receiver: Receiver, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    names = Names({f"{number}.test": [["127.0.0.1"]] for number in range(5)})
    webhooks = making(jobs, allow=("test",), names=names, seconds=3600)
    receiver.says = never
    hooks = [await hook_of(jobs, await ended(jobs, receiver.server.url(f"{number}.test"))) for number in range(5)]
    waiting = [asyncio.create_task(webhooks.deliver(hook)) for hook in hooks]
    await until(lambda: len(receiver.heard) == 3)
    waiting[0].cancel()
    await until(lambda: len(receiver.heard) == 4)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert len(receiver.heard) == 4


# -- whom it may reach


@pytest.mark.parametrize("host", ["127.0.0.1", HOST, "127.1", "[::ffff:127.0.0.1]", "localhost", "2130706433"])
async def test_this_machine_is_not_reached_unless_it_is_let_through(
    jobs: JobStore, receiver: Receiver, making: Making, host: str
) -> None:
    """As an address, by a name, in disguise; at the call too, whatever was accepted."""
    names = Names({HOST: [["127.0.0.1"]], "127.1": [["127.0.0.1"]], "localhost": [["127.0.0.1", "::1"]]})
    webhooks = making(jobs, allow=(), names=names)
    later = await said(jobs, webhooks, receiver.server.url(host))
    assert str(later).endswith(": it has no public address") and receiver.heard == []


@pytest.mark.parametrize(("host", "entry"), [("127.0.0.1", "127.0.0.0/8"), (HOST, "test"), (HOST, "*")])
async def test_an_entry_lets_it_through(
    jobs: JobStore, receiver: Receiver, making: Making, host: str, entry: str
) -> None:
    webhooks = making(jobs, allow=(entry,))
    url = receiver.server.url(host)
    assert webhooks.check(url) == url
    await webhooks.deliver(await hook_of(jobs, await ended(jobs, url)))
    assert len(receiver.heard) == 1


async def test_a_name_that_leads_elsewhere_a_moment_later_gains_nothing(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    """DNS rebinding: one lookup for each attempt, and the connection goes to its answer or nowhere."""
    names = Names({HOST: [["127.0.0.2"], ["127.0.0.1"]]})
    webhooks = making(jobs, allow=("127.0.0.1",), names=names)
    assert "no public address" in str(await said(jobs, webhooks, receiver.url))
    assert receiver.heard == [] and names.asked == [HOST]


async def test_a_certificate_is_verified(
    jobs: JobStore, making: Making, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of an authority that nobody knows is refused."""
    authority = Authority.found(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue(HOST))
    async with a_server(tls=tls) as server:
        server.says = receiver = Receiver(server)
        url = server.url(scheme="https")
        assert "certificate" in str(await said(jobs, making(jobs), url))
        assert receiver.heard == []
        friendly = ssl.create_default_context(cafile=str(authority.root))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", friendly)
        await making(jobs).deliver(await hook_of(jobs, await ended(jobs, url)))
        assert len(receiver.heard) == 1


# -- what may be named


def refusal(webhooks: Webhooks, address: object) -> str:
    with pytest.raises(BadRequest) as told:
        webhooks.check(address)
    assert told.value.param == "webhook"
    return str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        *("ftp://example.org/", "file:///etc/passwd", "javascript:x", "//example.org", "example.org/hook", "", " "),
        *("http://", "http:///hook", "http://[::1", "http://a:99999/", "http://[]", "ws://example.org/", "\udcff"),
        *("https://user@example.org/", "https://user:word@example.org/", "https://:@example.org/"),
        *("http://example.org\\@127.0.0.1/", "https://example.org/" + "x" * 2000),
        *(None, 1, True, 1.5, b"https://example.org/", ["https://example.org/"], {"url": "https://example.org/"}),
        *("http://127.0.0.1/", "http://10.1.2.3:80/", "http://169.254.169.254/latest", "http://[::1]/", "http://0/"),
        *("http://[::ffff:10.0.0.1]/", "http://2130706433/", "http://127.0.0.1./", "http://127.000.000.001/"),
    ],
)
async def test_what_is_no_public_address_is_refused_when_it_is_named(
    making: Making, jobs: JobStore, address: Any
) -> None:
    """By the name of the field, and without its own words, which may be a password."""
    told = refusal(making(jobs, allow=()), address)
    assert '"webhook"' in told and "word" not in told.replace("password", "") and "example" not in told


@pytest.mark.parametrize(
    "address",
    [
        *("https://example.org", "http://example.org:8080/a/b?c=d#e", "https://хост.рф/путь", "https://8.8.8.8/"),
        *("HTTPS://EXAMPLE.ORG/", "https://[2606:4700:4700::1111]/hook", "https://example.org/" + "x" * 1980),
    ],
)
async def test_a_public_address_may_be_named_and_is_kept_as_it_came(
    making: Making, jobs: JobStore, address: str
) -> None:
    """No name is looked up for that."""
    names = Names({})
    assert making(jobs, allow=(), names=names).check(address) == address
    assert names.asked == []


async def test_without_a_secret_none_may_be_named_and_the_remedy_is_told(making: Making, jobs: JobStore) -> None:
    assert "WEBHOOK_SECRET" in refusal(making(jobs, secret=""), "https://example.org/")


# -- what is not told


async def test_no_log_and_no_error_has_more_of_an_address_than_its_host(
    jobs: JobStore,
    receiver: Receiver,
    making: Making,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor a secret; whether it is heard, fails, is given up, or cannot be reached."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("aiohttp.access"), "disabled", True)  # of the receiver
    webhooks, told = making(jobs, seconds=0.1), ""
    for says in (saying(status=204), saying(status=500), saying(status=302, Location="/tok-reply"), never):
        receiver.says = says
        hook = await hook_of(jobs, await ended(jobs, receiver.url))
        for progress in ("", "9 in vain"):
            try:
                await webhooks.deliver(replace(hook, progress=progress))
            except (TryLater, GiveUp) as error:
                told += "".join(traceback.format_exception(error)) + repr(error)
    told += str(await said(jobs, webhooks, f"http://elsewhere.test{TOKENS}"))
    hooks = (await jobs.list(caller="")).entries
    told += caplog.text + repr(webhooks) + repr(hooks) + "".join(hook.progress for hook in hooks)
    assert "given up after 10 attempts" in caplog.text and HOST in caplog.text and "elsewhere.test" in told
    for word in ("tok-", "hush", SECRET[6:], "secret answer"):
        assert word not in told


# -- kills, stops, and the store away


async def test_a_delivery_that_is_cut_off_is_told_again_with_the_same_id(
    jobs: JobStore, receiver: Receiver, making: Making
) -> None:
    """By a stop of the service, in the middle of a call: the connection goes, and the work is given back."""
    webhooks, receiver.says = making(jobs), never
    hook = await hook_of(jobs, await ended(jobs, receiver.url))
    delivery = asyncio.create_task(webhooks.deliver(hook))
    await until(lambda: len(receiver.heard) == 1)
    delivery.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivery
    await webhooks.close()
    assert await jobs.release(hook.claim)
    receiver.says = saying(status=200)
    await webhooks.deliver(await claimed(jobs))  # the session is opened again
    first, second = receiver.heard
    assert (first.id, first.body) == (second.id, second.body)


async def test_after_kill_9_in_the_middle_it_is_told_again_with_the_same_id(
    place: str, receiver: Receiver, making: Making
) -> None:
    """By the next process, or by another replica when the lease is over."""
    async with opened(place) as store:
        job = await ended(store.jobs, receiver.url)
        await store.jobs.add(Webhooks.hook_for(job))
    story = f"""
import asyncio, sys
sys.path.insert(0, "tests")
from pathlib import Path
from strangers import Names
from proxy.jobs import Kind
from proxy.jobs.store import opened
from proxy.public_hosts import PublicHosts
from proxy.settings import Settings
from proxy.webhooks import Webhooks
async def main():
    async with opened({place!r}) as store:
        keys = Settings(webhook_secret={SECRET!r}).webhook_secret
        (hook,) = (await store.jobs.claim(Kind.OWN, 1, {SHORT})).jobs
        await Webhooks(store.jobs, keys, PublicHosts([{HOST!r}], Names())).deliver(hook)
asyncio.run(main())
"""
    receiver.says = never
    victim = await asyncio.create_subprocess_exec(sys.executable, "-c", story, cwd=ROOT)
    await until(lambda: len(receiver.heard) == 1 or victim.returncode is not None)
    victim.kill()
    await victim.wait()
    assert len(receiver.heard) == 1
    receiver.says = saying(status=200)
    async with opened(place) as store:
        hook = await claimed(store.jobs)
        assert hook.fence == 2
        await making(store.jobs).deliver(hook)
    first, second = receiver.heard
    assert (first.id, first.body) == (second.id, second.body)
    first.told()
    second.told()


async def test_while_the_store_cannot_be_reached_nothing_is_told(
    receiver: Receiver, making: Making, tmp_path: Path
) -> None:
    """The failure is the store's own, and the work is done when it is back."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    server.start()
    try:
        async with opened(server.url) as store:
            webhooks = making(store.jobs)
            hook = await hook_of(store.jobs, await ended(store.jobs, receiver.url))
            await asyncio.to_thread(server.kill)
            with pytest.raises(JobsUnavailable):
                await webhooks.deliver(hook)
            assert receiver.heard == []
            await asyncio.to_thread(server.start)
            await webhooks.deliver(hook)
            assert len(receiver.heard) == 1
    finally:
        server.stop()


# -- with the runner of jobs


async def answered(job: Job, recording: Any, on_call: Callable[[Any], None]) -> Ended:
    return Ended(ANSWER, None)


def running(store: Store, webhooks: Webhooks, serve: Any = answered) -> Runner:
    def after(job: Job) -> Job | None:
        return Webhooks.hook_for(job) if job.webhook else None

    return Runner(store, serve, {"webhook": webhooks.deliver}, after=after)


async def state_of(jobs: JobStore, id: str) -> State | None:
    job = await jobs.get(id, caller=None)
    return job.state if job is not None else None


async def over(jobs: JobStore, id: str) -> State:
    """How it ended, when it has."""
    async with asyncio.timeout(20):
        with jobs.news(id) as news:
            while (state := await state_of(jobs, id)) is None or not state.is_end:
                await news.next(0.05)
    return state


async def test_jobs_that_a_runner_runs_are_told_of(place: str, receiver: Receiver, making: Making) -> None:
    """Each once, and that is kept."""
    async with opened(place) as store:
        runner = running(store, making(store.jobs))
        runner.start()
        told = [a_job(receiver.url) for _ in range(30)]
        await store.jobs.add(*told, a_job(None))
        for job in told:
            assert await over(store.jobs, f"hook_{job.id}") is State.DONE
        await runner.close()
    assert sorted(heard.told()["data"]["id"] for heard in receiver.heard) == sorted(job.id for job in told)


async def test_a_receiver_that_was_away_hears_of_it_in_the_end(
    shelf: Store, receiver: Receiver, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After more attempts than any job has."""
    monkeypatch.setattr(module, "PAUSES", (0.001,) * 9)
    count = iter(range(9))

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if next(count, None) is None else 500)

    receiver.says = says
    runner = running(shelf, making(shelf.jobs))
    runner.start()
    job = a_job(receiver.url)
    await shelf.jobs.add(job)
    assert await over(shelf.jobs, f"hook_{job.id}") is State.DONE
    await runner.close()
    assert len(receiver.heard) == 10 and len({heard.id for heard in receiver.heard}) == 1


async def test_a_receiver_that_stays_away_is_given_up_and_that_is_kept(
    shelf: Store, receiver: Receiver, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.001,) * 2)
    receiver.says = saying(status=404)
    runner = running(shelf, making(shelf.jobs))
    runner.start()
    job = a_job(receiver.url)
    await shelf.jobs.add(job)
    assert await over(shelf.jobs, f"hook_{job.id}") is State.FAILED
    await runner.close()
    hook = await shelf.jobs.get(f"hook_{job.id}", caller=None)
    assert hook is not None and hook.error == f"{HOST} was told 3 times in vain, lastly: it answered 404"


async def test_a_stop_gives_back_what_is_being_told(shelf: Store, receiver: Receiver, making: Making) -> None:
    """To be told after the next start."""
    receiver.says = never
    runner = running(shelf, making(shelf.jobs))
    runner.start()
    job = a_job(receiver.url)
    await shelf.jobs.add(job)
    await until(lambda: len(receiver.heard) == 1)
    await runner.close()
    assert await state_of(shelf.jobs, job.id) is State.DONE
    assert await state_of(shelf.jobs, f"hook_{job.id}") is State.QUEUED
