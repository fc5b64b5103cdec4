#!/usr/bin/env python3
"""The first five minutes with a running gigachat-proxy, and a client to keep.

    python3 api_client_example.py                                   the examples below, one after the other
    python3 api_client_example.py bulk prompts.jsonl answers.jsonl  thousands of prompts; see --help

The proxy is looked for at GIGACHAT_PROXY_URL, else at http://127.0.0.1:8078. If it asks for a key, put yours into
GIGACHAT_PROXY_KEY. Plain HTTP needs nothing but Python 3.11; bulk runs and the provider need `pip install aiohttp`, the
drop-in class `pip install gigachat aiohttp`. The file may be copied into another project as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import errno
import json
import os
import random
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
import uuid
from array import array
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import blake2b, sha256
from itertools import count
from pathlib import Path
from typing import IO, Any, ClassVar, TypeVar

MISSING = 'needs a package that is not there ({}). Install what it needs: pip install "gigachat>=0.2.3,<0.3" aiohttp'

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]
try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError:  # plain HTTP does without
    aiohttp = None  # type: ignore[assignment]
try:
    import httpx
    from gigachat import GigaChat as OfficialGigaChat
    from gigachat.context import authorization_cvar
    from gigachat.models.auth import AccessToken

    Transport, AsyncTransport, AsyncBody = httpx.BaseTransport, httpx.AsyncBaseTransport, httpx.AsyncByteStream
except ModuleNotFoundError as missing:  # bulk runs do without
    WHAT_IS_MISSING = str(missing)

    class OfficialGigaChat:  # type: ignore[no-redef]
        def __init__(self, **_: Any) -> None:
            raise ModuleNotFoundError(f"GigaChat {MISSING.format(WHAT_IS_MISSING)}")

    Transport = AsyncTransport = AsyncBody = object  # type: ignore[assignment]

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8078"
#: Seconds of silence that mean that something is broken: somewhat more than RESP_TIMEOUT, the proxy's own patience.
PATIENCE = 660.0


def proxy_url(url: str | None = None) -> str:
    """The proxy's address: as given, with or without /api/v1, else from the environment, else the usual one."""
    url = url or os.environ.get("GIGACHAT_PROXY_URL") or DEFAULT_URL
    return re.sub(r"(?<!/)(/api)?(/v\d+)?/*$", "", url if "://" in url else f"http://{url}")


def proxy_key(key: str | None = None) -> str:
    return key or os.environ.get("GIGACHAT_PROXY_KEY") or ""


# -- 1. Plain HTTP, from any language: a POST with the native JSON -----------------------------------------------------


def plain_http() -> None:
    body = {
        "messages": [["system", "На все вопросы отвечай мяу-мяу"], ["user", "Привет, как дела?"]],
        "generate_parameters": {"temperature": 1, "max_tokens": 2000},
    }
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {proxy_key()}"}
    request = urllib.request.Request(proxy_url(), json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        answer = json.load(response)
    print(answer["data"]["choices"][0]["message"]["content"])


# -- 2. GigaChat's own SDK: only the import changes --------------------------------------------------------------------


def drop_in() -> None:
    with GigaChat() as giga:
        print(giga.chat("Сколько будет 2 + 3?").choices[0].message.content)
        for chunk in giga.stream("Сколько будет 4 + 5?"):
            print(chunk.choices[0].delta.content, end="")
        print()


# -- 3. Many at once: they wait for their turn, without a pause or a retry of yours ------------------------------------


async def many_at_once() -> None:
    async with GigaChat() as giga:
        answers = await asyncio.gather(*(giga.achat(f"Сколько будет {n} * {n}?") for n in range(1, 6)))
    print(*(answer.choices[0].message.content for answer in answers), sep="; ")


# -- 4. As bots do it: the text piece by piece, from the proxy or straight from GigaChat ------------------------------


async def as_bots_do() -> None:
    messages = [{"role": "user", "content": "Сколько будет 7 + 8?"}]
    async for piece in create_async_generator("GigaChat:latest", messages, proxy_url=proxy_url()):
        print(piece, end="")
    print()


# -- The drop-in class -------------------------------------------------------------------------------------------------


class GigaChat(OfficialGigaChat):
    """`gigachat.GigaChat` that talks to the proxy: the same methods, models and exceptions; it is one, by isinstance.

    It takes all arguments of the SDK's class. Those that mean something else here, or have another default:

    Args:
        base_url: the proxy, with or without /api/v1; else GIGACHAT_PROXY_URL, else http://127.0.0.1:8078.
        api_key: your key of the proxy; `access_token` and `credentials` do as well, else GIGACHAT_PROXY_KEY. It is
            sent as it is, no token is asked for. The proxy holds the API's own secrets: GIGACHAT_CREDENTIALS and the
            like in the environment are not sent to it, and auth_url, scope, user and password are not used.
        model: else GIGACHAT_MODEL, else GigaChat-2.
        timeout: seconds of silence, 660 unless GIGACHAT_TIMEOUT says otherwise. Waiting costs none of it: neither for a
            free connection, nor in the proxy's line, which sends `102 Processing` every second.
        max_connections: 100. Further calls wait for a free one here, at no cost; there is no reason to set 1.
        max_retries: 0, as in the SDK. A stream that has begun is never begun again, or its text would come twice.

    The SDK's own code runs unchanged; what is replaced is the transport under it. httpx looks through all connections
    and all waiting calls at each event: of 1000 calls gathered over `max_connections=1` each costs some 50 ms of CPU.
    Over aiohttp it is half a millisecond (`python -m benchmarks.client`).
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        access_token: str | None = None,
        credentials: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        **settings: Any,
    ) -> None:
        if timeout is None and "GIGACHAT_TIMEOUT" not in os.environ:
            timeout = PATIENCE
        # An empty text is a value: it keeps the SDK from looking into the environment.
        unused = {"auth_url": f"{proxy_url(base_url)}/api/v2/oauth", "credentials": "", "user": "", "password": ""}
        super().__init__(
            base_url=f"{proxy_url(base_url)}/api/v1",
            access_token=proxy_key(api_key or access_token or credentials),
            model=model or os.environ.get("GIGACHAT_MODEL") or "GigaChat-2",
            timeout=timeout,
            **{**settings, **unused},
        )
        wire = Wire.of(self._settings)
        self._settings.max_retries = 0  # the SDK would repeat streams that have begun; the transports do not
        common: dict[str, Any] = {"base_url": self._settings.base_url, "timeout": wire.timeout}
        self._client_instance = httpx.Client(transport=Threaded(wire), **common)
        self._aclient_instance = httpx.AsyncClient(transport=OverAiohttp(wire), **common)

    def get_token(self) -> AccessToken | None:
        """The key, in the form of a token; without a key a word in its place, as any word will do then."""
        return self._as_token(super().get_token())

    async def aget_token(self) -> AccessToken | None:
        return self._as_token(await super().aget_token())

    def _as_token(self, token: AccessToken | None) -> AccessToken | None:
        if authorization_cvar.get() is not None:
            return token
        in_half_an_hour = int((time.time() + 1800) * 1000)
        return AccessToken(access_token=token.access_token if token else "any", expires_at=in_half_an_hour)


@dataclass(frozen=True)
class Wire:
    """How to reach the proxy, and when to try again."""

    connections: int
    timeout: httpx.Timeout
    tls: ssl.SSLContext | bool
    #: Whether HTTP_PROXY and the like count: not for a proxy on this machine.
    trust_env: bool
    retries: int
    backoff: float
    retried: tuple[int, ...]

    @classmethod
    def of(cls, settings: Any) -> Wire:
        return cls(
            connections=settings.max_connections or 100,
            timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 30.0), pool=None),
            tls=tls_of(settings) if settings.base_url.startswith("https:") else False,
            trust_env=httpx.URL(settings.base_url).host not in ("localhost", "127.0.0.1", "::1"),
            retries=settings.max_retries,
            backoff=settings.retry_backoff_factor,
            retried=settings.retry_on_status_codes,
        )

    def pause(self, attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until the next attempt, counted as the SDK does; None: this was the last one."""
        asked = 0.0
        if isinstance(outcome, httpx.Response):
            status = outcome.status_code
            is_spent = outcome.headers.get("x-should-retry") == "false"  # the proxy has tried often enough itself
            if is_spent or not (status == 429 or status >= 500 or status in self.retried):
                return None
            asked = seconds_in(outcome.headers)
        if attempt >= self.retries:
            return None
        return asked or min(self.backoff * 2**attempt + random.uniform(0, 0.5), 60.0)


def tls_of(settings: Any) -> ssl.SSLContext:
    """As the SDK has it: a bundle before a context before the flag."""
    if settings.ca_bundle_file:
        context = ssl.create_default_context(cafile=settings.ca_bundle_file)
    else:
        context = settings.ssl_context or httpx.create_ssl_context(verify=settings.verify_ssl_certs)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file, settings.key_file_password)
    return context


