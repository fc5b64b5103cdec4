"""OpenAI's dialect, translated for GigaChat: pure functions, dicts in and dicts out, no sockets and no clock.

What a route needs stands here by name. To read the whole:

    chat.py         one chat request from its body to its answer: begin here
    shapes.py       what each field may be
    messages.py     the conversation; parts.py: what a message holds; calls.py: calls and their results
    tools.py        functions and the choice among them; names.py: names that GigaChat refuses
    schemas.py      JSON schemas written out; plain.py: as plain as functions need them
    parameters.py   everything else that is asked for; models.py: which model answers
    formats.py      how the answer must look; json_text.py: the JSON in a text; validation.py: does it fit
    answers.py      what GigaChat says, read; usage.py: what it cost
    completions.py  a whole answer told; streams.py: chunk by chunk; further.py: when one call is not enough
    text.py         the text on its way: thinking.py, marks.py (images, sources), stops.py
    embeddings.py   listing.py (models)   files.py   errors.py   options.py (what the operator decides)
    untranslated.py the same dialect for an API that speaks it itself
"""

from proxy.dialects.openai.chat import Answers, Chat
from proxy.dialects.openai.embeddings import Embeddings
from proxy.dialects.openai.errors import OpenAI, envelope
from proxy.dialects.openai.files import decoded, file_deleted, file_list, file_object, media_type, type_by_filename
from proxy.dialects.openai.listing import model, model_info, model_info_list, model_list
from proxy.dialects.openai.marks import images_in, with_images
from proxy.dialects.openai.models import chat_model, embeddings_model
from proxy.dialects.openai.options import Options
from proxy.dialects.openai.parts import Attachment
from proxy.dialects.openai.streams import ChatStream

__all__ = [
    "Answers",
    "Attachment",
    "Chat",
    "ChatStream",
    "Embeddings",
    "OpenAI",
    "Options",
    "chat_model",
    "decoded",
    "embeddings_model",
    "envelope",
    "file_deleted",
    "file_list",
    "file_object",
    "images_in",
    "media_type",
    "model",
    "model_info",
    "model_info_list",
    "model_list",
    "type_by_filename",
    "with_images",
]
