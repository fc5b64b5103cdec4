"""Bodies that work as they are: the page at /docs begins with them, so nothing in them does harm.

Rule 1: no model is named, for each service has a default of its own; but GigaChat's own paths want one. A batch needs
        more: a file of its caller's; so do embeddings of OpenAI's own API, which has no default: a model.
Rule 2: the page sends what stands here, and the `example` of a parameter or of a schema, and its `default`. It shows
        the `examples` of a parameter's schema, and does not send them.
"""

from collections.abc import Mapping
from typing import Any, Final

from proxy.dialects.openai.batches import LONGEST_LIFE

Example = Mapping[str, Any]

NATIVE: Final[Example] = {"messages": [["user", "Hello"]]}
#: For OpenAI's clients, and for conversations.
CHAT: Final[Example] = {"messages": [{"role": "user", "content": "Hello"}]}
EMBEDDINGS: Final[Example] = {"input": "Hello"}
#: Of GigaChat's own paths, chat/completions takes it.
FORWARDED: Final[Example] = {"model": "GigaChat-2", **CHAT}
#: The page begins with all fields of a form, so the file is not to vanish before its batch is done.
UPLOAD: Final[Example] = {
    "purpose": "batch",
    "expires_after[anchor]": "created_at",
    "expires_after[seconds]": LONGEST_LIFE,
}
BATCH: Final[Example] = {
    "input_file_id": "the id of an uploaded file",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
}
JOB: Final[Example] = {"path": "/", "body": NATIVE}
LIMITS: Final[Example] = {"rpm": 60}
TOKEN: Final[Example] = {"scope": "GIGACHAT_API_PERS"}
