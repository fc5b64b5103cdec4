"""The ways to authorize at GigaChat, side by side, and whose fault a refusal is.

| way         | settings                         | how                                                         |
|-------------|----------------------------------|-------------------------------------------------------------|
| certificate | GIGACHAT_MTLS_AUTH, or none else | the TLS handshake says it all: no Authorization header      |
| key         | GIGACHAT_API_KEY                 | POST GIGACHAT_AUTH_URL, Basic, form scope; 30 minutes       |
| password    | GIGACHAT_USER, GIGACHAT_PASSWORD | POST {base}/token, Basic                                    |
| token       | GIGACHAT_ACCESS_TOKEN            | as it is; once refused, the key or the password takes over  |
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlencode
from uuid import uuid4

import orjson
from pydantic import SecretStr
from yarl import URL

from proxy.clock import Clock
from proxy.errors import CredentialMissing, CredentialRefused, UpstreamError, upstream_message
from proxy.settings import Settings, SettingsError
from proxy.tokens import NoToken, Token, Tokens, read_token
from proxy.upstream import Upstream, decoded

#: Seconds that a token request may take.
TOKEN_TIMEOUT: Final = 30.0

MISSING: Final = (
    "GigaChat needs a credential: put GIGACHAT_API_KEY=<your authorization key> into assets/env (or the environment), "
    "or start with --sandbox to try the service on its built-in emulator"
)
# What to say when the API itself refuses what it has been shown.
REFUSED: Final = {
    "certificate": "the API refuses the client certificate: check GIGACHAT_CERT_FILE, or whether the API needs "
    "GIGACHAT_API_KEY too",
    "key": "the API refuses an access token that was just issued for GIGACHAT_API_KEY: check GIGACHAT_SCOPE, and that "
    "GIGACHAT_BASE_URL and GIGACHAT_AUTH_URL belong together",
    "password": "the API refuses an access token that was just issued for GIGACHAT_USER: check GIGACHAT_BASE_URL",
    "token": "the API refuses GIGACHAT_ACCESS_TOKEN: put a fresh one there, or set GIGACHAT_API_KEY instead, for which "
    "tokens are renewed",
}
# The `code` in the body of an OAuth error: what it complains of.
OAUTH_CODES: Final = {
    1: "GIGACHAT_SCOPE",
    4: "GIGACHAT_API_KEY",
    5: "GIGACHAT_SCOPE",
    6: "GIGACHAT_API_KEY",
    7: "GIGACHAT_SCOPE",
}
# These pass by themselves; any other 4xx to a token request does not.
PASSING: Final = frozenset({408, 425, 429})
UNKNOWN_ADDRESS: Final = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class Credential:
    """The tokens of an account, and the way they come: a key of REFUSED."""

    way: str
    tokens: Tokens

    def refused(self, error: UpstreamError) -> CredentialRefused:
        """The error to raise when the API refuses what we have and a fresh token did not help."""
        return CredentialRefused(with_reason(REFUSED[self.way], error.body), status=401, body=error.body)


def credential_of(chosen: Settings, upstream: Upstream, clock: Clock) -> Credential:
    """The credential that the settings name. Raises CredentialMissing, or SettingsError for half of one."""
    if chosen.gigachat_mtls_auth:
        if chosen.gigachat_cert_file is None:
            raise SettingsError(
                "GIGACHAT_MTLS_AUTH=true needs GIGACHAT_CERT_FILE, and GIGACHAT_KEY_FILE unless it is in it"
            )
        return Credential("certificate", Tokens(None, NoToken(), clock))
    ready = secret("GIGACHAT_ACCESS_TOKEN", chosen.gigachat_access_token)
    token = Token(ready) if ready else None
    if key := secret("GIGACHAT_API_KEY", chosen.gigachat_api_key):
        return Credential("key", Tokens(partial(token_for_key, chosen, upstream, key), token, clock))
    if basic := user_and_password(chosen):
        return Credential("password", Tokens(partial(token_for_password, chosen, upstream, basic), token, clock))
    if token is not None:
        return Credential("token", Tokens(None, token, clock))
    if chosen.gigachat_cert_file is not None:
        return Credential("certificate", Tokens(None, NoToken(), clock))
    raise CredentialMissing(MISSING)


def secret(name: str, value: SecretStr | None) -> str:
    """What goes into a header. Raises SettingsError if it cannot."""
    text = value.get_secret_value().strip() if value else ""
    text = text.removeprefix("Basic ").removeprefix("Bearer ")
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise SettingsError(f"{name} has a space, a line break or a non-Latin letter in it: copy it once more")
    return text


def user_and_password(chosen: Settings) -> str:
    user, password = chosen.gigachat_user, chosen.gigachat_password
    if bool(user) != bool(password):
        raise SettingsError("GIGACHAT_USER and GIGACHAT_PASSWORD are of use only together")
    return b64encode(f"{user}:{password.get_secret_value()}".encode()).decode() if user and password else ""


async def token_for_key(chosen: Settings, upstream: Upstream, key: str) -> Token:
    headers = {
        "Authorization": f"Basic {key}",
        "RqUID": str(uuid4()),
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    form = urlencode({"scope": chosen.gigachat_scope}).encode()
    return await issued(upstream, URL(chosen.gigachat_auth_url), headers, form, blame_for_key)


async def token_for_password(chosen: Settings, upstream: Upstream, basic: str) -> Token:
    headers = {"Authorization": f"Basic {basic}", "Accept": "application/json"}
    return await issued(upstream, URL(f"{chosen.gigachat_base}/token"), headers, b"", blame_for_password)


async def issued(
    upstream: Upstream, url: URL, headers: dict[str, str], body: bytes, blame: Callable[[UpstreamError], str]
) -> Token:
    """A new token. Raises CredentialRefused naming the setting to blame, or UpstreamError if it may come later."""
    try:
        async with asyncio.timeout(TOKEN_TIMEOUT):
            answer = await upstream.read("POST", url, headers=headers, body=body, is_counted=False)
    except TimeoutError:
        raise UpstreamError(None, message=f"no access token was issued within {TOKEN_TIMEOUT:g} s") from None
    except UpstreamError as error:
        status = error.upstream_status or 0
        if not 400 <= status < 500 or status in PASSING:
            raise
        told = with_reason(f"no access token is issued ({status}): check {blame(error)}", error.body)
        raise CredentialRefused(told, status=status, body=error.body) from error
    return read_token(decoded(answer))


def blame_for_key(error: UpstreamError) -> str:
    if error.upstream_status in UNKNOWN_ADDRESS:
        return "GIGACHAT_AUTH_URL"
    return OAUTH_CODES.get(oauth_code(error.body), "GIGACHAT_API_KEY and GIGACHAT_SCOPE")


def blame_for_password(error: UpstreamError) -> str:
    if error.upstream_status in UNKNOWN_ADDRESS:
        return "GIGACHAT_BASE_URL: not every address of the API takes a user and a password"
    return "GIGACHAT_USER and GIGACHAT_PASSWORD"


def oauth_code(body: bytes) -> int:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return 0
    code = told.get("code") if isinstance(told, dict) else 0
    return code if isinstance(code, int) else 0


def with_reason(sentence: str, body: bytes) -> str:
    reason = upstream_message(body)
    return f'{sentence} (the API says: "{reason}")' if reason else sentence
