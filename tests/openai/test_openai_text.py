"""The text of an answer is the same however a stream cuts it: stop sequences, reasoning, images, sources."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.openai.marks import MAX_MARK, Marks, images_in, with_images
from proxy.dialects.openai.stops import Stops
from proxy.dialects.openai.text import AnswerText
from proxy.dialects.openai.thinking import Thinking, Told

LINK = "/v1/files/{id}/content"
ID = "3727db23-91a3-44fa-a6b7-9f0a311d3e9e"
CAT = f'<img src="{ID}" fuse="true"/>'
PICTURE = f"![image](/v1/files/{ID}/content)"


def cut(text, places):
    """The text in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def fed(reader, pieces):
    found = [reader.feed(piece) for piece in pieces]
    return [*found, reader.end()]


def joined(told):
    return Told("".join(each.reasoning for each in told), "".join(each.content for each in told))


cuts = st.lists(st.integers(0, 1000), max_size=8)


# ---- Stop sequences ----


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two", [], "one two"),
        ("one two", ["x"], "one two"),
        ("one two", ["two"], "one "),
        ("one two", ["one"], ""),
        ("one two", ["two", "o"], ""),
        ("one two", ["w", "two"], "one t"),
        ("abcd", ["abcd", "bc"], "a"),  # "bc" is complete first
        ("abc", ["bc", "abc"], ""),  # both end together: the longer one
        ("aab", ["ab"], "a"),
        ("раз\n\nдва", ["\n\n"], "раз"),
        ("one tw", ["two"], "one tw"),
    ],
)
def test_a_text_ends_before_the_sequence_that_is_completed_first(text, stops, expected):
    assert "".join(fed(Stops(stops), [text])) == expected
    assert "".join(fed(Stops(stops), text)) == expected


def test_only_what_may_be_a_sequences_beginning_is_held_back():
    reader = Stops(["\nObservation:", "END"])
    assert [reader.feed(piece) for piece in ("Thought\n", "Obs", "olete E", "N", "g")] == [
        "Thought", "", "\nObsolete ", "", "ENg"
    ]  # fmt: skip
    assert reader.feed("lish E") == "lish "
    assert reader.end() == "E"


def test_nothing_comes_after_a_sequence():
    reader = Stops(["END"])
    assert fed(reader, ["aEND", "b", "END"]) == ["a", "", "", ""]
    assert reader.is_hit


small = st.text("abc", max_size=12)


@given(small, st.lists(st.text("abc", min_size=1, max_size=4), max_size=4), cuts)
def test_where_a_stream_is_cut_makes_no_difference_to_stops(text, stops, places):
    whole, pieces = Stops(stops), Stops(stops)
    assert "".join(fed(whole, [text])) == "".join(fed(pieces, cut(text, places)))
    assert whole.is_hit == pieces.is_hit


@given(small, st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_is_told_has_no_sequence_in_it(text, stops):
    told = "".join(fed(Stops(stops), [text]))
    assert text.startswith(told)
    assert not any(stop in told for stop in stops)
    assert (told == text) == (not any(stop in text for stop in stops))


# ---- Reasoning ----


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("Hi", "", "Hi"),
        ("", "", ""),
        ("  \n", "", "  \n"),
        ("  Hi ", "", "  Hi "),
        ("<think>hm</think>Hi", "hm", "Hi"),
        ("\n <think>hm\n</think>\n\nHi ", "hm\n", "Hi "),
        ("<think></think>Hi", "", "Hi"),
        ("<think>hm", "hm", ""),
        ("<think>hm</thi", "hm</thi", ""),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("<thin", "", "<thin"),
        ("<thinking>hm", "", "<thinking>hm"),
        ("Use <think> so: <think>x</think>", "", "Use <think> so: <think>x</think>"),
        ("</think>Hi", "", "</think>Hi"),
    ],
)
def test_what_a_model_thinks_first_is_told_apart(text, reasoning, content):
    """At the head alone: further down the tag is something that the answer speaks of."""
    assert joined(fed(Thinking(), [text])) == (reasoning, content)
    assert joined(fed(Thinking(), text)) == (reasoning, content)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "think>", " ", "\n", "a", "</"]), max_size=8), cuts)
