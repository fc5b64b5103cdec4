"""Every public method of GigaChat's SDK, one by one, sync and async; the table is in the output of the tests.

Three ways: the SDK at the emulator, the SDK at the proxy before it, and the drop-in class at the proxy. Then what else
its users build on: its exceptions, the ids of its answers, its environment.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import gigachat
import pytest
from gigachat import context
from gigachat.exceptions import (
    AuthenticationError,
    BadRequestError,
    ForbiddenError,
    NotFoundError,
    RateLimitError,
    RequestEntityTooLargeError,
    ResponseError,
    ServerError,
    UnprocessableEntityError,
)
from pydantic import BaseModel
from running import Proxy, StartProxy, busy, until, waiting

import emulator
from api_client_example import GigaChat
from emulator.calls import fingerprint

MODEL = "GigaChat-2"
SUM, TOTAL = "Сколько будет 2 + 3?", "2 + 3 = 5"
OPENAPI = '{"paths": {"/pets": {"get": {"operationId": "list_pets"}}}}'
PICTURE = {"messages": [{"role": "user", "content": "Нарисуй кота"}], "function_call": "auto"}


class Sum(BaseModel):
    """What `parse` is asked for."""

    result: int


@dataclass
class Side:
    """One side of a client: `await side("threads.run", ...)` is sync, in a thread, or async."""

    client: gigachat.GigaChat
    is_async: bool

    def method(self, path: str) -> Callable[..., Any]:
        first, *rest = path.split(".")
        prefix = ("a_" if first in ("assistants", "threads") else "a") if self.is_async else ""
        found = getattr(self.client, prefix + first)
        for name in rest:
            found = getattr(found, name)
        return found  # type: ignore[no-any-return]

    async def __call__(self, path: str, *arguments: Any, **named: Any) -> Any:
        if self.is_async:
            return await self.method(path)(*arguments, **named)
        return await asyncio.to_thread(self.method(path), *arguments, **named)

    async def chunks(self, path: str, *arguments: Any, **named: Any) -> list[Any]:
        if self.is_async:
            return [chunk async for chunk in self.method(path)(*arguments, **named)]
        return await asyncio.to_thread(lambda: list(self.method(path)(*arguments, **named)))

    async def file(self) -> str:
        return str((await self("upload_file", ("note.txt", b"text", "text/plain"))).id_)

    async def assistant(self) -> str:
        return str((await self("assistants.create", MODEL, "Кот", file_ids=["f"])).assistant_id)

    async def thread(self, *messages: str) -> str:
        id = str(await self("threads.create_thread"))
        if messages:
            await self("threads.add_messages", id, list(messages))
        return id


def spoken(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


Story = Callable[[Side], Awaitable[bool]]
STORIES: dict[str, Story] = {}


def method(path: str) -> Callable[[Story], Story]:
    """The story of this method: whether it did what it is for."""

    def tell(story: Story) -> Story:
        STORIES[path] = story
        return story

    return tell


# -- the stories


@method("get_token")
async def _(side: Side) -> bool:
    token = await side("get_token")
    return bool(token.access_token) and token.expires_at > 10**12


@method("chat")
async def _(side: Side) -> bool:
    answer = await side("chat", SUM)
    return answer.choices[0].message.content == TOTAL and bool(answer.x_headers["x-request-id"])


@method("stream")
async def _(side: Side) -> bool:
    chunks = await side.chunks("stream", SUM)
    return spoken(chunks) == TOTAL and chunks[-1].usage.total_tokens > 0


@method("chat_parse")
async def _(side: Side) -> bool:
    return (await side("chat_parse", "6*7?", response_format=Sum))[1] == Sum(result=42)


@method("chat.create")
async def _(side: Side) -> bool:
    return (await side("chat.create", SUM)).messages[0].content[0].text == TOTAL


@method("chat.stream")
async def _(side: Side) -> bool:
    *deltas, done = await side.chunks("chat.stream", SUM)
    return "".join(chunk.messages[0].content[0].text for chunk in deltas) == TOTAL and done.finish_reason == "stop"


@method("chat.parse")
async def _(side: Side) -> bool:
    return (await side("chat.parse", "6*7?", response_format=Sum))[1] == Sum(result=42)


@method("embeddings")
async def _(side: Side) -> bool:
    return [len(each.embedding) for each in (await side("embeddings", ["раз", "два"])).data] == [1024, 1024]


@method("tokens_count")
async def _(side: Side) -> bool:
    return [count.characters for count in await side("tokens_count", ["раз", "четыре"])] == [3, 6]


@method("get_models")
async def _(side: Side) -> bool:
    return MODEL in [model.id_ for model in (await side("get_models")).data]


@method("get_model")
async def _(side: Side) -> bool:
    return (await side("get_model", MODEL)).id_ == MODEL


@method("upload_file")
async def _(side: Side) -> bool:
    file = await side("upload_file", ("заметка.txt", "текст".encode(), "text/plain"))
    return (file.filename, file.bytes_) == ("заметка.txt", 10)


@method("get_file")
async def _(side: Side) -> bool:
    id = await side.file()
    return (await side("get_file", id)).id_ == id


@method("get_files")
async def _(side: Side) -> bool:
    return await side.file() in [file.id_ for file in (await side("get_files")).data]


@method("delete_file")
async def _(side: Side) -> bool:
    return bool((await side("delete_file", await side.file())).deleted)


@method("get_image")
async def _(side: Side) -> bool:
    text = (await side("chat", PICTURE)).choices[0].message.content
    return (await side("get_image", text.split('"')[1])).content.startswith("/9j/")


@method("get_balance")
async def _(side: Side) -> bool:
    return (await side("get_balance")).balance[0].usage == "GigaChat"


@method("openapi_function_convert")
async def _(side: Side) -> bool:
    return (await side("openapi_function_convert", OPENAPI)).functions[0].name == "list_pets"


@method("check_ai")
async def _(side: Side) -> bool:
    return bool((await side("check_ai", "слово " * 20, "GigaCheckClassification")).category)


@method("assistants.create")
async def _(side: Side) -> bool:
    return bool(await side.assistant())


@method("assistants.get")
async def _(side: Side) -> bool:
    return (await side("assistants.get", await side.assistant())).data[0].name == "Кот"


@method("assistants.update")
async def _(side: Side) -> bool:
    return (await side("assistants.update", await side.assistant(), name="Пёс")).name == "Пёс"


@method("assistants.delete_file")
async def _(side: Side) -> bool:
    return bool((await side("assistants.delete_file", await side.assistant(), "f")).deleted)


@method("assistants.delete")
async def _(side: Side) -> bool:
    return bool((await side("assistants.delete", await side.assistant())).deleted)


@method("threads.create_thread")
async def _(side: Side) -> bool:
    return bool(await side.thread())


@method("threads.get_threads")
async def _(side: Side) -> bool:
    return await side.thread() in [thread.id_ for thread in (await side("threads.get_threads")).threads]


@method("threads.list")
async def _(side: Side) -> bool:
    return await side.thread() in [thread.id_ for thread in (await side("threads.list")).threads]


@method("threads.retrieve")
async def _(side: Side) -> bool:
    id = await side.thread()
    return [thread.id_ for thread in (await side("threads.retrieve", [id])).threads] == [id]


@method("threads.delete")
async def _(side: Side) -> bool:
    return bool(await side("threads.delete", await side.thread()))


@method("threads.add_message")
async def _(side: Side) -> bool:
    return len((await side("threads.add_message", await side.thread(), "Привет")).messages) == 1


@method("threads.add_messages")
async def _(side: Side) -> bool:
    return len((await side("threads.add_messages", await side.thread(), ["раз", "два"])).messages) == 2


@method("threads.get_messages")
async def _(side: Side) -> bool:
    return len((await side("threads.get_messages", await side.thread("раз", "два"))).messages) == 2


@method("threads.run")
async def _(side: Side) -> bool:
    return bool((await side("threads.run", await side.thread(SUM))).status)


@method("threads.get_run")
async def _(side: Side) -> bool:
    id = await side.thread(SUM)
    await side("threads.run", id)
    return (await side("threads.get_run", id)).messages[0].content == TOTAL


@method("threads.run_stream")
async def _(side: Side) -> bool:
    return spoken(await side.chunks("threads.run_stream", await side.thread(SUM))) == TOTAL


@method("threads.run_messages")
async def _(side: Side) -> bool:
    return (await side("threads.run_messages", [SUM], model=MODEL)).message.content == TOTAL


@method("threads.rerun_messages")
async def _(side: Side) -> bool:
    id = (await side("threads.run_messages", [SUM], model=MODEL)).thread_id
    return (await side("threads.rerun_messages", id)).message.content == TOTAL


@method("threads.run_messages_stream")
async def _(side: Side) -> bool:
    return spoken(await side.chunks("threads.run_messages_stream", [SUM], model=MODEL)) == TOTAL


@method("threads.rerun_messages_stream")
async def _(side: Side) -> bool:
    id = (await side("threads.run_messages", [SUM], model=MODEL)).thread_id
    return spoken(await side.chunks("threads.rerun_messages_stream", id)) == TOTAL


# -- told one by one


def public_methods(client: gigachat.GigaChat) -> set[str]:
    """What the SDK offers, by its sync names; what belongs to its life (close, token) aside."""
    found = set()
    for name, what in inspect.getmembers(gigachat.GigaChat, lambda what: not isinstance(what, property)):
        if name.startswith("_") or name in ("close", "aclose"):
            continue
        if isinstance(what, cached_property):
            namespace = getattr(client, name)
            found |= {f"{name}.{inner}" for inner in dir(namespace) if not inner.startswith("_")}
            found |= {name} if callable(namespace) else set()
        else:
            found.add(name)
    return found


def in_async(path: str) -> str:
    return ("a_" if path.startswith(("assistants.", "threads.")) else "a") + path


def test_every_public_method_has_its_story() -> None:
    """And its async twin is there: the SDK has no method that is not in the table."""
    with gigachat.GigaChat() as client:
        assert public_methods(client) == {*STORIES, *map(in_async, STORIES)}


@asynccontextmanager
async def at_the_emulator() -> AsyncIterator[gigachat.GigaChat]:
    async with emulator.start() as giga:
        urls = {"base_url": f"{giga.url}/v1", "auth_url": f"{giga.url}/api/v2/oauth"}
        async with gigachat.GigaChat(**urls, credentials="a-key", model=MODEL) as client:
            yield client


async def told(story: Story, side: Side) -> str:
    """What stands in the table."""
    try:
        return "ok" if await story(side) else "WRONG"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def test_every_public_method_works_everywhere(
    start_proxy: StartProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the emulator alone, and at the proxy with the SDK and with the drop-in class."""
    proxy = await start_proxy(proxy_api_keys="anna:the-key-of-anna")
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": f"{proxy.url}/api/v2/oauth"}
    async with (
        at_the_emulator() as emulated,
        gigachat.GigaChat(**urls, credentials="the-key-of-anna", model=MODEL) as proxied,
        GigaChat(base_url=proxy.url, api_key="the-key-of-anna") as drop_in,
    ):
        sides = [Side(client, is_async) for client in (emulated, proxied, drop_in) for is_async in (False, True)]
        table = {path: [await told(story, side) for side in sides] for path, story in STORIES.items()}
    with capsys.disabled():
        print(printed(table))
    assert {path: row for path, row in table.items() if set(row) != {"ok"}} == {}


