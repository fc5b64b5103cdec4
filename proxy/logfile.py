"""A file that grows by lines without making anybody wait: private, rotated, and never a reason to stop.

Rule 1: whoever writes hands a line over in memory; one thread of the file's own waits for the disk.
Rule 2: what waits is bounded. A line that finds no room is dropped and counted, and the count is told.
Rule 3: a file that cannot be written costs lines, never the service: one warning, a try a second, a word when it is
        written again.
Rule 4: the file is its owner's alone (0600) before a line is in it, also if it was there with wider rights. What
        cannot be made so is not written.
Rule 5: one process a file: rotation is not arranged with others. A file that was moved or deleted is made anew.
"""

import logging
import os
import stat
from collections import deque
from contextlib import suppress
from enum import IntEnum
from functools import partial
from io import FileIO
from pathlib import Path
from threading import Condition, Thread

log = logging.getLogger("proxy.logfile")

#: Bytes at which a file is rotated, and how many older ones are kept beside it.
SIZE = 50 * 1024 * 1024
KEPT = 3
#: Bytes that may wait for the disk.
ROOM = 8 * 1024 * 1024
#: Seconds between two tries of a file that cannot be written, and that a stop waits for what is not written yet.
PAUSE = 1.0
FAREWELL = 1.0


class Rotated:
    """Whole lines in `path`, older ones in `path.1` to `path.<kept>`. Its methods may block; they raise OSError."""

    def __init__(self, path: Path, *, size: int = SIZE, kept: int = KEPT) -> None:
        self.path = os.path.abspath(path)
        self._size = size
        self._kept = kept
        self._file: FileIO | None = None

    def __repr__(self) -> str:
        return f"<Rotated {self.path} {'open' if self._file else 'closed'}>"

    def open(self) -> FileIO:
        """The file, opened anew if it is not the one at `path` any more. Is idempotent."""
        if self._file is not None and not self._is_in_place(self._file):
            self.close()
        if self._file is None:
            self._file = self._opened()
        return self._file

    def append(self, line: bytes) -> None:
        """Write the line, whole or not at all."""
        file = self._with_room(len(line))
        found = os.fstat(file.fileno())
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            if stat.S_ISREG(found.st_mode):
                with suppress(OSError):  # half a line would spoil the next one
                    file.truncate(found.st_size)
            raise

    def close(self) -> None:
        """Is idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _with_room(self, length: int) -> FileIO:
        file = self.open()
        found = os.fstat(file.fileno())
        # A device or a pipe is not rotated.
        if stat.S_ISREG(found.st_mode) and found.st_size and found.st_size + length > self._size:
            self._rotate()
            file = self.open()
        return file

    def _is_in_place(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _opened(self) -> FileIO:
        file = open(self.path, "ab", buffering=0, opener=partial(os.open, mode=0o600))  # noqa: SIM115 - `close` closes it
        try:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                os.chmod(self.path, 0o600)
        except OSError:
            file.close()
            raise
        return file

    def _rotate(self) -> None:
        self.close()
        # Out of the way first: if that fails, no older file has been lost for it.
        os.replace(self.path, f"{self.path}.0")
        for number in reversed(range(self._kept)):
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")


class Trouble(IntEnum):
    """Why lines are kept waiting; the greater one explains the lesser."""

    NONE = 0
    SLOW = 1
    FAILING = 2


class Writer:
    """The lines on their way to a file, and the thread that takes them there.

    Args:
        name: what people call the file, its setting.
        room: bytes that may wait; a line beyond them is dropped.
        pause: seconds between two tries of a file that cannot be written.
    """

    def __init__(self, name: str, file: Rotated, *, room: int = ROOM, pause: float = PAUSE) -> None:
        self._name = name
        self._file = file
        self._room = room
        self._pause = pause
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._trouble = Trouble.NONE
        self._is_closing = False
        self._changed = Condition()
        self._thread = Thread(target=self._write_all, name=name, daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Writer {self._name} {self._file} waiting={len(self._lines)} dropped={self._dropped}>"

    def write(self, line: bytes) -> None:
        """Hand a line over; it never blocks. Any thread may call it."""
        with self._changed:
            has_room = self._waiting + len(line) <= self._room
            if has_room:
                self._lines.append(line)
                self._waiting += len(line)
                self._changed.notify()
            else:
                self._dropped += 1
        if not has_room:
            self._warn(Trouble.SLOW, "the disk does not keep up")

    def close(self, timeout: float = FAREWELL) -> None:
        """Write what waits, for at most `timeout` seconds; blocks as long. What is left then is counted and told."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(timeout)
        if lost := len(self._lines) + self._dropped:
            log.warning("%s=%s: lines that were not written: %d", self._name, self._file.path, lost)

    # -- the thread

    def _write_all(self) -> None:
        self._attempt()  # a wrong path is told at the start, not at the first line
        while line := self._next():
            while not self._attempt(line):
                if self._is_closing:  # it was the last try
                    return self._file.close()
                self._wait_a_while()
            self._done(line)
        self._file.close()

    def _next(self) -> bytes | None:
        """The oldest line, which keeps its place until it is written; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._is_closing)
            return self._lines[0] if self._lines else None

    def _attempt(self, line: bytes = b"") -> bool:
        """False if the file cannot be written now."""
        try:
            self._file.append(line)
        except OSError as error:
            self._warn(Trouble.FAILING, str(error))
            return False
        return True

    def _wait_a_while(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, self._pause)

    def _done(self, line: bytes) -> None:
        with self._changed:
            self._lines.popleft()
            self._waiting -= len(line)
            is_over = self._trouble is not Trouble.NONE and not self._lines
            if is_over:
                self._trouble = Trouble.NONE
                dropped, self._dropped = self._dropped, 0
        if is_over:
            log.warning("%s=%s is written again; lines dropped: %d", self._name, self._file.path, dropped)

    def _warn(self, trouble: Trouble, why: str) -> None:
        """Once, until all is well again. Not under the lock: the warning may be a line for this very file."""
        with self._changed:
            is_news = trouble > self._trouble
            self._trouble = max(trouble, self._trouble)
        if is_news:
            log.warning(
                "%s=%s cannot be written now (%s): the service goes on, and lines that find no room are dropped",
                self._name,
                self._file.path,
                why,
            )
