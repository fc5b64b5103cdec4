"""GigaChat's own dialect: the API's body in, the API's answer out, for clients that believe to talk to the API."""

import orjson

from proxy import sse
from proxy.connector import Chunk, Data
from proxy.dialects.native import json_type
from proxy.errors import BadRequest, KeyRefused, ProxyError, Unauthorized


class GigaChat:
    """See `proxy.dialects.Dialect`."""

    name = "gigachat"

    def request(self, body: object) -> Data:
        if not isinstance(body, dict):
            raise BadRequest(f'the body must be a JSON object {{"messages": [...], ...}}, not {json_type(body)}')
        parameters = {name: value for name, value in body.items() if name != "messages"}
        return {"messages": body.get("messages"), "generate_parameters": parameters}

    def answer(self, answer: Chunk) -> bytes:
        return answer if isinstance(answer, bytes) else orjson.dumps(answer)

    def event(self, chunk: Chunk) -> bytes:
        return sse.encode(self.answer(chunk))

    @property
    def end(self) -> bytes:
        return sse.DONE

    def error(self, error: ProxyError) -> bytes:
        return orjson.dumps({"status": error.status, "message": error.message})

    def error_event(self, error: ProxyError) -> None:
        """None: the API has no such event, and its SDK takes any other for a broken chunk."""


class TokenRequest(GigaChat):
    """The same for `/oauth`, where the API tells a failure by a number of its own and without its status."""

    def error(self, error: ProxyError) -> bytes:
        number = 6 if isinstance(error, KeyRefused) else 4 if isinstance(error, Unauthorized) else error.status
        return orjson.dumps({"code": number, "message": error.message})
