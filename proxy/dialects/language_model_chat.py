"""LanguageModelChat's dialect: `{"model", "messages"}` in, the same with the assistant's message appended out."""

from typing import Any

import orjson

from proxy.connector import Chunk, Data
from proxy.dialects.native import json_type, messages_of
from proxy.errors import BadRequest, ProxyError, UpstreamError


class LanguageModelChat:
    """See `proxy.dialects.ChatDialect`. `system` is put first where there is no system message; "": nothing is."""

    name = "language-model-chat"

    def __init__(self, system: str) -> None:
        self._system = system

    def request(self, body: object) -> Data:
        if not isinstance(body, dict):
            raise BadRequest(f'the body must be a JSON object {{"model", "messages": [...]}}, not {json_type(body)}')
        if body.get("stream"):
            raise BadRequest(
                'there are no streams here: leave "stream" out, or use /v1/chat/completions', param="stream"
            )
        parameters = {name: value for name, value in body.items() if name != "messages"}
        return {"messages": messages_of(body), "generate_parameters": parameters}

    def completed(self, data: Data) -> Data:
        """The operator's system message comes first only now, so that the caller's are told by their own numbers."""
        messages: list[dict[str, Any]] = data["messages"]
        if not self._system or any(message.get("role") == "system" for message in messages):
            return data
        return {**data, "messages": [{"role": "system", "content": self._system}, *messages]}

    def reply(self, body: bytes) -> "Appended":
        return Appended(self, body)

    def error(self, error: ProxyError) -> bytes:
        # Parameters stand beside the messages here, and so they are named.
        return orjson.dumps({"error": error.message.removeprefix("generate_parameters.")})

    def error_event(self, error: ProxyError) -> None:
        """None: there are no streams."""


class Appended:
    """See `proxy.dialects.Reply`: the conversation as it was sent, and the answer."""

    def __init__(self, dialect: LanguageModelChat, body: bytes) -> None:
        self._dialect = dialect
        self._body = body

    def answer(self, answer: Chunk) -> bytes:
        told: Any = orjson.loads(answer) if isinstance(answer, bytes) else answer
        try:
            message = told["choices"][0]["message"]
        except (LookupError, TypeError):
            raise UpstreamError(None, message="the upstream's answer has no message in it") from None
        asked = self._dialect.completed(self._dialect.request(orjson.loads(self._body)))
        model = asked["generate_parameters"].get("model") or told.get("model")
        return orjson.dumps({"model": model, "messages": [*asked["messages"], message]})

    def event(self, chunk: Chunk) -> bytes:
        return self.answer(chunk)

    @property
    def end(self) -> bytes:
        return b""
