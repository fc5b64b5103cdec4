"""The table of endpoints: which path is answered by which function, and who may call it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from emulator import (
    assistants,
    balance,
    batches,
    chat_v1,
    chat_v2,
    checks,
    embeddings,
    files,
    functions,
    models,
    oauth,
    threads,
    tokens_count,
)
from emulator.answers import Answer, Stream, html_answer
from emulator.calls import Call
from emulator.state import State


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One line of the table.

    Args:
        is_open: no token is asked for.
        is_generation: it counts against the limits and takes the latency.
    """

    answer: Callable[[State, Call], Answer | Stream]
    is_open: bool = False
    is_generation: bool = False


def forbidden(state: State, call: Call) -> Answer:
    """What the nginx in front of the API says of a path that it does not know."""
    return html_answer(403, "Forbidden")


UNKNOWN = Endpoint(forbidden, is_open=True)

# Every path but the first is served under /api too.
ENDPOINTS = {
    "POST /api/v2/oauth": Endpoint(oauth.oauth, is_open=True),
    "POST /v1/token": Endpoint(oauth.token, is_open=True),
    "POST /v1/chat/completions": Endpoint(chat_v1.chat, is_generation=True),
    "POST /v2/chat/completions": Endpoint(chat_v2.chat, is_generation=True),
    "POST /v1/embeddings": Endpoint(embeddings.embeddings, is_generation=True),
    "POST /v1/tokens/count": Endpoint(tokens_count.count),
    "GET /v1/models": Endpoint(models.list_models),
    "GET /v1/models/{id}": Endpoint(models.get_model),
    "GET /v1/files": Endpoint(files.list_files),
    "POST /v1/files": Endpoint(files.upload),
    "GET /v1/files/{id}": Endpoint(files.get_file),
    "GET /v1/files/{id}/content": Endpoint(files.get_content),
    "POST /v1/files/{id}/delete": Endpoint(files.delete),
    "GET /v1/balance": Endpoint(balance.balance),
    "POST /v1/functions/validate": Endpoint(functions.validate),
    "POST /v1/functions/convert": Endpoint(functions.convert),
    "POST /v1/ai/check": Endpoint(checks.ai_check),
    "POST /v1/filter/check": Endpoint(checks.filter_check),
    "GET /v1/batches": Endpoint(batches.list_batches),
    "POST /v1/batches": Endpoint(batches.create),
    "GET /v1/assistants": Endpoint(assistants.list_assistants),
    "POST /v1/assistants": Endpoint(assistants.create),
    "POST /v1/assistants/modify": Endpoint(assistants.modify),
    "POST /v1/assistants/delete": Endpoint(assistants.delete),
    "POST /v1/assistants/files/delete": Endpoint(assistants.delete_file),
    "GET /v1/threads": Endpoint(threads.list_threads),
    "POST /v1/threads": Endpoint(threads.create),
    "POST /v1/threads/retrieve": Endpoint(threads.retrieve),
    "POST /v1/threads/delete": Endpoint(threads.delete),
    "GET /v1/threads/messages": Endpoint(threads.list_messages),
    "POST /v1/threads/messages": Endpoint(threads.add_messages),
    "GET /v1/threads/run": Endpoint(threads.get_run),
    "POST /v1/threads/run": Endpoint(threads.run, is_generation=True),
    "POST /v1/threads/messages/run": Endpoint(threads.run_messages, is_generation=True),
    "POST /v1/threads/messages/rerun": Endpoint(threads.rerun_messages, is_generation=True),
}


def find(call: Call) -> Endpoint:
    """The endpoint of a call; the id in its path, if there is one, is noted in the call."""
    return ENDPOINTS.get(f"{call.method} {call.path}") or find_versioned(call) or UNKNOWN


def find_versioned(call: Call) -> Endpoint | None:
    path = call.path.removeprefix("/api")
    exact = ENDPOINTS.get(f"{call.method} {path}")
    parts = path.split("/")
    if exact or len(parts) < 4:
        return exact
    call.id, parts[3] = unquote(parts[3]), "{id}"
    return ENDPOINTS.get(f"{call.method} {'/'.join(parts)}")
