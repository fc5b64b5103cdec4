"""Failures as OpenAI's clients read them: an envelope around message, type, param and code.

The SDK raises its typed exceptions by the status; programs look at the code, for some of which OpenAI has words.
"""

from typing import Any

import orjson

from proxy import sse
from proxy.errors import ProxyError, Unauthorized, UpstreamError

#: Statuses that have a type of their own; other 4xx are invalid requests, 5xx the server's errors.
TYPES = {402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
#: Codes for the refusals of the API, by its status.
UPSTREAM_CODES = {402: "insufficient_quota", 413: "context_length_exceeded"}
#: Where the connector looks for what callers write at the top level.
INNER = "generate_parameters."


class OpenAI:
    """See `proxy.dialects.Dialect`."""

    name = "openai"

    def error(self, error: ProxyError) -> bytes:
        return orjson.dumps(envelope(error))

    def error_event(self, error: ProxyError) -> bytes:
        """The SDK raises APIError for an event that holds an `error`."""
        return sse.encode(self.error(error))


def envelope(error: ProxyError) -> dict[str, Any]:
    """The body of an error answer."""
    param = getattr(error, "param", None)
    told = {
        "message": error.message.replace(INNER, ""),
        "type": kind_of(error.status),
        "param": param.removeprefix(INNER) if param else None,
        "code": code_of(error),
    }
    return {"error": told}


def kind_of(status: int) -> str:
    return TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def code_of(error: ProxyError) -> str:
    """OpenAI's word for it where there is one, else ours."""
    if isinstance(error, Unauthorized) or error.status == 401:
        return "invalid_api_key"
    if error.status == 429:
        return "rate_limit_exceeded"
    if isinstance(error, UpstreamError):
        if error.upstream_status == 404 and "model" in error.message.lower():
            return "model_not_found"
        return UPSTREAM_CODES.get(error.upstream_status or 0, error.code)
    return error.code
