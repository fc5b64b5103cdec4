"""OpenAI's own SDK through the service, over real sockets: what it asks, what it gets, what it raises."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai
import openai_upstream
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr
from running import Proxy, StartProxy, busy, until, waiting

from emulator import Options

SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
ASKED: list[Any] = [{"role": "user", "content": SUM}]
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Погода в городе",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}

Client = Callable[..., AsyncOpenAI]


class Sum(BaseModel):
    result: int


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """`client(proxy)`: the SDK at this proxy, without retries of its own, closed after the test."""
    async with AsyncExitStack() as stack:
        made: list[AsyncOpenAI] = []

        def make(proxy: Proxy, api_key: str = "any", path: str = "/v1", **more: Any) -> AsyncOpenAI:
            made.append(AsyncOpenAI(base_url=proxy.url + path, api_key=api_key, max_retries=0, **more))
            stack.push_async_callback(made[-1].close)
            return made[-1]

        yield make


async def text_of(stream: Any) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


# -- chat


@pytest.mark.parametrize("path", ["/v1", "", "/v1/v1", "/openai/v1", "/v1/"])
async def test_a_chat_is_answered_wherever_the_clients_base_address_leads(
    start_proxy: StartProxy, client: Client, path: str
) -> None:
    proxy = await start_proxy()
    answer = await client(proxy, path=path).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert answer.choices[0].message.content == TOTAL and answer.model == "gpt-4o"
    assert answer.usage is not None and answer.usage.total_tokens > 0
    (call,) = await proxy.calls()
    assert call["body"]["model"] == "GigaChat-2"


async def test_a_stream_comes_in_the_sdks_shape(start_proxy: StartProxy, client: Client) -> None:
    """Role first, one finish, the usage only when asked for, and nothing that a proxy in between may hold back."""
    proxy = await start_proxy()
    create = client(proxy).chat.completions.with_raw_response.create
    raw = await create(model="gpt-4o", messages=ASKED, stream=True, stream_options={"include_usage": True})
    assert raw.headers["Content-Type"] == "text/event-stream"
    assert (raw.headers["Cache-Control"], raw.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    chunks = [chunk async for chunk in raw.parse()]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TOTAL
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1] if chunk.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    plain = await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, stream=True)
    assert all(chunk.usage is None for chunk in [chunk async for chunk in plain])


async def test_russian_is_not_escaped_on_the_wire(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Привет"}], "stream": True}
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
        text = await response.text()
    assert "Привет" in text and "\\u04" not in text and text.endswith("data: [DONE]\n\n")


async def test_a_whole_tool_round_with_two_calls_at_once(start_proxy: StartProxy, client: Client) -> None:
    """Calls and results reach the API as pairs, each result as JSON under its own function's name."""
    proxy = await start_proxy()
    create = client(proxy).chat.completions.create
    first = await create(
        model="gpt-4o", messages=[{"role": "user", "content": "Какая погода в Москве?"}], tools=[WEATHER]
    )
    (call,) = first.choices[0].message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls" and first.choices[0].message.content is None
    assert call.type == "function" and json.loads(call.function.arguments)["city"]
    twice: list[Any] = [
        {"role": "user", "content": "Какая погода в Москве и в Туле?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call.model_dump(), {**call.model_dump(), "id": "call_2"}],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": "тепло"},
        {"role": "tool", "tool_call_id": call.id, "content": '{"t": 5}'},
    ]
    answer = await create(model="gpt-4o", messages=twice, tools=[WEATHER])
    assert answer.choices[0].message.content
    sent = (await proxy.calls())[-1]["body"]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "function", "assistant", "function"]
    assert [json.loads(message["content"]) for message in sent if message["role"] == "function"] == [
        {"t": 5},
        {"result": "тепло"},
    ]


