"""What replicas and Redis say to each other: names of keys and channels, the script, its replies. Nowhere else.

| name                          | what                                                | lives                       |
|-------------------------------|-----------------------------------------------------|-----------------------------|
| `<prefix>:{<name>}:state`     | pace, pause, effective concurrency of one account   | KEY_LIFE after the last use |
| `<prefix>:{<name>}:leases`    | who is in flight                                    | likewise                    |
| `<prefix>:{<name>}:waiting`   | who waits for a slot                                | likewise                    |
| `<prefix>:{<name>}:replicas`  | who has opened this account                         | likewise                    |
| `<prefix>:{<name>}:overrides` | what operators set                                  | for ever                    |
| `<prefix>:{<name>}:reports`   | what replicas tell of themselves, for the dashboard | KEY_LIFE after the last use |
| `<prefix>:audit`              | who set it, the newest first                        | for ever                    |
| `<prefix>:probe`              | written to see whether the server can be written to | KEY_LIFE                    |
| `<prefix>:to:<link>`          | channel: slots that came free, for one process      |                             |
| `<prefix>:to:all`             | channel: pauses, overrides and lost data, for all   |                             |

The keys of one account share a hash tag, so a cluster keeps them together. Times on the wire are whole microseconds
of Redis's clock.
"""

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from proxy.limits.local import FIRST_BACKOFF, FIRST_RUN, MAX_BACKOFF, MAX_PAUSE, MAX_RUN

#: Seconds that a key lives after its last use; longer where two calls may be further apart.
KEY_LIFE = 3600.0
#: Seconds after its start in which a Redis without data is taken for one that lost them.
YOUNG = 10.0
#: Seconds by which the server's clock must go back to be taken for set back.
SET_BACK = 1.0
#: Seconds between two questions of those who wait for the same lease to end.
GRAIN = 0.002
#: The slot of whoever has its lease and waits for the pace.
HAS_LEASE = -2
#: What a second adds to the doubt about another machine's clock: 100 ppm to either side, for NTP may be slewing it.
DRIFT = 200e-6

MICROSECONDS = 1_000_000


def micro(seconds: float) -> int:
    """Seconds as the wire has them, rounded up."""
    return math.ceil(seconds * MICROSECONDS)


def _script() -> str:
    """The script with the constants that it shares with Python."""
    constants = {
        "FIRST_RUN": FIRST_RUN,
        "MAX_RUN": MAX_RUN,
        "FIRST_BACKOFF": micro(FIRST_BACKOFF),
        "MAX_BACKOFF": micro(MAX_BACKOFF),
        "MAX_PAUSE": micro(MAX_PAUSE),
        "YOUNG": YOUNG,
        "SET_BACK": micro(SET_BACK),
        "GRAIN": micro(GRAIN),
        "HAS_LEASE": HAS_LEASE,
    }
    lines = [f"local {name} = {value}" for name, value in constants.items()]
    return "\n".join([*lines, Path(__file__).with_name("script.lua").read_text(encoding="utf-8")])


SCRIPT = _script()
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Names:
    """The names that one prefix gives."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.probe = f"{prefix}:probe"
        self.audit = f"{prefix}:audit"
        self.channel = f"{prefix}:to:"
        self.news = f"{self.channel}all"

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of one account, in the script's order."""
        kinds = ("state", "leases", "waiting", "replicas", "overrides")
        return tuple(f"{self._prefix}:{{{name}}}:{kind}" for kind in kinds)

    def reports(self, name: str) -> str:
        """The key of what the replicas of one account tell of themselves."""
        return f"{self._prefix}:{{{name}}}:reports"


class Reply(NamedTuple):
    """What Redis says of an account. Times are microseconds of its clock, which it read at `now` and at `done`.

    `slot` is the pace slot that was given, 0 if any time will do: whoever has it is sent before it `ends`, or asks
    again. It is -1 if none was given, HAS_LEASE if only the pace is waited for: then ask again at `recheck`.
    `allowed` is -1 where nothing bounds the calls in flight. `lines` is how many replicas have somebody waiting.
    `revision` grows whenever operators set something.
    """

    now: int
    done: int
    epoch: int
    next: int
    pause: int
    in_flight: int
    allowed: int
    replicas: int
    lines: int
    slot: int
    ends: int
    recheck: int
    revision: int

    @property
    def is_granted(self) -> bool:
        return self.slot >= 0


def pushed(message: bytes) -> tuple[Reply, str]:
    """A pushed reply, and whose: a ticket, or an account's state key. Raises ValueError for what is none."""
    *numbers, subject = message.decode().split(" ", len(Reply._fields))
    if len(numbers) != len(Reply._fields):
        raise ValueError("not a message of ours")
    return Reply(*map(int, numbers)), subject


def said(operation: str, **words: Any) -> bytes:
    return orjson.dumps({"op": operation, **words})


def ticket(replica: str, number: int, *, lead: int, window: int) -> str:
    """A call's name at Redis: see the script."""
    return f"{replica}:{number}:{lead}:{window}"
