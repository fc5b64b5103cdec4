import pytest

from gigachat_connector import KNOWN_MODELS, PARAMETERS, ROLES, validate_data

USER = {"role": "user", "content": "Hello"}

GOOD_PARAMETERS = {
    "model": ["GigaChat-Max", "GigaChat:latest", None],
    "temperature": [1, 0.0001, 2.5, None],
    "top_p": [0, 1, 0.5, None],
    "max_tokens": [1, 2000, None],
    "repetition_penalty": [0.1, 1, 3],
    "update_interval": [0, 0.5, 10],
    "n": [1, 3],
    "stream": [True, False, None],
    "profanity_check": [True, False, None],
    "function_call": ["none", "auto", {"name": "weather"}, None],
    "functions": [[], [{"name": "get_weather-2.x", "description": "Tells", "parameters": {"type": "object"}}]],
    "response_format": [{"type": "text"}, {"type": "json_schema", "schema": {}, "strict": True}],
    "reasoning_effort": ["low", "medium", "high"],
    "storage": [{"is_stateful": True, "limit": 5}],
    "function_ranker": [{"enabled": True, "top_n": 3}],
    "attachments": [["file-1"], []],
    "flags": [["a"], []],
}
WRONG_TYPES = {
    "model": [5, ["GigaChat"]],
    "temperature": ["1", True, [1]],
    "top_p": ["0.5", False],
    "max_tokens": [1.5, "100", True],
    "repetition_penalty": ["1", {}],
    "update_interval": ["0", True],
    "n": [1.0, True],
    "stream": [1, "true"],
    "profanity_check": [0, "no"],
    "function_call": [True, ["auto"]],
    "functions": [{"name": "f"}, "f"],
    "response_format": ["json", []],
    "reasoning_effort": [1],
    "storage": [[], "s", True],
    "function_ranker": [True],
    "attachments": ["file-1", {}],
    "flags": ["a", {}],
}
OUT_OF_RANGE = {
    "model": ["", "  "],
    "temperature": [0, -1, float("nan"), float("inf")],
    "top_p": [-0.1, 1.1, 2],
    "max_tokens": [0, -5],
    "repetition_penalty": [0, -1],
    "update_interval": [-1],
    "n": [0],
    "function_call": ["required", ""],
    "reasoning_effort": ["huge"],
}


def cases(table):
    return [(name, value) for name, values in table.items() for value in values]


def data(**parameters):
    return {"messages": [USER], "generate_parameters": parameters}


@pytest.mark.parametrize(("name", "value"), cases(GOOD_PARAMETERS))
def test_good_parameters(name, value):
    """What the API's description allows is accepted; null is the same as absent."""
    assert validate_data(data(**{name: value})) is True


@pytest.mark.parametrize(("name", "value"), cases(WRONG_TYPES))
def test_wrong_types(name, value):
    """A value of a wrong type is a TypeError that names the path; true is not a number."""
    with pytest.raises(TypeError, match=rf"^generate_parameters\.{name} must be .+, not ") as told:
        validate_data(data(**{name: value}))
    assert told.value.param == f"generate_parameters.{name}"


@pytest.mark.parametrize(("name", "value"), cases(OUT_OF_RANGE))
def test_out_of_range(name, value):
    """A value out of range is a ValueError that names the path, the value and what is allowed."""
    with pytest.raises(ValueError, match=rf"^generate_parameters\.{name} must be .+, not ") as told:
        validate_data(data(**{name: value}))
    assert told.value.param == f"generate_parameters.{name}"


def test_every_documented_parameter_has_its_cases():
    """No parameter is in the table without a good and a wrong value here."""
    assert PARAMETERS.fields.keys() == GOOD_PARAMETERS.keys() == WRONG_TYPES.keys()


def test_unknown_parameters_pass():
    """What we do not know, the API may."""
    assert validate_data(data(seed=5, brand_new={"x": [None]}, tools="whatever"))


@pytest.mark.parametrize("parameters", [{}, None])
def test_parameters_may_be_absent(parameters):
    """`generate_parameters` may be empty, null or absent."""
    assert validate_data({"messages": [USER], "generate_parameters": parameters})
    assert validate_data({"messages": [USER]})


