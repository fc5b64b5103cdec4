"""What those ask who watch over the service: is it alive, does it serve, what does it do."""

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from proxy.admins import Admins
from proxy.delivery import Delivery, headers
from proxy.entry import NOTE
from proxy.readiness import Readiness
from proxy.scrape import Scrape


class Watching:
    """`GET /health`, `GET /ready`, `GET /metrics`."""

    def __init__(self, delivery: Delivery, readiness: Readiness, scrape: Scrape, admins: Admins) -> None:
        self._delivery = delivery
        self._readiness = readiness
        self._scrape = scrape
        self._admins = admins

    async def close(self, app: web.Application) -> None:
        await self._readiness.close()
        await self._scrape.close()

    async def health(self, request: web.Request) -> web.Response:
        """The process is alive."""
        request[NOTE].operation = "health"
        return self._delivery.plain(request, b'{"status":"ok"}')

    async def ready(self, request: web.Request) -> web.Response:
        """Whether new requests are served: 503 with the reason if not. Tells what is amiss with the limits, too."""
        request[NOTE].operation = "ready"
        verdict = await self._readiness.verdict()
        told = {"status": verdict.status, "trouble": verdict.trouble or None}
        response = self._delivery.plain(request, orjson.dumps(told))
        response.set_status(200 if verdict.is_ready else 503)
        return response

    async def metrics(self, request: web.Request) -> web.Response:
        """All series, for Prometheus. Raises Unauthorized."""
        request[NOTE].operation = "metrics"
        await self._admins.check_reader(request)
        text = await self._scrape.text()
        return web.Response(body=text, headers=headers(request, {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}))
