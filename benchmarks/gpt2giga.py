"""gpt2giga as it comes from the package index, in a virtual environment of its own that is made at first use."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import HOME, START_TIMEOUT, Process, running

VERSION = "0.3.0"
NAME = f"gpt2giga {VERSION}"
#: Where it is installed: not in the repository, and nothing of ours needs it.
CACHE = HOME / ".cache"
#: What it would read of our own environment.
ITS_SETTINGS = re.compile("GPT2GIGA_|GIGACHAT_|MTLS_|PHOENIX_", re.IGNORECASE)


class NotInstalled(Exception):
    """There is no gpt2giga here, and this is why."""


def place() -> Path:
    """Where its program is when it is installed: pip puts it there last."""
    return CACHE / f"gpt2giga-{VERSION}" / "bin" / "gpt2giga"


def program() -> Path:
    """Its program; installs it if need be. Raises NotInstalled."""
    found = place()
    if not found.exists():
        home = found.parent.parent
        print(f"Installing {NAME} into {home}", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", f"gpt2giga=={VERSION}"])
    return found


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing was said"]
        raise NotInstalled(said[-1])


@contextmanager
def gpt2giga(found: Path, api: Process, *, oauth: str = "/oauth", **settings: str) -> Iterator[Process]:
    """It, before this API, with no setting but those and its address. Raises RuntimeError if it does not start."""
    host, port = "127.0.0.1", free_port()
    environment = {name: value for name, value in os.environ.items() if not ITS_SETTINGS.match(name)} | {
        "GPT2GIGA_HOST": host,
        "GPT2GIGA_PORT": str(port),
        "GPT2GIGA_LOG_LEVEL": "ERROR",
        "GIGACHAT_BASE_URL": f"{api.url}/v1",
        "GIGACHAT_AUTH_URL": f"{api.url}{oauth}",
        "GIGACHAT_CREDENTIALS": "a-key",
        **settings,
    }
    # It writes its log, and looks for an env file, where it is started.
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile("w+") as complaints,
        running([str(found)], complaints, cwd=Path(folder), env=environment) as process,
    ):
        deadline = time.monotonic() + START_TIMEOUT
        while not listens(host, port):
            if process.poll() is not None or time.monotonic() > deadline:
                complaints.seek(0)
                raise RuntimeError(f"{NAME} did not start:\n{complaints.read()}")
            time.sleep(0.1)
        yield Process(process.pid, f"http://{host}:{port}")


def free_port() -> int:
    """It does not tell which one it took."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
