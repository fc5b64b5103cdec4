"""`POST /ai/check` and `POST /filter/check`: is a text written by a machine, is it profane."""

from __future__ import annotations

import re

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError, invalid_params
from emulator.parameters import listed, optional, shaped
from emulator.profanity import is_profane
from emulator.state import State
from emulator.words import count_tokens

CHECKERS = {"GigaCheckClassification", "GigaCheckDetection"}
FILTERS = {"GigaFilter"}
MIN_WORDS = 20
# Turns of phrase by which one knows a machine.
MACHINE = re.compile(r"важно отметить|таким образом|в заключение|следует подчеркнуть|языков\w+ модел", re.IGNORECASE)
SENTENCE = re.compile(r"[^.!?]+[.!?]*")


def ai_check(state: State, call: Call) -> Answer:
    if state.options.tariff == "prepaid":
        raise ApiError(403)
    body = shaped(call.json(), dict)
    text = shaped(body.get("input"), str)
    check_model(body.get("model"), CHECKERS)
    if len(re.findall(r"[а-яё]+", text, re.IGNORECASE)) < MIN_WORDS:
        raise invalid_params(f"input must have at least {MIN_WORDS} words")
    sentences = [match.span() for match in SENTENCE.finditer(text) if match[0].strip()]
    written = [[start, end] for start, end in sentences if MACHINE.search(text[start:end])]
    category = "human" if not written else "ai" if len(written) == len(sentences) else "mixed"
    counts = {"characters": len(text), "tokens": count_tokens(text)}
    return json_answer({"category": category, **counts, "ai_intervals": written})


def filter_check(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    check_model(body.get("model"), FILTERS)
    text = "\n".join(optional(message, "content", str, "") for message in listed(body, "messages"))
    settings = optional(body, "settings", dict, {})
    is_on = settings.get("neuro", True) or settings.get("blacklist", True)
    usage = {"filter_tokens": count_tokens(text)}
    return json_answer({"is_profane": bool(is_on and is_profane(text)), "usage": usage})


def check_model(name: object, allowed: set[str]) -> None:
    if name not in allowed:
        raise ApiError(404, "No such model")
