"""The operations of /limits and /queue.

Rule 1: whoever may call sees the limits of the service's own lanes, and its own requests. The rest is the operator's.
Rule 2: requests of others do not exist.
"""

import asyncio
from collections.abc import Collection, Sequence

import orjson
from aiohttp import web

from proxy.admins import OPERATOR, Admins
from proxy.callers import Callers
from proxy.delivery import Delivery
from proxy.dialects.steering import (
    Wanted,
    change_told,
    jobs_told,
    lane_of,
    line_told,
    listed_in,
    preview_in,
    recorded_in,
    request_told,
)
from proxy.entry import NOTE
from proxy.errors import BodyTooLarge, NotFound, ProxyError
from proxy.jobs import EVERYBODY
from proxy.lanes import Lane, Lanes
from proxy.line import LaneState, Seen, Standing
from proxy.places import in_pieces
from proxy.readiness import PATIENCE
from proxy.steering import Operator, Steering
from proxy.work import Work

#: Bytes of the largest change.
LARGEST = 16 * 1024


class SteeringEdge:
    """Serves them."""

    def __init__(
        self, steering: Steering, lanes: Lanes, callers: Callers, admins: Admins, delivery: Delivery, work: Work
    ) -> None:
        self._steering = steering
        self._lanes = lanes
        self._callers = callers
        self._admins = admins
        self._delivery = delivery
        self._work = work

    # -- limits

    async def limits(self, request: web.Request) -> web.Response:
        """GET /limits."""
        seen = await self._seen(request, "limits")
        lanes = [lane_of(lane, is_operators=seen is None) for lane in self._own_lanes(seen)]
        return self._told(request, {"lanes": lanes})

    async def change(self, request: web.Request) -> web.Response:
        """PATCH /limits."""
        operator = await self._operator(request, "limits")
        is_preview = preview_in(request.query)
        wanted = Wanted.read(await body_of(request))
        lane = self._steering.lane(wanted.lane)
        does = self._steering.preview if is_preview else self._steering.change
        made = await does(lane, wanted.wishes, operator)
        return self._told(
            request, change_told(lane_of(lane), made.effect, made.entries, made.trouble, is_preview=is_preview)
        )

    async def audit(self, request: web.Request) -> web.Response:
        """GET /limits/audit."""
        await self._operator(request, "limits")
        entries = await self._steering.audit.newest(recorded_in(request.query))
        return self._told(request, {"entries": entries})

    # -- lines

    async def queue(self, request: web.Request) -> web.Response:
        """GET /queue."""
        seen = await self._seen(request, "queue")
        limit = listed_in(request.query)
        own = self._own_lanes(seen)
        lanes = [told for lane in self._steering.lanes() if (told := await self._line_told(lane, seen, limit, own))]
        return self._told(request, {"lanes": lanes, "jobs": await self._jobs() if seen is None else None})

    async def entry(self, request: web.Request) -> web.Response:
        """GET /queue/{request id}."""
        seen, id = await self._seen(request, "queue"), request.match_info["id"]
        requests = []
        for lane in self._steering.lanes():
            standings = await lane.line.places.with_id(id, seen)
            state = lane.line.state()
            requests += [{"lane": lane.name, **request_told(standing, state)} for standing in standings]
        if not requests:
            raise absent(id)
        return self._told(request, {"id": id, "requests": requests})

    async def cancel(self, request: web.Request) -> web.Response:
        """DELETE /queue/{request id}."""
        seen, id = await self._seen(request, "queue"), request.match_info["id"]
        why = f"the request was cancelled by {'its caller' if seen is not None else 'the operator'} (DELETE /queue)"
        cancelled = sum([await lane.line.places.cancel(id, seen, why) for lane in self._steering.lanes()])
        if not cancelled:
            raise absent(id)
        return self._told(request, {"id": id, "cancelled": cancelled})

    # -- who asks

    async def _operator(self, request: web.Request, operation: str) -> Operator:
        """Raises Unauthorized."""
        request[NOTE].operation = operation
        await self._admins.check(request)
        return Operator(OPERATOR, self._callers.address(request))

    async def _seen(self, request: web.Request, operation: str) -> Seen:
        """Whose requests it may see; None: everybody's. Raises Unauthorized."""
        note = request[NOTE]
        note.operation = operation
        if await self._admins.is_operators(request):
            return None
        # Without keys jobs are everybody's.
        return frozenset({note.caller} if self._callers.keys else {note.caller, EVERYBODY})

    def _own_lanes(self, seen: Seen) -> Collection[Lane]:
        """Those that anybody may know of; accounts of callers are theirs and the operator's."""
        named = dict.fromkeys([self._lanes.main, *self._lanes.others.values()])
        return self._steering.lanes() if seen is None else [*named]

    # -- what is told

    async def _line_told(self, lane: Lane, seen: Seen, limit: int, own: Collection[Lane]) -> dict[str, object] | None:
        """None for an account of which whoever asks should not even know."""
        number, waiting = await lane.line.places.waiting(seen, limit)
        flying, calls = await lane.line.places.in_flight(seen, limit)
        if lane not in own and not number and not flying:
            return None
        state = lane.line.state()
        listed = [await requests_told(standings, state) for standings in (waiting, calls)]
        return line_told(lane.name, state, (number, listed[0]), (flying, listed[1]))

    async def _jobs(self) -> dict[str, int] | None:
        """None: there are none, or their store does not say. The lines are there all the same."""
        if not self._work.is_on:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                return jobs_told(await self._work.store.jobs.state())
        except (ProxyError, TimeoutError):
            return None

    def _told(self, request: web.Request, body: dict[str, object]) -> web.Response:
        return self._delivery.plain(request, orjson.dumps(body))


async def requests_told(standings: Sequence[Standing], state: LaneState) -> list[dict[str, object]]:
    """A thousand take milliseconds, so others may do something meanwhile."""
    told = list[dict[str, object]]()
    async for piece in in_pieces(standings):
        told += [request_told(standing, state) for standing in piece]
    return told


async def body_of(request: web.Request) -> bytes:
    """Raises BodyTooLarge."""
    try:
        return await request.clone(client_max_size=LARGEST).read()
    except web.HTTPRequestEntityTooLarge:
        raise BodyTooLarge(f"a change of limits has at most {LARGEST} bytes") from None


def absent(id: str) -> NotFound:
    return NotFound(f'no request "{id[:128]}" waits or is in flight here: it is over by now, or the id is wrong')
