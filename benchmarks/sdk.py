"""What the proxy adds to GigaChat's SDK: `python -m benchmarks.sdk`.

The SDK straight at an API that costs next to nothing, and the SDK through the proxy before it, turn by turn, one call
at a time. Each chunk of a stream tells when the API wrote it (`benchmarks.upstream`), so its delay is the way alone.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import gigachat

from benchmarks.processes import service, upstream
from benchmarks.report import Check, Report, Size, Table, command, differences, ratios, spread
from benchmarks.upstream import CHUNKS

STRAIGHT, THROUGH = "SDK straight at the API", "SDK through the proxy"


@dataclass
class Rounds:
    """The medians of each round in ms: a plain call, a stream to its first chunk, the delay of a further chunk."""

    call: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    chunk: list[float] = field(default_factory=list)


def run(size: Size) -> Report:
    rounds, calls, streams = (int(size.pick(*sizes)) for sizes in ((7, 3, 1), (300, 100, 5), (40, 20, 2)))
    with upstream() as api, service(api) as proxy:
        urls = {STRAIGHT: f"{api.url}/v1", THROUGH: f"{proxy.url}/api/v1"}
        return report(asyncio.run(compared(urls, rounds, calls, streams)))


async def compared(urls: Mapping[str, str], rounds: int, calls: int, streams: int) -> dict[str, Rounds]:
    got = {name: Rounds() for name in urls}
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(gigachat.GigaChat(base_url=url, model="GigaChat-2"))
            for name, url in urls.items()
        }
        await one_round(clients, 1 + calls // 10, 1)  # whatever is made at the first calls is made now
        for _ in range(rounds):
            for name, found in (await one_round(clients, calls, streams)).items():
                got[name].call.append(median(found.call))
                got[name].first.append(median(found.first))
                got[name].chunk.append(median(found.chunk))
    return got


async def one_round(clients: Mapping[str, gigachat.GigaChat], calls: int, streams: int) -> dict[str, Rounds]:
    """Every single time, in ms."""
    found = {name: Rounds() for name in clients}
    for _ in range(calls):
        for name, client in clients.items():
            began = time.monotonic()
            await client.achat("Привет")
            found[name].call.append(1000 * (time.monotonic() - began))
    for _ in range(streams):
        for name, client in clients.items():
            await client.achat("Привет")  # wakes the processes that slept through the other's stream
            first, delays = await streamed(client)
            found[name].first.append(first)
            found[name].chunk += delays
    return found


async def streamed(client: gigachat.GigaChat) -> tuple[float, Sequence[float]]:
    """The time to the first chunk and the delays of the others, in ms."""
    began = time.monotonic_ns()
    stamps = [
        (time.monotonic_ns(), int(chunk.choices[0].delta.content or 0)) async for chunk in client.astream("Привет")
    ]
    if len(stamps) != CHUNKS:
        raise RuntimeError(f"a stream has {len(stamps)} chunks, not {CHUNKS}")
    return (stamps[0][0] - began) / 1e6, [(came - written) / 1e6 for came, written in stamps[1:]]


def report(got: Mapping[str, Rounds]) -> Report:
    ours, straight = got[THROUGH], got[STRAIGHT]
    added = Rounds(
        differences(ours.call, straight.call),
        differences(ours.first, straight.first),
        differences(ours.chunk, straight.chunk),
    )
    checks = [
        Check("added p50 a call, ms", median(added.call), most=1.0),
        Check("p50 a call, through / straight", median(ratios(ours.call, straight.call))),
        Check("added to the first chunk, ms", median(added.first)),
        Check("added to each further chunk, ms", median(added.chunk)),
    ]
    rows = [(name, *map(spread, (each.call, each.first, each.chunk))) for name, each in {**got, "added": added}.items()]
    columns = ("target", "p50 ms a call", "ms to the first chunk", "ms of delay of each further chunk")
    title = f"1 call at a time, streams of {CHUNKS} chunks, {len(ours.call)} rounds: median (least-greatest)"
    return Report("sdk", checks, [Table(title, columns, rows)])


if __name__ == "__main__":
    command(run)
