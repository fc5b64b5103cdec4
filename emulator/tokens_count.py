"""`POST /tokens/count`: a bare array, one element for each text."""

from __future__ import annotations

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError
from emulator.models import offered
from emulator.parameters import shaped
from emulator.state import State
from emulator.words import count_tokens


def count(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    texts = [shaped(text, str) for text in shaped(body.get("input"), list)]
    if shaped(body.get("model"), str) not in offered(state.options):
        raise ApiError(404, "No such model")
    return json_answer([counted(text) for text in texts])


def counted(text: str) -> dict[str, object]:
    return {"object": "tokens", "tokens": count_tokens(text), "characters": len(text)}