@pytest.mark.parametrize("mode", ["function_call", "native"])
@pytest.mark.parametrize("is_stream", [False, True])
async def test_structured_output_is_parsed_by_the_sdk(
    start_proxy: StartProxy, client: Client, mode: str, is_stream: bool
) -> None:
    proxy = await start_proxy(gpt2giga_structured_output_mode=mode)
    completions = client(proxy).chat.completions
    if is_stream:
        async with completions.stream(model="gpt-4o", messages=ASKED, response_format=Sum) as stream:
            answer: Any = await stream.get_final_completion()
    else:
        answer = await completions.parse(model="gpt-4o", messages=ASKED, response_format=Sum)
    assert answer.choices[0].message.parsed == Sum(result=5)


async def test_several_choices_are_several_calls_of_one_line(start_proxy: StartProxy, client: Client) -> None:
    """The upstream's one slot is never overrun, streamed or not."""
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1)
    create = client(proxy).chat.completions.create
    answer = await create(model="gpt-4o", messages=ASKED, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None and answer.usage.completion_tokens == 15
    texts = {0: "", 1: "", 2: ""}
    async for chunk in await create(model="gpt-4o", messages=ASKED, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert set(texts.values()) == {TOTAL}
    assert [call["status"] for call in await proxy.calls()] == [200] * 6


async def test_one_failed_choice_fails_the_request_and_ends_the_others(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 422, "times": 1}, {"kind": "slow", "seconds": 60})
    with pytest.raises(openai.UnprocessableEntityError):
        await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, n=2)
    await until(lambda: proxy.service.line.is_idle)


async def test_who_reads_a_stream_hears_of_choices_that_still_wait(start_proxy: StartProxy) -> None:
    """In comments, which clients skip: a proxy between, or a client, gives a silent stream up."""
    proxy = await start_proxy(ext_max_requests=1, heartbeat_interval=0.05)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0}, {"kind": "slow", "seconds": 0.5})
    body = {"model": "gpt-4o", "messages": ASKED, "n": 2, "stream": True}
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
        text = await response.text()
    first, _, rest = text.partition(": more choices to come\n\n")
    assert '"finish_reason":"stop"' in first and '"index":1' not in first and '"index":1' in rest
    assert text.endswith("data: [DONE]\n\n")


async def test_a_stream_is_read_to_its_end(start_proxy: StartProxy, client: Client) -> None:
    """Only then is its call over: it succeeded, and whoever listens to the line hears so."""
    proxy = await start_proxy()
    assert await text_of(await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, stream=True))
    await until(lambda: proxy.service.line.is_idle)
    assert proxy.service.line.state().mean_latency is not None


async def test_a_stop_sequence_ends_the_upstreams_stream(start_proxy: StartProxy, client: Client) -> None:
    """What comes after it is neither told nor waited for."""
    proxy = await start_proxy()
    create = client(proxy).chat.completions.create
    plain = await create(model="gpt-4o", messages=ASKED, stop=" = ")
    assert plain.choices[0].message.content == "2 + 3" and plain.choices[0].finish_reason == "stop"
    assert await text_of(await create(model="gpt-4o", messages=ASKED, stop=" = ", stream=True)) == "2 + 3"
    await until(lambda: proxy.service.line.is_idle)


async def test_gigachats_own_fields_pass_and_unknown_ones_do_not(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy()
    extras = {"profanity_check": False, "repetition_penalty": 1.1, "update_interval": 0.5}
    await client(proxy).chat.completions.create(
        model="GigaChat-2-Max", messages=ASKED, seed=7, logit_bias={"1": 1}, temperature=0, extra_body=extras
    )
    (call,) = await proxy.calls()
    assert extras.items() <= call["body"].items() and call["body"]["model"] == "GigaChat-2-Max"
    assert not {"seed", "logit_bias"} & call["body"].keys()


async def test_users_of_one_caller_take_turns(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 0.3)
    create = client(proxy).chat.completions.create

    async def say(user: str, text: str) -> None:
        await create(model="gpt-4o", messages=[{"role": "user", "content": text}], user=user)

    waits = []
    for number, (user, text) in enumerate([("a", "a1"), ("a", "a2"), ("b", "b1")], 1):
        waits.append(asyncio.create_task(say(user, text)))
        await until(lambda number=number: waiting(proxy) == number)  # type: ignore[misc]
    await asyncio.gather(first, *waits)
    assert (await proxy.sent_texts())[1:] == ["a1", "b1", "a2"]


# -- images and files


def shown(address: str) -> list[Any]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}, *TEXT]}]


