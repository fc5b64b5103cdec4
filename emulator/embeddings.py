"""`POST /embeddings`: 1024 numbers for a text, always the same, alike for texts that share words."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.models import known
from emulator.parameters import shaped
from emulator.state import State
from emulator.words import count_tokens

DIMENSIONS = 1024
# A word moves the vector in so many dimensions; the text as a whole moves it a little in all.
STEPS = 64
WHOLE = 0.002


def embeddings(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    texts = body.get("input")
    texts = [texts] if isinstance(texts, str) else shaped(texts, list)
    model = known(body.get("model"), "embedder", state.options)
    data = [embedding(number, shaped(text, str)) for number, text in enumerate(texts)]
    return json_answer({"object": "list", "data": data, "model": model})


def embedding(index: int, text: str) -> dict[str, object]:
    usage = {"prompt_tokens": count_tokens(text)}
    return {"object": "embedding", "index": index, "embedding": vector(text), "usage": usage}


def vector(text: str) -> list[float]:
    """A vector of length 1."""
    numbers = [(byte - 127.5) * WHOLE for byte in hashlib.shake_128(text.encode()).digest(DIMENSIONS)]
    for word in re.findall(r"\w+", text.lower()):
        for place, step in steps(word):
            numbers[place] += step
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def steps(word: str) -> Iterator[tuple[int, float]]:
    """Where a word moves the vector, and which way."""
    digest = hashlib.shake_128(word.encode()).digest(2 * STEPS)
    for high, low in zip(digest[::2], digest[1::2], strict=True):
        yield (high << 8 | low) % DIMENSIONS, 1.0 if high & 128 else -1.0
