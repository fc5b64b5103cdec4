"""Messages of OpenAI's become a conversation that GigaChat takes, and nothing of them is lost."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_talk import STATE_ID, accepted, assistant, call, chat, result, told, user

from proxy.dialects.openai import Chat, Options
from proxy.errors import BadRequest

NO_RESULT = '{"error":"this call has no result"}'


def calling(name, arguments=None, content="", **more):
    return {
        "role": "assistant",
        "content": content,
        "function_call": {"name": name, "arguments": arguments or {}},
        **more,
    }


def returned(name, content):
    return {"role": "function", "name": name, "content": content}


# ---- Roles and content ----


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("Hi")], [user("Hi")]),
        ([user("")], [user("")]),
        ([user(None)], [user("")]),
        ([{"role": "user"}], [user("")]),
        ([user([])], [user("")]),
        ([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], [user("a\nb")]),
        ([user("a"), user("b")], [user("a"), user("b")]),
        ([{"role": "user", "content": "Hi", "name": "Ann"}], [user("Hi")]),
        ([assistant("Hello"), user("Hi")], [assistant("Hello"), user("Hi")]),
        ([assistant(None), user("Hi")], [assistant(""), user("Hi")]),
        ([assistant([{"type": "text", "text": "a"}])], [assistant("a")]),
        ([assistant([{"type": "refusal", "refusal": "No."}])], [assistant("No.")]),
        ([{"role": "assistant", "content": None, "refusal": "No."}], [assistant("No.")]),
        ([{"role": "assistant", "content": "a", "reasoning_content": "b"}], [assistant("a")]),
        ([{"role": "assistant", "content": "a", "tool_calls": []}], [assistant("a")]),
        ([{"role": "assistant", "content": "a", "tool_calls": None, "function_call": None}], [assistant("a")]),
        ([{"role": "assistant", "audio": {"id": "x"}}, user("Hi")], [assistant(""), user("Hi")]),
    ],
)
def test_each_role_and_content_has_its_equal(messages, expected):
    assert told(*messages) == expected


@pytest.mark.parametrize("role", ["system", "developer"])
def test_all_instructions_become_one_system_message_that_comes_first(role):
    """GigaChat takes one, and only there."""
    messages = [user("q"), {"role": role, "content": "A"}, assistant("a"), {"role": "system", "content": "B"}]
    assert told(*messages) == [{"role": "system", "content": "A\n\nB"}, user("q"), assistant("a")]


def test_instructions_that_say_nothing_make_no_system_message():
    assert told({"role": "system", "content": ""}, {"role": "developer", "content": None}, user("q")) == [user("q")]


def test_messages_that_say_nothing_at_all_are_refused():
    """The API would say so, in its own numbers."""
    with pytest.raises(BadRequest) as refused:
        chat({"role": "system", "content": ""})
    assert refused.value.param == "messages"


def test_instructions_may_be_in_parts():
    parts = [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]
    assert told({"role": "developer", "content": parts}, user("q"))[0] == {"role": "system", "content": "A\nB"}


# ---- Calls and results ----


def test_a_call_and_its_result_are_a_pair():
    messages = [user("Weather?"), assistant(None, call("a", "weather", '{"city":"Oslo"}')), result("a", '{"t":5}')]
    assert told(*messages) == [user("Weather?"), calling("weather", {"city": "Oslo"}), returned("weather", '{"t":5}')]


def test_parallel_calls_become_pairs_in_the_order_of_the_calls():
    """Whatever order their results come in; what was said with them is said once, before the first."""
    messages = [
        assistant("Let me see.", call("a", "f", '{"n":1}'), call("b", "g"), call("c", "f", '{"n":3}')),
        result("c", "3"),
        result("a", "1"),
        result("b", "2"),
    ]
    assert told(*messages) == [
        calling("f", {"n": 1}, "Let me see."),
        returned("f", '{"result":1}'),
        calling("g"),
        returned("g", '{"result":2}'),
        calling("f", {"n": 3}),
        returned("f", '{"result":3}'),
    ]


def test_ids_may_be_used_again_in_every_turn():
    messages = [
        assistant(None, call("call_0", "f")),
        result("call_0", "first"),
        assistant(None, call("call_0", "f")),
        result("call_0", "second"),
    ]
    assert [each["content"] for each in told(*messages)] == ["", '{"result":"first"}', "", '{"result":"second"}']


def test_of_calls_without_ids_the_results_come_in_order():
    messages = [assistant(None, call("", "f"), call("", "g")), {"role": "tool", "content": "1"}, result("", "2")]
    assert [each["content"] for each in told(*messages)] == ["", '{"result":1}', "", '{"result":2}']


def test_a_result_that_comes_late_stands_behind_its_call():
    messages = [assistant(None, call("a", "f")), user("Hurry!"), result("a", "1")]
    assert told(*messages) == [calling("f"), returned("f", '{"result":1}'), user("Hurry!")]


@pytest.mark.parametrize("after", [[], [user("Never mind.")], [assistant("Well.")]])
def test_a_call_without_a_result_gets_one_that_says_so(after):
    assert told(assistant(None, call("a", "f")), *after) == [calling("f"), returned("f", NO_RESULT), *after]


@pytest.mark.parametrize(
    ("orphan", "expected"),
    [
        (result("a", "5"), "[result of a]\n5"),
        ({"role": "function", "name": "f", "content": "5"}, "[result of f]\n5"),
        ({"role": "tool", "content": "5"}, "[result of ]\n5"),
    ],
)
def test_a_result_without_a_call_is_told_as_the_users_words(orphan, expected):
    """Clients that cut long histories send such; nothing is lost and nothing is made up."""
    assert told(user("q"), orphan) == [user("q"), user(expected)]


def test_a_second_result_of_one_call_is_not_lost():
    messages = [assistant(None, call("a", "f")), result("a", "1"), result("a", "2")]
    assert told(*messages) == [calling("f"), returned("f", '{"result":1}'), user("[result of a]\n2")]


def test_the_older_form_of_calls_is_understood():
    messages = [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"n":1}'}},
        {"role": "function", "name": "f", "content": '{"x":2}'},
    ]
    assert told(*messages) == [calling("f", {"n": 1}), returned("f", '{"x":2}')]


def test_the_api_gets_its_own_id_of_a_call_back():
    """GigaChat links a call and its state by it; our answers carry it as the call's id."""
    messages = [assistant(None, call(STATE_ID, "f"), call("call_1", "g")), result(STATE_ID, "1"), result("call_1", "2")]
    assert told(*messages)[0::2] == [calling("f", functions_state_id=STATE_ID), calling("g")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("[1, 2]", '{"result":[1, 2]}'),
        ("5", '{"result":5}'),
        ("null", '{"result":null}'),
        ('"yes"', '{"result":"yes"}'),
        ("yes", '{"result":"yes"}'),
        ("", '{"result":""}'),
        (None, '{"result":""}'),
        ("NaN", '{"result":"NaN"}'),
        ("{'a': 1}", '{"result":"{\'a\': 1}"}'),
        ('{"a": 1} {"b": 2}', '{"result":"{\\"a\\": 1} {\\"b\\": 2}"}'),
        ("тепло\n", '{"result":"тепло\\n"}'),
        ('{"n": 123456789012345678901234567890}', '{"n": 123456789012345678901234567890}'),
        ([{"type": "text", "text": '{"a":'}, {"type": "text", "text": "1}"}], '{"a":\n1}'),
        ("[" * 2000, '{"result":"' + "[" * 2000 + '"}'),
    ],
)
def test_a_result_is_a_json_object_in_a_text(text, expected):
    """Anything else is a 422 of the API's."""
    found = told(assistant(None, call("a", "f")), result("a", text))[1]["content"]
    assert found == expected