TEXT: list[Any] = [{"type": "text", "text": "Что на картинке?"}]


async def test_a_picture_is_uploaded_once_and_attached(start_proxy: StartProxy, client: Client) -> None:
    """With one slot the upload goes first, then the chat; the second chat needs no upload."""
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1)
    create = client(proxy).chat.completions.create
    for is_stream in (False, True):
        answer = await create(model="gpt-4o", messages=shown(PNG), stream=is_stream)
        told = await text_of(answer) if is_stream else answer.choices[0].message.content
        assert "Файлов: 1" in told
    assert len(await proxy.calls("/files")) == 1
    first, second = [call["body"]["messages"][0]["attachments"] for call in await proxy.calls()]
    assert first == second and len(first) == 1


async def test_a_picture_that_the_api_refuses_fails_the_request(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 413, "path": "/files"})
    with pytest.raises(openai.APIStatusError) as failed:
        await client(proxy).chat.completions.create(model="gpt-4o", messages=shown(PNG))
    assert failed.value.status_code == 413 and await proxy.calls() == []


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("http://127.0.0.1:1/secret.png", 400),
        ("data:image/webp;base64,AAAA", 415),
        ("data:image/png;base64,%%%", 400),
        ("ftp://example.org/a.png", 400),
    ],
)
async def test_a_wrong_picture_is_named(start_proxy: StartProxy, client: Client, address: str, status: int) -> None:
    proxy = await start_proxy()
    with pytest.raises(openai.APIStatusError) as failed:
        await client(proxy).chat.completions.create(model="gpt-4o", messages=shown(address))
    assert failed.value.status_code == status
    assert failed.value.body["param"] == "messages[0].content[0].image_url.url"  # type: ignore[index]
    assert await proxy.calls() == []


async def test_pictures_can_be_switched_off(start_proxy: StartProxy, client: Client) -> None:
    off = await start_proxy(gpt2giga_enable_images=False)
    with pytest.raises(openai.BadRequestError, match="GPT2GIGA_ENABLE_IMAGES"):
        await client(off).chat.completions.create(model="gpt-4o", messages=shown(PNG))


async def test_pictures_can_be_deleted_when_the_request_is_over(start_proxy: StartProxy, client: Client) -> None:
    deleting = await start_proxy(delete_attachments=True)
    await client(deleting).chat.completions.create(model="gpt-4o", messages=shown(PNG))
    (upload,) = await deleting.calls("/files")
    await until(lambda: any(call.path.endswith("/delete") for call in deleting.giga.state.calls.to("")))
    assert upload["status"] == 200


