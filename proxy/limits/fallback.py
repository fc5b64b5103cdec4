"""What a replica may do on its own while Redis is away."""

from typing import Literal, get_args

from proxy.clock import Clock
from proxy.limits.local import LocalLimits

#: `local_share`: its share of the limits among the replicas last seen. The average is kept, the spacing is not.
#: `closed`: nothing. `open`: all of the limits, as if it were alone, so that together they may exceed them.
Mode = Literal["local_share", "closed", "open"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Fallback:
    """The share of one replica."""

    def __init__(self, mode: Mode, *, rpm: float | None, concurrency: int | None, clock: Clock) -> None:
        self.mode = mode
        self._rpm = rpm
        self._concurrency = concurrency
        self._clock = clock

    def engine(self, replicas: int, *, rest: float) -> LocalLimits | None:
        """Limits of its own, which let nobody off for `rest` seconds; None: it waits until Redis is back.

        `replicas` is how many were last seen. Whoever has seen none, for Redis was never there, has no share.
        """
        if self.mode == "closed" or (self.mode == "local_share" and not replicas):
            return None
        among = 1 if self.mode == "open" else replicas
        share = self._concurrency // among if self._concurrency else None
        if share == 0:
            return None
        rpm = self._rpm / among if self._rpm else None
        return LocalLimits(rpm=rpm, concurrency=share, clock=self._clock, rest=rest)
