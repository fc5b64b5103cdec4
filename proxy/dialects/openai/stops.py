"""Stop sequences, which GigaChat does not know: the text ends before the first of them that is completed.

The same wherever a stream is cut into chunks: of what came, only that is held back which may be a sequence's beginning.
"""

from collections.abc import Sequence


class Stops:
    """A text, piece by piece, up to a stop sequence.

    Attributes:
        is_hit: a sequence was found; nothing comes after it.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = sequences
        self._held = ""
        self.is_hit = False

    def feed(self, piece: str) -> str:
        """What can be told by now."""
        if not self._sequences:
            return piece
        if self.is_hit:
            return ""
        text = self._held + piece
        end = self._found(text)
        if end is not None:
            self.is_hit, self._held = True, ""
            return text[:end]
        self._held = text[len(text) - held_back(text, self._sequences) :]
        return text[: len(text) - len(self._held)]

    def end(self) -> str:
        """What was held back: no sequence came of it."""
        held, self._held = self._held, ""
        return held

    def _found(self, text: str) -> int | None:
        """Where the sequence begins that is completed first; of several that end together, the longest."""
        places = [(start + len(sequence), start) for sequence in self._sequences if (start := text.find(sequence)) >= 0]
        return min(places)[1] if places else None


def held_back(text: str, sequences: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a sequence."""
    longest = max(map(len, sequences)) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(sequence.startswith(tail) for sequence in sequences):
            return length
    return 0
