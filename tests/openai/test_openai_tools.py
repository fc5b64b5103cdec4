"""Tools, the choice among them, and their names: what GigaChat lacks is made up for, what it refuses is mended."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_talk import STATE_ID, accepted, asked, assistant, call, calls, chat, gigachat, message, result, says, tool

from proxy.dialects.openai.names import BUILTIN, Names
from proxy.dialects.openai.names import accepted as accepted_name
from proxy.errors import BadRequest

EMPTY = {"type": "object", "properties": {}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
F, G = tool("f"), tool("g")


def described(name, parameters=EMPTY, description="", **more):
    return {"name": name, "description": description, "parameters": parameters, **more}


def named(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *names):
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


# ---- What is described ----


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (tool("f", CITY, description="Weather"), described("f", CITY, "Weather")),
        (tool("f", CITY, strict=True), described("f", CITY)),
        (tool("f"), described("f")),
        (tool("f", {}), described("f")),
        (tool("f", {"type": "object"}), described("f")),
        (tool("f", {"type": "string"}), described("f")),
        ({"type": "function", "function": {"name": "f"}}, described("f")),
        ({"function": {"name": "f"}}, described("f")),
        ({"type": "function", "name": "f", "parameters": CITY}, described("f", CITY)),
        ({"name": "f", "description": "d", "input_schema": CITY}, described("f", CITY, "d")),
        (tool("f", few_shot_examples=[{"request": "a", "params": {}}]),
         described("f", few_shot_examples=[{"request": "a", "params": {}}])),
        (tool("f", return_parameters=CITY), described("f", return_parameters=CITY)),
    ],
)  # fmt: skip
def test_a_tool_becomes_a_function(given, expected):
    """One without parameters too: it must not vanish."""
    assert asked(tools=[given]) == {"functions": [expected]}


def test_the_older_functions_are_functions_too():
    assert asked(functions=[{"name": "f", "parameters": CITY}]) == {"functions": [described("f", CITY)]}


def test_a_function_of_gigachats_own_is_meant_where_only_its_name_is_given():
    """As the API has it. One that is described is the caller's."""
    own, ours = asked(tools=[tool("text2image"), tool("text2image", CITY)])["functions"]
    assert own == {"name": "text2image"}
    assert ours == described(accepted_name("text2image"), CITY)


def test_gigachat_may_be_told_to_use_its_own_functions():
    assert asked(function_call="auto") == {"function_call": "auto"}


@pytest.mark.parametrize(
    "none", [{}, {"tools": []}, {"tools": None}, {"functions": []}, {"tools": [], "functions": []}]
)
@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}, {"tool_choice": "none"}, {"tool_choice": None}])
def test_without_tools_a_choice_among_them_says_nothing(none, choice):
    """Programs send it all the same."""
    assert asked(**none, **choice) == {}


# ---- The choice ----


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {}),
        (None, {}),
        ("none", {"function_call": "none"}),
        (named("g"), {"function_call": {"name": "g"}}),
        ({"type": "function", "name": "g"}, {"function_call": {"name": "g"}}),
        ({"function": {"name": "g"}}, {"function_call": {"name": "g"}}),
    ],
)
def test_what_gigachat_knows_of_choices_it_is_told(choice, expected):
    assert asked(tools=[F, G], tool_choice=choice) == {"functions": [described("f"), described("g")], **expected}


@pytest.mark.parametrize(
    ("choice", "functions", "expected"),
    [
        (allowed("auto", "g"), ["g"], {}),
        (allowed("required", "g"), ["g"], {"function_call": {"name": "g"}}),
        (allowed("auto", "g", "f"), ["g", "f"], {}),
    ],
)
def test_of_allowed_tools_the_others_are_not_shown(choice, functions, expected):
    assert asked(tools=[F, G], tool_choice=choice) == {"functions": [described(name) for name in functions], **expected}


