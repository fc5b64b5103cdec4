"""What the dashboard reads, as JSON. Pure. Times are seconds, `at` and `started` Unix seconds; null: there is none."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from proxy.entry import Entry
from proxy.jobs import State
from proxy.jobs.batches import Batch
from proxy.lanes import Lane
from proxy.limits.fleet import LaneReport, Report, Sighting
from proxy.limits.overrides import PAUSED, Override
from proxy.line import Standing

#: Characters of a path and of a model's name, and callers that are told.
LONGEST, CALLERS = 100, 30


class About(NamedTuple):
    """What does not change."""

    name: str
    version: str
    is_sandbox: bool


class Spending(NamedTuple):
    """What a lane uses: the share of its rate (None: there is no pace), the tokens of the hour, what is left."""

    used: float | None
    tokens: Counter[str]
    balance: Mapping[str, Any]


def about_told(about: About, started: float) -> dict[str, Any]:
    return {"name": about.name, "version": about.version, "sandbox": about.is_sandbox, "started": started}


def lane_told(lane: Lane, spending: Spending, reason: str | None) -> dict[str, Any]:
    """`paused` is what is left of a pause that the API asked for, `reason` why there is one; `held` who pauses it since
    when, null if nobody does; `eta` is a newcomer's, null if it is held."""
    state, helm = lane.line.state(), lane.line.steered
    limits = state.limits
    overrides = {name: each.value for name, each in helm.overrides.items() if name != PAUSED}
    return {
        "name": lane.name,
        "connector": lane.connector.name,
        "rpm": limits.rpm,
        "concurrency": limits.concurrency,
        "allowed": limits.allowed,
        "timeout": overrides.get("timeout", helm.settings["timeout"]),
        "size": state.size,
        "waiting": state.waiting,
        "in_flight": limits.in_flight,
        "eta": None if limits.is_held else round(state.eta, 3),
        "used": spending.used,
        "tokens": spending.tokens,
        "balance": spending.balance,
        "paused": round(limits.paused, 3),
        "reason": reason,
        "held": hold_told(helm.overrides.get(PAUSED)),
        "trouble": lane.line.trouble,
        "stopping": state.is_stopping,
        "settings": helm.settings,
        "overrides": overrides,
    }


def hold_told(hold: Override | None) -> dict[str, Any] | None:
    return None if hold is None else {"by": hold.by, "since": hold.since}


def standing_told(standing: Standing, lane: Lane) -> dict[str, Any]:
    is_known = standing.eta is not None and not lane.line.state().limits.is_held
    return {
        "id": standing.id,
        "lane": lane.name,
        "place": standing.place or None,
        "caller": standing.caller,
        "priority": standing.priority.name.lower(),
        "model": standing.model[:LONGEST],
        "waited": round(standing.waited, 3),
        "eta": round(standing.eta or 0.0, 3) if is_known else None,
        "attempts": standing.attempts,
    }


def entry_told(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": entry.at,
        "caller": entry.caller,
        "method": entry.method[:LONGEST],
        "path": entry.path[:LONGEST],
        "model": (entry.served or entry.model)[:LONGEST],
        "status": entry.status,
        "error": entry.error,
        "waited": round(entry.waited, 3),
        "took": round(entry.took, 3),
        "attempts": entry.attempts,
    }


def callers_told(answered: Counter[str], waiting: Counter[str]) -> list[dict[str, Any]]:
    """Those who were answered most of late, then those who only wait."""
    total = max(1, answered.total())
    names = dict.fromkeys([*dict(answered.most_common(CALLERS)), *dict(waiting.most_common(CALLERS))])
    return [
        {"name": name, "share": answered[name] / total, "answered": answered[name], "waiting": waiting[name]}
        for name in [*names][:CALLERS]
    ]


def replicas_told(own: Report, others: Iterable[Sighting], lane: str, rpm: float | None) -> list[dict[str, Any]]:
    """This one first; none if it is alone. Their shares are of the rate of `lane`."""
    sightings = [Sighting(own, 0.0), *others]
    return [replica_told(each, lane, rpm) for each in sightings] if len(sightings) > 1 else []


def replica_told(sighting: Sighting, lane: str, rpm: float | None) -> dict[str, Any]:
    lanes = sighting.report.lanes
    sent = lanes.get(lane, LaneReport(0, 0, 0)).sent
    return {
        "name": sighting.report.name,
        "waiting": sum(each.waiting for each in lanes.values()),
        "in_flight": sum(each.in_flight for each in lanes.values()),
        "sent": sent,
        "share": min(1.0, sent / rpm) if rpm else None,
        "ago": round(sighting.ago, 1),
        "silent": sighting.is_silent,
    }


def batch_told(batch: Batch) -> dict[str, Any]:
    done = batch.ended.get(State.DONE, 0)
    return {
        "id": batch.id,
        "state": batch.state,
        "total": batch.total,
        "done": done,
        "failed": sum(batch.ended.values()) - done,
    }
