"""The contract of a connector, and the one function that loads it. `docs/connectors.md` tells the same as a walk.

A connector is a Python module (or an object) with three functions:

    validate_data(data) -> True      ValueError: missing or out of range; TypeError: wrong type
    request_api(data) -> dict        the API's answer; async, or plain (then it runs in a thread)
    get_info() -> dict               what `GET /` shows; async or plain

`data` is `{"messages": [message objects], "generate_parameters": {every other field of the call}}`.
Optional names, found in the module in which `request_api` was defined:

    DIALECT = "openai"               what the API speaks
    stream_api(data)                 async iterator of chunks, each a dict or its JSON as bytes
    forward(call)                    any path of the API, byte for byte: async iterator of its RawHead, then bytes
    startup()                        may raise CredentialMissing: only then does the start fail
    ready()                          returns if a call could be authorized now, else raises; asks for a token at most
    shutdown()

Importing a connector reads no setting, does no I/O and loads no SDK.
"""

import asyncio
import importlib
import inspect
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from http.client import HTTPException
from json import JSONDecodeError
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import aiohttp

from proxy.errors import BadRequest, CredentialMissing, NotFound, UpstreamError, UpstreamTimeout
from proxy.forwarding import RawCall, RawHead
from proxy.passed import PassedCredential
from proxy.settings import SettingsError
from proxy.threads import in_thread

#: A call for the connector: message objects under "messages", every other field under "generate_parameters".
Data = dict[str, Any]
#: A piece of an answer: a dict or its JSON as bytes; of a forwarded one, its head and then its bytes as they come.
Chunk = dict[str, Any] | bytes | RawHead

#: The three functions that make a module a connector.
FUNCTIONS = ("validate_data", "request_api", "get_info")


class Gate(Protocol):
    """What a call must pass before its bytes go out: see `proxy.limits.Permit`."""

    @property
    def is_sent(self) -> bool: ...

    async def gate(self) -> None: ...

    def mark_sent(self) -> None: ...

    def release_after(self, call: "asyncio.Future[Any]") -> None: ...


#: The permit under which the current call runs; None outside the line (a token request, a script).
current_gate: ContextVar[Gate | None] = ContextVar("current_gate", default=None)

#: The loop that the current call belongs to, for the parts of a connector that run in threads.
home_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("home_loop", default=None)

#: Headers of the caller that go along with the current call (X-Request-ID and its like).
passed_on: ContextVar[Mapping[str, str]] = ContextVar("passed_on", default={})  # noqa: B039 - never changed
#: Where `note` writes: headers for the answer to the current call.
noted: ContextVar[dict[str, str] | None] = ContextVar("noted", default=None)


def note(header: str, value: str) -> None:
    """Add a header to the caller's answer: what a connector did that the caller should know. Latin-1 text."""
    headers = noted.get()
    if headers is not None:
        headers[header] = value


def mark_sent() -> None:
    """Say that the bytes of the current call go out now, so that the next call keeps its distance from here.

    For connectors that do not use `proxy.upstream` and prepare for long before they send; without it a call counts
    from its start. May be called in a thread. Outside the line it does nothing.
    """
    gate, home = current_gate.get(), home_loop.get()
    if gate is None or home is None:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with suppress(RuntimeError):  # the service has stopped meanwhile
            home.call_soon_threadsafe(gate.mark_sent)
    else:
        gate.mark_sent()


class ConnectorError(Exception):
    """A connector cannot be loaded; the text says why and how to mend it."""


