"""The GigaChat connector: the functions that `proxy/connector.py` describes, for one account made from the settings.

Rule 1: what the caller gives reaches the API and what the API says reaches the caller, unknown fields included.
Rule 2: a call that is refused for its token is sent once more with a fresh one; the pace counts both.
Rule 3: nothing here is global but the default account; `Account` has the same functions for any other.
"""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cache, partial
from typing import Any, Final

import aiohttp
from yarl import URL

from proxy import settings
from proxy.clock import Clock
from proxy.connector import Data, note
from proxy.credentials import (
    OWN_TOKEN_REQUESTS_RPM,
    PASSED_TOKEN_REQUESTS_RPM,
    TokenRequests,
    credential_of,
    named_by,
    passed_credential,
)
from proxy.errors import NoAccount, UpstreamError
from proxy.forwarding import RawCall, RawHead
from proxy.models import Models
from proxy.outbound import Outbound
from proxy.passed import PassedCredential
from proxy.rules import Rule, WrongValue, check
from proxy.settings import Settings
from proxy.tls import Tls
from proxy.tokens import Token
from proxy.upstream import Upstream, chunks_of, decoded, encoded, is_final, raise_for_status, raw_answer

logger = logging.getLogger(__name__)

DIALECT: Final = "gigachat"
# The API's edge may refuse a call without a name.
USER_AGENT: Final = "gigachat-proxy"
PLAIN: Final = {"Accept": "application/json"}
JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}
EVENTS: Final = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Content-Type": "application/json"}

#: What names of accounts are made with: replicas must make the same.
ACCOUNTS: Final = b"gigachat-proxy accounts"
#: The end of a base address.
VERSIONED: Final = re.compile(r"/v\d+$")
# Names of the old host; the new one answers them 404.
NEW_HOST: Final = ".giga.chat"
LEGACY_MODELS: Final = {
    "GigaChat": "GigaChat-2",
    "GigaChat:latest": "GigaChat-2",
    "GigaChat-Plus": "GigaChat-2",
    "GigaChat-Pro": "GigaChat-2-Pro",
    "GigaChat-Max": "GigaChat-2-Max",
}
# What api.giga.chat listed in September 2026: shown while the API cannot be asked.
KNOWN_MODELS: Final = (
    "GigaChat-2",
    "GigaChat-2-Pro",
    "GigaChat-2-Max",
    "GigaChat-3-Lightning",
    "GigaChat-3-Pro",
    "GigaChat-3-Ultra",
    "Embeddings",
    "Embeddings-2",
    "EmbeddingsGigaR",
    "GigaEmbeddings-3B-2025-09",
)

#: What `make check-connector` has to know; see docs/connectors.md.
CHECK: Final = {
    "env": {
        "GIGACHAT_BASE_URL": "{url}/v1",
        "GIGACHAT_AUTH_URL": "{url}/oauth",
        "GIGACHAT_API_KEY": "b25seTpmb3ItdGhlLWNoZWNr",
    },
    "also": {"/oauth": {"access_token": "token-of-the-check", "expires_at": 4102444800000}},
    "invalid": {
        "temperature": {"temperature": -1},
        "max_tokens": {"max_tokens": "many"},
        "messages[0].role": {"messages": [{"role": "stranger", "content": "Hello"}]},
    },
}


# ---- The contract ----


def validate_data(data: Data) -> bool:
    """True. Raises ValueError for what is missing or out of range, TypeError for a wrong type, both with `param`."""
    check(data, DATA)
    for number, message in enumerate(data["messages"]):
        check_content(message, f"messages[{number}]")
    return True


async def request_api(data: Data) -> dict[str, Any]:
    """The API's answer to a chat. Raises UpstreamError."""
    return await default_account().request_api(data)


def stream_api(data: Data) -> AsyncGenerator[bytes, None]:
    """The chunks of a streamed answer, each its JSON as the API wrote it. Raises UpstreamError."""
    return default_account().stream_api(data)


def forward(call: RawCall) -> AsyncGenerator[RawHead | bytes, None]:
    """The API's answer to a call of any of its paths, byte for byte. Raises UpstreamError for 429 and 5xx."""
    return default_account().forward(call)


async def get_info() -> dict[str, Any]:
    """The default model, and the models that the API offers."""
    return await default_account().get_info()


async def request_embeddings(data: dict[str, Any]) -> dict[str, Any]:
    """The API's answer to POST /embeddings with this body. Raises UpstreamError."""
    return await default_account().request_embeddings(data)


