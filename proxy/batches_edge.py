"""The operations of batches, for OpenAI's clients, whatever the API speaks."""

import time
from hashlib import blake2b
from typing import Any

import orjson
from aiohttp import web

from proxy.accepting import owner_of
from proxy.batching import CANCELLABLE, Order, accept
from proxy.delivery import Delivery
from proxy.dialects.openai.batches import INPUT, BatchRequest, batch_list, batch_object
from proxy.durable import KEY
from proxy.entry import NOTE
from proxy.errors import BadRequest, KeyReused, NotFound
from proxy.idempotency import REPLAYED, key_of
from proxy.jobs.batches import Batch, BatchState, new_batch_id
from proxy.jobs.store import Store
from proxy.reception import Reception, parsed
from proxy.work import Work

#: Batches a page: at most, and unless asked otherwise.
MOST, USUAL = 100, 20
CANCELS = (BatchState.CANCELLING, BatchState.CANCELLED)


class InputMissing(NotFound):
    """There is no such file: POST files, with the purpose "batch", makes one."""

    param = "input_file_id"


class BatchesEdge:
    """Serves them.

    Args:
        has_keys: whether callers have keys, to whom batches belong.
    """

    def __init__(self, work: Work, reception: Reception, delivery: Delivery, *, has_keys: bool) -> None:
        self._work = work
        self._reception = reception
        self._delivery = delivery
        self._has_keys = has_keys

    async def create(self, request: web.Request) -> web.Response:
        """POST batches. With an Idempotency-Key it is made once."""
        store, owner = self._for(request)
        asked = BatchRequest.of(parsed(await self._reception.body(request)))
        batch = batch_of(asked, id_for(request), owner)
        if (known := await store.batches.get(batch.id, caller=owner)) is None:
            await check_input(store, batch)
            await accept(store, Order(batch, asked.life, request[NOTE].trace.headers))
            known = await store.batches.get(batch.id, caller=owner) or batch
        if sense_of(known) != sense_of(batch):
            raise KeyReused
        response = self._told(request, batch_object(known))
        if known.created != batch.created:
            response.headers[REPLAYED] = "true"
        return response

    async def batches(self, request: web.Request) -> web.Response:
        """GET batches."""
        store, owner = self._for(request)
        limit, after = limit_in(request), request.query.get("after") or None
        return self._told(request, batch_list(await store.batches.list(caller=owner, after=after, limit=limit)))

    async def batch(self, request: web.Request) -> web.Response:
        """GET batches/{id}."""
        return self._told(request, batch_object(await found(*self._for(request), request)))

    async def cancel(self, request: web.Request) -> web.Response:
        """POST batches/{id}/cancel. What runs ends; whoever cancels it again is told how it stands."""
        store, owner = self._for(request)
        batch = await found(store, owner, request)
        if await store.batches.advance(batch.id, among=CANCELLABLE, to=BatchState.CANCELLING):
            # It would be done anyway, but whoever works on the batch hears of it by this.
            await store.jobs.cancel_lines(batch.id)
        batch = await found(store, owner, request)
        if batch.state not in CANCELS:
            raise BadRequest(f"the batch is {batch.state}: it cannot be cancelled any more", param="id")
        return self._told(request, batch_object(batch))

    # -- what they share

    def _for(self, request: web.Request) -> tuple[Store, str]:
        """The store, and whose batches the caller may see there. Raises Unauthorized, BadRequest, JobsOff."""
        self._reception.identify(request, "batches")
        return self._work.store, owner_of(request[NOTE], has_keys=self._has_keys)

    def _told(self, request: web.Request, told: dict[str, Any]) -> web.Response:
        return self._delivery.plain(request, orjson.dumps(told))


async def found(store: Store, owner: str, request: web.Request) -> Batch:
    """The batch that a path names. Raises NotFound."""
    id = request.match_info["id"]
    if (batch := await store.batches.get(id, caller=owner)) is None:
        raise NotFound(f'there is no batch "{id[:100]}", or not any more: GET batches lists those there are')
    return batch


def batch_of(asked: BatchRequest, id: str, owner: str) -> Batch:
    now = time.time()
    return Batch(
        id=id,
        caller=owner,
        endpoint=asked.endpoint,
        window=asked.window,
        input_file=asked.input_file,
        metadata=asked.metadata,
        created=now,
        deadline=now + asked.seconds,
    )


def id_for(request: web.Request) -> str:
    """The same for whoever brings the same Idempotency-Key. Raises BadRequest."""
    if KEY not in request.headers:
        return new_batch_id()
    # Without keys of ours, too, each caller has its own.
    told = f"{request[NOTE].caller}\n{key_of(request)}".encode(errors="surrogatepass")
    return f"batch_{blake2b(told, digest_size=16).hexdigest()}"


def sense_of(batch: Batch) -> tuple[object, ...]:
    """What was asked for."""
    return batch.endpoint, batch.window, batch.input_file, dict(batch.metadata)


async def check_input(store: Store, batch: Batch) -> None:
    """Raises InputMissing, BadRequest."""
    file = await store.files.get(batch.input_file, caller=batch.caller)
    if file is None:
        raise InputMissing
    if file.purpose != INPUT:
        raise BadRequest(f'the file must have the purpose "{INPUT}", not "{file.purpose}"', param=InputMissing.param)


def limit_in(request: web.Request) -> int:
    """Raises BadRequest."""
    told = request.query.get("limit", str(USUAL))
    if not (told.isascii() and told.isdecimal() and len(told) < 4 and 1 <= int(told) <= MOST):
        raise BadRequest(f'"limit" must be a whole number from 1 to {MOST}', param="limit")
    return int(told)
