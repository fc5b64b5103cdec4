"""OpenAI's own SDK makes batches through the service, over real sockets, with GigaChat behind it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import openai
import openai_upstream
import pytest
from batch_talk import CHAT, codes, eventually, line
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch, FileObject
from pydantic import SecretStr
from running import Proxy, StartProxy, settings_for, until

import app
import emulator
from proxy import kept_files
from proxy.kept_files import BATCH_MAX_BYTES

SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}
OVER = ("completed", "failed", "expired", "cancelled")

Client = Callable[..., AsyncOpenAI]
Start = Callable[..., Any]


@pytest.fixture
def start(start_proxy: StartProxy, tmp_path: Path) -> Start:
    """`await start(...)`: a proxy that keeps jobs."""

    async def started(**knobs: Any) -> Proxy:
        knobs.setdefault("jobs_url", SecretStr(str(tmp_path / "jobs.sqlite")))
        proxy: Proxy = await start_proxy(**knobs)
        return proxy

    return started


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """`client(proxy)`: the SDK at this proxy, without retries of its own, closed after the test."""
    async with AsyncExitStack() as stack:

        def make(proxy: Proxy, api_key: str = "any", path: str = "/v1") -> AsyncOpenAI:
            made = AsyncOpenAI(base_url=proxy.url + path, api_key=api_key, max_retries=0)
            stack.push_async_callback(made.close)
            return made

        yield make


def chat(custom_id: str, text: str = SUM, **more: Any) -> str:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
    return line(custom_id, body=body)


def texts_of(content: Any) -> dict[str, Any]:
    return {told["custom_id"]: told for told in map(json.loads, content.text.splitlines())}


async def upload(client: AsyncOpenAI, *texts: str) -> FileObject:
    return await client.files.create(file=("in.jsonl", "\n".join(texts).encode()), purpose="batch")


async def make(client: AsyncOpenAI, *texts: str, endpoint: Any = CHAT, **more: Any) -> Batch:
    file = await upload(client, *texts)
    return await client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


async def over(client: AsyncOpenAI, batch: Batch) -> Batch:
    async def is_over() -> bool:
        return (await client.batches.retrieve(batch.id)).status in OVER

    await eventually(is_over)
    return await client.batches.retrieve(batch.id)


# ---- A whole life ----


@pytest.mark.parametrize("path", ["/v1", "", "/openai/v1"])
async def test_a_batch_is_made_looked_at_and_read_by_the_sdk(start: Start, client: Client, path: str) -> None:
    """Wherever its base address leads; names of models mean what they mean elsewhere."""
    proxy = await start()
    sdk = client(proxy, path=path)
    file = await upload(sdk, chat("a"), chat("b", "Привет"), chat("c", n="wrong"))
    assert (file.object, file.purpose, file.status, file.filename) == ("file", "batch", "processed", "in.jsonl")
    assert file.expires_at == pytest.approx(time.time() + 30 * 86_400, abs=60)
    made = await sdk.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"for": "нас"}
    )
    assert (made.object, made.status, made.input_file_id) == ("batch", "validating", file.id)
    assert made.expires_at == pytest.approx(time.time() + 86_400, abs=60) and made.metadata == {"for": "нас"}
    done = await over(sdk, made)
    assert done.status == "completed" and done.errors is None and done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 1}
    assert done.output_file_id is not None and done.error_file_id is not None
    answers = texts_of(await sdk.files.content(done.output_file_id))
    body = answers["a"]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == TOTAL and body["model"] == "gpt-4o"
    assert answers.keys() == {"a", "b"} and codes(answers) == {}
    (failed,) = texts_of(await sdk.files.content(done.error_file_id)).values()
    assert (failed["custom_id"], failed["response"]["status_code"], failed["error"]) == ("c", 400, None)
    assert failed["response"]["body"]["error"]["param"] == "n"
    assert {call["body"]["model"] for call in await proxy.calls()} == {"GigaChat-2"}


async def test_embeddings_are_made_in_batches(start: Start, client: Client) -> None:
    sdk = client(await start())
    texts = [line(str(n), url="/v1/embeddings", body={"model": "any", "input": f"text {n}"}) for n in range(3)]
    done = await over(sdk, await make(sdk, *texts, endpoint="/v1/embeddings"))
    answers = texts_of(await sdk.files.content(str(done.output_file_id)))
    assert [len(answers[id]["response"]["body"]["data"][0]["embedding"]) for id in "012"] == [1024] * 3


async def test_native_chats_are_made_in_batches(start: Start, client: Client) -> None:
    """And answered as they are elsewhere."""
    sdk = client(await start())
    bodies = [{"messages": [["user", SUM]]}, {"messages": [["user", SUM]], "generate_parameters": {"n": "wrong"}}]
    done = await over(sdk, await make(sdk, *(line(str(n), url="/", body=bodies[n]) for n in range(2)), endpoint="/"))
    (answer,) = texts_of(await sdk.files.content(str(done.output_file_id))).values()
    (failed,) = texts_of(await sdk.files.content(str(done.error_file_id))).values()
    assert answer["response"]["body"]["data"]["choices"][0]["message"]["content"] == TOTAL
    assert (failed["response"]["status_code"], failed["response"]["body"]["app"]) == (400, "gigachat-proxy")


async def test_the_sdk_that_waits_does_it_as_well(start: Start) -> None:
    """Page by page, the newest first."""
    proxy = await start()

    def story() -> list[str]:
        with OpenAI(base_url=f"{proxy.url}/v1", api_key="any", max_retries=0) as sdk:
            file = sdk.files.create(file=("in.jsonl", chat("a").encode()), purpose="batch")
            made = [sdk.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h") for _ in range(3)]
            listed = [batch.id for batch in sdk.batches.list(limit=2)]
            assert listed == [batch.id for batch in made[::-1]]
            while sdk.batches.retrieve(made[0].id).status not in OVER:
                time.sleep(0.02)
            return sdk.files.content(str(sdk.batches.retrieve(made[0].id).output_file_id)).text.splitlines()

    (told,) = await asyncio.to_thread(story)
    assert json.loads(told)["custom_id"] == "a"


async def test_what_is_wrong_with_a_file_is_told_by_the_batch(start: Start, client: Client) -> None:
    proxy = await start()
    sdk = client(proxy)
    failed = await over(sdk, await make(sdk, chat("a"), "oops", chat("a"), chat("b", stream=True)))
    assert failed.status == "failed" and failed.failed_at and failed.errors is not None
    assert [(error.line, error.code) for error in failed.errors.data or []] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "invalid_request"),
    ]
    assert await proxy.calls() == []


async def test_a_batch_is_cancelled_by_the_sdk(start: Start, client: Client) -> None:
    """What is in flight ends; whoever cancels it twice is told how it stands; what is over is over."""
    proxy = await start(ext_max_requests=1)
    sdk = client(proxy)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.5})
    batch = await make(sdk, *(chat(str(n)) for n in range(30)))
    await until(lambda: proxy.service.line.state().limits.in_flight == 1)
    assert (await sdk.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
    assert (await sdk.batches.cancel(batch.id)).status in ("cancelling", "cancelled")
    done = await over(sdk, batch)
    assert done.status == "cancelled" and done.request_counts is not None
    assert done.request_counts.total == 30 == done.request_counts.completed + done.request_counts.failed
    errors = texts_of(await sdk.files.content(str(done.error_file_id)))
    assert codes(errors) == dict.fromkeys(errors, "batch_cancelled")
    whole = await over(sdk, await make(sdk, chat("a")))
    with pytest.raises(openai.BadRequestError, match="completed"):
        await sdk.batches.cancel(whole.id)


async def test_live_requests_go_before_the_lines_of_a_batch(start: Start, client: Client) -> None:
    proxy = await start(ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.5})
    await make(client(proxy), *(chat(str(n), f"line {n}") for n in range(20)))
    await until(lambda: proxy.service.line.state().waiting >= 9)
    assert (await proxy.ask("live")).status == 200
    assert "live" in (await proxy.sent_texts())[:3]


# ---- What is refused ----


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/responses"}, "endpoint"),
        ({"completion_window": "25d"}, "completion_window"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after"),
    ],
)
async def test_a_wrong_batch_is_refused_by_its_field(
    start: Start, client: Client, change: dict[str, Any], param: str
) -> None:
    sdk = client(await start())
    file = await upload(sdk, chat("a"))
    asked: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **change}
    with pytest.raises(openai.BadRequestError) as refused:
        await sdk.batches.create(**asked)
    assert refused.value.param == param


async def test_a_batch_needs_a_file_that_is_for_batches(start: Start, client: Client) -> None:
    sdk = client(await start())
    asked: Any = {"endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.batches.create(input_file_id="file_" + "0" * 32, **asked)
    assert missing.value.param == "input_file_id"
    done = await over(sdk, await make(sdk, chat("a")))
    with pytest.raises(openai.BadRequestError, match="batch_output"):
        await sdk.batches.create(input_file_id=str(done.output_file_id), **asked)


@pytest.mark.parametrize("limit", ["0", "101", "x", "-1", "٣", "1e1", "9" * 5000])
async def test_a_wrong_limit_of_a_list_is_refused(start: Start, limit: str) -> None:
    proxy = await start()
    async with proxy.http.get(f"{proxy.url}/v1/batches", params={"limit": limit}) as response:
        assert response.status == 400 and (await response.json())["error"]["param"] == "limit"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"null", b'{"input_file_id": {}}'])
async def test_what_asks_for_no_batch_is_a_400(start: Start, body: bytes) -> None:
    proxy = await start()
    async with proxy.http.post(f"{proxy.url}/v1/batches", data=body) as response:
        assert response.status == 400 and (await response.json())["error"]["message"]


@pytest.mark.parametrize("id", ["batch_none", "%2e%2e", "x" * 5000, "ы"])
async def test_a_batch_that_is_not_there_is_a_404(start: Start, id: str) -> None:
    proxy = await start()
    for method, path in (("GET", ""), ("POST", "/cancel")):
        async with proxy.http.request(method, f"{proxy.url}/v1/batches/{id}{path}") as response:
            assert response.status == 404 and (await response.json())["error"]["message"]


async def test_without_a_store_nobody_can_make_batches(start: Start, client: Client) -> None:
    """The refusal says what the operator would do, also of the file."""
    sdk = client(await start(jobs_url=None))
    for attempt in (lambda: upload(sdk, chat("a")), lambda: sdk.batches.retrieve("batch_1"), sdk.batches.list):
        with pytest.raises(openai.APIStatusError, match="JOBS_URL") as refused:
            await attempt()
        assert refused.value.status_code == 501


async def test_a_request_with_a_credential_of_its_own_makes_no_batches(start: Start, client: Client) -> None:
    """Nothing secret is kept, so nobody could run its lines; its files are the API's as before."""
    sdk = client(await start(gpt2giga_pass_token=True), "giga-cred-own-key")
    for attempt in (lambda: upload(sdk, chat("a")), sdk.batches.list):
        with pytest.raises(openai.BadRequestError) as refused:
            await attempt()
        assert refused.value.param == "Authorization"
    made = await sdk.files.create(file=("a.txt", b"its own"), purpose="user_data")
    assert [file.id async for file in sdk.files.list()] == [made.id]


