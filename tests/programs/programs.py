"""Programs that people use, each in an environment of its own, installed once and kept among pytest's memories."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Seconds that an installation may take, and a program.
INSTALL_PATIENCE, PATIENCE = 900.0, 60.0
#: Where a program finds nobody if it turns to the internet; what is on this machine it calls directly.
NOWHERE = "http://127.0.0.1:9"
ENVIRONMENT = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false"}


class NotInstalled(Exception):
    """The program is not here, and this is why."""


class Program(ABC):
    """One of them.

    Args:
        title: what docs/programs.md calls it.
        package: what its registry calls it. `requirements-<package>.txt` names it first, with its version.
    """

    #: Between a package and its version; what a script of promises ends in; what finds the promises in it.
    pin: str
    suffix: str
    promise: re.Pattern[str]

    def __init__(self, title: str, package: str) -> None:
        self.title = title
        self.package = package
        self.folder = Path()

    def __repr__(self) -> str:
        return self.package

    @cached_property
    def requirements(self) -> list[str]:
        lines = (HERE / f"requirements-{self.package}.txt").read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    @property
    def pinned(self) -> str:
        """The version that is to be installed."""
        package, _, version = self.requirements[0].rpartition(self.pin)
        assert package.partition("[")[0] == self.package
        return version

    @property
    def script(self) -> Path:
        return HERE / f"use_{self.package.replace('-', '_')}{self.suffix}"

    @property
    def promises(self) -> list[str]:
        """The functions of its script that are called, each with the address of the service."""
        return self.promise.findall(self.script.read_text())

    def install(self, folder: Path) -> None:
        """Into this folder, unless it is there. Raises NotInstalled."""
        self.folder = folder
        stamp, content = folder / "installed", "\n".join([sys.version, *self.requirements])
        if not (stamp.exists() and stamp.read_text() == content):
            shutil.rmtree(folder)
            folder.mkdir()
            self.fill()
            stamp.write_text(content)

    async def keep(self, promise: str, url: str, home: Path) -> None:
        """Call this function of its script with the address of a service. Fails with what it says if it fails."""
        await self._told(self.calling(promise, url, home), home)

    async def run(self, text: str, language: str, home: Path) -> str:
        """What these lines of a document print."""
        return await self._told(self.running(text, language, home), home)

    async def _told(self, command: Sequence[str], home: Path) -> str:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=home,
            env={**ENVIRONMENT, "PATH": path, "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{self} failed:\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    # -- what is different in Python and in JavaScript

    @abstractmethod
    def fill(self) -> None:
        """Install into the empty folder. Raises NotInstalled."""

    @property
    @abstractmethod
    def version(self) -> str:
        """The version that is installed."""

    @abstractmethod
    def calling(self, promise: str, url: str, home: Path) -> list[str]: ...

    @abstractmethod
    def running(self, text: str, language: str, home: Path) -> list[str]: ...


class PythonProgram(Program):
    """In a virtual environment, made with the Python that runs the tests."""

    pin = "=="
    suffix = ".py"
    promise = re.compile(r"^def (\w+)\(url: str\) -> None:", re.MULTILINE)

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    def fill(self) -> None:
        run([sys.executable, "-m", "venv", "--without-pip", str(self.folder)])
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--python", self.python]
        run([*pip, "install", "--quiet", *self.requirements])

    @property
    def version(self) -> str:
        (packages,) = self.folder.glob("lib/python*/site-packages")
        (found,) = distributions(name=self.package, path=[str(packages)])
        return found.version

    def calling(self, promise: str, url: str, home: Path) -> list[str]:
        call = "import runpy, sys; runpy.run_path(sys.argv[1])[sys.argv[2]](sys.argv[3])"
        return [self.python, "-c", call, str(self.script), promise, url]

    def running(self, text: str, language: str, home: Path) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [self.python, "-c", text]


class NodeProgram(Program):
    """In a folder of its own, run by the Node of this machine."""

    pin = "@"
    suffix = ".mjs"
    promise = re.compile(r"^export async function (\w+)\(url\)", re.MULTILINE)

    def fill(self) -> None:
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
        # In ms: by default whoever has no network waits for a minute and more.
        flags += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
        run(["npm", "install", "--prefix", str(self.folder), *flags, *self.requirements])

    @property
    def version(self) -> str:
        return str(json.loads((self.folder / "node_modules" / self.package / "package.json").read_text())["version"])

    def calling(self, promise: str, url: str, home: Path) -> list[str]:
        call = "const [, file, name, url] = process.argv; await (await import(file))[name](url)"
        file = self._placed(self.script.read_text(), home)
        return ["node", "--input-type=module", "--eval", call, file, promise, url]

    def running(self, text: str, language: str, home: Path) -> list[str]:
        return ["node", self._placed(text, home)]

    def _placed(self, text: str, home: Path) -> str:
        """A file with this text, beside the packages that it imports."""
        (home / "node_modules").symlink_to(self.folder / "node_modules")
        file = home / "program.mjs"
        file.write_text(text)
        return str(file)


def run(command: Sequence[str]) -> None:
    """Raises NotInstalled with the first complaint of a command that fails."""
    if shutil.which(command[0]) is None:
        raise NotInstalled(f"{command[0]} is not installed")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took more than {INSTALL_PATIENCE:g} s") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line and not line.startswith("WARNING")]
        raise NotInstalled(said[0] if said else f"{command[0]} ended with {done.returncode}")


PROGRAMS: list[Program] = [
    PythonProgram("LangChain", "langchain-openai"),
    PythonProgram("pydantic-ai", "pydantic-ai-slim"),
    PythonProgram("LiteLLM", "litellm"),
    PythonProgram("aider", "aider-chat"),
    NodeProgram("OpenAI's SDK for Node", "openai"),
    NodeProgram("Vercel's AI SDK", "ai"),
]
