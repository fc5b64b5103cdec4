"""Answers in the form that was asked for: by whatever means the API has, checked, mended, or refused."""

import orjson
import pytest
from openai_talk import (
    asked,
    calls,
    chat,
    choice,
    completion,
    deltas,
    finishes,
    gigachat,
    message,
    says,
    schema_format,
    tool,
    user,
)
from pydantic import BaseModel

from proxy.dialects.openai import Options
from proxy.dialects.openai.json_text import found_in
from proxy.errors import BadRequest, UpstreamError

JSON = {"type": "json_object"}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NATIVE = Options(structured_output="native")
STRICT = schema_format(PERSON, strict=True)
ANN = '{"name":"Ann","age":30}'
WRONG = '{"name":"Ann"}'


def text_of(chat, answer):
    return message(chat, answer)["content"]


# ---- How the API is asked ----


def test_text_is_what_the_api_gives_anyway():
    assert asked(response_format={"type": "text"}) == asked()


def test_a_json_object_is_asked_for_in_words():
    """The API does not know it."""
    data = chat("Hi", response_format=JSON).data()
    assert "JSON" in data["messages"][0]["content"]
    assert "response_format" not in data["generate_parameters"]


def test_the_instruction_comes_after_the_callers_own():
    data = chat({"role": "system", "content": "Be kind."}, "Hi", response_format=JSON).data()
    assert data["messages"][0]["content"].startswith("Be kind.\n\n")
    assert len(data["messages"]) == 2


def test_a_schema_is_a_function_that_must_be_called():
    given = asked(response_format=schema_format(PERSON, description="A person"))
    (function,) = given["functions"]
    assert (function["name"], function["description"]) == ("answer", "A person")
    assert function["parameters"]["required"] == ["name", "age"]
    assert given["function_call"] == {"name": "answer"}


@pytest.mark.parametrize(
    ("more", "strict"),
    [({}, {}), ({"strict": True}, {"strict": True}), ({"strict": False}, {"strict": False}), ({"strict": None}, {})],
)
def test_natively_a_schema_goes_as_it_is(more, strict):
    given = asked(response_format=schema_format(PERSON, **more), options=NATIVE)
    assert given == {"response_format": {"type": "json_schema", "schema": PERSON, **strict}}


def test_natively_what_it_refers_to_is_written_out():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"anyOf": [{"type": "null"}, PERSON]}},
    }
    given = asked(response_format=schema_format(schema), options=NATIVE)["response_format"]["schema"]
    assert given == {"type": "object", "properties": {"a": {"anyOf": [{"type": "null"}, PERSON]}}}


def test_together_with_tools_it_is_always_native():
    """A forced function would leave the model no choice."""
    given = asked(response_format=STRICT, tools=[tool("f")])
    assert [each["name"] for each in given["functions"]] == ["f"]
    assert "function_call" not in given
    assert given["response_format"]["schema"] == PERSON


def test_tools_that_must_not_be_called_are_no_hindrance():
    given = asked(response_format=STRICT, tools=[tool("f")], tool_choice="none")
    assert given["function_call"] == {"name": "answer"}


def test_with_documents_it_is_native():
    """GigaChat's own function must be free to read them."""
    part = {"type": "file", "file": {"file_id": "x"}}
    given = asked(user([part]), response_format=STRICT)
    assert given["function_call"] == "auto"
    assert "response_format" in given


@pytest.mark.parametrize("schema", [{"type": "array", "items": {}}, {"type": "string"}, {"enum": ["a", "b"]}])
def test_what_is_no_object_is_asked_for_natively(schema):
    """A function's parameters always are one."""
    assert "response_format" in asked(response_format=schema_format(schema))


