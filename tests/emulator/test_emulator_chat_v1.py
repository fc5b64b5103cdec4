"""The first version of chat: shapes, streams and refusals."""

from typing import Any

import pytest
from emulator_callers import MODEL, Answer, Caller, Start

from emulator import mind

WEATHER = {
    "name": "get_weather",
    "description": "Погода в городе",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
CALLED = {"role": "assistant", "content": "", "function_call": {"name": "get_weather", "arguments": {"city": "Уфа"}}}
RETURNED = {"role": "function", "name": "get_weather", "content": '{"temperature": -7}'}


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def refused(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.json) == (status, {"status": status, "message": message})


@pytest.mark.parametrize("base", ["/v1", "/api/v1"])
async def test_an_answer_has_the_shape_of_a_real_one(caller: Caller, base: str) -> None:
    body = {"model": MODEL, "messages": [said("user", "Сколько будет 2+3?")]}
    answer = await caller.post(f"{base}/chat/completions", body)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    value = answer.json
    assert value.keys() == {"choices", "created", "model", "object", "usage"}
    assert (value["model"], value["object"]) == ("GigaChat-2:2.0.28.2", "chat.completion")
    assert value["choices"] == [
        {"message": {"content": "2+3 = 5", "role": "assistant"}, "index": 0, "finish_reason": "stop"}
    ]


async def test_tokens_add_up(caller: Caller) -> None:
    usage = (await caller.chat()).json["usage"]
    assert usage.keys() == {"prompt_tokens", "completion_tokens", "total_tokens", "precached_prompt_tokens"}
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


async def test_a_session_finds_its_prompt_in_the_cache(caller: Caller) -> None:
    session = {"X-Session-ID": "b6874da0-bf06-410b-a150-fd5f9164a0b2"}
    first, second = [(await caller.chat(headers=session)).json["usage"] for _ in range(2)]
    assert first["precached_prompt_tokens"] == 0
    assert second["precached_prompt_tokens"] == second["prompt_tokens"]


async def test_ids_are_echoed_or_made(caller: Caller) -> None:
    mine = await caller.chat(headers={"X-Session-ID": "s", "X-Request-ID": "r"})
    assert (mine.headers["X-Session-ID"], mine.headers["X-Request-ID"]) == ("s", "r")
    made = await caller.chat()
    assert len(made.headers["X-Session-ID"]) == len(made.headers["X-Request-ID"]) == 36


async def test_no_header_speaks_of_limits(caller: Caller) -> None:
    names = {name.lower() for name in (await caller.chat()).headers}
    assert not {name for name in names if "limit" in name or "retry" in name}


async def test_the_same_question_gets_the_same_answer(caller: Caller) -> None:
    first, second = [(await caller.chat("Расскажи о Байкале")).json["choices"] for _ in range(2)]
    assert first == second


async def test_a_stream_has_the_shape_of_a_real_one(caller: Caller) -> None:
    answer = await caller.chat("раз, два, три", stream=True)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    *pieces, last, done = [payload for name, payload in answer.events if not name]
    assert done == "[DONE]"
    assert [set(piece) for piece in pieces] == [{"choices", "created", "model", "object"}] * len(pieces)
    assert {payload["object"] for payload in [*pieces, last]} == {"chat.completion"}
    assert [piece["choices"][0]["delta"].get("role") for piece in pieces] == ["assistant"] + [None] * (len(pieces) - 1)
    assert last["choices"] == [{"delta": {"content": ""}, "index": 0, "finish_reason": "stop"}]
    assert last["usage"]["completion_tokens"] > 0


async def test_the_chunks_of_a_stream_make_the_plain_answer(caller: Caller) -> None:
    question = "Однажды, в студёную зимнюю пору, я из лесу вышел. Был сильный мороз!"
    stream = await caller.chat(question, stream=True)
    contents = [payload["choices"][0]["delta"]["content"] for _, payload in stream.events[:-1]]
    assert len(contents) > 3
    assert "".join(contents) == (await caller.chat(question)).said


async def test_max_tokens_cuts_the_answer_and_says_so(caller: Caller) -> None:
    choice = (await caller.chat("раз два три четыре пять", max_tokens=3)).json["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == "Вы написали"


async def test_reasoning_is_told_when_it_is_asked_for(caller: Caller) -> None:
    message = (await caller.chat(reasoning_effort="low")).json["choices"][0]["message"]
    assert message["reasoning_content"]


async def test_profanity_is_no_error_but_a_blacklist(caller: Caller) -> None:
    choice = (await caller.chat("Ты дурак?", profanity_check=True)).json["choices"][0]
    assert choice["finish_reason"] == "blacklist"
    assert (await caller.chat("Ты дурак?")).json["choices"][0]["finish_reason"] == "stop"


async def test_a_function_that_fits_the_question_is_called(caller: Caller) -> None:
    answer = await caller.chat("Какая погода в Москве на 3 дня?", functions=[WEATHER], function_call="auto")
    choice = answer.json["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["content"] == ""
    assert choice["message"]["function_call"] == {"name": "get_weather", "arguments": {"city": "Москве", "days": 3}}
    assert choice["message"]["functions_state_id"]


@pytest.mark.parametrize("fields", [{"function_call": "none"}, {"function_call": "auto", "functions": []}])
async def test_no_function_is_called_against_the_will_of_the_caller(caller: Caller, fields: Any) -> None:
    answer = await caller.chat("Какая погода в Москве?", **{"functions": [WEATHER]} | fields)
    assert answer.json["choices"][0]["finish_reason"] == "stop"


async def test_a_question_that_no_function_fits_is_answered_in_words(caller: Caller) -> None:
    answer = await caller.chat("Сколько будет 2+2?", functions=[WEATHER])
    assert answer.said == "2+2 = 4"


async def test_a_forced_function_is_called_whatever_is_asked(caller: Caller) -> None:
    forced = {"name": "get_weather", "partial_arguments": {"days": 5}}
    answer = await caller.chat("Привет", functions=[WEATHER], function_call=forced)
    call = answer.json["choices"][0]["message"]["function_call"]
    assert call == {"name": "get_weather", "arguments": {"city": "Привет", "days": 5}}


async def test_a_few_shot_example_teaches(caller: Caller) -> None:
    shots = [{"request": "Как там на улице?", "params": {"city": "Казань"}}]
    answer = await caller.chat(
        "Как там на улице?", functions=[WEATHER | {"few_shot_examples": shots}], function_call={"name": "get_weather"}
    )
    assert answer.json["choices"][0]["message"]["function_call"]["arguments"] == {"city": "Казань"}


async def test_a_streamed_function_call_comes_whole(caller: Caller) -> None:
    answer = await caller.chat("Погода в Уфе?", functions=[WEATHER], stream=True)
    first, last, _ = [payload for _, payload in answer.events]
    assert first["choices"][0]["delta"]["function_call"] == {"name": "get_weather", "arguments": {"city": "Уфе"}}
    assert last["choices"][0]["finish_reason"] == "function_call"


async def test_a_function_result_is_told_in_words(caller: Caller) -> None:
    answer = await caller.chat(messages=[said("user", "Погода в Уфе?"), CALLED, RETURNED], functions=[WEATHER])
    assert answer.said == "Функция get_weather вернула: temperature: -7."


async def test_results_of_parallel_calls_are_all_told(caller: Caller) -> None:
    other = CALLED | {"function_call": {"name": "get_time", "arguments": {}}}
    time = {"role": "function", "name": "get_time", "content": '"12:30"'}
    answer = await caller.chat(messages=[said("user", "Погода и время?"), CALLED, other, time, RETURNED])
    assert "-7" in answer.said
    assert "12:30" in answer.said


async def test_a_call_without_its_result_is_refused(caller: Caller) -> None:
    said_after = [said("user", "Погода?"), CALLED, said("user", "Ну?")]
    for messages in (said_after, said_after[:2]):
        answer = await caller.chat(messages=messages)
        refused(answer, 422, "Invalid params: every assistant function call must have a result in history")


@pytest.mark.parametrize("messages", [[RETURNED], [CALLED, RETURNED | {"name": "get_time"}]])
async def test_a_result_without_its_call_is_refused(caller: Caller, messages: Any) -> None:
    answer = await caller.chat(messages=[said("user", "Погода?"), *messages])
    message = "Invalid params: every assistant function result must have an assistant function call in history"
    refused(answer, 422, message)


async def test_a_result_that_is_no_json_is_refused(caller: Caller) -> None:
    answer = await caller.chat(messages=[said("user", "Погода?"), CALLED, RETURNED | {"content": "тепло"}])
    refused(answer, 422, "Invalid params: invalid function result: JSON parse error")


async def test_json_is_answered_to_a_schema(caller: Caller) -> None:
    schema = {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}
    answer = await caller.chat("Сколько будет 6*7?", response_format={"type": "json_schema", "schema": schema})
    assert answer.said == '{"result":42}'


async def test_a_drawing_is_an_img_tag_and_a_file(caller: Caller) -> None:
    answer = await caller.chat("Нарисуй кота", function_call="auto")
    tag, _, words = answer.said.partition(" fuse")
    assert tag.startswith('<img src="')
    assert words.startswith('="true"/> ')
    file = await caller.get(f"/v1/files/{tag[10:46]}/content", headers={"Accept": "application/jpg"})
    assert file.content.startswith(b"\xff\xd8")
    assert file.headers["Content-Type"] == "image/jpeg"


async def test_a_drawing_in_a_stream_is_announced(caller: Caller) -> None:
    answer = await caller.chat("Нарисуй кота", functions=[{"name": "text2image"}], stream=True)
    roles = [payload["choices"][0]["delta"].get("role") for _, payload in answer.events[:-1]]
    assert roles[:2] == ["function_in_progress", "assistant"]


async def test_attached_files_must_exist(caller: Caller) -> None:
    message = said("user", "Что в файле?") | {"attachments": ["nothing"]}
    refused(await caller.chat(messages=[message]), 404, "No such file")


async def test_a_stored_conversation_goes_on(caller: Caller) -> None:
    first = (await caller.chat("Погода?", storage={"is_stateful": True}, messages=[said("user", "Раз")])).json
    again = {"is_stateful": True, "thread_id": first["thread_id"]}
    second = (await caller.chat("Два", storage=again, model=None)).json
    assert second["thread_id"] == first["thread_id"]
    assert second["message_id"] != first["message_id"]
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    refused(await caller.chat(storage=again | {"thread_id": "nothing"}), 404, "No such thread")
    without_model = await caller.chat(storage={"is_stateful": True}, model=None)
    refused(without_model, 400, "Your request contains invalid JSON syntax.")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": "GigaChat-2"}',
        b'{"model": "GigaChat-2", "messages": []}',
        b'{"model": "GigaChat-2", "messages": "hi"}',
        b'{"model": "GigaChat-2", "messages": ["hi"]}',
        b'{"model": "GigaChat-2", "messages": [{"role": "robot", "content": "hi"}]}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}',
        b'{"model": "GigaChat-2", "messages": [{"content": "hi"}]}',
        b'{"messages": [{"role": "user", "content": "hi"}]}',
        b'{"model": 2, "messages": [{"role": "user", "content": "hi"}]}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "hi"}], "temperature": "hot"}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1.5}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "hi"}], "stream": "yes"}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "hi"}], "function_call": "always"}',
        b'{"model": "GigaChat-2", "messages": [{"role": "user", "content": "hi"}], "functions": [1]}',
    ],
)
async def test_every_body_of_a_wrong_shape_is_invalid_json(caller: Caller, body: bytes) -> None:
    answer = await caller.send("POST", "/v1/chat/completions", data=body)
    refused(answer, 400, "Your request contains invalid JSON syntax.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0}, "temperature must be in range (0, +inf)"),
        ({"top_p": 1.1}, "top_p must be in range [0, 1]"),
        ({"max_tokens": 0}, "max_tokens must be in range (0, +inf)"),
        ({"repetition_penalty": 0}, "repetition_penalty must be in range (0, +inf)"),
        ({"update_interval": -1}, "update_interval must be in range [0, +inf)"),
        ({"messages": [said("user", "a"), said("system", "b")]}, "system message must be the first message"),
        ({"messages": [said("system", "a"), said("system", "b")]}, "system message must be the first message"),
        ({"function_call": {"name": "nothing"}}, "function nothing is not among the functions of the request"),
        (
            {"functions": [{"name": "погода"}, {"name": "2x"}, {"name": "a-b.c_9"}]},
            "Invalid function names. Only Latin letters (A-Z or a-z), underscore (_), hyphen (-), dot (.) "
            "and digits (not leading) are allowed.: [погода, 2x]",
        ),
    ],
)
async def test_a_wrong_value_is_told_by_its_name(caller: Caller, fields: Any, message: str) -> None:
    refused(await caller.chat(**fields), 422, f"Invalid params: {message}")


