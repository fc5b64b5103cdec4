"""What the API asks of a conversation as a whole."""

from __future__ import annotations

from emulator.dialogue import Message
from emulator.errors import ApiError, invalid_json, invalid_params
from emulator.words import count_tokens

CONTEXT_TOKENS = 131_072


def check(messages: list[Message]) -> None:
    """Raises the API's 400, 413 or 422 if the messages do not make a conversation."""
    if not messages:
        raise invalid_json()
    if any(message.role == "system" for message in messages[1:]):
        raise invalid_params("system message must be the first message")
    check_calls(messages)
    check_length("".join(message.text for message in messages))


def check_calls(messages: list[Message]) -> None:
    """Calls and results must go together; several calls may wait for their results at once."""
    waiting: list[str] = []
    for message in messages:
        for name, _ in message.results:
            settle(waiting, name)
        if waiting and message.role == "user":
            break
        waiting += [call.name for call in message.calls]
    if waiting:
        raise invalid_params("every assistant function call must have a result in history")


def settle(waiting: list[str], name: str) -> None:
    """Take the call that the result belongs to off the list; a result without a name belongs to the first."""
    if waiting and name in {"", *waiting}:
        waiting.remove(name or waiting[0])
        return
    raise invalid_params("every assistant function result must have an assistant function call in history")


def check_length(text: str) -> None:
    # A token is at least one character: most prompts need no counting.
    if len(text) > CONTEXT_TOKENS and count_tokens(text) > CONTEXT_TOKENS:
        raise ApiError(413)
