"""A copy of this checkout in which the scripts and compose.yaml are run as their users run them."""

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

REPO = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".env", "env", "*.log*", "*.sqlite*")
IS_ROOT = os.geteuid() == 0
OWNER = 12345 if IS_ROOT else os.geteuid()  # of assets, so of the service too


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with none of our variables in its environment but what Docker's client needs."""
    names = [name for name in os.environ if name in ("PATH", "HOME", "XDG_RUNTIME_DIR") or name.startswith("DOCKER_")]
    environment = {name: os.environ[name] for name in names}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def succeed(*command: str, cwd: Path | None = None) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{command} exited {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout.strip()


def do_without(reason: str) -> None:
    """At home a test skips for what this machine lacks; in CI it fails."""
    (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(reason)


def until(what: Callable[[], bool], trouble: Callable[[], object], seconds: float = 30) -> None:
    """Ask again and again, for an engine tells no events of what is inside its containers; `trouble` explains."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, trouble()
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class House:
    """A copy of this checkout with its own container name, port and assets/env."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"gigachat_proxy_test_{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        shutil.copytree(REPO, path, ignore=NOT_COPIED)
        shutil.copy(path / "assets/env_example.txt", path / "assets/env")
        self.set(
            SANDBOX="on  # an inline comment",
            APP_NAME='"in a box"  # quotes too',
            PORT=f"{self.port}  # the port",
            PROXY_CONTAINER=f"{self.name}  # its name",
        )
        self.give_assets_to(OWNER)

    def set(self, **settings: str) -> None:
        """Add lines to assets/env; the last one of a name counts."""
        with (self.path / "assets/env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def give_assets_to(self, uid: int) -> None:
        if IS_ROOT:
            for path in [self.path / "assets", *(self.path / "assets").rglob("*")]:
                os.chown(path, uid, uid)

    def get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """The status of the answer, and what it says. Raises OSError or HTTPException if there is none."""
        request = Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), headers)
        try:
            with urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ask(self, text: str) -> int:
        """The status of a chat's answer."""
        return self.post("/", {"messages": [["user", text]]})[0]

    def answers(self) -> bool:
        try:
            return bool(self.get("/health"))
        except (OSError, HTTPException):
            return False

    def wait_until_it_answers(self) -> None:
        until(self.answers, lambda: run("docker", "logs", self.name))

    def inspect(self, what: str) -> str:
        return succeed("docker", "container", "inspect", "--format", f"{{{{{what}}}}}", self.name)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run("docker", "exec", self.name, *command)


class Composed:
    """The services of a house's compose.yaml that run."""

    def __init__(self, house: House, *profiles: str) -> None:
        self.house = house
        self._command = ["docker", "compose", "--project-name", house.name]
        for profile in profiles:
            self._command += ["--profile", profile]

    def __call__(self, *arguments: str) -> str:
        return succeed(*self._command, *arguments, cwd=self.house.path)

    def inside(self, service: str, *command: str) -> str:
        return self("exec", "-T", service, *command)

    def containers(self, service: str) -> list[str]:
        return self("ps", "--quiet", service).split()

    def fetch_images(self) -> None:
        """All but our own."""
        for image in set(self("config", "--images").split()) - {self.house.name}:
            if run("docker", "image", "inspect", image).returncode and run("docker", "pull", image).returncode:
                do_without(f"the image {image} cannot be had, see `docker pull {image}`")

    def remove(self) -> None:
        run(*self._command, "down", "--remove-orphans", "--volumes", cwd=self.house.path)


@contextmanager
def composed(house: House, *names: str, profile: str = "", **dotenv: str) -> Iterator[Composed]:
    """Bring up these services, or all of the profile, with these lines in .env besides what each house needs."""
    ours = {"PORT": str(house.port), "PROXY_CONTAINER": house.name, "RUN_AS": f"{OWNER}:{OWNER}", **dotenv}
    (house.path / ".env").write_text("".join(f"{name}={value}\n" for name, value in ours.items()))
    compose = Composed(house, *([profile] if profile else []))
    compose.fetch_images()
    try:
        compose("up", "--detach", "--build", "--wait", *names)
        yield compose
    finally:
        compose.remove()
