"""OpenAI's chat for an API that speaks so itself: nothing is translated."""

from typing import Final

import orjson

from proxy import sse
from proxy.connector import Chunk, Data
from proxy.dialects.openai.errors import OpenAI
from proxy.errors import BadRequest

#: What a caller puts before the name of a model to have it from the API that serves beside the main one.
UPSTREAM: Final = "chatgpt"
PREFIX: Final = f"{UPSTREAM}/"


class Untranslated(OpenAI):
    """See `proxy.dialects.ChatDialect` and `Reply`."""

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
        """All answers are told alike."""
        return self

    def answer(self, answer: Chunk) -> bytes:
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    def event(self, chunk: Chunk) -> bytes:
        return sse.encode(self.answer(chunk))

    @property
    def end(self) -> bytes:
        return sse.DONE