def is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("text/event-stream")


class Threaded(Transport):  # type: ignore[valid-type,misc]
    """The sync side: httpx, of which each thread has one call at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        limits = httpx.Limits(max_connections=wire.connections, max_keepalive_connections=wire.connections)
        self._http = httpx.HTTPTransport(verify=wire.tls, limits=limits, trust_env=wire.trust_env)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in count():
            outcome = self._attempt(request)
            pause = self._wire.pause(attempt, outcome)
            if pause is None:
                break
            if isinstance(outcome, httpx.Response):
                outcome.close()
            time.sleep(pause)
        return answered(outcome)

    def _attempt(self, request: httpx.Request) -> httpx.Response | httpx.TransportError:
        try:
            response = self._http.handle_request(request)
            if not is_stream(response.headers):
                response.read()
        except httpx.TransportError as error:
            return error
        return response

    def close(self) -> None:
        self._http.close()


class OverAiohttp(AsyncTransport):  # type: ignore[valid-type,misc]
    """The async side. Like the SDK's it need not be closed, and it may see one event loop after another."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in count():
            outcome = await self._attempt(request)
            pause = self._wire.pause(attempt, outcome)
            if pause is None:
                break
            if isinstance(outcome, httpx.Response):
                await outcome.aclose()
            await asyncio.sleep(pause)
        return answered(outcome)

    async def _attempt(self, request: httpx.Request) -> httpx.Response | httpx.TransportError:
        timeout = request.extensions["timeout"]
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers.raw]
        try:
            with in_words_of_httpx(request):
                response = await self._session().request(
                    request.method,
                    URL(str(request.url), encoded=True),
                    data=await request.aread(),
                    headers=[(name, value) for name, value in headers if name.lower() not in OF_AIOHTTP],
                    timeout=aiohttp.ClientTimeout(None, sock_connect=timeout["connect"], sock_read=timeout["read"]),
                    allow_redirects=False,
                )
                body = AnswerBody(request, response) if is_stream(response.headers) else await response.read()
        except httpx.TransportError as error:
            return error
        whole: dict[str, Any] = {"content": body} if isinstance(body, bytes) else {"stream": body}
        return httpx.Response(response.status, headers=list(response.raw_headers), **whole)

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            self._forget_closed_loops()
            self._sessions[loop] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._wire.connections, ssl=self._wire.tls),
                cookie_jar=aiohttp.DummyCookieJar(),  # cookies and compression are httpx's affair
                auto_decompress=False,
                trust_env=self._wire.trust_env,
            )
        return self._sessions[loop]

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._sessions if loop.is_closed()]:
            drop(self._sessions.pop(loop))

    async def aclose(self) -> None:
        if session := self._sessions.pop(asyncio.get_running_loop(), None):
            await session.close()

    def __del__(self) -> None:
        for session in self._sessions.values():
            drop(session)


#: Headers that aiohttp writes itself.
OF_AIOHTTP = frozenset({"host", "connection", "content-length", "transfer-encoding"})


def drop(session: aiohttp.ClientSession) -> None:
    """Close it without a loop, and without aiohttp's complaint that nobody closed it: the SDK asks nobody to."""
    if session.connector:
        session.connector._close()
    session.detach()