@pytest.mark.parametrize("value", [None, 0.0005, 1, 3.5])
async def test_odd_temperatures_are_allowed(caller: Caller, value: Any) -> None:
    assert (await caller.chat(temperature=value, top_p=0, repetition_penalty=1)).status == 200


async def test_a_schema_may_come_as_text(caller: Caller) -> None:
    form = {"type": "json_schema", "schema": '{"type": "array", "items": {"type": "integer"}}'}
    assert (await caller.chat("числа 1 и 2", response_format=form)).said == "[1,2]"
    broken = await caller.chat(response_format=form | {"schema": "{"})
    refused(broken, 400, "Your request contains invalid JSON syntax.")


async def test_a_slip_of_the_emulator_itself_is_a_500(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mind, "MOODS", ())
    refused(await caller.chat(), 500, "Internal Server Error")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "json_object"}, 'Unknown type "json_object" in response_format'),
        ({"type": "json_schema"}, "Empty schema with json format type is not supported"),
    ],
)
async def test_a_wrong_response_format_is_refused(caller: Caller, form: Any, message: str) -> None:
    refused(await caller.chat(response_format=form), 400, message)


@pytest.mark.parametrize("model", ["GigaChat", "GigaChat-9", "Embeddings"])
async def test_a_model_that_is_not_there_is_404(begin: Start, model: str) -> None:
    """The new host does not know the bare names; `legacy=False` is like it."""
    caller = await begin(legacy=False)
    answer = await caller.chat(model=model)
    refused(answer, 404, "No such model")
    assert answer.content == b'{"status":404,"message":"No such model"}'


async def test_the_old_names_are_served_too(caller: Caller) -> None:
    assert (await caller.chat(model="GigaChat")).json["model"] == "GigaChat:2.0.28.2"
    assert (await caller.chat(model="GigaChat:latest")).status == 200
    answer = await caller.chat(model="GigaChat-Plus", functions=[WEATHER])
    refused(answer, 422, "Requested model does not support functions")


async def test_a_prompt_longer_than_the_context_is_too_large(caller: Caller) -> None:
    refused(await caller.chat("а б " * 70_000), 413, "Payload too large")
    assert (await caller.chat("aaaaa" * 30_000)).status == 200


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/files", "/", "/v3/chat/completions", "/chat/completions"])
async def test_an_unknown_path_is_a_403_page(caller: Caller, path: str) -> None:
    answer = await caller.get(path)
    assert (answer.status, answer.headers["Content-Type"]) == (403, "text/html")
    assert "403 Forbidden" in answer.text
