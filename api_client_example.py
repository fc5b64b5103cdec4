#!/usr/bin/env python3
"""The first five minutes with a running gigachat-proxy, and a client to keep.

    python3 api_client_example.py                                   the examples below, one after the other
    python3 api_client_example.py bulk prompts.jsonl answers.jsonl  thousands of prompts; see --help

The proxy is looked for at GIGACHAT_PROXY_URL, else at http://127.0.0.1:8078. If it asks for a key, put yours into
GIGACHAT_PROXY_KEY. Plain HTTP needs nothing but Python 3.11; bulk runs need `pip install aiohttp`, the drop-in class
`pip install gigachat aiohttp`. The file may be copied into another project as it is.
"""

from __future__ import annotations

import argparse
import asyncio
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
from array import array
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import IO, Any

MISSING = 'needs a package that is not there ({}). Install what it needs: pip install "gigachat>=0.2.3,<0.3" aiohttp'

try:
    import aiohttp
except ModuleNotFoundError:  # plain HTTP does without
    aiohttp = None  # type: ignore[assignment]
try:
    import httpx
    from gigachat import GigaChat as OfficialGigaChat
    from gigachat.context import authorization_cvar
    from gigachat.models.auth import AccessToken
    from yarl import URL

    Transport, AsyncTransport, AsyncBody = httpx.BaseTransport, httpx.AsyncBaseTransport, httpx.AsyncByteStream
except ModuleNotFoundError as missing:  # bulk runs do without
    WHAT_IS_MISSING = str(missing)

    class OfficialGigaChat:  # type: ignore[no-redef]
        def __init__(self, **_: Any) -> None:
            raise ModuleNotFoundError(f"GigaChat {MISSING.format(WHAT_IS_MISSING)}")

    Transport = AsyncTransport = AsyncBody = object  # type: ignore[assignment]

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


# -- 4. Bulk: a file of prompts in, a file of answers out --------------------------------------------------------------

BULK = """A line of PROMPTS is a native body, with an "id" if you like, or just {"id": ..., "prompt": "..."}:

  {"id": "a", "prompt": "Привет"}
  {"messages": [["user", "Привет"]], "generate_parameters": {"max_tokens": 50}}

A line of ANSWERS is {"id": "a", "answer": "text"} or {"id": "a", "error": "text", "status": 400}, in the order in which
they come. Without an "id" it is the number of the line. An answer that is not the whole text, or more than text, has
the API's whole answer beside it as "data"; with --full all have.

Run it again to go on: what has its answer is not asked again, what failed is. Exit code: 0 all have their answers, 1
some failed, 2 it could not run, 130 stopped by Ctrl-C."""

Id = str | int
#: Seconds to wait for a proxy that is not there, at most.
LONGEST_PAUSE = 30.0
#: So many troubles are told on the terminal; all of them are in the file.
TOLD = 10


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
            self.marks.append((time.monotonic(), self.answered + self.failed))
            if is_terminal:
                print(f"\r{self.bar()} {self}\x1b[K", end="", file=sys.stderr, flush=True)
            elif len(self.marks) > 1:
                self.tell(str(self))
            await asyncio.sleep(0.2 if is_terminal else 10.0)

    def bar(self) -> str:
        full = 20 * self.done // max(self.total, 1)
        return f"[{'#' * full}{'.' * (20 - full)}]"

    def __str__(self) -> str:
        rate = self.rate()
        left = f"{clock((self.total - self.done) / rate)} left" if rate else "-:-- left"
        share = 100 * self.done // max(self.total, 1)
        trouble = f"  ({self.trouble})" if self.trouble else ""
        return f"{share:3}%  {self.done}/{self.total}  {rate:.1f}/s  {left}  {self.failed} failed{trouble}"

    def rate(self) -> float:
        """Answers a second, of late."""
        (since, then), (now, today) = self.marks[0], self.marks[-1]
        return (today - then) / (now - since) if now > since else 0.0


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@dataclass
class Run:
    """One bulk run, from the lines that have no answer yet to their answers."""

    url: str
    is_full: bool
    asked: IO[bytes]
    answers: IO[bytes]
    has_answer: Ids
    progress: Progress

    async def all(self, key: str, parallel: int) -> None:
        """Raises CannotRun, also if the disk is full."""
        lines = self.lines()
        headers = {"Content-Type": "application/json", "X-Priority": "low"}  # people first
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = aiohttp.ClientTimeout(None, sock_connect=30.0, sock_read=PATIENCE)
        connector = aiohttp.TCPConnector(limit=0)
        trouble: BaseException | None = None
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:
            show = asyncio.create_task(self.progress.show())
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(parallel):
                        group.create_task(self.some(lines, http))
            except* (CannotRun, OSError) as troubles:
                trouble = troubles.exceptions[0]
            finally:
                show.cancel()
        if trouble:
            raise CannotRun(str(trouble)) from trouble

    async def some(self, lines: Iterator[tuple[int, Id, bytes]], http: aiohttp.ClientSession) -> None:
        """One request after the other; `lines` is shared, whoever is free takes the next."""
        for number, id, body in lines:
            self.write(number, id, await self.ask(http, body))

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

    async def ask(self, http: aiohttp.ClientSession, body: bytes) -> dict[str, Any]:
        """Ask until there is an answer or an error; a proxy that is busy, stopping or not there is waited for."""
        for attempt in count():
            pause = min(2.0**attempt, LONGEST_PAUSE)
            try:
                async with http.post(self.url, data=body) as response:
                    text = await response.read()
                if response.status not in (429, 503):
                    self.progress.stuck("")
                    return self.told(response.status, text)
                pause = seconds_in(response.headers) or pause
                if response.status == 503:
                    self.progress.stuck(f"{self.url} says 503: {reason(text)}")
            except aiohttp.SocketTimeoutError:
                return {"error": f"no sign of life for {PATIENCE:g} s"}
            except (aiohttp.InvalidURL, aiohttp.ClientSSLError) as error:
                raise CannotRun(f"{self.url}: {error}") from error
            except (aiohttp.ClientError, OSError) as error:
                self.progress.stuck(f"{self.url} is not there: {error}")
            await asyncio.sleep(pause)
        raise AssertionError  # count() has no end

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


def reason(text: bytes) -> str:
    with suppress(ValueError, LookupError, TypeError):
        return str(json.loads(text)["status"])
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


def bulk(prompts: Path, answers: Path, *, parallel: int, url: str, key: str, is_full: bool) -> int:
    """Answer a file of prompts; the exit code."""
    if aiohttp is None:
        raise CannotRun("a bulk run needs aiohttp: pip install aiohttp")
    for path in (prompts, answers):
        if path.exists() and not path.is_file():
            raise CannotRun(f"{path} is not a file")
    with prompts.open("rb") as asked:
        if answers.exists() and answers.samefile(prompts):
            raise CannotRun("the answers would overwrite the prompts: name another file")
        has_answer = resume(answers)
        progress = Progress(lines_in(asked), before=len(has_answer))
        if progress.before:
            progress.tell(f"{answers} has {progress.before} answers already; going on")
        with answers.open("ab", buffering=0) as told:
            run = Run(f"{url}/", is_full, asked, told, has_answer, progress)
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
    except ModuleNotFoundError as error:
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
    command.add_argument("--parallel", type=positive, default=100, metavar="N", help="wait in line at once (100)")
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
        )
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    except (CannotRun, OSError) as error:
        print(f"\nIt cannot go on: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