async def test_files_are_gigachats_files(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy()
    files = client(proxy).files
    made = await files.create(file=("справка.txt", "Привет".encode()), purpose="assistants")
    assert (made.filename, made.bytes, made.purpose, made.status) == ("справка.txt", 12, "assistants", "processed")
    assert [file.id async for file in files.list()] == [made.id]
    assert (await files.retrieve(made.id)).id == made.id
    assert (await files.content(made.id)).read() == "Привет".encode()
    part: Any = {"type": "file", "file": {"file_id": made.id}}
    asked: Any = [{"role": "user", "content": [part, {"type": "text", "text": "О чём это?"}]}]
    answer = await client(proxy).chat.completions.create(model="gpt-4o", messages=asked)
    assert "Файлов: 1" in (answer.choices[0].message.content or "")
    assert (await files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await files.retrieve(made.id)


async def test_files_belong_to_the_key_that_brought_them(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(proxy_api_keys=KEYS)
    anna, boris = client(proxy, "key-of-anna"), client(proxy, "key-of-boris")
    made = await anna.files.create(file=("a.txt", b"secret"), purpose="user_data")
    assert [file async for file in boris.files.list()] == []
    for attempt in (boris.files.retrieve, boris.files.content, boris.files.delete):
        with pytest.raises(openai.NotFoundError):
            await attempt(made.id)
    part: Any = {"type": "file", "file": {"file_id": made.id}}
    with pytest.raises(openai.NotFoundError):
        await boris.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": [part, *TEXT]}])
    assert (await anna.files.content(made.id)).read() == b"secret"


BOUNDARY = "multipart/form-data; boundary=abc"
FILE = b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
PURPOSE = b'--abc\r\nContent-Disposition: form-data; name="purpose"\r\n'


@pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")  # of the library's: what it had of a broken form
@pytest.mark.parametrize(
    ("type", "form"),
    [
        ("multipart/form-data", b"x"),
        (f"multipart/form-data; boundary={'a' * 200}", b"x"),
        (BOUNDARY, b""),
        (BOUNDARY, b"no form"),
        (BOUNDARY, b"--abc\r\n\r\nwithout a name\r\n--abc--\r\n"),
        (BOUNDARY, FILE + b"\r\nit breaks o"),
        (BOUNDARY, FILE + b"Content-Transfer-Encoding: none-such\r\n\r\nx\r\n--abc--\r\n"),
        (BOUNDARY, PURPOSE + b"Content-Type: text/plain; charset=none-such\r\n\r\nx\r\n--abc--\r\n"),
        (BOUNDARY, PURPOSE + b"\r\n\xff\xfe\r\n--abc--\r\n"),
        ("application/json", b"{}"),
    ],
)
async def test_a_wrong_form_is_the_callers_fault(start_proxy: StartProxy, type: str, form: bytes) -> None:
    proxy = await start_proxy()
    async with proxy.http.post(f"{proxy.url}/v1/files", data=form, headers={"Content-Type": type}) as response:
        assert response.status == 400 and "form" in (await response.json())["error"]["message"]
    assert await proxy.calls("/files") == []


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("form", ["link", "data"])
async def test_a_generated_image_is_a_link_or_data(
    start_proxy: StartProxy, client: Client, form: str, is_stream: bool
) -> None:
    """One slot is enough: the image is fetched when the answer has given it back."""
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1, generated_images=form)
    asked: Any = [{"role": "user", "content": "Нарисуй кота"}]
    create = client(proxy).chat.completions.create
    answer = await create(model="gpt-4o", messages=asked, stream=is_stream, extra_body={"function_call": "auto"})
    text = await text_of(answer) if is_stream else answer.choices[0].message.content
    address = text.partition("](")[2].partition(")")[0]
    if form == "link":
        assert address.startswith("/v1/files/") and address.endswith("/content")
        async with proxy.http.get(proxy.url + address) as response:
            assert response.status == 200 and (await response.read())[:3] == b"\xff\xd8\xff"
    else:
        assert base64.b64decode(address.partition("base64,")[2])[:3] == b"\xff\xd8\xff"


async def test_a_picture_of_another_caller_is_not_put_into_an_answer(start_proxy: StartProxy, client: Client) -> None:
    """Whoever makes the model say its mark gets the mark, not the picture."""
    proxy = await start_proxy(proxy_api_keys=KEYS, generated_images="data")
    files = client(proxy, "key-of-anna").files
    made = await files.create(file=("a.txt", b"secret"), purpose="user_data")
    while made.id[:13].replace("-", "").isdigit():  # the emulator would subtract
        made = await files.create(file=("a.txt", b"secret"), purpose="user_data")
    mark = f'<img src="{made.id}" fuse="true"/>'
    asked: Any = [{"role": "user", "content": mark}]
    for is_stream in (False, True):
        answer = await client(proxy, "key-of-boris").chat.completions.create(
            model="gpt-4o", messages=asked, stream=is_stream
        )
        text = await text_of(answer) if is_stream else answer.choices[0].message.content
        assert mark in text and "base64" not in text
    own = await client(proxy, "key-of-anna").chat.completions.create(model="gpt-4o", messages=asked)
    assert "base64" in (own.choices[0].message.content or "")


# -- embeddings and models


async def test_unknown_fields_of_embeddings_are_named_in_the_log(
    start_proxy: StartProxy, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "proxy.openai")
    await client(await start_proxy()).embeddings.create(model="m", input="a", extra_body={"truncate": True})
    assert "truncate mean nothing here" in caplog.text


async def test_embeddings_of_a_long_list_come_in_order(start_proxy: StartProxy, client: Client) -> None:
    """They are sent in pieces that fit the API, under its own model's name."""
    proxy = await start_proxy()
    embeddings = client(proxy).embeddings
    texts = [f"текст {number}" for number in range(200)]
    answer = await embeddings.create(model="text-embedding-3-small", input=texts)
    assert [one.index for one in answer.data] == list(range(200)) and answer.model == "text-embedding-3-small"
    alone = await embeddings.create(model="text-embedding-3-small", input=texts[150], encoding_format="float")
    assert answer.data[150].embedding == pytest.approx(alone.data[0].embedding, abs=1e-6)
    calls = await proxy.calls("/embeddings")
    assert len(calls) == 4 and {call["body"]["model"] for call in calls} == {"EmbeddingsGigaR"}
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        await embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3]])


