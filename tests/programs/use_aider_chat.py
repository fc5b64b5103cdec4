"""aider, which edits files as a model tells it to. Each function is a promise; the address is ours."""

import os
import subprocess
import sys
from pathlib import Path

FILE = Path("hello.py")
BEFORE, AFTER = 'print("Hello")\n', 'print("Привет")\n'
QUIET = ["--yes", "--no-git", "--no-check-update", "--analytics-disable", "--no-show-release-notes"]


def edited(url: str, model: str, answer: str) -> str:
    """The file after aider was given this answer, which the emulator is told to say."""
    FILE.write_text(BEFORE, encoding="utf-8")
    Path("edit.txt").write_text(f"Скажи: {answer}", encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "aider", *QUIET, "--model", model, "--message-file", "edit.txt", str(FILE)],
        env={**os.environ, "OPENAI_API_BASE": f"{url}/v1", "OPENAI_API_KEY": "any"},
        check=True,
    )
    return FILE.read_text(encoding="utf-8")


def a_file_is_edited_by_search_and_replace(url: str) -> None:
    """As aider wants it of models that it knows; the answer is streamed."""
    block = f"<<<<<<< SEARCH\n{BEFORE}=======\n{AFTER}>>>>>>> REPLACE"
    assert edited(url, "openai/gpt-4o", f"{FILE}\n```python\n{block}\n```\n") == AFTER


def a_file_is_written_anew_by_a_model_of_gigachats(url: str) -> None:
    """As aider wants it of models that it does not know."""
    assert edited(url, "openai/GigaChat-2-Max", f"{FILE}\n```\n{AFTER}```\n") == AFTER
