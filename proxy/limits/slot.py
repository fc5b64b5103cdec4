"""The time in which one call may be sent, as Redis gave it."""

import math
from typing import NamedTuple


class Slot(NamedTuple):
    """From when until when, in monotonic seconds; for sure neither before nor after what Redis meant."""

    opens: float
    closes: float

    @property
    def is_paced(self) -> bool:
        return self.closes < math.inf


#: Where nothing is paced, any time will do.
ANY_TIME = Slot(-math.inf, math.inf)
