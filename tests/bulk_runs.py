"""Bulk runs as people start them: a command of its own, between a file of prompts and a file of answers."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_SDK = """
import runpy, sys
sys.modules["gigachat"] = sys.modules["httpx"] = None
sys.argv = ["api_client_example.py", *sys.argv[1:]]
runpy.run_path("api_client_example.py", run_name="__main__")
"""


class Files:
    """Prompts and answers in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.prompts, self.answers = folder / "prompts.jsonl", folder / "answers.jsonl"

    def ask(self, *lines: dict[str, Any] | str) -> None:
        told = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
        self.prompts.write_text("\n".join(told))

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answers.read_text().splitlines()]

    def by_id(self) -> dict[Any, Any]:
        """Id -> answer; each id must be there once."""
        told = self.told()
        assert len({json.dumps(line["id"]) for line in told}) == len(told)
        return {line["id"]: line.get("answer") for line in told}


class Bulk:
    """A run that has begun."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def begin(cls, files: Files, url: str, *flags: str, **more: Any) -> "Bulk":
        """Without the SDK, which it does not need."""
        program = ("-W", "error", "-c", WITHOUT_SDK)
        options = {
            "env": {"PATH": os.environ["PATH"]},
            "stderr": asyncio.subprocess.PIPE,
            "preexec_fn": heeds_ctrl_c,
            **more,
        }
        arguments = ("bulk", str(files.prompts), str(files.answers), "--url", url, *flags)
        return cls(await asyncio.create_subprocess_exec(sys.executable, *program, *arguments, cwd=ROOT, **options))

    async def end(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        _, complaints = await self.process.communicate()
        assert b"Traceback" not in (complaints or b""), complaints.decode()
        return self.process.returncode or 0, (complaints or b"").decode()


def heeds_ctrl_c() -> None:
    """As on a terminal, also if whoever runs the tests does so in the background, where shells have it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def bulk(files: Files, url: str, *flags: str, **more: Any) -> tuple[int, str]:
    return await (await Bulk.begin(files, url, *flags, **more)).end()


def sums(count: int) -> list[dict[str, Any]]:
    return [{"id": f"sum-{n}", "prompt": f"Сколько будет {n} + 1?"} for n in range(count)]
