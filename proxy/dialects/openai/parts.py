"""The parts of a message: its text, and what is attached to it.

Of images GigaChat takes 10 in a request and one in a message, of documents one in a message (it reads the first and
says nothing about the others). So what is attached beyond one gets a message of its own, in order, and what would be
lost without a word is refused.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from proxy.dialects.openai.files import type_by_filename
from proxy.dialects.openai.shapes import TEXT, checked
from proxy.errors import BadRequest
from proxy.rules import Rule

MAX_IMAGES: Final = 10
Content = str | list[Any] | None
Form = Literal["data", "url", "id"]
Kind = Literal["image", "document", "audio", "file"]

SAID: Final = Rule("a string", (str,), is_required=True)
URL: Final = Rule("a data URL or an http(s) address", (str,), lambda url: form_of(url) != "id", is_required=True)
FILE_ID: Final = Rule("the id of an uploaded file", (str,), lambda id: re.fullmatch(r"[\w.:-]{1,200}", id) is not None)
FILE: Final = Rule(
    'an object with "file_data" or "file_id"',
    (dict,),
    lambda file: bool(file.get("file_data") or file.get("file_id")),
    is_required=True,
    fields={"file_data": TEXT, "file_id": FILE_ID, "filename": TEXT},
)
AUDIO: Final = Rule(
    'an object such as {"data": "<base64>", "format": "wav"}',
    (dict,),
    is_required=True,
    fields={
        "data": Rule("base64", (str,), bool, is_required=True),
        "format": Rule('"wav" or "mp3"', (str,), lambda name: name in ("wav", "mp3"), is_required=True),
    },
)
PART: Final = Rule(
    'an object such as {"type": "text", "text": "..."}', (dict,), is_required=True, fields={"type": SAID}
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """Something to be uploaded before the call, unless its form is "id": then it is a file's id already.

    Args:
        source: a data URL, an http(s) address or an id.
        kind: what it is, as far as one can tell before it is looked at; "file" may be anything.
        message: the number of the caller's message.
        filename: as the caller gave it, or nothing.
        param: the path of the field that holds it.
    """

    source: str
    kind: Kind
    message: int
    filename: str
    param: str

    def __repr__(self) -> str:
        return f"<Attachment {self.kind} of {self.param}>"  # its source may be megabytes

    @property
    def form(self) -> Form:
        return form_of(self.source)


#: A message: its text, and what is attached; and while its texts are still apart.
Bundle = tuple[str, list[Attachment]]
Group = tuple[list[str], list[Attachment]]


def form_of(source: str) -> Form:
    head = source[:8].lower()
    return "data" if head.startswith("data:") else "url" if head.startswith(("http://", "https://")) else "id"


# ---- A content ----


def text_of(content: Content, path: str, role: str) -> str:
    """The text of a message that can have nothing but text. Raises BadRequest."""
    texts = []
    for piece in pieces(content, path, 0):
        if isinstance(piece, Attachment):
            told = f'"{piece.param}" must be in a message of the role "user", not "{role}"'
            raise BadRequest(told, param=piece.param)
        texts.append(piece)
    return "\n".join(texts)


def bundles(content: Content, path: str, number: int) -> list[Bundle]:
    """A user's message as messages with at most one attachment each. Raises BadRequest."""
    if not isinstance(content, list):
        return [(content or "", [])]
    texts: list[str] = []
    found: list[Group] = []
    for piece in pieces(content, path, number):
        if isinstance(piece, str):
            texts.append(piece)
        else:
            found.append((texts, [piece]))  # with the text that leads to it
            texts = []
    if not found:
        return [("\n".join(texts), [])]
    found[-1][0].extend(texts)
    refuse_second_document([piece for _, attached in found for piece in attached])
    return labelled(question_last(found))


