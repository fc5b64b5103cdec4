"""What it costs the pace to be looked at: `python -m benchmarks.watched`.

A burst of requests at once, with and without the dashboard open in 20 tabs and `/metrics` scraped every second.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import median

import aiohttp

from benchmarks.pacing import Burst, Seen, one_burst
from benchmarks.processes import service, upstream
from benchmarks.report import Check, Report, Size, Table, command, spread

TABS = 20
LATENCY = 0.05
#: The share of the rate used while somebody looks, to the one used while nobody does.
SHARE = 0.99


class Watchers:
    """Those who look: tabs and a scraper, in a loop of their own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.events = 0
        self.scrapes = 0

    async def look(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, timeout=timeout, connector=connector) as http:
            await asyncio.gather(self._scrape(http), *(self._tab(http) for _ in range(TABS)))

    async def _tab(self, http: aiohttp.ClientSession) -> None:
        async with http.get("/dashboard/events") as response:
            response.raise_for_status()
            async for line in response.content:
                self.events += line.startswith(b"event: now")

    async def _scrape(self, http: aiohttp.ClientSession) -> None:
        while True:
            async with http.get("/metrics") as response:
                response.raise_for_status()
                await response.read()
            self.scrapes += 1
            await asyncio.sleep(1)


@contextmanager
def watching(url: str) -> Iterator[Watchers]:
    watchers, loop = Watchers(url), asyncio.new_event_loop()
    looking = loop.create_task(watchers.look())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(looking)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watchers
    finally:
        loop.call_soon_threadsafe(looking.cancel)
        thread.join()


def run(size: Size) -> Report:
    rounds = int(size.pick(5, 3, 1))
    burst = Burst(600, int(size.pick(60, 40, 6)))
    with upstream(LATENCY) as api, service(api, ext_api_rpm=burst.rpm) as ours:
        alone, watched = [], []
        for _ in range(rounds):
            alone.append(one_burst(burst, api, ours))
            with watching(ours.url) as watchers:
                watched.append(one_burst(burst, api, ours))
    share = median(seen.rate for seen in watched) / median(seen.rate for seen in alone)
    ideal = 1000 * burst.interval
    checks = [
        Check("share of the rate used, watched / alone", share, least=SHARE),
        Check("least gap while watched, of the ideal", min(min(seen.gaps) for seen in watched) / ideal),
        Check("calls refused or wasted while watched", sum(s.refused + s.wasted for s in watched), most=0),
        Check("events that the tabs got in the last round", watchers.events, least=TABS),
        Check("scrapes in the last round", watchers.scrapes, least=1),
    ]
    rows = [row("nobody", alone), row(f"{TABS} tabs, /metrics a second", watched)]
    return Report("watched", checks, [Table(f"{burst.rpm} RPM, {rounds} alternating rounds", COLUMNS, rows)])


COLUMNS = ("who looks", "% of ideal", "least gap ms", "median gap ms")


def row(who: str, seen: Sequence[Seen]) -> Sequence[str]:
    return (
        who,
        spread([one.rate for one in seen]),
        spread([min(one.gaps) for one in seen]),
        spread([median(one.gaps) for one in seen]),
    )


if __name__ == "__main__":
    command(run)
