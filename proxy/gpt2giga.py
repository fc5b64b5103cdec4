"""What is gpt2giga's, as far as an alias in `Settings` cannot say it: flags, habits, and what does nothing here.

1. Whoever has its env file and its start script keeps both. What has no effect is told, never refused.
2. docs/from-gpt2giga.md has a row for every name here and for every alias.
"""

import re
from typing import Any, Final

from proxy.values import switch

#: Where everything stands that has no effect here, with the reason.
PAGE: Final = "docs/from-gpt2giga.md"
#: Its groups of settings: GPT2GIGA_PORT is --proxy.port, GIGACHAT_MODEL is --gigachat.model.
GROUPS: Final = {"GPT2GIGA_": "proxy", "GIGACHAT_": "gigachat"}
#: Flags that may stand alone, though the setting needs a value here.
BARE: Final = {"GPT2GIGA_VERBOSE": "true"}
#: Its settings, and those of the SDK below it, that have no effect here.
IDLE: Final = re.compile(
    r"""
    GPT2GIGA_(
        (METRICS|OBSERVABILITY|OPENSEARCH|PHOENIX|TRAFFIC_LOG)_\w+
        | LOG_MAX_SIZE | LOG_REDACT_SENSITIVE | LOGS_\w+
        | ADMIN_API_\w+ | DEBUG_TRANSLATE_ENABLED | REPLAY_ENABLED | UI_ENABLED
        | CONFIG | CONVERSATION_\w+ | DISABLE_BUILTIN_TOOL_MAPPING | GIGACHAT_API_MODE | HARNESS_MODEL_KEY
        | LEGACY_CHAT_FALLBACK | NORMALIZATION_MODE
        | DEFAULT_MAX_TOKENS | DISABLE_REASONING | ENABLE_REASONING
        | MODEL_MAX_CONNECTIONS\w* | PASS_TOKEN_CLIENT_CACHE_SIZE
        | MAX_\w+_FILE_SIZE_BYTES | MAX_AUDIO_IMAGE_TOTAL_SIZE_BYTES
        | CORS_ALLOW_HEADERS | CORS_ALLOW_METHODS
        | HTTPS_CERT_FILE | HTTPS_KEY_FILE | USE_HTTPS
    )
    | GIGACHAT_(RETRY_BACKOFF_FACTOR | RETRY_ON_STATUS_CODES | TOKEN_EXPIRY_BUFFER_MS)
    """,
    re.VERBOSE,
)


def canonical(name: str) -> str:
    """The name of a setting in capitals, if gpt2giga reads it in small letters too."""
    upper = name.upper()
    return upper if upper.startswith(tuple(GROUPS)) else name


def is_its(name: str) -> bool:
    """Nobody but gpt2giga is meant by this name."""
    return name.startswith("GPT2GIGA_") or is_idle(name)


def is_idle(name: str) -> bool:
    """It is a setting of gpt2giga's that has no effect here."""
    return IDLE.fullmatch(name) is not None


def flags_of(name: str) -> tuple[str, ...]:
    """How the flags of a setting were spelt in its versions: --pass-model, --proxy-pass-model, --proxy.pass-model."""
    word = name.lower().replace("_", "-")
    for prefix, group in GROUPS.items():
        if name.startswith(prefix):
            short = word[len(prefix) :]
            return (f"--{short}", f"--{group}-{short}", f"--{group}.{short}")
    return (f"--{word}",) if word.startswith("mtls-") else ()


def name_of(flag: str) -> str | None:
    """The setting that such a flag sets; None for one that is not of its form."""
    if flag == "--config":
        return "GPT2GIGA_CONFIG"
    for prefix, group in GROUPS.items():
        if found := re.fullmatch(rf"--{group}[.-]([a-z0-9-]+)", flag):
            return prefix + found[1].upper().replace("-", "_")
    return None


def is_newest(flag: str) -> bool:
    """Only gpt2giga spells its flags so: --proxy.ui-enabled."""
    return name_of(flag) is not None and "." in flag


def meaning_of(name: str, value: str) -> Any:
    """What a value means under the name that it was given; empty for unset."""
    if name == "GPT2GIGA_VERBOSE":
        return {"on": "DEBUG", "off": ""}.get(switch(value), value)
    if name == "GPT2GIGA_API_KEY" and value:
        return {"default": value}
    return value


def is_off(value: str) -> bool:
    """A feature that is switched off is not missed."""
    return switch(value) in ("off", "")
