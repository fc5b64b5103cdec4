"""The connector to any API that speaks like OpenAI's: OpenAI, OpenRouter, DeepSeek, vLLM, llama.cpp, Ollama and so on.

Rule 1: nothing is translated: what the caller gives reaches the API, and its answers come back as it wrote them.
Rule 2: only what every such API refuses is refused here; the others' own parameters pass.
Rule 3: a 429 pauses the line if waiting helps; one that no waiting cures is told to the caller.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import cache, partial
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from proxy import settings
from proxy.clock import Clock
from proxy.connector import Data
from proxy.credentials import secret, with_reason
from proxy.errors import CredentialMissing, CredentialRefused, UpstreamError, upstream_message
from proxy.forwarding import RawCall, RawHead
from proxy.models import Models
from proxy.outbound import Outbound, is_this_machine
from proxy.rules import Rule, check
from proxy.settings import Settings
from proxy.tls import Tls
from proxy.upstream import Upstream, chunks_of, decoded, encoded, is_final, raise_for_status, raw_answer

DIALECT: Final = "openai"
USER_AGENT: Final = "gigachat-proxy"
JSON: Final = {"Accept": "application/json", "Content-Type": "application/json"}
EVENTS: Final = {"Accept": "text/event-stream", "Content-Type": "application/json"}

MISSING: Final = (
    "the API at URL_GPT needs a key: put API_KEY=<your key> into assets/env (or the environment); "
    "if a server of your own asks for none, any word will do"
)
REFUSED: Final = "the API refuses API_KEY: check it, and that it belongs to the API at URL_GPT"
WANTED: Final = "the API asks for a key: put API_KEY=<your key> into assets/env (or the environment)"

#: What a 429 of OpenAI is about, by `error.type` or `error.code`, if there is nothing left to spend.
SPENT: Final = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
NOTHING_LEFT: Final = "the account of API_KEY has nothing left to spend"
#: How a 429 of OpenAI begins if the request alone asks for more tokens than a minute has.
TOO_LARGE: Final = "Request too large"

#: What `make check-connector` has to know; see docs/connectors.md.
CHECK: Final = {
    "env": {"URL_GPT": "{url}/v1", "API_KEY": "any-key-will-do"},
    "also": {"/v1/models": {"object": "list", "data": [{"id": "scripted", "object": "model"}]}},
    "invalid": {
        "temperature": {"temperature": 3},
        "max_tokens": {"max_tokens": "many"},
        "messages[0].role": {"messages": [{"content": "Hello"}]},
    },
}


# ---- The contract ----


def validate_data(data: Data) -> bool:
    """True. Raises ValueError for what is missing or out of range, TypeError for a wrong type, both with `param`."""
    check(data, DATA)
    return True


async def request_api(data: Data) -> dict[str, Any]:
    """The API's answer to a chat. Raises UpstreamError."""
    return await default_account().request_api(data)


def stream_api(data: Data) -> AsyncGenerator[bytes, None]:
    """The chunks of a streamed answer, each its JSON as the API wrote it. Raises UpstreamError."""
    return default_account().stream_api(data)


async def request_embeddings(data: dict[str, Any]) -> dict[str, Any]:
    """The API's answer to POST /embeddings with this body. Raises UpstreamError."""
    return await default_account().request_embeddings(data)


def forward(call: RawCall) -> AsyncGenerator[RawHead | bytes, None]:
    """The API's answer to a call of any of its paths, byte for byte. Raises UpstreamError for 429 and 5xx."""
    return default_account().forward(call)


async def get_info() -> dict[str, Any]:
    """The default model, and the models that the API offers."""
    return await default_account().get_info()


async def list_models() -> dict[str, Any]:
    """The API's answer to GET /models, at most ten minutes old. Raises UpstreamError."""
    return await default_account().list_models()


