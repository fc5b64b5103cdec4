"""The table: path -> dialect and operation. Whoever wants to know what the service answers reads this."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from aiohttp import web
from aiohttp.typedefs import Handler

from proxy.batches_edge import BatchesEdge
from proxy.dashboard import Dashboard
from proxy.dialects import Dialect
from proxy.dialects.gigachat import GigaChat, TokenRequest
from proxy.dialects.language_model_chat import LanguageModelChat
from proxy.dialects.native import Native
from proxy.dialects.openai import OpenAI
from proxy.docs import Docs
from proxy.durable import Kept, choice
from proxy.errors import NotFound
from proxy.jobs_edge import JobsEdge
from proxy.openai_edge import OpenAIEdge
from proxy.serving import Edge
from proxy.steering_edge import SteeringEdge
from proxy.watching import Watching

GIGACHAT = GigaChat()
OAUTH = TokenRequest()
OPENAI = OpenAI()
#: How GigaChat's SDKs name themselves. Java's makes /v2 of a base address that ends in /api/v1.
SDK = re.compile("GigaChat-(python|java|js)-lib")
OAUTH_PATH = "/api/v2/oauth"
#: Where a failure is told as OpenAI's clients read it.
OPENAI_PATH = re.compile(r"/(.+/)?v1(/|$)|/(chat|embeddings|models|model|files|batches)(/|$)")
API_PATH = re.compile(r"/api/v[12](/|$)")
#: Where the API's own paths begin, for everybody and for the SDK, whose users know the API's base address to end so.
API = "/api/{version:v[12]}"
SDK_API = "/{version:v[12]}"


#: Method, path and what serves it.
Row = tuple[str, str, Handler]


@dataclass(frozen=True)
class Table:
    """The dialects that take something from the settings, and where everything is."""

    native: Native
    language_model_chat: LanguageModelChat

    def routes(
        self,
        edge: Edge,
        openai: OpenAIEdge,
        batches: BatchesEdge,
        jobs: JobsEdge,
        watching: Watching,
        steering: SteeringEdge,
        dashboard: Dashboard,
        docs: Docs,
    ) -> list[web.RouteDef]:
        """A trailing slash is no other path. Requests for what is `Kept` may become jobs.

        What each row does is told in `proxy/openapi/operations.py`.
        """
        forward = Kept(edge.forward, GIGACHAT)
        table: list[Row] = [
            ("POST", "/", Kept(edge.chat, self.native)),
            ("GET", "/", partial(edge.info, self.native)),
            ("GET", "/health", watching.health),
            ("GET", "/ready", watching.ready),
            ("GET", "/metrics", watching.metrics),
            ("GET", "/limits", steering.limits),
            ("PATCH", "/limits", steering.change),
            ("GET", "/limits/audit", steering.audit),
            ("GET", "/queue", steering.queue),
            ("GET", "/queue/{id:[^/]+}", steering.entry),
            ("DELETE", "/queue/{id:[^/]+}", steering.cancel),
            ("GET", "/dashboard", dashboard.page),
            ("GET", "/dashboard/events", dashboard.events),
            ("GET", "/dashboard/{file:.+}", dashboard.page),
            ("GET", "/docs", docs.page),
            ("GET", "/docs/{file:.+}", docs.page),
            ("GET", "/openapi.json", docs.description),
            ("POST", "/gigachat", Kept(edge.chat, self.language_model_chat)),
            ("POST", "/chatgpt", Kept(edge.chat, self.language_model_chat, upstream="chatgpt")),
            ("POST", "/jobs", jobs.create),
            ("GET", "/jobs", jobs.jobs),
            ("GET", "/jobs/{id}", jobs.job),
            ("DELETE", "/jobs/{id}", jobs.end),
            ("GET", "/jobs/{id}/answer", jobs.answer),
            ("GET", "/jobs/{id}/events", partial(jobs.events, self.native)),
            ("POST", "/jobs/{id}/retry", jobs.retry),
            ("POST", OAUTH_PATH, partial(edge.token, GIGACHAT)),
            ("POST", "/api/v1/token", partial(edge.token, GIGACHAT)),
            ("POST", "/v1/token", choice(partial(sdk_only, partial(edge.token, GIGACHAT)))),
            ("*", API + "/{path:.+}", forward),
            *(
                (method, path, choice(partial(unless_sdk, forward, serve)))
                for method, path, serve in openai_paths(openai, batches)
            ),
            ("*", SDK_API + "/{path:.+}", choice(partial(sdk_only, forward))),
        ]
        return [
            web.route(method, spelling, serve)
            for method, path, serve in table
            for spelling in sorted({path, path.rstrip("/") + "/"} if "{path" not in path else {path})
        ]

    def dialect_for(self, request: web.Request) -> Dialect:
        """In which dialect a failure of this request is told."""
        path = request.path
        if is_apis(path) or (path.startswith(("/v1/", "/v2/")) and is_sdk(request)):
            return OAUTH if path.rstrip("/") == OAUTH_PATH else GIGACHAT
        if path.rstrip("/") in ("/gigachat", "/chatgpt"):
            return self.language_model_chat
        return OPENAI if OPENAI_PATH.match(path) else self.native


def openai_paths(openai: OpenAIEdge, batches: BatchesEdge) -> Iterator[Row]:
    """OpenAI's paths: under /v1, at the root, and under whatever a caller's base address has before /v1."""
    table: list[Row] = [
        ("POST", "/chat/completions", Kept(openai.chat)),
        ("POST", "/embeddings", Kept(openai.embeddings)),
        ("GET", "/models", openai.models),
        ("GET", "/models/{id:.*[^/]}", openai.model),
        ("GET", "/model/info", openai.model_info),
        ("POST", "/files", openai.upload),
        ("GET", "/files", openai.files),
        ("GET", "/files/{id}", openai.file),
        ("DELETE", "/files/{id}", openai.delete),
        ("GET", "/files/{id}/content", openai.content),
        ("POST", "/batches", batches.create),
        ("GET", "/batches", batches.batches),
        ("GET", "/batches/{id}", batches.batch),
        ("POST", "/batches/{id}/cancel", batches.cancel),
    ]
    for prefix in ("/v1", "", "/{prefix:.+}/v1"):
        for path, rows in groupby(table, lambda row: row[1]):
            methods = {method: serve for method, _, serve in rows}
            yield from ((method, prefix + path, serve) for method, serve in methods.items())
            yield "*", prefix + path, partial(wrong_method, frozenset(methods))


def is_apis(path: str) -> bool:
    """Whether it is one of the API's own; a base address of OpenAI's clients may begin like those."""
    return API_PATH.match(path) is not None or (path.startswith("/api/") and not OPENAI_PATH.match(path))


def is_sdk(request: web.Request) -> bool:
    return SDK.search(request.headers.get("User-Agent", "")) is not None


def unless_sdk(forward: Handler, serve: Handler, request: web.Request) -> Handler:
    """GigaChat's SDK means GigaChat's paths by the same names."""
    return forward if is_sdk(request) else serve


async def wrong_method(allowed: frozenset[str], request: web.Request) -> web.StreamResponse:
    raise web.HTTPMethodNotAllowed(request.method, allowed)


def sdk_only(serve: Handler, request: web.Request) -> Handler:
    if not is_sdk(request):
        raise NotFound(f"there is nothing at {request.path}")
    return serve
