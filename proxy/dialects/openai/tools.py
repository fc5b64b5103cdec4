"""Tools and the choice among them: OpenAI's `tools` and `tool_choice`, and the older `functions` and `function_call`.

| tool_choice | what GigaChat is told |
| --- | --- |
| absent, auto | nothing: with functions described it chooses itself |
| none | `function_call: "none"` |
| a named function | `function_call: {"name": ...}` |
| required, one function | the same |
| required, several | nothing it knows: see `further.py` |
| allowed_tools | the functions that are allowed, and its mode as above |

A function of GigaChat's own (`text2image`) is meant where only its name is given, as the API itself has it; one that is
described is the caller's, and gets a name that does not collide. Without functions `function_call: "auto"` passes: it
lets GigaChat use its own.
"""

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from proxy.dialects.openai.names import BUILTIN, Names, accepted
from proxy.dialects.openai.plain import parameters
from proxy.dialects.openai.schemas import Budget, written_out
from proxy.dialects.openai.shapes import ANYTHING, FUNCTION, FUNCTION_TYPE, NAME, checked
from proxy.errors import BadRequest
from proxy.rules import Rule

Mode = Literal["auto", "none", "required"]

TOOL: Final = Rule(
    'an object such as {"type": "function", "function": {...}}',
    (dict,),
    is_required=True,
    fields={"type": FUNCTION_TYPE, "function": FUNCTION},
)
NAMED: Final = Rule('an object such as {"name": "..."}', (dict,), is_required=True, fields={"name": NAME})
CHOSEN: Final = Rule(
    'an object such as {"type": "function", "function": {"name": "..."}}',
    (dict,),
    is_required=True,
    fields={"type": FUNCTION_TYPE, "function": NAMED},
)
ALLOWED: Final = Rule(
    'an object such as {"mode": "auto", "tools": [...]}',
    (dict,),
    is_required=True,
    fields={
        "mode": Rule('"auto" or "required"', (str,), lambda mode: mode in ("auto", "required"), is_required=True),
        "tools": Rule("a list of tools, not empty", (list,), bool, is_required=True, items=ANYTHING),
    },
)


@dataclass(frozen=True, slots=True)
class Function:
    """A function as the caller describes it, and where."""

    given: dict[str, Any]
    path: str

    @property
    def name(self) -> str:
        return str(self.given["name"])

    @property
    def is_builtin(self) -> bool:
        return self.name in BUILTIN and not self.given.get("description") and not self.given.get("parameters")

    @property
    def told_name(self) -> str:
        """Its name for GigaChat."""
        return self.name if self.is_builtin else accepted(self.name)

    def told(self, budget: Budget) -> dict[str, Any]:
        """Its description for GigaChat. Raises BadRequest for a schema that cannot be read."""
        if self.is_builtin:
            return {"name": self.name}
        schema = written_out(self.given.get("parameters") or {}, f"{self.path}.parameters", budget)
        told = {
            "name": self.told_name,
            "description": self.given.get("description") or "",
            "parameters": parameters(schema),
        }
        extras = ("few_shot_examples", "return_parameters")
        return told | {name: self.given[name] for name in extras if self.given.get(name)}


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions of a request and the choice among them.

    Args:
        functions: those that may be called now.
        names: of all that are described.
        mode: whether one may, must not or must be called.
        named: the one that must be called, if it is named.
        is_legacy: asked for by `functions`, so the answer has a `function_call`.
    """

    functions: tuple[Function, ...]
    names: Names
    mode: Mode = "auto"
    named: Function | None = None
    is_legacy: bool = False

    @property
    def may_be_called(self) -> bool:
        return bool(self.functions) and self.mode != "none"

    @property
    def forced(self) -> Function | None:
        """The only one that can be called, if one must be."""
        is_clear = self.mode == "required" and len(self.functions) == 1
        return self.functions[0] if is_clear and not self.named else self.named

    @property
    def must_choose(self) -> bool:
        """One of several must be called, and GigaChat cannot be told so."""
        return self.mode == "required" and self.forced is None

    def told(self) -> dict[str, Any]:
        """What they add to the call. Raises BadRequest."""
        if not self.functions:
            return {}
        budget = Budget()
        told: dict[str, Any] = {"functions": [function.told(budget) for function in self.functions]}
        if self.forced:
            told["function_call"] = {"name": self.forced.told_name}
        elif self.mode == "none":
            told["function_call"] = "none"
        return told


class OwnFunctions(Tools):
    """No functions of the caller's: GigaChat may use its own."""

    def told(self) -> dict[str, Any]:
        return {"function_call": "auto"}


