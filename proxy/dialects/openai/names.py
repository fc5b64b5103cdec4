"""Names of functions: GigaChat takes Latin letters, digits (not first), `_`, `-` and `.`, and keeps some for itself."""

import hashlib
import re
from collections.abc import Iterable

ALLOWED = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
FORBIDDEN = re.compile(r"[^A-Za-z0-9_.-]")
#: Functions of GigaChat's own: these names mean them, whatever is described under them.
BUILTIN = frozenset(
    {
        "text2image",
        "text2model3d",
        "get_file_content",
        "web_search",
        "code_interpreter",
        "image_generate",
        "url_content_extraction",
        "model_3d_generate",
    }
)


def accepted(name: str) -> str:
    """The name, or another that GigaChat takes: always the same for the same name, and no other's."""
    if ALLOWED.fullmatch(name) and name not in BUILTIN:
        return name
    plain = FORBIDDEN.sub("_", name)
    # Two names may look alike once mended; a part of the hash keeps them apart, in every request alike.
    apart = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{'' if ALLOWED.match(plain) else '_'}{plain}_{apart}"


class Names:
    """The callers' names behind those that GigaChat calls."""

    def __init__(self, names: Iterable[str]) -> None:
        self._callers = {accepted(name): name for name in names}

    def of_caller(self, name: str) -> str:
        """What the caller calls it; a name of GigaChat's own stays."""
        return self._callers.get(name, name)
