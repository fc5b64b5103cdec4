"""Everything in a chat request beside its messages, tools and format: what GigaChat is told of it.

| OpenAI | here |
| --- | --- |
| model | see `models.py` |
| temperature 0 | 0.0001: the API wants more than 0, and takes less than 0.001 for "as deterministic as can be" |
| temperature above 0 up to 2, top_p | as they are |
| max_completion_tokens, max_tokens | max_tokens, the smaller of them |
| reasoning_effort | minimal is low, xhigh and max are high, none is nothing |
| stop, n, stream, stream_options.include_usage, user | done here, not by the API: see `stops.py`, `chat.py` |
| modalities with anything but text | 400: a caller who waits for sound must not get none without a word |
| profanity_check, repetition_penalty, update_interval, flags, function_ranker, storage | GigaChat's own, as they are |
| whatever else comes: seed, logprobs, frequency_penalty, parallel_tool_calls, store | ignored, and named |

What is ignored makes no answer wrong: a hint less (seed, prediction, service_tier), something that nobody gets
(logprobs is null), or a wish that the API cannot be told (penalties, verbosity). What stands in a literal `extra_body`
counts as if it stood at the top.
"""

from typing import Any, Final

from proxy.dialects.openai.models import chat_model
from proxy.dialects.openai.options import Options

#: The lowest temperature that the API takes for 0.
COLDEST: Final = 0.0001
EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
#: GigaChat's own fields, and those that mean the same there.
PASSED: Final = (
    "top_p",
    "profanity_check",
    "repetition_penalty",
    "update_interval",
    "flags",
    "function_ranker",
    "storage",
)
#: What is understood here or elsewhere in this package; whatever else a request has is ignored.
UNDERSTOOD: Final = frozenset(
    {
        *PASSED,
        *("messages", "model", "temperature", "max_tokens", "max_completion_tokens", "reasoning_effort", "stop", "n"),
        *("stream", "stream_options", "user", "safety_identifier", "modalities", "response_format"),
        *("tools", "tool_choice", "functions", "function_call"),
    }
)


def parameters(body: dict[str, Any], options: Options) -> dict[str, Any]:
    """The parameters of the call."""
    told: dict[str, Any] = {name: body[name] for name in PASSED if name in body}
    if not brings_own_model(body):
        told["model"] = chat_model(body.get("model", ""), options)
    if "temperature" in body:
        told["temperature"] = body["temperature"] or COLDEST
    lengths = [body[name] for name in ("max_tokens", "max_completion_tokens") if name in body]
    if lengths:
        told["max_tokens"] = min(lengths)
    if body.get("reasoning_effort") in EFFORTS:
        told["reasoning_effort"] = EFFORTS[body["reasoning_effort"]]
    return told


def brings_own_model(body: dict[str, Any]) -> bool:
    """An assistant or a thread has its model; the API refuses another, and the SDK always sends one."""
    storage = body.get("storage", {})
    return bool(storage.get("assistant_id") or storage.get("thread_id"))


def stops(body: dict[str, Any]) -> tuple[str, ...]:
    """The stop sequences. An empty one, as some programs send for none, stops nothing."""
    stop = body.get("stop", [])
    return tuple(filter(None, [stop] if isinstance(stop, str) else stop))


def wants_usage(body: dict[str, Any]) -> bool:
    return bool(body.get("stream_options", {}).get("include_usage"))


def ignored(body: dict[str, Any]) -> list[str]:
    """The fields that mean nothing here, for a line in the log."""
    return sorted(body.keys() - UNDERSTOOD)
