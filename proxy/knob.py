"""One setting: how it is declared, what it is called, and what its value is measured in."""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast, get_args

from pydantic import Field
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Unit:
    """What a value is measured in and what is allowed; `bare` is what the flag alone means."""

    text: str
    is_secret: bool = False
    bare: str | None = None


def knob(default: object, sentence: str, *aliases: str) -> Any:
    """A setting: its default, its sentence, and the other names that it answers to."""
    return Field(default, description=sentence, json_schema_extra={"aliases": list(aliases)})


class Knob(NamedTuple):
    """What is known of one setting; `default` is as one would write it, empty for unset."""

    name: str
    aliases: tuple[str, ...]
    unit: Unit
    default: str
    sentence: str

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> "Knob":
        """The setting that was declared in this line."""
        choices = Unit(", ".join(map(str, get_args(field.annotation))))
        unit = next((extra for extra in field.metadata if isinstance(extra, Unit)), choices)
        aliases = cast("dict[str, list[str]]", field.json_schema_extra)["aliases"]
        default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default or "")
        return cls(name.upper(), tuple(aliases), unit, default, str(field.description))

    @property
    def names(self) -> tuple[str, ...]:
        """All that it answers to; the first that is given a value counts."""
        return (self.name, *self.aliases)

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.lower().replace("_", "-")
