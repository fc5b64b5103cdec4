"""What lanes tell of themselves and of their models, and for how long their word serves. Each has its own."""

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import orjson
from aiohttp import web

from proxy.connector import Connector
from proxy.errors import PassedRefused, ProxyError
from proxy.forwarding import RawCall
from proxy.known import Known
from proxy.lanes import Lane
from proxy.line import Call, Enrolled, Line, Priority
from proxy.tracing import Trail

log = logging.getLogger("proxy.info")

#: Seconds for which a connector's word serves, and that one waits in line for a fresh one.
AGE = 60.0
PATIENCE = 2.0
#: The same for what is left to spend: each answer costs a call.
BALANCE_AGE = 600.0

Info = dict[str, Any]


class Infos:
    """What each lane's connector says of itself, at most AGE old."""

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Lane, tuple[Info, float]] = WeakKeyDictionary()

    async def of(self, lane: Lane, trail: Trail) -> Info:
        """It is asked in its turn, for it may call its API; where that would take longer than PATIENCE, it is asked
        outside the line, where it tells what it knows. Raises PassedRefused.

        `trail` is of the request that wants to know.
        """
        now = asyncio.get_running_loop().time()
        info, at = self._told.get(lane, ({}, -AGE))
        if now - at < AGE:
            return info
        if lane.line.state().eta <= PATIENCE:
            turn = lane.line.enrol(
                Connector.info, patience=PATIENCE, caller="proxy", priority=Priority.HIGH, trail=trail
            )
            try:
                info = cast(Info, await lane.line.answer(turn))
            except PassedRefused:
                raise
            except ProxyError as error:
                log.info("what the connector tells is not to be had now: %s", error)
            else:
                self._told[lane] = info, now
                return info
        return await lane.connector.info()


class Balances:
    """What is left to spend in each lane, as its API told it at most twice BALANCE_AGE ago; {} where it tells nothing.

    It is asked in line as a batch is: after all live requests, else after 19 of them; whoever looks does not wait.
    """

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Lane, Known[tuple[Info, float]]] = WeakKeyDictionary()

    def of(self, lane: Lane) -> Info:
        if not lane.connector.tells_balance:
            return {}
        if lane not in self._known:
            # Not the lane itself, which must not be kept by what is known of it.
            self._known[lane] = Known(partial(asked_balance, lane.line), ({}, -math.inf), age=BALANCE_AGE)
        known, state = self._known[lane], lane.line.state()
        told, at = known.last if state.is_stopping or state.limits.is_held else known.look()
        # An old one would be told for as long as nobody had looked, and then until the line has let it through.
        return told if asyncio.get_running_loop().time() - at < 2 * BALANCE_AGE else {}

    async def close(self) -> None:
        await asyncio.gather(*(known.close() for known in self._known.values()))


async def asked_balance(line: Line) -> tuple[Info, float]:
    """And when it was told (the loop's seconds). Raises ProxyError, or TypeError for what is no JSON."""
    turn = line.enrol(Connector.balance, patience=BALANCE_AGE, caller="proxy", priority=Priority.BATCH)
    told = cast(Info, await line.answer(turn))
    orjson.dumps(told)  # else nothing of what it is told with could be
    return told, asyncio.get_running_loop().time()


class Models:
    """What each lane's API answers to a request for its models, at most AGE old."""

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Lane, tuple[Info, float]] = WeakKeyDictionary()

    async def of(self, lane: Lane, enrol: Callable[[Call], Enrolled]) -> Info:
        """It is asked in the caller's own turn, if what is remembered is too old. Raises ProxyError.

        While operators have paused the lane nothing is too old: nobody could be asked.
        """
        now = asyncio.get_running_loop().time()
        answer, at = self._told.get(lane, ({}, -AGE))
        if now - at < AGE or (answer and lane.line.state().limits.is_held):
            return answer
        answer = cast(Info, await lane.line.answer(enrol(Connector.models)))
        self._told[lane] = answer, now
        return answer


class RawModels:
    """The API's answer to GET models, as it came, at most AGE old: frameworks ask for it before each of their calls."""

    def __init__(self) -> None:
        self._told: WeakKeyDictionary[Lane, tuple[web.Response, float]] = WeakKeyDictionary()

    def recall(self, lane: Lane, call: RawCall) -> web.Response | None:
        """The answer to this call, if it is remembered; with the API's headers, which are not to be changed.

        While operators have paused the lane however old it is.
        """
        answer, at = self._told.get(lane, (None, 0.0))
        is_fresh = asyncio.get_running_loop().time() - at < AGE or lane.line.state().limits.is_held
        return answer if is_for_models(call) and is_fresh else None

    def remember(self, lane: Lane, call: RawCall, answer: web.StreamResponse) -> None:
        if is_for_models(call) and isinstance(answer, web.Response) and answer.status == 200:
            self._told[lane] = answer, asyncio.get_running_loop().time()


def is_for_models(call: RawCall) -> bool:
    # The second version of the API has no such path, and says so itself.
    return (call.method, call.version, call.path, call.query) == ("GET", "v1", "/models", "")
