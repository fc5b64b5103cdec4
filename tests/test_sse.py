"""Server-sent events: what is written is read back, however the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.sse import DONE, Decoder, Event, comment, encode

line = st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b""))
events = st.builds(Event, data=line, name=line.map(bytes.strip))
#: Lines as servers write them, right and wrong.
lines = st.sampled_from(
    [b"data: one", b"data:two", b"data", b"data: ", b"event: name", b": comment", b"id: 7", b"nonsense", b""]
)
endings = st.sampled_from([b"\n", b"\r\n"])


def decoded(*pieces: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces, some of them empty."""
    bounds = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[start:end] for start, end in pairwise(bounds)]


@given(st.lists(events), st.lists(st.integers(0, 500)))
def test_what_is_written_is_read_back(written, places):
    """Any data on one line, named or not, in any pieces."""
    wire = b"".join(encode(event.data, event.name) for event in written)
    assert decoded(*cut(wire, places)) == written


@given(st.lists(st.tuples(lines, endings)), st.lists(st.integers(0, 500)))
def test_any_cutting_of_the_bytes_gives_the_same_events(written, places):
    """Inside a line, a line ending, a character: it makes no difference."""
    wire = b"".join(text + ending for text, ending in written)
    assert decoded(*cut(wire, places)) == decoded(wire) == decoded(*(bytes([byte]) for byte in wire))


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (b"data: a\n\n", [Event(b"a")]),
        (b"data:a\r\n\r\n", [Event(b"a")]),
        (b"data:  a \n\n", [Event(b" a ")]),
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data: a: b\n\n", [Event(b"a: b")]),
        (b"data\n\n", [Event(b"")]),
        (b"event: ping\ndata: a\n\n", [Event(b"a", b"ping")]),
        (b"event: ping\n\ndata: a\n\n", [Event(b"a")]),
        (b": hello\nid: 1\nretry: 5\nunknown\ndata: a\n\n", [Event(b"a")]),
        (b"\n\n\n", []),
        (b"data: cut off", []),
        (b"data: cut off\n", []),
        (DONE, [Event(b"[DONE]")]),
    ],
)
def test_streams_are_read_as_the_standard_says(wire, events):
    """One space after the colon is no data, data lines join, an event without data is none, a broken end is dropped."""
    assert decoded(wire) == events


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_a_comment_is_no_event(text):
    """It keeps the connection alive and tells nothing to programs."""
    assert decoded(comment(text) + encode(b"a")) == [Event(b"a")]
