"""What operators set, as fields of a hash in Redis: each override as JSON, and beside it what the script needs."""

import logging
from collections.abc import Callable, Mapping

import orjson

from proxy.limits.account import wire_interval
from proxy.limits.overrides import CONCURRENCY, FIELDS, PAUSED, RPM, Changes, Override, Overrides, as_json, of_json

log = logging.getLogger("proxy.limits")

#: A field of the hash and what it is to be; False: it is to go.
Wire = tuple[str, str | bool]

#: What the script needs to know of some overrides, by what names.
OF_THE_SCRIPT: Mapping[str, tuple[str, Callable[[float], str]]] = {
    RPM: ("interval", lambda value: str(wire_interval(value))),
    CONCURRENCY: ("bound", lambda value: str(int(value))),
    PAUSED: ("held", lambda value: "1"),
}


def wire_fields(changes: Changes) -> list[Wire]:
    """What the hash is told of changes."""
    return [wire for field, override in changes.items() for wire in wires_of(field, override)]


def wires_of(field: str, override: Override | None) -> list[Wire]:
    wires: list[Wire] = [(field, as_json(override).decode() if override else False)]
    if field in OF_THE_SCRIPT:
        name, written = OF_THE_SCRIPT[field]
        wires.append((name, written(override.value) if override else False))
    return wires


def overrides_in(fields: Mapping[str, str]) -> Overrides:
    """What the hash tells. What another version of us has written there, and we do not understand, is left out."""
    overrides = {}
    for field, text in fields.items():
        if field in FIELDS:
            try:
                overrides[field] = of_json(field, orjson.loads(text))
            except ValueError as error:
                log.warning("Redis: what operators set cannot be read, and the setting holds: %s", error)
    return overrides
