"""Further calls that an answer makes necessary. There is an end to them: two at most for a choice that must be made,
`json_repairs` for JSON that does not fit.

A call that must be made, of several functions: GigaChat can be told "this function" but not "one of these". So it is
asked first with all of them and an instruction to call one, which mostly is enough; then, with nothing else to do, for
the name of one; and then for that one. Whatever comes of the last call is told as it is.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from proxy.dialects.openai.answers import Said
from proxy.dialects.openai.tools import Function

Message = dict[str, Any]

CALL_ONE: Final = "Call one of the functions now. Do not answer in words."
CHOOSER: Final = "choose_function"
REPAIR: Final = "This is not what was asked for: {fault}. Give the whole answer once more, corrected, and nothing else."
NOTHING: Final = "(nothing)"
#: Characters of a wrong answer that the model gets to see again.
MAX_REPEATED: Final = 20_000


def choosing(functions: Sequence[Function]) -> dict[str, Any]:
    """The parameters of a call that asks for the name of a function."""
    described = [f"{function.told_name}: {function.given.get('description') or ''}" for function in functions]
    names = {"type": "string", "enum": [function.told_name for function in functions]}
    function = {
        "name": CHOOSER,
        "description": "\n".join(["Says which of these functions is to be called now:", *described]),
        "parameters": {"type": "object", "properties": {"name": names}, "required": ["name"]},
    }
    return {"functions": [function], "function_call": {"name": CHOOSER}}


def chosen(what: Said, functions: Sequence[Function]) -> str:
    """The name that the model chose; if it chose none, the first."""
    names = [function.told_name for function in functions]
    try:
        name = orjson.loads(what.arguments or "{}").get("name")
    except (ValueError, AttributeError):
        name = None
    return name if name in names else names[0]


def repair(wrong: str, fault: str) -> list[Message]:
    """What is said to the model about its wrong answer."""
    return [
        {"role": "assistant", "content": wrong[:MAX_REPEATED] or NOTHING},
        {"role": "user", "content": REPAIR.format(fault=fault)},
    ]
