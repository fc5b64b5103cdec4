"""What the tests of OpenAI's dialect share: requests, answers of GigaChat's, and a GigaChat without sockets."""

import copy
from typing import Any

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from emulator import chat_v1, history, mind, models, options, parameters
from gigachat_connector import validate_data
from proxy.dialects.openai import Chat, ChatStream, Options

ID = "chatcmpl-0199e20f-058c-70c0-9850-6400dd41a853"
CREATED = 1_760_434_636
STATE_ID = "0199e210-2f13-744c-8fe5-c9a19fe27db7"
USAGE = {"prompt_tokens": 17, "completion_tokens": 3, "total_tokens": 20, "precached_prompt_tokens": 2}
#: What answers have beside OpenAI's own fields.
EXTRAS = {"reasoning_content", "thread_id", "message_id", "annotations"}


# ---- Requests ----


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = None, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})


def call(id: str, name: str, arguments: Any = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(id: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


def body(*messages: Any, **fields: Any) -> dict[str, Any]:
    """A request with these messages; texts are the user's."""
    told = [user(message) if isinstance(message, str) else message for message in messages or ("Hi",)]
    return {"model": "GigaChat-2", "messages": told, **fields}


def chat(*messages: Any, options: Options | None = None, **fields: Any) -> Chat:
    asked = body(*messages, **fields)
    before = copy.deepcopy(asked)
    made = Chat(asked, options or Options(), id=ID, created=CREATED)
    assert asked == before, "a request must not be changed by who reads it"
    return made


def told(*messages: Any, files: Any = None, **fields: Any) -> list[dict[str, Any]]:
    """The messages that GigaChat gets."""
    found: list[dict[str, Any]] = chat(*messages, **fields).data(files or {})["messages"]
    return found


def asked(*messages: Any, **fields: Any) -> dict[str, Any]:
    """The parameters that GigaChat gets, but the model."""
    found = dict(chat(*messages, **fields).data()["generate_parameters"])
    found.pop("model")
    return found


# ---- Answers of GigaChat's ----


def says(content: str = "", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole answer."""
    choice = {"message": {"role": "assistant", "content": content, **message}, "index": 0, "finish_reason": finish}
    return {
        "choices": [choice],
        "created": 1,
        "model": "GigaChat-2:2.0.28.2",
        "object": "chat.completion",
        "usage": USAGE,
    }


def calls(name: str, arguments: Any, **message: Any) -> dict[str, Any]:
    """A whole answer that calls a function."""
    return says(finish="function_call", function_call={"name": name, "arguments": arguments}, **message)


def piece(content: str = "", *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a stream; with a finish it is the last one."""
    choice: dict[str, Any] = {"delta": {"content": content, **delta}, "index": 0}
    end: dict[str, Any] = {"usage": USAGE} if finish else {}
    if finish:
        choice["finish_reason"] = finish
    return {"choices": [choice], "created": 1, "model": "GigaChat-2:2.0.28.2", "object": "chat.completion", **end}


def pieces(*texts: str, finish: str = "stop") -> list[dict[str, Any]]:
    return [*(piece(text) for text in texts), piece(finish=finish)]


# ---- What callers get ----


def completion(chat: Chat, *answers: dict[str, Any]) -> dict[str, Any]:
    """The whole answer, one choice for each of GigaChat's."""
    found = chat.completion([[answer] for answer in answers])
    check(ChatCompletion, found)
    return found


def choice(chat: Chat, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = completion(chat, answer)["choices"][0]
    return found


def message(chat: Chat, answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = choice(chat, answer)["message"]
    return found


def streamed(stream: ChatStream, chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chunks that callers get, each as the SDK wants it."""
    found = [each for chunk in chunks for each in stream.feed(chunk)] + stream.end()
    for each in found:
        check(ChatCompletionChunk, each)
    return found


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each["choices"][0]["delta"] for each in chunks if each["choices"]]


def said(chunks: list[dict[str, Any]], name: str = "content") -> str:
    return "".join(delta.get(name) or "" for delta in deltas(chunks))


def finishes(chunks: list[dict[str, Any]]) -> list[str]:
    reasons = [each["choices"][0]["finish_reason"] for each in chunks if each["choices"]]
    return [reason for reason in reasons if reason]


def check(kind: type[BaseModel], found: dict[str, Any]) -> None:
    """It is of the SDK's type to the letter, and has no fields but those that are meant."""
    assert extras(kind.model_validate(orjson.loads(orjson.dumps(found)), strict=True)) <= EXTRAS


def extras(found: BaseModel) -> set[str]:
    """The names of all the fields that the SDK does not know."""
    names = set(found.model_extra or ())
    for value in dict(found).values():
        for each in value if isinstance(value, list) else [value]:
            names |= extras(each) if isinstance(each, BaseModel) else set()
    return names


# ---- GigaChat without sockets ----


def gigachat(data: dict[str, Any]) -> dict[str, Any]:
    """The emulator's answer to a call, through all the checks that the API makes."""
    dialogue = accepted(data)
    reply = mind.compose(dialogue)
    if reply.call:
        reply.state_id = STATE_ID
    return chat_v1.completion(reply, dialogue.model)


def accepted(data: dict[str, Any]) -> Any:
    """The call as the emulator reads it. Raises what the API refuses."""
    assert validate_data(data) is True
    written = orjson.loads(orjson.dumps({**data["generate_parameters"], "messages": data["messages"]}))
    dialogue = chat_v1.read(written)
    history.check(dialogue.messages)
    dialogue.model = models.known(dialogue.model, "chat", options.Options())
    parameters.check_names(dialogue.functions)
    parameters.check_forced(dialogue.forced, {each["name"] for each in dialogue.functions} | dialogue.tools)
    for function in written.get("functions", []):
        check_function(function)
    return dialogue


def check_function(function: dict[str, Any]) -> None:
    """What the real API is known to refuse in a description, beside what the emulator does."""
    if function["name"] in chat_v1.BUILTINS:
        return
    assert function["parameters"]["type"] == "object"
    check_parameters(function["parameters"])


def check_parameters(schema: dict[str, Any]) -> None:
    assert isinstance(schema["type"], str)
    assert not schema.keys() & {"anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "const"}
    assert all(isinstance(value, str) for value in schema.get("enum", []))
    if schema["type"] == "array":
        check_parameters(schema["items"])
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= schema["properties"].keys()
        for part in schema["properties"].values():
            check_parameters(part)
