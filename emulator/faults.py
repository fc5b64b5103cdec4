"""Faults on request: what goes wrong with the next calls. Each kind is one function in EFFECTS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

import orjson

from emulator.answers import Answer, Stream, html_answer
from emulator.calls import Call
from emulator.errors import TEXTS, ApiError
from emulator.tokens import Tokens

Compose = Callable[[], Awaitable[Answer | Stream]]
PIECE = 64


class Cut(Exception):
    """The connection is to be closed before the first byte of the answer."""


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to the next `times` calls (-1: all) whose path ends with `path`.

    Args:
        kind: a name in EFFECTS.
        status: of the kinds status and html502.
        retry_after: seconds in a Retry-After header, which the real API never sends.
        after_chunks: chunks of a stream that still come.
        seconds: how long the kinds stall, drip and slow take; stall without it lasts until the caller leaves.
        body: of the kinds status, html200 and bad_json, in place of the usual one.
    """

    kind: str
    times: int = 1
    path: str = "/chat/completions"
    status: int = 0
    retry_after: float | None = None
    after_chunks: int = 0
    seconds: float | None = None
    body: Any = None

    def __post_init__(self) -> None:
        if self.kind not in EFFECTS:
            raise ValueError(f"unknown fault kind {self.kind!r}; known: {', '.join(EFFECTS)}")
        for name, (is_right, expected) in CHECKS.items():
            if not is_right(getattr(self, name)):
                raise ValueError(f"{name} of a fault must be {expected}, not {getattr(self, name)!r}")


def is_seconds(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and value >= 0)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "times": (lambda value: value == -1 or (is_count(value) and value > 0), "a whole number from 1 on, or -1 for ever"),
    "path": (lambda value: isinstance(value, str), "text"),
    "status": (is_count, "a whole number"),
    "retry_after": (is_seconds, "seconds or null"),
    "after_chunks": (is_count, "a whole number"),
    "seconds": (is_seconds, "seconds or null"),
}


class Faults:
    """The faults that wait for their calls, first come first served."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def add(self, *faults: Fault | dict[str, Any]) -> None:
        """Raises ValueError for an unknown kind or field; then none is added."""
        self.waiting += [fault if isinstance(fault, Fault) else make(fault) for fault in faults]

    def take(self, path: str) -> Fault | None:
        """The fault for a call to this path, if there is one; it is used up by one."""
        fault = next((fault for fault in self.waiting if path.endswith(fault.path)), None)
        if fault and fault.times > 0:
            fault.times -= 1
            if not fault.times:
                self.waiting.remove(fault)
        return fault

    def clear(self) -> None:
        self.waiting.clear()


def make(values: Any) -> Fault:
    if not isinstance(values, dict):
        raise ValueError(f"a fault must be an object, not {values!r}")
    unknown = sorted(values.keys() - {field.name for field in fields(Fault)})
    if unknown or "kind" not in values:
        raise ValueError(f"unknown fault field: {', '.join(unknown)}" if unknown else "a fault needs a kind")
    return Fault(**values)


async def suffer(fault: Fault, call: Call, tokens: Tokens, compose: Compose) -> Answer | Stream:
    """The answer as the fault leaves it. Raises Cut when nothing is left of it."""
    if fault.kind == "expired_token":
        tokens.expire(call.headers.get("Authorization", "").partition(" ")[2])
    return await EFFECTS[fault.kind](fault, compose)


async def status(fault: Fault, compose: Compose) -> Answer:
    code = fault.status or 500
    usual = {"status": code, "message": TEXTS.get(code, "Error")}
    answer = Answer(raw(usual if fault.body is None else fault.body), code)
    return with_retry_after(answer, fault)


async def too_many(fault: Fault, compose: Compose) -> Answer:
    fault.status = 429
    return await status(fault, compose)


async def html_error(fault: Fault, compose: Compose) -> Answer:
    code = fault.status or 502
    return with_retry_after(html_answer(code, TEXTS.get(code, "Error")), fault)


async def html_success(fault: Fault, compose: Compose) -> Answer:
    page = html_answer(200, "Welcome to nginx!")
    return page if fault.body is None else Answer(raw(fault.body), content_type=page.content_type)


async def bad_json(fault: Fault, compose: Compose) -> Answer | Stream:
    answer = await compose()
    if isinstance(answer, Stream):
        broken = b'data: {"choices":[{"delta":\n\n'
        answer.chunks = [*answer.chunks[: fault.after_chunks], broken, *answer.chunks[fault.after_chunks :]]
        return answer
    answer.body = answer.body[: len(answer.body) // 2] if fault.body is None else raw(fault.body)
    return answer


async def cut(fault: Fault, compose: Compose) -> Answer:
    raise Cut


async def cut_stream(fault: Fault, compose: Compose) -> Stream:
    stream = in_pieces(await compose(), PIECE)
    stream.chunks = stream.chunks[: fault.after_chunks]
    stream.cut = True
    return stream


async def stall(fault: Fault, compose: Compose) -> Answer:
    await asyncio.sleep(1e9 if fault.seconds is None else fault.seconds)
    raise Cut


async def drip(fault: Fault, compose: Compose) -> Stream:
    """The whole answer byte by byte, so that all of it takes `seconds` (1 if not said)."""
    answer = await compose()
    body = b"".join(answer.chunks) if isinstance(answer, Stream) else answer.body
    stream = in_pieces(Answer(body, answer.status, answer.content_type), 1)
    stream.delay = (1.0 if fault.seconds is None else fault.seconds) / max(1, len(body))
    return stream


async def slow(fault: Fault, compose: Compose) -> Answer | Stream:
    await asyncio.sleep(fault.seconds or 0)
    return await compose()


async def expired_token(fault: Fault, compose: Compose) -> Answer:
    return ApiError(401, "Token has expired").answer


def in_pieces(answer: Answer | Stream, size: int) -> Stream:
    if isinstance(answer, Stream):
        return answer
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    return Stream(pieces, answer.content_type, answer.status)


def with_retry_after(answer: Answer, fault: Fault) -> Answer:
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = f"{fault.retry_after:g}"
    return answer


def raw(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else orjson.dumps(body)


EFFECTS: dict[str, Callable[[Fault, Compose], Awaitable[Answer | Stream]]] = {
    "status": status,
    "429": too_many,
    "html502": html_error,
    "html200": html_success,
    "bad_json": bad_json,
    "cut": cut,
    "cut_stream": cut_stream,
    "stall": stall,
    "drip": drip,
    "slow": slow,
    "expired_token": expired_token,
}
