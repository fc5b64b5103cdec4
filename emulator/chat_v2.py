"""`POST /v2/chat/completions`: the second version of chat, whole and streamed as named events."""

from __future__ import annotations

import time
from typing import Any

import orjson

from emulator.answers import Answer, Stream, json_answer
from emulator.calls import Call
from emulator.chat import reply_in, reply_to, stable_id, stored_thread
from emulator.dialogue import Dialogue, FunctionCall, Message, Reply
from emulator.errors import ApiError, invalid_json
from emulator.models import with_version
from emulator.parameters import check_ranges, function_result, listed, optional, read_schema, shaped
from emulator.state import State
from emulator.words import clauses

ROLES = {"system", "user", "assistant", "function", "tool"}
TOOLS = {"web_search", "image_generate", "url_content_extraction", "model_3d_generate"}
CLOSED = {"code_interpreter"}
FORMATS = ("text", "json_schema", "regex")
FINISHES = {"blacklist": "request_blacklist"}
SOURCE = {"url": "https://example.com/", "title": "Example Domain"}


def chat(state: State, call: Call) -> Answer | Stream:
    body = shaped(call.json(), dict)
    options = optional(body, "model_options", dict, {})
    dialogue = read(body, options)
    reply, ids = answered(state, call, dialogue, body)
    if optional(body, "stream", bool, False):
        return Stream(events(reply, dialogue.model, ids), interval=options.get("update_interval") or 0.0)
    return json_answer(completion(reply, dialogue.model) | ids)


def answered(state: State, call: Call, dialogue: Dialogue, body: dict[str, Any]) -> tuple[Reply, dict[str, str]]:
    """The reply, and the id of its thread if the conversation is stored."""
    storage = body.get("storage")
    if storage in (None, False) and not body.get("assistant_id"):
        return reply_to(state, call, dialogue), {}
    stored = (storage if isinstance(storage, dict) else {}) | {"assistant_id": body.get("assistant_id")}
    thread = stored_thread(state, call, stored, dialogue.model or None)
    dialogue.model = dialogue.model or thread.model
    reply, message = reply_in(state, call, dialogue, thread, optional(stored, "limit", int, 0))
    return reply, {"thread_id": thread.id, "message_id": message.id}


def read(body: dict[str, Any], options: dict[str, Any]) -> Dialogue:
    """The body as a dialogue. Raises what the API answers to a wrong one."""
    check_ranges(options)
    form = optional(options, "response_format", dict, {})
    config = optional(body, "tool_config", dict, {})
    tools = [shaped(tool, dict) for tool in optional(body, "tools", list, [])]
    is_silent = config.get("mode") == "none"
    return Dialogue(
        model=read_model(body),
        messages=[read_message(message) for message in listed(body, "messages")],
        functions=[function for tool in tools for function in read_functions(tool)],
        forced=read_forced(config),
        is_silent=is_silent,
        tools=set() if is_silent else read_tools(tools),
        schema=read_schema(form, FORMATS),
        regex=optional(form, "regex", str, "") if form.get("type") == "regex" else "",
        has_reasoning=bool(optional(options, "reasoning", dict, {}).get("effort")),
        is_filtered=body.get("disable_filter") is False,
        max_tokens=options.get("max_tokens"),
    )


def read_model(body: dict[str, Any]) -> str:
    """The model's name. Only a stored conversation may leave it out."""
    model: str = optional(body, "model", str, "")
    if not model and not (body.get("assistant_id") or isinstance(body.get("storage"), dict)):
        raise invalid_json()
    return model


def read_functions(tool: dict[str, Any]) -> list[dict[str, Any]]:
    return listed(optional(tool, "functions", dict, {}), "specifications")


def read_forced(config: dict[str, Any]) -> str:
    if config.get("mode") != "forced":
        return ""
    return str(config.get("function_name") or config.get("tool_name") or "")