@pytest.mark.parametrize("name", [None, "", "человек", "text2image"])
def test_any_name_will_do(name):
    made = chat("Ann, 30", response_format=schema_format(PERSON, name=name))
    assert orjson.loads(text_of(made, gigachat(made.data()))).keys() == {"name", "age"}


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "xml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": []}, "response_format.json_schema"),
        (schema_format("{}"), "response_format.json_schema.schema"),
        (schema_format({"type": "objekt"}), "response_format.json_schema.schema"),
        (schema_format({"$ref": "#/$defs/A"}), "response_format.json_schema.schema"),
        (schema_format({"$ref": "http://10.0.0.1/"}), "response_format.json_schema.schema"),
        (schema_format({}, strict="yes"), "response_format.json_schema.strict"),
        (schema_format({}, name=5), "response_format.json_schema.name"),
    ],
)
def test_what_is_wrong_is_named(form, param):
    with pytest.raises(BadRequest) as refused:
        chat("Hi", response_format=form)
    assert refused.value.param == param


# ---- What is told ----


def test_the_arguments_of_the_function_are_the_answer():
    found = choice(chat(response_format=STRICT), calls("answer", {"name": "Анна", "age": 30}))
    assert found["message"]["content"] == '{"name":"Анна","age":30}'
    assert "tool_calls" not in found["message"]
    assert found["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "said",
    [
        ANN,
        f"```json\n{ANN}\n```",
        f"```\n{ANN}\n```",
        f"Here you are:\n\n```json\n{ANN}\n```\nAnything else?",
        f"Sure! {ANN} Anything else?",
        f"The form is {{name, age}}, so: {ANN}",
        f"<think>{{}} or not?</think>\n{ANN}",
        f'An example [1], {{"name": "?"}}, and the answer: {ANN}',
    ],
)
@pytest.mark.parametrize("options", [Options(), NATIVE])
def test_json_is_taken_out_of_what_is_said_around_it(said, options):
    assert text_of(chat(response_format=STRICT, options=options), says(said)) == ANN


@pytest.mark.parametrize("said", ['{"a": 1}', 'So: {"a": 1}', '```json\n{"a": 1}\n```'])
def test_a_json_object_is_told_as_it_was_written(said):
    assert text_of(chat(response_format=JSON), says(said)) == '{"a": 1}'


def test_reasoning_is_told_beside_the_json():
    found = message(chat(response_format=JSON), says("<think>hm</think>{}"))
    assert (found["content"], found["reasoning_content"]) == ("{}", "hm")


def test_stop_sequences_do_not_cut_json():
    assert text_of(chat(response_format=JSON, stop=["}"]), says('{"a": {}}')) == '{"a": {}}'


def test_a_tool_that_is_called_instead_is_told_as_a_call():
    made = chat(response_format=STRICT, tools=[tool("f")])
    assert made.another([calls("f", {})]) is None
    found = choice(made, calls("f", {"n": 1}))
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] is None


# ---- What does not fit ----

FAULTY = [
    WRONG,
    f"```json\n{WRONG}\n```",
    "I cannot.",
    "",
    '{"name": "Ann", "age": "thirty"}',
    "[1]",
    '{"name": "Ann", "age": 30',
]


@pytest.mark.parametrize("said", FAULTY)
@pytest.mark.parametrize("options", [Options(), NATIVE])
def test_the_model_is_told_what_is_wrong_and_may_mend_it(said, options):
    made = chat("Who?", response_format=STRICT, options=options)
    again = made.another([says(said)])
    assert again["generate_parameters"] == made.data()["generate_parameters"]
    *before, wrong, told = again["messages"]
    assert before == made.data()["messages"]
    assert wrong["role"] == "assistant" and wrong["content"]
    assert told["role"] == "user" and "not what was asked for" in told["content"]


def test_the_fault_is_told_with_its_place():
    (*_, told) = chat(response_format=STRICT).another([says(WRONG)])["messages"]
    assert '$: lacks ["age"]' in told["content"]


def test_wrong_arguments_may_be_mended_too():
    made = chat("Who?", response_format=STRICT)
    again = made.another([calls("answer", {"name": "Ann"})])
    assert again["messages"][-2] == {"role": "assistant", "content": WRONG}


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_it_is_mended_as_often_as_the_operator_allows(repairs):
    made = chat(response_format=STRICT, options=Options(json_repairs=repairs))
    answers = [says(WRONG)]
    while made.another(answers):
        answers.append(says(WRONG))
    assert len(answers) == 1 + repairs


@pytest.mark.parametrize("said", [ANN, f"```\n{ANN}```"])
def test_what_fits_needs_no_further_call(said):
    assert chat(response_format=STRICT).another([says(said)]) is None


