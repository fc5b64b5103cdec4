"""A job under way in this process: its answer as it is made, its place in the line, and how often it was called."""

import asyncio
import time

from proxy.entry import Note
from proxy.jobs import Job
from proxy.jobs.recording import Recording
from proxy.line import HELD, Line, eta_at

#: What the note says of how often a job was sent.
SENT = " sent"
LATE = "it had not begun at its deadline"


class Run:
    """See above.

    Args:
        job: claimed for `lease` seconds from now.
    """

    def __init__(self, job: Job, lease: float) -> None:
        self.job = job
        self.recording = Recording()
        #: How many wait here for its answer.
        self.followers = 0
        #: How often it left the line for a call, in all processes that ever ran it.
        self.calls = calls_in(job.progress)
        #: That is being noted.
        self.noting: asyncio.Task[None] | None = None
        #: Whether it is one of the tens that are taken from the store, and not begun for somebody who waits for it.
        self.is_taken = False
        #: Whether it counts among those who wait in the line.
        self.is_waiting = True
        #: Whether its claim is another's, or it was cancelled: nobody wants to know how it ends.
        self.is_lost = False
        #: Whether it is queued anew, or about to be; and why, if whoever looks is to know.
        self.is_given_back = False
        self.why = ""
        #: When its claim ends unless it is renewed, by the clock that stores go by.
        self.claimed_until = time.time() + lease
        #: Whether it has ended, and the store is being told; and whether somebody here was told how.
        self.is_over = self.is_told = False
        #: What is known of its request then, until the entry of one of them tells it.
        self.untold: Note | None = None
        self.task: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<Run {self.job} is_waiting={self.is_waiting} followers={self.followers}>"

    @property
    def tries(self) -> int:
        """Which attempt this is, from 1; those that never left the line do not count if this one did."""
        return self.calls if self.noting is not None else self.job.attempts

    @property
    def progress(self) -> str:
        """What is noted of its calls."""
        return f"{self.calls}{SENT}"

    async def noted(self) -> None:
        """Wait until its call is noted, if there was one."""
        if self.noting is not None:
            await self.noting

    def end(self) -> None:
        """It has ended, for whoever waits here, too."""
        self.is_over, self.is_told = True, self.followers > 0
        if self.is_told and (note := self.recording.note) is not None:
            note.is_double, self.untold = True, note

    def expire(self) -> None:
        """Its deadline has come, and it waits: end it; the store lets it expire."""
        self.why = f"{LATE}: {HELD}" if self.is_held else ""
        self.task.cancel()

    # -- where it waits

    @property
    def line(self) -> Line | None:
        """The line in which it stands; None if it has not come to one yet."""
        note = self.recording.note
        return note.lane.line if note is not None and note.lane is not None else None

    @property
    def is_held(self) -> bool:
        """Whether it waits, and operators have paused its line."""
        return self.is_waiting and self.line is not None and self.line.state().limits.is_held

    @property
    def place(self) -> int:
        """Its place in the line now, from 1, at most a second old; 0 if it is not there, or not there yet."""
        note = self.recording.note
        if note is None or note.lane is None or note.enrolled is None:
            return 0
        return note.lane.line.place(note.enrolled)

    @property
    def eta(self) -> float | None:
        """Seconds until it is sent; None if it has no place, or nobody knows."""
        line, place = self.line, self.place
        return eta_at(line, place) if line is not None and place else None


def calls_in(progress: str) -> int:
    """How often a job with this note of its progress was sent."""
    number, sent, _ = progress.partition(SENT)
    return int(number) if sent and number.isdecimal() else 0
