"""`/assistants`: create, list, modify, delete."""

from __future__ import annotations

from typing import Any

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError
from emulator.models import known
from emulator.parameters import check_names, shaped
from emulator.shelves import Assistant, now
from emulator.state import State

FIELDS: dict[str, type] = {
    "model": str,
    "name": str,
    "description": str,
    "instructions": str,
    "file_ids": list,
    "functions": list,
    "metadata": dict,
}


def create(state: State, call: Call) -> Answer:
    fields = read(shaped(call.json(), dict))
    known(fields.get("model"), "chat", state.options)
    assistant = state.assistants.add(Assistant(account=call.account, **fields))
    return json_answer({"assistant_id": assistant.id, "created_at": assistant.created_at})


def list_assistants(state: State, call: Call) -> Answer:
    id = call.query.get("assistant_id")
    found = [state.assistants.get(call.account, id)] if id else state.assistants.of(call.account)
    return json_answer({"data": [described(state, assistant) for assistant in found]})


def modify(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    assistant = state.assistants.get(call.account, body.get("assistant_id"))
    for name, value in read(body).items():
        setattr(assistant, name, value)
    assistant.updated_at = now()
    return json_answer(described(state, assistant))


def delete(state: State, call: Call) -> Answer:
    assistant = state.assistants.remove(call.account, shaped(call.json(), dict).get("assistant_id"))
    return json_answer({"assistant_id": assistant.id, "deleted": True})


def delete_file(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    assistant = state.assistants.get(call.account, body.get("assistant_id"))
    if body.get("file_id") not in assistant.file_ids:
        raise ApiError(404, state.files.missing)
    assistant.file_ids.remove(body["file_id"])
    return json_answer({"file_id": body["file_id"], "deleted": True})


def read(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that are given, each of its type."""
    fields = {name: shaped(body[name], kind) for name, kind in FIELDS.items() if body.get(name) is not None}
    check_names(fields.get("functions", []))
    return fields


def described(state: State, assistant: Assistant) -> dict[str, Any]:
    threads = [thread for thread in state.threads.of(assistant.account) if thread.assistant_id == assistant.id]
    names = {file.id: file.filename for file in state.files.of(assistant.account)}
    return {
        "assistant_id": assistant.id,
        **{name: getattr(assistant, name) for name in FIELDS if name != "file_ids"},
        "files": [{"file_id": id, "name": names.get(id, id)} for id in assistant.file_ids],
        "created_at": assistant.created_at,
        "updated_at": assistant.updated_at,
        "threads_count": len(threads),
    }
