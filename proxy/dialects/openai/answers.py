"""What GigaChat answers, read: whole, and chunk by chunk; and the words of OpenAI for it."""

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from proxy.connector import Chunk
from proxy.dialects.openai.names import Names
from proxy.errors import UpstreamError

#: GigaChat's word -> OpenAI's. A call has a word of its own, whatever was said; everything else is a "stop".
FINISHES: Final = {
    "stop": "stop",
    "length": "length",
    "blacklist": "content_filter",
    "request_blacklist": "content_filter",
    "response_blacklist": "content_filter",
    "request_filter": "content_filter",
}
#: Of a message that only says how far one of GigaChat's own functions is.
IN_PROGRESS: Final = "function_in_progress"


@dataclass(slots=True)
class Said:
    """What the model said, in one answer or in one chunk.

    Args:
        call: the function that it calls, by GigaChat's name; nothing if it calls none.
        arguments: of the call, as JSON; of a chunk perhaps a part.
        state_id: what GigaChat knows the call by.
        finish: why it ended; nothing while it goes on.
        sources: what it read, as OpenAI's annotations.
    """

    text: str = ""
    reasoning: str = ""
    call: str = ""
    arguments: str = ""
    state_id: str = ""
    finish: str = ""
    sources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        """It was cut off or censored: what is there is not what the model wanted to say."""
        return FINISHES.get(self.finish) in ("length", "content_filter")

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.reasoning or self.call or self.arguments)


def parsed(answer: Chunk) -> dict[str, Any]:
    """An answer or a chunk, which the connector gives as a dict or as its JSON. Raises UpstreamError."""
    told = orjson.loads(answer) if isinstance(answer, bytes) else answer
    if not isinstance(told, dict):
        raise unreadable("it is no object")
    return told


def said(answer: dict[str, Any]) -> Said:
    """What a whole answer or a chunk says. Raises UpstreamError."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise unreadable("it has no choices")
    if not choices:
        return Said()
    choice = choices[0]
    message = choice.get("message") or choice.get("delta") or {}
    if not isinstance(message, dict):
        raise unreadable("its message is no object")
    finish = text(choice.get("finish_reason"))
    return Said(finish=finish) if message.get("role") == IN_PROGRESS else of_message(message, finish)


def of_message(message: dict[str, Any], finish: str) -> Said:
    call = message.get("function_call")
    call = call if isinstance(call, dict) else {}
    return Said(
        text=text(message.get("content")),
        reasoning=text(message.get("reasoning_content")),
        call=text(call.get("name")),
        arguments=arguments_of(call.get("arguments")),
        state_id=text(message.get("functions_state_id")),
        finish=finish,
        sources=list(sources_of(message.get("inline_data"))),
    )


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def arguments_of(given: object) -> str:
    """The arguments of a call as JSON: the API gives an object, its description says a text."""
    if given is None or isinstance(given, str):
        return given or ""
    return orjson.dumps(given).decode()


def sources_of(inline: object) -> list[dict[str, Any]]:
    """What a search found, `{"sources": {"1": {"url", "title"}}}`, as OpenAI's annotations."""
    sources = inline.get("sources") if isinstance(inline, dict) else None
    told = sources.values() if isinstance(sources, dict) else []
    return [annotation(source) for source in told if isinstance(source, dict) and text(source.get("url"))]


def annotation(source: dict[str, Any]) -> dict[str, Any]:
    # Where in the text it is cited the API does not say: a citation of nothing, at its beginning.
    citation = {"start_index": 0, "end_index": 0, "title": text(source.get("title")), "url": source["url"]}
    return {"type": "url_citation", "url_citation": citation}


def fingerprint(model: object) -> str | None:
    """The version of the model that answered, `GigaChat-2:2.0.28.2`, as OpenAI has its fingerprint."""
    _, _, version = text(model).partition(":")
    return f"fp_{version}" if version else None


def stored(answer: dict[str, Any]) -> dict[str, Any]:
    """The ids of a conversation that GigaChat keeps (`storage`), which the caller needs to go on with it."""
    return {name: answer[name] for name in ("thread_id", "message_id") if answer.get(name)}


def finish_of(what: Said, *, is_legacy: bool = False) -> str:
    """OpenAI's finish_reason."""
    if what.call:
        return "function_call" if is_legacy else "tool_calls"
    return FINISHES.get(what.finish, "stop")


def refuse_nothing(what: Said) -> None:
    """Raises UpstreamError for an answer that ended in an error and says nothing: it must not pass for an answer."""
    if what.finish == "error" and what.is_empty:
        raise UpstreamError(200, message="the model called a function with invalid arguments, and said nothing else")


def tool_call(what: Said, names: Names, id: str) -> dict[str, Any]:
    """OpenAI's tool call. Its id is GigaChat's own where there is one, so that the history brings it back."""
    return {"id": what.state_id or id, "type": "function", "function": function_call(what, names)}


def function_call(what: Said, names: Names) -> dict[str, str]:
    return {"name": names.of_caller(what.call), "arguments": what.arguments or "{}"}


def unreadable(why: str) -> UpstreamError:
    return UpstreamError(200, message=f"the upstream's answer cannot be read: {why}")
