"""Whole answers: every field of OpenAI's shape, with what GigaChat said in it."""

import orjson
import pytest
from openai_talk import (
    CREATED,
    ID,
    STATE_ID,
    USAGE,
    calls,
    chat,
    choice,
    completion,
    gigachat,
    message,
    says,
    tool,
    user,
)

from proxy.dialects.openai import Options
from proxy.errors import UpstreamError

FILE = "3727db23-91a3-44fa-a6b7-9f0a311d3e9e"
TOOLS = {"tools": [tool("f"), tool("2x")]}


# ---- The shape ----


def test_a_whole_answer_has_every_field_that_openai_has():
    assert completion(chat(model="gpt-4o"), says("Привет")) == {
        "id": ID,
        "object": "chat.completion",
        "created": CREATED,
        "model": "gpt-4o",
        "system_fingerprint": "fp_2.0.28.2",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Привет", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 17,
            "completion_tokens": 3,
            "total_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
    }


def test_an_answer_may_come_as_bytes():
    made = chat()
    assert made.completion([[orjson.dumps(says("Hi"))]]) == made.completion([[says("Hi")]])


def test_several_choices_are_numbered_and_paid_for_together():
    found = completion(chat(n=3), says("a"), says("b"), says("c"))
    assert [(each["index"], each["message"]["content"]) for each in found["choices"]] == [(0, "a"), (1, "b"), (2, "c")]
    assert found["usage"]["total_tokens"] == 60


@pytest.mark.parametrize("model", [None, "", "GigaChat", 5])
def test_a_model_without_a_version_leaves_no_fingerprint(model):
    assert completion(chat(), says() | {"model": model})["system_fingerprint"] is None


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("blacklist", "content_filter"),
        ("request_filter", "content_filter"),
        ("error", "stop"),
        ("function_call", "stop"),  # of its own functions it tells no call
        ("", "stop"),
        (None, "stop"),
        ("something new", "stop"),
    ],
)
def test_every_finish_has_a_word_of_openais(finish, expected):
    assert choice(chat(), says("Hi", finish=finish))["finish_reason"] == expected


def test_an_error_that_says_nothing_does_not_pass_for_an_answer():
    with pytest.raises(UpstreamError) as failed:
        chat().completion([[says(finish="error")]])
    assert (failed.value.status, failed.value.is_retryable) == (502, False)


def test_the_ids_of_a_stored_conversation_are_told():
    """Who asked for `storage` needs them to go on."""
    found = completion(chat(storage={"is_stateful": True}), says("Hi") | {"thread_id": "t", "message_id": "m"})
    assert (found["thread_id"], found["message_id"]) == ("t", "m")


# ---- Calls ----


def test_a_call_is_a_tool_call_and_the_content_null():
    found = choice(chat(**TOOLS), calls("f", {"city": "Осло"}, functions_state_id=STATE_ID))
    assert found["finish_reason"] == "tool_calls"
    assert found["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [{"id": STATE_ID, "type": "function", "function": {"name": "f", "arguments": '{"city":"Осло"}'}}],
    }


def test_what_was_said_with_a_call_is_told():
    assert (
        message(chat(**TOOLS), calls("f", {}) | says("Let me see.", function_call={"name": "f"}))["content"]
        == "Let me see."
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, "{}"), (None, "{}"), ("", "{}"), ('{"a": 1}', '{"a": 1}'), ({"a": [1, None]}, '{"a":[1,null]}')],
)
def test_arguments_are_json_in_a_text(arguments, expected):
    """The API gives an object; its description says a text."""
    assert message(chat(**TOOLS), calls("f", arguments))["tool_calls"][0]["function"]["arguments"] == expected


def test_a_call_without_an_id_gets_one_of_ours():
    """The same for the same answer, another for each choice, and no longer than OpenAI's."""
    made = chat(n=2, **TOOLS)
    found = [completion(made, calls("f", {}), calls("f", {})) for _ in range(2)]
    ids = [[each["message"]["tool_calls"][0]["id"] for each in one["choices"]] for one in found]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2
    assert all(id.startswith("call_") and len(id) <= 40 for id in ids[0])


def test_who_asked_with_functions_gets_a_function_call():
    found = choice(
        chat(functions=[{"name": "2x"}]),
        gigachat(chat(functions=[{"name": "2x"}], function_call={"name": "2x"}).data()),
    )
    assert found["message"]["function_call"] == {"name": "2x", "arguments": "{}"}
    assert "tool_calls" not in found["message"]
    assert found["finish_reason"] == "function_call"


