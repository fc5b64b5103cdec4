"""Stores for batches, one file of SQLite and a real Redis, and nobody who dawdles."""

from collections.abc import AsyncIterator

import pytest

from proxy import batching
from proxy.jobs.store import Store, opened


@pytest.fixture
async def store(place: str) -> AsyncIterator[Store]:
    async with opened(place) as store:
        yield store


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many looks, and few lines at once: so few lines are as good as many."""
    monkeypatch.setattr(batching, "SETTLING", 0.0)
    monkeypatch.setattr(batching, "AT_ONCE", 2)
