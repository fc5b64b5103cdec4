"""Batches of callers, as OpenAI's API has them: many jobs that were brought in one file."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from proxy.jobs import Page, State, new_id


class BatchState(StrEnum):
    """OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


def new_batch_id() -> str:
    return new_id("batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch, its files and what became of its lines."""

    id: str = field(default_factory=new_batch_id)
    caller: str
    endpoint: str
    #: As it was asked for: `24h`.
    window: str
    input_file: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    #: The end of the window.
    deadline: float | None = None
    #: Until when it is kept; None: not known yet.
    expires_at: float | None = None
    state: BatchState = BatchState.VALIDATING
    output_file: str | None = None
    error_file: str | None = None
    #: What is wrong with the input file, line by line, as the API tells it.
    errors: tuple[Mapping[str, Any], ...] = ()
    #: Lines of the input file.
    total: int = 0
    #: How many have ended, by how they ended; the store counts.
    ended: Mapping[State, int] = field(default_factory=dict)
    #: When each state began.
    times: Mapping[BatchState, float] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether all lines have ended."""
        return sum(self.ended.values()) >= self.total


#: What `advance` may change, besides the state.
CHANGEABLE = frozenset({"deadline", "expires_at", "output_file", "error_file", "errors", "total"})


class BatchStore(Protocol):
    """The batches of all callers; `caller` as in `JobStore`."""

    async def add(self, batch: Batch) -> None:
        """It is kept when this returns. One whose id is there already is left as it is. Raises JobsFull."""

    async def get(self, id: str, *, caller: str | None) -> Batch | None: ...

    async def list(
        self,
        *,
        caller: str | None,
        states: Collection[BatchState] = (),
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[Batch]:
        """`after` is the id of a batch. Raises BadRequest if that is not there any more."""

    async def advance(
        self, id: str, *, among: Collection[BatchState], to: BatchState | None = None, **changes: Any
    ) -> Batch | None:
        """Change its state, and fields that are CHANGEABLE, if its state is one `among` these; when is noted.

        Returns it as it is then; None if it is not there or in another state: somebody else was faster.
        """

    async def delete(self, id: str, *, caller: str | None) -> bool:
        """Forget it, not its jobs and files. False if there is none."""

    async def purge(self) -> int:
        """Forget what has expired. Returns how many."""