async def test_models_are_gigachats_and_are_asked_for_once_a_minute(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy()
    models = client(proxy).models
    names = [model.id async for model in models.list()]
    assert "GigaChat-2-Max" in names
    assert (await models.retrieve("GigaChat-2-Max")).owned_by == "salutedevices"
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        await models.retrieve("gpt-5")
    assert len(await proxy.calls("/models")) == 1


@pytest.mark.parametrize("id", ["GigaChat-2", "GigaChat-2/"])
async def test_a_model_is_found_with_a_slash_behind_it_too(start_proxy: StartProxy, id: str) -> None:
    proxy = await start_proxy()
    for path in ("/v1/models/", "/models/", "/openai/v1/models/"):
        async with proxy.http.get(proxy.url + path + id) as response:
            assert (response.status, (await response.json())["id"]) == (200, "GigaChat-2")


@pytest.mark.parametrize("id", ["none-such", "chatgpt/none-such", "GigaChat-2/content"])
async def test_a_model_that_is_not_there_is_named_so(start_proxy: StartProxy, client: Client, id: str) -> None:
    with pytest.raises(openai.NotFoundError, match=id) as missing:
        await client(await start_proxy()).models.retrieve(id)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


async def test_model_info_is_litellms(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/model/info") as response:
        listed = await response.json()
    assert {"model_name", "litellm_params", "model_info"} == listed["data"][0].keys()
    async with proxy.http.get(f"{proxy.url}/v1/model/info", params={"model": "GigaChat-2"}) as response:
        assert (await response.json())["model_name"] == "GigaChat-2"


# -- errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
        (500, openai.InternalServerError),
        (502, openai.InternalServerError),
    ],
)
async def test_the_apis_refusals_are_the_sdks_exceptions(
    start_proxy: StartProxy, client: Client, status: int, kind: type[openai.APIStatusError]
) -> None:
    """Streamed or not; nothing of the upstream's address is in them."""
    proxy = await start_proxy(ext_retries=0)
    for is_stream in (False, True):
        proxy.giga.state.faults.add({"kind": "status", "status": status, "times": 1})
        with pytest.raises(kind) as failed:
            await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, stream=is_stream)
        body: Any = failed.value.body
        assert body.keys() == {"message", "type", "param", "code"}
        assert proxy.giga.url.removeprefix("http://") not in json.dumps(body) + str(failed.value.response.headers)


async def test_an_upstreams_429_is_waited_out(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 429, "times": 2})
    answer = await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert answer.choices[0].message.content == TOTAL


