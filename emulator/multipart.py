"""Forms with files, `multipart/form-data`, taken apart byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message

from emulator.errors import invalid_json


@dataclass(frozen=True, slots=True)
class Part:
    content: bytes
    filename: str = ""
    mime: str = ""


def parts(content_type: str, body: bytes) -> dict[str, Part]:
    """The parts of a form by name. Raises the API's 400 if it is no such form."""
    boundary = header("content-type", content_type).get_boundary()
    if not boundary:
        raise invalid_json()
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    # Before the first boundary stands nothing, after the last two dashes.
    return dict(part(piece) for piece in pieces[1:] if piece.startswith(b"\r\n"))


def part(piece: bytes) -> tuple[str, Part]:
    head, _, content = piece.partition(b"\r\n\r\n")
    lines = [line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n") if line]
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    disposition = header("content-disposition", fields.get("content-disposition", ""))
    name = disposition.get_param("name", "", "content-disposition")
    return str(name), Part(content, disposition.get_filename() or "", fields.get("content-type", ""))


def header(name: str, value: str) -> Message:
    """The header in the hands of the standard library, which knows its parameters."""
    message = Message()
    message[name] = value
    return message
