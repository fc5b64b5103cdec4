"""What the operator has decided that matters to translation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Where a generated image is to be had; `{id}` is the file's.
IMAGE_LINK = "/v1/files/{id}/content"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings, as far as the translation needs them.

    Args:
        default_model: for requests that name no model, or none that GigaChat has.
        default_embeddings: the same for embeddings.
        pass_model: whether callers choose the model: see `models.py`.
        model_map: a caller's name -> ours.
        structured_output: how a JSON schema reaches the API: as the parameters of a forced function, or natively.
        json_repairs: how often the model may mend JSON that does not fit, 0 to 3.
        enable_images: whether images, files and audio may be attached.
        dimensions: what becomes of `dimensions` in embeddings: refused, or the vectors truncated and normalised.
        image_link: what a generated image becomes, `{id}` being its file; None: its tag stays, for `images.py`.
    """

    default_model: str = "GigaChat-2"
    default_embeddings: str = "EmbeddingsGigaR"
    pass_model: Literal["auto", "true", "false"] = "auto"
    model_map: Mapping[str, str] = field(default_factory=dict)
    structured_output: Literal["function", "native"] = "function"
    json_repairs: int = 1
    enable_images: bool = True
    dimensions: Literal["refuse", "truncate"] = "refuse"
    image_link: str | None = IMAGE_LINK
