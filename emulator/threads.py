"""`/threads`: conversations that the API remembers, and their runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from emulator import chat_v1
from emulator.answers import Answer, Stream, json_answer
from emulator.calls import Call
from emulator.chat import new_thread, reply_in
from emulator.dialogue import Dialogue, Reply
from emulator.errors import invalid_params
from emulator.models import with_version
from emulator.parameters import listed, optional, shaped
from emulator.shelves import Thread, ThreadMessage
from emulator.state import State

DEFAULT_MODEL = "GigaChat-2"


def create(state: State, call: Call) -> Answer:
    return json_answer(described(new_thread(state, call, None, DEFAULT_MODEL)))


def list_threads(state: State, call: Call) -> Answer:
    wanted = parse_qs(call.target.partition("?")[2]).get("assistants_ids", [])
    threads = [thread for thread in state.threads.of(call.account) if not wanted or thread.assistant_id in wanted]
    return json_answer({"threads": [described(thread) for thread in page(threads, call)]})


def retrieve(state: State, call: Call) -> Answer:
    ids = shaped(shaped(call.json(), dict).get("threads_ids"), list)
    return json_answer(
        {"threads": [described(thread) for thread in state.threads.of(call.account) if thread.id in ids]}
    )


def delete(state: State, call: Call) -> Answer:
    state.threads.remove(call.account, shaped(call.json(), dict).get("thread_id"))
    return Answer(b"")


def list_messages(state: State, call: Call) -> Answer:
    thread = state.threads.get(call.account, call.query.get("thread_id"))
    messages = [message_described(message) for message in page(thread.messages, call)]
    return json_answer({"thread_id": thread.id, "messages": messages})


def add_messages(state: State, call: Call) -> Answer:
    body = shaped(call.json(), dict)
    thread = thread_of(state, call, body)
    added = [thread.add(chat_v1.read_message(message)) for message in listed(body, "messages")]
    messages = [{"created_at": message.created_at, "message_id": message.id} for message in added]
    return json_answer({"thread_id": thread.id, "messages": messages})


def run(state: State, call: Call) -> Answer | Stream:
    """Answer what a thread ends with; without `stream` the answer is fetched later, by `get_run`."""
    body = shaped(call.json(), dict)
    thread = thread_of(state, call, body)
    reply, message = answered(state, call, thread, body)
    if body.get("stream"):
        return stream(thread, message, reply, body)
    return json_answer({"status": "in_progress", "thread_id": thread.id, "created_at": thread.updated_at})


def get_run(state: State, call: Call) -> Answer:
    thread = state.threads.get(call.account, call.query.get("thread_id"))
    last = [message_described(message) for message in thread.messages[-1:] if message.message.role == "assistant"]
    return json_answer(
        {
            "status": "ready",
            "thread_id": thread.id,
            "updated_at": thread.updated_at,
            "model": with_version(thread.model),
            "messages": last,
        }
    )


def run_messages(state: State, call: Call) -> Answer | Stream:
    """Add messages and answer them."""
    body = shaped(call.json(), dict)
    thread = thread_of(state, call, body)
    return completed(thread, *answered(state, call, thread, body), body)


def rerun_messages(state: State, call: Call) -> Answer | Stream:
    """Answer the last message once more."""
    body = shaped(call.json(), dict)
    thread = state.threads.get(call.account, body.get("thread_id"))
    while thread.messages and thread.messages[-1].message.role == "assistant":
        thread.messages.pop()
    return completed(thread, *answered(state, call, thread, body), body)


def thread_of(state: State, call: Call, body: dict[str, Any]) -> Thread:
    if body.get("thread_id"):
        return state.threads.get(call.account, body["thread_id"])
    return new_thread(state, call, body.get("assistant_id"), body.get("model") or DEFAULT_MODEL)


def answered(state: State, call: Call, thread: Thread, body: dict[str, Any]) -> tuple[Reply, ThreadMessage]:
    if not (thread.messages or body.get("messages")):
        raise invalid_params("thread has no messages")
    dialogue: Dialogue = chat_v1.read(body | {"model": thread.model, "messages": body.get("messages") or []})
    if thread.assistant_id and not dialogue.functions:
        dialogue.functions = state.assistants.get(call.account, thread.assistant_id).functions
    return reply_in(state, call, dialogue, thread, optional(body, "limit", int, 0))


def completed(thread: Thread, reply: Reply, message: ThreadMessage, body: dict[str, Any]) -> Answer | Stream:
    if body.get("stream"):
        return stream(thread, message, reply, body)
    answer = {"message": chat_v1.written(reply), "finish_reason": reply.finish, "usage": chat_v1.usage(reply)}
    return json_answer(heading(thread, message, "thread.message") | answer)


def stream(thread: Thread, message: ThreadMessage, reply: Reply, body: dict[str, Any]) -> Stream:
    """As in chat, with the ids, and the usage in every chunk."""
    top = heading(thread, message, "threads.messages.run") | {"usage": chat_v1.usage(reply)}
    pieces = [{"delta": delta, "index": 0} for delta in chat_v1.deltas(reply)]
    end = {"delta": {"content": ""}, "index": 0, "finish_reason": reply.finish}
    chunks = [chat_v1.event({"choices": [choice], **top}) for choice in (*pieces, end)]
    return Stream([*chunks, chat_v1.DONE], interval=body.get("update_interval") or 0.0)


def heading(thread: Thread, message: ThreadMessage, kind: str) -> dict[str, Any]:
    ids = {"thread_id": thread.id, "message_id": message.id}
    return {"object": kind, "model": with_version(thread.model), **ids, "created": message.created_at}


def page(things: list[Any], call: Call) -> list[Any]:
    """Those before the moment `before`, the last `limit` of them."""
    before, limit = call.number("before"), call.number("limit")
    earlier = [thing for thing in things if not before or thing.created_at < before]
    return earlier[-limit:] if limit else earlier


def described(thread: Thread) -> dict[str, Any]:
    return {
        "id": thread.id,
        "assistant_id": thread.assistant_id or None,
        "model": thread.model,
        "created_at": thread.created_at,
        "updated_at": thread.updated_at,
        "run_lock": False,
        "status": "ready",
    }


def message_described(kept: ThreadMessage) -> dict[str, Any]:
    call = kept.message.calls[0] if kept.message.calls else None
    return {
        "message_id": kept.id,
        "role": kept.message.role,
        "content": kept.message.text,
        "attachments": [{"file_id": id, "name": id} for id in kept.message.files],
        "created_at": kept.created_at,
        "function_call": {"name": call.name, "arguments": call.arguments} if call else None,
        "finish_reason": kept.finish or None,
    }
