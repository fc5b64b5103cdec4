"""The models on offer."""

from __future__ import annotations

from typing import Any

from emulator.answers import Answer, json_answer
from emulator.calls import Call
from emulator.errors import ApiError
from emulator.options import Options
from emulator.state import State

VERSIONS = {"GigaChat-3": "32.3.18.5"}
USUAL_VERSION = "2.0.28.2"

# What each host lists. The old one knows the bare names too, and their early-access twins.
CHAT = ("GigaChat-2", "GigaChat-2-Pro", "GigaChat-2-Max", "GigaChat-3-Lightning", "GigaChat-3-Pro", "GigaChat-3-Ultra")
EMBEDDERS = ("Embeddings", "Embeddings-2", "EmbeddingsGigaR", "GigaEmbeddings-3B-2025-09")
LEGACY_CHAT = ("GigaChat", "GigaChat-Plus", "GigaChat-Pro", "GigaChat-Max", "GigaChat-preview", "GigaChat-2-preview")
LEGACY_CHECKS = {"GigaCheckClassification": "aicheck", "GigaCheckDetection": "aicheck", "GigaFilter": "filter"}
WITHOUT_FUNCTIONS = {"GigaChat-Plus"}

MODELS = dict.fromkeys(CHAT, "chat") | dict.fromkeys(EMBEDDERS, "embedder")
LEGACY_MODELS = MODELS | dict.fromkeys(LEGACY_CHAT, "chat") | LEGACY_CHECKS


def offered(options: Options) -> dict[str, str]:
    """The models of the host, each with its type."""
    return LEGACY_MODELS if options.legacy else MODELS


def known(name: Any, kind: str, options: Options) -> str:
    """The name, if there is a model of that kind. Raises the API's 404 otherwise."""
    plain = name.removesuffix(":latest") if isinstance(name, str) else ""
    if offered(options).get(plain) != kind:
        raise ApiError(404, "No such model")
    return plain


def with_version(name: str) -> str:
    """As the API echoes it: `<name>:<version>`."""
    return f"{name}:{VERSIONS.get(name[:10], USUAL_VERSION)}"


def described(name: str, kind: str) -> dict[str, str]:
    return {"id": name, "object": "model", "owned_by": "salutedevices", "type": kind}


def list_models(state: State, call: Call) -> Answer:
    models = [described(name, kind) for name, kind in offered(state.options).items()]
    return json_answer({"object": "list", "data": models})


def get_model(state: State, call: Call) -> Answer:
    kind = offered(state.options).get(call.id)
    if kind is None:
        raise ApiError(404, "No such model")
    return json_answer(described(call.id, kind))
