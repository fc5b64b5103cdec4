"""A file of lines: private, rotated, never in anybody's way, and back at work as soon as it can be."""

import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.logfile import Rotated, Writer

ROOT = Path(__file__).parents[1]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def write_to() -> Iterator[Callable[..., Writer]]:
    """`write_to(path, room=..., size=...)`: a writer that tries again soon, closed after the test."""
    writers = []

    def make(path: Path, *, room: int = 10_000, **shape: Any) -> Writer:
        writers.append(Writer("LOG_FILE", Rotated(path, **shape), room=room, pause=0.02))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


# -- private


@pytest.fixture
def careless_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careless_umask")
def test_the_file_and_the_older_ones_are_their_owners_alone(tmp_path: Path) -> None:
    """0600 whatever the umask, also after a rotation."""
    file = Rotated(tmp_path / "log", size=10)
    for _ in range(4):
        file.append(b"12345678\n")
    file.close()
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("log", "log.1", "log.2", "log.3"), 0o600
    )


def test_a_file_that_was_there_with_wider_rights_is_narrowed_before_a_line_is_in_it(tmp_path: Path) -> None:
    """What it held stays."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    path.chmod(0o664)
    file = Rotated(path)
    file.open()
    assert mode(path) == 0o600
    file.append(b"after\n")
    file.close()
    assert path.read_bytes() == b"before\nafter\n"


def test_what_cannot_be_narrowed_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's file, or a disk without rights: what callers do is nobody's business."""
    path = tmp_path / "log"
    path.touch(0o644)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chmod", refuse)
    with pytest.raises(PermissionError):
        Rotated(path).append(b"a line\n")
    assert path.read_bytes() == b""


def test_a_device_keeps_its_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOG_FILE=/dev/null must not take it from everybody else, root though we may be."""
    monkeypatch.setattr(os, "chmod", lambda *_: pytest.fail("chmod"))
    file = Rotated(Path("/dev/null"), size=1)
    file.append(b"a line\n")
    file.append(b"a line\n")
    file.close()


# -- rotated


def test_no_file_grows_beyond_its_size_and_three_older_ones_are_kept(tmp_path: Path) -> None:
    """Whole lines everywhere, the newest in the file itself, the oldest in `.3`; older ones are gone."""
    file = Rotated(tmp_path / "log", size=100)
    for number in range(1000):
        file.append(f"line {number}\n".encode())
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    kept = [line for suffix in (".3", ".2", ".1", "") for line in lines(tmp_path / f"log{suffix}")]
    assert kept == [f"line {number}" for number in range(1000 - len(kept), 1000)]
    assert len(kept) > 30


def test_a_full_file_of_the_run_before_is_rotated_first(tmp_path: Path) -> None:
    """The bound holds from one start to the next."""
    (tmp_path / "log").write_bytes(b"x" * 99 + b"\n")
    file = Rotated(tmp_path / "log", size=100)
    file.append(b"new\n")
    file.close()
    assert lines(tmp_path / "log") == ["new"]
    assert (tmp_path / "log.1").stat().st_size == 100


def test_a_rotation_that_fails_loses_no_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is a mount point of its own cannot be moved away; each try leaves the others alone."""
    for name in ("log", "log.1", "log.2", "log.3"):
        (tmp_path / name).write_text(f"{name} of old\n")
    replace = os.replace

    def refuse(old: str, new: str) -> None:
        if old == str(tmp_path / "log"):
            raise OSError("busy")
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    file = Rotated(tmp_path / "log", size=20)
    for _ in range(3):
        with pytest.raises(OSError, match="busy"):
            file.append(b"a long line\n")
    file.close()
    assert [lines(tmp_path / f"log.{number}") for number in (1, 2, 3)] == [[f"log.{n} of old"] for n in (1, 2, 3)]


@pytest.mark.parametrize("away", [Path.unlink, lambda path: path.rename(path.with_name("moved"))])
def test_a_file_that_was_deleted_or_moved_is_made_anew(tmp_path: Path, away: Callable[[Path], object]) -> None:
    """So other tools may rotate it too."""
    file = Rotated(tmp_path / "log")
    file.append(b"before\n")
    away(tmp_path / "log")
    file.append(b"after\n")
    file.close()
    assert lines(tmp_path / "log") == ["after"]
    assert mode(tmp_path / "log") == 0o600


# -- never in anybody's way


