"""Embeddings: large lists in pieces and together again, in the encoding and length that were asked for."""

import base64
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai_talk import check

from proxy.dialects.openai import Embeddings, Options
from proxy.dialects.openai.embeddings import MAX_TEXTS, PIECE_CHARACTERS, PIECE_TEXTS, pieces
from proxy.errors import BadRequest, UpstreamError

TRUNCATED = Options(dimensions="truncate")


def asked(input="Hi", options=None, **fields):
    return Embeddings({"model": "Embeddings", "input": input, **fields}, options or Options())


def gigachat(call):
    """An answer of GigaChat's: of each text its length, and three numbers."""
    data = [
        {"object": "embedding", "index": index, "embedding": vector(text), "usage": {"prompt_tokens": len(text)}}
        for index, text in enumerate(call["input"])
    ]
    return {"object": "list", "model": call["model"], "data": data}


def vector(text):
    return [float(len(text)), 3.0, 4.0]


def answered(request):
    found = request.answer([gigachat(call) for call in request.calls()])
    if not any(isinstance(each["embedding"], str) for each in found["data"]):
        check(CreateEmbeddingResponse, found)
    return found


# ---- What is asked ----


def test_one_text_is_a_list_of_one():
    assert asked("Hi").calls() == [{"model": "Embeddings", "input": ["Hi"]}]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Embeddings-2", "Embeddings-2"),
        ("text-embedding-3-large", "EmbeddingsGigaR"),
        ("gpt-4o", "EmbeddingsGigaR"),
        (None, "EmbeddingsGigaR"),
    ],
)
def test_the_model_is_the_callers_or_the_operators(given, expected):
    assert asked(model=given).calls()[0]["model"] == expected


def test_the_answer_repeats_the_model_that_was_asked_for():
    assert answered(asked(model="text-embedding-3-small"))["model"] == "text-embedding-3-small"
    assert answered(asked(model=None))["model"] == "EmbeddingsGigaR"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": {"text": "Hi"}}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", None]}, "input[1]"),
        ({"input": ["a", {}]}, "input[1]"),
        ({"input": ["a"] * (MAX_TEXTS + 1)}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": [[1, 2], [3]]}, "input"),
        ({"input": ["a", 5]}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 1.5}, "dimensions"),
        ({"dimensions": 256}, "dimensions"),
        ({"model": 5}, "model"),
        ({"user": 5}, "user"),
    ],
)
def test_what_is_wrong_is_named(fields, param):
    with pytest.raises(BadRequest) as refused:
        asked(**fields)
    assert refused.value.param == param


def test_who_asks_for_shorter_vectors_learns_which_setting_makes_them():
    with pytest.raises(BadRequest, match="or the operator sets EMBEDDINGS_DIMENSIONS=truncate"):
        asked(dimensions=256)


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2]], [[]]])
def test_who_sends_tokens_learns_what_to_set(tokens):
    """langchain-openai sends them unless it is told not to."""
    with pytest.raises(BadRequest) as refused:
        asked(tokens)
    assert "check_embedding_ctx_length=False" in refused.value.message


@pytest.mark.parametrize("body", [None, [], "Hi"])
def test_a_body_must_be_an_object(body):
    with pytest.raises(BadRequest):
        Embeddings(body, Options())


def test_what_means_nothing_here_is_named():
    request = asked(user="ann", seed=1, extra_body={"x": 1})
    assert (request.sub_caller, request.ignored) == ("ann", ["seed", "x"])


# ---- Pieces ----


def test_a_large_list_is_asked_for_in_pieces_and_answered_in_order():
    texts = ["x" * (number + 1) for number in range(2 * PIECE_TEXTS + 1)]
    request = asked(texts)
    assert [len(call["input"]) for call in request.calls()] == [PIECE_TEXTS, PIECE_TEXTS, 1]
    found = answered(request)
    assert [each["embedding"] for each in found["data"]] == [vector(text) for text in texts]
    assert [each["index"] for each in found["data"]] == list(range(len(texts)))
    assert found["usage"] == {"prompt_tokens": sum(map(len, texts)), "total_tokens": sum(map(len, texts))}


@given(st.lists(st.integers(1, PIECE_CHARACTERS + 1).map(lambda length: "x" * length), min_size=1, max_size=5))
def test_no_piece_is_too_long_and_no_text_is_lost(texts):
    found = list(pieces(texts))
    assert [text for piece in found for text in piece] == texts
    assert all(len(piece) == 1 or sum(map(len, piece)) <= PIECE_CHARACTERS for piece in found)
    assert all(found)


def test_embeddings_that_come_in_another_order_are_put_right():
    answer = gigachat({"model": "m", "input": ["a", "bb"]})
    answer["data"].reverse()
    assert [each["embedding"][0] for each in asked(["a", "bb"]).answer([answer])["data"]] == [1.0, 2.0]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": None},
        {"data": [{}]},
        {"data": [{"embedding": []}]},
        {"data": [{"embedding": ["a"]}]},
        {"data": []},
        {"data": [{"embedding": [1.0], "index": 0}] * 2},
        b"[]",
    ],
)
def test_an_answer_that_cannot_be_read_is_the_upstreams_failure(answer):
    """Fewer or more embeddings than texts would shift them all."""
    with pytest.raises(UpstreamError) as failed:
        asked("Hi").answer([answer])
    assert failed.value.status == 502


def test_an_answer_without_usage_costs_nothing():
    answer = {"data": [{"embedding": [1.0], "index": 0}]}
    assert asked("Hi").answer([answer])["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


# ---- Encoding and length ----


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_base64_is_little_endian_32_bit_numbers(numbers):
    """As the SDK reads it, whatever machine this is."""
    answer = {"data": [{"embedding": numbers, "index": 0}]}
    told = asked("Hi", encoding_format="base64").answer([answer])["data"][0]["embedding"]
    assert list(struct.unpack(f"<{len(numbers)}f", base64.b64decode(told))) == numbers


@pytest.mark.parametrize("encoding", [None, "float"])
def test_numbers_are_numbers_unless_asked_otherwise(encoding):
    assert answered(asked("Hi", encoding_format=encoding))["data"][0]["embedding"] == [2.0, 3.0, 4.0]


def test_fewer_dimensions_are_the_first_ones_at_length_one():
    (found,) = answered(asked("abc", dimensions=2, options=TRUNCATED))["data"]
    assert len(found["embedding"]) == 2
    assert math.isclose(math.hypot(*found["embedding"]), 1)
    assert math.isclose(found["embedding"][0], found["embedding"][1])


def test_more_dimensions_than_there_are_cannot_be_had():
    with pytest.raises(BadRequest) as refused:
        answered(asked("abc", dimensions=4, options=TRUNCATED))
    assert (refused.value.param, "3" in refused.value.message) == ("dimensions", True)


def test_a_vector_of_nothing_stays_nothing():
    answer = {"data": [{"embedding": [0.0, 0.0], "index": 0}]}
    assert asked("Hi", dimensions=1, options=TRUNCATED).answer([answer])["data"][0]["embedding"] == [0.0]
