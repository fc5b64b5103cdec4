"""Whole answers as the choices of OpenAI's completions."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.dialects.openai.answers import Said, finish_of, function_call, refuse_nothing, tool_call
from proxy.dialects.openai.formats import Judged, Text
from proxy.dialects.openai.names import Names
from proxy.dialects.openai.text import AnswerText
from proxy.dialects.openai.thinking import Told
from proxy.errors import UpstreamError

#: Of a tool call's id, as long as OpenAI's.
ID_DIGITS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one caller is told what the model said.

    Args:
        id, created, model: what every answer and chunk begins with; `created` in unix seconds.
        names: of the functions that it described.
        format: how the answer must look.
        stops: the sequences that end a text.
        image_link: what a generated image becomes, see `marks.py`.
        is_legacy: asked with `functions`, so a call is told as `function_call`.
    """

    id: str
    created: int
    model: str
    names: Names
    format: Text
    stops: tuple[str, ...]
    image_link: str | None
    is_legacy: bool

    def heading(self, kind: str, fingerprint: str | None) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint,
        }

    def text(self) -> AnswerText:
        return AnswerText(self.stops, self.image_link)

    def call(self, what: Said, index: int) -> dict[str, Any]:
        """The part of a message that tells a call."""
        if self.is_legacy:
            return {"function_call": function_call(what, self.names)}
        return {"tool_calls": [tool_call(what, self.names, self.call_id(index))]}

    def call_id(self, index: int) -> str:
        """For a call that GigaChat gives no id: the same for the same answer."""
        return f"call_{hashlib.sha256(f'{self.id}/{index}'.encode()).hexdigest()[:ID_DIGITS]}"

    def choice(self, index: int, what: Said) -> dict[str, Any]:
        """A choice of a completion. Raises UpstreamError for an answer that breaks a promise."""
        refuse_nothing(what)
        what = self.answered(what)
        told, is_stopped = self._told(what)
        if is_stopped:
            what = replace(what, call="", finish="stop")  # what comes behind the sequence
        message: dict[str, Any] = {"role": "assistant", "content": told.content, "refusal": None}
        if reasoning := what.reasoning + told.reasoning:
            message["reasoning_content"] = reasoning
        if what.sources:
            message["annotations"] = what.sources
        if what.call:
            message |= {"content": told.content or None, **self.call(what, index)}
        finish = finish_of(what, is_legacy=self.is_legacy)
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}

    def answered(self, what: Said) -> Said:
        """The same, with the arguments of a call that was only the answer's form as its text."""
        if not self.format.is_call(what.call):
            return what
        finish = what.finish if what.is_cut else "stop"
        return replace(what, text=what.arguments or "{}", call="", arguments="", finish=finish)

    def judged(self, what: Said) -> Judged:
        """What an answer says, and what is wrong with its form: nothing, if there was no form to keep."""
        what = self.answered(what)
        if what.call or what.is_cut:
            return Judged(what.text)
        return self.format.judged(self._parted(what).content)

    def _told(self, what: Said) -> tuple[Told, bool]:
        """The text as it is told, and whether it ends at a stop sequence."""
        if not self.format.is_json or what.call:
            text = self.text()
            return text.whole(what.text), text.is_stopped
        # Stop sequences are for texts: JSON that ends at one is none.
        told = self._parted(what)
        if what.is_cut:
            return told, False
        judged = self.format.judged(told.content)
        if judged.fault and self.format.is_promised:
            raise UpstreamError(200, message=f"the model's answer is not what response_format asks for: {judged.fault}")
        return Told(told.reasoning, judged.text), False

    def _parted(self, what: Said) -> Told:
        return AnswerText((), None).whole(what.text)


def first_delta(*, has_text: bool = True) -> dict[str, Any]:
    """The role; with the beginning of a text, where one is to be expected."""
    return {"role": "assistant", "content": "" if has_text else None, "refusal": None}
