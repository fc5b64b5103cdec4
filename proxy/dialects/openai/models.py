"""Which model of GigaChat's answers to the name that a caller gives.

1. A name in MODEL_MAP becomes what it stands for, whatever else is set: the operator wrote it.
2. PASS_MODEL=true: the name goes to the API as it is. false: the default model answers.
3. auto: a name of GigaChat's family goes to the API, a wrong one too (a silent default would answer with a model that
   was not meant, the API's 404 says so); other names (gpt-4o, claude-...) become the default.
"""

import re

from proxy.dialects.openai.options import Options

#: GigaChat-2-Max, GigaEmbeddings-3B, Embeddings, EmbeddingsGigaR.
FAMILY = re.compile(r"giga|embeddings", re.IGNORECASE)
#: What LiteLLM and its like put before a name.
PROVIDER = "gigachat/"


def chat_model(asked: str, options: Options) -> str:
    """The model for a chat."""
    return _chosen(asked, options, options.default_model)


def embeddings_model(asked: str, options: Options) -> str:
    """The model for embeddings."""
    return _chosen(asked, options, options.default_embeddings)


def _chosen(asked: str, options: Options, default: str) -> str:
    name = asked.strip()
    if name in options.model_map:
        return options.model_map[name]
    name = name.removeprefix(PROVIDER)
    if not name or options.pass_model == "false":
        return default
    return name if options.pass_model == "true" or FAMILY.match(name) else default
