"""Text in pieces: tokens as the emulator counts them, clauses as it streams them."""

from __future__ import annotations

import re

TOKEN = re.compile(r"\w{1,5}|[^\w\s]")
CLAUSE = re.compile(r".{1,60}?(?:[,.;:!?…»\n]+\s*|\s*$)|.{1,60}(?:\s+|$)|.{1,60}", re.DOTALL)


def count_tokens(text: str) -> int:
    """About what the real tokenizer says: `Hello, world!` is 4."""
    return len(TOKEN.findall(text))


def first_tokens(text: str, limit: int) -> str:
    """The text up to its `limit`-th token."""
    for number, token in enumerate(TOKEN.finditer(text)):
        if number == limit:
            return text[: token.start()].rstrip()
    return text


def clauses(text: str) -> list[str]:
    """The text cut into clause-sized chunks; joined they are the text again."""
    return CLAUSE.findall(text)