def printed(table: dict[str, list[str]]) -> str:
    head = ("method", "emulator", "", "proxy + emulator", "", "drop-in + proxy", "")
    under = ("", *("sync", "async") * 3)
    rows = [head, under, *((path, *(cell[:16] for cell in row)) for path, row in table.items())]
    lines = ["".join(cell.ljust(32 if place == 0 else 18) for place, cell in enumerate(row)).rstrip() for row in rows]
    return "\n".join(["", f"GigaChat's SDK {version('gigachat')}, {len(table)} methods", *lines])


# -- what it raises

#: The API's refusals by the SDK's names; 402 has none of its own.
RAISED = {
    400: BadRequestError,
    402: ResponseError,
    403: ForbiddenError,
    404: NotFoundError,
    413: RequestEntityTooLargeError,
    422: UnprocessableEntityError,
    500: ServerError,
}
PLAIN = ("chat", "chat.create", "embeddings")
STREAMS = ("stream", "chat.stream")


@asynccontextmanager
async def both_sides(proxy: Proxy, by: str = "", **named: Any) -> AsyncIterator[list[Side]]:
    """The SDK, sync and async: at the proxy, or at the address `by`."""
    urls = {"base_url": f"{by or proxy.url}/api/v1", "auth_url": f"{by or proxy.url}/api/v2/oauth"}
    async with gigachat.GigaChat(**{**urls, "credentials": "a-key", "model": MODEL, **named}) as client:
        yield [Side(client, is_async) for is_async in (False, True)]