@pytest.mark.parametrize("given", ["", "  ", None, {}, "{}"])
def test_a_call_without_arguments_has_an_empty_object(given):
    assert told(assistant(None, call("a", "f", given)))[0]["function_call"]["arguments"] == {}


def test_names_that_gigachat_refuses_are_the_same_in_calls_results_and_tools():
    messages = [assistant(None, call("a", "поиск/web")), result("a", "1")]
    made = chat(*messages, tools=[{"type": "function", "function": {"name": "поиск/web"}}])
    data = made.data()
    name = data["generate_parameters"]["functions"][0]["name"]
    assert [each.get("function_call", each)["name"] for each in data["messages"]] == [name, name]
    accepted(data)


# ---- What is refused ----


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (None, "messages"),
        ("Hi", "messages"),
        ([None], "messages[0]"),
        (["Hi"], "messages[0]"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([user("Hi"), {"role": "robot", "content": "Hi"}], "messages[1].role"),
        ([{"role": 5}], "messages[0].role"),
        ([user(5)], "messages[0].content"),
        ([user({"type": "text"})], "messages[0].content"),
        ([user(["Hi"])], "messages[0].content[0]"),
        ([user([None])], "messages[0].content[0]"),
        ([user([{"text": "Hi"}])], "messages[0].content[0].type"),
        ([user([{"type": "video_url"}])], "messages[0].content[0].type"),
        ([user([{"type": "text"}])], "messages[0].content[0].text"),
        ([user([{"type": "text", "text": 5}])], "messages[0].content[0].text"),
        ([{"role": "assistant", "tool_calls": "f"}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": [None]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "tool_calls": [{"id": "a"}]}], "messages[0].tool_calls[0].function"),
        ([assistant(None, call("a", ""))], "messages[0].tool_calls[0].function.name"),
        ([assistant(None, call(5, "f"))], "messages[0].tool_calls[0].id"),
        ([assistant(None, {**call("a", "f"), "type": "custom"})], "messages[0].tool_calls[0].type"),
        ([assistant(None, call("a", "f", "{"))], "messages[0].tool_calls[0].function.arguments"),
        ([assistant(None, call("a", "f", "[1]"))], "messages[0].tool_calls[0].function.arguments"),
        ([assistant(None, call("a", "f", "5"))], "messages[0].tool_calls[0].function.arguments"),
        ([assistant(None, call("a", "f", 5))], "messages[0].tool_calls[0].function.arguments"),
        (
            [{"role": "assistant", "function_call": {"name": "f", "arguments": "x"}}],
            "messages[0].function_call.arguments",
        ),
        ([{"role": "assistant", "function_call": "f"}], "messages[0].function_call"),
        ([{"role": "tool", "tool_call_id": 5}], "messages[0].tool_call_id"),
        (
            [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}],
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_what_is_wrong_is_named(messages, param):
    with pytest.raises(BadRequest) as refused:
        chat(messages=messages)
    assert refused.value.param == param
    assert param in refused.value.message


@pytest.mark.parametrize("given", [None, [], "Hi", 5, True])
def test_a_body_must_be_an_object(given):
    with pytest.raises(BadRequest):
        Chat(given, Options(), id="x", created=1)


# ---- Any history at all ----

ids = st.sampled_from(["a", "b", "call_0", STATE_ID, ""])
names = st.sampled_from(["f", "2x", "поиск", "web_search", "a/b"])
texts = st.text(max_size=8) | st.sampled_from(["5", "{}", "[]", '{"a":1}'])
contents = st.none() | texts | st.lists(st.builds(lambda text: {"type": "text", "text": text}, texts), max_size=2)
arguments = st.sampled_from(["", "{}", '{"n":1}'])
tool_calls = st.lists(st.builds(call, ids, names, arguments), max_size=3)
any_message = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user"]),
        contents,
    ),
    st.builds(lambda content, calls: assistant(content, *calls), contents, tool_calls),
    st.builds(result, ids, contents),
    st.builds(lambda name, content: {"role": "function", "name": name, "content": content}, names, contents),
    st.builds(
        lambda name, args: {"role": "assistant", "function_call": {"name": name, "arguments": args}}, names, arguments
    ),
)


@given(st.lists(any_message, min_size=1, max_size=12))
def test_any_history_is_one_that_gigachat_takes(messages):
    """Calls and results in whatever order, lost or doubled: never a 422 for what OpenAI's clients send."""
    accepted(chat(user("q"), *messages).data())


@given(st.lists(any_message, min_size=1, max_size=12))
def test_no_text_of_a_history_is_lost(messages):
    written = orjson.dumps(told(user("q"), *messages)).decode()
    for message in messages:
        content = message.get("content")
        parts = [content] if isinstance(content, str) else [part["text"] for part in content or []]
        for part in parts:
            # Results are written as JSON within a text.
            inner = orjson.dumps(part).decode()[1:-1]
            assert inner in written or orjson.dumps(inner).decode()[1:-1] in written


@given(st.lists(any_message, min_size=1, max_size=12))
def test_every_call_has_its_result_right_behind_it(messages):
    found = told(user("q"), *messages)
    for message, after in zip(found, [*found[1:], {}], strict=True):
        is_call, is_result = "function_call" in message, after.get("role") == "function"
        assert is_call == is_result
        if is_call:
            assert message["function_call"]["name"] == after["name"]


def test_a_history_of_many_calls_and_orphans_is_read_in_no_time():
    """Its length counts once, not squared: the suite would hang otherwise."""
    lost = [assistant(None, call(f"c{number}", "f")) for number in range(20_000)]
    orphans = [result(f"r{number}", "1") for number in range(20_000)]
    assert len(told(*lost, *orphans)) == 60_000