# ---- What stands in the text, and beside it ----


def test_reasoning_is_told_by_the_name_that_programs_look_for():
    found = message(chat(), says("<think>So</think>Hi", reasoning_content="First. "))
    assert (found["reasoning_content"], found["content"]) == ("First. So", "Hi")
    assert "reasoning_content" not in message(chat(), says("Hi"))


def test_a_stop_sequence_ends_the_text_and_is_not_in_it():
    found = choice(chat(stop=["\n\n", "END"]), says("One.\n\nTwo.", finish="length"))
    assert (found["message"]["content"], found["finish_reason"]) == ("One.", "stop")


def test_one_stop_sequence_may_come_without_a_list():
    assert message(chat(stop="e"), says("Hello"))["content"] == "H"


@pytest.mark.parametrize("stop", [None, [], "", ["", ""]])
def test_an_empty_stop_stops_nothing(stop):
    """Some programs send it for none."""
    assert message(chat(stop=stop), says("Hello"))["content"] == "Hello"


def test_an_image_is_a_link_to_its_file():
    said = f'<img src="{FILE}" fuse="true"/> A cat.'
    assert message(chat(), says(said))["content"] == f"![image](/v1/files/{FILE}/content) A cat."
    here = Options(image_link="https://here/v1/files/{id}/content")
    assert message(chat(options=here), says(said))["content"].startswith(f"![image](https://here/v1/files/{FILE}/")
    assert message(chat(options=Options(image_link=None)), says(said))["content"] == said


def test_sources_are_annotations():
    inline = {"sources": {"1": {"url": "https://a/", "title": "A"}, "2": {"url": "https://b/"}, "3": {"title": "?"}}}
    found = message(chat(), says("Cold.[sources=[1,2]]", inline_data=inline))
    assert found["content"] == "Cold."
    assert [each["url_citation"]["url"] for each in found["annotations"]] == ["https://a/", "https://b/"]


@pytest.mark.parametrize("inline", [None, [], {"sources": []}, {"sources": {"1": 5}}, {"sources": {"1": {"url": 5}}}])
def test_sources_of_another_shape_are_none(inline):
    assert "annotations" not in message(chat(), says("Cold.", inline_data=inline))


# ---- Usage ----


@pytest.mark.parametrize(
    ("usage", "prompt", "completion", "cached"),
    [
        (USAGE, 17, 3, 2),
        ({"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5, "precached_prompt_tokens": 37}, 38, 4, 37),
        ({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}, 5, 1, 0),
        ({"prompt_tokens": None, "completion_tokens": -1}, 0, 0, 0),
        ({}, 0, 0, 0),
    ],
)
def test_the_numbers_keep_openais_sums(usage, prompt, completion, cached):
    """The total is prompt and completion, and what was cached is a part of the prompt."""
    found = chat().completion([[says("Hi") | {"usage": usage}]])["usage"]
    assert (found["prompt_tokens"], found["completion_tokens"]) == (prompt, completion)
    assert found["total_tokens"] == prompt + completion
    assert found["prompt_tokens_details"]["cached_tokens"] == cached


def test_an_api_that_tells_no_usage_is_not_made_to():
    answer = says("Hi")
    del answer["usage"]
    assert completion(chat(), answer)["usage"] is None


# ---- What cannot be read ----


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"choices": None}, {"choices": {}}, {"choices": ["Hi"]}, {"choices": [{"message": "Hi"}]}, b"5", b"[]"],
)
def test_an_answer_that_cannot_be_read_is_the_upstreams_failure(answer):
    with pytest.raises(UpstreamError) as failed:
        chat().completion([[answer]])
    assert failed.value.status == 502
    with pytest.raises(UpstreamError):
        chat().stream().feed(answer)


@pytest.mark.parametrize(
    "said",
    [{"content": None}, {"content": 5}, {"function_call": "f"}, {"function_call": {}}, {"reasoning_content": []}],
)
def test_a_field_of_another_shape_says_nothing(said):
    found = choice(chat(), says(**{"content": "", **said}))
    assert found["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert found["finish_reason"] == "stop"


def test_whatever_is_asked_gigachat_answers_in_openais_shape():
    """Through the API's own checks."""
    for fields in ({}, {"reasoning_effort": "high"}, {"max_tokens": 1}, {"functions": [{"name": "text2image"}]}):
        made = chat(user("Нарисуй кота"), **fields)
        assert completion(made, gigachat(made.data()))["choices"][0]["message"]["content"]
