"""Streams: chunks in the SDK's shape, told as soon as they can be, and the same in the end as a whole answer."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk
from openai_talk import (
    CREATED,
    ID,
    STATE_ID,
    USAGE,
    chat,
    choice,
    deltas,
    finishes,
    piece,
    pieces,
    said,
    says,
    streamed,
    tool,
)

from proxy.dialects.openai import Options
from proxy.errors import UpstreamError

FILE = "3727db23-91a3-44fa-a6b7-9f0a311d3e9e"
CALL = {"name": "f", "arguments": {"city": "Осло"}}
USAGE_ASKED = {"stream_options": {"include_usage": True}}


def streaming(**fields):
    return chat(stream=True, **fields)


def told(*chunks, **fields):
    return streamed(streaming(**fields).stream(), list(chunks))


def assembled(chunks):
    """What the SDK makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return state.get_final_completion()


# ---- The shape ----


def test_a_stream_is_role_then_text_then_finish():
    found = told(*pieces("При", "вет"), model="gpt-4o")
    assert deltas(found) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "При"},
        {"content": "вет"},
        {},
    ]
    assert finishes(found) == ["stop"]
    assert found[1] == {
        "id": ID,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": "gpt-4o",
        "system_fingerprint": "fp_2.0.28.2",
        "choices": [{"index": 0, "delta": {"content": "При"}, "logprobs": None, "finish_reason": None}],
    }


def test_each_chunk_is_told_when_it_comes():
    stream = streaming().stream()
    assert said(stream.feed(piece("Hel"))) == "Hel"
    assert said(stream.feed(orjson.dumps(piece("lo")))) == "lo"
    assert finishes(stream.feed(piece(finish="stop"))) == ["stop"]
    assert stream.end() == []


def test_a_stream_that_ends_by_itself_is_read_to_its_end():
    """Its call is not over before, and its connection can be used again."""
    stream = streaming().stream()
    stream.feed(piece("Hi"))
    assert not stream.is_over
    stream.feed(piece(finish="stop"))
    assert stream.is_over and not stream.is_done


@pytest.mark.parametrize("chunks", [[], [piece()], [piece("Hi")], [{"choices": []}]])
def test_a_stream_that_ends_without_a_finish_gets_one(chunks):
    found = told(*chunks)
    assert deltas(found)[0]["role"] == "assistant"
    assert finishes(found) == ["stop"]


def test_every_choice_has_its_number():
    made = streaming(n=2)
    found = streamed(made.stream(1), pieces("Hi"))
    assert {each["choices"][0]["index"] for each in found} == {1}


def test_a_connector_that_does_not_stream_gives_one_chunk_the_whole_answer():
    found = told(says("Hello"))
    assert (said(found), finishes(found)) == ("Hello", ["stop"])


def test_the_ids_of_a_stored_conversation_are_in_every_chunk():
    found = told(piece("Hi") | {"thread_id": "t"}, piece(finish="stop"), storage={"is_stateful": True})
    assert {each["thread_id"] for each in found} == {"t"}


@pytest.mark.parametrize(
    ("finish", "expected"), [("length", "length"), ("blacklist", "content_filter"), ("error", "stop"), ("new", "stop")]
)
def test_every_finish_has_a_word_of_openais(finish, expected):
    assert finishes(told(piece("Hi"), piece(finish=finish))) == [expected]


def test_an_error_that_says_nothing_does_not_pass_for_an_answer():
    with pytest.raises(UpstreamError):
        streaming().stream().feed(piece(finish="error"))


def test_nothing_comes_after_the_finish():
    assert said(told(*pieces("Hi"), piece("more"), piece(finish="stop"))) == "Hi"


def test_how_far_a_function_of_gigachats_is_is_not_the_answer():
    """It says so in chunks of a role of their own."""
    progress = piece("15 s", role="function_in_progress", name="text2image")
    found = told(progress, progress, piece(f'<img src="{FILE}" fuse="true"/> ', role="assistant"), piece(finish="stop"))
    assert said(found) == f"![image](/v1/files/{FILE}/content) "


# ---- Usage ----


def test_without_being_asked_no_chunk_has_a_usage():
    assert not any("usage" in each for each in told(*pieces("Hi")))


def test_when_asked_every_chunk_has_it_null_and_one_more_has_it():
    made = streaming(**USAGE_ASKED)
    stream = made.stream()
    found = streamed(stream, pieces("Hi"))
    assert all(each["usage"] is None for each in found)
    last = made.usage_chunk([stream])
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 20)
    assert {name: last[name] for name in ("id", "object", "created", "model", "system_fingerprint")} == {
        name: found[0][name] for name in ("id", "object", "created", "model", "system_fingerprint")
    }


