"""A connection to SQLite in a thread of its own.

Rule 1: who hands an operation over waits for its outcome; the thread takes all that wait, in their order.
Rule 2: what is handed over is done, whether or not who did so is still there.
Rule 3: a reader sees one state of the file in each operation, whatever is written meanwhile.
Rule 4: a writer does all that it takes in one commit. An operation that refuses undoes its own changes alone.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from proxy.errors import JobsUnavailable, ProxyError

T = TypeVar("T")
#: What a session does: a function of its connection.
Operation = Callable[[Connection], T]

#: Operations of one commit.
MOST = 1000


class Order(NamedTuple):
    """An operation, and who waits for its outcome."""

    operation: Operation[Any]
    outcome: "asyncio.Future[Any]"


class Outcome(NamedTuple):
    order: Order
    value: Any = None
    error: Exception | None = None


class Session:
    """What readers and writers have in common.

    Args:
        connect: opens the connection; it is called in the thread.
        translate: makes a failure of SQLite's one of ours.
    """

    def __init__(
        self, name: str, connect: Callable[[], Connection], translate: Callable[[sqlite3.Error], Exception]
    ) -> None:
        self._connect = connect
        self._translate = translate
        self._loop = asyncio.get_running_loop()
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_closing = False
        self._thread = Thread(target=self._serve, name=name, daemon=True)

    def __repr__(self) -> str:
        state = "closing" if self._is_closing else "open"
        return f"<{type(self).__name__} {self._thread.name} {state} waiting={self._orders.qsize()}>"

    async def open(self) -> None:
        """Raises what `connect` raises."""
        self._thread.start()
        await asyncio.shield(self._opened)

    def submit(self, operation: Operation[T]) -> "asyncio.Future[T]":
        """Hand an operation over. Raises JobsUnavailable when the session closes."""
        if self._is_closing:
            raise JobsUnavailable("the store of jobs is closed; try again shortly")
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._orders.put(Order(operation, outcome))
        return outcome

    async def close(self) -> None:
        """Do what was handed over, then close the connection. Is idempotent."""
        if not self._is_closing:
            self._is_closing = True
            self._orders.put(None)
        if self._thread.is_alive():
            await asyncio.shield(self._ended)

    # -- the thread

    def _serve(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:
            self._tell(self._fail, error)
            return
        self._tell(self._opened.set_result, None)
        while orders := self._next():
            self._tell(deliver, self._perform(connection, orders))
        connection.close()
        self._tell(self._ended.set_result, None)

    def _fail(self, error: Exception) -> None:
        self._is_closing = True
        self._ended.set_result(None)
        self._opened.set_exception(self._ours(error))

    def _tell(self, report: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(report, *args)

    def _next(self) -> Sequence[Order]:
        """All that waits, once something does; nothing at the end."""
        order = self._orders.get()
        return [] if order is None else [order]

    def _perform(self, connection: Connection, orders: Sequence[Order]) -> Sequence[Outcome]:
        raise NotImplementedError

    def _ours(self, error: Exception) -> Exception:
        return self._translate(error) if isinstance(error, sqlite3.Error) else error


class Reader(Session):
    """Operations that only look, each by itself."""

    def _perform(self, connection: Connection, orders: Sequence[Order]) -> Sequence[Outcome]:
        return [self._look(connection, order) for order in orders]

    def _look(self, connection: Connection, order: Order) -> Outcome:
        try:
            connection.execute("BEGIN")
            try:
                return Outcome(order, order.operation(connection))
            finally:
                connection.execute("ROLLBACK")
        except Exception as error:
            return Outcome(order, error=self._ours(error))


class Writer(Session):
    """Operations in as few commits as possible: what comes while one is written goes into the next.

    `commits` counts them.

    Args:
        check: raises a ProxyError if nothing can be kept now; it is called in the thread, before each commit.
    """

    commits = 0

    def __init__(self, *known: Any, check: Callable[[], None] = lambda: None) -> None:
        super().__init__(*known)
        self._check = check

    def _next(self) -> Sequence[Order]:
        orders = [*super()._next()]
        with suppress(Empty):
            while orders and len(orders) < MOST:
                order = self._orders.get_nowait()
                if order is None:
                    self._orders.put(None)  # the end comes after these
                    break
                orders.append(order)
        return orders

    def _perform(self, connection: Connection, orders: Sequence[Order]) -> Sequence[Outcome]:
        try:
            self._check()
            connection.execute("BEGIN IMMEDIATE")
        except (ProxyError, sqlite3.Error) as error:
            return self._failed(orders, error)
        try:
            return self._commit(connection, orders)
        except sqlite3.Error as error:
            if connection.in_transaction:  # some failures have ended it already
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            if len(orders) == 1:
                return self._failed(orders, error)
        # One that finds no room on the disk must not take the others with it.
        return [outcome for order in orders for outcome in self._perform(connection, [order])]

    def _commit(self, connection: Connection, orders: Sequence[Order]) -> Sequence[Outcome]:
        outcomes = [self._attempt(connection, order) for order in orders]
        connection.execute("COMMIT")
        self.commits += 1
        return outcomes

    def _attempt(self, connection: Connection, order: Order) -> Outcome:
        connection.execute("SAVEPOINT this")
        try:
            outcome = Outcome(order, order.operation(connection))
        except sqlite3.Error:
            raise  # it concerns the whole commit
        except Exception as error:
            connection.execute("ROLLBACK TO this")
            outcome = Outcome(order, error=error)
        connection.execute("RELEASE this")
        return outcome

    def _failed(self, orders: Sequence[Order], error: Exception) -> Sequence[Outcome]:
        return [Outcome(order, error=self._ours(error)) for order in orders]


def deliver(outcomes: Iterable[Outcome]) -> None:
    for (_, waiting), value, error in outcomes:
        if waiting.done():
            continue
        if error is None:
            waiting.set_result(value)
        else:
            waiting.set_exception(error)