@pytest.mark.parametrize("form", [STRICT, JSON])
@pytest.mark.parametrize("said", ["I cannot.", "[1]"])
def test_where_openai_promises_json_an_answer_without_it_is_an_error(form, said):
    """Not to be retried by the client: the model has had its chance."""
    with pytest.raises(UpstreamError) as failed:
        chat(response_format=form).completion([[says(said)]])
    assert (failed.value.status, failed.value.is_retryable) == (502, False)
    assert "response_format" in failed.value.message
    assert failed.value.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize("said", ["I cannot.", WRONG, "[1]"])
@pytest.mark.parametrize("strict", [False, None])
def test_without_strict_it_is_told_as_it_is(said, strict):
    assert text_of(chat(response_format=schema_format(PERSON, strict=strict)), says(said)) == said


@pytest.mark.parametrize(("finish", "told"), [("length", "length"), ("blacklist", "content_filter")])
@pytest.mark.parametrize("form", [STRICT, JSON])
def test_what_was_cut_off_or_censored_is_told_as_it_is(finish, told, form):
    """Its finish tells; the SDK raises an error of its own for both."""
    made = chat(response_format=form)
    answer = says('{"name": "An', finish=finish)
    assert made.another([answer]) is None
    found = choice(made, answer)
    assert (found["message"]["content"], found["finish_reason"]) == ('{"name": "An', told)


def test_of_several_choices_each_is_mended_by_itself():
    made = chat(response_format=STRICT, n=2)
    first, second = [says(ANN)], [says(WRONG), says(ANN)]
    assert made.another(first) is None
    assert made.another(second[:1]) is not None
    found = made.completion([first, second])
    assert [each["message"]["content"] for each in found["choices"]] == [ANN, ANN]
    assert found["usage"]["completion_tokens"] == 3 * 3


def test_a_call_that_was_cut_off_says_so():
    answer = calls("answer", {"name": "An"})
    answer["choices"][0]["finish_reason"] = "length"
    assert choice(chat(response_format=STRICT), answer)["finish_reason"] == "length"


def test_a_stream_waits_for_the_whole_answer():
    """Only then can it be checked; then it comes in the shape of a stream."""
    made = chat(response_format=STRICT, stream=True)
    assert made.is_whole
    chunks = made.chunks([[calls("answer", {"name": "Ann", "age": 30})]])
    assert deltas(chunks) == [{"role": "assistant", "content": "", "refusal": None}, {"content": ANN}, {}]
    assert finishes(chunks) == ["stop"]


def test_the_sdk_parses_what_is_told():
    class Person(BaseModel):
        name: str
        age: int

    made = chat("Ann is 30", response_format=schema_format(Person.model_json_schema(), strict=True))
    found = completion(made, gigachat(made.data()))
    assert Person.model_validate_json(found["choices"][0]["message"]["content"]).age == 30


# ---- The JSON in a text ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("no", []),
        ("{}", ["{}"]),
        (' [1, {"a": 2}] ', ['[1, {"a": 2}]']),
        ("{} and []", ["{}", "[]"]),
        ("{a} {}", ["{}"]),
        ('{"a": "}"} x', ['{"a": "}"}']),
        ('{"a": 1,}', []),
        ('{"a": [{"b": 1}, {"c": 2},]}', []),
        ('{"a": {"b": 1}', []),
        ('{"a": NaN}', []),
        ("{'a': 1} {\"a\": 1}", ['{"a": 1}']),
        ('{"a": "\\"}" } {}', ['{"a": "\\"}" }', "{}"]),
        ("```json\n{}\n```", ["{}", "{}"]),
    ],
)
def test_json_is_found_whole_or_not_at_all(text, expected):
    """A part of a broken object would say something else than the whole."""
    assert [found.text for found in found_in(text)] == expected


@pytest.mark.parametrize(
    "text", ["{" * 200_000, "[" * 200_000, "{}" * 50_000, '{"' + '\\"' * 100_000, "```\n" * 50_000, "[a]" * 50_000]
)
def test_no_text_keeps_the_search_busy(text):
    """Its length counts once, not squared: the suite would hang otherwise."""
    list(found_in(text))
