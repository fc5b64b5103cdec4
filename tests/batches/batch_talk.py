"""What the tests of batches ask for, who answers their lines, and what they read in the end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from proxy.batching import Batching, Order, accept
from proxy.jobs import Answer, Job
from proxy.jobs.batches import Batch, BatchState
from proxy.jobs.files import StoredFile
from proxy.jobs.recording import Ended, Recording
from proxy.jobs.runner import Runner
from proxy.jobs.store import Store

CHAT = "/v1/chat/completions"
LIFE = 7200.0
OVER = (BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED)

Respond = Callable[[Job], Awaitable[Answer]]


def line(custom_id: str, **fields: Any) -> str:
    told = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"messages": [], "n": custom_id}, **fields}
    return json.dumps(told)


def lines(count: int) -> list[str]:
    return [line(str(number)) for number in range(count)]


async def pieces(text: bytes, size: int = 100) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def uploaded(store: Store, texts: Iterable[str], caller: str = "ann") -> str:
    """The id of an input file."""
    file = StoredFile(caller=caller, purpose="batch", filename="in.jsonl")
    return (await store.files.add(file, pieces("\n".join(texts).encode()))).id


async def ordered(store: Store, texts: Iterable[str], **fields: Any) -> Order:
    """A batch of these lines that is to be accepted."""
    told = {"caller": "ann", "endpoint": CHAT, "window": "24h", "deadline": time.time() + 86_400, **fields}
    told.setdefault("input_file", await uploaded(store, texts))
    return Order(Batch(**told), LIFE)


async def accepted(store: Store, texts: Iterable[str], **fields: Any) -> Batch:
    order = await ordered(store, texts, **fields)
    await accept(store, order)
    return order.batch


async def echo(job: Job) -> Answer:
    return Answer(200, "application/json", job.body)


def batching_of(store: Store, *, longest: int = 10_000, room: int = 200_000) -> Batching:
    return Batching(store, longest=longest, room=room)


@asynccontextmanager
async def running(store: Store, respond: Respond = echo, **knobs: Any) -> AsyncIterator[Runner]:
    """A runner at work. `respond` stands for the whole service."""

    async def serve(job: Job, recording: Recording, on_call: Callable[[], None]) -> Ended:
        on_call()
        return Ended(await respond(job), None)

    runner = Runner(store, serve, {"batch": batching_of(store, **knobs).run})
    runner.start()
    try:
        yield runner
    finally:
        await runner.close()


async def now(store: Store, batch: Batch) -> Batch:
    found = await store.batches.get(batch.id, caller=None)
    assert found is not None
    return found


async def eventually(what: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `what` holds; a test that waits for ever is stopped by this time-out."""
    async with asyncio.timeout(20):
        while not await what():  # noqa: ASYNC110 - what is watched is in a store
            await asyncio.sleep(0.005)


async def become(store: Store, batch: Batch, *states: BatchState) -> Batch:
    """The batch when it is in one of these states."""

    async def has() -> bool:
        return (await now(store, batch)).state in states

    await eventually(has)
    return await now(store, batch)


async def over(store: Store, batch: Batch) -> Batch:
    """The batch at its end, its lines taken out of the store."""

    async def is_empty() -> bool:
        return not (await store.jobs.list(caller=None, batch=batch.id, limit=1)).entries

    found = await become(store, batch, *OVER)
    await eventually(is_empty)
    return found


async def work_on(store: Store, batch: Batch) -> Job:
    """The service's own job of this batch."""
    found = await store.jobs.get(f"run_{batch.id}", caller=None)
    assert found is not None
    return found


async def read(store: Store, file: str | None) -> dict[str, dict[str, Any]]:
    """The lines of a file that came of a batch, by their custom ids, each of which is there once."""
    assert file is not None
    text = b"".join([part async for part in store.files.content(file)])
    told = [json.loads(each) for each in text.splitlines()]
    found = {each["custom_id"]: each for each in told}
    assert len(found) == len(told) == len({each["id"] for each in told})
    return found


def codes(told: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The codes of their errors, by the custom ids of the lines that have some."""
    return {id: each["error"]["code"] for id, each in told.items() if each["error"]}
