"""How long an API asks to be left alone: read from the headers of its refusal. No I/O.

OpenAI and its like tell it in three ways; see https://developers.openai.com/api/docs/guides/rate-limits.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: A budget of calls, tokens or the like: what is left of it, and the time until it is whole again.
REMAINING: Final = "x-ratelimit-remaining-"
RESET: Final = "x-ratelimit-reset-"
#: Durations as OpenAI writes them: "6m0s", "1m26.4s", "120ms".
SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
DURATION: Final = re.compile(rf"(?:{PART.pattern})+")


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds from now, by retry-after-ms, else by Retry-After (a number or an HTTP date).

    None if there is neither, or nothing that can be read.
    """
    milliseconds = number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    told = headers.get("Retry-After", "").strip()
    seconds = number(told)
    return seconds_until(told) if seconds is None else seconds


def reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds until every budget of which nothing remains is whole again; None if none is spent, or none says when."""
    told = {name.lower(): value.strip() for name, value in headers.items()}
    spent = [name.removeprefix(REMAINING) for name, left in told.items() if name.startswith(REMAINING) and left == "0"]
    resets = [duration(told.get(RESET + budget, "")) for budget in spent]
    return max((seconds for seconds in resets if seconds is not None), default=None)


def number(text: str) -> float | None:
    """A number that is not below 0."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def seconds_until(date: str) -> float | None:
    try:
        return max(0.0, (parsedate_to_datetime(date) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def duration(text: str) -> float | None:
    """Seconds; Azure writes them as a bare number."""
    if DURATION.fullmatch(text):
        return sum(float(amount) * SECONDS[unit] for amount, unit in PART.findall(text))
    return number(text)
