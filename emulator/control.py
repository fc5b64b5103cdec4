"""`/_emulator`: the record, the counters, faults and options, for callers on this machine only."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from emulator.answers import Answer, json_answer
from emulator.state import State

PREFIX = "/_emulator"
DONE = {"ok": True}


def answer(state: State, action: str, query: Mapping[str, str], body: bytes, peer: str | None) -> Answer:
    """What a control call gets. `action` is its method and path."""
    if not is_loopback(peer):
        return json_answer({"error": f"{PREFIX} answers on loopback only"}, 403)
    act = ACTIONS.get(action)
    if act is None:
        return json_answer({"error": f"no {action}; known: {', '.join(ACTIONS)}"}, 404)
    try:
        return json_answer(act(state, query, orjson.loads(body) if body else None))
    except (ValueError, TypeError) as error:
        return json_answer({"error": str(error)}, 400)


def is_loopback(peer: str | None) -> bool:
    return peer is None or ipaddress.ip_address(peer.partition("%")[0]).is_loopback


def list_calls(state: State, query: Mapping[str, str], body: Any) -> Any:
    since = int(query.get("since", 0))
    return [call.record() for call in state.calls.to(query.get("path", "")) if call.n > since]


def clear_calls(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.calls.clear()
    return DONE


def show_state(state: State, query: Mapping[str, str], body: Any) -> Any:
    return state.counters()


def clear_state(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.clear_counters()
    return DONE


def list_faults(state: State, query: Mapping[str, str], body: Any) -> Any:
    return [asdict(fault) for fault in state.faults.waiting]


def add_faults(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.faults.add(*(body if isinstance(body, list) else [body]))
    return list_faults(state, query, body)


def clear_faults(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.faults.clear()
    return DONE


def show_options(state: State, query: Mapping[str, str], body: Any) -> Any:
    return asdict(state.options)


def change_options(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.change(**body)
    return asdict(state.options)


def expire_tokens(state: State, query: Mapping[str, str], body: Any) -> Any:
    state.tokens.expire_all()
    return DONE


ACTIONS: dict[str, Callable[[State, Mapping[str, str], Any], Any]] = {
    "GET /_emulator/calls": list_calls,
    "DELETE /_emulator/calls": clear_calls,
    "GET /_emulator/state": show_state,
    "DELETE /_emulator/state": clear_state,
    "GET /_emulator/faults": list_faults,
    "POST /_emulator/faults": add_faults,
    "DELETE /_emulator/faults": clear_faults,
    "GET /_emulator/options": show_options,
    "PATCH /_emulator/options": change_options,
    "DELETE /_emulator/tokens": expire_tokens,
}
