"""A form that brings a file along, read as it comes: its fields, and the file between them, never whole in memory."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from aiohttp import BodyPartReader, web

from proxy.errors import BadRequest, BodyTooLarge
from proxy.jobs.record import plain

#: The field that holds the file.
FILE = "file"
WANTED = 'a form (multipart/form-data) with a "file" is wanted'
#: Fields beside it, and bytes of each.
MOST, LONGEST = 100, 64 * 1024
#: Bytes of the file that are read at once.
AT_ONCE = 64 * 1024


class Form:
    """See `begun`. `fields` are those that have come by now; `filename` and `type` are the file's."""

    def __init__(self, parts: AsyncGenerator[BodyPartReader, None]) -> None:
        self._parts = parts
        self._file: BodyPartReader | None = None
        self.fields: dict[str, str] = {}

    @classmethod
    async def begun(cls, request: web.Request) -> "Form":
        """The form of a request, read until its file begins, or to its end if it has none. Raises BadRequest."""
        if not is_form(request):
            raise BadRequest(WANTED, param=FILE)
        form = cls(parts_of(request))
        await form._read_fields()
        return form

    @property
    def purpose(self) -> str:
        """What the file is for, as far as that is known by now."""
        return self.fields.get("purpose", "")

    @property
    def filename(self) -> str:
        return plain((self._file and self._file.filename) or "")

    @property
    def type(self) -> str:
        return "" if self._file is None else self._file.headers.get("Content-Type", "")

    async def pieces(self, most: int, too_large: str = "") -> AsyncGenerator[bytes, None]:
        """The file, once; then the fields behind it are there, too.

        Raises BadRequest, and BodyTooLarge for more than `most` bytes.
        """
        if self._file is None:
            raise BadRequest(WANTED, param=FILE)
        async with aclosing(pieces_of(self._file, most, too_large)) as pieces:
            async for piece in pieces:
                yield piece
        await self._read_fields()

    async def content(self, most: int) -> bytes:
        """The same, whole."""
        async with aclosing(self.pieces(most)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def _read_fields(self) -> None:
        """Up to the file. A second one does not count."""
        async for part in self._parts:
            if self._file is None and part.name == FILE and part.filename is not None:
                self._file = part
                return
            if part.name is not None and part.filename is None:
                self._note(part.name, await text_of(part))

    def _note(self, name: str, text: str) -> None:
        if len(self.fields) >= MOST:
            raise BadRequest(f"a form has at most {MOST} fields here")
        self.fields[name] = text


def is_form(request: web.Request) -> bool:
    return request.content_type == "multipart/form-data"


async def parts_of(request: web.Request) -> AsyncGenerator[BodyPartReader, None]:
    with readable():
        reader = await request.multipart()
    while True:
        with readable():
            part = await reader.next()
        if part is None:
            return
        if not isinstance(part, BodyPartReader):
            raise BadRequest("a form within a form is not read")
        yield part


async def pieces_of(part: BodyPartReader, most: int, too_large: str = "") -> AsyncGenerator[bytes, None]:
    """A part as it comes, decoded. Raises BadRequest, BodyTooLarge."""
    size = 0
    with readable():
        while piece := await part.read_chunk(AT_ONCE):
            async for decoded in part.decode_iter(piece):
                size += len(decoded)
                if size > most:
                    raise BodyTooLarge(too_large)
                yield bytes(decoded)


async def text_of(part: BodyPartReader) -> str:
    """A field. Raises BadRequest."""
    try:
        text = b"".join([piece async for piece in pieces_of(part, LONGEST)])
    except BodyTooLarge:
        raise BadRequest(f"a field of a form has at most {LONGEST} bytes here", param=part.name) from None
    with readable():
        return plain(text.decode(part.get_charset("utf-8")))


@contextmanager
def readable() -> Iterator[None]:
    """What the library says of boundaries and encodings, in our words."""
    try:
        yield
    except (ValueError, LookupError, RuntimeError):
        raise BadRequest("the form cannot be read: it breaks off, or is not what its Content-Type says") from None
