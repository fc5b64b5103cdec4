"""The processes of a benchmark: started, asked for their address and what they have used, stopped by their own id."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.load import Load, Outcome

HOME = Path(__file__).resolve().parent.parent
#: Seconds in which a process must tell its address.
START_TIMEOUT = 30.0
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """A server that runs."""

    def __init__(self, pid: int, url: str) -> None:
        self.pid = pid
        self.url = url

    def cpu(self) -> float:
        """Seconds of CPU that it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> float:
        """KB of memory that it holds."""
        told = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return float(told[1]) if told else 0.0

    def files(self) -> int:
        """How many it has open, connections among them."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def ask(self, path: str = "/") -> Any:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def server(*command: str) -> Iterator[Process]:
    """Run `python COMMAND` until the block is left. Raises RuntimeError, with what it said, if it does not start."""
    with tempfile.TemporaryFile("w+") as complaints, running((sys.executable, *command), complaints) as process:
        url = ""
        deadline = time.monotonic() + START_TIMEOUT
        assert process.stdout is not None
        # A line ends the wait, so does the end of the process.
        while not url and time.monotonic() < deadline and (line := process.stdout.readline()):
            url = address[0] if (address := ADDRESS.search(line)) else ""
        if not url:
            complaints.seek(0)
            raise RuntimeError(f"{command[0]} {command[1]} did not start:\n{complaints.read()}")
        yield Process(process.pid, url)


@contextmanager
def running(
    command: Sequence[str], complaints: IO[str] | None, cwd: Path = HOME, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process until the block is left; then it is asked to stop, and made to after 10 seconds."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=cwd, env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def upstream(latency: float = 0.0, enforced: float = 0.0) -> Iterator[Process]:
    """An API that answers after `latency` seconds and refuses calls closer than `enforced` seconds, 0 for none."""
    with server("-m", "benchmarks.upstream", str(latency), str(enforced)) as process:
        yield process


@contextmanager
def bare(api: Process) -> Iterator[Process]:
    with server("-m", "benchmarks.bare", f"{api.url}/v1/chat/completions") as process:
        yield process


@contextmanager
def emulated(latency: float = 0.0) -> Iterator[Process]:
    """GigaChat's emulator, which tells all that it received, and answers after `latency` seconds."""
    with server("-m", "emulator", "--port", "0", "--latency", str(latency)) as process:
        yield process


@contextmanager
def service(api: Process, lease: float | None = None, /, **knobs: object) -> Iterator[Process]:
    """Our service before this API, without limits and without jobs but for those in `knobs`.

    `lease`: seconds for which a job is claimed, if not as long as usual.
    """
    settings = {
        "port": 0,
        "log_level": "ERROR",
        "drain_timeout": 0,
        "ext_max_requests": 0,
        "jobs_url": "off",
        "gigachat_base_url": f"{api.url}/v1",
        "gigachat_auth_url": f"{api.url}/oauth",
        "gigachat_api_key": "a-key",
        **knobs,
    }
    with server("-m", "benchmarks.service", json.dumps(settings), *([str(lease)] if lease else [])) as process:
        yield process


def run_load(load: Load) -> Outcome:
    """Callers in a process of their own, from start to end."""
    with calling(load) as callers:
        return callers.outcome()


@dataclass
class Callers:
    """A load that runs."""

    process: subprocess.Popen[str]

    def outcome(self) -> Outcome:
        """What became of their requests, when all is over."""
        told, _ = self.process.communicate()
        return Outcome(**json.loads(told))

    def stopped(self) -> Outcome:
        """What became of them until now; whoever waits goes away."""
        self.process.terminate()
        return self.outcome()


@contextmanager
def calling(load: Load) -> Iterator[Callers]:
    with running((sys.executable, "-m", "benchmarks.load", json.dumps(asdict(load))), None) as process:
        yield Callers(process)
