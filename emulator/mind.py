"""What the emulator has to say: always the same to the same dialogue, and made of what the dialogue holds.

`compose` asks the functions in MOODS one after another; the first with something to say is heard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from emulator.arithmetic import solved
from emulator.dialogue import Dialogue, FunctionCall, Message, Reply
from emulator.filling import filled
from emulator.found import words
from emulator.pattern import matching
from emulator.profanity import REFUSAL, is_profane
from emulator.words import count_tokens, first_tokens

CYRILLIC = re.compile(r"[А-Яа-яЁё]")
DRAW = re.compile(r"\b(?:нарису|изобрази|draw|paint|picture|рисун|картин)", re.IGNORECASE)
# «Скажи: мяу», "Reply with one word: pong"
SAY = re.compile(
    r"^\s*(?:скажи|повтори|ответь|напиши|say|repeat|reply|answer)\b[^:\n]*:\s*(.+)", re.IGNORECASE | re.DOTALL
)
# «на все вопросы отвечай мяу-мяу», "always answer meow"
ALWAYS = re.compile(
    r"(?:на (?:все|любые|любой|каждый) вопрос\w* отвечай|always (?:answer|reply|say))(?: only| with| только)*:?\s+(.+)",
    re.IGNORECASE,
)
STEM = 4
MAX_ECHO = 1000
COMMON = {
    "what",
    "when",
    "whic",
    "this",
    "that",
    "with",
    "from",
    "have",
    "како",
    "кака",
    "каки",
    "кото",
    "чего",
    "есть",
}
PHRASES = {
    # what happened: in Russian, in English
    "result": ("Функция {function} вернула: {result}.", "{function} returned: {result}."),
    "echo": ("Вы написали: {question}", "You wrote: {question}"),
    "files": ("Файлов: {count}.", "Files: {count}."),
    "picture": ("Готово: {question}", "Done: {question}"),
    "thought": ("Думаю над вопросом: {question}", "Thinking about: {question}"),
}


def compose(dialogue: Dialogue) -> Reply:
    """The reply to a dialogue, cut to the length asked for, with its tokens counted."""
    reply = next(filter(None, (mood(dialogue) for mood in MOODS)))
    reply.is_searched = "web_search" in dialogue.tools and not reply.call
    if dialogue.has_reasoning:
        reply.reasoning = phrase(dialogue, "thought")
    return measured(reply, dialogue)


def refusal(dialogue: Dialogue) -> Reply | None:
    is_refused = dialogue.is_filtered and is_profane(dialogue.question)
    return Reply(text=REFUSAL, finish="blacklist") if is_refused else None


def forced_call(dialogue: Dialogue) -> Reply | None:
    described = (function for function in dialogue.functions if function["name"] == dialogue.forced)
    return next((call(dialogue, function) for function in described), None)


def fitting_json(dialogue: Dialogue) -> Reply | None:
    if dialogue.schema is None or (dialogue.functions and own_call(dialogue)):
        return None
    text = "\n".join([dialogue.question, *(orjson.dumps(result).decode() for _, result in fresh_results(dialogue))])
    return Reply(text=orjson.dumps(filled(dialogue.schema, text)).decode())


def fitting_text(dialogue: Dialogue) -> Reply | None:
    return Reply(text=matching(dialogue.regex, dialogue.question)) if dialogue.regex else None


def told_result(dialogue: Dialogue) -> Reply | None:
    results = fresh_results(dialogue)
    told = [phrase(dialogue, "result", function=name, result=spoken(result)) for name, result in results]
    return Reply(text=" ".join(told)) if told else None


def picture(dialogue: Dialogue) -> Reply | None:
    can_draw = dialogue.tools & {"text2image", "image_generate"}
    is_asked = dialogue.forced in can_draw or DRAW.search(dialogue.question)
    return Reply(text=phrase(dialogue, "picture"), has_picture=True) if can_draw and is_asked else None


def own_call(dialogue: Dialogue) -> Reply | None:
    """Call the function that shares most words with the question, if one does."""
    if dialogue.is_silent or dialogue.messages[-1].role != "user":
        return None
    asked = stems(dialogue.question)
    best = max(dialogue.functions, key=lambda function: len(asked & described_stems(function)), default=None)
    return call(dialogue, best) if best and asked & described_stems(best) else None


def sum_done(dialogue: Dialogue) -> Reply | None:
    text = solved(dialogue.question)
    return Reply(text=text) if text else None


def dictated(dialogue: Dialogue) -> Reply | None:
    """Say what the question or the system message says to say."""
    match = SAY.match(dialogue.question) or ALWAYS.search(dialogue.instruction)
    return Reply(text=match[1].strip().strip("«»\"'")) if match else None


def echo(dialogue: Dialogue) -> Reply:
    files = sum(len(message.files) for message in dialogue.messages)
    said = phrase(dialogue, "echo")
    return Reply(text=f"{said} {phrase(dialogue, 'files', count=files)}" if files else said)


MOODS: tuple[Callable[[Dialogue], Reply | None], ...] = (
    refusal,
    forced_call,
    picture,
    fitting_json,
    fitting_text,
    told_result,
    own_call,
    sum_done,
    dictated,
    echo,
)


def call(dialogue: Dialogue, function: dict[str, Any]) -> Reply:
    """A call with arguments that fit the function's parameters."""
    return Reply(call=FunctionCall(function["name"], arguments(dialogue, function)), finish="function_call")