async def said_by(side: Side, path: str) -> Any:
    """The first that this method says: its answer, or the first chunk of its stream."""
    return (await side.chunks(path, SUM))[0] if path in STREAMS else await side(path, SUM)


async def raised_by(side: Side, path: str) -> tuple[type[ResponseError], int, bytes]:
    with pytest.raises(ResponseError) as refused:
        await said_by(side, path)
    return type(refused.value), refused.value.status_code, refused.value.content


@pytest.mark.parametrize("status", RAISED)
async def test_a_refusal_of_the_api_is_raised_as_at_the_api_itself(start_proxy: StartProxy, status: int) -> None:
    """The same exception, status and words: plain and streamed, both chats and embeddings, sync and async."""
    proxy = await start_proxy(ext_retries=0)
    for path in ("/chat/completions", "/embeddings"):
        proxy.giga.state.faults.add({"kind": "status", "status": status, "times": -1, "path": path})
    async with both_sides(proxy) as through, both_sides(proxy, proxy.giga.url) as straight:
        for path in (*PLAIN, *STREAMS):
            for ours, theirs in zip(through, straight, strict=True):
                expected = await raised_by(theirs, path)
                assert await raised_by(ours, path) == expected
                assert expected[0] is RAISED[status]


@pytest.mark.parametrize("credential", ["credentials", "access_token"])
async def test_a_wrong_key_is_an_authentication_error(start_proxy: StartProxy, credential: str) -> None:
    """As a key, which is refused with the token request, and as a ready token."""
    proxy = await start_proxy(proxy_api_keys="anna:the-key-of-anna")
    named = {"credentials": None, credential: "another-key"}
    async with both_sides(proxy, **named) as sides:
        for side in sides:
            for path in (*PLAIN, *STREAMS):
                kind, status, content = await raised_by(side, path)
                assert (kind, status) == (AuthenticationError, 401) and b"another-key" not in content
    assert await proxy.calls("/completions") == []