def test_one_tool_that_is_required_is_forced():
    assert asked(tools=[F], tool_choice="required")["function_call"] == {"name": "f"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("auto", {}), ("none", {"function_call": "none"}), ({"name": "f"}, {"function_call": {"name": "f"}})],
)
def test_the_older_choice_is_understood(choice, expected):
    given = asked(functions=[{"name": "f"}], function_call=choice)
    assert given == {"functions": [described("f")], **expected}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [F, None]}, "tools[1]"),
        ({"tools": [{}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [tool("")]}, "tools[0].function.name"),
        ({"tools": [tool(5)]}, "tools[0].function.name"),
        ({"tools": [tool("f", "x")]}, "tools[0].function.parameters"),
        ({"tools": [tool("f", [])]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [F], "functions": [{"name": "f"}]}, "functions"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"tools": [F], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [F], "tool_choice": 5}, "tool_choice"),
        ({"tools": [F], "tool_choice": {}}, "tool_choice.function"),
        ({"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice.type"),
        ({"tools": [F], "tool_choice": named("h")}, "tool_choice.function.name"),
        ({"tool_choice": named("f")}, "tool_choice.function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [F], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        ({"tools": [F], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"tools": [F], "tool_choice": allowed("none", "f")}, "tool_choice.allowed_tools.mode"),
        ({"tools": [F], "tool_choice": allowed("auto", "f", "h")}, "tool_choice.allowed_tools.tools[1].function.name"),
        ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "h"}}, "function_call.name"),
        ({"functions": [{"name": "f"}], "function_call": {}}, "function_call.name"),
    ],
)
def test_what_is_wrong_is_named(fields, param):
    with pytest.raises(BadRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


# ---- A call that must be made, of several functions ----

WEATHER = tool("weather", CITY, description="The weather in a city")
NEWS = tool("news", description="What is new")
REQUIRED = {"tools": [WEATHER, NEWS], "tool_choice": "required"}


def test_the_model_is_first_asked_with_all_of_them():
    """An instruction is mostly enough, and costs nothing."""
    made = chat("Hello", **REQUIRED)
    data = made.data()
    assert data["messages"][0]["role"] == "system"
    assert [each["name"] for each in data["generate_parameters"]["functions"]] == ["weather", "news"]
    assert "function_call" not in data["generate_parameters"]
    assert made.another([calls("news", {})]) is None


def test_a_model_that_talks_instead_chooses_a_name_and_is_held_to_it():
    made = chat("Hello", **REQUIRED)
    answers = [says("I would rather talk.")]
    choosing = made.another(answers)["generate_parameters"]
    (chooser,) = choosing["functions"]
    assert choosing["function_call"] == {"name": chooser["name"]}
    assert chooser["parameters"]["properties"]["name"]["enum"] == ["weather", "news"]
    assert "The weather in a city" in chooser["description"]
    answers.append(calls(chooser["name"], {"name": "news"}))
    forced = made.another(answers)
    assert forced["generate_parameters"]["function_call"] == {"name": "news"}
    assert [each["name"] for each in forced["generate_parameters"]["functions"]] == ["weather", "news"]
    answers.append(calls("news", {}))
    assert made.another(answers) is None


@pytest.mark.parametrize(
    "chosen",
    [
        calls("choose_function", {"name": "other"}),
        calls("choose_function", {}),
        calls("choose_function", "no JSON"),
        calls("choose_function", "[]"),
        says("?"),
    ],
)
def test_a_choice_that_is_none_is_the_first(chosen):
    forced = chat("Hello", **REQUIRED).another([says("No."), chosen])
    assert forced["generate_parameters"]["function_call"] == {"name": "weather"}


def test_there_is_an_end_to_asking():
    """What the last answer says is told: programs know how to go on without a call."""
    made = chat("Hello", **REQUIRED)
    answers = [says("No."), says("No!"), says("Never.")]
    assert made.another(answers) is None
    assert made.completion([answers])["choices"][0]["message"]["content"] == "Never."


@pytest.mark.parametrize("finish", ["length", "blacklist"])
def test_a_model_that_was_cut_off_or_censored_is_not_pressed(finish):
    assert chat("Hello", **REQUIRED).another([says("No", finish=finish)]) is None


def test_in_the_end_there_is_a_call():
    """Through the API's own checks, with a question that suggests no function."""
    made = chat("Скажи: мяу", **REQUIRED)
    answers = [gigachat(made.data())]
    while data := made.another(answers):
        answers.append(gigachat(data))
    assert len(answers) == 3
    found = made.completion([answers])
    (told,) = found["choices"][0]["message"]["tool_calls"]
    assert told["function"]["name"] in ("weather", "news")
    assert found["choices"][0]["finish_reason"] == "tool_calls"


def test_what_all_calls_cost_is_told():
    made = chat("Hello", **REQUIRED)
    found = made.completion([[says("No."), calls("choose_function", {"name": "news"}), calls("news", {})]])
    assert found["usage"]["prompt_tokens"] == 3 * 17


def test_what_can_be_told_as_it_is_needs_no_further_call():
    assert chat("Hello", tools=[WEATHER]).another([says("Hi")]) is None


def test_only_a_choice_that_gigachat_does_not_know_makes_a_stream_wait():
    assert chat("Hello", **REQUIRED).is_whole
    assert not chat("Hello", tools=[WEATHER], tool_choice="required").is_whole
    assert not chat("Hello", tools=[WEATHER, NEWS]).is_whole


# ---- Names ----


@pytest.mark.parametrize("name", ["f", "get_weather", "a.b-c_1", "_x", "A" * 64])
def test_a_name_that_gigachat_takes_stays(name):
    assert accepted_name(name) == name


@pytest.mark.parametrize("name", ["2x", "-x", ".x", "a b", "a/b", "поиск", "", "mcp:find", "a\nb", *sorted(BUILTIN)])
def test_another_name_becomes_one_that_it_takes(name):
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", accepted_name(name))
    assert accepted_name(name) not in BUILTIN | {name}


@given(st.sets(st.text(min_size=1, max_size=20) | st.sampled_from(["a b", "a/b", "a_b", "a:b", "поиск", "найти"])))
def test_names_stay_apart_and_come_back(names):
    mapped = {accepted_name(name) for name in names}
    assert len(mapped) == len(names)
    back = Names(names)
    assert all(back.of_caller(accepted_name(name)) == name for name in names)


def test_a_name_that_nobody_described_stays():
    assert Names(["a b"]).of_caller("text2image") == "text2image"


def test_a_caller_sees_its_own_names_only():
    tools = [tool("web_search", CITY, description="search the web")]
    made = chat("search", tools=tools, tool_choice=named("web_search"))
    answer = gigachat(made.data())
    (told,) = message(made, answer)["tool_calls"]
    assert (told["function"]["name"], told["id"]) == ("web_search", STATE_ID)


# ---- Rounds through the API ----


def test_an_agents_round_passes_the_apis_checks_and_comes_back():
    """Question, call, result, answer: with the id that GigaChat gave."""
    tools = [
        tool("get_weather", CITY, description="погода в городе"),
        tool("2nd/tool", {"anyOf": [CITY, {"type": "null"}]}),
    ]
    first = chat("Какая погода в городе Осло?", tools=tools)
    said = message(first, gigachat(first.data()))
    assert said["content"] is None
    (made,) = said["tool_calls"]
    assert made["function"] == {"name": "get_weather", "arguments": '{"city":"Осло"}'}
    second = chat("Какая погода в городе Осло?", said, result(made["id"], "5 градусов"), tools=tools)
    data = second.data()
    assert data["messages"][1]["functions_state_id"] == STATE_ID
    assert "5 градусов" in message(second, gigachat(data))["content"]


def test_parallel_calls_with_their_results_pass_the_apis_checks():
    history = [assistant(None, call("a", "f"), call("b", "g")), result("b", "2"), result("a", "1")]
    accepted(chat("Go", *history, tools=[F, G]).data())
