"""Who may ask, as a description tells it: the keys there are, and which of them an operation wants."""

from typing import Final

from proxy.openapi.headers import Described
from proxy.openapi.operations import Who

#: How callers send a key of the service, and operators theirs.
KEYS: Final = ("key", "x-api-key", "api-key", "x-goog-api-key")
OPERATOR_KEYS: Final = ("operator", "operator-x-api-key")


def security_of(who: Who, *, has_keys: bool, has_operator: bool) -> list[dict[str, list[str]]]:
    """Ways to be let in; an empty one: without any key."""
    callers = KEYS if has_keys else ()
    operators = OPERATOR_KEYS if has_operator or has_keys else ()
    names = {
        Who.ANYBODY: (),
        Who.CALLER: callers,
        Who.EITHER: (*callers, *operators),
        Who.READER: (*callers, *operators),
        Who.OPERATOR: operators,
    }[who]
    is_free = who is Who.READER or (who is Who.EITHER and not has_keys)
    ways: list[dict[str, list[str]]] = [{name: []} for name in names]
    return [{}, *ways] if is_free and ways else ways


def security_schemes() -> Described:
    def header(name: str, text: str) -> Described:
        return {"type": "apiKey", "in": "header", "name": name, "description": text}

    a_key, operators = "A key of PROXY_API_KEYS.", "The operator's key, ADMIN_API_KEY."
    return {
        "key": {"type": "http", "scheme": "bearer", "description": a_key},
        "x-api-key": header("X-API-Key", a_key),
        "api-key": header("api-key", a_key),
        "x-goog-api-key": header("x-goog-api-key", a_key),
        "operator": {"type": "http", "scheme": "bearer", "description": operators},
        "operator-x-api-key": header("X-API-Key", operators),
    }
