"""The text of an answer on its way to the caller, piece by piece or whole: both ways it is told the same."""

from collections.abc import Sequence

from proxy.dialects.openai.marks import Marks
from proxy.dialects.openai.stops import Stops
from proxy.dialects.openai.thinking import Thinking, Told


class AnswerText:
    """Parts what the model thought from what it says, replaces marks, and ends at a stop sequence."""

    def __init__(self, stops: Sequence[str], image_link: str | None) -> None:
        self._thinking = Thinking()
        self._marks = Marks(image_link)
        self._stops = Stops(stops)

    @property
    def is_stopped(self) -> bool:
        return self._stops.is_hit

    def feed(self, piece: str) -> Told:
        """What can be told by now."""
        told = self._thinking.feed(piece)
        return Told(told.reasoning, self._stops.feed(self._marks.feed(told.content)))

    def end(self) -> Told:
        """What was held back."""
        told = self._thinking.end()
        rest = self._marks.feed(told.content) + self._marks.end()
        return Told(told.reasoning, self._stops.feed(rest) + self._stops.end())

    def whole(self, text: str) -> Told:
        """The same for a text that is not cut."""
        first, last = self.feed(text), self.end()
        return Told(first.reasoning + last.reasoning, first.content + last.content)
