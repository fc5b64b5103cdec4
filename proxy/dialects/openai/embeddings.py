"""Embeddings: a request of OpenAI's as calls of GigaChat's, and their answers put together again.

| OpenAI | here |
| --- | --- |
| input: a string, or a list of at most 2048 | lists of at most PIECE_TEXTS texts and PIECE_CHARACTERS characters |
| input: tokens | 400: they are OpenAI's own, only its models know what they mean |
| model | see `models.py` |
| encoding_format | float, or base64 of little-endian 32-bit numbers |
| dimensions | 400; or by setting the first ones, brought to length 1 again |
| user and whatever else comes | ignored, and named |
"""

import base64
import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

from proxy.connector import Chunk
from proxy.dialects.openai.answers import parsed, unreadable
from proxy.dialects.openai.models import embeddings_model
from proxy.dialects.openai.options import Options
from proxy.dialects.openai.shapes import TEXT, checked, flattened
from proxy.dialects.openai.usage import count
from proxy.errors import BadRequest
from proxy.rules import Rule

MAX_TEXTS: Final = 2048
# The API names no limit. These are what its own LangChain package kept to for years: known to fit, and small enough
# that a call ends well before EXP_RESP_TIMEOUT and that little is done twice when one fails.
PIECE_TEXTS: Final = 90
PIECE_CHARACTERS: Final = 1_000_000

ENCODINGS: Final = ("float", "base64")
UNDERSTOOD: Final = frozenset({"input", "model", "encoding_format", "dimensions", "user"})
REQUEST: Final = Rule(
    "an object",
    (dict,),
    is_required=True,
    fields={
        "input": Rule("a string or a list of strings, not empty", (str, list), bool, is_required=True),
        "model": TEXT,
        "encoding_format": Rule('"float" or "base64"', (str,), lambda name: name in ENCODINGS),
        "dimensions": Rule("a whole number above 0", (int,), lambda number: number > 0),
        "user": TEXT,
    },
)


class Embeddings:
    """One embeddings request.

        request = Embeddings(body, options)
        answers = [await call(body) for body in request.calls()]
        request.answer(answers)

    Attributes:
        model: the name that the caller gave, which the answer repeats.
        served: the model that the API is asked for.
        sub_caller: who among the caller's users asks; "" if it does not say.
        ignored: fields that mean nothing here, for the log.

    Raises:
        BadRequest: with the path of the field that is to blame.
    """

    def __init__(self, body: object, options: Options) -> None:
        asked = {name: value for name, value in flattened(body).items() if value is not None}
        checked(asked, REQUEST)
        self.model = str(asked.get("model") or options.default_embeddings)
        self.sub_caller = str(asked.get("user", ""))
        self.ignored = sorted(asked.keys() - UNDERSTOOD)
        self.served = embeddings_model(asked.get("model", ""), options)
        self._texts = texts_of(asked["input"])
        self._is_base64 = asked.get("encoding_format") == "base64"
        self._dimensions = asked.get("dimensions")
        if self._dimensions is not None and options.dimensions == "refuse":
            raise BadRequest(
                '"dimensions" is not known to GigaChat: leave it out, or the operator sets '
                "EMBEDDINGS_DIMENSIONS=truncate",
                param="dimensions",
            )

    def calls(self) -> list[dict[str, Any]]:
        """The bodies of the calls, in order."""
        return [{"model": self.served, "input": piece} for piece in pieces(self._texts)]

    def answer(self, answers: Sequence[Chunk]) -> dict[str, Any]:
        """The whole answer, of the answers in the order of the calls. Raises UpstreamError, BadRequest."""
        found = [one for answer in answers for one in in_order(parsed(answer))]
        if len(found) != len(self._texts):
            raise unreadable(f"it has {len(found)} embeddings for {len(self._texts)} texts")
        data = [
            {"object": "embedding", "index": index, "embedding": self._told(one["embedding"])}
            for index, one in enumerate(found)
        ]
        tokens = sum(count(one.get("usage") or {}, "prompt_tokens") for one in found)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.model, "usage": usage}

    def _told(self, vector: list[float]) -> list[float] | str:
        if self._dimensions is not None:
            vector = truncated(vector, self._dimensions)
        return encoded(vector) if self._is_base64 else vector


def texts_of(given: str | list[Any]) -> list[str]:
    """The texts of an input. Raises BadRequest."""
    if isinstance(given, str):
        return [given]
    if len(given) > MAX_TEXTS:
        raise BadRequest(f'"input" has {len(given)} texts: at most {MAX_TEXTS} are allowed', param="input")
    for number, text in enumerate(given):
        if not isinstance(text, str) or not text:
            raise wrong_text(text, f"input[{number}]")
    return given


def wrong_text(text: object, path: str) -> BadRequest:
    if isinstance(text, int | list):
        return BadRequest(
            '"input" has tokens, and only OpenAI knows what they mean: send texts '
            "(in langchain-openai: check_embedding_ctx_length=False)",
            param="input",
        )
    return BadRequest(f'"{path}" must be a string, not empty', param=path)


def pieces(texts: list[str]) -> Iterator[list[str]]:
    """The texts in lists that fit the API; a longer text goes alone."""
    piece: list[str] = []
    length = 0
    for text in texts:
        if piece and (len(piece) == PIECE_TEXTS or length + len(text) > PIECE_CHARACTERS):
            yield piece
            piece, length = [], 0
        piece.append(text)
        length += len(text)
    yield piece


def in_order(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The embeddings of one answer. Raises UpstreamError."""
    data = answer.get("data")
    if not isinstance(data, list) or not all(isinstance(one, dict) and is_vector(one.get("embedding")) for one in data):
        raise unreadable("it has no embeddings")
    return sorted(data, key=lambda one: count(one, "index"))


def is_vector(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(number, int | float) for number in value)


def truncated(vector: list[float], dimensions: int) -> list[float]:
    """The first dimensions, brought to length 1 again. Raises BadRequest if there are not so many."""
    if dimensions > len(vector):
        raise BadRequest(f'"dimensions" is more than the {len(vector)} that the model has', param="dimensions")
    head = vector[:dimensions]
    length = math.hypot(*head) or 1.0
    return [number / length for number in head]


def encoded(vector: list[float]) -> str:
    """Base64 of little-endian 32-bit numbers."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
