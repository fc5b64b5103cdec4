"""Files: what GigaChat takes, and how its files are told in OpenAI's words."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.errors import AttachmentTooLarge, BadRequest, UnsupportedMedia

MEGABYTE: Final = 2**20


class MediaType(NamedTuple):
    """A type of file that the API takes. `limit` is in bytes."""

    name: str
    family: str
    extension: str

    @property
    def limit(self) -> int:
        return LIMITS[self.family]


LIMITS: Final = {"image": 15 * MEGABYTE, "audio": 35 * MEGABYTE, "document": 40 * MEGABYTE}
OFFICE: Final = "application/vnd.openxmlformats-officedocument"
#: The API's names of the types, with what else they go by.
TYPES: Final = (
    (MediaType("image/jpeg", "image", "jpeg"), ("image/jpg", "image/pjpeg")),
    (MediaType("image/png", "image", "png"), ("image/x-png",)),
    (MediaType("image/tiff", "image", "tiff"), ("image/tif",)),
    (MediaType("image/bmp", "image", "bmp"), ("image/x-ms-bmp", "image/x-bmp")),
    (MediaType("text/plain", "document", "txt"), ()),
    (MediaType("application/msword", "document", "doc"), ()),
    (MediaType(f"{OFFICE}.wordprocessingml.document", "document", "docx"), ()),
    (MediaType("application/pdf", "document", "pdf"), ("application/x-pdf",)),
    (MediaType("application/epub", "document", "epub"), ("application/epub+zip",)),
    (MediaType("application/ppt", "document", "ppt"), ("application/vnd.ms-powerpoint",)),
    (MediaType("application/pptx", "document", "pptx"), (f"{OFFICE}.presentationml.presentation",)),
    (MediaType("audio/mp4", "audio", "mp4"), ()),
    (MediaType("audio/mp3", "audio", "mp3"), ("audio/mpeg",)),
    (MediaType("audio/x-m4a", "audio", "m4a"), ("audio/m4a",)),
    (MediaType("audio/wav", "audio", "wav"), ("audio/x-wav", "audio/wave", "audio/x-pn-wav")),
    (MediaType("audio/webm", "audio", "weba"), ()),
    (MediaType("audio/ogg", "audio", "ogg"), ("audio/x-ogg",)),
    (MediaType("audio/opus", "audio", "opus"), ()),
)
BY_NAME: Final = {name: kind for kind, aliases in TYPES for name in (kind.name, *aliases)}
BY_EXTENSION: Final = {kind.extension: kind for kind, _ in TYPES} | {
    "jpg": BY_NAME["image/jpeg"],
    "tif": BY_NAME["image/tiff"],
}


def media_type(content_type: str, size: int, param: str) -> MediaType:
    """The type under which a file of `size` bytes is uploaded. Raises UnsupportedMedia, AttachmentTooLarge."""
    name = content_type.partition(";")[0].strip().lower()
    kind = BY_NAME.get(name)
    if kind is None:
        extensions = ", ".join(each.extension for each, _ in TYPES)
        raise UnsupportedMedia(
            f'"{param}" is of the type {name[:60] or "(none)"}, which GigaChat does not take; it takes {extensions}',
            param=param,
        )
    if size > kind.limit:
        raise AttachmentTooLarge(
            f'"{param}" has {size / MEGABYTE:.1f} MB; GigaChat takes {kind.limit // MEGABYTE} MB for {kind.extension}',
            param=param,
        )
    return kind


def type_by_filename(filename: str) -> str:
    """The type that a file's name tells."""
    kind = BY_EXTENSION.get(filename.rpartition(".")[2].lower())
    return kind.name if kind else "application/octet-stream"


def decoded(data_url: str, param: str) -> tuple[str, bytes]:
    """The type and the bytes of a data URL. Raises BadRequest."""
    head, comma, data = data_url[len("data:") :].partition(",")
    content_type, _, encoding = head.rpartition(";")
    try:
        if not comma:
            raise ValueError("it has no comma")
        content = unquote_to_bytes(data)
        if encoding.strip().lower() != "base64":
            return head, content
        return content_type, base64.b64decode(padded(content.translate(None, b" \t\r\n")), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f'"{param}" is not a valid data URL: {error}', param=param) from None


def padded(data: bytes) -> bytes:
    """Browsers take base64 without its end, so some programs leave it out."""
    return data + b"=" * (-len(data) % 4)


# ---- OpenAI's file objects ----


def file_object(file: Mapping[str, Any], purpose: str = "user_data") -> dict[str, Any]:
    """A file of GigaChat's. It keeps no purpose of OpenAI's: the one asked for on upload is only told back."""
    return {
        "id": str(file.get("id", "")),
        "object": "file",
        "bytes": file.get("bytes") or 0,
        "created_at": file.get("created_at") or 0,
        "filename": file.get("filename") or "",
        "purpose": purpose,
        "status": "processed",
    }


def file_list(
    files: Iterable[Mapping[str, Any]], *, limit: int = 10_000, after: str = "", ascending: bool = False
) -> dict[str, Any]:
    """A page of files, by their age; `after` is the id of the last one of the page before."""
    told = sorted((file_object(file) for file in files), key=lambda file: (file["created_at"], file["id"]))
    if not ascending:
        told.reverse()
    ids = [file["id"] for file in told]
    start = ids.index(after) + 1 if after in ids else 0
    page = told[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(told),
    }


def file_deleted(id: str) -> dict[str, Any]:
    return {"id": id, "object": "file", "deleted": True}
