"""A real `redis-server` as a process of its own, which tests may kill, hold still, and start again."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
from redis import Redis
from redis.exceptions import RedisError

IN_CI = os.environ.get("CI", "").lower() == "true"
#: Seconds in which it must be up, or gone; far more than it takes.
PATIENCE = 20.0


def missing() -> NoReturn:
    (pytest.fail if IN_CI else pytest.skip)("redis-server is not installed (Debian, Ubuntu: apt install redis-server)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server on 127.0.0.1. It keeps its port and its folder when it is started again; `options` are its own.

    Args:
        client: how the tests themselves reach it, if not without a word.
    """

    def __init__(self, home: Path, *options: str, port: int | None = None, **client: Any) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self.port = port or free_port()
        self._options = options
        self._program = shutil.which("redis-server") or missing()
        self._process: subprocess.Popen[bytes] | None = None
        #: A plain client, for what tests want to see.
        self.client: Any = Redis(**{"port": self.port, "socket_timeout": 5.0, "decode_responses": True} | client)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        basics = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.home), "--save", ""]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen([self._program, *basics, *self._options], stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < end, (self.home / "log").read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """-9: it has no time to say goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def restart(self) -> None:
        """Killed and started again: without its data unless its options keep them."""
        self.kill()
        self.start()

    def hold(self) -> None:
        """It takes connections, since the kernel does, but says nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        self.client.close()
        if self._process is not None:
            self.kill()

    # -- what it says of itself

    def questions(self) -> int:
        """How often the limits' script was run: the round trips."""
        stats = self.client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha"))

    def fields(self, key: str) -> dict[str, int]:
        return {name: int(value) for name, value in self.client.hgetall(key).items()}

    def leases(self, name: str, prefix: str = "gigachat-proxy") -> list[str]:
        found: list[str] = self.client.zrange(f"{prefix}:{{{name}}}:leases", 0, -1)
        return found

    def ends(self, name: str, prefix: str = "gigachat-proxy") -> dict[str, float]:
        """When leases end, in seconds of the server's clock."""
        found = self.client.zrange(f"{prefix}:{{{name}}}:leases", 0, -1, withscores=True)
        return {ticket: end / 1_000_000 for ticket, end in found}

    def waiting(self, name: str, prefix: str = "gigachat-proxy") -> list[str]:
        found: list[str] = self.client.zrange(f"{prefix}:{{{name}}}:waiting", 0, -1)
        return found


async def started(server: RedisServer) -> RedisServer:
    """The same while the loop goes on."""
    await asyncio.to_thread(server.start)
    return server
