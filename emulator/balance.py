"""`GET /balance`: what is left of the packages. Only prepaid accounts have one."""

from __future__ import annotations

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError
from emulator.state import State

LEFT = {"GigaChat": 900_000, "GigaChat-Pro": 50_000, "GigaChat-Max": 50_000, "embeddings": 10_000_000}


def balance(state: State, call: Call) -> Answer:
    if state.options.tariff == "postpaid":
        raise ApiError(403)
    return json_answer({"balance": [{"usage": name, "value": value} for name, value in LEFT.items()]})
