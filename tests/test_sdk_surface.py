"""Every public method of GigaChat's SDK, one by one, sync and async; the table is in the output of the tests.

Three ways: the SDK at the emulator, the SDK at the proxy before it, and the drop-in class at the proxy.
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
from pydantic import BaseModel
from running import StartProxy

import emulator
from api_client_example import GigaChat

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