class AnswerBody(AsyncBody):  # type: ignore[valid-type,misc]
    """The bytes of a stream as they come; to close it early is to hang up."""

    def __init__(self, request: httpx.Request, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with in_words_of_httpx(self._request):
            async for piece in self._response.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        self._response.close()


@contextmanager
def in_words_of_httpx(request: httpx.Request) -> Iterator[None]:
    """What goes wrong on the way raises httpx's exceptions, which the SDK lets through."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise httpx.RemoteProtocolError(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error), request=request) from error


def answered(outcome: httpx.Response | httpx.TransportError) -> httpx.Response:
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    return outcome


def seconds_in(headers: Mapping[str, str]) -> float:
    """Retry-After in seconds; 0 if there is none, or it is a date."""
    with suppress(ValueError):
        return max(float(headers.get("Retry-After", 0)), 0.0)
    return 0.0


# -- The provider ------------------------------------------------------------------------------------------------------

GIGACHAT_URL = "https://api.giga.chat/v1"
GIGACHAT_OAUTH = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"
#: Names of the old host, which the new one answers 404. The proxy does this by itself.
NEW_HOST = ".giga.chat"
TODAYS_NAMES = {
    "GigaChat": "GigaChat-2",
    "GigaChat:latest": "GigaChat-2",
    "GigaChat-Plus": "GigaChat-2",
    "GigaChat-Pro": "GigaChat-2-Pro",
    "GigaChat-Max": "GigaChat-2-Max",
}
#: Where the Russian Trusted Root CA may lie, its digest, and the hosts for which it is trusted: for no others.
HERE = Path(__file__).resolve().parent
ROOT_FILES = (HERE / "assets/certificates/russian_trusted_root_ca.pem", HERE / "russian_trusted_root_ca.pem")
ROOT_SHA256 = "d26d2d0231b7c39f92cc738512ba54103519e4405d68b5bd703e9788ca8ecf31"
ROOT_HOSTS = (".giga.chat", ".sberbank.ru")
#: Seconds ahead of its end at which an access token is renewed, that it usually lives, and that asking for it may take.
AHEAD = 60.0
USUAL_LIFE = 1800.0
TOKEN_PATIENCE = 30.0


class ProviderError(Exception):
    """There is no answer; the text says why, in the API's own words if it spoke.

    `status` is the HTTP status, None if there was none. `retry_after` is how many seconds were asked for, else 0.
    """

    def __init__(self, message: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class MissingAuthError(ProviderError):
    """GigaChat needs your authorization key: api_key="...", or GIGACHAT_API_KEY in the environment.

    The proxy may do without: GIGACHAT_PROXY_URL, or proxy_url="...".
    """

    def __init__(self) -> None:
        super().__init__(" ".join(str(self.__doc__).split()))


class GigaChatProvider:
    """GigaChat as bots and collections of providers have it: an async generator of pieces of text.

        async for piece in GigaChatProvider.create_async_generator("GigaChat:latest", messages, api_key="..."):
            print(piece, end="")

    It asks GigaChat itself, or the proxy if GIGACHAT_PROXY_URL is set or `proxy_url` is given.
    """

    url = "https://developers.sber.ru/gigachat"
    working = needs_auth = supports_stream = supports_message_history = supports_system_message = True
    default_model = "GigaChat:latest"
    models: ClassVar[list[str]] = [default_model, "GigaChat-Plus", "GigaChat-Pro"]

    @classmethod
    async def create_async_generator(
        cls,
        model: str,
        messages: Iterable[Mapping[str, Any]],
        stream: bool = True,
        proxy: str | None = None,
        api_key: str | None = None,
        connector: aiohttp.BaseConnector | None = None,
        scope: str = "GIGACHAT_API_PERS",
        update_interval: float = 0,
        *,
        proxy_url: str | None = None,
        base_url: str | None = None,
        auth_url: str | None = None,
        **parameters: Any,
    ) -> AsyncGenerator[str, None]:
        """The answer, piece by piece; closed early, it hangs up.

        Args:
            model: any name that the API knows; empty for the default one. On the new host old names become today's.
            stream: False yields the whole text at once.
            proxy: an HTTP proxy on the way out, http://user:password@host:port.
            api_key: the authorization key of GigaChat, else GIGACHAT_API_KEY or GIGACHAT_CREDENTIALS; or the key of
                gigachat-proxy, else GIGACHAT_PROXY_KEY, if it asks for one.
            connector: an aiohttp connector of yours, which stays open. With it TLS is its own affair, but for GigaChat.
            update_interval: least seconds between two pieces.
            proxy_url: gigachat-proxy, else GIGACHAT_PROXY_URL. Neither `scope` nor a token is needed there.
            base_url, auth_url: GigaChat's addresses, else GIGACHAT_BASE_URL and GIGACHAT_AUTH_URL, else the usual ones.
            parameters: sent to the API as they are: temperature, max_tokens and so on.

        Raises:
            MissingAuthError: there is no key for GigaChat.
            ProviderError: whatever else there is instead of an answer.
        """
        if aiohttp is None:
            raise ModuleNotFoundError("the provider needs aiohttp: pip install aiohttp")
        if proxy_url or (os.environ.get("GIGACHAT_PROXY_URL") and not (base_url or auth_url)):
            way = Way.through(proxy_url, api_key)
        else:
            way = Way.straight(base_url, auth_url, api_key, scope)
        parameters |= {"stream": stream, "update_interval": update_interval}
        body = way.body(model or cls.default_model, messages, parameters)
        reach = Reach(connector, proxy)
        with in_plain_words(way.host):
            async with reach.session() as http, answer(way, reach, http, body) as response:
                if not stream:
                    yield text_in(await response.read(), "message")
                    return
                async with aclosing(spoken(response)) as pieces:
                    async for piece in pieces:
                        yield piece


create_async_generator = GigaChatProvider.create_async_generator


@dataclass(frozen=True)
class Way:
    """Where a call goes. With an `auth_url` the key buys a token there; without one it is sent as it is, if any."""

    chat_url: str
    auth_url: str
    scope: str
    key: str = field(repr=False)

    @classmethod
    def through(cls, url: str | None, key: str | None) -> Way:
        return cls(f"{proxy_url(url)}/", "", "", proxy_key(key))

    @classmethod
    def straight(cls, base_url: str | None, auth_url: str | None, key: str | None, scope: str) -> Way:
        """Raises MissingAuthError."""
        known = os.environ.get
        base = (base_url or known("GIGACHAT_BASE_URL") or GIGACHAT_URL).rstrip("/").removesuffix("/chat/completions")
        key = (key or known("GIGACHAT_API_KEY") or known("GIGACHAT_CREDENTIALS") or "").strip().removeprefix("Basic ")
        if not key:
            raise MissingAuthError
        return cls(f"{base}/chat/completions", auth_url or known("GIGACHAT_AUTH_URL") or GIGACHAT_OAUTH, scope, key)

    @property
    def host(self) -> str:
        return URL(self.chat_url).host or ""

    def body(self, model: str, messages: Iterable[Mapping[str, Any]], parameters: dict[str, Any]) -> bytes:
        """The native dialect for the proxy, the API's own for the API."""
        if not self.auth_url:
            told = {"messages": list(messages), "generate_parameters": {"model": model, **parameters}}
        else:
            today = TODAYS_NAMES.get(model, model) if is_under(self.host, NEW_HOST) else model
            told = {"model": today, "messages": list(messages), **parameters}
        return json.dumps(told).encode()


@dataclass(frozen=True)
class Reach:
    """How to get there: over which connector, through which HTTP proxy."""

    connector: aiohttp.BaseConnector | None
    proxy: str | None = field(repr=False)

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=self.connector,
            connector_owner=self.connector is None,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(None, sock_connect=30.0, sock_read=PATIENCE),
        )

    def post(
        self, http: aiohttp.ClientSession, url: str, headers: dict[str, str], data: bytes | dict[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        is_tunnel = url.startswith("https:")
        address, secret = self._hop()
        return http.post(
            url,
            data=data,
            headers=headers if is_tunnel else headers | secret,
            ssl=tls_for(URL(url).host or "") if is_tunnel else True,
            proxy=address,
            proxy_headers=secret if is_tunnel else None,
            allow_redirects=False,
        )

    def _hop(self) -> tuple[URL | None, dict[str, str]]:
        """The proxy's address, and the header that opens it: so that the password is in no text of an error."""
        if not self.proxy:
            return None, {}
        try:
            hop = URL(self.proxy if "://" in self.proxy else f"http://{self.proxy}")
        except ValueError:
            hop = URL()
        if hop.scheme != "http" or not hop.host:
            raise ProviderError("`proxy` must be http://host:port; for SOCKS give a `connector`, aiohttp-socks has one")
        if hop.user is None and hop.password is None:
            return hop, {}
        secret = base64.b64encode(f"{hop.user or ''}:{hop.password or ''}".encode()).decode()
        return hop.with_user(None), {"Proxy-Authorization": f"Basic {secret}"}


@dataclass(frozen=True)
class Token:
    """An access token, and its end by the monotonic clock."""

    text: str = field(repr=False)
    ends: float

    @classmethod
    def read(cls, told: bytes) -> Token:
        """`expires_at` is Unix time in ms; by a clock that is wrong it may be long ago."""
        try:
            answer = json.loads(told)
            text, life = answer["access_token"], float(answer["expires_at"]) / 1000 - time.time()
        except (ValueError, LookupError, TypeError, RecursionError):
            text, life = "", 0.0
        if not text or not isinstance(text, str):
            raise ProviderError("the answer to a token request has no token in it")
        return cls(text, time.monotonic() + (life if 0 < life < float("inf") else USUAL_LIFE))


class Tokens:
    """The tokens of all calls: by address, scope and key. However many wait for one, it is asked for once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], Token] = {}
        self._runs: dict[tuple[asyncio.AbstractEventLoop, str, str, str], asyncio.Task[Token]] = {}

    async def get(self, way: Way, reach: Reach, refused: str) -> str:
        """One that is good for another minute, and is not the one that was refused."""
        token = self._known.get((way.auth_url, way.scope, way.key))
        if token and token.text != refused and token.ends - AHEAD > time.monotonic():
            return token.text
        whose = (asyncio.get_running_loop(), way.auth_url, way.scope, way.key)
        run = self._runs.get(whose)
        if run is None:
            run = self._runs[whose] = asyncio.create_task(self._renew(way, reach))
            run.add_done_callback(lambda run: self._end(whose, run))
        # Nobody's own: whoever is cancelled while waiting leaves the others their token.
        await asyncio.wait([run])
        return run.result().text

    def _end(self, whose: tuple[asyncio.AbstractEventLoop, str, str, str], run: asyncio.Task[Token]) -> None:
        del self._runs[whose]
        if not run.cancelled():
            run.exception()  # if all have left meanwhile, nobody is to be told of it

    async def _renew(self, way: Way, reach: Reach) -> Token:
        async with reach.session() as http:
            token = await ask_token(way, reach, http)
        now = time.monotonic()
        lasting = {whose: known for whose, known in self._known.items() if known.ends > now}
        self._known = lasting | {(way.auth_url, way.scope, way.key): token}  # threads may have loops of their own
        return token


TOKENS = Tokens()


async def ask_token(way: Way, reach: Reach, http: aiohttp.ClientSession) -> Token:
    headers = {"Authorization": f"Basic {way.key}", "RqUID": str(uuid.uuid4()), "Accept": "application/json"}
    with in_plain_words(URL(way.auth_url).host or ""):
        async with (
            asyncio.timeout(TOKEN_PATIENCE),
            reach.post(http, way.auth_url, headers, {"scope": way.scope}) as response,
        ):
            await check(response)
            return Token.read(await response.read())


@asynccontextmanager
async def answer(
    way: Way, reach: Reach, http: aiohttp.ClientSession, body: bytes
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response, its status a 200. After a 401 it is asked for once more, with a fresh token."""
    refused = ""
    for is_last in (False, True):
        key = await TOKENS.get(way, reach, refused) if way.auth_url else way.key
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        async with reach.post(http, way.chat_url, headers, body) as response:
            if response.status == 401 and way.auth_url and not is_last:
                refused = key
                continue
            await check(response)
            yield response
            return


async def check(response: aiohttp.ClientResponse) -> None:
    """Raises ProviderError unless it is a 200."""
    if response.status == 407:
        raise ProviderError(SHUT.format(407), 407)
    if response.status != 200:
        told = await response.content.read(65536)
        why = reason(told) if told.startswith(b"{") else response.reason  # a page of HTML tells nobody more
        raise ProviderError(
            f"{response.url.host} says {response.status}: {why}", response.status, seconds_in(response.headers)
        )


async def spoken(response: aiohttp.ClientResponse) -> AsyncGenerator[str, None]:
    """What is said in the events up to [DONE]. Raises ProviderError if that does not come."""
    rest = b""
    async for piece in response.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                await ended(response)
                return
            if data and (text := text_in(data, "delta")):
                yield text
    raise ProviderError("the answer broke off before its end")


async def ended(response: aiohttp.ClientResponse) -> None:
    """Wait for the end of what is complete already, or its sender would think that we hung up."""
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(0.5):
            await response.read()


def text_in(told: bytes, part: str) -> str:
    """The text of an answer's message or a chunk's delta. Raises ProviderError if an error stands there instead."""
    try:
        answer = json.loads(told)
        answer = answer.get("data", answer)  # the proxy's native answers are in an envelope
        choices = answer["choices"]
        text = choices[0].get(part, {}).get("content") if choices else ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ProviderError(f"this is no answer: {reason(told)}") from None
    return text if isinstance(text, str) else ""


SHUT = "the HTTP proxy on the way says {}: check `proxy`, http://user:password@host:port"
UNKNOWN_AUTHORITY = (
    "the certificate of {} was not accepted. GigaChat's own needs russian_trusted_root_ca.pem (assets/certificates of "
    "gigachat-proxy) beside this file; for another authority name its file in GIGACHAT_CA_BUNDLE_FILE"
)


@contextmanager
def in_plain_words(host: str) -> Iterator[None]:
    """What goes wrong on the way raises ProviderError."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise ProviderError(UNKNOWN_AUTHORITY.format(host)) from error
    except aiohttp.ClientHttpProxyError as error:
        raise ProviderError(SHUT.format(error.status), error.status) from error
    except TimeoutError as error:
        raise ProviderError(f"no sign of life from {host}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise ProviderError(f"no answer from {host}: {getattr(error, 'os_error', error)}") from error


def is_under(host: str, *domains: str) -> bool:
    return f".{host}".endswith(domains)


def tls_for(host: str) -> ssl.SSLContext | bool:
    """Whom to trust for this host; True leaves it to the connector. Raises ProviderError for a file of no use."""
    if bundle := os.environ.get("GIGACHAT_CA_BUNDLE_FILE"):
        return roots_of(bundle)
    return with_russian_root() if is_under(host, *ROOT_HOSTS) else True


@cache
def roots_of(bundle: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise ProviderError(f"GIGACHAT_CA_BUNDLE_FILE={bundle} holds no certificate in PEM form ({error})") from error


@cache
def with_russian_root() -> ssl.SSLContext | bool:
    """The usual roots and the Russian Trusted Root CA. Without its file True: it may be among the system's own."""
    file = next((file for file in ROOT_FILES if file.exists()), None)
    if file is None:
        return True
    try:
        certificate = ssl.PEM_cert_to_DER_cert(file.read_text("ascii").strip())
    except (OSError, ValueError):
        certificate = b""
    if sha256(certificate).hexdigest() != ROOT_SHA256:
        raise ProviderError(f"{file} is not the Russian Trusted Root CA: restore it, or take it away")
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=certificate)
    return context


# -- 5. Bulk: a file of prompts in, a file of answers out --------------------------------------------------------------

BULK = """A line of PROMPTS is a native body, with an "id" if you like, or just {"id": ..., "prompt": "..."}:

  {"id": "a", "prompt": "Привет"}
  {"messages": [["user", "Привет"]], "generate_parameters": {"max_tokens": 50}}

A line of ANSWERS is {"id": "a", "answer": "text"} or {"id": "a", "error": "text", "status": 400}, in the order in which
they come. Without an "id" it is the number of the line. An answer that is not the whole text, or more than text, has
the API's whole answer beside it as "data"; with --full all have.

Run it again to go on: what has its answer is not asked again, what failed is. Exit code: 0 all have their answers, 1
some failed, 2 it could not run, 130 stopped by Ctrl-C.

With --durable the service takes the lines over, in batches, and answers them whether this command runs or not. Stop it
and run it again, whenever you like, to see how far they are and to fetch answers. ANSWERS.batches says what it has."""

Id = str | int
#: Seconds to wait for a proxy that is not there, at most.
LONGEST_PAUSE = 30.0
#: So many troubles are told on the terminal; all of them are in the file.
TOLD = 10
#: Of each request: people go first.
HEADERS = {"Content-Type": "application/json", "X-Priority": "low"}
#: What is said where there is no time now, or no room; and where nobody is behind whoever says it.
BUSY = frozenset({429, 503})
AWAY = BUSY | {502, 504, 507}


class CannotRun(Exception):
    """The run makes no sense as it is; the text says why."""


class Ids:
    """A set of ids that only grows, 16 to 32 bytes each: hashes of 8 bytes in an array that is at most half full."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, id: Id) -> bool:
        return self._slots[self._place(self._hash(id))] != 0

    def add(self, id: Id) -> bool:
        """False if it was there."""
        hashed = self._hash(id)
        place = self._place(hashed)
        if self._slots[place]:
            return False
        self._slots[place] = hashed
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _hash(self, id: Id) -> int:
        return int.from_bytes(blake2b(json.dumps(id).encode(), digest_size=8).digest()) or 1  # 0 is an empty slot

    def _place(self, hashed: int) -> int:
        slots, last = self._slots, len(self._slots) - 1
        place = hashed & last
        while slots[place] and slots[place] != hashed:
            place = (place + 1) & last
        return place

    def _grow(self) -> None:
        full, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for hashed in full:
            if hashed:
                self._slots[self._place(hashed)] = hashed


@dataclass
class Progress:
    """How far it is, on stderr: a bar on a terminal, else a line every ten seconds."""

    total: int
    done: int = 0
    answered: int = 0
    failed: int = 0
    before: int = 0
    #: Of those that a service works on, so many have ended there, and so many of them failed.
    ended_there: int = 0
    failed_there: int = 0
    trouble: str = ""
    told: int = 0
    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=150))

    def tell(self, text: str, *, is_limited: bool = False) -> None:
        """A line of its own, above the bar."""
        self.told += is_limited
        if not is_limited or self.told <= TOLD:
            print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)
        if is_limited and self.told == TOLD:
            self.tell("... what fails from here on is told in the file of answers alone")

    def stuck(self, trouble: str) -> None:
        if trouble != self.trouble and not sys.stderr.isatty():
            self.tell(f"{trouble}; waiting" if trouble else "going on")
        self.trouble = trouble

    async def show(self) -> None:
        is_terminal = sys.stderr.isatty()
        while True:
            self.marks.append((time.monotonic(), self.answered + self.failed + self.ended_there))
            if is_terminal:
                print(f"\r{self.bar()} {self}\x1b[K", end="", file=sys.stderr, flush=True)
            elif len(self.marks) > 1:
                self.tell(str(self))
            await asyncio.sleep(0.2 if is_terminal else 10.0)

    @property
    def over(self) -> int:
        return min(self.done + self.ended_there, self.total)

    def bar(self) -> str:
        full = 20 * self.over // max(self.total, 1)
        return f"[{'#' * full}{'.' * (20 - full)}]"

    def __str__(self) -> str:
        rate = self.rate()
        left = f"{clock((self.total - self.over) / rate)} left" if rate else "-:-- left"
        share = 100 * self.over // max(self.total, 1)
        failed = self.failed + self.failed_there
        trouble = f"  ({self.trouble})" if self.trouble else ""
        return f"{share:3}%  {self.over}/{self.total}  {rate:.1f}/s  {left}  {failed} failed{trouble}"

    def rate(self) -> float:
        """Answers a second, of late."""
        (since, then), (now, today) = self.marks[0], self.marks[-1]
        return (today - then) / (now - since) if now > since else 0.0


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass
class Calls:
    """Calls of the proxy. One that is busy, stopping or not there is waited for: one that says `busy`, or nothing."""

    http: aiohttp.ClientSession
    progress: Progress
    busy: frozenset[int]

    async def call(
        self, method: str, url: str, read: Callable[[aiohttp.ClientResponse], Awaitable[T]], **body: Any
    ) -> tuple[int, T]:
        """The status, and what `read` makes of the answer. Raises CannotRun, SocketTimeoutError."""
        for attempt in count():
            pause = min(2.0**attempt, LONGEST_PAUSE)
            try:
                async with self.http.request(method, url, **body) as response:
                    if response.status not in self.busy:
                        told = await read(response)
                        self.progress.stuck("")
                        return response.status, told
                    pause = seconds_in(response.headers) or pause
                    if response.status != 429:
                        self.progress.stuck(f"{url} says {response.status}: {reason(await response.read())}")
            except aiohttp.SocketTimeoutError:
                raise
            except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
                raise CannotRun(f"{url}: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                self.progress.stuck(f"{url} is not there: {error}")
            await asyncio.sleep(pause)
        raise AssertionError  # count() has no end


@asynccontextmanager
async def calling(key: str, progress: Progress, busy: frozenset[int]) -> AsyncIterator[Calls]:
    """Calls with this key, while the progress is shown. Raises CannotRun, also if the disk is full."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(None, sock_connect=30.0, sock_read=PATIENCE)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:
        show = asyncio.create_task(progress.show())
        try:
            yield Calls(http, progress, busy)
        except OSError as error:
            raise CannotRun(str(error)) from error
        finally:
            show.cancel()


@dataclass
class Run:
    """One bulk run, from the lines that have no answer yet to their answers."""

    url: str
    is_full: bool
    asked: IO[bytes]
    answers: IO[bytes]
    has_answer: Ids
    progress: Progress
    #: Lines that the service works on since an earlier run.
    handed: Ids = field(default_factory=Ids)

    async def all(self, key: str, parallel: int) -> None:
        """Raises CannotRun."""
        lines = self.lines()
        trouble: BaseException | None = None
        async with calling(key, self.progress, BUSY) as calls:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(parallel):
                        group.create_task(self.some(lines, calls))
            except* (CannotRun, OSError) as troubles:
                trouble = troubles.exceptions[0]
        if trouble:
            raise CannotRun(str(trouble)) from trouble

    async def some(self, lines: Iterator[tuple[int, Id, bytes]], calls: Calls) -> None:
        """One request after the other; `lines` is shared, whoever is free takes the next."""
        for number, id, body in lines:
            self.write(number, id, await self.ask(calls, body))

    def lines(self) -> Iterator[tuple[int, Id, bytes]]:
        """What is still to be asked: the number of its line, its id, its body."""
        seen = Ids()
        for number, line in enumerate(self.asked, 1):
            try:
                id, body = read_line(number, line) if line.strip() else (None, b"")
            except ValueError as error:
                self.write(number, number, {"error": f"line {number}: {error}"})
                continue
            if id is not None and not seen.add(id):
                self.progress.tell(f"line {number}: the id {id!r} has been there before: not asked", is_limited=True)
            elif id is not None and id not in self.has_answer:
                if id not in self.handed:
                    yield number, id, body
                continue
            self.progress.done += 1

    def write(self, number: int, id: Id, told: dict[str, Any]) -> None:
        progress = self.progress
        progress.done += 1
        if "error" in told:
            progress.failed += 1
            text = told["error"] if told["error"].startswith("line ") else f"line {number}: {told['error']}"
            progress.tell(text, is_limited=True)
        else:
            progress.answered += 1
        line = json.dumps({"id": id, **told}, ensure_ascii=False) + "\n"
        # What is no character (half a surrogate pair) becomes \udXXX again, which is JSON. The file has no buffer.
        whole = line.encode(errors="backslashreplace")
        if self.answers.write(whole) != len(whole):
            raise OSError(f"no room for the answers: {os.strerror(errno.ENOSPC)}")

    async def ask(self, calls: Calls, body: bytes) -> dict[str, Any]:
        """Ask until there is an answer or an error."""
        try:
            status, text = await calls.call("POST", self.url, whole, data=body, headers=HEADERS)
        except aiohttp.SocketTimeoutError:
            return {"error": f"no sign of life for {PATIENCE:g} s"}
        return self.told(status, text)

    def told(self, status: int, text: bytes) -> dict[str, Any]:
        if status == 401:
            raise CannotRun(f"{self.url} says 401: {reason(text)} (--key, GIGACHAT_PROXY_KEY)")
        if status != 200:
            return {"error": reason(text), "status": status}
        try:
            data = json.loads(text)["data"]
        except (ValueError, LookupError, TypeError):
            return {"error": f"this is no answer of gigachat-proxy: {text[:100]!r}", "status": status}
        try:
            (choice,) = data["choices"]
            answer, is_whole = choice["message"]["content"], choice["finish_reason"] == "stop"
        except (ValueError, LookupError, TypeError):
            return {"answer": data}  # another connector's API
        return {"answer": answer} if is_whole and not self.is_full else {"answer": answer, "data": data}


async def whole(response: aiohttp.ClientResponse) -> bytes:
    return await response.read()


def reason(text: bytes) -> str:
    """What a refusal says: the proxy in `status`, the API in `message`, OpenAI's in that of its `error`."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        told = json.loads(text)
        told = told.get("error", told)
        return str(told["message"] if "message" in told else told["status"])
    return text[:200].decode(errors="replace")


def read_line(number: int, line: bytes) -> tuple[Id, bytes]:
    """The id and the body of one line of prompts. Raises ValueError that says what is wrong."""
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(asked, dict):
        raise ValueError("a line must be an object: {...}")
    id = asked.pop("id", None)
    if id is None:
        id = number
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise ValueError('"id" must be a text or a whole number')
    if "prompt" in asked:
        if "messages" in asked:
            raise ValueError('there must be either "prompt" or "messages", not both')
        if not isinstance(asked["prompt"], str):
            raise ValueError('"prompt" must be a text')
        asked["messages"] = [["user", asked.pop("prompt")]]
    if isinstance(asked.get("generate_parameters"), dict):
        asked["generate_parameters"].pop("stream", None)  # here answers come whole
    return id, json.dumps(asked).encode()


@contextmanager
def alone(answers: Path) -> Iterator[IO[bytes]]:
    """The file of answers, to be added to, by nobody else meanwhile. Raises CannotRun if another run does that."""
    with answers.open("ab", buffering=0) as told:
        if fcntl is not None:  # locks are one for all who opened it; they go with their process
            try:
                fcntl.flock(told, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CannotRun(f"another run writes to {answers}: wait for its end, or end it") from None
            except OSError:  # no locks are to be had on this disk
                pass
        yield told


def resume(answers: Path) -> Ids:
    """Ids that have their answers. Lines of failures leave the file, to be asked again, and so does a torn last line.

    Raises CannotRun if the file is something else: it must not be spoilt.
    """
    has_answer = Ids()
    is_clean = True
    if not answers.exists():
        return has_answer
    with answers.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            told = parsed(line)
            if told and "answer" in told:
                has_answer.add(told["id"])
            elif not (told and "error" in told) and line.endswith(b"\n"):
                raise CannotRun(f"line {number} of {answers} is no answer of a bulk run: is it the right file?")
            is_clean = is_clean and bool(told) and "answer" in told and line.endswith(b"\n")
    if not is_clean:
        keep_answers(answers)
    return has_answer


def parsed(line: bytes) -> dict[str, Any]:
    """A line of the answers; empty if it is none."""
    with suppress(ValueError, RecursionError):
        told = json.loads(line)
        if isinstance(told, dict) and isinstance(told.get("id"), str | int):
            return told
    return {}


def keep_answers(answers: Path) -> None:
    """Write it anew without the other lines, in one step: whatever happens, either the old file is there or the new."""
    answers = answers.resolve()  # a link stays a link
    part = answers.with_name(answers.name + ".part")
    with answers.open("rb") as lines, part.open("wb") as kept:
        part.chmod(answers.stat().st_mode)
        kept.writelines(line.rstrip(b"\n") + b"\n" for line in lines if "answer" in parsed(line))
        kept.flush()
        os.fsync(kept.fileno())
    part.replace(answers)


def lines_in(file: IO[bytes]) -> int:
    total, last = 0, b"\n"
    while block := file.read(1 << 20):
        total, last = total + block.count(b"\n"), block[-1:]
    file.seek(0)
    return total + (last != b"\n")


def open_files_for(connections: int) -> int:
    """Let the process have so many; the number that it may have."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + 50
    if soft < needed and soft != resource.RLIM_INFINITY:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return connections if soft == resource.RLIM_INFINITY else min(connections, soft - 50)


# -- 6. The same, handed over: the service goes on when the command does not -------------------------------------------

#: Lines of a batch, bytes of them, and lines that the service has at once.
LINES, BYTES, AT_ONCE = 5_000, 32 * 1024 * 1024, 50_000
#: How long the service may take for them, at most, and for how many seconds it keeps what it was given.
WINDOW, KEPT = "168h", 30 * 86_400
#: Seconds between two looks at what becomes of them, at first and at most.
FIRST_LOOK, LONGEST_LOOK = 0.5, 5.0
ENDS = ("completed", "failed", "expired", "cancelled")

Lines = list[tuple[int, Id, bytes]]


@dataclass
class Batch:
    """Lines that the service works on: the file that it got, the batch that it made of it, and the ids by number."""

    file: str
    ids: dict[str, Id]
    id: str = ""
    ended: int = 0
    failed: int = 0


class Handed:
    """The file beside the answers that says what the service works on. It is gone when that is nothing."""

    def __init__(self, path: Path) -> None:
        """Raises CannotRun if the file is something else."""
        self.path = path
        self.batches: list[Batch] = []
        if path.exists():
            try:
                told = json.loads(path.read_bytes())
                self.batches = [Batch(entry["file"], entry["ids"], entry["batch"]) for entry in told["batches"]]
            except (ValueError, LookupError, TypeError) as error:
                raise CannotRun(f"{path} says nothing of batches: is it the right file?") from error

    def __len__(self) -> int:
        """How many lines."""
        return sum(len(batch.ids) for batch in self.batches)

    def ids(self) -> Ids:
        known = Ids()
        for batch in self.batches:
            for id in batch.ids.values():
                known.add(id)
        return known

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.save()

    def drop(self, batch: Batch) -> None:
        self.batches.remove(batch)
        self.save()

    def save(self) -> None:
        """In one step: whatever happens, either the old file is there or the new. Raises CannotRun."""
        told = [{"batch": batch.id, "file": batch.file, "ids": batch.ids} for batch in self.batches]
        part = self.path.with_name(self.path.name + ".part")
        try:
            with part.open("w") as file:
                json.dump({"batches": told}, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
            if not told:
                self.path.unlink()
            keep_names(self.path.parent)
        except OSError as error:
            raise CannotRun(f"{self.path} cannot be written: {error}") from error


def keep_names(folder: Path) -> None:
    """What is called how there outlives a power cut, where folders can be told to."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@dataclass
class Durable:
    """One bulk run of which the service does the work; `url` is the service's own."""

    url: str
    run: Run
    handed: Handed
    prompts: Path
    calls: Calls = field(init=False)

    async def all(self, key: str) -> None:
        """Raises CannotRun."""
        chunks = chunks_of(self.run.lines())
        async with calling(key, self.run.progress, AWAY) as self.calls:
            await self.go_on()
            pause = FIRST_LOOK
            while True:
                while len(self.handed) < AT_ONCE and (chunk := next(chunks, None)):
                    await self.hand_over(chunk)
                if not self.handed.batches:
                    return
                await asyncio.sleep(pause)
                pause = FIRST_LOOK if await self.look() else min(1.5 * pause, LONGEST_LOOK)

    # -- handing over

    async def go_on(self) -> None:
        """From where an earlier run left it."""
        for batch in self.handed.batches:
            if not batch.id:
                await self.begin(batch)
        await self.look()
        self.run.progress.marks.clear()  # what was done before is no pace of today's

    async def hand_over(self, lines: Lines) -> None:
        """Nothing happens twice: a file does nothing by itself, and who repeats what it asks gets the same batch."""
        type, form = form_of(lines)
        told = await self.ask("POST", "/v1/files", data=form, headers={"Content-Type": type})
        batch = Batch(told["id"], {str(number): id for number, id, _ in lines})
        self.handed.add(batch)
        await self.begin(batch)

    async def begin(self, batch: Batch) -> None:
        wanted = {"input_file_id": batch.file, "endpoint": "/", "completion_window": WINDOW}
        told = await self.ask("POST", "/v1/batches", json=wanted, headers={"Idempotency-Key": f"bulk-{batch.file}"})
        batch.id = told["id"]
        self.handed.save()
        self.run.progress.tell(f"{len(batch.ids)} lines are at the service: {batch.id}")

    # -- looking

    async def look(self) -> bool:
        """At all batches; those that are over are taken back. False if nothing has changed."""
        has_news = False
        for batch in [*self.handed.batches]:
            told = await self.ask("GET", f"/v1/batches/{batch.id}")
            counts = told["request_counts"]
            ended = counts["completed"] + counts["failed"]
            has_news = has_news or ended != batch.ended
            batch.ended, batch.failed = ended, counts["failed"]
            self.count()
            if told["status"] in ENDS:
                await self.take_back(batch, told)
                has_news = True
        return has_news

    def count(self) -> None:
        progress, batches = self.run.progress, self.handed.batches
        progress.ended_there = sum(batch.ended for batch in batches)
        progress.failed_there = sum(batch.failed for batch in batches)

    # -- taking back

    async def take_back(self, batch: Batch, told: dict[str, Any]) -> None:
        """What has become of its lines; what an earlier run has written already is not written twice."""
        left = {number: id for number, id in batch.ids.items() if id not in self.run.has_answer}
        files = [file for file in (told["output_file_id"], told["error_file_id"]) if file]
        for file in files:
            await self.call("GET", f"/v1/files/{file}/content", partial(self.read, left))
        if told["status"] == "failed":
            again = self.refused(batch, told["errors"]["data"], left)
        else:
            again = []
            for number in [*left]:
                self.write(left, number, {"error": f"the batch {batch.id} is {told['status']}, without this line"})
        os.fsync(self.run.answers.fileno())  # nobody else has them from now on
        self.handed.drop(batch)
        self.count()
        for file in (batch.file, *files):
            await self.call("DELETE", f"/v1/files/{file}", whole)
        for numbers in again:
            await self.hand_over(self.lines(numbers))

    async def read(self, left: dict[str, Id], response: aiohttp.ClientResponse) -> None:
        """Answers, or errors. If it breaks off it is read again; lines that are not left were written before."""
        if response.status == 404:
            return
        if response.status != 200:
            raise CannotRun(f"{response.url} says {response.status}: {reason(await response.read())}")
        async for line in lines_of(response):
            told = json.loads(line)
            if told["custom_id"] in left:
                self.write(left, told["custom_id"], self.told(told))

    def told(self, line: dict[str, Any]) -> dict[str, Any]:
        """A line of a batch's file in the words of a bulk run."""
        if response := line["response"]:
            return self.run.told(response["status_code"], json.dumps(response["body"]).encode())
        return {"error": line["error"]["message"]}

    def write(self, left: dict[str, Id], number: str, told: dict[str, Any]) -> None:
        progress = self.run.progress
        try:
            self.run.write(int(number), left.pop(number), told)
        except OSError as error:
            raise CannotRun(str(error)) from error
        progress.ended_there = max(0, progress.ended_there - 1)
        progress.failed_there = max(0, progress.failed_there - ("error" in told))

    def refused(self, batch: Batch, errors: list[dict[str, Any]], left: dict[str, Id]) -> list[set[str]]:
        """Nothing of the batch was begun. Returns the lines to hand over anew: without the wrong ones, or by halves."""
        numbers = [*batch.ids]
        wrong = {numbers[error["line"] - 1]: error["message"] for error in errors if error["line"]}
        if not wrong and len(left) == 1:
            wrong = {next(iter(left)): errors[0]["message"]}
        for number in wrong.keys() & left.keys():
            self.write(left, number, {"error": wrong[number], "status": 400})
        rest = [*left]
        half = len(rest) if wrong else len(rest) // 2
        return [part for part in (set(rest[:half]), set(rest[half:])) if part]

    def lines(self, numbers: set[str]) -> Lines:
        """These, once more."""
        with self.prompts.open("rb") as asked:
            return [
                (number, *read_line(number, line)) for number, line in enumerate(asked, 1) if str(number) in numbers
            ]

    # -- the wire

    async def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """What the service says. Raises CannotRun if it refuses."""
        status, text = await self.call(method, path, whole, **body)
        if status >= 400:
            raise CannotRun(f"{self.url}{path} says {status}: {reason(text)} {self.remedy(path, status)}".rstrip())
        with suppress(ValueError, RecursionError):
            told = json.loads(text)
            if isinstance(told, dict) and isinstance(told.get("id"), str):
                return told
        raise CannotRun(f"{self.url}{path}: this is no answer of gigachat-proxy: {text[:100]!r}")

    def remedy(self, path: str, status: int) -> str:
        if status == 401:
            return "(--key, GIGACHAT_PROXY_KEY)"
        if status == 404 and path.startswith("/v1/batches"):
            return f"(another service, or another key? To have what it was given asked anew, delete {self.handed.path})"
        return ""

    async def call(
        self, method: str, path: str, read: Callable[[aiohttp.ClientResponse], Awaitable[T]], **body: Any
    ) -> tuple[int, T]:
        try:
            return await self.calls.call(method, f"{self.url}{path}", read, **body)
        except aiohttp.SocketTimeoutError:
            raise CannotRun(f"{self.url}: no sign of life for {PATIENCE:g} s") from None


def chunks_of(lines: Iterable[tuple[int, Id, bytes]]) -> Iterator[Lines]:
    """As many as make a batch."""
    chunk: Lines = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line[2])
        if len(chunk) >= LINES or size >= BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def form_of(lines: Lines) -> tuple[str, bytes]:
    """The type and the body of an upload: a file of requests, each with the number of its line."""
    boundary = uuid.uuid4().hex
    named = 'Content-Disposition: form-data; name="{}"'.format
    fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": str(KEPT)}
    head = "".join(f"--{boundary}\r\n{named(name)}\r\n\r\n{value}\r\n" for name, value in fields.items())
    head += f'--{boundary}\r\n{named("file")}; filename="bulk.jsonl"\r\nContent-Type: application/jsonl\r\n\r\n'
    request = b'{"custom_id": "%d", "method": "POST", "url": "/", "body": %b}\n'
    file = b"".join(request % (number, body) for number, _, body in lines)
    return f"multipart/form-data; boundary={boundary}", head.encode() + file + f"\r\n--{boundary}--\r\n".encode()


async def lines_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """However long they are. Raises ClientPayloadError if it breaks off."""
    held = bytearray()
    async for piece in response.content.iter_any():
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield bytes(held + end)
            held.clear()
        held += rest
    if held:
        yield bytes(held)


def bulk(
    prompts: Path, answers: Path, *, parallel: int, url: str, key: str, is_full: bool, is_durable: bool = False
) -> int:
    """Answer a file of prompts; the exit code."""
    if aiohttp is None:
        raise CannotRun("a bulk run needs aiohttp: pip install aiohttp")
    for path in (prompts, answers):
        if path.exists() and not path.is_file():
            raise CannotRun(f"{path} is not a file")
    with prompts.open("rb") as asked:
        if answers.exists() and answers.samefile(prompts):
            raise CannotRun("the answers would overwrite the prompts: name another file")
        handed = Handed(answers.with_name(f"{answers.name}.batches"))
        if handed.batches and not is_durable:
            raise CannotRun(
                f"{len(handed)} lines are at the service already, in batches: go on with --durable. To have them asked "
                f"anew, delete {handed.path}"
            )
        with alone(answers):
            pass  # else the file, which may be written anew, would be taken away from who writes to it
        has_answer = resume(answers)
        progress = Progress(lines_in(asked), before=len(has_answer))
        if progress.before:
            progress.tell(f"{answers} has {progress.before} answers already; going on")
        with alone(answers) as told:
            run = Run(f"{url}/", is_full, asked, told, has_answer, progress, handed.ids())
            if is_durable:
                asyncio.run(Durable(url, run, handed, prompts).all(key))
            else:
                asyncio.run(run.all(key, open_files_for(parallel)))
    progress.tell(f"{progress.answered} answered, {progress.failed} failed, {progress.before} had their answers before")
    if progress.failed:
        progress.tell(f"Why, {answers} says; the same command asks those again.")
    return 1 if progress.failed else 0


# -- The command -------------------------------------------------------------------------------------------------------


def examples() -> int:
    try:
        plain_http()
        drop_in()
        asyncio.run(many_at_once())
        asyncio.run(as_bots_do())
    except (ModuleNotFoundError, ProviderError) as error:
        print(error, file=sys.stderr)
    except urllib.error.HTTPError as error:
        print(f"{proxy_url()} says {error.code}: {reason(error.read())}", file=sys.stderr)
    except urllib.error.URLError as error:
        print(f"Nobody listens at {proxy_url()} ({error.reason}). Start the service: make run", file=sys.stderr)
    else:
        return 0
    return 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Examples of how to use gigachat-proxy; and a tool for bulk runs.")
    command = parser.add_subparsers(dest="command", metavar="bulk").add_parser(
        "bulk",
        help="answer a file of prompts",
        description="Answer a file of prompts.",
        epilog=BULK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("prompts", type=Path, metavar="PROMPTS", help="JSON lines to read")
    command.add_argument("answers", type=Path, metavar="ANSWERS", help="JSON lines to write, and to go on from")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--parallel", type=positive, default=100, metavar="N", help="wait in line at once (100)")
    how.add_argument(
        "--durable", action="store_true", help="hand the lines over: the service goes on without this command"
    )
    command.add_argument("--url", help=f"the proxy (GIGACHAT_PROXY_URL, else {DEFAULT_URL})")
    command.add_argument("--key", help="your key of the proxy (GIGACHAT_PROXY_KEY)")
    command.add_argument("--full", action="store_true", help='the API\'s whole answer beside each, as "data"')
    given = parser.parse_args(argv)
    if not given.command:
        return examples()
    try:
        return bulk(
            given.prompts,
            given.answers,
            parallel=given.parallel,
            url=proxy_url(given.url),
            key=proxy_key(given.key),
            is_full=given.full,
            is_durable=given.durable,
        )
    except KeyboardInterrupt:
        rest = "The service goes on with what it has. " if given.durable else ""
        print(f"\nStopped. {rest}The same command goes on from here.", file=sys.stderr)
        return 130
    except (CannotRun, OSError) as error:
        print(f"\nIt cannot go on: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
