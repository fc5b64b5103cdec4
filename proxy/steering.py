"""Steering: operators change the limits of a lane while it works.

Rule 1: a change holds at once, for all replicas that keep the account's limits, and for the next start.
Rule 2: changes are made one after the other, whole, and recorded: whoever asks for one and leaves does not stop it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from proxy.audit import Audit, Entry
from proxy.effect import Effect, Values, effect
from proxy.errors import LimitsUnavailable, NotFound
from proxy.lanes import Lane, Lanes
from proxy.limits.overrides import FIELDS, PAUSED, Changes, Override
from proxy.line import Helm

log = logging.getLogger("proxy.steering")

#: By field of `proxy.limits.overrides`, what operators wish to hold; None: the setting.
Wishes = Mapping[str, float | None]


class Operator(NamedTuple):
    """Who changes something, and from where."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} at {self.address}"


class Made(NamedTuple):
    """What came of wishes: the entries of the record, and why it will not outlast the process, "" if it will."""

    effect: Effect
    entries: list[Entry]
    trouble: str = ""


class Steering:
    """Changes limits.

    Args:
        now: Unix seconds.
    """

    def __init__(self, lanes: Lanes, audit: Audit, *, now: Callable[[], float] = time.time) -> None:
        self.audit = audit
        self._lanes = lanes
        self._now = now
        self._turn = asyncio.Lock()
        self._changing: set[asyncio.Task[Made]] = set()

    async def settled(self) -> None:
        """Wait until it is known what operators set before this process began."""
        for lane in self._lanes.all():
            await lane.line.steered.settled()

    async def close(self) -> None:
        """Wait for changes that were begun."""
        await asyncio.gather(*self._changing, return_exceptions=True)

    def lanes(self) -> list[Lane]:
        """All there are now."""
        return self._lanes.all()

    def lane(self, name: str) -> Lane:
        """Raises NotFound."""
        lane = self._lanes.others.get(name) or next((lane for lane in self.lanes() if lane.name == name), None)
        if lane is None:
            known = ", ".join(lane.name for lane in self.lanes()[:10])
            raise NotFound(f'there is no lane "{name[:100]}"; there is {known}')
        return lane

    async def preview(self, lane: Lane, wishes: Wishes, operator: Operator) -> Made:
        """What would come of it. Nothing is changed."""
        made, _ = await self._planned(lane, wishes, operator)
        return made

    async def change(self, lane: Lane, wishes: Wishes, operator: Operator) -> Made:
        """Raises LimitsUnavailable: then nothing is changed, or it is not known whether, as the text says."""
        changing = asyncio.create_task(self._change(lane, wishes, operator))
        self._changing.add(changing)
        changing.add_done_callback(self._changing.discard)
        return await asyncio.shield(changing)

    async def _change(self, lane: Lane, wishes: Wishes, operator: Operator) -> Made:
        async with self._turn:
            # Another replica may have changed it a moment ago: what is known here need not be so any more.
            await lane.line.steered.refresh()
            made, changes = await self._planned(lane, wishes, operator)
            return made._replace(trouble=await self._make(lane, made, changes, operator)) if changes else made

    async def _make(self, lane: Lane, made: Made, changes: Changes, operator: Operator) -> str:
        """See `Limits.override`."""
        try:
            trouble = await lane.line.steered.override(changes)
        except LimitsUnavailable as error:
            log_entries(made.entries, operator, f". But {error}")
            raise
        log_entries(made.entries, operator)
        await self.audit.note(made.entries)
        return trouble

    async def _planned(self, lane: Lane, wishes: Wishes, operator: Operator) -> tuple[Made, Changes]:
        helm, at = lane.line.steered, round(self._now(), 3)
        changes = changes_of(helm, wishes, partial(Override, since=at, by=str(operator)))
        before, after = values(helm), values(helm, changes)
        record = [entry(lane, field, before, after, changes, at, operator) for field in changes]
        return Made(await effect(lane.line, before, after), record), changes


def changes_of(helm: Helm, wishes: Wishes, override: Callable[[float], Override]) -> Changes:
    """Of the wishes, what is not so already. The setting never pauses, so to resume is to go back to it."""
    wished = {field: None if field == PAUSED and not value else value for field, value in wishes.items()}
    return {
        field: None if value is None else override(value)
        for field, value in wished.items()
        if value != (helm.overrides[field].value if field in helm.overrides else None)
    }


def values(helm: Helm, changes: Changes | None = None) -> Values:
    """What holds, by field, if these changes were made."""
    wished = {**helm.overrides, **(changes or {})}
    return {
        field: override.value if (override := wished.get(field)) is not None else helm.settings[field]
        for field in FIELDS
    }


def entry(
    lane: Lane, field: str, before: Values, after: Values, changes: Changes, at: float, operator: Operator
) -> Entry:
    """What the record has of a change."""
    return {
        "at": at,
        "who": operator.name,
        "address": operator.address,
        "lane": lane.name,
        "field": field,
        "from": before[field],
        "to": after[field],
        "is_setting": changes[field] is None,
    }


def log_entries(entries: Sequence[Entry], operator: Operator, doubt: str = "") -> None:
    for entry in entries:
        log.warning("limits of lane %s: %s %s -> %s, by %s%s", entry["lane"], *told(entry), operator, doubt)


def told(entry: Entry) -> tuple[str, str, str]:
    """A change in words: the field, from what, to what."""
    to = f"{entry['to']}{' (the setting)' if entry['is_setting'] else ''}"
    return entry["field"], str(entry["from"]), to
