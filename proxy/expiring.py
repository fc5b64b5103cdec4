"""A bounded memory whose entries end by themselves."""

from collections import OrderedDict
from typing import Generic, TypeVar

from proxy.clock import Clock

K = TypeVar("K")
V = TypeVar("V")


class Expiring(Generic[K, V]):
    """Entries with an end each; the oldest make room when there are `most`."""

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._most = most
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def put(self, key: K, value: V, seconds: float) -> None:
        """Remember it for so many seconds from now."""
        self._entries.pop(key, None)
        if seconds > 0:
            self._entries[key] = value, self._clock.now() + seconds
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def get(self, key: K) -> V | None:
        """What is remembered of it, if it has not ended."""
        return self._entries[key][0] if self.left(key) else None

    def left(self, key: K) -> float:
        """Seconds until its entry ends; 0 if there is none."""
        if key not in self._entries:
            return 0.0
        left = self._entries[key][1] - self._clock.now()
        if left <= 0:
            del self._entries[key]
        return max(0.0, left)
