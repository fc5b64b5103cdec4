"""What a file is by its first bytes, where nobody says."""

import re
from typing import Final

#: Types that say nothing.
UNTOLD: Final = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download"})
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
#: Bytes that are looked at: as far as the second or third name in an archive.
ENOUGH: Final = 4096

#: Types the API does not take are here too, so that their refusal can name them.
BEGINNINGS: Final = tuple(
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "image/jpeg"),
        (rb"\x89PNG\r\n\x1a\n", "image/png"),
        (rb"II\*\0|MM\0\*", "image/tiff"),
        (rb"BM.{4}\0{4}", "image/bmp"),
        (rb"GIF8[79]a", "image/gif"),
        (rb"RIFF.{4}WEBP", "image/webp"),
        (rb".{4}ftyp(avif|heic|heix|mif1)", "image/heif"),
        (rb"%PDF-", "application/pdf"),
        (rb"PK\x03\x04.{26}mimetypeapplication/epub", "application/epub"),
        (rb"PK\x03\x04.*PK\x03\x04.{26}word/", DOCX),
        (rb"PK\x03\x04.*PK\x03\x04.{26}ppt/", "application/pptx"),
        (rb"RIFF.{4}WAVE", "audio/wav"),
        (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mp3"),
        (rb"OggS.{24}OpusHead", "audio/opus"),
        (rb"OggS", "audio/ogg"),
        (rb".{4}ftypM4A", "audio/x-m4a"),
        (rb".{4}ftyp", "audio/mp4"),
        (rb"\x1aE\xdf\xa3", "audio/webm"),
    )
)


def sniffed(content: bytes) -> str:
    """The type that the first bytes tell, "" if none. A picture or sound without one of these marks is not known."""
    beginning = content[:ENOUGH]
    return next((name for pattern, name in BEGINNINGS if pattern.match(beginning)), "")