@dataclass(frozen=True, eq=False)
class Connector:
    """The functions of one connector, wrapped so that callers need not know which of them are async or missing."""

    name: str
    validate_data: Callable[[Data], object]
    request_api: Callable[[Data], Any]
    get_info: Callable[[], Any]
    home: object
    opened_by: "Connector | None" = None

    @property
    def dialect(self) -> str:
        return str(getattr(self.home, "DIALECT", "openai"))

    @cached_property
    def is_gated(self) -> bool:
        """Whether its calls go out through `proxy.upstream`, which holds each at its pace slot."""
        if self.opened_by is not None:
            return self.opened_by.is_gated
        upstream = sys.modules.get("proxy.upstream")
        client: Any = getattr(upstream, "Upstream", None)
        return upstream is not None and any(
            value is upstream or value is client or isinstance(value, client) for value in vars(self.home).values()
        )

    def validate(self, data: Data) -> None:
        """Ask the connector whether the call makes sense. Raises BadRequest with its words."""
        try:
            verdict = self.validate_data(data)
        except (ValueError, TypeError) as error:
            raise BadRequest(str(error), param=getattr(error, "param", None)) from None
        if verdict is not True:
            raise BadRequest(f"the connector {self.name} does not accept this request")

    async def request(self, data: Data) -> Chunk:
        """One whole answer. Raises UpstreamError."""
        await self._pass_gate()
        with foreign_errors_named(self.name):
            answer = await _called(self.request_api, data)
        if not isinstance(answer, dict):
            raise UpstreamError(None, message=f"the connector {self.name} returned {type(answer).__name__}, not a dict")
        return answer

    async def stream(self, data: Data) -> AsyncIterator[Chunk]:
        """The answer's chunks; one chunk, the whole answer, if the connector does not stream."""
        stream_api = getattr(self.home, "stream_api", None)
        if stream_api is None:
            # What cannot stream must not ask its API to.
            parameters = {name: value for name, value in data["generate_parameters"].items() if name != "stream"}
            yield await self.request({**data, "generate_parameters": parameters})
            return
        await self._pass_gate()
        with foreign_errors_named(self.name):
            async with closing(stream_api(data)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def forward(self, call: RawCall) -> AsyncIterator[Chunk]:
        """The API's own answer, byte for byte: its head, then its body as it comes."""
        forward = getattr(self.home, "forward", None)
        if forward is None:
            raise NotFound(f"the connector {self.name} does not pass on its API's own paths")
        await self._pass_gate()
        with foreign_errors_named(self.name):
            async with closing(forward(call)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def embeddings(self, data: dict[str, Any]) -> dict[str, Any]:
        """The API's answer to its own body for embeddings. Raises UpstreamError, NotFound."""
        return await self._asked("request_embeddings", "has no embeddings", data)

    async def models(self) -> dict[str, Any]:
        """The API's list of models. Raises UpstreamError, NotFound."""
        return await self._asked("list_models", "names no models")

    @property
    def tells_balance(self) -> bool:
        return hasattr(self.home, "get_balance")

    async def balance(self) -> dict[str, Any]:
        """What is left to spend, by what it is for. Raises UpstreamError, NotFound."""
        return await self._asked("get_balance", "tells no balance")

    async def _asked(self, name: str, lack: str, *args: Any) -> dict[str, Any]:
        function = getattr(self.home, name, None)
        if function is None:
            raise NotFound(f"the connector {self.name} {lack}")
        await self._pass_gate()
        with foreign_errors_named(self.name):
            answer = await _called(function, *args)
        if not isinstance(answer, dict):
            raise UpstreamError(None, message=f"the connector {self.name} returned {type(answer).__name__}, not a dict")
        return answer

    async def info(self) -> dict[str, Any]:
        with foreign_errors_named(self.name):
            info = await _called(self.get_info)
        return info if isinstance(info, dict) else {}

    @property
    def opens_others(self) -> bool:
        """Whether it can serve accounts of its callers' own credentials."""
        return hasattr(self.home, "open_connector")

    def opened(self, credential: PassedCredential) -> "Connector":
        """The connector of another account."""
        home = self.home.open_connector(credential)  # type: ignore[attr-defined]
        return Connector(self.name, home.validate_data, home.request_api, home.get_info, home, opened_by=self)

    def owns(self, credential: PassedCredential) -> bool:
        """Whether it is the very credential that this connector calls with."""
        owns = getattr(self.home, "owns", None)
        return owns is not None and bool(owns(credential))

    def account(self) -> str:
        """What tells its account from others, in every process alike, and tells nobody anything; "" if it has none."""
        account = getattr(self.home, "account", None)
        return str(account()) if account is not None else ""

    async def issue_token(self) -> tuple[str, float]:
        """An access token of the upstream, and the seconds that it lasts. Raises UpstreamError, NotFound."""
        issue_token = getattr(self.home, "issue_token", None)
        if issue_token is None:
            raise NotFound(f"the connector {self.name} issues no tokens")
        with foreign_errors_named(self.name):
            token, life = await issue_token()
        return str(token), float(life)

    async def startup(self) -> None:
        """Raises CredentialMissing or SettingsError as the connector does, ConnectorError for all else."""
        try:
            await self._optional("startup")
        except (CredentialMissing, SettingsError):
            raise
        except Exception as error:
            raise ConnectorError(
                f"the connector {self.name} failed in startup(): {described(error)}{place_told(error)}"
            ) from error

    async def ready(self) -> None:
        """Returns if a call could be authorized now. Raises UpstreamError as the connector does."""
        with foreign_errors_named(self.name):
            await self._optional("ready")

    async def shutdown(self) -> None:
        await self._optional("shutdown")

    async def _optional(self, name: str) -> None:
        function = getattr(self.home, name, None)
        if function is not None:
            outcome = function()
            if inspect.isawaitable(outcome):
                await outcome

    async def _pass_gate(self) -> None:
        if self.is_gated:
            return
        home_loop.set(asyncio.get_running_loop())
        gate = current_gate.get()
        if gate is not None:
            await gate.gate()


class foreign_errors_named:
    """Turn what a connector's own client raises into an UpstreamError, once, at the border.

    Its exceptions for an HTTP status (aiohttp, urllib, requests) keep that status; a time-out is not tried again, for
    the call may have been billed; a broken connection and an answer that is no JSON are.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, OSError | HTTPException | aiohttp.ClientError | JSONDecodeError):
            return
        status = told_status(error)
        if status is not None:
            raise UpstreamError(status) from error
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError):
            raise UpstreamTimeout(message=f"the upstream did not answer the connector {self._name} in time") from error
        raise UpstreamError(
            None, message=f"the connector {self._name} got no answer from its upstream: {type(error).__name__}"
        ) from error


def told_status(error: Exception) -> int | None:
    """The HTTP status that an exception stands for: `status` of aiohttp, `code` of urllib, `response` of requests."""
    if isinstance(error, aiohttp.ClientError):
        status = getattr(error, "status", None)
    else:
        status = getattr(error, "code", getattr(getattr(error, "response", None), "status_code", None))
    return status if isinstance(status, int) and 400 <= status <= 599 else None


@asynccontextmanager
async def closing(chunks: AsyncIterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Close an async iterator on the way out, if it can be closed: then its connection goes back at once."""
    try:
        yield chunks
    finally:
        aclose = getattr(chunks, "aclose", None)
        if aclose is not None:
            await aclose()


is_async = cache(inspect.iscoroutinefunction)


def forgotten(call: "asyncio.Future[Any]") -> None:
    """Look at how a call ended that nobody waits for any more, so that the event loop does not complain of it."""
    if not call.cancelled():
        call.exception()


async def _called(function: Callable[..., Any], *args: Any) -> Any:
    """Await an async function; run a plain one in a thread, so that it cannot hold up the line."""
    if is_async(function):
        return await function(*args)
    call = in_thread(function, *args)
    try:
        outcome = await asyncio.shield(call)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: its call is still in flight, so its slot is not free before it ends.
        gate = current_gate.get()
        if gate is not None and not call.done():
            gate.release_after(call)
        call.add_done_callback(forgotten)
        raise
    return await outcome if inspect.isawaitable(outcome) else outcome


def from_functions(
    validate_data: Callable[[Data], object],
    request_api: Callable[[Data], Any],
    get_info: Callable[[], Any],
) -> Connector:
    """A connector from its three functions; the optional names are looked up where `request_api` is defined."""
    home = sys.modules[request_api.__module__]
    return Connector(home.__name__, validate_data, request_api, get_info, home)


def load_connector(name: str) -> Connector:
    """Import the module `name` (dots allowed, ".py" forgiven) and check that it keeps the contract.

    It is looked for beside app.py, among the installed packages, and in the current folder.
    Raises ConnectorError saying whether there is no such module, or it failed to import, or what it lacks.
    """
    module_name = name.removeprefix("./").removesuffix(".py").replace("/", ".")
    if not all(module_name.split(".")):
        raise ConnectorError(
            f"CONNECTOR={name} is not a module's name: put its file beside app.py or into the current folder and "
            "name it without the path, such as my_connector"
        )
    if "" not in sys.path:
        sys.path.append("")  # the current folder, last: nothing there hides a module of ours
    with importing(module_name):
        module = importlib.import_module(module_name)
    if missing := lacking(module):
        raise ConnectorError(incomplete(module_name, missing))
    return Connector(module_name, module.validate_data, module.request_api, module.get_info, module)


class importing:
    """Say kindly why the connector that is imported in the block cannot be. Raises ConnectorError.

    `name` is for blocks that know it; else it is learnt from what went wrong.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception | SystemExit):
            # The first frame is the block's own, so the connector's are those after it.
            place = last_place(traceback.extract_tb(trace)[1:])
            raise ConnectorError(why_not(error, self._name, place)) from error


def why_not(error: BaseException, name: str, place: traceback.FrameSummary | None) -> str:
    """Tell "there is no such connector" from "it is not complete", "it is no Python" and "it failed"."""
    name = name or (Path(place.filename).stem if place else str(getattr(error, "name", "")))
    if isinstance(error, ModuleNotFoundError) and place is None:
        return (
            f"there is no connector module {name!r}: put {name.replace('.', '/')}.py beside app.py or into the "
            "current folder, or name another one with CONNECTOR"
        )
    if isinstance(error, ImportError) and place is None and (missing := lacking(sys.modules.get(name))):
        return incomplete(name, missing)
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the connector {name} needs the module {error.name!r}, which is not installed: "
            f"install it (pip install {error.name}) or name another connector with CONNECTOR"
        )
    if isinstance(error, SyntaxError):
        return f"the connector {name} is not valid Python: {error.msg} (line {error.lineno} of {error.filename})"
    return (
        f"the connector {name} failed to import: {described(error)}{at(place)}. "
        "Importing a connector must read no setting and do no I/O: startup() is the place for that"
    )


def lacking(module: object) -> list[str]:
    return [name for name in FUNCTIONS if not callable(getattr(module, name, None))]


def incomplete(name: str, missing: list[str]) -> str:
    return (
        f"the connector {name} lacks {', '.join(missing)}: a connector is a module with the functions "
        "validate_data(data), request_api(data) and get_info(); see docs/connectors.md"
    )


def described(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_told(error: BaseException) -> str:
    return at(last_place(traceback.extract_tb(error.__traceback__)))


def last_place(frames: list[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """Where it happened, the import machinery aside; None if nowhere else."""
    return next((frame for frame in reversed(frames) if "importlib" not in frame.filename), None)


def at(place: traceback.FrameSummary | None) -> str:
    return f" (line {place.lineno} of {place.filename})" if place else ""
