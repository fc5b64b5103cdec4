"""What has come of a check: a list that people read, and the same for tests."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from textwrap import wrap
from typing import Any

WIDTH = 110


class Outcome(StrEnum):
    KEPT = "kept"
    BROKEN = "BROKEN"
    ABSENT = "absent"  # what the promise is about is not offered
    UNKNOWN = "unknown"  # it could not be checked


@dataclass(frozen=True)
class Verdict:
    """One promise, and what has come of it; `told` says why, or what might be better."""

    promise: str
    outcome: Outcome
    told: str = ""


class BrokenPromises(AssertionError):
    """A connector does not keep its promises; the text is the list of them."""


@dataclass(frozen=True)
class Report:
    connector: str
    verdicts: list[Verdict]

    @property
    def broken(self) -> list[Verdict]:
        return self.of(Outcome.BROKEN)

    @property
    def is_kept(self) -> bool:
        """Everything was checked, and nothing is broken."""
        return not self.broken and not self.of(Outcome.UNKNOWN)

    @property
    def exit_code(self) -> int:
        """0: all promises kept; 1: some broken; 2: not all could be checked."""
        return 1 if self.broken else 0 if self.is_kept else 2

    def of(self, outcome: Outcome) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.outcome == outcome]

    @property
    def text(self) -> str:
        lines = [f"{self.connector}:", ""]
        said = ""
        for verdict in self.verdicts:
            lines.append(f"  {verdict.outcome:<8}{verdict.promise}")
            if verdict.told != said:  # the same once more would be nothing new
                lines += wrap(verdict.told, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 12)
            said = verdict.told
        counts = ((len(self.of(outcome)), outcome) for outcome in Outcome)
        summary = ", ".join(f"{number} {outcome.lower()}" for number, outcome in counts if number)
        return "\n".join([*lines, "", f"{summary} of {len(self.verdicts)} promises"])

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        told: dict[str, Any] = json.loads(text)
        verdicts = [Verdict(**{**one, "outcome": Outcome(one["outcome"])}) for one in told["verdicts"]]
        return cls(told["connector"], verdicts)
