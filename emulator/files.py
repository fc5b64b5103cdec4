"""`/files`: upload, list, describe, read and delete."""

from __future__ import annotations

import mimetypes
from typing import Any

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError, invalid_json
from emulator.multipart import parts
from emulator.shelves import File
from emulator.state import State

MEBIBYTE = 2**20
MAX_BYTES = {"image": 15 * MEBIBYTE, "audio": 35 * MEBIBYTE, "text": 40 * MEBIBYTE}
POLICY = "private"


def upload(state: State, call: Call) -> Answer:
    form = parts(call.headers.get("Content-Type", ""), call.body)
    part, purpose = form.get("file"), form.get("purpose")
    if part is None or not part.filename:
        raise invalid_json()
    file = File(
        account=call.account,
        filename=part.filename,
        content=part.content,
        mime=part.mime or mimetypes.guess_type(part.filename)[0] or "application/octet-stream",
        purpose=purpose.content.decode("utf-8", "replace") if purpose else "general",
        client=call.headers.get("X-Client-ID", ""),
    )
    if len(file.content) > MAX_BYTES[modality(file)]:
        raise ApiError(413)
    return json_answer(described(state.files.add(file)))


def list_files(state: State, call: Call) -> Answer:
    return json_answer({"data": [described(file) for file in state.files.of(call.account)]})


def get_file(state: State, call: Call) -> Answer:
    return json_answer(described(state.files.get(call.account, call.id)))


def get_content(state: State, call: Call) -> Answer:
    """The bytes, for the same X-Client-ID that the file was made with."""
    file = state.files.get(call.account, call.id)
    if file.client and file.client != call.headers.get("X-Client-ID", ""):
        raise ApiError(404, state.files.missing)
    return Answer(file.content, content_type=file.mime)


def delete(state: State, call: Call) -> Answer:
    file = state.files.remove(call.account, call.id)
    return json_answer({"id": file.id, "object": "file", "deleted": True, "access_policy": POLICY})


def modality(file: File) -> str:
    family = file.mime.partition("/")[0]
    return family if family in MAX_BYTES else "text"


def described(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "access_policy": POLICY,
        "modalities": [modality(file)],
    }