def startup() -> None:
    """Check the settings; asks nobody. Raises CredentialMissing, or SettingsError for a key that cannot be one."""
    default_account().startup()


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
    """One account at one API: its address, its key, its default model. It has the functions of a connector.

    Raises:
        SettingsError: API_KEY cannot be a key.
    """

    DIALECT = DIALECT
    validate_data = staticmethod(validate_data)

    def __init__(self, chosen: Settings, clock: Clock | None = None) -> None:
        self._base = chosen.gpt_base
        self._model = chosen.chatgpt_model
        key = secret("API_KEY", chosen.api_key)
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._tls = Tls(chosen)
        self._upstream = Upstream(tls=self._tls, outbound=Outbound(chosen), headers={"User-Agent": USER_AGENT})
        self._models = Models(partial(self._read, "GET", "/models"), clock=clock or Clock())

    def __repr__(self) -> str:
        return f"<Account: at {URL(self._base).host}, {'by key' if self._authorization else 'without a key'}>"

    def startup(self) -> None:
        base = URL(self._base)
        if not self._authorization and not is_this_machine(base.host or ""):
            raise CredentialMissing(MISSING)
        self._tls(base)  # now, not while the first caller waits

    async def shutdown(self) -> None:
        await self._models.close()
        await self._upstream.close()

    async def request_api(self, data: Data) -> dict[str, Any]:
        body = self._body(data)
        if body.get("stream"):
            body["stream"] = False
        return decoded(await self._read("POST", "/chat/completions", encoded(body)))

    async def stream_api(self, data: Data) -> AsyncGenerator[bytes, None]:
        body = encoded(self._body(data) | {"stream": True})
        async with (
            self._open("POST", self._url("/chat/completions"), EVENTS, body) as response,
            aclosing(chunks_of(response)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def request_embeddings(self, data: dict[str, Any]) -> dict[str, Any]:
        return decoded(await self._read("POST", "/embeddings", encoded(data)))

    async def forward(self, call: RawCall) -> AsyncGenerator[RawHead | bytes, None]:
        """The API's version is in its base address already; the call's own does not count."""
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **dict(call.headers)}
        url = self._url(call.path + (f"?{call.query}" if call.query else ""))
        async with (
            self._open(call.method, url, headers, call.body, is_raw=True) as response,
            aclosing(raw_answer(response)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def list_models(self) -> dict[str, Any]:
        return await self._models.answer()

    async def get_info(self) -> dict[str, Any]:
        return {"default-model": self._model, "avail-models": await self._models.names([self._model])}

    def _body(self, data: Data) -> dict[str, Any]:
        """The API's body: everything the caller gave, and a model if it named none."""
        body: dict[str, Any] = {**(data.get("generate_parameters") or {}), "messages": data["messages"]}
        if body.get("model") is None:
            body["model"] = self._model
        return body

    async def _read(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The whole body of the API's 200. Raises UpstreamError."""
        async with self._open(method, self._url(path), JSON, body) as response:
            return await response.read()

    @asynccontextmanager
    async def _open(
        self, method: str, url: URL, headers: dict[str, str], body: bytes | None, *, is_raw: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The API's 200, its body unread; its own refusals too if `is_raw`. Raises UpstreamError."""
        headers = {**headers, **self._authorization}
        async with self._upstream.open(method, url, headers=headers, body=body, is_raw=is_raw) as response:
            if not (is_raw and is_final(response.status)):
                await self._raise_for_status(response)
            yield response

    async def _raise_for_status(self, response: aiohttp.ClientResponse) -> None:
        try:
            await raise_for_status(response)
        except UpstreamError as error:
            if error.upstream_status == 401:
                # Not in the API's words, nor with them behind it: they may repeat the key.
                raise CredentialRefused(REFUSED if self._authorization else WANTED) from None
            if (lasting := lasting_refusal(error)) is not None:
                raise lasting from error
            raise

    def _url(self, path: str) -> URL:
        return URL(self._base + path, encoded=True)


def lasting_refusal(error: UpstreamError) -> UpstreamError | None:
    """What a 429 that no waiting cures is to its caller: a 402 if nothing is left to spend, a 413 if it asks too much.

    None for any other refusal.
    """
    if error.upstream_status != 429:
        return None
    if kinds_of(error.body) & SPENT:
        lasting = UpstreamError(402, error.body, message=with_reason(NOTHING_LEFT, error.body))
    elif upstream_message(error.body).startswith(TOO_LARGE):
        lasting = UpstreamError(413, error.body)
    else:
        return None
    lasting.answer_headers = error.answer_headers
    return lasting


def kinds_of(body: bytes) -> set[str]:
    """`error.type` and `error.code` of an error's body."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return set()
    error = told.get("error") if isinstance(told, dict) else None
    kinds = (error.get("type"), error.get("code")) if isinstance(error, dict) else ()
    return {kind for kind in kinds if isinstance(kind, str)}


# ---- What every such API agrees on: https://platform.openai.com/docs/api-reference/chat ----

NUMBER: Final = (int, float)

OBJECT: Final = Rule("an object", (dict,))
TEXT: Final = Rule("a string", (str,))
SWITCH: Final = Rule("true or false", (bool,))
WHOLE: Final = Rule("a whole number", (int,))
PENALTY: Final = Rule("a number from -2 to 2", NUMBER, lambda value: -2 <= value <= 2)
OBJECTS: Final = Rule("a list of objects", (list,), items=Rule("an object", (dict,), is_required=True))

MESSAGE: Final = Rule(
    'an object such as {"role": "user", "content": "..."}',
    (dict,),
    is_required=True,
    fields={
        "role": Rule('a word such as "user"', (str,), bool, is_required=True),
        "content": Rule("a string or a list of parts", (str, list)),
        "tool_calls": OBJECTS,
        "tool_call_id": TEXT,
        "name": TEXT,
    },
)
PARAMETERS: Final = Rule(
    "an object",
    (dict,),
    fields={
        "model": Rule("the name of a model, not empty", (str,), lambda name: bool(name.strip())),
        "temperature": Rule("a number from 0 to 2", NUMBER, lambda value: 0 <= value <= 2),
        "top_p": Rule("a number from 0 to 1", NUMBER, lambda value: 0 <= value <= 1),
        "n": Rule("a whole number above 0", (int,), lambda value: value > 0),
        # Some take -1 for "as many as there is room for".
        "max_tokens": WHOLE,
        "max_completion_tokens": WHOLE,
        "presence_penalty": PENALTY,
        "frequency_penalty": PENALTY,
        "seed": WHOLE,
        "logprobs": SWITCH,
        "top_logprobs": WHOLE,
        "stream": SWITCH,
        "stream_options": OBJECT,
        "stop": Rule("a string or a list of strings", (str, list)),
        "tools": OBJECTS,
        "tool_choice": Rule('a word such as "auto", or an object', (str, dict)),
        "parallel_tool_calls": SWITCH,
        "response_format": Rule('an object such as {"type": "json_object"}', (dict,)),
        "reasoning_effort": TEXT,
        "metadata": OBJECT,
        "user": TEXT,
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
