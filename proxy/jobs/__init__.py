"""Work that outlives its caller: what is accepted is kept until it has ended, and it ends once.

Rule 1: a job is accepted when `add` returns. From then on it outlives this process.
Rule 2: whoever runs a job has claimed it. Each claim has a greater fence than the one before, and only the newest may
        tell how the job ended: a late first runner overwrites nothing.
Rule 3: a claim lasts as long as its lease, which is renewed thrice in that time, or until somebody else claims the job.
        Whoever dies lets it lapse. When nobody has claimed or renewed anything for half a lease, the store was away or
        its clock was set: leases that ended meanwhile end a third of one later, so that who lives can renew them.
Rule 4: what has ended stays as it ended until it expires, unless an operator has it run again.
Rule 5: what cannot be written is refused whole (JobsFull, JobsUnavailable), and nothing accepted before is lost.

| from                       | to        | by                                                                     |
|----------------------------|-----------|------------------------------------------------------------------------|
| queued                     | running   | `claim`; born so by `find_or_add` with a lease                         |
| queued                     | expired   | its deadline, noticed by `claim` and `purge`                           |
| running                    | done      | `ack`                                                                  |
| running                    | failed    | `fail`                                                                 |
| running                    | queued    | `release`, `fail` with `retry_at`, the end of a lease, a new process   |
| queued, running            | cancelled | `cancel`                                                               |
| failed, cancelled, expired | queued    | `retry`                                                                |
| queued, and any of these   | running   | `claim_one`                                                            |

There are two engines behind this promise, `sqlite/` (one process) and `redis/` (many); `store.py` chooses. Times are
seconds since the epoch. Every operation raises JobsUnavailable if the engine cannot be reached.
"""

import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import uuid4

from proxy.jobs.news import News
from proxy.line import Priority

T = TypeVar("T")

DAY = 86_400.0
#: The caller of all jobs where no keys are asked for.
EVERYBODY = "*"
#: The caller of what the service has to do for itself.
SERVICE = ""
#: The order in which priorities are claimed: batch after everything live; and before all of them what is the service's.
RANKS = {priority: rank for rank, priority in enumerate(Priority)}
OWN_RANK = -1


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_end(self) -> bool:
        return self in ENDS


ENDS = (State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED)


class Kind(Enum):
    """Which jobs are claimed together: by the priorities of callers' own; those of the service have none."""

    LIVE = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
    BATCH = (Priority.BATCH,)
    OWN = ()

    @property
    def topic(self) -> str:
        """News of jobs of this kind that may be claimable."""
        return f"queue:{self.name.lower()}"

    @property
    def ranks(self) -> tuple[int, int]:
        """The first and the last in the order of claims."""
        ranks = [RANKS[priority] for priority in self.value] or [OWN_RANK]
        return ranks[0], ranks[-1]

    @classmethod
    def of(cls, priority: Priority) -> "Kind":
        return cls.BATCH if priority is Priority.BATCH else cls.LIVE

    @classmethod
    def at(cls, rank: int) -> "Kind":
        return next(kind for kind in cls if kind.ranks[0] <= rank <= kind.ranks[1])


class Answer(NamedTuple):
    """What a job's caller gets, in its dialect; of a failed one, the error as it is told there."""

    status: int
    content_type: str
    body: bytes


class Claim(NamedTuple):
    """The right to run a job and to tell how it ended, for as long as the fence is the newest."""

    id: str
    fence: int


def new_id(prefix: str = "job") -> str:
    """`job_` and 32 hexadecimal digits that nobody guesses."""
    return f"{prefix}_{uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Job:
    """One request that is run whether its caller waits or not. Lists leave out `body` and `answer`.

    What to run: `operation` in `dialect`, with `method`, `path`, `headers` and `body` as they came, credentials left
    out, for all of it is kept on a disk. Whose it is: `caller` is the name of a key, EVERYBODY or SERVICE. A job of
    a `batch` has the `custom_id` of its line. One that came with an Idempotency-Key has `key`, and the `fingerprint` of
    its request. `webhook` is an address to be told of its end. `upstream` names the lane that it asks for, if it does.

    A job that has not begun at its `deadline` expires. It is kept for `keep` seconds after its end.
    """

    id: str = field(default_factory=new_id)
    caller: str
    operation: str
    dialect: str
    method: str = "POST"
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    priority: Priority = Priority.NORMAL
    batch: str | None = None
    custom_id: str | None = None
    webhook: str | None = None
    upstream: str = ""
    key: str | None = None
    fingerprint: str = ""
    created: float = field(default_factory=time.time)
    deadline: float | None = None
    keep: float = DAY

    # What became of it; the store's business alone.
    state: State = State.QUEUED
    #: How often it was claimed and not given back, and the fence of the newest claim.
    attempts: int = 0
    fence: int = 0
    started: float | None = None
    finished: float | None = None
    expires_at: float | None = None
    #: Queued: when it may be claimed, if an attempt has failed before; None: now.
    again_at: float | None = None
    answer: Answer | None = None
    error: str = ""
    progress: str = ""

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.caller!r} {self.state} attempts={self.attempts} fence={self.fence}>"

    @property
    def claim(self) -> Claim:
        return Claim(self.id, self.fence)

    @property
    def rank(self) -> int:
        """Where it is in the order of claims."""
        return OWN_RANK if self.caller == SERVICE else RANKS[self.priority]

    @property
    def kind(self) -> Kind:
        return Kind.at(self.rank)


