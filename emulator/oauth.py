"""Who is calling, and the two ways to a token."""

from __future__ import annotations

import base64
import binascii
import uuid

from emulator.answers import Answer, json_answer
from emulator.calls import Call, fingerprint
from emulator.errors import ApiError, OAuthError
from emulator.options import SCOPES
from emulator.state import State


def caller(state: State, call: Call) -> str:
    """The account behind a call: its client certificate or its token. Raises the API's 401."""
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    if not scheme and call.certificate:
        return f"certificate-{call.certificate}"
    if scheme.lower() != "bearer":
        raise ApiError(401)
    if token in state.options.access_tokens:
        return f"token-{fingerprint(token)}"
    return state.tokens.account(token)


def oauth(state: State, call: Call) -> Answer:
    """`POST /api/v2/oauth`: a key for a token."""
    state.tokens.count_request(call.arrived_ns, state.options.token_rate)
    check_rquid(call.headers.get("RqUID", ""))
    key = checked_key(call.headers.get("Authorization", ""), state.options.credentials)
    check_scope(call.form().get("scope", ""), state.options.scopes or SCOPES)
    token = state.tokens.issue(f"key-{fingerprint(key)}", state.options.token_ttl)
    return json_answer({"access_token": token.text, "expires_at": token.expires_at_ms})


def token(state: State, call: Call) -> Answer:
    """`POST /token`: user and password for a token."""
    state.tokens.count_request(call.arrived_ns, state.options.token_rate)
    user, _, password = basic(call.headers.get("Authorization", "")).partition(":")
    options = state.options
    if not user or (options.user and (user, password) != (options.user, options.password)):
        raise ApiError(401)
    token = state.tokens.issue(f"user-{fingerprint(user)}", options.token_ttl)
    return json_answer({"tok": token.text, "exp": token.expires_at_ms})


def basic(header: str) -> str:
    scheme, _, encoded = header.partition(" ")
    return decoded(encoded) if scheme.lower() == "basic" else ""


def decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def check_rquid(value: str) -> None:
    try:
        is_uuid4 = uuid.UUID(value).version == 4
    except ValueError:
        is_uuid4 = False
    if not is_uuid4:
        raise OAuthError(400, 1, "RqUID data format invalid")


def checked_key(header: str, accepted: tuple[str, ...]) -> str:
    scheme, _, key = header.partition(" ")
    if key in accepted or (key and not accepted and scheme.lower() in {"basic", "bearer"}):
        return key
    if accepted and decoded(key):
        raise OAuthError(401, 6, "credentials doesn't match db data")
    raise OAuthError(401, 4, "Can't decode 'Authorization' header")


def check_scope(scope: str, granted: tuple[str, ...]) -> None:
    if not scope:
        raise OAuthError(400, 5, "scope is empty")
    if scope not in SCOPES:
        raise OAuthError(400, 1, "scope data format invalid")
    if scope not in granted:
        raise OAuthError(400, 7, "scope from db not fully includes consumed scope")
