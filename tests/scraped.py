"""What a service tells Prometheus, read as Prometheus reads it."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "gigachat_proxy_"


class Scraped:
    """The samples of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        families = list(text_string_to_metric_families(text))
        self.families = {family.name: family for family in families}
        assert len(self.families) == len(families), "a family comes in one piece"
        self._samples = [sample for family in families for sample in family.samples]

    def rows(self, name: str) -> list[tuple[dict[str, str], float]]:
        """The samples of this name, with or without our prefix: their labels and values."""
        return [(sample.labels, sample.value) for sample in self._samples if sample.name in (name, PREFIX + name)]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples that have these labels."""
        return sum(value for found, value in self.rows(name) if labels.items() <= found.items())

    def values(self, label: str) -> set[str]:
        """All values that a label has."""
        return {sample.labels[label] for sample in self._samples if label in sample.labels}

    @property
    def names(self) -> set[str]:
        """Of all series that there are or may be."""
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        return {name + ending for name, f in self.families.items() for ending in endings.get(f.type, ("",))}


async def scraped(service: Any, headers: dict[str, str] | None = None) -> Scraped:
    """`service` is whatever has a `url`."""
    async with aiohttp.ClientSession() as http, http.get(f"{service.url}/metrics", headers=headers) as response:
        text = await response.text()
        assert response.status == 200, text
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return Scraped(text)


async def counted(service: Any, what: Callable[[Scraped], bool], headers: dict[str, str] | None = None) -> Scraped:
    """A scrape in which `what` holds: a request is counted when it is over, which its caller may know before us."""
    async with asyncio.timeout(20):
        while not what(found := await scraped(service, headers)):  # noqa: ASYNC110 - another program, so to say
            await asyncio.sleep(0.005)
    return found
