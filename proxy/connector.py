"""The contract of a connector, and the one function that loads it. `docs/connectors.md` tells the same as a walk.

A connector is a Python module (or an object) with three functions:

    validate_data(data) -> True      ValueError: missing or out of range; TypeError: wrong type
    request_api(data) -> dict        the API's answer; async, or plain (then it runs in a thread)
    get_info() -> dict               what `GET /` shows; async or plain

`data` is `{"messages": [message objects], "generate_parameters": {every other field of the call}}`.
Optional names, found in the module in which `request_api` was defined:

    DIALECT = "openai"               what the API speaks
    stream_api(data)                 async iterator of chunks, each a dict or its JSON as bytes
    startup()                        may raise CredentialMissing: only then does the start fail
    shutdown()

Importing a connector reads no setting, does no I/O and loads no SDK.
"""

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.errors import BadRequest, ProxyError, UpstreamError

#: A call for the connector: message objects under "messages", every other field under "generate_parameters".
Data = dict[str, Any]
#: A piece of a streamed answer: a dict, or its JSON as bytes.
Chunk = dict[str, Any] | bytes

#: Threads for connectors whose `request_api` is a plain function, all lanes together.
MAX_THREADS = 64


class Gate(Protocol):
    """What a call must pass before its bytes go out: see `proxy.limits.Permit`."""

    @property
    def is_sent(self) -> bool: ...

    async def gate(self) -> None: ...

    def mark_sent(self) -> None: ...

    def release_after(self, call: "asyncio.Future[Any]") -> None: ...


#: The permit under which the current call runs; None outside the line (a token request, a script).
current_gate: ContextVar[Gate | None] = ContextVar("current_gate", default=None)

#: Headers of the caller that go along with the current call (X-Request-ID and its like).
passed_on: ContextVar[Mapping[str, str]] = ContextVar("passed_on", default={})  # noqa: B039 - never changed


def mark_sent() -> None:
    """Say that the bytes of the current call go out now, so that the next call keeps its distance from here.

    For connectors that do not use `proxy.upstream` and prepare for long before they send; without it a call counts
    from its start. Outside the line it does nothing.
    """
    gate = current_gate.get()
    if gate is not None:
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

    @property
    def dialect(self) -> str:
        return str(getattr(self.home, "DIALECT", "openai"))

    @property
    def is_gated(self) -> bool:
        """Whether its calls go out through `proxy.upstream`, which holds each at its pace slot."""
        return any(getattr(value, "__module__", "") == "proxy.upstream" for value in vars(self.home).values())

    def validate(self, data: Data) -> None:
        """Ask the connector whether the call makes sense. Raises BadRequest with its words."""
        try:
            verdict = self.validate_data(data)
        except (ValueError, TypeError) as error:
            raise BadRequest(str(error), param=getattr(error, "param", None)) from None
        if verdict is not True:
            raise BadRequest(f"the connector {self.name} does not accept this request")

    async def request(self, data: Data) -> AsyncIterator[Chunk]:
        """One whole answer, as a stream of one. Raises UpstreamError."""
        await self._pass_gate()
        with foreign_errors_named(self.name):
            answer = await _called(self.request_api, data)
        if not isinstance(answer, dict):
            raise UpstreamError(None, message=f"the connector {self.name} returned {type(answer).__name__}, not a dict")
        yield answer

    async def stream(self, data: Data) -> AsyncIterator[Chunk]:
        """The answer's chunks; one chunk, the whole answer, if the connector does not stream."""
        stream_api = getattr(self.home, "stream_api", None)
        if stream_api is None:
            async with closing(self.request(data)) as answers:
                async for answer in answers:
                    yield answer
            return
        await self._pass_gate()
        with foreign_errors_named(self.name):
            async with closing(stream_api(data)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def info(self) -> dict[str, Any]:
        info = await _called(self.get_info)
        return info if isinstance(info, dict) else {}

    async def startup(self) -> None:
        await self._optional("startup")

    async def shutdown(self) -> None:
        await self._optional("shutdown")

    async def _optional(self, name: str) -> None:
        function = getattr(self.home, name, None)
        if function is not None:
            outcome = function()
            if inspect.isawaitable(outcome):
                await outcome

    async def _pass_gate(self) -> None:
        gate = current_gate.get()
        if gate is not None and not self.is_gated:
            await gate.gate()


class foreign_errors_named:
    """Turn what a connector's own client raises for a broken connection into an UpstreamError, once, at the border."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, ProxyError):
            raise UpstreamError(
                None, message=f"the connector {self._name} lost its upstream: {type(error).__name__}"
            ) from error


@asynccontextmanager
async def closing(chunks: AsyncIterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Close an async iterator on the way out, if it can be closed: then its connection goes back at once."""
    try:
        yield chunks
    finally:
        aclose = getattr(chunks, "aclose", None)
        if aclose is not None:
            await aclose()


_threads: ThreadPoolExecutor | None = None


async def _called(function: Callable[..., Any], *args: Any) -> Any:
    """Await an async function; run a plain one in a thread, so that it cannot hold up the line."""
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    global _threads  # noqa: PLW0603 - made at first use: most connectors are async
    if _threads is None:
        _threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="connector")
    call = asyncio.get_running_loop().run_in_executor(_threads, copy_context().run, function, *args)
    try:
        outcome = await asyncio.shield(call)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: its call is still in flight, so its slot is not free before it ends.
        gate = current_gate.get()
        if gate is not None and not call.done():
            gate.release_after(call)
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

    Raises ConnectorError saying whether there is no such module, or it failed to import, or what it lacks.
    """
    name = name.removesuffix(".py").replace("/", ".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConnectorError(missing_module(name, error)) from None
    except Exception as error:
        raise ConnectorError(failed_import(name, error)) from error
    missing = [
        wanted for wanted in ("validate_data", "request_api", "get_info") if not callable(getattr(module, wanted, None))
    ]
    if missing:
        raise ConnectorError(
            f"the connector {name} lacks {', '.join(missing)}: a connector is a module with the functions "
            "validate_data(data), request_api(data) and get_info(); see docs/connectors.md"
        )
    return Connector(name, module.validate_data, module.request_api, module.get_info, module)


def missing_module(name: str, error: ModuleNotFoundError) -> str:
    """Tell "there is no such connector" from "the connector needs a module that is not installed"."""
    if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
        return (
            f"there is no connector module {name!r}: put {name.replace('.', '/')}.py beside app.py or into the "
            "current folder, or name another one with CONNECTOR"
        )
    return (
        f"the connector {name} needs the module {error.name!r}, which is not installed: "
        f"install it (pip install {error.name}) or name another connector with CONNECTOR"
    )


def failed_import(name: str, error: Exception) -> str:
    where = f" (line {error.lineno} of {error.filename})" if isinstance(error, SyntaxError) else ""
    return (
        f"the connector {name} was found but failed to import: {type(error).__name__}: {error}{where}. "
        "Importing a connector must read no setting and do no I/O"
    )
