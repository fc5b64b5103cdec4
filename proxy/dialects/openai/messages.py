"""OpenAI's messages as GigaChat's conversation.

| OpenAI | GigaChat |
| --- | --- |
| developer, system, anywhere | one system message, first: all of them in their order, blank lines between |
| user | user; with several attachments several of them, see `parts.py` |
| assistant | assistant; its calls one by one, each followed by its result, see `calls.py` |
| tool, function | function: a JSON object in a text, under the name of the function that was called |
| null, missing or empty content | "" |

Neighbours of one role stay apart: the API takes them as they are. `name` of people is left out, as it means functions
there; reasoning of earlier turns too, as it would be paid for again.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.dialects.openai.calls import NO_RESULT, Call, calls_of, result_text
from proxy.dialects.openai.names import accepted
from proxy.dialects.openai.parts import Attachment, bundles, refuse_many_images, text_of
from proxy.errors import BadRequest

Message = dict[str, Any]
NOTHING: Final[Mapping[str, str]] = {}


class Conversation:
    """The messages of a request. Raises BadRequest for what cannot be told.

    Attributes:
        attachments: what must be uploaded before the call, in order.
    """

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._calls = calls_of(messages)
        self._results = {call.result for calls in self._calls.values() for call in calls}
        self._instructions: list[str] = []
        self._told: list[Message] = []
        for number, message in enumerate(messages):
            self._told += TELLERS[message["role"]](self, number, message)
        if not (self._told or any(self._instructions)):
            raise BadRequest('"messages" say nothing: there is no text in any of them', param="messages")
        self.attachments = [file for message in self._told for file in message.get("attachments", ())]
        refuse_many_images(self.attachments)

    def messages(self, files: Mapping[str, str] = NOTHING, instruction: str = "") -> list[Message]:
        """GigaChat's messages.

        Args:
            files: the id of the uploaded file for the source of each attachment; ids stand for themselves.
            instruction: something more for the system message.
        """
        instructions = "\n\n".join(filter(None, [*self._instructions, instruction]))
        system = [{"role": "system", "content": instructions}] if instructions else []
        return [*system, *(attached(message, files) for message in self._told)]

    # -- one message

    def _system(self, number: int, message: Message) -> Iterator[Message]:
        self._instructions.append(self._text(number))
        return iter(())

    def _user(self, number: int, message: Message) -> Iterator[Message]:
        for text, files in bundles(message.get("content"), f"messages[{number}].content", number):
            told: Message = {"role": "user", "content": text}
            yield told | {"attachments": files} if files else told

    def _assistant(self, number: int, message: Message) -> Iterator[Message]:
        text = self._text(number) or message.get("refusal") or ""
        calls = self._calls.get(number)
        if not calls:
            yield {"role": "assistant", "content": text}
        for call in calls or ():
            yield calling(call, text)
            yield {"role": "function", "name": accepted(call.name), "content": self._result(call)}
            text = ""  # said once, before the first

    def _function(self, number: int, message: Message) -> Iterator[Message]:
        """Only a result that belongs to no call: the others stand behind theirs."""
        if number not in self._results:
            of = message.get("name") or message.get("tool_call_id") or ""
            yield {"role": "user", "content": f"[result of {of}]\n{self._text(number)}"}

    def _result(self, call: Call) -> str:
        return NO_RESULT if call.result is None else result_text(self._text(call.result))

    def _text(self, number: int) -> str:
        message = self._messages[number]
        return text_of(message.get("content"), f"messages[{number}].content", message["role"])


TELLERS: Final = {
    "developer": Conversation._system,
    "system": Conversation._system,
    "user": Conversation._user,
    "assistant": Conversation._assistant,
    "tool": Conversation._function,
    "function": Conversation._function,
}


def calling(call: Call, text: str) -> Message:
    """An assistant's message that calls a function."""
    told: Message = {
        "role": "assistant",
        "content": text,
        "function_call": {"name": accepted(call.name), "arguments": call.arguments},
    }
    return told | {"functions_state_id": call.state_id} if call.state_id else told


def attached(message: Message, files: Mapping[str, str]) -> Message:
    """The message with ids in place of what was attached."""
    if "attachments" not in message:
        return message
    return message | {"attachments": [uploaded(each, files) for each in message["attachments"]]}


def uploaded(attachment: Attachment, files: Mapping[str, str]) -> str:
    """The id of its file. Raises KeyError for one that was not uploaded."""
    return files.get(attachment.source, attachment.source) if attachment.form == "id" else files[attachment.source]
