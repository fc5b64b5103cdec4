"""Models: GigaChat's list in OpenAI's words, and in LiteLLM's."""

from typing import Any, Final

from proxy.dialects.openai.answers import unreadable

#: GigaChat tells no age of its models, OpenAI always does: the day on which the first of them was shown.
CREATED: Final = 1_682_294_400
#: What LiteLLM calls GigaChat's types.
MODES: Final = {"chat": "chat", "embedder": "embedding"}


def model_list(answer: dict[str, Any]) -> dict[str, Any]:
    """`GET /models`. Raises UpstreamError for an answer that is no list of models."""
    return {"object": "list", "data": [model(each) for each in models_of(answer)]}


def model(given: dict[str, Any], asked: str = "") -> dict[str, Any]:
    """`GET /models/{id}`; `asked` is the id by which the caller knows it, if another."""
    return {
        "id": asked or given["id"],
        "object": "model",
        "created": given.get("created") or CREATED,
        "owned_by": given.get("owned_by") or "salutedevices",
    }


def model_info_list(answer: dict[str, Any]) -> dict[str, Any]:
    """`GET /model/info`. Raises UpstreamError."""
    return {"data": [model_info(each) for each in models_of(answer)]}


def model_info(given: dict[str, Any], asked: str = "") -> dict[str, Any]:
    """`GET /model/info?model=`."""
    mode = MODES.get(str(given.get("type", "chat")))
    return {
        "model_name": asked or given["id"],
        "litellm_params": {"model": given["id"]},
        "model_info": {"id": given["id"]} | ({"mode": mode} if mode else {}),
    }


def models_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    models = answer.get("data")
    if not isinstance(models, list) or not all(isinstance(each, dict) and "id" in each for each in models):
        raise unreadable("it is no list of models")
    return models
