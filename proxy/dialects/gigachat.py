"""GigaChat's own dialect, for clients that believe to talk to the API: its bodies pass as they are, so only our own
errors are written in it."""

import orjson

from proxy.errors import KeyRefused, PassedRefused, ProxyError, Unauthorized


class GigaChat:
    """See `proxy.dialects.Dialect`."""

    name = "gigachat"

    def error(self, error: ProxyError) -> bytes:
        return orjson.dumps({"status": error.status, "message": error.message})

    def error_event(self, error: ProxyError) -> None:
        """None: the API has no such event, and its SDK takes any other for a broken chunk."""


class TokenRequest(GigaChat):
    """The same for `/oauth`, where the API tells a failure by a number of its own and without its status."""

    def error(self, error: ProxyError) -> bytes:
        number = (
            6
            if isinstance(error, KeyRefused | PassedRefused)
            else 4
            if isinstance(error, Unauthorized)
            else error.status
        )
        return orjson.dumps({"code": number, "message": error.message})
