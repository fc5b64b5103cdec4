"""`POST /v1/chat/completions`: the first version of chat, whole and streamed."""

from __future__ import annotations

import time
from typing import Any

import orjson

from emulator.answers import Answer, Stream, json_answer
from emulator.calls import Call
from emulator.chat import reply_in, reply_to, stored_thread
from emulator.dialogue import Dialogue, FunctionCall, Message, Reply
from emulator.errors import invalid_json
from emulator.models import with_version
from emulator.parameters import check_ranges, function_result, listed, optional, read_schema, shaped
from emulator.state import State
from emulator.words import clauses

ROLES = {"system", "user", "assistant", "function", "search_result", "function_in_progress"}
BUILTINS = {"text2image", "text2model3d"}
DONE = b"data: [DONE]\n\n"


def chat(state: State, call: Call) -> Answer | Stream:
    body = shaped(call.json(), dict)
    dialogue = read(body)
    reply, ids = answered(state, call, dialogue, optional(body, "storage", dict, {}))
    if optional(body, "stream", bool, False):
        return Stream(events(reply, dialogue.model, ids), interval=body.get("update_interval") or 0.0)
    return json_answer(completion(reply, dialogue.model) | ids)


def answered(state: State, call: Call, dialogue: Dialogue, storage: dict[str, Any]) -> tuple[Reply, dict[str, str]]:
    """The reply, and the ids of its thread and message if the conversation is stored."""
    if not (storage.get("is_stateful") or storage.get("thread_id") or storage.get("assistant_id")):
        return reply_to(state, call, dialogue), {}
    thread = stored_thread(state, call, storage, dialogue.model or None)
    dialogue.model = dialogue.model or thread.model
    reply, message = reply_in(state, call, dialogue, thread, optional(storage, "limit", int, 0))
    return reply, {"thread_id": thread.id, "message_id": message.id}


def read(body: dict[str, Any]) -> Dialogue:
    """The body as a dialogue. Raises what the API answers to a wrong one."""
    check_ranges(body)
    choice = body.get("function_call") or {}
    functions = listed(body, "functions")
    return Dialogue(
        model=read_model(body),
        messages=[read_message(message) for message in listed(body, "messages")],
        functions=[function for function in functions if function.get("name") not in BUILTINS],
        forced=shaped(choice.get("name"), str) if isinstance(choice, dict) and choice else "",
        is_silent=choice == "none",
        given=optional(choice, "partial_arguments", dict, {}) if isinstance(choice, dict) else {},
        tools=read_tools(choice, functions),
        schema=read_schema(optional(body, "response_format", dict, {}), ("text", "json_schema")),
        has_reasoning=bool(body.get("reasoning_effort")),
        is_filtered=optional(body, "profanity_check", bool, False),
        max_tokens=body.get("max_tokens"),
    )


def read_model(body: dict[str, Any]) -> str:
    """The model's name. Only a stored conversation may leave it out."""
    model: str = optional(body, "model", str, "")
    if not model and not body.get("storage"):
        raise invalid_json()
    return model


def read_tools(choice: Any, functions: list[dict[str, Any]]) -> set[str]:
    """The built-in functions that may be used: those named, and with `auto` all of them."""
    if choice not in ("auto", "none") and not isinstance(choice, dict):
        raise invalid_json()
    named = {function.get("name") for function in functions if isinstance(function.get("name"), str)}
    return set() if choice == "none" else BUILTINS if choice == "auto" else BUILTINS & named


def read_message(message: dict[str, Any]) -> Message:
    role = shaped(message.get("role"), str)
    if role not in ROLES:
        raise invalid_json()
    text = optional(message, "content", str, "")
    read = Message(role, text, files=optional(message, "attachments", list, []))
    if role == "function":
        read.results = [(optional(message, "name", str, ""), function_result(text))]
    if role == "assistant" and message.get("function_call"):
        read.calls = [read_call(shaped(message["function_call"], dict))]
    return read


def read_call(call: dict[str, Any]) -> FunctionCall:
    return FunctionCall(shaped(call.get("name"), str), optional(call, "arguments", dict, {}))


def completion(reply: Reply, model: str) -> dict[str, Any]:
    choice = {"message": written(reply), "index": 0, "finish_reason": reply.finish}
    return {"choices": [choice], **heading(model), "usage": usage(reply)}


def written(reply: Reply) -> dict[str, Any]:
    """The reply as a message."""
    message: dict[str, Any] = {"content": content(reply), "role": "assistant"}
    if reply.call:
        message["function_call"] = {"name": reply.call.name, "arguments": reply.call.arguments}
    if reply.state_id:
        message["functions_state_id"] = reply.state_id
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    return message


def content(reply: Reply) -> str:
    return f'<img src="{reply.picture}" fuse="true"/> {reply.text}' if reply.picture else reply.text


def heading(model: str) -> dict[str, Any]:
    return {"created": int(time.time()), "model": with_version(model), "object": "chat.completion"}


def usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.total_tokens,
        "precached_prompt_tokens": reply.cached_tokens,
    }


def events(reply: Reply, model: str, ids: dict[str, str]) -> list[bytes]:
    """The reply as server-sent events: the pieces, the end with its usage, `[DONE]`."""
    top = heading(model) | ids
    pieces = [event({"choices": [{"delta": delta, "index": 0}], **top}) for delta in deltas(reply)]
    end = {"delta": {"content": ""}, "index": 0, "finish_reason": reply.finish}
    return [*pieces, event({"choices": [end], **top, "usage": usage(reply)}), DONE]


def deltas(reply: Reply) -> list[dict[str, Any]]:
    """The reply in pieces. Only the first names its role; a picture is announced before it comes."""
    first = written(reply)
    texts = clauses(str(first["content"])) or [""]
    first["content"] = texts[0]
    progress = {"content": "", "role": "function_in_progress"}
    return [*([progress] if reply.picture else []), first, *({"content": text} for text in texts[1:])]


def event(payload: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"
