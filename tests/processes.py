"""The service as people start it: a process of its own, in a tree of its own, stopped by its id."""

import asyncio
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Seconds in which a process must be up, or gone; far more than it takes.
PATIENCE = 20.0
LISTENS = re.compile(r"listens on (http://\S+)")


def copy_tree(to: Path) -> Path:
    """The service without the settings of whoever runs the tests."""
    for file in ROOT.glob("*.py"):
        shutil.copy2(file, to / file.name)
    for folder in ("proxy", "emulator", "assets/certificates", "__pycache__"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, to / folder)
    return to


def swap_connector(tree: Path, name: str) -> None:
    """Swap the one line that names the default connector."""
    heart = tree / "proxy_request.py"
    code = heart.read_text(encoding="utf-8")
    assert code.count("from gigachat_connector import") == 1
    heart.write_text(code.replace("from gigachat_connector import", f"from {name} import"), encoding="utf-8")


@dataclass
class Process:
    """A started service; everything that it says is in `output`."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = field(default="", init=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_until_it_listens(self) -> None:
        end = time.monotonic() + PATIENCE
        while not (told := LISTENS.search(self.output)):
            assert self.process.poll() is None and time.monotonic() < end, f"it does not listen:\n{self.output}"
            time.sleep(0.01)
        self.url = told[1]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(PATIENCE)

    async def gone(self) -> int:
        """Its exit code; what the loop does goes on meanwhile."""
        return await asyncio.to_thread(self.wait)


def launch(
    tree: Path,
    log: Path,
    *argv: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    open_files: tuple[int, int] | None = None,
    program: str = "app.py",
) -> Process:
    """Start this program of the tree with these settings and no others."""

    def limited() -> None:
        if open_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, open_files)

    environment = {"PATH": os.environ["PATH"], "PORT": "0", "PYTHONWARNINGS": "error", **(env or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(tree / program), *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=cwd or tree,
            preexec_fn=limited if open_files else None,  # noqa: PLW1509 - no threads in the child before exec
        )
    return Process(process, log)


@contextmanager
def started(
    tree: Path,
    log: Path,
    *argv: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    open_files: tuple[int, int] | None = None,
    program: str = "app.py",
) -> Iterator[Process]:
    """A service that listens; it is gone afterwards, whatever happened."""
    service = launch(tree, log, *argv, env=env, cwd=cwd, open_files=open_files, program=program)
    try:
        service.wait_until_it_listens()
        yield service
    finally:
        if service.process.poll() is None:
            service.process.kill()
        service.wait()