# ---- Belonging ----


async def test_for_others_batches_and_their_files_do_not_exist(start: Start, client: Client) -> None:
    proxy = await start(proxy_api_keys=KEYS)
    anna, boris = client(proxy, "key-of-anna"), client(proxy, "key-of-boris")
    done = await over(anna, await make(anna, chat("secret")))
    assert [batch.id async for batch in boris.batches.list()] == []
    assert [file.id async for file in boris.files.list()] == []
    for batch in (boris.batches.retrieve, boris.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            await batch(done.id)
    for id in (done.input_file_id, str(done.output_file_id)):
        for file in (boris.files.retrieve, boris.files.content, boris.files.delete):
            with pytest.raises(openai.NotFoundError):
                await file(id)
        with pytest.raises(openai.NotFoundError):
            await boris.batches.create(input_file_id=id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError):
        await boris.batches.list(after=done.id)
    assert {file.id async for file in anna.files.list()} == {done.input_file_id, done.output_file_id}
    # The API was asked for nothing but its lists.
    assert {call["path"] for call in await proxy.calls("/files")} == {"/v1/files"}


async def test_a_file_that_a_line_names_must_be_its_callers(start: Start, client: Client) -> None:
    """As in a chat."""
    proxy = await start(proxy_api_keys=KEYS)
    anna, boris = client(proxy, "key-of-anna"), client(proxy, "key-of-boris")
    file = await anna.files.create(file=("a.txt", b"secret"), purpose="user_data")
    part = {"type": "file", "file": {"file_id": file.id}}
    texts = [line("a", body={"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]})]
    done = await over(boris, await make(boris, *texts))
    (refused,) = texts_of(await boris.files.content(str(done.error_file_id))).values()
    assert refused["response"]["status_code"] == 404
    assert (await over(anna, await make(anna, *texts))).output_file_id


async def test_an_idempotency_key_makes_one_batch(start: Start, client: Client) -> None:
    """Of its caller; the same key with another wish is a conflict."""
    proxy = await start(proxy_api_keys=KEYS)
    anna, boris = client(proxy, "key-of-anna"), client(proxy, "key-of-boris")
    once = {"Idempotency-Key": "7f"}
    first = await make(anna, chat("a"), extra_headers=once)
    asked: Any = {"endpoint": CHAT, "completion_window": "24h", "extra_headers": once}
    again = await anna.batches.with_raw_response.create(input_file_id=first.input_file_id, **asked)
    assert again.parse().id == first.id and again.headers["Idempotency-Replayed"] == "true"
    with pytest.raises(openai.ConflictError):
        await anna.batches.create(input_file_id=first.input_file_id, **{**asked, "completion_window": "1h"})
    assert (await make(boris, chat("a"), extra_headers=once)).id != first.id
    assert len([batch async for batch in anna.batches.list()]) == 1
    await over(anna, first)
    assert len(await proxy.calls()) <= 2


# ---- Files ----


async def test_files_of_batches_are_listed_with_those_of_the_api(start: Start, client: Client) -> None:
    """Page by page, those of batches first; each can be looked at, read and deleted."""
    proxy = await start()
    sdk = client(proxy)
    theirs = [(await sdk.files.create(file=(f"{n}.txt", b"a"), purpose="user_data")).id for n in range(2)]
    ours = [(await upload(sdk, chat("a"))).id for _ in range(3)]
    for limit in (1, 2, 3, 4, 10_000):
        listed = [file async for file in sdk.files.list(limit=limit)]
        assert [file.id for file in listed[:3]] == ours[::-1]
        assert {file.id for file in listed[3:]} == {*theirs} and len(listed) == 5
    assert [file.id async for file in sdk.files.list(purpose="batch", limit=1)] == ours[::-1]
    assert [file.id async for file in sdk.files.list(purpose="batch", order="asc")] == ours
    assert [file.id async for file in sdk.files.list(purpose="batch_output")] == []
    found = await sdk.files.retrieve(ours[0])
    assert (found.id, found.purpose, found.bytes) == (ours[0], "batch", len(chat("a")))
    assert (await sdk.files.content(ours[0])).text == chat("a")
    assert (await sdk.files.delete(ours[0])).deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(ours[0])
    assert (await sdk.files.delete(theirs[0])).deleted


async def test_a_file_may_be_asked_to_be_kept_for_a_shorter_time(start: Start, client: Client) -> None:
    sdk = client(await start())
    create: Any = sdk.files.create
    file = await create(
        file=("in.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == pytest.approx(time.time() + 3600, abs=60)
    with pytest.raises(openai.BadRequestError) as refused:
        await create(file=("in.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1})
    assert refused.value.param == "expires_after"


def form_of(*fields: tuple[str, str | bytes]) -> aiohttp.FormData:
    """A form of these fields, in this order; bytes are a file."""
    form = aiohttp.FormData(quote_fields=False)
    for name, value in fields:
        form.add_field(name, value, filename="in.jsonl" if isinstance(value, bytes) else None)
    return form


async def sent(proxy: Proxy, form: aiohttp.FormData, **headers: str) -> tuple[int, dict[str, Any]]:
    async with proxy.http.post(f"{proxy.url}/v1/files", data=form, headers=headers) as response:
        return response.status, await response.json()


async def test_what_a_file_is_for_may_stand_behind_it(start: Start) -> None:
    """A file for a batch is kept, one for anything else goes on to the API, and nothing of it stays here."""
    proxy = await start()
    status, told = await sent(proxy, form_of(("file", b"{}"), ("purpose", "batch")))
    assert (status, told["purpose"]) == (200, "batch") and await proxy.calls("/files") == []
    status, told = await sent(proxy, form_of(("file", b"Hello" * 100_000), ("purpose", "user_data")))
    assert (status, told["purpose"], told["bytes"]) == (200, "user_data", 500_000)
    status, told = await sent(proxy, form_of(("file", b"Hello")))
    assert (status, told["purpose"]) == (200, "user_data")
    assert len(await proxy.calls("/files")) == 2
    store = proxy.service.work.store
    assert [file.purpose for file in (await store.files.list(caller=None)).entries] == ["batch"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("purpose", "batch")], "file"),
        ([("purpose", "batch"), ("file", "no file")], "file"),
        ([], "file"),
        ([("file", b"{}"), ("purpose", "batch"), ("expires_after[seconds]", "3600")], "expires_after"),
        (
            [
                ("file", b"{}"),
                ("purpose", "batch"),
                ("expires_after[seconds]", "3600"),
                ("expires_after[anchor]", "created_at"),
            ],
            "expires_after",
        ),
        ([("purpose", "batch"), ("expires_after[seconds]", "x"), ("file", b"{}")], "expires_after"),
        ([("purpose", "batch" * 20_000), ("file", b"{}")], "purpose"),
        ([*[(f"f{n}", "x") for n in range(200)], ("file", b"{}")], None),
    ],
)
async def test_a_wrong_form_is_refused_and_nothing_is_kept(start: Start, fields: Any, param: str | None) -> None:
    proxy = await start()
    form = form_of(*fields) if fields else form_of(("x", "y"))
    status, told = await sent(proxy, form)
    assert (status, told["error"]["param"]) == (400, param)
    assert (await proxy.service.work.store.files.list(caller=None)).entries == ()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nand no end',
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
        b'Content-Disposition: form-data; name="file"; filename="x"\r\n\r\nand no end',
        b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\n--c--\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\nContent-Transfer-Encoding: base64\r\n\r\n*\r\n--b--',
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\nContent-Type: text/plain; charset=no\r\n\r\n.\r\n'
        b"--b--",
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\nContent-Transfer-Encoding: no\r\n\r\nx\r\n--b--',
    ],
)
async def test_a_broken_form_is_refused_and_nothing_is_kept(start: Start, body: bytes) -> None:
    proxy = await start()
    told = {"Content-Type": "multipart/form-data; boundary=b"}
    async with proxy.http.post(f"{proxy.url}/v1/files", data=body, headers=told) as response:
        assert response.status == 400 and (await response.json())["error"]["message"]
    assert (await proxy.service.work.store.files.list(caller=None)).entries == ()


async def test_an_upload_that_breaks_off_leaves_nothing(start: Start) -> None:
    proxy = await start()
    began = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + b"x" * 1_000_000
        began.set()
        await asyncio.Event().wait()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    upload = asyncio.create_task(proxy.http.post(f"{proxy.url}/v1/files", data=half(), headers=headers).__aenter__())
    await began.wait()
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    store = proxy.service.work.store

    async def is_gone() -> bool:
        return (await store.jobs.state()).bytes < 900_000

    await eventually(is_gone)
    assert (await store.files.list(caller=None)).entries == ()


async def test_a_file_for_a_batch_may_be_larger_than_other_bodies(
    start: Start, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a limit of its own, and a refusal that tells it."""
    assert BATCH_MAX_BYTES == 200 * 1024 * 1024
    monkeypatch.setattr(kept_files.KeptFiles.__init__, "__kwdefaults__", {"most": 1_000_000})
    sdk = client(await start(max_body_bytes=100_000))
    create: Any = sdk.files.create
    assert (await create(file=("in.jsonl", b"x" * 1_000_000), purpose="batch")).bytes == 1_000_000
    with pytest.raises(openai.APIStatusError, match="1000000 bytes") as refused:
        await create(file=("in.jsonl", b"x" * 1_000_001), purpose="batch")
    assert refused.value.status_code == 413
    with pytest.raises(openai.APIStatusError, match="MAX_BODY_BYTES") as refused:
        await create(file=("a.txt", b"x" * 200_000), purpose="user_data")
    assert refused.value.status_code == 413
    assert len([file async for file in sdk.files.list()]) == 1


async def test_a_file_that_comes_in_slowly_is_kept(start: Start) -> None:
    """Byte by byte, and its own end looks like the form's."""
    proxy = await start()
    content = b"\r\n--b\r\n--bb--\r\n\r\n--"
    head = (
        b'--bo\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--bo\r\nContent-Disposition: form-data; name="file"; filename="../x\\"y.jsonl"\r\n\r\n'
    )

    async def slowly() -> AsyncIterator[bytes]:
        for byte in head + content + b"\r\n--bo--\r\n":
            yield bytes([byte])

    headers = {"Content-Type": "multipart/form-data; boundary=bo"}
    async with proxy.http.post(f"{proxy.url}/v1/files", data=slowly(), headers=headers) as response:
        told = await response.json()
    assert (response.status, told["bytes"]) == (200, len(content))
    async with proxy.http.get(f"{proxy.url}/v1/files/{told['id']}/content") as response:
        assert await response.read() == content
        assert response.headers["Content-Type"] == "application/octet-stream"


async def test_names_and_fields_may_be_anything_and_harm_nobody(start: Start) -> None:
    """Bytes that are no text, charsets of every kind, a path for a name."""
    proxy = await start()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for purpose in (b"batch", b"user_data"):
        body = (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\nContent-Type: text/plain; charset=unicode_escape'
            b'\r\n\r\n\\ud800\r\n--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + purpose + b"\r\n"
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../\xff\xed\xa0\x80.txt"'
            b"\r\n\r\n{}\r\n--b--"
        )
        async with proxy.http.post(f"{proxy.url}/v1/files", data=body, headers=headers) as response:
            told = await response.json()
            assert (response.status, told["purpose"]) == (200, purpose.decode())
    async with proxy.http.get(f"{proxy.url}/v1/files") as response:
        assert len((await response.json())["data"]) == 2


async def test_a_body_that_is_much_too_large_is_refused_before_it_is_read(start: Start) -> None:
    proxy = await start()
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: {2 * BATCH_MAX_BYTES}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n{}'
    )
    writer.write(head.encode() + b"x" * 1_000_000)
    assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


# ---- Other connectors ----


async def test_batches_run_here_also_where_the_api_speaks_openais_own(start: Start, client: Client) -> None:
    """That is what they are for. Its own files are as they were."""
    async with openai_upstream.running() as other:
        proxy = await start(connector="chatgpt_connector", url_gpt=other.base, api_key=SecretStr(openai_upstream.KEY))
        sdk = client(proxy)
        done = await over(sdk, await make(sdk, *(chat(str(n), model="gpt-6-luna") for n in range(3))))
        assert done.status == "completed"
        assert texts_of(await sdk.files.content(str(done.output_file_id))).keys() == set("012")
        assert len(other.to("/v1/chat/completions")) == 3 and not other.to("/v1/batches")
        assert not [call for call in other.calls if "/files" in call.path]

        made = {"id": "file-1", "object": "file", "purpose": "vision", "bytes": 2, "created_at": 1, "filename": "a"}
        told = {"object": "list", "data": [made], "has_more": False}
        other.script.extend(openai_upstream.says(json.dumps(each).encode()) for each in (made, told, told, made))
        assert (await sdk.files.create(file=("a.png", b"\x00\xff"), purpose="vision")).id == "file-1"
        assert [file.id async for file in sdk.files.list()][-1] == "file-1"
        assert [file.id async for file in sdk.files.list(purpose="vision")] == ["file-1"]
        assert (await sdk.files.retrieve("file-1")).purpose == "vision"
        form = other.calls[-4].body
        assert b'name="purpose"\r\n\r\nvision\r\n' in form and b"\x00\xff" in form and b'filename="a.png"' in form


async def test_gigachats_own_batches_are_as_they_were(start: Start) -> None:
    """They are the API's, byte for byte."""
    proxy = await start()
    async with proxy.http.get(f"{proxy.url}/api/v1/batches") as response:
        assert response.status != 501
    assert len(await proxy.calls("/batches")) == 1


async def test_a_batch_goes_on_when_the_service_comes_back(tmp_path: Path, client: Client) -> None:
    """Where it was: no line is asked twice that had been answered."""
    async with emulator.start(emulator.Options()) as giga, aiohttp.ClientSession() as http:
        settings = settings_for(
            giga, drain_timeout=5, ext_max_requests=1, jobs_url=SecretStr(str(tmp_path / "jobs.sqlite"))
        )
        async with app.serving(settings) as service:
            first = Proxy(service, giga, http)
            batch = await make(client(first), *(chat(str(n), f"line {n}") for n in range(30)))
            giga.state.faults.add({"kind": "slow", "seconds": 0.2, "times": 3})
            await until(lambda: service.line.state().limits.in_flight == 1)
        async with app.serving(settings) as service:
            done = await over(client(second := Proxy(service, giga, http)), batch)
        assert done.status == "completed" and done.request_counts is not None
        assert done.request_counts.completed == 30
        assert sorted(await second.sent_texts()) == sorted(f"line {n}" for n in range(30))