def test_all_that_was_handed_over_is_on_the_disk_after_a_close(tmp_path: Path, write_to: Callable[..., Writer]) -> None:
    """In the order in which it came."""
    writer = write_to(tmp_path / "log", room=1_000_000)
    for number in range(5000):
        writer.write(f"{number}\n".encode())
    writer.close()
    assert lines(tmp_path / "log") == [str(number) for number in range(5000)]


def test_a_folder_that_is_missing_costs_lines_and_nothing_else(
    tmp_path: Path, write_to: Callable[..., Writer], caplog: pytest.LogCaptureFixture
) -> None:
    """One warning that tells the setting, the path and the reason; then the lines that found room, and the count."""
    path = tmp_path / "folder" / "log"
    writer = write_to(path, room=100)
    until(lambda: len(caplog.messages) == 1)
    for number in range(30):
        writer.write(f"line {number:4}\n".encode())
    time.sleep(0.1)  # for several more tries
    (warning,) = caplog.messages
    assert f"LOG_FILE={path}" in warning and "No such file" in warning
    path.parent.mkdir()
    until(lambda: len(caplog.messages) == 2)
    assert lines(path) == [f"line {number:4}" for number in range(10)]
    assert caplog.messages[1] == f"LOG_FILE={path} is written again; lines dropped: 20"
    writer.write(b"and so on\n")
    until(lambda: lines(path)[-1] == "and so on")


def test_a_wrong_path_is_told_at_the_start(
    tmp_path: Path, write_to: Callable[..., Writer], caplog: pytest.LogCaptureFixture
) -> None:
    """Not when the first request comes."""
    write_to(tmp_path)
    until(lambda: any("Is a directory" in message for message in caplog.messages))


def test_a_folder_that_goes_and_comes_back(tmp_path: Path, write_to: Callable[..., Writer]) -> None:
    """Nothing is lost that found room meanwhile."""
    path = tmp_path / "folder" / "log"
    path.parent.mkdir()
    writer = write_to(path)
    writer.write(b"one\n")
    until(lambda: lines(path) == ["one"])
    path.parent.rename(tmp_path / "elsewhere")
    writer.write(b"two\n")
    time.sleep(0.1)
    path.parent.mkdir()
    until(lambda: lines(path) == ["two"])


def test_a_disk_that_fills_up_leaves_whole_lines_and_loses_none_that_found_room(tmp_path: Path) -> None:
    """The limit of a file's size stands for the end of the disk: it, too, comes in the middle of a line."""
    story = """
import resource, signal, sys, time
from pathlib import Path
from proxy.logfile import Rotated, Writer

def allow(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

path = Path("log")
allow(1005)
writer = Writer("LOG_FILE", Rotated(path), pause=0.02)
for number in range(50):
    writer.write(f"{number:29}\\n".encode())
time.sleep(0.3)
full = path.read_bytes()
allow(1_000_000)
writer.close(5)
print(len(full), full.count(b"\\n"), [int(line) for line in path.read_text().splitlines()] == list(range(50)))
"""
    told = subprocess.run(
        [sys.executable, "-c", story],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert told.stdout == "990 33 True\n", told.stderr
    assert told.stderr.count("File too large") == 1


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A disk so slow that nothing ever gets there, until the test is over."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # lets the writer's thread go


def test_a_disk_that_hangs_holds_nobody_up_and_fills_no_memory(fifo: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Handing over takes no time, what waits is bounded, one warning says so, and a stop waits its second only."""
    writer = Writer("LOG_FILE", Rotated(fifo), room=10_000)
    began = time.monotonic()
    for _ in range(20_000):
        writer.write(b"x" * 99 + b"\n")
    assert time.monotonic() - began < 1
    assert repr(writer).endswith("waiting=100 dropped=19900>")
    (warning,) = caplog.messages
    assert "the disk does not keep up" in warning
    began = time.monotonic()
    writer.close(0.1)
    assert time.monotonic() - began < 1
    assert caplog.messages[1] == f"LOG_FILE={fifo}: lines that were not written: 20000"


def test_the_log_that_cannot_be_written_may_be_the_one_that_is_told_so(
    tmp_path: Path, write_to: Callable[..., Writer]
) -> None:
    """The warning is handed to the very file that it is about: no circle, no dead lock."""
    writer = write_to(tmp_path / "folder" / "log", room=50)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            writer.write(record.getMessage().encode()[:20] + b"\n")

    handler = Handler()
    logging.getLogger().addHandler(handler)
    try:
        for _ in range(100):
            logging.getLogger().warning("something")
        (tmp_path / "folder").mkdir()
        until(lambda: bool(lines(tmp_path / "folder" / "log")))
    finally:
        logging.getLogger().removeHandler(handler)
