"""GigaChat's `/files`, as calls for the line: each makes one attempt."""

import re
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from proxy.connector import Connector, closing
from proxy.errors import UpstreamError
from proxy.forwarding import Headers, RawCall, RawHead
from proxy.upstream import decoded

#: Characters that a file keeps of its name, and those that no name may have.
NAME_LENGTH = 100
UNFIT = re.compile(r'[\x00-\x1f\x7f"/\\]')
ACCEPT = ("Accept", "application/json")


class Whole(NamedTuple):
    """An answer; `type` is its Content-Type."""

    type: str
    body: bytes


def fit(name: str) -> str:
    """A name that can be written into a form."""
    return UNFIT.sub("_", name)[-NAME_LENGTH:] or "file"


async def upload(connector: Connector, *, filename: str, type: str, content: bytes) -> dict[str, Any]:
    """The API's description of the new file; it has an id. Raises UpstreamError.

    The name must have no quotes and no control characters.
    """
    content_type, body = form(filename, type, content)
    answer = await sent(connector, "/files", (ACCEPT, ("Content-Type", content_type)), body)
    if not answer.get("id") or not isinstance(answer["id"], str):
        raise UpstreamError(None, message="the upstream took the file and gave it no id")
    return answer


async def delete(connector: Connector, id: str) -> dict[str, Any]:
    """What the API says of the file when it is gone. Raises UpstreamError."""
    return await sent(connector, f"/files/{quote(id, safe='')}/delete", (ACCEPT,), None)


async def sent(connector: Connector, path: str, headers: Headers, body: bytes | None) -> dict[str, Any]:
    return decoded((await whole(connector, call=RawCall("POST", "v1", path, "", headers, body))).body)


async def whole(connector: Connector, *, call: RawCall) -> Whole:
    """The whole answer to any call. Raises UpstreamError for all but a 200."""
    async with closing(connector.forward(call)) as pieces:
        head, *told = [piece async for piece in pieces]
    answer = b"".join(piece for piece in told if isinstance(piece, bytes))
    assert isinstance(head, RawHead)  # it always comes first
    if head.status != 200:
        raise UpstreamError(head.status, answer)
    types = [value for name, value in head.headers if name.lower() == "content-type"]
    return Whole(types[0] if types else "application/octet-stream", answer)


def form(
    filename: str, type: str, content: bytes, fields: Mapping[str, str] = MappingProxyType({"purpose": "general"})
) -> tuple[str, bytes]:
    """The Content-Type and the body of an upload. No name must have quotes or control characters."""
    boundary = secrets.token_hex(16)  # nobody can have written it into a file
    told = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    )
    head = (
        f'{told}--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"Content-Type: {type}\r\n\r\n"
    )
    body = b"".join((head.encode(errors="replace"), content, f"\r\n--{boundary}--\r\n".encode()))
    return f"multipart/form-data; boundary={boundary}", body
