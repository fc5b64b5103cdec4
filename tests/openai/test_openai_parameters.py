"""What else a request asks for: told to GigaChat, done here, refused, or ignored and named."""

import pytest
from openai_talk import asked, body, chat, user

from proxy.dialects.openai import Chat, Options, chat_model, embeddings_model
from proxy.errors import BadRequest


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0.0001}),
        ({"temperature": 0.0}, {"temperature": 0.0001}),
        ({"temperature": 0.7, "top_p": 0}, {"temperature": 0.7, "top_p": 0}),
        ({"temperature": 2, "top_p": 1}, {"temperature": 2, "top_p": 1}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 7, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": None, "temperature": None, "stop": None, "n": None, "tools": None}, {}),
        ({"reasoning_effort": "none"}, {}),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": "medium"}, {"reasoning_effort": "medium"}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "high"}),
        ({"n": 3, "stop": ["x"], "user": "ann", "stream": True, "stream_options": {"include_usage": True}}, {}),
        ({"modalities": ["text"]}, {}),
        ({"modalities": []}, {}),
        # GigaChat's own
        ({"profanity_check": False, "repetition_penalty": 1.1}, {"profanity_check": False, "repetition_penalty": 1.1}),
        ({"update_interval": 0.5, "flags": ["a"]}, {"update_interval": 0.5, "flags": ["a"]}),
        ({"function_ranker": {"enabled": True}}, {"function_ranker": {"enabled": True}}),
        ({"storage": {"is_stateful": True}}, {"storage": {"is_stateful": True}}),
        # and what a literal extra_body brings
        ({"extra_body": {"profanity_check": True, "seed": 1}}, {"profanity_check": True}),
        ({"extra_body": {"top_p": 0.1, "temperature": 1}, "top_p": 0.9}, {"top_p": 0.9, "temperature": 1}),
        ({"extra_body": None}, {}),
        ({"extra_body": {}}, {}),
    ],
)
def test_gigachat_is_told_what_it_knows(fields, expected):
    assert asked(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "abc"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": 1.0}, "n"),
        ({"stop": 5}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": "audio"}, "modalities"),
        ({"user": 5}, "user"),
        ({"model": 5}, "model"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"update_interval": -1}, "update_interval"),
        ({"profanity_check": "no"}, "profanity_check"),
        ({"flags": "a"}, "flags"),
        ({"storage": True}, "storage"),
        ({"extra_body": []}, "extra_body"),
        ({"extra_body": {"top_p": 5}}, "top_p"),
    ],
)
def test_what_is_wrong_is_named(fields, param):
    """With the place where the caller wrote it."""
    with pytest.raises(BadRequest) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert param in refused.value.message


def test_what_means_nothing_here_is_named():
    """For a line in the log; the request works."""
    given = {
        "seed": 1,
        "logprobs": True,
        "frequency_penalty": 0.5,
        "x": {},
        "temperature": 1,
        "parallel_tool_calls": False,
    }
    made = chat(**given, store=None)
    assert made.ignored == ["frequency_penalty", "logprobs", "parallel_tool_calls", "seed", "x"]


def test_nothing_that_is_understood_is_called_ignored():
    understood = {"tools": [], "tool_choice": "auto", "functions": [], "user": "a", "modalities": ["text"], "n": 1}
    assert chat(**understood, response_format={"type": "text"}, safety_identifier="b").ignored == []


def test_what_the_edge_needs_is_told():
    made = chat(model="gpt-4o", stream=True, n=2, user="ann")
    assert (made.is_stream, made.n, made.model, made.sub_caller) == (True, 2, "gpt-4o", "ann")
    plain = chat(safety_identifier="bob")
    assert (plain.is_stream, plain.n, plain.sub_caller, plain.is_whole) == (False, 1, "bob", False)
    assert chat().sub_caller == ""


# ---- Models ----

MAPPED = Options(model_map={"gpt-4o": "GigaChat-2-Max", "GigaChat-2": "GigaChat-2-Pro"})


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("GigaChat-2-Max", Options(), "GigaChat-2-Max"),
        ("GigaChat-99", Options(), "GigaChat-99"),
        ("GigaChat", Options(), "GigaChat"),
        ("gigachat-2", Options(), "gigachat-2"),
        ("gigachat/GigaChat-2-Pro", Options(), "GigaChat-2-Pro"),
        ("gpt-4o", Options(), "GigaChat-2"),
        ("", Options(), "GigaChat-2"),
        ("  ", Options(default_model="GigaChat-3-Pro"), "GigaChat-3-Pro"),
        ("gpt-4o", Options(default_model="GigaChat-3-Pro"), "GigaChat-3-Pro"),
        ("gpt-4o", Options(pass_model="true"), "gpt-4o"),
        ("", Options(pass_model="true"), "GigaChat-2"),
        ("GigaChat-2-Max", Options(pass_model="false"), "GigaChat-2"),
        ("gpt-4o", MAPPED, "GigaChat-2-Max"),
        ("GigaChat-2", MAPPED, "GigaChat-2-Pro"),
        ("gpt-4", MAPPED, "GigaChat-2"),
        ("gpt-4o", Options(pass_model="true", model_map={"gpt-4o": "GigaChat-2-Max"}), "GigaChat-2-Max"),
        ("gpt-4o", Options(pass_model="false", model_map={"gpt-4o": "GigaChat-2-Max"}), "GigaChat-2-Max"),
    ],
)
def test_the_operator_decides_which_model_answers(name, options, expected):
    assert chat_model(name, options) == expected
    assert chat(model=name, options=options).data()["generate_parameters"]["model"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text-embedding-3-small", "EmbeddingsGigaR"),
        ("", "EmbeddingsGigaR"),
        ("Embeddings", "Embeddings"),
        ("Embeddings-2", "Embeddings-2"),
        ("GigaEmbeddings-3B-2025-09", "GigaEmbeddings-3B-2025-09"),
    ],
)
def test_embeddings_have_a_default_of_their_own(name, expected):
    assert embeddings_model(name, Options()) == expected


def test_a_request_without_a_model_is_answered_by_the_default():
    made = Chat({"messages": [user("Hi")]}, Options(), id="x", created=1)
    assert (made.model, made.data()["generate_parameters"]["model"]) == ("GigaChat-2", "GigaChat-2")


@pytest.mark.parametrize("name", ["assistant_id", "thread_id"])
def test_an_assistant_or_a_thread_brings_its_own_model(name):
    """The API refuses another one, and the SDK always sends one."""
    assert "model" not in chat(storage={name: "x"}).data()["generate_parameters"]
    assert "model" in chat(storage={"is_stateful": True}).data()["generate_parameters"]


def test_a_request_read_twice_says_the_same_twice():
    """It waits as bytes: read when it comes, and again when its turn comes."""
    given = body("Hi", temperature=0, tools=[{"type": "function", "function": {"name": "2x"}}])
    first, second = (Chat(given, Options(), id="x", created=1) for _ in range(2))
    assert first.data() == second.data()