async def test_an_expired_deadline_is_not_paid_for_again_by_the_sdk(start_proxy: StartProxy, client: Client) -> None:
    """By default it tries twice more after a 504."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "times": -1})
    create = client(proxy).with_options(max_retries=2).chat.completions.create
    with pytest.raises(openai.InternalServerError) as expired:
        await create(model="gpt-4o", messages=ASKED, extra_headers={"X-Request-Timeout": "0.2"})
    assert expired.value.code == "deadline_expired" and len(await proxy.calls()) == 1


async def test_our_own_429_says_when_to_come_back(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(ext_max_requests=1, ext_queue_size=1)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    with pytest.raises(openai.RateLimitError) as refused:
        await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED)
    assert int(refused.value.response.headers["Retry-After"]) >= 1 and refused.value.code == "rate_limit_exceeded"
    await asyncio.gather(first, second)


async def test_what_is_wrong_with_a_request_is_named_as_the_caller_wrote_it(
    start_proxy: StartProxy, client: Client
) -> None:
    proxy = await start_proxy()
    for wrong, param in (({"temperature": 5}, "temperature"), ({"top_p": 2}, "top_p"), ({"n": 0}, "n")):
        with pytest.raises(openai.BadRequestError) as refused:
            await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, **wrong)  # type: ignore[call-overload]
        assert refused.value.param == param
    for path, status in (("/v1/nothing", 404), ("/v1/chat/completions", 405)):
        async with proxy.http.get(proxy.url + path) as response:
            assert response.status == status and "message" in (await response.json())["error"]
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", data=b"{") as response:
        assert response.status == 400 and "JSON" in (await response.json())["error"]["message"]


async def test_a_stream_that_breaks_tells_the_sdk(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 1})
    with pytest.raises(openai.APIError):
        await text_of(await client(proxy).chat.completions.create(model="gpt-4o", messages=ASKED, stream=True))


# -- keys and credentials


async def test_keys_and_passed_credentials_are_the_sdks_api_key(start_proxy: StartProxy, client: Client) -> None:
    proxy = await start_proxy(proxy_api_keys=KEYS, gpt2giga_pass_token=True)
    ask = {"model": "gpt-4o", "messages": ASKED}
    assert (await client(proxy, "key-of-anna").chat.completions.create(**ask)).choices
    beside = {"default_headers": {"X-API-Key": "key-of-boris"}}
    assert (await client(proxy, "giga-cred-bXkta2V5", **beside).chat.completions.create(**ask)).choices
    assert len({call["account"] for call in await proxy.calls()}) == 2
    for wrong in ("unknown", "giga-cred-bXkta2V5", "giga-user-half"):
        with pytest.raises(openai.AuthenticationError) as refused:
            await client(proxy, wrong).chat.completions.create(**ask)
        assert refused.value.code == "invalid_api_key" and wrong not in refused.value.message


# -- other upstreams


async def test_models_of_the_api_beside_have_its_name_before_theirs(start_proxy: StartProxy, client: Client) -> None:
    """chatgpt/<model> goes there, streamed or not, embeddings too; it is listed so."""
    async with openai_upstream.running() as other:
        proxy = await start_proxy(url_gpt=other.base, api_key=SecretStr(openai_upstream.KEY))
        sdk = client(proxy)
        name = f"chatgpt/{openai_upstream.MODELS[0]}"
        assert (await sdk.chat.completions.create(model=name, messages=ASKED)).choices[0].message.content
        assert await text_of(await sdk.chat.completions.create(model=name, messages=ASKED, stream=True))
        assert (await sdk.embeddings.create(model=f"chatgpt/{openai_upstream.MODELS[2]}", input="a")).data
        assert [call.json["model"] for call in other.calls if call.body] == [
            openai_upstream.MODELS[0],
            openai_upstream.MODELS[0],
            openai_upstream.MODELS[2],
        ]
        names = [model.id async for model in sdk.models.list()]
        assert {name, "GigaChat-2"} <= set(names) and await proxy.calls() == []


async def test_models_are_listed_while_the_api_beside_is_away(start_proxy: StartProxy, client: Client) -> None:
    """Without those of the one that is; who asks for one of them hears why there is none."""
    async with openai_upstream.running() as other:
        other.script.extend([openai_upstream.says(b"{}", 503)] * 9)
        proxy = await start_proxy(url_gpt=other.base, api_key=SecretStr(openai_upstream.KEY), ext_retries=0)
        models = client(proxy).models
        names = [model.id async for model in models.list()]
        assert "GigaChat-2" in names and not any(name.startswith("chatgpt/") for name in names)
        assert (await models.retrieve("GigaChat-2")).id == "GigaChat-2"
        with pytest.raises(openai.InternalServerError):
            await models.retrieve(f"chatgpt/{openai_upstream.MODELS[0]}")


async def test_an_api_that_speaks_openais_own_is_not_translated(start_proxy: StartProxy, client: Client) -> None:
    async with openai_upstream.running() as other:
        proxy = await start_proxy(
            connector="chatgpt_connector", url_gpt=other.base, api_key=SecretStr(openai_upstream.KEY)
        )
        asked = {"model": openai_upstream.MODELS[0], "messages": ASKED, "seed": 7, "logit_bias": {"1": 1}}
        answer = await client(proxy).chat.completions.create(**asked)
        assert answer.model == openai_upstream.MODELS[0]
        (call,) = other.to("/v1/chat/completions")
        assert asked.items() <= call.json.items()
        assert [model.id async for model in client(proxy).models.list()] == list(openai_upstream.MODELS)


async def test_files_of_an_api_that_speaks_openais_own_are_not_translated(
    start_proxy: StartProxy, client: Client
) -> None:
    """The purpose reaches it, its own fields come back, and a deletion is a DELETE."""
    made = {"id": "file-1", "object": "file", "purpose": "batch", "bytes": 2, "created_at": 1, "filename": "a.jsonl"}
    gone = {"id": "file-1", "object": "file", "deleted": True}
    answers = [made, {"object": "list", "data": [made], "has_more": False}, made, {"its": "content"}, gone]
    async with openai_upstream.running() as other:
        other.script.extend(openai_upstream.says(json.dumps(answer).encode()) for answer in answers)
        proxy = await start_proxy(
            connector="chatgpt_connector", url_gpt=other.base, api_key=SecretStr(openai_upstream.KEY)
        )
        files = client(proxy).files
        assert (await files.create(file=("a.jsonl", b"{}"), purpose="batch")).purpose == "batch"
        assert [file.id async for file in files.list(purpose="batch")] == ["file-1"]
        assert (await files.retrieve("file-1")).filename == "a.jsonl"
        assert (await files.content("file-1")).json() == {"its": "content"}
        assert (await files.delete("file-1")).deleted
        assert b"batch" in other.calls[0].body and b"general" not in other.calls[0].body
        assert [(call.method, call.path) for call in other.calls] == [
            ("POST", "/v1/files"),
            ("GET", "/v1/files?purpose=batch"),
            ("GET", "/v1/files/file-1"),
            ("GET", "/v1/files/file-1/content"),
            ("DELETE", "/v1/files/file-1"),
        ]


THREE_FUNCTIONS = """
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def validate_data(data):
    return True


