"""What operators have set in place of the settings, while the service runs: by field, a value and who set it when.

`rpm`, `concurrency` and `paused` are the limiter's to keep. `timeout` and `queue_size` are the line's; they travel
along, so that whoever keeps the limits of an account keeps these too.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

RPM = "rpm"
CONCURRENCY = "concurrency"
TIMEOUT = "timeout"
QUEUE_SIZE = "queue_size"
PAUSED = "paused"

#: The lowest pace in calls a minute: one in 16 h 40 min. What is set must be kept in numbers of 64 bits.
SLOWEST = 0.001
MOST = 1_000_000
#: Seconds: a day.
LONGEST = 86_400.0


class Override(NamedTuple):
    """A value in place of a setting's; 0: no limit. `since` is Unix seconds, `by` tells people who set it."""

    value: float
    since: float
    by: str


#: By field.
Overrides = Mapping[str, Override]
#: By field; None: the setting holds again.
Changes = Mapping[str, Override | None]

NONE: Overrides = MappingProxyType({})


class Field(NamedTuple):
    """What the value of a field may be, in words, and whether this one may."""

    allowed: str
    admits: Callable[[Any], bool]


def is_number(value: object) -> bool:
    """One that is finite, and not too large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def is_count(value: object) -> bool:
    return is_number(value) and isinstance(value, int)


FIELDS: Mapping[str, Field] = {
    RPM: Field(
        f"calls a minute: 0 (no pacing), or a number from {SLOWEST:g} to {MOST:,}",
        lambda value: is_number(value) and (value == 0 or value >= SLOWEST),
    ),
    CONCURRENCY: Field(
        f"calls in flight: 0 (no limit), or a whole number up to {MOST:,}",
        lambda value: is_count(value) and value >= 0,
    ),
    TIMEOUT: Field(
        f"seconds: a number above 0, at most {LONGEST:,.0f}",
        lambda value: is_number(value) and 0 < value <= LONGEST,
    ),
    QUEUE_SIZE: Field(
        f"requests that may wait: a whole number from 1 to {MOST:,}",
        lambda value: is_count(value) and value >= 1,
    ),
    PAUSED: Field("true or false", lambda value: isinstance(value, bool)),
}


def checked(field: str, value: object) -> float:
    """The value, if the field may have it. Raises ValueError that says what is allowed."""
    known = FIELDS.get(field)
    if known is None:
        raise ValueError(f'unknown field "{field}": there are {", ".join(FIELDS)}')
    if not known.admits(value):
        raise ValueError(f'"{field}" must be {known.allowed}')
    return value  # type: ignore[return-value]  # so says its field


def changed(overrides: Overrides, changes: Changes) -> Overrides:
    """What holds when these changes are made."""
    wished = {**overrides, **changes}
    return MappingProxyType({field: override for field, override in wished.items() if override is not None})


def in_force(overrides: Overrides, field: str, setting: float | None) -> float | None:
    """The value that holds. None stands for "no limit"."""
    return (overrides[field].value if field in overrides else setting) or None


def as_json(override: Override) -> bytes:
    return orjson.dumps(override._asdict())


def of_json(field: str, told: Any) -> Override:
    """What `as_json` wrote, parsed. Raises ValueError for what it cannot have written."""
    match told:
        case {"value": value, "since": int() | float() as since, "by": str(by)}:
            return Override(checked(field, value), since, by)
    raise ValueError(f'"{field}" must be an object of "value", "since" and "by"')
