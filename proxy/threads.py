"""Plain functions beside the loop: each in a thread of its own, so that none waits for another to end.

The threads are daemons: one that hangs in a call without a time-out does not keep the service from stopping.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any


def in_thread(function: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":
    """Start `function(*args)` in a thread, with the context variables of now; what comes of it."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def tell(report: Callable[[], None]) -> None:
        if not outcome.done():
            report()

    def work() -> None:
        try:
            result = context.run(function, *args)
        except BaseException as error:
            report = partial(outcome.set_exception, bearable(error))
        else:
            report = partial(outcome.set_result, result)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, report)

    Thread(target=work, name=f"connector {getattr(function, '__name__', '')}", daemon=True).start()
    return outcome


def bearable(error: BaseException) -> Exception:
    """An error that a future can carry and that ends this call alone: a connector's `sys.exit()` does not stop us."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"it ended with {error!r}")
