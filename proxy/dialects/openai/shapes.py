"""What each field of a chat request may be. What is read after this check need not be looked at again.

Only fields that mean something here are checked; the others are ignored, and named by `parameters.ignored`.
"""

from typing import Any, Final

from proxy.dialects.native import json_type
from proxy.dialects.openai.schemas import is_texts
from proxy.errors import BadRequest
from proxy.rules import Rule, WrongType, WrongValue, check

NUMBER: Final = (int, float)
INFINITY: Final = float("inf")
ROLES: Final = ("developer", "system", "user", "assistant", "tool", "function")
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MAX_CHOICES: Final = 128
MAX_STOPS: Final = 4

ANYTHING: Final = Rule("an object", (dict,))
TEXT: Final = Rule("a string", (str,))
NAME: Final = Rule("a name, not empty", (str,), bool, is_required=True)
SWITCH: Final = Rule("true or false", (bool,))
CONTENT: Final = Rule("a string or a list of parts", (str, list))
LENGTH: Final = Rule("a whole number above 0", (int,), lambda value: value > 0)
FUNCTION_TYPE: Final = Rule('"function": GigaChat has no other tools', (str,), lambda kind: kind == "function")

FUNCTION_CALL: Final = Rule(
    'an object such as {"name": "...", "arguments": "{...}"}',
    (dict,),
    fields={"name": NAME, "arguments": Rule("a string of JSON", (str, dict))},
)
TOOL_CALL: Final = Rule(
    'an object such as {"id": "...", "type": "function", "function": {...}}',
    (dict,),
    is_required=True,
    fields={
        "id": TEXT,
        "type": FUNCTION_TYPE,
        "function": Rule(FUNCTION_CALL.expected, (dict,), is_required=True, fields=FUNCTION_CALL.fields),
    },
)
MESSAGE: Final = Rule(
    'an object such as {"role": "user", "content": "..."}',
    (dict,),
    is_required=True,
    fields={
        "role": Rule(f"one of {', '.join(ROLES)}", (str,), lambda role: role in ROLES, is_required=True),
        "content": CONTENT,
        "name": TEXT,
        "refusal": TEXT,
        "tool_call_id": TEXT,
        "tool_calls": Rule("a list of calls", (list,), items=TOOL_CALL),
        "function_call": FUNCTION_CALL,
    },
)
FUNCTION: Final = Rule(
    'an object such as {"name": "...", "parameters": {...}}',
    (dict,),
    is_required=True,
    fields={
        "name": NAME,
        "description": TEXT,
        "parameters": Rule("a JSON schema, an object", (dict,)),
        "few_shot_examples": Rule("a list", (list,)),
        "return_parameters": ANYTHING,
    },
)
JSON_SCHEMA: Final = Rule(
    'an object such as {"name": "...", "schema": {...}}',
    (dict,),
    fields={"name": TEXT, "description": TEXT, "schema": ANYTHING, "strict": SWITCH},
)
FORMATS: Final = ("text", "json_object", "json_schema")
RESPONSE_FORMAT: Final = Rule(
    'an object such as {"type": "json_object"}',
    (dict,),
    fields={
        "type": Rule(f"one of {', '.join(FORMATS)}", (str,), lambda kind: kind in FORMATS, is_required=True),
        "json_schema": JSON_SCHEMA,
    },
)

CHAT: Final = Rule(
    "an object",
    (dict,),
    is_required=True,
    fields={
        "messages": Rule("a list of messages, not empty", (list,), bool, is_required=True, items=MESSAGE),
        "model": TEXT,
        "stream": SWITCH,
        "stream_options": Rule('an object such as {"include_usage": true}', (dict,), fields={"include_usage": SWITCH}),
        "n": Rule(f"a whole number from 1 to {MAX_CHOICES}", (int,), lambda value: 1 <= value <= MAX_CHOICES),
        "user": TEXT,
        "safety_identifier": TEXT,
        "temperature": Rule("a number from 0 to 2", NUMBER, lambda value: 0 <= value <= 2),
        "top_p": Rule("a number from 0 to 1", NUMBER, lambda value: 0 <= value <= 1),
        "max_tokens": LENGTH,
        "max_completion_tokens": LENGTH,
        "stop": Rule(
            f"a string or a list of at most {MAX_STOPS} strings",
            (str, list),
            lambda stop: isinstance(stop, str) or (is_texts(stop) and len(stop) <= MAX_STOPS),
        ),
        "reasoning_effort": Rule(f"one of {', '.join(EFFORTS)}", (str,), lambda effort: effort in EFFORTS),
        "modalities": Rule(
            '["text"]: GigaChat does not speak', (list,), lambda kinds: all(kind == "text" for kind in kinds)
        ),
        "tools": Rule("a list of tools", (list,), items=Rule("an object", (dict,), is_required=True)),
        "functions": Rule("a list of functions", (list,), items=FUNCTION),
        "tool_choice": Rule('"auto", "none", "required" or an object', (str, dict)),
        "function_call": Rule('"auto", "none" or an object', (str, dict)),
        "response_format": RESPONSE_FORMAT,
        # GigaChat's own
        "profanity_check": SWITCH,
        "repetition_penalty": Rule("a number above 0", NUMBER, lambda value: 0 < value < INFINITY),
        "update_interval": Rule("seconds, a number not below 0", NUMBER, lambda value: 0 <= value < INFINITY),
        "flags": Rule("a list", (list,)),
        "function_ranker": ANYTHING,
        "storage": ANYTHING,
    },
)


def chat(body: object) -> dict[str, Any]:
    """The checked body of a chat request, without nulls: they mean absent. Raises BadRequest naming the field."""
    body = flattened(body)
    checked(body, CHAT)
    present = {name: value for name, value in body.items() if value is not None}
    if "stream_options" in present and present.get("stream") is not True:
        raise BadRequest('"stream_options" belongs to a stream: set "stream": true too', param="stream_options")
    return present


def flattened(body: object) -> dict[str, Any]:
    """A body with what stands in a literal `extra_body` at its top, where the SDK would have put it."""
    if not isinstance(body, dict):
        raise BadRequest(f"the body must be a JSON object, not {json_type(body)}")
    extra = body.get("extra_body")
    if extra is None:
        return body
    checked(extra, ANYTHING, "extra_body")
    return {**extra, **{name: value for name, value in body.items() if name != "extra_body"}}


def checked(value: object, rule: Rule, path: str = "") -> Any:
    """The value, if it keeps the rule. Raises BadRequest for the first field that breaks it."""
    try:
        check(value, rule, path)
    except (WrongType, WrongValue) as error:
        raise BadRequest(str(error), param=error.param) from None
    return value