def arguments(dialogue: Dialogue, function: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an example that asks the same, or made of the question; given ones stay as they are."""
    examples = function.get("few_shot_examples") or []
    shown = next((example["params"] for example in examples if example.get("request") == dialogue.question), None)
    parameters = {"type": "object"} | (function.get("parameters") or {})
    return {**(shown or filled(parameters, dialogue.question)), **dialogue.given}


def fresh_results(dialogue: Dialogue) -> list[tuple[str, Any]]:
    """What functions have returned since the user spoke last."""
    results: list[tuple[str, Any]] = []
    for message in dialogue.messages:
        results = [] if message.role == "user" else results + message.results
    return results


def spoken(value: Any) -> str:
    """A result in words: `city: Moscow, temperature: 20`."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {spoken(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(spoken, value))
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def phrase(dialogue: Dialogue, name: str, **values: Any) -> str:
    russian, english = PHRASES[name]
    template = russian if CYRILLIC.search(dialogue.question) else english
    return template.format(question=shortened(dialogue.question), **values)


def shortened(question: str) -> str:
    """No answer repeats a whole book."""
    return question if len(question) <= MAX_ECHO else question[:MAX_ECHO] + "…"


def described_stems(function: dict[str, Any]) -> set[str]:
    parameters = function.get("parameters") or {}
    parts = [*words(function["name"]), function.get("description") or "", *parameters.get("properties", {})]
    return stems(" ".join(parts))


def stems(text: str) -> set[str]:
    """The beginnings of its words, so that «погода» and «погоду» are one."""
    return {word[:STEM].lower() for word in re.findall(r"[^\W\d_]+", text) if len(word) >= STEM} - COMMON


def measured(reply: Reply, dialogue: Dialogue) -> Reply:
    limit = dialogue.max_tokens
    if limit is not None and count_tokens(reply.text) > limit:
        reply.text, reply.finish = first_tokens(reply.text, limit), "length"
    reply.prompt_tokens = sum(map(weight, dialogue.messages))
    spoken_call = f"{reply.call.name} {orjson.dumps(reply.call.arguments).decode()}" if reply.call else ""
    reply.completion_tokens = count_tokens(reply.text + reply.reasoning + spoken_call)
    return reply


def weight(message: Message) -> int:
    """Tokens of a message; the frame around it counts too."""
    return count_tokens(message.text) + 4