def read_tools(tools: list[dict[str, Any]]) -> set[str]:
    """The built-in tools on the list. Raises the API's word for one that is unknown or closed."""
    names = {name for tool in tools for name, value in tool.items() if value is not None} - {"functions"}
    for name in sorted(names):
        if name in CLOSED:
            raise ApiError(422, f"Tool {name} is unavailable")
        if name not in TOOLS:
            raise ApiError(404, f"Unknown tool {name}")
    return names


def read_message(message: dict[str, Any]) -> Message:
    role = shaped(message.get("role"), str)
    if role not in ROLES:
        raise invalid_json()
    parts = [shaped(part, dict) for part in shaped(message.get("content"), list)]
    results = [shaped(part["function_result"], dict) for part in parts if part.get("function_result")]
    calls = [shaped(part["function_call"], dict) for part in parts if part.get("function_call")]
    return Message(
        "function" if role == "tool" else role,
        "".join(optional(part, "text", str, "") for part in parts),
        [FunctionCall(shaped(call.get("name"), str), shaped(call.get("arguments"), dict)) for call in calls],
        [(shaped(each.get("name"), str), function_result(each.get("result"))) for each in results],
        [shaped(file.get("id"), str) for part in parts for file in listed(part, "files")],
    )


def completion(reply: Reply, model: str) -> dict[str, Any]:
    return {**heading(model), "messages": [written(reply)], **ending(reply)}


def written(reply: Reply) -> dict[str, Any]:
    """The reply as a message. Its state id is in the singular on the wire, whatever the documents say."""
    message: dict[str, Any] = {"role": "assistant", "content": parts(reply)}
    if reply.state_id:
        message["tool_state_id"] = reply.state_id
    return message


def parts(reply: Reply) -> list[dict[str, Any]]:
    if reply.call:
        id = stable_id("call", reply.state_id, reply.call.name)
        return [{"function_call": {"id": id, "name": reply.call.name, "arguments": reply.call.arguments}}]
    text: dict[str, Any] = {"text": reply.text}
    if reply.is_searched:
        text["inline_data"] = {"sources": {"1": SOURCE}}
    file = {"id": reply.picture, "mime": "image/jpeg", "target": "image"}
    return [{"files": [file]}, text] if reply.picture else [text]


def heading(model: str) -> dict[str, Any]:
    return {"model": with_version(model), "created_at": int(time.time())}


def ending(reply: Reply) -> dict[str, Any]:
    return {"finish_reason": FINISHES.get(reply.finish, reply.finish), "usage": usage(reply)}


def usage(reply: Reply) -> dict[str, Any]:
    return {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"prompt_tokens": reply.prompt_tokens, "cached_tokens": reply.cached_tokens},
        "output_tokens": reply.completion_tokens,
        "total_tokens": reply.total_tokens,
    }


def events(reply: Reply, model: str, ids: dict[str, str]) -> list[bytes]:
    """The reply as named events. A function call comes with the last one, whole."""
    top = heading(model) | ids
    end = ({"messages": [written(reply)]} if reply.call else {}) | ending(reply)
    return [*tool_events(reply, top), *text_events(reply, top), event("response.message.done", top | end)]


def tool_events(reply: Reply, top: dict[str, Any]) -> list[bytes]:
    """A built-in tool begins and ends before the text."""
    name = "image_generate" if reply.picture else "web_search" if reply.is_searched else ""
    stages = (("response.tool.in_progress", "in_progress"), ("response.tool.completed", "success"))
    return [event(kind, top | {"tool_execution": {"name": name, "status": status}}) for kind, status in stages if name]


def text_events(reply: Reply, top: dict[str, Any]) -> list[bytes]:
    if reply.call:
        return []
    first, *rest = clauses(reply.text) or [""]
    opening = [part if "files" in part else part | {"text": first} for part in parts(reply)]
    contents = [opening, *([{"text": text}] for text in rest)]
    return [
        event("response.message.delta", top | {"messages": [{"role": "assistant", "content": content}]})
        for content in contents
    ]


def event(name: str, payload: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(payload) + b"\n\n"
