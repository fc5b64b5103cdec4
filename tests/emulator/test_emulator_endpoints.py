"""Everything that is not chat or files."""

import json
import math
from typing import Any

import pytest
from emulator_callers import Caller, Start

from emulator.yaml import parsed

HUMAN = (
    "Вчера мы с братом ходили на рыбалку, наловили окуней, потом варили уху "
    "и долго сидели у костра, пока не стемнело совсем."
)
MACHINE = "Важно отметить, что рыбалка приносит пользу."


async def test_models_are_listed_with_their_types(begin: Start) -> None:
    caller = await begin(legacy=False)
    value = (await caller.get("/v1/models")).json
    assert value["object"] == "list"
    assert value["data"][0] == {"id": "GigaChat-2", "object": "model", "owned_by": "salutedevices", "type": "chat"}
    assert {model["type"] for model in value["data"]} == {"chat", "embedder"}
    assert len(value["data"]) == 10


async def test_one_model_is_described_or_missing(caller: Caller) -> None:
    assert (await caller.get("/api/v1/models/GigaChat-2-Max")).json["id"] == "GigaChat-2-Max"
    missing = await caller.get("/v1/models/nothing")
    assert (missing.status, missing.json) == (404, {"status": 404, "message": "No such model"})


async def embedded(caller: Caller, *texts: str) -> list[list[float]]:
    value = (await caller.post("/v1/embeddings", {"model": "Embeddings", "input": list(texts)})).json
    return [each["embedding"] for each in value["data"]]


async def test_an_embedding_is_1024_numbers_of_length_one(caller: Caller) -> None:
    value = (await caller.post("/v1/embeddings", {"model": "Embeddings", "input": "мир"})).json
    assert (value["object"], value["model"]) == ("list", "Embeddings")
    (each,) = value["data"]
    assert (each["object"], each["index"], each["usage"]) == ("embedding", 0, {"prompt_tokens": 1})
    assert len(each["embedding"]) == 1024
    assert math.isclose(math.hypot(*each["embedding"]), 1)


async def test_embeddings_are_always_the_same_and_alike_for_like_texts(caller: Caller) -> None:
    cat, same, like, other = await embedded(caller, "мой рыжий кот", "мой рыжий кот", "мой рыжий пёс", "биржа упала")
    assert cat == same
    assert dot(cat, like) > 0.5
    assert dot(cat, other) < 0.2


def dot(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "GigaChat-2", "input": "x"}, 404),
        ({"model": "Embeddings"}, 400),
        ({"model": "Embeddings", "input": [1]}, 400),
    ],
)
async def test_a_wrong_embedding_request_is_refused(caller: Caller, body: Any, status: int) -> None:
    assert (await caller.post("/v1/embeddings", body)).status == status


async def test_tokens_are_counted_in_a_bare_array(caller: Caller) -> None:
    body = {"model": "GigaChat-2", "input": ["Hello, world!", ""]}
    assert (await caller.post("/v1/tokens/count", body)).json == [
        {"object": "tokens", "tokens": 4, "characters": 13},
        {"object": "tokens", "tokens": 0, "characters": 0},
    ]
    assert (await caller.post("/v1/tokens/count", body | {"model": "nothing"})).status == 404
    assert (await caller.post("/v1/tokens/count", body | {"input": "x"})).status == 400


async def test_only_a_prepaid_account_has_a_balance(begin: Start) -> None:
    caller = await begin(tariff="prepaid")
    assert (await caller.get("/v1/balance")).json["balance"][0] == {"usage": "GigaChat", "value": 900000}
    caller.emulator.state.change(tariff="postpaid")
    refused = await caller.get("/v1/balance")
    assert (refused.status, refused.json) == (403, {"status": 403, "message": "Permission denied"})


@pytest.mark.parametrize(
    ("text", "category", "count"),
    [(HUMAN, "human", 0), (f"{HUMAN} {MACHINE}", "mixed", 1), (MACHINE * 4, "ai", 4)],
)
async def test_a_text_is_checked_for_its_writer(caller: Caller, text: str, category: str, count: int) -> None:
    value = (await caller.post("/v1/ai/check", {"model": "GigaCheckDetection", "input": text})).json
    assert (value["category"], value["characters"], len(value["ai_intervals"])) == (category, len(text), count)


async def test_a_text_to_check_must_be_long_enough(caller: Caller) -> None:
    answer = await caller.post("/v1/ai/check", {"model": "GigaCheckDetection", "input": "Привет"})
    assert answer.status == 422


async def test_checks_and_batches_are_not_for_the_prepaid(begin: Start) -> None:
    caller = await begin(tariff="prepaid")
    assert (await caller.post("/v1/ai/check", {"model": "GigaCheckDetection", "input": HUMAN})).status == 403
    assert (await caller.send("POST", "/v1/batches?method=embedder", data=b"")).status == 403