def test_where_a_stream_is_cut_makes_no_difference_to_reasoning(parts, places):
    text = "".join(parts)
    assert joined(fed(Thinking(), [text])) == joined(fed(Thinking(), cut(text, places)))


def test_reasoning_is_told_while_it_comes():
    reader = Thinking()
    assert [reader.feed(piece) for piece in ("<th", "ink>Let me", " see.</", "think>\n", "\nHi")] == [
        Told(), Told("Let me"), Told(" see."), Told(), Told("", "Hi")
    ]  # fmt: skip


# ---- Images and sources ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{CAT} a cat", f"{PICTURE} a cat"),
        (f"{CAT}{CAT}", PICTURE * 2),
        (f'<img src="{ID}" fuse="true">', PICTURE),
        ('<img src="cat.png" alt="a cat">', '<img src="cat.png" alt="a cat">'),
        ('<img src="../../x" fuse="true"/>', '<img src="../../x" fuse="true"/>'),
        ('<img src="', '<img src="'),
        ("a < b [c]", "a < b [c]"),
        ("Oslo is cold.[sources=[1,2]]", "Oslo is cold."),
        ("Cold [sources=[1, 2]], windy[sources=[]].", "Cold , windy."),
        ("[sources=[a]]", "[sources=[a]]"),
        ("[sources=[1", "[sources=[1"),
        (f'<img src="{"x" * MAX_MARK}">', f'<img src="{"x" * MAX_MARK}">'),
        (f'<img src="<img src="{ID}" fuse="true"/>', f'<img src="<img src="{ID}" fuse="true"/>'),
    ],
)
def test_marks_become_what_a_reader_wants(text, expected):
    assert "".join(fed(Marks(LINK), [text])) == expected
    assert "".join(fed(Marks(LINK), text)) == expected


marks = st.sampled_from([CAT, '<img src="', '"', ">", "[sources=[1]]", "[sources=[", "]]", "a", "<", "["])


@given(st.lists(marks, max_size=8), cuts)
def test_where_a_stream_is_cut_makes_no_difference_to_marks(parts, places):
    text = "".join(parts)
    assert "".join(fed(Marks(LINK), [text])) == "".join(fed(Marks(LINK), cut(text, places)))


def test_a_mark_is_never_torn():
    """Whoever puts the picture itself in its place finds it whole."""
    told = fed(Marks(None), ["Look: <im", 'g src="', ID, '" fuse="true"/', "> there"])
    assert told == ["Look: ", "", "", "", f"{CAT} there", ""]


def test_what_looks_like_a_mark_and_is_none_waits_not_for_ever():
    reader = Marks(LINK)
    assert reader.feed('<img src="') == ""
    assert len(reader.feed("x" * MAX_MARK)) > MAX_MARK


def test_images_can_be_found_and_replaced():
    text = f'{CAT} and {CAT} and <img src="b" fuse="true"/>'
    assert images_in(text) == [ID, "b"]
    assert images_in("none") == []
    told = with_images(text, {ID: "data:image/jpeg;base64,AAAA"})
    assert told.count("![image](data:image/jpeg;base64,AAAA)") == 2
    assert '<img src="b" fuse="true"/>' in told


def test_an_address_with_backslashes_is_put_in_as_it_is():
    assert with_images(CAT, {ID: r"a\1b"}) == r"![image](a\1b)"


# ---- All together ----

parts = st.lists(
    st.sampled_from(["<think>", "</think>", CAT, "[sources=[1]]", "STOP", "ST", "OP", "a", " ", "<", "["]), max_size=8
)


@given(parts, cuts, st.sampled_from([(), ("STOP",), ("STOP", "a")]))
def test_where_a_stream_is_cut_makes_no_difference_at_all(parts, places, stops):
    text = "".join(parts)
    pieces = AnswerText(stops, LINK)
    assert AnswerText(stops, LINK).whole(text) == joined(fed(pieces, cut(text, places)))


def test_a_stop_sequence_ends_the_answer_not_the_reasoning():
    text = AnswerText(("\n",), LINK)
    assert text.whole("<think>a\nb</think>c\nd") == ("a\nb", "c")
    assert text.is_stopped
