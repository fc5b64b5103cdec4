"""`response_format`: how the answer must look, how the API is made to give it, and whether it did.

| response_format | told to the API |
| --- | --- |
| text | nothing |
| json_object, which the API does not know | an instruction; the JSON is taken out of fences and words around it |
| json_schema, structured output by function | a function with the schema as its parameters, which must be called |
| json_schema, native; or together with tools or documents | the API's own `response_format` |

A forced function leaves no room for tools, nor for the API's own function that reads documents.

The answer is checked against the schema (see `validation.py`). What does not fit the model may mend, see `further.py`.
If it still does not, then with `"strict": true` (the SDK's `.parse()` says so) and with json_object that is an error,
502: there OpenAI promises what it gives, and programs read it without a second look. Without `strict` it is told as
it is. What was cut off or censored is never checked: its finish_reason tells.
"""

from typing import Any, Final, NamedTuple

from proxy.dialects.openai import plain, validation
from proxy.dialects.openai.json_text import found_in
from proxy.dialects.openai.names import accepted
from proxy.dialects.openai.options import Options
from proxy.dialects.openai.schemas import Budget, Schema, written_out
from proxy.errors import BadRequest

JSON_ONLY: Final = (
    "Answer with one valid JSON object and nothing else: no Markdown fence, no words before or after it. "
    "Keep the language of the conversation in its values."
)
#: For callers that leave the name out.
NAME: Final = "structured_output"
PATH: Final = "response_format.json_schema"


class Judged(NamedTuple):
    """What is told of an answer, and what is wrong with it, if anything."""

    text: str
    fault: str = ""


class Text:
    """Any text will do."""

    is_json = False
    #: Whether what does not fit is an error.
    is_promised = False
    #: What the system message says of it.
    instruction = ""

    def told(self) -> dict[str, Any]:
        """What it adds to the call."""
        return {}

    def is_call(self, name: str) -> bool:
        """Whether a call of this function is the answer itself."""
        return False

    def judged(self, text: str) -> Judged:
        return Judged(text)


class JsonObject(Text):
    """Any JSON object."""

    is_json = True
    is_promised = True
    instruction = JSON_ONLY

    def judged(self, text: str) -> Judged:
        """The first JSON in the text that fits; if none does, the first."""
        first = None
        for found in found_in(text):
            judged = Judged(found.text, self.fault(found.value))
            if not judged.fault:
                return judged
            first = first or judged
        return first or Judged(text, "there is no whole JSON in it")

    def fault(self, value: Any) -> str:
        return "" if isinstance(value, dict) else "it is a list, not an object"


class JsonSchema(JsonObject):
    """JSON that fits a schema, by the API's own means."""

    instruction = ""

    def __init__(self, given: dict[str, Any], schema: Schema) -> None:
        self._given = given
        self._schema = schema
        self.is_promised = given.get("strict") is True

    def told(self) -> dict[str, Any]:
        strict = {"strict": self._given["strict"]} if self._given.get("strict") is not None else {}
        return {"response_format": {"type": "json_schema", "schema": self._schema, **strict}}

    def fault(self, value: Any) -> str:
        return validation.fault(value, self._schema)


class FunctionSchema(JsonSchema):
    """The same by a function that must be called."""

    @property
    def name(self) -> str:
        return accepted(self._given.get("name") or NAME)

    def told(self) -> dict[str, Any]:
        description = self._given.get("description") or f"Gives the answer as {self._given.get('name') or NAME}."
        function = {"name": self.name, "description": description, "parameters": plain.parameters(self._schema)}
        return {"functions": [function], "function_call": {"name": self.name}}

    def is_call(self, name: str) -> bool:
        return name == self.name


def format_of(body: dict[str, Any], options: Options, *, has_others: bool) -> Text:
    """The format of a checked body. Raises BadRequest.

    Args:
        has_others: whether the model may call other functions, its own that reads documents among them.
    """
    asked = body.get("response_format", {"type": "text"})
    if asked["type"] == "text":
        return Text()
    if asked["type"] == "json_object":
        return JsonObject()
    given = asked.get("json_schema") or {}
    if given.get("schema") is None:
        raise BadRequest(f'"{PATH}.schema" is missing: it must be a JSON schema, an object', param=f"{PATH}.schema")
    schema = written_out(given["schema"], f"{PATH}.schema", Budget(), is_strict=True)
    # A function's parameters are an object; what is not cannot be asked for that way.
    is_native = has_others or options.structured_output == "native" or plain.plain(schema)["type"] != "object"
    return JsonSchema(given, schema) if is_native else FunctionSchema(given, schema)
