"""Every refusal in the API's own words."""

from __future__ import annotations

from typing import Any

from emulator.answers import Answer, json_answer

# What the API says when it says no more than the status.
TEXTS = {
    400: "Your request contains invalid JSON syntax.",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Permission denied",
    404: "No such model",
    413: "Payload too large",
    422: "Invalid params",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


class ApiError(Exception):
    """A refusal of the API: `{"status", "message"}`."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or TEXTS.get(status, "Error"))
        self.status = status

    @property
    def body(self) -> dict[str, Any]:
        return {"status": self.status, "message": str(self)}

    @property
    def answer(self) -> Answer:
        return json_answer(self.body, self.status)


class OAuthError(ApiError):
    """A refusal of the token service, which has a shape of its own: `{"code", "message"}`."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, message)
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        return {"code": self.code, "message": str(self)}


def invalid_json() -> ApiError:
    """Also what the API says of every body of a wrong shape."""
    return ApiError(400)


def invalid_params(what: str) -> ApiError:
    return ApiError(422, f"Invalid params: {what}")
