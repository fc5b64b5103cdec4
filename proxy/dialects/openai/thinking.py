"""What a model thinks before it answers: `<think>...</think>` at the head of a text becomes its reasoning.

Only at the head: further down the tag is something that the answer speaks of.
"""

from typing import NamedTuple

from proxy.dialects.openai.stops import held_back

OPEN = "<think>"
CLOSE = "</think>"


class Told(NamedTuple):
    """A piece of an answer: of the reasoning, and of the text itself."""

    reasoning: str = ""
    content: str = ""


class Thinking:
    """A text, piece by piece, parted into reasoning and content; the same however it is cut."""

    def __init__(self) -> None:
        self._held = ""
        self._read = self._head

    def feed(self, piece: str) -> Told:
        """What can be told by now."""
        text, self._held = self._held + piece, ""
        return self._read(text)

    def end(self) -> Told:
        """What was held back. Reasoning that never ended stays reasoning."""
        held, self._held = self._held, ""
        return Told(held) if self._read == self._reasoning else Told("", held)

    # -- where in the text it is

    def _head(self, text: str) -> Told:
        """Blanks, and perhaps the opening tag."""
        rest = text.lstrip()
        if rest.startswith(OPEN):
            self._read = self._reasoning
            return self._reasoning(rest[len(OPEN) :])
        if OPEN.startswith(rest):
            self._held = text
            return Told()
        self._read = self._content
        return Told("", text)

    def _reasoning(self, text: str) -> Told:
        reasoning, tag, rest = text.partition(CLOSE)
        if tag:
            self._read = self._gap
            return Told(reasoning, self._gap(rest).content)
        held = held_back(text, (CLOSE,))
        self._held = text[len(text) - held :]
        return Told(text[: len(text) - held])

    def _gap(self, text: str) -> Told:
        """Blanks between the reasoning and the answer, which belong to neither."""
        rest = text.lstrip()
        if rest:
            self._read = self._content
        return Told("", rest)

    def _content(self, text: str) -> Told:
        return Told("", text)
