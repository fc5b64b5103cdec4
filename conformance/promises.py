"""What a promise is, and what it has at hand to find out whether it is kept."""

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conformance.declaration import Declaration
from conformance.fence import Fence
from conformance.scripted import Call, Script, ScriptedApi
from proxy.connector import Connector, Data, at, described, is_async, last_place

if TYPE_CHECKING:
    from conformance.alone import Findings

#: Seconds for what should take none.
PATIENCE = 2.0
#: Seconds in which who was told to go must be gone.
GONE = 1.0
#: Seconds between two looks.
LOOK = 0.005


class Broken(Exception):
    """The promise is not kept; the text says what happened and what to do."""


class Absent(Exception):
    """The connector does not offer what the promise is about; the text says what is missing."""


@dataclass
class Bench:
    """A connector, the scripted API before it, and what was noticed meanwhile."""

    connector: Connector
    declared: Declaration
    api: ScriptedApi
    fence: Fence
    #: What the event loop complained of: unclosed clients, exceptions that nobody has looked at.
    complaints: list[str] = field(default_factory=list)
    #: What a new process finds out about it; see `alone.py`.
    alone: "asyncio.Task[Findings] | None" = None

    def data(self) -> Data:
        return deepcopy(self.declared.sample)

    def offers(self, name: str) -> bool:
        return callable(getattr(self.connector.home, name, None))

    @property
    def is_plain(self) -> bool:
        return not is_async(self.connector.request_api)

    async def ask(self, script: Script | None = None) -> object:
        """What one call comes to: an answer, or the exception that the service would see. Raises Broken."""
        with self.api.script(script) as calls:
            call = asyncio.create_task(self.connector.request(self.data()))
            is_in_time = await until(lambda: call.done() or len(calls) > 1, PATIENCE)
            await dropped(call)
        once(calls)
        if not is_in_time:
            raise Broken(
                f"{PATIENCE:g} s after the API has done its part, request_api has not ended; if its client tries again "
                "by itself, switch that off (max_retries=0): the line does it, at its own pace"
            )
        if call.cancelled():
            raise Broken("request_api ended with CancelledError though nobody had cancelled it")
        return call.exception() or call.result()


def once(calls: list[Call]) -> None:
    """Raises Broken if a call went out twice."""
    if len(calls) > 1:
        raise Broken(
            f"one call of request_api was sent to the API {len(calls)} times: do not try again, and switch that off in "
            "your client (max_retries=0); the line tries again, at its pace, and counts every call"
        )


Keep = Callable[[Bench], Awaitable[str | None]]


@dataclass(frozen=True)
class Promise:
    """`keep` raises Broken or Absent, or returns a word of advice."""

    text: str
    keep: Keep
    needs_api: bool = True


class Chapter(list[Promise]):
    """The promises about one thing, in the order in which they are made."""

    def promise(self, text: str, *, needs_api: bool = True) -> Callable[[Keep], Keep]:
        def add(keep: Keep) -> Keep:
            self.append(Promise(text, keep, needs_api))
            return keep

        return add


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time. It looks again and again, for what it looks at is in other threads."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(LOOK)
    return True


async def dropped(call: "asyncio.Task[object]") -> None:
    """Cancel a call and give it a moment; whatever it does, the check goes on."""
    if not call.done():
        call.cancel()
        await asyncio.wait({call}, timeout=GONE)
    if not call.done():
        raise Broken(f"cancelled, request_api still had not ended after {GONE:g} s: let CancelledError pass")


def shown(value: object) -> str:
    """A value as people can read it in a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def told(error: BaseException, file: str | None) -> str:
    """An exception, and the line of the connector that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename == file]
    return described(error) + at(ours[-1] if ours else last_place(frames))


def file_of(connector: Connector) -> str | None:
    return inspect.getsourcefile(connector.home) if inspect.ismodule(connector.home) else None