async def list_models() -> dict[str, Any]:
    """The API's answer to GET /models, at most ten minutes old. Raises UpstreamError."""
    return await default_account().list_models()


async def get_balance() -> dict[str, Any]:
    """The tokens that are left, by package. Raises UpstreamError: accounts that pay afterwards have none (403)."""
    return await default_account().get_balance()


def open_connector(credential: PassedCredential) -> "Account":
    """The account of a credential that a caller brought along. Asks nobody."""
    return default_account().beside(credential)


def owns(credential: PassedCredential) -> bool:
    """Whether it is the default account's own."""
    return default_account().owns(credential)


def account() -> str:
    """A name of the default account that is the same in every process and tells nobody anything."""
    return default_account().account()


async def issue_token() -> tuple[str, float]:
    """An access token of the API and the seconds that it lasts. Raises UpstreamError."""
    return await default_account().issue_token()


def startup() -> None:
    """Check the settings; asks nobody. Raises CredentialMissing, or SettingsError for one that is of no use."""
    default_account().startup()


async def ready() -> None:
    """Returns if a call could be authorized now. Raises UpstreamError."""
    await default_account().ready()


async def shutdown() -> None:
    if default_account.cache_info().currsize:
        account = default_account()
        default_account.cache_clear()
        await account.shutdown()


@cache
def default_account() -> "Account":
    """The account that the settings describe, made at the first call."""
    return Account(settings.current())


# ---- An account ----


