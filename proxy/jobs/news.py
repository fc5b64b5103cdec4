"""Who waits for a change in the store, and for which."""

import asyncio
from collections import defaultdict
from typing import Self


class News:
    """Changes of some topics, from `with` on. What is told while nobody waits is not missed.

    with store.news(Kind.LIVE.topic) as news:
        while True:
            claimed = await store.claim(Kind.LIVE, 10, 30)
            if not claimed.jobs:
                await news.next(claimed.again)
    """

    def __init__(self, hub: "Hub", topics: tuple[str, ...]) -> None:
        self._hub = hub
        self._topics = topics
        self._told = asyncio.Event()

    def __enter__(self) -> Self:
        self._hub.join(self._told, self._topics)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.part(self._told, self._topics)

    async def next(self, timeout: float | None = None) -> bool:
        """Wait until there was a change since the last `next`. False if there is none for `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        return True


class Hub:
    """Where an engine tells its news."""

    def __init__(self) -> None:
        self._listening: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    def __repr__(self) -> str:
        return f"<Hub topics={len(self._listening)}>"

    def listen(self, *topics: str) -> News:
        return News(self, topics)

    def tell(self, *topics: str) -> None:
        for topic in topics:
            for told in self._listening.get(topic, ()):
                told.set()

    def tell_all(self) -> None:
        """Something may have changed; it is not known what."""
        self.tell(*self._listening)

    def join(self, told: asyncio.Event, topics: tuple[str, ...]) -> None:
        for topic in topics:
            self._listening[topic].add(told)

    def part(self, told: asyncio.Event, topics: tuple[str, ...]) -> None:
        for topic in topics:
            self._listening[topic].discard(told)
            if not self._listening[topic]:
                del self._listening[topic]
