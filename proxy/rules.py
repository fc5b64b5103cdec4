"""Checks of a request against a table: what each field may be. No I/O, no knowledge of any API."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Longest piece of a wrong value that an error repeats.
MAX_SHOWN = 60

NAMES = {bool: "true or false", dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}


class WrongValue(ValueError):
    """A field is missing or out of range. `param` is its path."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class WrongType(TypeError):
    """A field is of another type than it must be. `param` is its path."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Rule:
    """What a field may be. Null means absent.

    Args:
        expected: the same in words, after "must be".
        kinds: types allowed; true and false are not numbers.
        is_allowed: whether a value of the right type is in range.
        fields: rules for the fields of an object; those without a rule may be anything.
        items: the rule for each item of a list.
    """

    expected: str
    kinds: tuple[type, ...]
    is_allowed: Callable[[Any], bool] | None = None
    is_required: bool = False
    fields: Mapping[str, "Rule"] = field(default_factory=dict)
    items: "Rule | None" = None

    def is_kind(self, value: object) -> bool:
        return isinstance(value, self.kinds) and (bool in self.kinds or not isinstance(value, bool))


def check(value: Any, rule: Rule, path: str = "") -> None:
    """Raises WrongType or WrongValue for the first field that breaks its rule."""
    if value is None:
        if rule.is_required:
            raise WrongValue(f"{path or 'the request'} is missing: it must be {rule.expected}", path)
        return
    if type(value) not in rule.kinds and not rule.is_kind(value):
        raise WrongType(f"{path or 'the request'} must be {rule.expected}, not {kind_of(value)}", path)
    if rule.is_allowed is not None and not rule.is_allowed(value):
        raise WrongValue(f"{path or 'the request'} must be {rule.expected}, not {shown(value)}", path)
    if rule.fields and isinstance(value, dict):
        for name, inner in rule.fields.items():
            if inner.is_required or name in value:
                check(value.get(name), inner, f"{path}.{name}" if path else name)
    if rule.items is not None:
        for number, item in enumerate(value):
            check(item, rule.items, f"{path}[{number}]")


def kind_of(value: object) -> str:
    return NAMES.get(type(value), type(value).__name__)


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
