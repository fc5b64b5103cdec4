"""OpenAI's chat for an API that speaks so itself: nothing is translated.

But an answer that comes whole where a stream is asked for, as of a connector that does not stream, is told in chunks:
nothing else is understood by those who read streams.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy import sse
from proxy.connector import Chunk, Data
from proxy.dialects.openai.errors import OpenAI
from proxy.dialects.openai.streams import KIND, chunk_choice, numbered
from proxy.errors import BadRequest

#: What a caller puts before the name of a model to have it from the API that serves beside the main one.
UPSTREAM: Final = "chatgpt"
PREFIX: Final = f"{UPSTREAM}/"


class Untranslated(OpenAI):
    """See `proxy.dialects.ChatDialect` and `Reply`; as a reply it knows the body that is answered."""

    def __init__(self, body: bytes = b"{}") -> None:
        self._body = body

    def request(self, body: object) -> Data:
        if not isinstance(body, dict):
            raise BadRequest('the body must be a JSON object {"model", "messages": [...]}')
        parameters = {name: value for name, value in body.items() if name != "messages"}
        if isinstance(model := parameters.get("model"), str):
            parameters["model"] = model.removeprefix(PREFIX)
        return {"messages": body.get("messages"), "generate_parameters": parameters}

    def completed(self, data: Data) -> Data:
        return data

    def reply(self, body: bytes) -> "Untranslated":
        return Untranslated(body)

    def answer(self, answer: Chunk) -> bytes:
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    def event(self, chunk: Chunk) -> bytes:
        if isinstance(chunk, dict) and is_whole(chunk):
            return b"".join(sse.encode(orjson.dumps(each)) for each in chunks(chunk, with_usage=self._wants_usage()))
        return sse.encode(self.answer(chunk))

    def _wants_usage(self) -> bool:
        options = orjson.loads(self._body).get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    @property
    def end(self) -> bytes:
        return sse.DONE


def is_whole(chunk: dict[str, Any]) -> bool:
    """Whether it is no chunk but a whole answer."""
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(isinstance(each, dict) and "message" in each for each in choices)


def chunks(answer: dict[str, Any], *, with_usage: bool) -> Iterator[dict[str, Any]]:
    """A whole answer as the chunks of a stream."""
    heading = {name: value for name, value in answer.items() if name not in ("choices", "usage")} | {"object": KIND}
    for number, choice in enumerate(answer["choices"]):
        index, message = choice.get("index", number), choice.get("message") or {}
        delta = {"role": "assistant", **message, **numbered(message)}
        yield {**heading, "choices": [chunk_choice(index, delta)]}
        yield {**heading, "choices": [chunk_choice(index, {}, choice.get("finish_reason") or "stop")]}
    if with_usage and answer.get("usage"):
        yield {**heading, "choices": [], "usage": answer["usage"]}
