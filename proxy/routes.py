"""The table: path -> dialect and operation. Whoever wants to know what the service answers reads this."""

from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.dialects import Dialect
from proxy.dialects.gigachat import GigaChat, TokenRequest
from proxy.dialects.native import Native
from proxy.errors import NotFound
from proxy.serving import Edge

GIGACHAT = GigaChat()
OAUTH = TokenRequest()
#: How GigaChat's SDK names itself.
SDK = "GigaChat-python-lib"
OAUTH_PATH = "/api/v2/oauth"
#: Where the API's own paths begin, for everybody and for the SDK, whose users know the API's base address to end so.
API = "/api/{version:v[12]}"
SDK_API = "/{version:v[12]}"


def routes(edge: Edge, native: Native) -> list[web.RouteDef]:
    """A trailing slash is no other path."""
    table: list[tuple[str, str, Handler]] = [
        ("POST", "/", partial(edge.chat, native)),
        ("GET", "/", partial(edge.info, native)),
        ("GET", "/health", partial(edge.health, native)),
        ("POST", OAUTH_PATH, partial(edge.token, GIGACHAT)),
        ("POST", "/api/v1/token", partial(edge.token, GIGACHAT)),
        ("POST", "/v1/token", partial(sdk_only, partial(edge.token, GIGACHAT))),
        ("*", API + "/{path:.+}", partial(edge.forward, GIGACHAT)),
        ("*", SDK_API + "/{path:.+}", partial(sdk_only, partial(edge.forward, GIGACHAT))),
    ]
    return [
        web.route(method, spelling, serve)
        for method, path, serve in table
        for spelling in sorted({path, path.rstrip("/") + "/"} if "{path" not in path else {path})
    ]


def dialect_for(native: Native, request: web.Request) -> Dialect:
    """In which dialect a failure of this request is told."""
    if request.path.startswith("/api/") or (request.path.startswith(("/v1/", "/v2/")) and is_sdk(request)):
        return OAUTH if request.path.rstrip("/") == OAUTH_PATH else GIGACHAT
    return native


def is_sdk(request: web.Request) -> bool:
    return SDK in request.headers.get("User-Agent", "")


async def sdk_only(serve: Handler, request: web.Request) -> web.StreamResponse:
    if not is_sdk(request):
        raise NotFound(f"there is nothing at {request.path}")
    return await serve(request)
