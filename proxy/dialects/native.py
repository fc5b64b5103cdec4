"""The native dialect: `{"messages", "generate_parameters"}` in, the API's own answer in an envelope out."""

from typing import Any

import orjson

from proxy import sse
from proxy.connector import Chunk, Data
from proxy.errors import BadRequest, ProxyError

#: Fields of a body. Anything else would be dropped without a word, so it is refused with one.
FIELDS = ("messages", "generate_parameters")


class Native:
    """See `proxy.dialects.ChatDialect`. `app_name` stands in every answer."""

    name = "native"

    def __init__(self, app_name: str) -> None:
        self._app = app_name

    def request(self, body: object) -> Data:
        if not isinstance(body, dict):
            raise BadRequest(
                f'the body must be a JSON object {{"messages": [...], "generate_parameters": {{...}}}}, '
                f"not {json_type(body)}"
            )
        for field in body:
            if field not in FIELDS:
                raise BadRequest(
                    f'unknown field "{field}": parameters of the call belong into "generate_parameters"', param=field
                )
        parameters = body.get("generate_parameters")
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, dict):
            raise BadRequest(
                f'"generate_parameters" must be an object or null, not {json_type(parameters)}',
                param="generate_parameters",
            )
        if "messages" in parameters:
            path = "generate_parameters.messages"
            raise BadRequest(f'"{path}" has no place there: "messages" stand beside "generate_parameters"', param=path)
        return {"messages": messages_of(body), "generate_parameters": parameters}

    def completed(self, data: Data) -> Data:
        return data

    def reply(self, body: bytes) -> "Native":
        """All answers are told alike."""
        return self

    def answer(self, answer: Chunk) -> bytes:
        data = orjson.Fragment(answer) if isinstance(answer, bytes) else answer
        return orjson.dumps({"app": self._app, "status": "ok", "data": data})

    def info(self, info: dict[str, Any]) -> bytes:
        return orjson.dumps({"app": self._app, "status": "ok", "info": info})

    def event(self, chunk: Chunk) -> bytes:
        return sse.encode(chunk if isinstance(chunk, bytes) else orjson.dumps(chunk))

    @property
    def end(self) -> bytes:
        return sse.DONE

    def error(self, error: ProxyError) -> bytes:
        return orjson.dumps({"app": self._app, "status": error.message, "data": {}})

    def error_event(self, error: ProxyError) -> bytes:
        return sse.encode(self.error(error), b"error")


def messages_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages as objects; `[role, text]` pairs become objects. What is in them is the connector's to judge."""
    messages = body.get("messages")
    if messages is None:
        raise BadRequest(
            '"messages" is missing: give a list of [role, text] pairs or message objects', param="messages"
        )
    if not isinstance(messages, list):
        raise BadRequest(f'"messages" must be a list, not {json_type(messages)}', param="messages")
    return [message_of(message, number) for number, message in enumerate(messages)]


def message_of(message: object, number: int) -> dict[str, Any]:
    if isinstance(message, dict):
        return message
    if isinstance(message, list) and len(message) == 2:
        role, content = message
        if isinstance(role, str) and isinstance(content, str):
            return {"role": role, "content": content}
    path = f"messages[{number}]"
    raise BadRequest(f'"{path}" must be a pair of strings [role, text] or an object {{"role", "content"}}', param=path)


def json_type(value: object) -> str:
    """What people call a JSON value's type."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
