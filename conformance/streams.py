"""Promises about stream_api, for connectors that offer it."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

from conformance.calls import BODY, RETRY_AFTER, Failure, failed, judged
from conformance.promises import GONE, PATIENCE, Absent, Bench, Broken, Chapter, once, shown, until
from conformance.scripted import Call, Script, says, streams
from proxy.connector import Chunk, closing

CHAPTER = Chapter()


def stream_of(bench: Bench) -> AsyncIterator[Chunk]:
    """The chunks of the sample's answer. Raises Absent, or Broken if there is a stream_api that gives none."""
    if not bench.offers("stream_api"):
        raise Absent("there is no stream_api: a stream is one chunk, the whole answer")
    if inspect.iscoroutinefunction(getattr(bench.connector.home, "stream_api", None)):
        raise Broken("stream_api is a coroutine: write `yield chunk` in it, and `return` without a value")
    data = bench.data()
    return bench.connector.stream({**data, "generate_parameters": {**data["generate_parameters"], "stream": True}})


@asynccontextmanager
async def streaming(bench: Bench, script: Script) -> AsyncIterator[tuple[AsyncIterator[Chunk], list[Call]]]:
    """A stream that is closed in the end, and the calls that it took."""
    with bench.api.script(script) as calls:
        async with closing(stream_of(bench)) as chunks:
            yield chunks, calls


async def following(bench: Bench, chunks: AsyncIterator[Chunk]) -> Chunk | None:
    """The next chunk; None at the end. Raises Broken if it does not come, or is none."""
    try:
        chunk = await asyncio.wait_for(anext(chunks), PATIENCE)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise Broken(
            f"the API had sent chunks, and {PATIENCE:g} s later stream_api had yielded none: yield each as it comes"
        ) from None
    if isinstance(chunk, dict):
        return chunk
    if not isinstance(chunk, bytes):
        raise Broken(f"stream_api yielded {shown(chunk)}: a chunk is a dict, or the bytes of its JSON")
    try:
        orjson.loads(chunk)
    except orjson.JSONDecodeError:
        raise Broken(
            f"stream_api yielded {shown(chunk)}, which is not JSON: no `data:`, no [DONE], one object a chunk"
        ) from None
    return chunk


@CHAPTER.promise("stream_api yields chunks, each a dict or its JSON, and ends by itself")
async def chunks_come_to_an_end(bench: Bench) -> None:
    async with streaming(bench, streams(bench.declared.chunks)) as (chunks, calls):
        number = 0
        try:
            while await following(bench, chunks) is not None:
                number += 1
        except Broken:
            raise
        except Exception as error:
            raise Broken(f"the API streamed as it should, and {failed(bench, error, 'stream_api')}") from error
    if not calls:
        raise Broken("stream_api did not call the scripted API")
    once(calls)
    if number == 0:
        raise Broken(
            f"the API streamed {len(bench.declared.chunks)} chunks and stream_api yielded none; if your API's chunks "
            "look different, set CHECK['chunks']"
        )


@CHAPTER.promise("a chunk is passed on when it comes, not when all have come")
async def chunks_come_at_once(bench: Bench) -> None:
    async with streaming(bench, streams(bench.declared.chunks, held_after=2)) as (chunks, _):
        if await following(bench, chunks) is None:
            raise Broken("stream_api ended before the API had")


@CHAPTER.promise("a stream that is left early takes its call along")
async def a_stream_left_early_is_over(bench: Bench) -> None:
    async with streaming(bench, streams(bench.declared.chunks, held_after=2)) as (chunks, calls):
        await following(bench, chunks)
        await asyncio.wait_for(closed(chunks), PATIENCE)
        if not await until(lambda: calls[0].is_gone, GONE):
            raise Broken(
                f"{GONE:g} s after its reader had left, the API's stream was still open: hold the response in "
                "`async with`, or close it in `finally`"
            )


async def closed(chunks: AsyncIterator[Chunk]) -> None:
    async with closing(chunks):
        pass


@CHAPTER.promise("a refusal before the first chunk is told as for request_api")
async def a_refusal_is_a_refusal(bench: Bench) -> str | None:
    script = says(429, BODY, {"Retry-After": str(RETRY_AFTER)})
    failure = Failure("", script, 429, RETRY_AFTER)
    async with streaming(bench, script) as (chunks, calls):
        outcome = await ended_with(bench, chunks)
    once(calls)
    if outcome is None:
        raise Broken("the API refused with 429, and stream_api took that for an answer: look at the status first")
    return judged(bench, outcome, failure, "stream_api")


@CHAPTER.promise("a stream that breaks off is told as no answer, not as its end")
async def a_broken_stream_is_an_error(bench: Bench) -> str | None:
    script = streams(bench.declared.chunks, cut_after=2)
    async with streaming(bench, script) as (chunks, calls):
        outcome = await ended_with(bench, chunks)
    once(calls)
    if outcome is None:
        raise Broken("the connection was cut, and stream_api ended as if the answer were complete")
    return judged(bench, outcome, Failure("", script), "stream_api")


async def ended_with(bench: Bench, chunks: AsyncIterator[Chunk]) -> object:
    """The exception that ends the stream; None if it ends well."""
    try:
        while await following(bench, chunks) is not None:
            pass
    except Broken:
        raise
    except Exception as error:
        return error
    return None
