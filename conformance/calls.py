"""Promises about request_api: what it sends, what it gives back, and as what it tells the failures of its API."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import proxy.connector
from conformance.promises import PATIENCE, Bench, Broken, Chapter, dropped, file_of, once, shown, told, until
from conformance.scripted import Script, breaks_off, cuts, gathers, says, stalls
from conformance.words import no_secret
from proxy.connector import current_gate
from proxy.errors import UpstreamError, UpstreamTimeout

CHAPTER = Chapter()

#: Calls that are sent at the same time.
SIDE_BY_SIDE = 3
#: Seconds in which a call that is held must not get through.
HELD = 0.15
#: Seconds for which the API says nothing, so that a connector's own time-out may show itself.
SILENCE = 0.7
#: Seconds that the API asks to wait: more than anybody's patience here, so that who waits for it is seen.
RETRY_AFTER = 30

#: What the API says of a refusal, in the words of most.
REASON = "no such thing as a scripted reason"
BODY = {"status": 0, "message": REASON, "error": {"message": REASON, "type": "scripted", "code": None}}
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


# ---- The answer ----


@CHAPTER.promise("request_api sends the call once and gives the API's answer back as a JSON object")
async def the_answer_comes_back(bench: Bench) -> None:
    data = bench.data()
    with bench.api.script() as calls:
        call = asyncio.create_task(bench.connector.request(data))
        await asyncio.wait({call}, timeout=PATIENCE)
        await dropped(call)
    if call.cancelled():
        raise Broken(f"request_api had no answer after {PATIENCE:g} s{nobody_came(bench) if not calls else ''}")
    if error := call.exception():
        what = f"the API answered 200 with JSON, and {failed(bench, error)}"
        raise Broken(f"{what}{nobody_came(bench) if not calls else ''}")
    if not calls:
        raise Broken(f"request_api gave an answer, but the scripted API was not called{nobody_came(bench)}")
    once(calls)
    try:
        orjson.dumps(call.result())
    except orjson.JSONEncodeError as error:
        raise Broken(f"the answer cannot be written as JSON: {error}. Return what the API said, parsed") from error
    if data != bench.data():
        raise Broken(f"request_api changed its data to {shown(data)}: work on a copy, for the call may go out again")
    text = bench.declared.longest_text
    if text not in readable(calls[0].body):
        raise Broken(f"the API was called, but the caller's words {text!r} were not in what it received")


def nobody_came(bench: Bench) -> str:
    if bench.fence.attempts:
        return (
            f"; it wanted to call {bench.fence.attempts[-1]}, but nothing leaves this machine while it is checked: "
            "name the setting that holds its address in CHECK['env']"
        )
    return (
        f"; nobody called {bench.api.url}: do the settings in CHECK['env'] ({', '.join(bench.declared.env)}) name the "
        "address that the connector calls?"
    )


def readable(body: bytes) -> str:
    """A body as text, its JSON escapes resolved."""
    try:
        return json.dumps(json.loads(body), ensure_ascii=False).replace('\\"', '"').replace("\\n", "\n")
    except ValueError:
        return body.decode(errors="replace")


@CHAPTER.promise("calls run side by side: none holds up another, or the service")
async def calls_run_side_by_side(bench: Bench) -> None:
    with bench.api.script(gathers(SIDE_BY_SIDE, says(200, bench.declared.answer))) as calls:
        asked = [asyncio.create_task(bench.connector.request(bench.data())) for _ in range(SIDE_BY_SIDE)]
        await asyncio.wait(asked, timeout=PATIENCE)
        for call in asked:
            await dropped(call)
    if any(call.was_alone for call in calls):
        raise Broken(
            f"of {SIDE_BY_SIDE} calls at the same time not all reached the API before it answered the first: if "
            "request_api is async, all that it does must be; what blocks belongs into a plain function, which gets a "
            "thread of its own"
        )
    if any(call.cancelled() or call.exception() for call in asked):
        raise Broken(f"of {SIDE_BY_SIDE} calls at the same time not all were answered")


@CHAPTER.promise("nothing is sent before its turn has come")
async def nothing_goes_before_its_turn(bench: Bench) -> str:
    gate = HeldGate()
    token = current_gate.set(gate)
    try:
        with bench.api.script() as calls:
            call = asyncio.create_task(bench.connector.request(bench.data()))
            if await until(lambda: bool(calls), HELD):
                await dropped(call)
                raise Broken(
                    "the call went out before its turn: the module holds proxy.upstream, so the service leaves the "
                    "gate to it, but the call does not pass through it; send every call with Upstream.read or "
                    "Upstream.open, or do not import proxy.upstream at all"
                )
            gate.opened.set()
            await asyncio.wait({call}, timeout=PATIENCE)
            await dropped(call)
    finally:
        current_gate.reset(token)
    if not calls or call.cancelled() or call.exception():
        raise Broken("the call did not go out when its turn had come")
    if bench.connector.is_gated:
        return "it is held at the last moment, by proxy.upstream"
    return "it counts from its start, or from proxy.connector.mark_sent()"


class HeldGate:
    """The gate of a call whose turn has not come yet: see `proxy.connector.Gate`."""

    is_sent = False

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def gate(self) -> None:
        await self.opened.wait()
        self.is_sent = True

    def mark_sent(self) -> None:
        self.is_sent = True

    def release_after(self, call: "asyncio.Future[Any]") -> None: ...


# ---- Failures ----


@dataclass(frozen=True)
class Failure:
    """What the API does, and as what it must be told."""

    text: str
    script: Script
    #: The status of the UpstreamError; None: there was no answer.
    status: int | None = None
    retry_after: float | None = None
    has_reason: bool = False


FAILURES = [
    Failure("the API's 400 is told as 400, in its words", says(400, BODY), 400, has_reason=True),
    Failure("the API's 422 is told as 422, in its words", says(422, BODY), 422, has_reason=True),
    Failure("the API's 500 is told as 500", says(500, BODY), 500),
    Failure("the API's 503 is told as 503", says(503, BODY), 503),
    Failure("the API's 429 is told as 429", says(429, BODY), 429),
    Failure(
        "the API's 429 with Retry-After is told as 429, with the seconds",
        says(429, BODY, {"Retry-After": str(RETRY_AFTER)}),
        429,
        RETRY_AFTER,
    ),
    Failure("the API's 502 with a page of HTML is told as 502", says(502, PAGE), 502),
    Failure("a 200 with a page of HTML is told as no answer", says(200, PAGE)),
    Failure("a 200 with JSON that is no object is told as no answer", says(200, ["no", "object"])),
    Failure("a connection that is cut before the answer is told as no answer", cuts),
    Failure("a connection that is cut within the answer is told as no answer", breaks_off),
]


def promise_of(failure: Failure) -> None:
    @CHAPTER.promise(failure.text)
    async def is_told(bench: Bench) -> str | None:
        return judged(bench, await bench.ask(failure.script), failure)


for _failure in FAILURES:
    promise_of(_failure)


@CHAPTER.promise("an API that is not there is told as no answer")
async def nobody_listens(bench: Bench) -> str | None:
    with bench.api.refusing():
        return judged(bench, await bench.ask(), Failure("the connection was refused", cuts))


@CHAPTER.promise("its own time-out, if it has one, is told as a time-out, which is not tried again")
async def its_own_time_out(bench: Bench) -> str | None:
    with bench.api.script(stalls) as calls:
        call = asyncio.create_task(bench.connector.request(bench.data()))
        await asyncio.wait({call}, timeout=SILENCE)
        if not call.done():
            call.cancel()
            await asyncio.wait({call}, timeout=PATIENCE)
            if bench.is_plain:
                return (
                    f"it has none within {SILENCE:g} s. A thread cannot be stopped: see that its client has one, a "
                    "little above EXP_RESP_TIMEOUT"
                )
            return f"it has none within {SILENCE:g} s: EXP_RESP_TIMEOUT ends the call"
    once(calls)
    outcome = None if call.cancelled() else call.exception() or call.result()
    if not isinstance(outcome, UpstreamTimeout):
        raise Broken(
            f"the API said nothing, and {failed(bench, outcome)}: raise TimeoutError or proxy.errors.UpstreamTimeout, "
            "so that a call which may have been billed is not sent again"
        )
    return None


def judged(bench: Bench, outcome: object, failure: Failure, by: str = "request_api") -> str | None:
    """A word of advice at most. Raises Broken if this is not how the failure must be told."""
    wanted = f"UpstreamError({failure.status}, body, retry_after)" if failure.status else "UpstreamError(None)"
    if not isinstance(outcome, UpstreamError) or isinstance(outcome, UpstreamTimeout):
        mend = "make it an" if isinstance(outcome, Exception) else "look at the status before the body, and raise"
        raise Broken(f"{failed(bench, outcome, by)}: {mend} {wanted}")
    if outcome.upstream_status != failure.status:
        raise Broken(f"{failed(bench, outcome, by)}: it must be {wanted}")
    no_secret(bench, outcome.message, "the text of the error")
    if (address := bench.api.url.removeprefix("http://")) in outcome.message:
        raise Broken(f"the text of the error tells the API's address: {outcome.message.replace(address, '<address>')}")
    if "<html" in outcome.message:
        raise Broken("the text of the error is a page of HTML: raise UpstreamError(status, body) and give no message")
    if outcome.retry_after != failure.retry_after:
        lost = f"the API asked to wait {failure.retry_after:g} s" if failure.retry_after else "the API named no wait"
        lost = f"{lost}, and the error says {outcome.retry_after}"
        if not is_mapped(outcome):
            raise Broken(f"{lost}: pass proxy.upstream.retry_after_seconds(headers) on to UpstreamError")
        return f"{lost}: raise UpstreamError(status, body, retry_after) to pass it on"
    if failure.has_reason and REASON not in outcome.message:
        return "the API's reason is lost: raise UpstreamError(status, body) to pass it on"
    return None


def is_mapped(error: BaseException) -> bool:
    """Whether the service's border made it of an exception of the connector's own client."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename) == Path(proxy.connector.__file__)


def failed(bench: Bench, outcome: object, by: str = "request_api") -> str:
    """What came instead, as a sentence."""
    if isinstance(outcome, UpstreamTimeout):
        return f"{by} told a time-out"
    if isinstance(outcome, UpstreamError):
        return f"{by} raised UpstreamError({outcome.upstream_status}), {outcome.message!r}"
    if isinstance(outcome, BaseException):
        return f"{by} raised {told(outcome, file_of(bench.connector))}, which the service can only tell as a 500"
    return f"{by} returned {shown(outcome)} as if that were an answer"