@pytest.mark.parametrize(
    ("text", "settings", "is_profane"),
    [("Добрый день", {}, False), ("Дурак!", {}, True), ("Дурак!", {"neuro": False, "blacklist": False}, False)],
)
async def test_a_text_is_checked_for_profanity(caller: Caller, text: str, settings: Any, is_profane: bool) -> None:
    body = {"model": "GigaFilter", "messages": [{"role": "user", "content": text}], "settings": settings}
    value = (await caller.post("/v1/filter/check", body)).json
    assert value["is_profane"] is is_profane
    assert value["usage"].keys() == {"filter_tokens"}
    assert (await caller.post("/v1/filter/check", body | {"model": "GigaChat-2"})).status == 404


async def test_a_batch_is_answered_line_by_line(caller: Caller) -> None:
    requests = [
        {"id": "1", "request": {"model": "GigaChat-2", "messages": [{"role": "user", "content": "2+2"}]}},
        {"id": "2", "request": {"model": "nothing", "messages": [{"role": "user", "content": "2+2"}]}},
    ]
    lines = "\n".join(map(json.dumps, requests)).encode()
    created = (await caller.send("POST", "/v1/batches?method=chat_completions", data=lines)).json
    assert (created["status"], created["request_counts"]) == ("created", {"total": 2})
    (done,) = (await caller.get(f"/v1/batches?batch_id={created['id']}")).json["batches"]
    assert (done["status"], done["request_counts"]) == ("completed", {"total": 2, "completed": 1, "failed": 1})
    content = (await caller.get(f"/v1/files/{done['output_file_id']}/content")).text
    first, second = map(json.loads, content.splitlines())
    assert first["result"]["choices"][0]["message"]["content"] == "2+2 = 4"
    assert second == {"id": "2", "result": {"status": 404, "message": "No such model"}}


async def test_a_batch_of_embeddings(caller: Caller) -> None:
    line = b'{"id": "1", "request": {"model": "Embeddings", "input": ["x"]}}'
    assert (await caller.send("POST", "/v1/batches?method=embedder", data=line)).status == 200
    assert len((await caller.get("/v1/batches")).json["batches"]) == 1


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("?method=embedder", b"", 400),
        ("?method=embedder", b"{", 400),
        ("?method=embedder", b'{"id": 1}', 400),
        ("", b'{"id": "1", "request": {}}', 400),
    ],
)
async def test_a_wrong_batch_is_refused(caller: Caller, path: str, data: bytes, status: int) -> None:
    assert (await caller.send("POST", f"/v1/batches{path}", data=data)).status == status


async def test_an_unknown_batch_is_not_found(caller: Caller) -> None:
    answer = await caller.get("/v1/batches?batch_id=nothing")
    assert (answer.status, answer.json["message"]) == (404, "Batch task not found")


async def test_a_well_described_function_is_valid(caller: Caller) -> None:
    function = {
        "name": "get_weather",
        "description": "Погода",
        "parameters": {"type": "object", "properties": {}},
        "return_parameters": {"type": "object"},
        "few_shot_examples": [{"request": "Погода?", "params": {}}],
    }
    value = (await caller.post("/v1/functions/validate", function)).json
    assert (value["status"], value["message"]) == (200, "Function is valid")
    assert value["errors"] == value["warnings"] == []
    value = (await caller.post("/v1/functions/validate", function | {"description": None})).json
    assert value["warnings"] == [{"description": "description is missing", "schema_location": "(root)"}]


@pytest.mark.parametrize("function", [{}, {"name": "погода", "parameters": {"type": "object", "properties": {}}}])
async def test_a_badly_described_function_is_told_why(caller: Caller, function: Any) -> None:
    value = (await caller.post("/v1/functions/validate", function)).json
    assert (value["status"], value["message"]) == (400, "Incorrect function syntax")
    assert value["errors"]


