"""A stream of GigaChat's as one of OpenAI's: role first, then text, then a call if there is one, then the finish.

A call is told in one piece when the answer ends: GigaChat gives it whole, and its finish may come in another chunk.
"""

from typing import Any, Final

from proxy.connector import Chunk
from proxy.dialects.openai.answers import Said, fingerprint, finish_of, parsed, refuse_nothing, said, stored
from proxy.dialects.openai.completions import Manner, first_delta
from proxy.dialects.openai.thinking import Told

Delta = dict[str, Any]
KIND: Final = "chat.completion.chunk"


class ChatStream:
    """One choice of a streamed answer.

    Attributes:
        heading: what every chunk begins with, by the upstream's first one.
        usage: what the upstream said that it cost; None until it did.
    """

    def __init__(self, manner: Manner, index: int, *, wants_usage: bool) -> None:
        self._manner = manner
        self._index = index
        self._wants_usage = wants_usage
        self._text = manner.text()
        self._whole = Said()
        self._is_open = False
        self._is_over = False
        self._is_begun = False
        self.heading = self._begun({})
        self.usage: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Its finish is told, or can be."""
        return self._is_over

    @property
    def is_done(self) -> bool:
        """The rest of the upstream's stream is of no use: it can be closed.

        So it is after a stop sequence, unless the caller asked what it costs: that is told at the very end. A stream
        that ends by itself is read to its end: only then is its call over, and its connection free for the next.
        """
        return self._text.is_stopped and (self.usage is not None or not self._wants_usage)

    def feed(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The chunks that can be told by now. Raises UpstreamError for one that cannot be read."""
        answer = parsed(chunk)
        self.usage = answer.get("usage") or self.usage
        if self._is_over:
            return []
        if not self._is_begun:
            self.heading, self._is_begun = self._begun(answer), True
        what = said(answer)
        deltas = [] if what.is_empty else self._said(what)
        if self._text.is_stopped:
            return self._finished(deltas)
        return self._ended(deltas, what.finish) if what.finish else self._chunks(deltas)

    def end(self) -> list[dict[str, Any]]:
        """What is left when the upstream's stream ends. Raises UpstreamError if the answer was an error."""
        return [] if self._is_over else self._ended([], "stop")

    # -- what is told of what is said

    def _said(self, what: Said) -> list[Delta]:
        self._gather(what)
        told = self._text.feed(what.text) if what.text else Told()
        return [*self._opening(), *pieces(Told(what.reasoning + told.reasoning, told.content))]

    def _gather(self, what: Said) -> None:
        """Keep what is told at the end."""
        whole = self._whole
        if what.call:
            whole.call, whole.arguments = what.call, ""  # the last chunk may say it all once more
        whole.arguments += what.arguments
        whole.state_id = what.state_id or whole.state_id
        whole.sources += what.sources
        whole.text, whole.reasoning = whole.text or what.text, whole.reasoning or what.reasoning

    def _ended(self, deltas: list[Delta], finish: str) -> list[dict[str, Any]]:
        """The upstream's answer is over: the rest of its text, and what comes at the end."""
        self._whole.finish = finish
        refuse_nothing(self._whole)
        return self._finished([*deltas, *self._opening(), *pieces(self._text.end())])

    def _finished(self, deltas: list[Delta]) -> list[dict[str, Any]]:
        """What comes at the end: the sources, the call if no stop sequence came before it, and the finish."""
        if self._whole.sources:
            deltas = [*deltas, {"annotations": self._whole.sources}]
        if self._text.is_stopped:
            return self._chunks(deltas, finish="stop")
        if self._whole.call:
            deltas = [*deltas, numbered(self._manner.call(self._whole, self._index))]
        return self._chunks(deltas, finish=finish_of(self._whole, is_legacy=self._manner.is_legacy))

    def _opening(self) -> list[Delta]:
        """The first delta, once."""
        if self._is_open:
            return []
        self._is_open = True
        return [first_delta(has_text=not self._whole.call)]

    def _chunks(self, deltas: list[Delta], *, finish: str | None = None) -> list[dict[str, Any]]:
        """The deltas as chunks, and one more for the finish."""
        choices = [chunk_choice(self._index, delta) for delta in deltas]
        if finish:
            self._is_over = True
            choices.append(chunk_choice(self._index, {}, finish))
        return [{**self.heading, "choices": [choice]} for choice in choices]

    def _begun(self, answer: dict[str, Any]) -> dict[str, Any]:
        heading = self._manner.heading(KIND, fingerprint(answer.get("model"))) | stored(answer)
        return heading | {"usage": None} if self._wants_usage else heading


def pieces(told: Told) -> list[Delta]:
    """What is told of a text: of reasoning by the name that most programs look for."""
    reasoning = [{"reasoning_content": told.reasoning}] if told.reasoning else []
    return reasoning + ([{"content": told.content}] if told.content else [])


def numbered(message: dict[str, Any]) -> Delta:
    """The part of a message that tells calls as a delta: there they have numbers."""
    calls = message.get("tool_calls")
    return {"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]} if calls else message


def chunk_choice(index: int, delta: Delta, finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def chunk_choices(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """A choice of a whole answer, as the choices of a stream's chunks."""
    index = choice["index"]
    told = [chunk_choice(index, delta) for delta in deltas_of(choice["message"])]
    return [*told, chunk_choice(index, {}, choice["finish_reason"])]


def deltas_of(message: dict[str, Any]) -> list[Delta]:
    """A whole message in pieces."""
    told = Told(message.get("reasoning_content", ""), message["content"] or "")
    deltas = [first_delta(has_text=message["content"] is not None), *pieces(told)]
    if "annotations" in message:
        deltas.append({"annotations": message["annotations"]})
    calls: dict[str, Any] = {name: message[name] for name in ("function_call", "tool_calls") if name in message}
    return [*deltas, numbered(calls)] if calls else deltas