@pytest.mark.parametrize("role", ROLES)
def test_roles(role):
    """Each role of the API is known."""
    assert validate_data({"messages": [{"role": role, "content": "1"}]})


def test_order_is_for_the_api_to_judge():
    """A system message in the wrong place is not refused here: the API's own 422 says it better."""
    assert validate_data({"messages": [USER, {"role": "system", "content": "late"}]})


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": {}}},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "function_call": {"name": "f", "arguments": {}}, "functions_state_id": "1"},
        {"role": "user", "attachments": ["file-1"]},
        {"role": "user", "content": None, "attachments": ["file-1"]},
        {"role": "user", "content": ""},
        {"role": "user", "content": "Hello", "brand_new": [1]},
    ],
)
def test_good_messages(message):
    """Content may be missing where a function call or a file says it all; unknown fields pass."""
    assert validate_data({"messages": [USER, message]})


@pytest.mark.parametrize(
    ("wrong", "kind", "path"),
    [
        (None, ValueError, ""),
        ([], TypeError, ""),
        ("hello", TypeError, ""),
        ({}, ValueError, "messages"),
        ({"messages": None}, ValueError, "messages"),
        ({"messages": []}, ValueError, "messages"),
        ({"messages": {"role": "user"}}, TypeError, "messages"),
        ({"messages": "Hello"}, TypeError, "messages"),
        ({"messages": [USER, None]}, ValueError, "messages[1]"),
        ({"messages": [USER, "Hello"]}, TypeError, "messages[1]"),
        ({"messages": [["user", "Hello"]]}, TypeError, "messages[0]"),
        ({"messages": [{"content": "Hello"}]}, ValueError, "messages[0].role"),
        ({"messages": [{"role": "bot", "content": "Hello"}]}, ValueError, "messages[0].role"),
        ({"messages": [{"role": 1, "content": "Hello"}]}, TypeError, "messages[0].role"),
        ({"messages": [USER, {"role": "user"}]}, ValueError, "messages[1].content"),
        ({"messages": [{"role": "user", "content": None}]}, ValueError, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, TypeError, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, TypeError, "messages[0].content"),
        ({"messages": [USER | {"attachments": "file"}]}, TypeError, "messages[0].attachments"),
        ({"messages": [USER | {"attachments": ["a", 5]}]}, TypeError, "messages[0].attachments[1]"),
        ({"messages": [USER | {"function_call": "f"}]}, TypeError, "messages[0].function_call"),
        ({"messages": [USER], "generate_parameters": []}, TypeError, "generate_parameters"),
        ({"messages": [USER], "generate_parameters": "max_tokens=5"}, TypeError, "generate_parameters"),
        (data(functions=["f"]), TypeError, "generate_parameters.functions[0]"),
        (data(functions=[{"name": "ok"}, {}]), ValueError, "generate_parameters.functions[1].name"),
        (data(functions=[{"name": 5}]), TypeError, "generate_parameters.functions[0].name"),
        (data(functions=[{"name": "1st"}]), ValueError, "generate_parameters.functions[0].name"),
        (data(functions=[{"name": "погода"}]), ValueError, "generate_parameters.functions[0].name"),
        (data(functions=[{"name": "f\n"}]), ValueError, "generate_parameters.functions[0].name"),
        (data(functions=[{"name": "f", "parameters": []}]), TypeError, "generate_parameters.functions[0].parameters"),
        (data(attachments=[None]), ValueError, "generate_parameters.attachments[0]"),
    ],
)
def test_wrong_calls(wrong, kind, path):
    """What cannot be right is refused with the path of the field, and with what it must be."""
    with pytest.raises(kind, match="must be") as told:
        validate_data(wrong)
    assert told.value.param == path
    assert str(told.value).startswith(path or "the request")


def test_long_values_are_cut():
    """An error repeats no more than a piece of a value."""
    with pytest.raises(ValueError, match=r"\.\.\.$") as told:
        validate_data(data(reasoning_effort="x" * 10_000))
    assert len(str(told.value)) < 200


def test_known_models_are_unique():
    """The list that is shown while the API is silent names each model once."""
    assert len(set(KNOWN_MODELS)) == len(KNOWN_MODELS)
