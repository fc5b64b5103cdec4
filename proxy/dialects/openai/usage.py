"""Tokens: GigaChat's numbers as OpenAI tells them."""

from collections.abc import Iterable, Mapping
from typing import Any


def usage_of(answers: Iterable[Any]) -> dict[str, Any] | None:
    """What the calls behind an answer cost together: every call is paid for. None if no call tells."""
    told = [usage for usage in answers if isinstance(usage, Mapping)]
    if not told:
        return None
    cached = sum(count(usage, "precached_prompt_tokens") for usage in told)
    prompt, completion = sum(map(prompt_tokens, told)), sum(count(usage, "completion_tokens") for usage in told)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def prompt_tokens(usage: Mapping[str, Any]) -> int:
    """All of the prompt. OpenAI's number holds the cached tokens; GigaChat's has been seen smaller than they are."""
    prompt, cached = count(usage, "prompt_tokens"), count(usage, "precached_prompt_tokens")
    return prompt if prompt >= cached else prompt + cached


def count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value > 0 else 0
