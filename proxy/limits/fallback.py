"""What a replica may do on its own while Redis is away."""

import logging
import math
from collections.abc import Iterable
from typing import Literal

from proxy.clock import Clock
from proxy.limits.local import LocalLimits
from proxy.limits.shared_permit import SharedPermit

log = logging.getLogger("proxy.limits")

#: `local_share`: its share of the limits among the replicas last seen. The average is kept, the spacing is not.
#: `closed`: nothing. `open`: all of the limits, as if it were alone, so that together they may exceed them.
Mode = Literal["local_share", "closed", "open"]


class Fallback:
    """The share of one replica, and its own limits while it keeps to it."""

    def __init__(self, mode: Mode, name: str, *, rpm: float | None, concurrency: int | None, clock: Clock) -> None:
        self.mode = mode
        self._name = name
        self._rpm = rpm
        self._concurrency = concurrency
        self._clock = clock
        #: Whether it has begun, and the limits of its own; None: it waits until Redis is back.
        self.holds = False
        self.engine: LocalLimits | None = None

    def change(self, rpm: float | None, concurrency: int | None) -> None:
        """These are the limits of all, when Redis is away the next time."""
        self._rpm, self._concurrency = rpm, concurrency

    def begin(self, replicas: int, rest: float, held: Iterable[SharedPermit]) -> None:
        """Keep to the share from now on, and let nobody off for `rest` seconds; calls that are in flight count.

        `replicas` is how many were last seen. Whoever has seen none, for Redis was never there, has no share.
        """
        log.warning("limits of %s: %s among %d replicas, until Redis is back", self._name, self.mode, replicas)
        self.holds, engine = True, self._share(replicas, rest)
        if engine is not None:
            for permit in held:
                permit.stand_in = engine.adopt()
                permit.stand_in.sent_at = permit.sent_at
        self.engine = engine

    def end(self) -> None:
        """Redis is back."""
        self.holds, self.engine = False, None

    def hindrance(self, permit: SharedPermit) -> float | None:
        """None: it goes, and has a stand-in. Else the instant to ask again; infinity: when something happens."""
        if self.engine is None:
            return math.inf
        clear = self.engine.hindrance()
        if clear is None:
            permit.stand_in = self.engine.try_acquire()
        return clear

    def _share(self, replicas: int, rest: float) -> LocalLimits | None:
        if self.mode == "closed" or (self.mode == "local_share" and not replicas):
            return None
        among = 1 if self.mode == "open" else replicas
        share = self._concurrency // among if self._concurrency else None
        if share == 0:
            return None
        rpm = self._rpm / among if self._rpm else None
        return LocalLimits(rpm=rpm, concurrency=share, clock=self._clock, rest=rest)