def request_api(data):
    message = {"role": "assistant", "content": "Hello", "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def get_info():
    return {}
"""


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_connector_that_does_not_stream_is_read_as_a_stream_by_the_sdk(
    start_proxy: StartProxy, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wants_usage: bool
) -> None:
    """Its whole answer comes in chunks, the usage only when asked for."""
    (tmp_path / "three_functions.py").write_text(THREE_FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    proxy = await start_proxy(connector="three_functions")
    options: Any = {"stream_options": {"include_usage": True}} if wants_usage else {}
    create = client(proxy).chat.completions.create
    told: list[Any] = [each async for each in await create(model="m", messages=ASKED, stream=True, **options)]
    first, last = (each.choices[0] for each in told[:2])
    assert (first.delta.role, first.delta.content, first.finish_reason) == ("assistant", "Hello", None)
    assert (first.delta.tool_calls[0].index, first.delta.tool_calls[0].id) == (0, "call_1")
    assert last.finish_reason == "tool_calls" and {each.object for each in told} == {"chat.completion.chunk"}
    assert [each.usage.total_tokens for each in told[2:]] == [3] * wants_usage
    assert all(each.usage is None for each in told[:2])


async def test_whoever_leaves_takes_all_of_its_calls_along(start_proxy: StartProxy, client: Client) -> None:
    """Those that wait and those in flight."""
    proxy = await start_proxy(ext_max_requests=1)
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 60})
    create = client(proxy).chat.completions.create
    asking: asyncio.Task[Awaitable[Any]] = asyncio.create_task(create(model="gpt-4o", messages=ASKED, n=3))
    await until(lambda: waiting(proxy) == 2 and len(proxy.giga.state.calls.to("/chat/completions")) == 1)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: proxy.service.line.is_idle)
    assert len(await proxy.calls()) == 1
