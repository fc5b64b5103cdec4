"""What a queued call costs the one who calls: `python -m benchmarks.client`.

So many calls at once by `asyncio.gather`, through the drop-in class of `api_client_example.py` and through GigaChat's
own SDK, both to the same proxy. The callers are this process; the proxy and the API behind it are others, so its CPU
time is that of the client alone. One round each after the other.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import gigachat

from api_client_example import GigaChat
from benchmarks.processes import service, upstream
from benchmarks.report import Check, Report, Size, Table, command, ratios, spread

#: Many a user of one stream sets this, so that the SDK queues by itself and the API does not say 429.
ONE = "SDK, max_connections=1"
SDK, DROP_IN_ONE, DROP_IN = "SDK", "drop-in, max_connections=1", "drop-in"


@dataclass
class Rounds:
    """What each round gave: ms of CPU a call, calls a second."""

    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


def run(size: Size) -> Report:
    calls, rounds = int(size.pick(1000, 500, 20)), int(size.pick(3, 1, 1))
    with upstream() as api, service(api) as proxy:
        url = f"{proxy.url}/api/v1"
        clients: dict[str, Callable[[], gigachat.GigaChat]] = {
            ONE: lambda: gigachat.GigaChat(base_url=url, model="GigaChat-2", timeout=600, max_connections=1),
            SDK: lambda: gigachat.GigaChat(base_url=url, model="GigaChat-2", timeout=600),
            DROP_IN_ONE: lambda: GigaChat(base_url=url, max_connections=1),
            DROP_IN: lambda: GigaChat(base_url=url),
        }
        got = {name: Rounds() for name in clients}
        for _ in range(rounds):
            for name, client in clients.items():
                asyncio.run(gather(client(), calls, got[name]))
    return report(got, calls)


async def gather(client: gigachat.GigaChat, calls: int, rounds: Rounds) -> None:
    async with client:
        await client.achat("Привет")  # whatever is made at the first call is made now
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.gather(*(client.achat(f"Сколько будет {n} + 1?") for n in range(calls)))
        rounds.cpu.append(1000 * (time.process_time() - cpu) / calls)
        rounds.rate.append(calls / (time.monotonic() - began))


def report(got: dict[str, Rounds], calls: int) -> Report:
    checks = [
        Check("CPU a call, SDK with max_connections=1 / drop-in", median(ratios(got[ONE].cpu, got[DROP_IN].cpu)), 20),
        Check("CPU a call, SDK / drop-in", median(ratios(got[SDK].cpu, got[DROP_IN].cpu)), least=2),
        Check("CPU ms a call, drop-in", median(got[DROP_IN].cpu), most=1.0),
    ]
    rows = [(name, spread(rounds.cpu), spread(rounds.rate, ".0f")) for name, rounds in got.items()]
    columns = ("client", "CPU ms a call", "calls a second")
    title = f"{calls} calls at once by asyncio.gather, {len(got[ONE].cpu)} rounds: median (least-greatest)"
    return Report("client", checks, [Table(title, columns, rows)])


if __name__ == "__main__":
    command(run)
