"""The second version of chat: shapes, named events and refusals."""

from typing import Any

import pytest
from emulator_callers import MODEL, Answer, Caller

TOOLS = [
    {
        "functions": {
            "specifications": [
                {
                    "name": "get_weather",
                    "description": "Погода в городе",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
                }
            ]
        }
    }
]


def called(name: str = "get_weather", **more: Any) -> dict[str, Any]:
    call = {"name": name, "arguments": {"city": "Уфа"}, **more}
    return {"role": "assistant", "content": [{"function_call": call}]}


def returned(result: Any, role: str = "function", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"function_result": {"name": "get_weather", "result": result, **more}}]}


def refused(answer: Answer, status: int, message: str) -> None:
    assert (answer.status, answer.json) == (status, {"status": status, "message": message})


@pytest.mark.parametrize("base", ["/v2", "/api/v2"])
async def test_an_answer_has_the_shape_of_a_real_one(caller: Caller, base: str) -> None:
    body = {"model": "GigaChat-3-Ultra", "messages": [{"role": "user", "content": [{"text": "2+3?"}]}]}
    value = (await caller.post(f"{base}/chat/completions", body)).json
    assert value.keys() == {"model", "created_at", "messages", "finish_reason", "usage"}
    assert value["model"] == "GigaChat-3-Ultra:32.3.18.5"
    assert value["messages"] == [{"role": "assistant", "content": [{"text": "2+3 = 5"}]}]
    usage = value["usage"]
    assert usage.keys() == {"input_tokens", "input_tokens_details", "output_tokens", "total_tokens"}
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]


async def test_a_stream_is_named_events_without_done(caller: Caller) -> None:
    answer = await caller.chat_v2("раз, два, три", stream=True)
    assert answer.headers["Content-Type"] == "text/event-stream"
    *deltas, (last, ending) = answer.events
    assert {name for name, _ in deltas} == {"response.message.delta"}
    assert last == "response.message.done"
    assert ending.keys() == {"model", "created_at", "finish_reason", "usage"}
    assert "[DONE]" not in answer.text
    texts = [payload["messages"][0]["content"][0]["text"] for _, payload in deltas]
    assert "".join(texts) == "Вы написали: раз, два, три"


async def test_a_function_call_has_an_id_and_a_state(caller: Caller) -> None:
    value = (await caller.chat_v2("Какая погода в Москве?", tools=TOOLS)).json
    (message,) = value["messages"]
    (part,) = message["content"]
    assert value["finish_reason"] == "function_call"
    assert part["function_call"] | {"id": ""} == {"id": "", "name": "get_weather", "arguments": {"city": "Москве"}}
    assert len(part["function_call"]["id"]) == len(message["tool_state_id"]) == 36


async def test_a_streamed_function_call_comes_with_the_last_event(caller: Caller) -> None:
    ((name, payload),) = (await caller.chat_v2("Погода?", tools=TOOLS, stream=True)).events
    assert name == "response.message.done"
    assert payload["messages"][0]["content"][0]["function_call"]["name"] == "get_weather"


@pytest.mark.parametrize(
    ("mode", "finish"),
    [
        ({"mode": "none"}, "stop"),
        ({"mode": "auto"}, "stop"),
        ({"mode": "forced", "function_name": "get_weather"}, "function_call"),
    ],
)
async def test_tool_config_rules_the_calls(caller: Caller, mode: Any, finish: str) -> None:
    value = (await caller.chat_v2("Привет", tools=TOOLS, tool_config=mode)).json
    assert value["finish_reason"] == finish


@pytest.mark.parametrize("result", ['{"t": -7}', {"t": -7}])
@pytest.mark.parametrize("role", ["function", "tool"])
async def test_a_function_result_is_told_in_words(caller: Caller, role: str, result: Any) -> None:
    value = (await caller.chat_v2("Погода?", called(), returned(result, role), tools=TOOLS)).json
    assert value["messages"][0]["content"] == [{"text": "Функция get_weather вернула: t: -7."}]


async def test_parallel_calls_and_their_results_stand_in_one_message_each(caller: Caller) -> None:
    calls = {"role": "assistant", "content": called()["content"] * 2}
    results = {"role": "function", "content": returned("1")["content"] + returned("2")["content"]}
    assert (await caller.chat_v2("Погода?", calls, results)).status == 200
    one = {"role": "function", "content": returned("1")["content"]}
    answer = await caller.chat_v2("Погода?", calls, one)
    refused(answer, 422, "Invalid params: every assistant function call must have a result in history")


async def test_a_result_without_a_call_is_refused(caller: Caller) -> None:
    answer = await caller.chat_v2("Погода?", returned("1"))
    message = "Invalid params: every assistant function result must have an assistant function call in history"
    refused(answer, 422, message)