class Account:
    """One GigaChat account: its address, its credential, its defaults. It has the functions of a connector.

    Args:
        passed: the credential, if it is none that the settings name.
        beside: an account with which this one shares the connections, and with all others beside that one the pace of
            token requests.

    Raises:
        CredentialMissing: the settings name no credential.
        SettingsError: they name one that cannot be right.
    """

    DIALECT = DIALECT
    validate_data = staticmethod(validate_data)

    def __init__(
        self,
        chosen: Settings,
        clock: Clock | None = None,
        *,
        passed: PassedCredential | None = None,
        beside: "Account | None" = None,
    ) -> None:
        self._chosen = chosen
        self._passed = passed
        #: The same without its client certificate, for accounts that must not be taken for this one.
        self._bare: Account | None = None
        self._tls = Tls(chosen)
        self._owns_upstream = beside is None
        self._upstream: Upstream = (
            beside._upstream
            if beside
            else Upstream(tls=self._tls, outbound=Outbound(chosen), headers={"User-Agent": USER_AGENT})
        )
        self._passed_requests: TokenRequests = (
            beside._passed_requests if beside else TokenRequests(self._upstream, PASSED_TOKEN_REQUESTS_RPM)
        )
        clock = clock or Clock()
        if passed is None:
            self._credential = credential_of(chosen, TokenRequests(self._upstream, OWN_TOKEN_REQUESTS_RPM), clock)
        else:
            self._credential = passed_credential(passed, chosen, self._passed_requests, clock)
        is_new_host = f".{URL(chosen.gigachat_base).host}".endswith(NEW_HOST)
        self._todays_names = LEGACY_MODELS if is_new_host else {}
        self._models = Models(partial(self._read, "GET", "/models", PLAIN), clock=clock)

    def __repr__(self) -> str:
        return f"<Account: {self._credential!r}>"

    def beside(self, passed: PassedCredential) -> "Account":
        """The account of another credential."""
        if self._credential.way != "certificate":
            return Account(self._chosen, passed=passed, beside=self)
        if self._bare is None:
            # Over our own connections the API would see our certificate, and take its caller for us.
            bare = {"gigachat_cert_file": None, "gigachat_key_file": None, "gigachat_mtls_auth": False}
            self._bare = Account(self._chosen.model_copy(update=bare))
        return self._bare.beside(passed)

    def owns(self, passed: PassedCredential) -> bool:
        """Whether the settings name the same credential."""
        return passed in frozenset(named_by(self._chosen))

    def account(self) -> str:
        """A name that is the same in every process and tells nobody anything."""
        named = [self._passed] if self._passed else named_by(self._chosen)
        return named[0].fingerprint(ACCOUNTS) if named else ""

    async def issue_token(self) -> tuple[str, float]:
        """Its access token, for a caller who has shown its credential, and the seconds that it lasts."""
        token, life = await self._credential.tokens.fresh()
        return token.text, life

    def startup(self) -> None:
        self._tls.check()
        if not self._chosen.gigachat_verify_ssl_certs:
            logger.warning(
                "GIGACHAT_VERIFY_SSL_CERTS=false: the API's certificate is not verified, so anybody on the way can "
                "read the key and the answers. Name your own authority in GIGACHAT_CA_BUNDLE_FILE instead",
                extra={"action": "tls_unverified"},
            )

    async def ready(self) -> None:
        with suppress(NoAccount):  # every caller brings a credential along
            await self._credential.tokens.get()

    async def shutdown(self) -> None:
        await self._models.close()
        await self._credential.tokens.close()
        if self._bare is not None:
            await self._bare.shutdown()
        if self._owns_upstream:
            await self._upstream.close()

    async def request_api(self, data: Data) -> dict[str, Any]:
        body = self._body(data)
        if body.get("stream"):
            body["stream"] = False
        return decoded(await self._read("POST", "/chat/completions", JSON, encoded(body)))

    async def stream_api(self, data: Data) -> AsyncGenerator[bytes, None]:
        body = self._body(data) | {"stream": True}
        async with (
            self._open("POST", self._url("/chat/completions"), EVENTS, encoded(body)) as response,
            aclosing(chunks_of(response)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def forward(self, call: RawCall) -> AsyncGenerator[RawHead | bytes, None]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **dict(call.headers)}
        url = self._address(call.version, call.path, call.query)
        async with (
            self._open(call.method, url, headers, call.body, is_raw=True) as response,
            aclosing(raw_answer(response)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def request_embeddings(self, data: dict[str, Any]) -> dict[str, Any]:
        return decoded(await self._read("POST", "/embeddings", JSON, encoded(data)))

    async def list_models(self) -> dict[str, Any]:
        return await self._models.answer()

    async def get_balance(self) -> dict[str, Any]:
        told = decoded(await self._read("GET", "/balance", PLAIN)).get("balance")
        packages = told if isinstance(told, list) else []
        return {each["usage"]: each["value"] for each in packages if is_package(each)}

    async def get_info(self) -> dict[str, Any]:
        return {
            "default-model": self._chosen.gigachat_model,
            "avail-models": await self._models.names(KNOWN_MODELS),
        }

    def _body(self, data: Data) -> dict[str, Any]:
        """The API's body: everything the caller gave, and the defaults for what it did not."""
        body: dict[str, Any] = {**(data.get("generate_parameters") or {}), "messages": data["messages"]}
        if body.get("model") is None and not brings_own_model(body):
            body["model"] = self._chosen.gigachat_model
        elif (today := self._todays_names.get(str(body.get("model")))) is not None:
            note("X-Model-Mapped", f"{body['model']} -> {today}")
            body["model"] = today
        if body.get("profanity_check") is None and self._chosen.gigachat_profanity_check is not None:
            body["profanity_check"] = self._chosen.gigachat_profanity_check
        if body.get("flags") is None and self._chosen.gigachat_flags:
            body["flags"] = self._chosen.gigachat_flags
        return body

    async def _read(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
        """The whole body of the API's 200 to an authorized call. Raises UpstreamError."""
        url = self._url(path)
        for is_last in (False, True):
            token = await self._credential.tokens.get()
            try:
                return await self._upstream.read(method, url, headers={**headers, **token.headers}, body=body)
            except UpstreamError as error:
                self._give_up(token, error, is_last)
        raise AssertionError("the last refusal is raised")

    @asynccontextmanager
    async def _open(
        self, method: str, url: URL, headers: dict[str, str], body: bytes | None, *, is_raw: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The same, its body unread; the API's own refusals too if `is_raw`."""
        for is_last in (False, True):
            token = await self._credential.tokens.get()
            headers = {**headers, **token.headers}
            async with self._upstream.open(method, url, headers=headers, body=body, is_raw=is_raw) as response:
                try:
                    if not (is_raw and is_final(response.status)):
                        await raise_for_status(response)
                except UpstreamError as error:
                    self._give_up(token, error, is_last)
                    continue
                yield response
                return

    def _give_up(self, token: Token, error: UpstreamError, is_last: bool) -> None:
        """After a 401 the call may be sent once more, with another token. Raises what else is wrong."""
        if error.upstream_status != 401:
            raise error
        if is_last or not self._credential.tokens.give_up(token):
            raise self._credential.refused(error) from error

    def _url(self, path: str) -> URL:
        return URL(self._chosen.gigachat_base + path)

    def _address(self, version: str, path: str, query: str) -> URL:
        """An API path at its own origin. The base ends in /v1; version 2 stands beside it."""
        base = self._chosen.gigachat_base
        if VERSIONED.search(base):
            base = VERSIONED.sub(f"/{version}", base)
        return URL(base + path + (f"?{query}" if query else ""), encoded=True)


def is_package(told: object) -> bool:
    """Whether it is what the API says of one package: `{"usage": "GigaChat", "value": 900000}`."""
    return isinstance(told, dict) and isinstance(told.get("usage"), str) and isinstance(told.get("value"), int | float)


def brings_own_model(body: dict[str, Any]) -> bool:
    """An assistant or a thread has its model; the API refuses another one."""
    storage = body.get("storage")
    return isinstance(storage, dict) and bool(storage.get("assistant_id") or storage.get("thread_id"))


# ---- What a chat may look like: facts of the API, section 1.3 ----

ROLES: Final = ("system", "user", "assistant", "function", "search_result", "function_in_progress")
EFFORTS: Final = ("low", "medium", "high")
FUNCTION_NAME: Final = re.compile(r"[A-Za-z_.\-][A-Za-z0-9_.\-]*")
NUMBER: Final = (int, float)
INFINITY: Final = float("inf")

ANYTHING: Final = Rule("an object", (dict,))
TEXT: Final = Rule("a string", (str,))
SWITCH: Final = Rule("true or false", (bool,))
FILE_ID: Final = Rule("the id of an uploaded file, a string", (str,), is_required=True)
NAMED_FUNCTION: Final = Rule(
    "a name of Latin letters, digits (not first), _ - and .",
    (str,),
    lambda name: FUNCTION_NAME.fullmatch(name) is not None,
    is_required=True,
)

MESSAGE: Final = Rule(
    'an object such as {"role": "user", "content": "..."}',
    (dict,),
    is_required=True,
    fields={
        "role": Rule(f"one of {', '.join(ROLES)}", (str,), lambda role: role in ROLES, is_required=True),
        "content": TEXT,
        "attachments": Rule("a list of ids of uploaded files", (list,), items=FILE_ID),
        "function_call": Rule('an object such as {"name": "...", "arguments": {...}}', (dict,)),
        "functions_state_id": TEXT,
        "name": TEXT,
    },
)
PARAMETERS: Final = Rule(
    "an object",
    (dict,),
    fields={
        "model": Rule("the name of a model, not empty", (str,), lambda name: bool(name.strip())),
        "temperature": Rule("a number above 0 (0.001 is as good as 0)", NUMBER, lambda value: 0 < value < INFINITY),
        "top_p": Rule("a number from 0 to 1", NUMBER, lambda value: 0 <= value <= 1),
        "max_tokens": Rule("a whole number above 0", (int,), lambda value: value > 0),
        "repetition_penalty": Rule("a number above 0", NUMBER, lambda value: 0 < value < INFINITY),
        "update_interval": Rule("seconds, a number not below 0", NUMBER, lambda value: 0 <= value < INFINITY),
        "n": Rule("a whole number above 0", (int,), lambda value: value > 0),
        "stream": SWITCH,
        "profanity_check": SWITCH,
        "function_call": Rule(
            '"none", "auto" or an object such as {"name": "..."}',
            (str, dict),
            lambda value: isinstance(value, dict) or value in ("none", "auto"),
        ),
        "functions": Rule(
            "a list of functions",
            (list,),
            items=Rule(
                'an object such as {"name": "...", "parameters": {...}}',
                (dict,),
                is_required=True,
                fields={"name": NAMED_FUNCTION, "description": TEXT, "parameters": ANYTHING},
            ),
        ),
        "response_format": Rule('an object such as {"type": "json_schema", "schema": {...}}', (dict,)),
        "reasoning_effort": Rule(f"one of {', '.join(EFFORTS)}", (str,), lambda effort: effort in EFFORTS),
        "storage": ANYTHING,
        "function_ranker": ANYTHING,
        "attachments": Rule("a list of ids of uploaded files", (list,), items=FILE_ID),
        "flags": Rule("a list", (list,)),
    },
)
DATA: Final = Rule(
    'an object such as {"messages": [...], "generate_parameters": {...}}',
    (dict,),
    is_required=True,
    fields={
        "messages": Rule("a list of messages, not empty", (list,), bool, is_required=True, items=MESSAGE),
        "generate_parameters": PARAMETERS,
    },
)


def check_content(message: dict[str, Any], path: str) -> None:
    """Raises WrongValue for a message that says nothing: no content, no function call, no file."""
    if message.get("content") is None and not message.get("function_call") and not message.get("attachments"):
        raise WrongValue(
            f"{path}.content is missing: it must be a string, unless the message has a function_call or attachments",
            f"{path}.content",
        )
