"""Function calls in a conversation, and the results that belong to them.

OpenAI's assistant makes several calls at once, told apart by id; GigaChat's makes one in a message, and its result
follows: "every assistant function call must have a result in history", and every result a call. So calls and results
become pairs, each call with its own result, in the order of the calls. OpenAI refuses a history in which a call or a
result is alone; clients that cut long histories send them all the same, so:

1. A result is looked for anywhere behind its call, not only right behind it: a user may have spoken in between.
2. Ids that a client uses again in every turn (`call_0`) mean the latest call that still waits.
3. A call without a result gets one that says so.
4. A result without a call is told as the user's words: nothing is lost, and nothing is made up.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.errors import BadRequest

#: What GigaChat links a call and its state by; our answers carry it as the call's id, so it comes back here.
STATE_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
ANY: Final = ("", "")
NO_RESULT: Final = '{"error":"this call has no result"}'


@dataclass(slots=True)
class Call:
    """A call of the assistant's. `result` is the number of the message that holds its result."""

    id: str
    name: str
    arguments: dict[str, Any]
    result: int | None = None

    @property
    def state_id(self) -> str | None:
        return self.id if STATE_ID.fullmatch(self.id) else None


def calls_of(messages: list[dict[str, Any]]) -> dict[int, list[Call]]:
    """The calls of each message that makes any, with their results. Raises BadRequest for arguments that are none."""
    made: dict[int, list[Call]] = {}
    waiting = Waiting()
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            if calls := list(read(message, f"messages[{number}]")):
                made[number] = calls
                waiting.add(calls)
        elif message["role"] in ("tool", "function"):
            call = waiting.take(message.get("tool_call_id"), message.get("name"))
            if call is not None:
                call.result = number
    return made


class Waiting:
    """Calls without a result, by id, by name and all together; each way the latest turn's first comes first."""

    def __init__(self) -> None:
        self._turns: dict[tuple[str, str], list[deque[Call]]] = {}

    def add(self, calls: list[Call]) -> None:
        """The calls of one turn."""
        turns: dict[tuple[str, str], deque[Call]] = {}
        for call in calls:
            for key in (("id", call.id), ("name", call.name), ANY):
                turns.setdefault(key, deque()).append(call)
        for key, turn in turns.items():
            self._turns.setdefault(key, []).append(turn)

    def take(self, id: str | None, name: str | None) -> Call | None:
        """The call that a result with this id, or else of this name, belongs to."""
        turns = self._turns.get(("id", id) if id else ("name", name) if name else ANY, [])
        while turns:
            while turns[-1]:
                call = turns[-1].popleft()
                if call.result is None:  # it may have been found another way
                    return call
            turns.pop()
        return None


def read(message: dict[str, Any], path: str) -> Iterator[Call]:
    """The calls of one message."""
    for number, call in enumerate(message.get("tool_calls") or []):
        yield one(call["function"], call.get("id") or "", f"{path}.tool_calls[{number}].function")
    if message.get("function_call") and not message.get("tool_calls"):
        yield one(message["function_call"], "", f"{path}.function_call")


def one(function: dict[str, Any], id: str, path: str) -> Call:
    return Call(id, function["name"], arguments(function.get("arguments"), f"{path}.arguments"))


def arguments(given: Any, path: str) -> dict[str, Any]:
    """The object in a JSON text; nothing means none. Raises BadRequest."""
    if isinstance(given, dict):
        return given
    if not given or not given.strip():
        return {}
    try:
        found = orjson.loads(given)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f'"{path}" is not valid JSON: {error}', param=path) from None
    if not isinstance(found, dict):
        raise BadRequest(f'"{path}" must hold a JSON object', param=path)
    return found


def result_text(text: str) -> str:
    """A result as the API takes it: a JSON object, in a text."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.dumps({"result": text}).decode()
    # Its own words are kept as they are: numbers beyond 64 bits, for one, would not survive.
    return text if isinstance(found, dict) else f'{{"result":{text}}}'