@pytest.mark.parametrize("options", [{}, {"stream_options": {}}, {"stream_options": {"include_usage": False}}])
def test_when_not_asked_there_is_no_chunk_for_it(options):
    made = streaming(**options)
    stream = made.stream()
    streamed(stream, pieces("Hi"))
    assert made.usage_chunk([stream]) is None


def test_all_choices_are_paid_for_together():
    made = streaming(n=2, **USAGE_ASKED)
    streams = [made.stream(index) for index in range(2)]
    for stream in streams:
        streamed(stream, pieces("Hi"))
    assert made.usage_chunk(streams)["usage"]["completion_tokens"] == 6


def test_an_api_that_tells_no_usage_is_not_made_to():
    made = streaming(**USAGE_ASKED)
    stream = made.stream()
    streamed(stream, [piece("Hi")])
    assert made.usage_chunk([stream]) is None


def test_a_usage_in_a_chunk_of_its_own_is_found():
    stream = streaming(**USAGE_ASKED).stream()
    stream.feed(piece("Hi"))
    stream.feed({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert stream.usage is None
    stream.feed({"choices": [], "usage": USAGE})
    assert stream.usage == USAGE


# ---- Stop sequences ----


def test_a_stop_sequence_ends_the_stream_across_chunks():
    stream = streaming(stop=["\nObservation:"]).stream()
    assert said(stream.feed(piece("Act.\nObs"))) == "Act."
    assert not stream.is_done
    found = stream.feed(piece("ervation: 5"))
    assert (said(found), finishes(found)) == ("", ["stop"])
    assert stream.is_done
    assert stream.feed(piece("more")) == stream.end() == []


def test_a_caller_who_wants_the_usage_gets_it_after_a_stop_sequence_too():
    """The API tells it at the very end of its stream, so that is read to its end."""
    stream = streaming(stop=["x"], **USAGE_ASKED).stream()
    assert finishes(stream.feed(piece("ax"))) == ["stop"]
    assert not stream.is_done
    assert stream.feed(piece("more")) == []
    assert stream.feed(piece(finish="length")) == []
    assert stream.is_done
    assert stream.usage == USAGE


def test_a_sequence_that_is_completed_by_what_was_held_back_counts():
    found = told(piece('<img src="x" stop'), piece(finish="length"), stop=["stop"])
    assert (said(found), finishes(found)) == ('<img src="x" ', ["stop"])


def test_what_was_held_back_is_told_before_the_finish():
    found = told(*pieces("a ST", "O"), stop=["STOP"])
    assert said(found) == "a STO"


# ---- Calls ----


def test_a_call_in_one_chunk_with_its_finish_is_told_whole():
    """With its number, id and type; the content is null, as nothing is said."""
    found = told(piece(finish="function_call", function_call=CALL, functions_state_id=STATE_ID), tools=[tool("f")])
    function = {"name": "f", "arguments": '{"city":"Осло"}'}
    assert deltas(found) == [
        {"role": "assistant", "content": None, "refusal": None},
        {"tool_calls": [{"index": 0, "id": STATE_ID, "type": "function", "function": function}]},
        {},
    ]
    assert finishes(found) == ["tool_calls"]


@pytest.mark.parametrize(
    "chunks",
    [
        [piece(function_call=CALL), piece(finish="function_call")],
        [piece(function_call=CALL), piece(finish="stop")],
        [piece(function_call=CALL), piece(finish="function_call", function_call=CALL)],
        [
            piece(function_call={"name": "f", "arguments": '{"city":'}),
            piece(function_call={"arguments": '"Осло"}'}),
            piece(finish="stop"),
        ],
        [
            piece(function_call={"name": "f"}),
            piece(function_call={"arguments": {"city": "Осло"}}),
            piece(finish="stop"),
        ],
        [piece("Let me see."), piece(function_call=CALL), piece(finish="function_call")],
        [piece(function_call=CALL)],
    ],
)
def test_however_a_call_comes_it_is_told_once(chunks):
    """The API may send its finish in another chunk, and says nothing of parts."""
    found = told(*chunks, tools=[tool("f")])
    (call,) = assembled(found).choices[0].message.tool_calls
    assert orjson.loads(call.function.arguments) == CALL["arguments"]
    assert (call.function.name, finishes(found)) == ("f", ["tool_calls"])


def test_names_come_back_as_the_caller_knows_them():
    made = streaming(tools=[tool("2x")])
    name = made.data()["generate_parameters"]["functions"][0]["name"]
    found = streamed(made.stream(), [piece(finish="function_call", function_call={"name": name, "arguments": {}})])
    assert assembled(found).choices[0].message.tool_calls[0].function.name == "2x"


def test_who_asked_with_functions_gets_a_function_call():
    found = told(piece(finish="function_call", function_call=CALL), functions=[{"name": "f"}])
    assert deltas(found)[1] == {"function_call": {"name": "f", "arguments": '{"city":"Осло"}'}}
    assert finishes(found) == ["function_call"]


# ---- What stands in the text, and beside it ----


def test_reasoning_comes_as_it_is_thought():
    found = told(piece(reasoning_content="Hm. "), *pieces("<thi", "nk>So</think>", "Hi"))
    assert (said(found, "reasoning_content"), said(found)) == ("Hm. So", "Hi")


def test_an_image_comes_in_one_piece():
    chunks = pieces("A cat: <img sr", f'c="{FILE}" fu', 'se="true"/>', " there")
    assert said(told(*chunks)) == f"A cat: ![image](/v1/files/{FILE}/content) there"
    left = told(*chunks, options=Options(image_link=None))
    assert {"content": f'<img src="{FILE}" fuse="true"/>'} in deltas(left)


def test_sources_come_before_the_finish():
    inline = {"sources": {"1": {"url": "https://a/", "title": "A"}}}
    found = told(piece("Cold.", inline_data=inline), *pieces("[sources=", "[1]]"))
    assert said(found) == "Cold."
    assert deltas(found)[-2]["annotations"][0]["url_citation"]["url"] == "https://a/"


# ---- The same as a whole answer ----

IMAGE = f'<img src="{FILE}" fuse="true"/>'
words = st.lists(
    st.sampled_from(["<think>", "</think>", IMAGE, "[sources=[1]]", "STOP", "S", "да", " ", "<"]), max_size=8
)


@given(words, st.sampled_from(["stop", "length", "blacklist"]), st.sampled_from([None, ["STOP"]]), st.booleans())
def test_a_stream_says_what_a_whole_answer_says(texts, finish, stop, has_call):
    more = {"function_call": CALL} if has_call else {}
    fields = {"stop": stop, "tools": [tool("f")]}
    whole = choice(chat(**fields), says("".join(texts), finish=finish, **more))
    found = told(*map(piece, texts), piece(finish=finish, **more), **fields)
    message = whole["message"]
    assert said(found) == (message["content"] or "")
    assert said(found, "reasoning_content") == message.get("reasoning_content", "")
    calls_told = [dict(each) for delta in deltas(found) for each in delta.get("tool_calls", [])]
    assert [each.pop("index") for each in calls_told] == list(range(len(calls_told)))
    assert calls_told == message.get("tool_calls", [])
    assert finishes(found) == [whole["finish_reason"]]


@given(words, st.booleans(), st.booleans())
def test_a_whole_answer_told_as_a_stream_is_the_same(texts, has_call, wants_usage):
    more = {"function_call": CALL} if has_call else {}
    made = streaming(tools=[tool("f")], **(USAGE_ASKED if wants_usage else {}))
    answers = [[says("".join(texts), **more)]]
    whole, chunks = made.completion(answers), made.chunks(answers)
    found = assembled(chunks)
    message = found.choices[0].message
    assert message.content == (whole["choices"][0]["message"]["content"])
    calls_told = [{"id": call.id, "arguments": call.function.arguments} for call in message.tool_calls or []]
    calls_meant = whole["choices"][0]["message"].get("tool_calls", [])
    assert calls_told == [{"id": call["id"], "arguments": call["function"]["arguments"]} for call in calls_meant]
    assert found.choices[0].finish_reason == whole["choices"][0]["finish_reason"]
    assert (chunks[-1]["choices"] == []) == wants_usage
    assert (chunks[-1].get("usage") == whole["usage"]) == wants_usage


def test_sources_of_a_whole_answer_come_in_a_chunk_of_their_own():
    inline = {"sources": {"1": {"url": "https://a/"}}}
    assert "annotations" in deltas(streaming().chunks([[says("Cold.", inline_data=inline)]]))[-2]


def test_several_whole_answers_are_told_one_after_another():
    made = streaming(n=2, **USAGE_ASKED)
    found = made.chunks([[says("a")], [says("b")]])
    assert [each["choices"][0]["index"] for each in found[:-1]] == [0, 0, 0, 1, 1, 1]
    assert found[-1]["usage"]["total_tokens"] == 40


def test_the_sdk_puts_a_stream_together():
    (found,) = assembled(told(*pieces("Hel", "lo"))).choices
    assert (found.message.role, found.message.content, found.finish_reason) == ("assistant", "Hello", "stop")


def test_a_stream_that_breaks_leaves_nothing_behind():
    """It is an object like any other: nobody keeps it."""
    stream = streaming(tools=[tool("f")]).stream()
    stream.feed(piece("Hi"))
    with pytest.raises(UpstreamError):
        stream.feed({"choices": "?"})
    assert not stream.is_done