class Claimed(NamedTuple):
    """Jobs to run, and after how many seconds without news to claim again."""

    jobs: tuple[Job, ...]
    again: float


class Found(NamedTuple):
    """The job of an Idempotency-Key, and whether it is the one just brought."""

    job: Job
    is_new: bool


class Page(NamedTuple, Generic[T]):
    """Some of a list; `after` is where the next page goes on, None at the end."""

    entries: tuple[T, ...]
    after: str | None


class Room(NamedTuple):
    """What a store may hold: jobs, and bytes of everything, files included."""

    jobs: int = 200_000
    bytes: int = 4 * 1024**3


class StoreState(NamedTuple):
    """How many jobs may be claimed of each kind, wait for another attempt, run, and are there at all.

    The service's own work counts as live. `bytes` is what everything takes, files included.
    """

    live: int
    batch: int
    delayed: int
    running: int
    jobs: int
    bytes: int


class JobStore(Protocol):
    """The jobs of all callers.

    `caller` limits an operation to the jobs of one: those of others do not exist for it. None is for operators and
    for the service itself.
    """

    async def add(self, *jobs: Job, is_owed: bool = False) -> None:
        """Accept jobs, all or none; they are kept when this returns. One whose id is there already is left as it is.

        Many at once cost little more than one; hundreds at a time leave room for others. What `is_owed`, since a job
        that was accepted promised it, is taken however many there are. Raises JobsFull.
        """

    async def find_or_add(self, job: Job, *, lease: float | None = None) -> Found:
        """The caller's job with this `key` if there is one, else this one, which is accepted.

        With `lease`, in seconds, a new job is born running and claimed by who brought it.
        Raises KeyReused if the fingerprints differ, JobsFull.
        """

    async def get(self, id: str, *, caller: str | None) -> Job | None: ...

    async def list(
        self,
        *,
        caller: str | None,
        states: Collection[State] = (),
        batch: str | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> Page[Job]:
        """Jobs of this batch, or those that belong to none; in these states, or in any.

        `after` is the id of a job, and the page begins behind it. Raises BadRequest if that is not there any more.
        """

    def lines(self, batch: str) -> AsyncIterator[Job]:
        """All jobs of a batch with their answers, in the order in which they were added; a few are held at a time."""

    async def position(self, id: str) -> int | None:
        """How many are to be claimed before it, batch jobs after all live ones; None if it is not queued."""

    async def claim(self, kind: Kind, most: int, lease: float) -> Claimed:
        """Up to `most` jobs to run, ours for `lease` seconds: by priority, then callers by turns, each in its order.

        Whoever finds none listens for `kind.topic` from before the claim. One that is cancelled meanwhile may leave
        claimed jobs to the end of their lease.
        """

    async def claim_one(self, id: str, *, caller: str | None, lease: float) -> Job | None:
        """This one at once, before its turn, for somebody waits for it; also if it failed, expired or was cancelled.

        None if it runs or is done, or is not there.
        """

    async def renew(self, claims: Iterable[Claim], lease: float) -> frozenset[str]:
        """Hold the claims for `lease` seconds from now. Returns the ids of those that are ours no more: stop them."""

    async def note(self, claim: Claim, progress: str) -> bool:
        """How far it is. False if the claim is ours no more."""

    async def ack(self, claim: Claim, answer: Answer) -> bool:
        """It is done. False if the claim is ours no more: nothing is changed then. Is idempotent."""

    async def fail(
        self, claim: Claim, error: str, *, answer: Answer | None = None, retry_at: float | None = None
    ) -> bool:
        """It failed; with `retry_at` it is queued, and not claimed before. False as for `ack`."""

    async def release(self, claim: Claim, *, why: str = "") -> bool:
        """Give it back: it did not begin, and keeps its place; `why` is its `error` then. False as for `ack`."""

    async def cancel(self, id: str, *, caller: str | None) -> State | None:
        """It is not to run, or its answer is not wanted. Returns its state then, None if there is none.

        What has ended stays as it is. Whoever runs it hears of it by news of its id, or at `renew`.
        """

    async def cancel_lines(self, batch: str) -> int:
        """Cancel what is queued of a batch; what runs goes on. Returns how many."""

    async def retry(self, id: str, *, caller: str | None) -> State | None:
        """Queue it again if it failed, expired or was cancelled. Returns its state then, None if there is none."""

    async def delete(self, id: str, *, caller: str | None) -> bool:
        """Forget it if it has ended. False if there is no such job, or it has not."""

    async def delete_lines(self, batch: str) -> int:
        """Forget what has ended of a batch. Returns how many."""

    async def purge(self) -> int:
        """Expire what is late, forget what is older than its `keep`. Returns how many jobs are concerned."""

    async def state(self) -> StoreState: ...

    def news(self, *topics: str) -> News:
        """To be entered: changes from then on. Topics are ids of jobs and batches, and the `topic` of a Kind."""