async def test_a_result_that_is_no_json_is_refused(caller: Caller) -> None:
    answer = await caller.chat_v2("Погода?", called(), returned("тепло"))
    refused(answer, 422, "Invalid params: invalid function result: JSON parse error")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "text"},
        {"role": "user", "content": ["text"]},
        {"role": "robot", "content": [{"text": "hi"}]},
        called(arguments='{"city": "Уфа"}'),
        returned("1", name=None),
    ],
)
async def test_a_message_of_a_wrong_shape_is_invalid_json(caller: Caller, message: Any) -> None:
    refused(await caller.chat_v2("Погода?", message), 400, "Your request contains invalid JSON syntax.")


async def test_no_model_is_invalid_json(caller: Caller) -> None:
    refused(await caller.chat_v2("Привет", model=None), 400, "Your request contains invalid JSON syntax.")


@pytest.mark.parametrize(
    ("tool", "status", "message"),
    [
        ("zzz", 404, "Unknown tool zzz"),
        ("url_extraction", 404, "Unknown tool url_extraction"),
        ("code_interpreter", 422, "Tool code_interpreter is unavailable"),
    ],
)
async def test_a_tool_that_is_not_there_is_told_from_a_closed_one(
    caller: Caller, tool: str, status: int, message: str
) -> None:
    refused(await caller.chat_v2("Привет", tools=[{tool: {}}]), status, message)


async def test_a_web_search_names_its_sources(caller: Caller) -> None:
    value = (await caller.chat_v2("Новости?", tools=[{"web_search": {}}])).json
    (part,) = value["messages"][0]["content"]
    assert part["inline_data"]["sources"]["1"].keys() == {"url", "title"}


async def test_a_tool_tells_of_its_progress_in_a_stream(caller: Caller) -> None:
    answer = await caller.chat_v2("Новости?", tools=[{"web_search": {}}], stream=True)
    assert [name for name, _ in answer.events[:2]] == ["response.tool.in_progress", "response.tool.completed"]


async def test_a_drawing_is_a_file_part(caller: Caller) -> None:
    value = (await caller.chat_v2("Нарисуй кота", tools=[{"image_generate": {}}])).json
    files, text = value["messages"][0]["content"]
    (file,) = files["files"]
    assert file.keys() == {"id", "mime", "target"}
    assert text["text"]
    assert (await caller.get(f"/v1/files/{file['id']}/content")).content.startswith(b"\xff\xd8")


async def test_a_regular_expression_is_matched(caller: Caller) -> None:
    form = {"response_format": {"type": "regex", "regex": r"\d{4}-\d\d"}}
    value = (await caller.chat_v2("Счёт 1234-56 оплачен", model_options=form)).json
    assert value["messages"][0]["content"] == [{"text": "1234-56"}]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"type": "json_object"}, 'Unknown type "json_object" in response_format'),
        ({"type": "json_schema"}, "Empty schema with json format type is not supported"),
    ],
)
async def test_a_wrong_response_format_is_refused(caller: Caller, form: Any, message: str) -> None:
    refused(await caller.chat_v2("Привет", model_options={"response_format": form}), 400, message)


async def test_options_of_the_model_take_effect(caller: Caller) -> None:
    value = (await caller.chat_v2("раз два три", model_options={"max_tokens": 1})).json
    assert value["finish_reason"] == "length"
    wrong = await caller.chat_v2("раз", model_options={"repetition_penalty": 0})
    refused(wrong, 422, "Invalid params: repetition_penalty must be in range (0, +inf)")


async def test_profanity_has_a_finish_reason_of_its_own(caller: Caller) -> None:
    value = (await caller.chat_v2("Ты дурак?", disable_filter=False)).json
    assert value["finish_reason"] == "request_blacklist"


async def test_a_file_from_the_first_version_can_be_asked_about(caller: Caller) -> None:
    picture = (await caller.chat("Нарисуй кота", function_call="auto")).said[10:46]
    value = (await caller.chat_v2([{"text": "Что здесь?"}, {"files": [{"id": picture}]}])).json
    assert value["messages"][0]["content"] == [{"text": "Вы написали: Что здесь? Файлов: 1."}]


async def test_a_stored_conversation_goes_on(caller: Caller) -> None:
    first = (await caller.chat_v2("Раз", storage={})).json
    second = (await caller.chat_v2("Два", storage={"thread_id": first["thread_id"]}, model=None)).json
    assert second["thread_id"] == first["thread_id"]
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


async def test_there_is_nothing_but_chat_in_the_second_version(caller: Caller) -> None:
    assert (await caller.get("/v2/models")).status == 403


async def test_the_model_is_echoed_with_its_version(caller: Caller) -> None:
    assert (await caller.chat_v2("Привет")).json["model"] == f"{MODEL}:2.0.28.2"
