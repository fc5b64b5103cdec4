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
from typing import Final, NoReturn
from urllib.parse import urlencode
from uuid import uuid4

import orjson
from pydantic import SecretStr
from yarl import URL

from proxy.clock import Clock
from proxy.errors import CredentialMissing, CredentialRefused, NoAccount, PassedRefused, UpstreamError, upstream_message
from proxy.limits.local import LocalLimits
from proxy.passed import PassedCredential
from proxy.settings import Settings, SettingsError
from proxy.tokens import NoToken, Token, Tokens, read_token
from proxy.upstream import Upstream, decoded

#: Seconds that a token request may take.
TOKEN_TIMEOUT: Final = 30.0
#: Token requests a minute, of the service's own account and of all that callers bring along: the API takes 10 a second
#: from all of one address. Apart, so that strangers who try out credentials do not keep the service from its own token.
OWN_TOKEN_REQUESTS_RPM: Final = 2 * 60.0
PASSED_TOKEN_REQUESTS_RPM: Final = 7 * 60.0
#: Seconds for which a caller's refused credential is not shown to the API again.
PASSED_PAUSE: Final = 60.0

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

#: Makes the error to raise of the API's refusal of a token request.
Refused = Callable[[UpstreamError], CredentialRefused]


@dataclass(frozen=True, slots=True)
class Credential:
    """The tokens of an account, and the way they come: a key of REFUSED."""

    way: str
    tokens: Tokens
    is_passed: bool = False

    def refused(self, error: UpstreamError) -> CredentialRefused:
        """The error to raise when the API refuses what we have and a fresh token did not help."""
        if not self.is_passed:
            return CredentialRefused(with_reason(REFUSED[self.way], error.body), status=401, body=error.body)
        refusal = passed_refused(error)
        refusal.is_of_call = True
        refusal.answer_headers = error.answer_headers
        return refusal


class TokenRequests:
    """Token requests of one account or of many: so many a second that the API takes them, however many there are."""

    def __init__(self, upstream: Upstream, rpm: float) -> None:
        self._upstream = upstream
        self._limits = LocalLimits(rpm=rpm)

    async def send(self, url: URL, headers: dict[str, str], body: bytes) -> bytes:
        """The answer to one, when it is its turn. Raises UpstreamError."""
        permit = await self._limits.acquire()
        try:
            await permit.gate()
            async with asyncio.timeout(TOKEN_TIMEOUT):
                return await self._upstream.read("POST", url, headers=headers, body=body, is_counted=False)
        except TimeoutError:
            raise UpstreamError(None, message=f"no access token was issued within {TOKEN_TIMEOUT:g} s") from None
        finally:
            permit.release()


def passed_credential(passed: PassedCredential, chosen: Settings, requests: TokenRequests, clock: Clock) -> Credential:
    """The credential that a caller brought along: no setting of the server's own has a part in it."""
    if passed.way == "token":
        return Credential("token", Tokens(None, Token(passed.secret), clock), is_passed=True)
    if passed.way == "key":
        ask = partial(token_for_key, chosen, requests, passed.secret, passed.scope, passed_refused)
    else:
        ask = partial(token_for_password, chosen, requests, basic_of(passed.user, passed.secret), passed_refused)
    return Credential(passed.way, Tokens(ask, clock=clock, pause=PASSED_PAUSE), is_passed=True)


def credential_of(chosen: Settings, requests: TokenRequests, clock: Clock) -> Credential:
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
        ask = partial(token_for_key, chosen, requests, key, chosen.gigachat_scope, refused_key)
        return Credential("key", Tokens(ask, token, clock))
    if basic := user_and_password(chosen):
        ask = partial(token_for_password, chosen, requests, basic, refused_password)
        return Credential("password", Tokens(ask, token, clock))
    if token is not None:
        return Credential("token", Tokens(None, token, clock))
    if chosen.gigachat_cert_file is not None:
        return Credential("certificate", Tokens(None, NoToken(), clock))
    if chosen.gpt2giga_pass_token:
        return Credential("none", Tokens(nobody, clock=clock))
    raise CredentialMissing(MISSING)


async def nobody() -> NoReturn:
    """Where every caller is to bring a credential along."""
    raise NoAccount


def named_by(chosen: Settings) -> list[PassedCredential]:
    """The credentials that the settings name, in the form in which callers bring theirs."""
    key = secret("GIGACHAT_API_KEY", chosen.gigachat_api_key)
    token = secret("GIGACHAT_ACCESS_TOKEN", chosen.gigachat_access_token)
    user, password = chosen.gigachat_user, chosen.gigachat_password
    named = [PassedCredential("key", key, scope=chosen.gigachat_scope)] if key else []
    named += [PassedCredential("token", token)] if token else []
    named += [PassedCredential("password", password.get_secret_value(), user)] if user and password else []
    return named


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
    return basic_of(user, password.get_secret_value()) if user and password else ""


def basic_of(user: str, password: str) -> str:
    """What follows `Basic`; what came in a header need not have been UTF-8."""
    return b64encode(f"{user}:{password}".encode(errors="surrogateescape")).decode()


async def token_for_key(chosen: Settings, requests: TokenRequests, key: str, scope: str, refused: Refused) -> Token:
    headers = {
        "Authorization": f"Basic {key}",
        "RqUID": str(uuid4()),
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }
    return await issued(requests, URL(chosen.gigachat_auth_url), headers, urlencode({"scope": scope}).encode(), refused)


async def token_for_password(chosen: Settings, requests: TokenRequests, basic: str, refused: Refused) -> Token:
    headers = {"Authorization": f"Basic {basic}", "Accept": "application/json"}
    return await issued(requests, URL(f"{chosen.gigachat_base}/token"), headers, b"", refused)


async def issued(requests: TokenRequests, url: URL, headers: dict[str, str], body: bytes, refused: Refused) -> Token:
    """A new token. Raises what `refused` makes of a lasting refusal, or UpstreamError if it may come later."""
    try:
        answer = await requests.send(url, headers, body)
    except CredentialRefused:
        raise  # by the proxy on the way out
    except UpstreamError as error:
        status = error.upstream_status or 0
        if not 400 <= status < 500 or status in PASSING:
            raise
        raise refused(error) from error
    return read_token(decoded(answer))


def refused_key(error: UpstreamError) -> CredentialRefused:
    """Names the setting to blame."""
    if error.upstream_status in UNKNOWN_ADDRESS:
        return no_token(error, "GIGACHAT_AUTH_URL")
    return no_token(error, OAUTH_CODES.get(oauth_code(error.body), "GIGACHAT_API_KEY and GIGACHAT_SCOPE"))


def refused_password(error: UpstreamError) -> CredentialRefused:
    if error.upstream_status in UNKNOWN_ADDRESS:
        return no_token(error, "GIGACHAT_BASE_URL: not every address of the API takes a user and a password")
    return no_token(error, "GIGACHAT_USER and GIGACHAT_PASSWORD")


def no_token(error: UpstreamError, blamed: str) -> CredentialRefused:
    status = error.upstream_status or 0
    told = with_reason(f"no access token is issued ({status}): check {blamed}", error.body)
    return CredentialRefused(told, status=status, body=error.body)


def passed_refused(error: UpstreamError) -> PassedRefused:
    told = with_reason("the API refuses the credential that came in Authorization", error.body)
    return PassedRefused(told, status=error.upstream_status or 401, body=error.body)


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
