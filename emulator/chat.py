"""What both versions of chat, threads and batches have in common: from a dialogue to its reply."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from emulator.calls import Call
from emulator.dialogue import Dialogue, Message, Reply
from emulator.errors import ApiError, invalid_json
from emulator.history import check
from emulator.mind import compose
from emulator.models import WITHOUT_FUNCTIONS, known
from emulator.parameters import check_forced, check_names
from emulator.picture import drawn
from emulator.shelves import File, Thread, ThreadMessage
from emulator.state import State


def reply_to(state: State, call: Call, dialogue: Dialogue) -> Reply:
    """Check the dialogue and answer it. Raises the API's refusals."""
    check(dialogue.messages)
    check_functions(state, dialogue)
    for message in dialogue.messages:
        for id in message.files:
            state.files.get(call.account, id)
    reply = compose(dialogue)
    reply.cached_tokens = state.cached_tokens(call.headers.get("X-Session-ID"), reply.prompt_tokens)
    if reply.call or reply.has_picture:
        reply.state_id = stable_id("state", dialogue.question, reply.text)
    if reply.has_picture:
        reply.picture = keep_picture(state, call, dialogue.question)
    return reply


def check_functions(state: State, dialogue: Dialogue) -> None:
    dialogue.model = known(dialogue.model, "chat", state.options)
    if dialogue.functions and dialogue.model in WITHOUT_FUNCTIONS:
        raise ApiError(422, "Requested model does not support functions")
    check_names(dialogue.functions)
    check_forced(dialogue.forced, {function["name"] for function in dialogue.functions} | dialogue.tools)


def keep_picture(state: State, call: Call, question: str) -> str:
    client = call.headers.get("X-Client-ID", "")
    content = drawn(question)
    picture = File(account=call.account, filename="picture.jpg", content=content, mime="image/jpeg", client=client)
    return state.files.add(picture).id


def stable_id(*parts: str) -> str:
    """The same id for the same parts."""
    return str(uuid.UUID(bytes=hashlib.sha256("\0".join(parts).encode()).digest()[:16], version=4))


def stored_thread(state: State, call: Call, storage: Mapping[str, Any], model: Any) -> Thread:
    """The thread that a `storage` field means; a new one if it names none."""
    if storage.get("thread_id"):
        return state.threads.get(call.account, storage["thread_id"])
    return new_thread(state, call, storage.get("assistant_id"), model)


def new_thread(state: State, call: Call, assistant_id: Any, model: Any) -> Thread:
    if assistant_id:
        model = state.assistants.get(call.account, assistant_id).model
    if not isinstance(model, str):
        raise invalid_json()
    known(model, "chat", state.options)
    return state.threads.add(Thread(account=call.account, model=model, assistant_id=assistant_id or ""))


def reply_in(
    state: State, call: Call, dialogue: Dialogue, thread: Thread, limit: int | None = None
) -> tuple[Reply, ThreadMessage]:
    """Answer new messages as the continuation of a thread, and keep both in it."""
    new = dialogue.messages
    dialogue.messages = continued(state, thread, new, limit)
    reply = reply_to(state, call, dialogue)
    for message in new:
        thread.add(message)
    return reply, thread.add(Message("assistant", reply.text, [reply.call] if reply.call else []), reply.finish)


def continued(state: State, thread: Thread, new: list[Message], limit: int | None) -> list[Message]:
    """The assistant's instructions, the last `limit` messages of the thread, and the new ones."""
    past = [kept.message for kept in thread.messages]
    past = past[-limit:] if limit else past
    if not thread.assistant_id or (past + new)[0].role == "system":
        return past + new
    instructions = state.assistants.get(thread.account, thread.assistant_id).instructions
    return [Message("system", instructions), *past, *new] if instructions else past + new