def question_last(found: list[Group]) -> list[Group]:
    """Text that is all before the first attachment is a question about them all: it goes with the last."""
    texts = [texts for texts, _ in found]
    if not any(texts[1:]):
        texts = [*texts[1:], texts[0]]
    return [(text, attached) for text, (_, attached) in zip(texts, found, strict=True)]


def labelled(found: list[Group]) -> list[Bundle]:
    """Those without a text but the last get their number, so that no message is empty."""
    last = len(found)
    return [
        ("\n".join(texts) or (f"[{count}/{last}]" if count < last else ""), attached)
        for count, (texts, attached) in enumerate(found, 1)
    ]


def refuse_second_document(attached: list[Attachment]) -> None:
    documents = [each for each in attached if each.kind == "document"]
    if len({each.source for each in documents}) > 1:
        param = documents[1].param
        raise BadRequest(f'"{param}" is one document too many: GigaChat reads one in a message', param=param)


def refuse_many_images(attached: list[Attachment]) -> None:
    """Raises BadRequest for a conversation with more images than GigaChat takes."""
    images = [each for each in attached if each.kind == "image"]
    if len(images) > MAX_IMAGES:
        param = images[MAX_IMAGES].param
        raise BadRequest(
            f'"{param}" is image {MAX_IMAGES + 1} of {len(images)}: GigaChat takes {MAX_IMAGES} in a request, those of '
            "earlier messages included; leave some out",
            param=param,
        )


# ---- One part ----


def pieces(content: Content, path: str, number: int) -> Iterator[str | Attachment]:
    """The texts that say something and the attachments of a content, in order. Raises BadRequest."""
    if isinstance(content, str):
        found: list[str | Attachment] = [content]
    else:
        found = [piece(part, f"{path}[{count}]", number) for count, part in enumerate(content or [])]
    yield from filter(None, found)


def piece(part: Any, path: str, number: int) -> str | Attachment:
    checked(part, PART, path)
    kind = part["type"]
    if kind not in READERS:
        allowed = ", ".join(READERS)
        raise BadRequest(f'"{path}.type" must be one of {allowed}, not "{kind[:40]}"', param=f"{path}.type")
    return READERS[kind](part, f"{path}.{kind}", number)


def text(part: dict[str, Any], path: str, number: int) -> str:
    return str(checked(part.get(part["type"]), SAID, path))


def image(part: dict[str, Any], path: str, number: int) -> Attachment:
    """`{"image_url": {"url": ...}}`; the address alone is understood too."""
    given = part.get("image_url")
    if isinstance(given, dict):
        given, path = given.get("url"), f"{path}.url"
    return Attachment(checked(given, URL, path), "image", number, "", path)


def file(part: dict[str, Any], path: str, number: int) -> Attachment:
    given = checked(part.get("file"), FILE, path)
    name = given.get("filename") or ""
    if given.get("file_id"):
        return Attachment(given["file_id"], "file", number, name, f"{path}.file_id")
    source = with_type(given["file_data"], name)
    return Attachment(source, kind_of(source), number, name, f"{path}.file_data")


def audio(part: dict[str, Any], path: str, number: int) -> Attachment:
    given = checked(part.get("input_audio"), AUDIO, path)
    source = f"data:audio/{given['format']};base64,{given['data']}"
    return Attachment(source, "audio", number, f"audio.{given['format']}", f"{path}.data")


READERS: Final[dict[str, Callable[[dict[str, Any], str, int], str | Attachment]]] = {
    "text": text,
    "refusal": text,
    "image_url": image,
    "file": file,
    "input_audio": audio,
}


def with_type(data: str, filename: str) -> str:
    """File data as a data URL: OpenAI takes bare base64 too, whose type only the file's name tells."""
    return data if form_of(data) != "id" else f"data:{type_by_filename(filename)};base64,{data}"


def kind_of(source: str) -> Kind:
    """What a data URL or an address holds, by its type."""
    if form_of(source) != "data":
        return "file"
    family = source[5:11].lower()
    return "image" if family == "image/" else "audio" if family == "audio/" else "document"
