"""`/batches`: many requests in one file. The emulator answers them at once and keeps the answers for a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from emulator import chat_v1, embeddings
from emulator.answers import Answer, Stream, json_answer
from emulator.calls import Call
from emulator.errors import ApiError, invalid_json
from emulator.parameters import shaped
from emulator.shelves import Batch, File
from emulator.state import State

METHODS: dict[str, Callable[[State, Call], Answer | Stream]] = {
    "chat_completions": chat_v1.chat,
    "embedder": embeddings.embeddings,
}


def create(state: State, call: Call) -> Answer:
    if state.options.tariff == "prepaid":
        raise ApiError(403)
    method = call.query.get("method", "")
    if method not in METHODS:
        raise invalid_json()
    lines = [read(line) for line in call.body.splitlines() if line.strip()]
    if not lines:
        raise invalid_json()
    results = [{"id": line["id"], "result": result(state, call, method, line["request"])} for line in lines]
    batch = state.batches.add(Batch(account=call.account, method=method, total=len(lines)))
    batch.failed = sum("status" in line["result"] for line in results)
    batch.output_file_id = keep(state, call, results)
    return json_answer(described(batch, "created", {"total": batch.total}))


def read(line: bytes) -> dict[str, Any]:
    """One line: `{"id", "request"}`."""
    try:
        value = shaped(orjson.loads(line), dict)
    except ValueError:
        raise invalid_json() from None
    return {"id": shaped(value.get("id"), str), "request": shaped(value.get("request"), dict)}


def result(state: State, call: Call, method: str, request: dict[str, Any]) -> Any:
    """What the same request would have got by itself; a refusal too."""
    body = orjson.dumps(request | {"stream": False})
    single = Call(call.n, "POST", call.target, call.headers, call.arrived_ns, body, account=call.account)
    try:
        answer = METHODS[method](state, single)
    except ApiError as refusal:
        return refusal.body
    return orjson.loads(answer.body if isinstance(answer, Answer) else b"".join(answer.chunks))


def keep(state: State, call: Call, results: list[dict[str, Any]]) -> str:
    content = b"\n".join(map(orjson.dumps, results)) + b"\n"
    file = File(account=call.account, filename="results.jsonl", content=content, mime="application/octet-stream")
    return state.files.add(file).id


def list_batches(state: State, call: Call) -> Answer:
    id = call.query.get("batch_id")
    batches = [state.batches.get(call.account, id)] if id else state.batches.of(call.account)
    return json_answer({"batches": [finished(batch) for batch in batches]})


def finished(batch: Batch) -> dict[str, Any]:
    counts = {"total": batch.total, "completed": batch.total - batch.failed, "failed": batch.failed}
    return described(batch, "completed", counts) | {"output_file_id": batch.output_file_id}


def described(batch: Batch, status: str, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": batch.id,
        "method": batch.method,
        "request_counts": counts,
        "status": status,
        "created_at": batch.created_at,
        "updated_at": batch.updated_at,
    }