OPENAPI = """
openapi: 3.0.0
info: {"title": "Pets", "version": "1"}
# what there is
paths:
  /pets/{id}:
    get:
      operationId: getPet
      summary: "Один питомец: по номеру"
      parameters:
        - name: id
          in: path
          required: true
          description: Номер
          schema:
            type: integer
        - $ref: '#/components/parameters/Full'
    post:
      description: |
        Новый
        питомец
      requestBody:
        content:
          application/json:
            schema:
              $ref: '#/components/schemas/Pet'
components:
  parameters:
    Full:
      name: full
      in: query
      schema: {"type": "boolean"}
  schemas:
    Pet:
      type: object
      required: [name]
      properties:
        name:
          type: string
"""
FUNCTIONS = [
    {
        "name": "getPet",
        "description": "Один питомец: по номеру",
        "parameters": {
            "type": "object",
            "properties": {
                "id": {"type": "integer", "description": "Номер"},
                "full": {"type": "boolean", "description": ""},
            },
            "required": ["id"],
        },
    },
    {
        "name": "post_pets_id",
        "description": "Новый\nпитомец",
        "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
]


@pytest.mark.parametrize("text", [OPENAPI, json.dumps(parsed(OPENAPI))], ids=["yaml", "json"])
async def test_an_openapi_text_becomes_functions(caller: Caller, text: str) -> None:
    answer = await caller.send("POST", "/v1/functions/convert", data=text.encode())
    assert answer.json == {"functions": FUNCTIONS}


@pytest.mark.parametrize("text", ["", "just words", "openapi: 3", "a: {", "paths: [1]", "a: 1\n  b: 2"])
async def test_a_text_that_is_no_openapi_is_refused(caller: Caller, text: str) -> None:
    assert (await caller.send("POST", "/v1/functions/convert", data=text.encode())).status == 400


def test_yaml_is_read_as_far_as_it_is_needed() -> None:
    text = "a:\n- 1\n- 'it''s'\n- x: 1.5\n  y: [a, true]\n-\n  - ~\nb: >\n  one\n  two\nc: \"q\" # why\nd:"
    value = {"a": [1, "it's", {"x": 1.5, "y": ["a", True]}, [None]], "b": "one two", "c": "q", "d": None}
    assert parsed(text) == value


async def test_an_assistant_lives_and_dies(caller: Caller) -> None:
    body = {"model": "GigaChat-2", "name": "Кот", "instructions": "Мурлычь", "file_ids": ["f"]}
    id = (await caller.post("/v1/assistants", body)).json["assistant_id"]
    (shown,) = (await caller.get(f"/v1/assistants?assistant_id={id}")).json["data"]
    assert (shown["name"], shown["files"], shown["threads_count"]) == ("Кот", [{"file_id": "f", "name": "f"}], 0)
    changed = await caller.post("/v1/assistants/modify", {"assistant_id": id, "name": "Пёс"})
    assert (changed.json["name"], changed.json["instructions"]) == ("Пёс", "Мурлычь")
    gone = await caller.post("/v1/assistants/files/delete", {"assistant_id": id, "file_id": "f"})
    assert gone.json == {"file_id": "f", "deleted": True}
    again = await caller.post("/v1/assistants/files/delete", {"assistant_id": id, "file_id": "f"})
    assert (again.status, again.json["message"]) == (404, "No such file")
    assert (await caller.post("/v1/assistants/delete", {"assistant_id": id})).json["deleted"] is True
    assert (await caller.get(f"/v1/assistants?assistant_id={id}")).status == 404


async def test_a_thread_remembers_and_follows_its_assistant(caller: Caller) -> None:
    instructions = "На все вопросы отвечай мяу"
    body = {"model": "GigaChat-2", "name": "Кот", "instructions": instructions}
    assistant = (await caller.post("/v1/assistants", body)).json["assistant_id"]
    question = {"assistant_id": assistant, "messages": [{"role": "user", "content": "Как дела?"}]}
    answer = (await caller.post("/v1/threads/messages/run", question)).json
    assert answer["message"]["content"] == "мяу"
    kept = (await caller.get(f"/v1/threads/messages?thread_id={answer['thread_id']}")).json
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    (thread,) = (await caller.get(f"/v1/threads?assistants_ids={assistant}")).json["threads"]
    assert thread["id"] == answer["thread_id"]


async def test_a_thread_in_a_stream_has_usage_in_every_chunk(caller: Caller) -> None:
    body = {"model": "GigaChat-2", "messages": [{"role": "user", "content": "раз, два"}], "stream": True}
    *chunks, (_, done) = (await caller.post("/v1/threads/messages/run", body)).events
    assert done == "[DONE]"
    assert {payload["object"] for _, payload in chunks} == {"threads.messages.run"}
    assert all(payload["usage"] and payload["thread_id"] and payload["message_id"] for _, payload in chunks)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/threads/run", {"thread_id": "nothing"}, 404),
        ("/v1/threads/run", {}, 422),
        ("/v1/threads/messages/run", {"model": "nothing", "messages": []}, 404),
        ("/v1/threads/delete", {"thread_id": "nothing"}, 404),
        ("/v1/assistants", {"model": "nothing"}, 404),
        ("/v1/assistants/files/delete", {"assistant_id": "nothing", "file_id": "f"}, 404),
    ],
)
async def test_what_is_not_there_is_told(caller: Caller, path: str, body: Any, status: int) -> None:
    assert (await caller.post(path, body)).status == status


async def test_pages_of_a_thread_are_asked_for_with_numbers(caller: Caller) -> None:
    thread = (await caller.post("/v1/threads", {})).json["id"]
    body = {"thread_id": thread, "messages": [{"role": "user", "content": text} for text in "абв"]}
    await caller.post("/v1/threads/messages", body)
    page = (await caller.get(f"/v1/threads/messages?thread_id={thread}&limit=2")).json
    assert [message["content"] for message in page["messages"]] == ["б", "в"]
    assert (await caller.get(f"/v1/threads/messages?thread_id={thread}&limit=two")).status == 400