async def test_a_full_line_is_a_rate_limit_error_that_says_when_to_come_back(start_proxy: StartProxy) -> None:
    """The only 429 there is, and it is ours: `retry_after` is a whole number of seconds, 1 or more."""
    proxy = await start_proxy(ext_max_requests=1, ext_queue_size=1)
    first = await busy(proxy, 1)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    async with both_sides(proxy, credentials=None) as sides:
        for side in sides:
            for path in (*PLAIN, *STREAMS):
                with pytest.raises(RateLimitError) as refused:
                    await said_by(side, path)
                assert refused.value.retry_after >= 1 and refused.value.retry_after.is_integer()
    await asyncio.gather(first, second)


# -- the ids

#: What the SDK sends from its context, by the header's name.
SENT = {
    "x-request-id": context.request_id_cvar,
    "x-session-id": context.session_id_cvar,
    "x-client-id": context.client_id_cvar,
    "x-service-id": context.service_id_cvar,
    "x-operation-id": context.operation_id_cvar,
    "x-trace-id": context.trace_id_cvar,
    "x-agent-id": context.agent_id_cvar,
}


async def test_the_ids_that_the_sdk_sends_reach_the_api_and_come_back(start_proxy: StartProxy) -> None:
    """All of them there; in `x_headers` those that the API gives back, on answers and on chunks."""
    proxy = await start_proxy()
    for name, variable in SENT.items():
        variable.set(f"my-{name}")
    context.custom_headers_cvar.set({"X-Of-My-Own": "word", "X-Priority": "low"})
    async with both_sides(proxy) as through, both_sides(proxy, proxy.giga.url) as straight:
        for path in (*PLAIN, *STREAMS):
            for ours, theirs in zip(through, straight, strict=True):
                expected = (await said_by(theirs, path)).x_headers
                assert (await said_by(ours, path)).x_headers == expected
                assert expected["x-request-id"] == "my-x-request-id" and expected["x-session-id"] == "my-x-session-id"
    calls = [*await proxy.calls("/completions"), *await proxy.calls("/embeddings")]
    assert len(calls) == 2 * 2 * (len(PLAIN) + len(STREAMS))
    for call in calls:
        assert {name: call["headers"][name] for name in SENT} == {name: f"my-{name}" for name in SENT}
        assert call["headers"]["x-of-my-own"] == "word"


async def test_answers_have_ids_even_if_nobody_sent_any(start_proxy: StartProxy) -> None:
    """Each its own."""
    proxy = await start_proxy()
    async with both_sides(proxy) as sides:
        told = [(await said_by(side, path)).x_headers for side in sides for path in (*PLAIN, *STREAMS)]
    ids = [headers[name] for headers in told for name in ("x-request-id", "x-session-id")]
    assert all(ids) and len(set(ids)) == len(ids) == 2 * len(told)


# -- the environment

#: How the emulator records the key of the proxy itself (see `settings_for`): the caller's never reaches it.
SERVERS_OWN = f"Basic sha256:{fingerprint('a-key')}"


@pytest.mark.parametrize("named", [{"credentials": "anything"}, {}], ids=["with credentials", "without"])
async def test_two_addresses_in_the_environment_are_enough(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, named: dict[str, str]
) -> None:
    """The program's own constructor stays as it is, with its credentials or with none."""
    proxy = await start_proxy()
    monkeypatch.setenv("GIGACHAT_BASE_URL", f"{proxy.url}/api/v1")
    monkeypatch.setenv("GIGACHAT_AUTH_URL", f"{proxy.url}/api/v2/oauth")
    async with gigachat.GigaChat(model=MODEL, **named) as client:
        for side in (Side(client, False), Side(client, True)):
            for path in ("chat", "stream", "chat.create", "chat.stream", "embeddings", "upload_file", "get_image"):
                assert await told(STORIES[path], side) == "ok", path
    assert {call["headers"].get("authorization") for call in await proxy.calls("/oauth")} == {SERVERS_OWN}
