"""The table: path -> dialect and operation. Whoever wants to know what the service answers reads this."""

from functools import partial

from aiohttp import web

from proxy.dialects import Dialect
from proxy.dialects.gigachat import GigaChat
from proxy.dialects.native import Native
from proxy.errors import NotFound
from proxy.serving import Edge

GIGACHAT = GigaChat()
#: How GigaChat's SDK names itself.
SDK = "GigaChat-python-lib"


def add_routes(app: web.Application, edge: Edge, native: Native) -> None:
    app.add_routes(
        [
            web.post("/", partial(edge.chat, native)),
            web.get("/", partial(edge.info, native)),
            web.get("/health", partial(edge.health, native)),
            web.post("/api/v1/chat/completions", partial(edge.chat, GIGACHAT)),
            web.post("/v1/chat/completions", partial(sdk_chat, edge)),
        ]
    )


def dialect_for(native: Native, request: web.Request) -> Dialect:
    """In which dialect a failure of this request is told."""
    if request.path.startswith("/api/") or (request.path.startswith("/v1/") and is_sdk(request)):
        return GIGACHAT
    return native


def is_sdk(request: web.Request) -> bool:
    return SDK in request.headers.get("User-Agent", "")


async def sdk_chat(edge: Edge, request: web.Request) -> web.StreamResponse:
    """Under /v1 for the SDK alone: its users know the API's own base address to end so."""
    if not is_sdk(request):
        raise NotFound(f"there is nothing at {request.path}")
    return await edge.chat(GIGACHAT, request)