# ---- Reading ----


def tools_of(body: dict[str, Any]) -> Tools:
    """The tools of a checked body. Raises BadRequest."""
    given, functions = body.get("tools"), body.get("functions")
    if given and functions:
        raise BadRequest('"functions" is the older word for "tools": give one of them', param="functions")
    if functions or (not given and "function_call" in body):
        return legacy(functions or [], body.get("function_call", "auto"))
    tools = made([function_of(tool, f"tools[{number}]") for number, tool in enumerate(given or [])])
    return chosen(tools, body.get("tool_choice", "auto"))


def made(functions: list[Function]) -> Tools:
    return Tools(tuple(functions), Names(function.name for function in functions if not function.is_builtin))


def legacy(given: list[dict[str, Any]], choice: Any) -> Tools:
    tools = replace(made([Function(each, f"functions[{n}]") for n, each in enumerate(given)]), is_legacy=True)
    if isinstance(choice, dict):
        name = checked(choice, NAMED, "function_call")["name"]
        return replace(tools, named=known(by_name(tools), name, "function_call.name"))
    if choice not in ("auto", "none"):
        raise BadRequest('"function_call" must be "auto", "none" or an object', param="function_call")
    if not given and choice == "auto":
        return OwnFunctions((), tools.names, is_legacy=True)
    return replace(tools, mode=choice)


def chosen(tools: Tools, choice: Any) -> Tools:
    """What a `tool_choice` makes of the tools. Raises BadRequest."""
    if isinstance(choice, str):
        return with_mode(tools, choice, "tool_choice")
    if choice.get("type") == "allowed_tools":
        return allowed(tools, checked(choice.get("allowed_tools"), ALLOWED, "tool_choice.allowed_tools"))
    name = checked(nested(choice), CHOSEN, "tool_choice")["function"]["name"]
    return replace(tools, named=known(by_name(tools), name, "tool_choice.function.name"))


def allowed(tools: Tools, choice: dict[str, Any]) -> Tools:
    path = "tool_choice.allowed_tools"
    described = by_name(tools)
    functions: dict[str, Function] = {}
    for number, tool in enumerate(choice["tools"]):
        where = f"{path}.tools[{number}]"
        name = checked(nested(tool), CHOSEN, where)["function"]["name"]
        functions[name] = known(described, name, f"{where}.function.name")
    return with_mode(replace(tools, functions=tuple(functions.values())), choice["mode"], f"{path}.mode")


def with_mode(tools: Tools, mode: str, path: str) -> Tools:
    if mode not in ("auto", "none", "required"):
        raise BadRequest(f'"{path}" must be "auto", "none", "required" or an object', param=path)
    if mode == "required" and not tools.functions:
        raise BadRequest(f'"{path}" is "required", but there are no "tools"', param=path)
    return replace(tools, mode=cast(Mode, mode))


def by_name(tools: Tools) -> dict[str, Function]:
    return {function.name: function for function in tools.functions}


def known(described: dict[str, Function], name: str, path: str) -> Function:
    """The function of that name. Raises BadRequest."""
    if name not in described:
        raise BadRequest(f'"{path}" is "{name[:80]}", which is not among the tools of the request', param=path)
    return described[name]


def function_of(tool: Any, path: str) -> Function:
    return Function(checked(nested(tool), TOOL, path)["function"], f"{path}.function")


def nested(tool: Any) -> Any:
    """A tool that is written flat, as the Responses API has it, in Chat's shape."""
    if not isinstance(tool, dict) or "function" in tool or "name" not in tool:
        return tool
    function = {name: value for name, value in tool.items() if name not in ("type", "input_schema")}
    return {"type": tool.get("type"), "function": {"parameters": tool.get("input_schema"), **function}}
