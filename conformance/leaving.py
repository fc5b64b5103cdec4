"""Promises about start and stop, and about callers who leave: nothing stays open behind them."""

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

from conformance.promises import GONE, PATIENCE, Absent, Bench, Broken, Chapter, shown, until
from conformance.scripted import stalls
from proxy.connector import described
from proxy.errors import CredentialMissing

START = Chapter()
CHAPTER = Chapter()
STOP = Chapter()


@START.promise("startup() and shutdown() may be called twice, and one after the other")
async def start_and_stop_twice(bench: Bench) -> None:
    if not bench.offers("startup") and not bench.offers("shutdown"):
        raise Absent("there is neither startup nor shutdown")
    start, stop = bench.connector.startup, bench.connector.shutdown
    for number, (name, step) in enumerate(
        [("startup", start), ("startup", start), ("shutdown", stop), ("shutdown", stop), ("startup", start)]
    ):
        try:
            await asyncio.wait_for(step(), PATIENCE)
        except TimeoutError:
            raise Broken(f"{name}() was not done after {PATIENCE:g} s") from None
        except CredentialMissing as error:
            raise Broken(f"startup() is not content with the settings in CHECK['env']: {error}") from error
        except Exception as error:
            again = "" if number == 0 else " when it was called again"
            raise Broken(f"{name}() failed{again}: {described(error)}") from error


@CHAPTER.promise("a caller who leaves takes the call along; so does a call that takes too long")
async def a_caller_who_leaves(bench: Bench) -> None:
    others = asyncio.all_tasks()
    with bench.api.script(stalls) as calls:
        call = asyncio.create_task(bench.connector.request(bench.data()))
        if not await until(lambda: bool(calls), PATIENCE):
            call.cancel()
            raise Broken("the call did not reach the API")
        call.cancel()
        await asyncio.wait({call}, timeout=GONE)
        if not call.done():
            raise Broken(f"cancelled, request_api went on for more than {GONE:g} s: let CancelledError pass")
        if not call.cancelled():
            came = call.exception()
            what = f"raised {described(came)}" if came else f"returned {shown(call.result())}"
            raise Broken(
                f"cancelled, request_api {what} instead: catch Exception and not BaseException, and let CancelledError "
                "pass"
            )
        if not bench.is_plain and not await until(lambda: calls[0].is_gone, GONE):
            raise Broken(
                f"{GONE:g} s after its caller had left, the call was still open at the API: hold the response in "
                "`async with`; do not call in a task or thread of your own (a plain function gets its thread from the "
                "service, which then knows that it goes on)"
            )
    if not await until(lambda: calls[0].is_over, PATIENCE):
        raise Broken("the call did not end when the API broke the connection")
    if left := await left_over(lambda: tasks_but(others)):
        raise Broken(f"its caller had left, and it left a task behind: {left}")


@STOP.promise("after shutdown() nothing is open: no connection, no task, no thread")
async def nothing_is_left(bench: Bench) -> None:
    others = {task for task in [asyncio.current_task()] if task}
    await bench.ask()  # whoever keeps connections for the next call has one now
    await asyncio.wait_for(bench.connector.shutdown(), PATIENCE)
    await asyncio.wait_for(bench.connector.shutdown(), PATIENCE)
    gc.collect()
    if not await until(lambda: bench.api.connections == 0, GONE):
        advice = "close it in shutdown()" if bench.offers("shutdown") else "add a shutdown() that closes your client"
        raise Broken(
            f"connections to the API that are still open: {bench.api.connections}; keep one client and {advice}"
        )
    if tasks := await left_over(lambda: tasks_but(others)):
        raise Broken(f"tasks are still running: {tasks}. Cancel and await them in shutdown()")
    if threads := await left_over(lambda: [one.name for one in threading.enumerate() if is_its_own(one)]):
        raise Broken(f"threads are still running: {threads}. End them in shutdown()")
    if bench.complaints:
        raise Broken(f"things were left to the garbage collector: {'; '.join(dict.fromkeys(bench.complaints))}")


@STOP.promise("it calls nobody but the API that its settings name")
async def it_calls_nobody_else(bench: Bench) -> None:
    if bench.fence.attempts:
        raise Broken(f"it wanted to call {', '.join(dict.fromkeys(bench.fence.attempts))}; nothing left this machine")


async def left_over(look: Callable[[], list[str]]) -> str:
    """The names of what is still there after a while."""
    await until(lambda: not look(), GONE)
    return ", ".join(look())


def tasks_but(others: "set[asyncio.Task[Any]]") -> list[str]:
    return [
        getattr(task.get_coro(), "__qualname__", task.get_name())
        for task in asyncio.all_tasks() - others
        if not task.done()
    ]


def is_its_own(thread: threading.Thread) -> bool:
    """Not the main thread, the scripted API's, or one of the loop's pool, which stay until the process ends."""
    return thread is not threading.main_thread() and not thread.name.startswith(("scripted API", "asyncio_"))
