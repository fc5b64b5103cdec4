"""Limits and lines as operators and callers read of them, and changes as operators write them. Pure.

In all of it 0 stands for "no limit", null for "the setting holds" or "nobody knows"; times are seconds, and `since` and
`at` are Unix seconds.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.audit import MOST, Entry
from proxy.dialects.native import json_type
from proxy.effect import Effect, Forecast
from proxy.errors import BadRequest
from proxy.jobs import StoreState
from proxy.lanes import Lane
from proxy.limits.overrides import FIELDS, checked
from proxy.line import Helm, LaneState, Standing

#: Requests of a lane that are listed, unless told otherwise, and at most.
LISTED, MOST_LISTED = 100, 1000
#: Entries of the record that are listed unless told otherwise.
RECORDED = 100
#: Characters of a name that are told: a model's, or that of a field which is none.
LONGEST = 100
SWITCH = {"true": True, "1": True, "false": False, "0": False}


# ---- What is asked for ----


@dataclass(frozen=True, slots=True)
class Wanted:
    """A body of `PATCH /limits`."""

    lane: str
    wishes: Mapping[str, float | None]

    @classmethod
    def read(cls, body: bytes) -> "Wanted":
        """Raises BadRequest naming the field."""
        told = object_in(body)
        lane = told.pop("lane", "main")
        if not isinstance(lane, str):
            raise BadRequest(f'"lane" must be the name of a lane, not {json_type(lane)}', param="lane")
        if not told:
            raise BadRequest(f"nothing is to be changed: name one of {', '.join(FIELDS)}")
        return cls(lane, {field: value_in(field, value) for field, value in told.items()})


def object_in(body: bytes) -> dict[str, Any]:
    try:
        # Not orjson: a NaN is to be told with the name of its field.
        told = json.loads(body, object_pairs_hook=once_each)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}" if body else "the body is empty: send JSON") from None
    if not isinstance(told, dict):
        raise BadRequest(f'the body must be a JSON object such as {{"rpm": 100}}, not {json_type(told)}')
    return told


def once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises BadRequest for two values of one name: which of them is meant, nobody knows."""
    told: dict[str, Any] = {}
    for name, value in pairs:
        if name in told:
            raise BadRequest(f'"{name[:LONGEST]}" comes twice: name it once', param=name[:LONGEST])
        told[name] = value
    return told


def value_in(field: str, value: object) -> float | None:
    """Raises BadRequest."""
    if field not in FIELDS:
        known = ", ".join(("lane", *FIELDS))
        raise BadRequest(f'unknown field "{field[:LONGEST]}": there are {known}', param=field[:LONGEST])
    if value is None:
        return None
    try:
        return checked(field, value)
    except ValueError as error:
        raise BadRequest(str(error), param=field) from None


def preview_in(query: Mapping[str, str]) -> bool:
    """Raises BadRequest."""
    word = query.get("preview", "false").lower()
    if word not in SWITCH:
        raise BadRequest(f'"preview" must be true or false, not "{word[:40]}"', param="preview")
    return SWITCH[word]


def listed_in(query: Mapping[str, str]) -> int:
    return number_in(query, LISTED, MOST_LISTED)


def recorded_in(query: Mapping[str, str]) -> int:
    return number_in(query, RECORDED, MOST)


def number_in(query: Mapping[str, str], usual: int, most: int) -> int:
    """`limit`. Raises BadRequest."""
    word = query.get("limit", str(usual))
    # Not isdecimal: there are digits that no number is made of.
    if not (word.isascii() and word.isdigit() and len(word) < 10 and int(word) <= most):
        raise BadRequest(f'"limit" must be a whole number from 0 to {most}, not "{word[:40]}"', param="limit")
    return int(word)


# ---- Limits, told ----


def lane_of(lane: Lane, *, is_operators: bool = True) -> dict[str, Any]:
    """A lane's limits and how it fares. Who set them is the operators' to know."""
    state, helm = lane.line.state(), lane.line.steered
    return {
        "name": lane.name,
        "connector": lane.connector.name,
        "limits": {field: limit_told(helm, field, is_operators=is_operators) for field in FIELDS},
        "allowed_in_flight": state.limits.allowed or 0,
        "api_pause": round(state.limits.paused, 3),
        **numbers_told(state),
        "trouble": lane.line.trouble or None,
    }


def limit_told(helm: Helm, field: str, *, is_operators: bool) -> dict[str, Any]:
    setting, override = helm.settings[field], helm.overrides.get(field)
    return {
        "setting": setting,
        "override": override.value if override else None,
        "now": override.value if override else setting,
        "since": override.since if override else None,
        "by": override.by if override and is_operators else None,
    }


def numbers_told(state: LaneState) -> dict[str, Any]:
    """The lane at a glance; a newcomer's `eta`."""
    limits = state.limits
    return {
        "paused": limits.is_held,
        "waiting": state.waiting,
        "in_flight": limits.in_flight,
        "eta": None if limits.is_held else round(state.eta, 3),
    }


def change_told(
    lane: Mapping[str, Any], effect: Effect, entries: list[Entry], trouble: str, *, is_preview: bool
) -> dict[str, Any]:
    """What came of a change, or would come of it; `lane` is told as it is now."""
    return {
        "preview": is_preview,
        "changes": [{name: entry[name] for name in ("field", "from", "to", "is_setting")} for entry in entries],
        "effect": effect_told(effect),
        "kept": None if is_preview else not trouble,
        "trouble": trouble or None,
        "lane": lane,
    }


def effect_told(effect: Effect) -> dict[str, Any]:
    return {
        "text": effect.text,
        "waiting": effect.waiting,
        "in_flight": effect.in_flight,
        "before": forecast_told(effect.before),
        "after": forecast_told(effect.after),
    }


def forecast_told(forecast: Forecast) -> dict[str, Any]:
    clears_in = forecast.clears_in
    return {
        **forecast.values,
        "clears_in": None if clears_in is None else round(clears_in, 3),
        "late": forecast.late,
    }


# ---- Lines, told ----


#: How many there are that whoever asks may see, and some of them as `request_told` tells each.
Listed = tuple[int, list[dict[str, Any]]]


def line_told(name: str, state: LaneState, waiting: Listed, calls: Listed) -> dict[str, Any]:
    """A lane's line."""
    return {
        "name": name,
        **numbers_told(state),
        "line": {"seen": waiting[0], "requests": waiting[1]},
        "calls": {"seen": calls[0], "requests": calls[1]},
    }


def request_told(standing: Standing, state: LaneState) -> dict[str, Any]:
    is_known = standing.eta is not None and not state.limits.is_held
    return {
        "id": standing.id,
        "caller": standing.caller,
        "priority": standing.priority.name.lower(),
        "model": standing.model[:LONGEST] or None,
        "state": state_of(standing),
        "place": standing.place or None,
        "eta": round(standing.eta or 0.0, 3) if is_known else None,
        "waited": round(standing.waited, 3),
        "took": None if standing.took is None else round(standing.took, 3),
        "attempts": standing.attempts,
        "deadline": None if standing.left == math.inf else round(standing.left, 3),
    }


def state_of(standing: Standing) -> str:
    if standing.took is not None:
        return "in_flight"
    return "waiting" if standing.place else "between_attempts"


def jobs_told(state: StoreState) -> dict[str, int]:
    """Durable jobs, which wait before the line."""
    return {
        "queued": state.live,
        "batch_lines": state.batch,
        "delayed": state.delayed,
        "running": state.running,
        "kept": state.jobs,
    }
