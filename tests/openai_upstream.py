"""An API like OpenAI's for tests: chats, streams, embeddings, models, files, its refusals, and faults by script."""

import asyncio
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

KEY = "sk-proj-the-right-key"
MODELS = ("gpt-6-luna", "gpt-6-sol", "text-embedding-3-small")
CREATED = 1795250608
#: What the API knows of itself and tells with every answer.
HEADERS = {"X-Request-ID": "req_1", "openai-processing-ms": "12", "openai-organization": "org-1"}


@dataclass
class Call:
    """What came in, and whether its caller left before the end."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    is_gone: bool = False

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]


@dataclass
class Upstream:
    """`script` is what it does with the next calls, one after another; after that it behaves.

    `key` is the one that it asks for; None: it asks for none.
    """

    url: str = ""
    key: str | None = KEY
    calls: list[Call] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)

    @property
    def base(self) -> str:
        return f"{self.url}/v1"

    def to(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.method, request.raw_path, request.headers.copy(), await request.read())
        self.calls.append(call)
        try:
            if self.script:
                return await self.script.popleft()(request, call)
            if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
                return await wrong_key(request, call)
            return await self._answer(request, call)
        except (asyncio.CancelledError, ConnectionError):
            call.is_gone = True
            raise

    async def _answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        match request.method, request.path.removeprefix("/v1"):
            case "POST", "/chat/completions":
                return await chat(request, call)
            case "POST", "/embeddings":
                return embeddings(call)
            case "GET", "/models":
                models = [{"id": name, "object": "model", "created": CREATED, "owned_by": "openai"} for name in MODELS]
                return said({"object": "list", "data": models})
            case "POST", "/audio/speech":
                return web.Response(body=b"\x00\xffID3 speech", content_type="audio/mpeg", headers=HEADERS)
            case _:
                return refusal(404, f"Invalid URL ({request.method} {request.raw_path})", "invalid_request_error")


@asynccontextmanager
async def running(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", upstream.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    upstream.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield upstream
    finally:
        await runner.cleanup()


# ---- What it says ----


def said(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON as OpenAI writes it: with spaces, and UTF-8 as it is."""
    text = json.dumps(body, ensure_ascii=False)
    return web.Response(
        text=text, status=status, content_type="application/json", headers={**HEADERS, **(headers or {})}
    )


def refusal(
    status: int, message: str, kind: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return said({"error": error}, status, headers)


async def wrong_key(request: web.Request, _: Call) -> web.Response:
    """Unlike OpenAI, which hides the middle of it, some repeat the whole key."""
    told = request.headers.get("Authorization", "").removeprefix("Bearer ")
    message = f"Incorrect API key provided: {told}." if told else "You didn't provide an API key."
    return refusal(401, message, "invalid_request_error", "invalid_api_key")


async def chat(request: web.Request, call: Call) -> web.StreamResponse:
    asked = call.json
    if asked["model"] not in MODELS:
        message = f"The model `{asked['model']}` does not exist or you do not have access to it."
        return refusal(404, message, "invalid_request_error", "model_not_found")
    text = f"You said: {asked['messages'][-1]['content']}"
    if asked.get("stream"):
        return await streamed(request, chunks(asked, text))
    message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return said(envelope(asked, "chat.completion", [choice]) | {"usage": usage(asked, text)})


def chunks(asked: dict[str, Any], text: str) -> list[str]:
    """The data of each event: the role first, one finish, the usage if it is asked for."""
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": piece}, None) for piece in text.split(" ")]
    told = [
        envelope(asked, "chat.completion.chunk", [{"index": 0, "delta": delta, "finish_reason": reason}])
        for delta, reason in [*deltas, ({}, "stop")]
    ]
    if (asked.get("stream_options") or {}).get("include_usage"):
        told.append(envelope(asked, "chat.completion.chunk", []) | {"usage": usage(asked, text)})
    return [json.dumps(chunk, ensure_ascii=False) for chunk in told]


def envelope(asked: dict[str, Any], kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": asked["model"], "choices": choices}


def usage(asked: dict[str, Any], text: str) -> dict[str, Any]:
    sent, received = sum(len(str(message).split()) for message in asked["messages"]), len(text.split())
    return {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}


def embeddings(call: Call) -> web.Response:
    asked = call.json
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    data = [
        {"object": "embedding", "index": number, "embedding": [0.0023064255, -0.009327292, len(text) / 7]}
        for number, text in enumerate(inputs)
    ]
    counted = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return said({"object": "list", "data": data, "model": asked["model"], "usage": counted})


async def streamed(
    request: web.Request, told: list[str], *, cut_after: int | None = None, until: asyncio.Event | None = None
) -> web.StreamResponse:
    """Events, a comment before the first as OpenRouter has it, and `[DONE]`.

    After `cut_after` events the connection breaks; before `[DONE]` it waits for `until`.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **HEADERS})
    await response.prepare(request)
    await response.write(b": PROCESSING\n\n")
    for number, data in enumerate(told):
        if number == cut_after:
            return await cut(request, response)
        await response.write(f"data: {data}\n\n".encode())
    if until is not None:
        await until.wait()
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def cut(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Break the connection off; what has been written arrives."""
    assert request.transport is not None
    request.transport.close()
    return response or web.Response()


# ---- What a script may have ----


def refuses(
    status: int, message: str = "no", kind: str = "server_error", code: str | None = None, **headers: str
) -> Answer:
    """An error of OpenAI's; `retry_after_ms="5"` is a header."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(*_: object) -> web.Response:
        return refusal(status, message, kind, code, told)

    return answer


def says(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    async def answer(*_: object) -> web.Response:
        return web.Response(body=body, status=status, content_type=content_type, headers=headers)

    return answer


def breaks(after: int | None = None) -> Answer:
    """Cut off before an answer, or after so many chunks of a stream."""

    async def answer(request: web.Request, call: Call) -> web.StreamResponse:
        return await cut(request) if after is None else await streamed(request, chunks(call.json, "x"), cut_after=after)

    return answer


def holds(until: asyncio.Event) -> Answer:
    """A stream that does not end before `until`."""

    async def answer(request: web.Request, call: Call) -> web.StreamResponse:
        return await streamed(request, chunks(call.json, "x"), until=until)

    return answer
