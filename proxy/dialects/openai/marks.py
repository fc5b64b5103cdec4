"""Marks that GigaChat puts into its text: of images that it made, and of sources that it read.

`<img src="<file id>" fuse="true"/>` becomes a Markdown image whose address is a link to the file, or stays as it is
for whoever puts the picture itself there (`images_in`, `with_images`). `[sources=[1,2]]` says nothing to a reader: the
sources are told beside the text.

A mark is never torn between two chunks of a stream: its beginning waits for its end, MAX_MARK characters at most.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from proxy.dialects.openai.stops import held_back

#: A mark's beginning and end.
MARKS: Final = {'<img src="': ">", "[sources=[": "]]"}
OPENING: Final = re.compile("|".join(map(re.escape, MARKS)))
IMAGE: Final = re.compile(r'<img src="([\w-]{1,100})" fuse="true" ?/?>')
SOURCES: Final = re.compile(r"\[sources=\[[\d\s,]*\]\]")
#: Characters of the longest mark.
MAX_MARK: Final = 200


def images_in(text: str) -> list[str]:
    """The ids of the files of the images in a text, in order, each once."""
    return list(dict.fromkeys(IMAGE.findall(text)))


def with_images(text: str, addresses: Mapping[str, str]) -> str:
    """The text with Markdown images of these addresses (data URLs, links) in place of the marks; others stay."""
    return IMAGE.sub(lambda mark: picture(addresses[mark[1]]) if mark[1] in addresses else mark[0], text)


def picture(address: str) -> str:
    return f"![image]({address})"


class Marks:
    """A text, piece by piece, with its marks replaced; the same however it is cut.

    Args:
        image_link: the address of an image, `{id}` being its file; None: its mark stays.
    """

    def __init__(self, image_link: str | None) -> None:
        self._link = image_link
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be told by now."""
        text = self._held + piece
        if "<" not in text and "[" not in text:
            self._held = ""
            return text  # as most texts are
        return "".join(self._parts(text))

    def end(self) -> str:
        """What was held back: no mark came of it."""
        held, self._held = self._held, ""
        return held

    def _parts(self, text: str) -> Iterator[str]:
        """The text up to what must wait, which is held."""
        start = 0
        while opening := OPENING.search(text, start):
            yield text[start : opening.start()]
            closing = MARKS[opening[0]]
            end = text.find(closing, opening.end(), opening.start() + MAX_MARK)
            if end < 0 and len(text) - opening.start() < MAX_MARK:
                self._held = text[opening.start() :]
                return
            start = opening.end() if end < 0 else end + len(closing)
            yield self._replaced(text[opening.start() : start])
        cut = len(text) - held_back(text[start:], tuple(MARKS))
        self._held = text[cut:]
        yield text[start:cut]

    def _replaced(self, mark: str) -> str:
        image = IMAGE.fullmatch(mark)
        if image and self._link is not None:
            return picture(self._link.replace("{id}", image[1]))
        return "" if SOURCES.fullmatch(mark) else mark
