"""What is attached to messages: found, kept within GigaChat's limits, or refused in plain words."""

import base64

import pytest
from openai_talk import assistant, body, chat, told, user

from proxy.dialects.openai import Chat, Options
from proxy.errors import BadRequest

PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,BBBB"
SITE = "https://example.com/cat.jpg"


def text(said):
    return {"type": "text", "text": said}


def image(url=PNG):
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def file(**fields):
    return {"type": "file", "file": fields}


def sound(**fields):
    return {"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav", **fields}}


def bundled(*parts):
    """The text and the sources of each of GigaChat's messages."""
    made = chat(user(list(parts)))
    files = {each.source: f"<{each.source}>" for each in made.attachments}
    return [(each["content"], *each.get("attachments", [])) for each in made.data(files)["messages"]]


# ---- What is found ----


@pytest.mark.parametrize(
    ("part", "form", "kind", "source", "filename", "param"),
    [
        (image(), "data", "image", PNG, "", "image_url.url"),
        (image(SITE), "url", "image", SITE, "", "image_url.url"),
        (image("HTTP://example.com/"), "url", "image", "HTTP://example.com/", "", "image_url.url"),
        ({"type": "image_url", "image_url": SITE}, "url", "image", SITE, "", "image_url"),
        (file(file_data=PDF, filename="a.pdf"), "data", "document", PDF, "a.pdf", "file.file_data"),
        (file(file_data=PNG), "data", "image", PNG, "", "file.file_data"),
        (file(file_data="BBBB", filename="a.PDF"), "data", "document", PDF, "a.PDF", "file.file_data"),
        (file(file_data=SITE), "url", "file", SITE, "", "file.file_data"),
        (file(file_id="3727db23-91a3"), "id", "file", "3727db23-91a3", "", "file.file_id"),
        (sound(), "data", "audio", "data:audio/wav;base64,CCCC", "audio.wav", "input_audio.data"),
        (sound(format="mp3"), "data", "audio", "data:audio/mp3;base64,CCCC", "audio.mp3", "input_audio.data"),
    ],
)
def test_what_must_be_uploaded_is_told_with_its_place(part, form, kind, source, filename, param):
    (found,) = chat(user("q"), user([text("What is this?"), part])).attachments
    assert (found.form, found.kind, found.source, found.filename) == (form, kind, source, filename)
    assert (found.message, found.param) == (1, f"messages[1].content[1].{param}")


def test_attachments_come_in_the_order_of_the_conversation():
    made = chat(user([image(PNG)]), assistant("Nice."), user([image(SITE), file(file_id="x")]))
    assert [each.source for each in made.attachments] == [PNG, SITE, "x"]


def test_the_bytes_of_an_attachment_are_in_no_repr():
    (found,) = chat(user([image("data:image/png;base64," + "A" * 1000)])).attachments
    assert repr(found) == "<Attachment image of messages[0].content[0].image_url.url>"


def test_ids_of_uploaded_files_take_the_place_of_what_was_attached():
    made = chat(user([text("What is this?"), image()]))
    assert made.data({PNG: "id-1"})["messages"] == [
        {"role": "user", "content": "What is this?", "attachments": ["id-1"]}
    ]


def test_a_file_that_is_uploaded_already_needs_no_upload():
    assert told(user([text("?"), file(file_id="x")])) == [{"role": "user", "content": "?", "attachments": ["x"]}]


def test_what_was_not_uploaded_cannot_be_called_with():
    with pytest.raises(KeyError):
        chat(user([image()])).data()


# ---- One in a message ----


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([image()], [("", f"<{PNG}>")]),
        ([text("?"), image()], [("?", f"<{PNG}>")]),
        ([image(), text("?")], [("?", f"<{PNG}>")]),
        ([text("?"), image(), image(SITE)], [("[1/2]", f"<{PNG}>"), ("?", f"<{SITE}>")]),
        ([image(), image(SITE)], [("[1/2]", f"<{PNG}>"), ("", f"<{SITE}>")]),
        ([image(), image(SITE), text("?")], [("[1/2]", f"<{PNG}>"), ("?", f"<{SITE}>")]),
        (
            [text("First:"), image(), text("Second:"), image(SITE), text("Compare.")],
            [("First:", f"<{PNG}>"), ("Second:\nCompare.", f"<{SITE}>")],
        ),
        ([text("?"), image(), sound(), file(file_id="x")],
         [("[1/3]", f"<{PNG}>"), ("[2/3]", "<data:audio/wav;base64,CCCC>"), ("?", "<x>")]),
    ],
)  # fmt: skip
def test_each_attachment_has_a_message_of_its_own_in_order(parts, expected):
    """GigaChat takes one image in a message; a comparison of two must still work, with its question last."""
    assert bundled(*parts) == [tuple(each) for each in expected]


def test_ten_images_are_taken_and_the_eleventh_is_named():
    """Those of earlier messages count: GigaChat sees them again with every request."""
    ten = [user([image(f"{SITE}?{number}")]) for number in range(10)]
    assert len(chat(*ten).attachments) == 10
    with pytest.raises(BadRequest) as refused:
        chat(*ten, user([text("?"), image()]))
    assert refused.value.param == "messages[10].content[1].image_url.url"
    assert "10 in a request" in refused.value.message


def test_a_second_document_in_a_message_is_refused():
    """GigaChat would read the first and say nothing of the other."""
    with pytest.raises(BadRequest) as refused:
        chat(user([file(file_data=PDF), file(file_data=PDF + "BBBB")]))
    assert refused.value.param == "messages[0].content[1].file.file_data"
    assert len(chat(user([file(file_data=PDF)]), user([file(file_data=PDF + "BBBB")])).attachments) == 2


@pytest.mark.parametrize(
    ("part", "function_call"),
    [(file(file_data=PDF), "auto"), (file(file_id="x"), "auto"), (image(), None), (sound(), None)],
)
def test_gigachats_function_that_reads_documents_is_allowed_where_it_is_needed(part, function_call):
    made = chat(user([text("?"), part]))
    data = made.data({each.source: "id" for each in made.attachments})
    assert data["generate_parameters"].get("function_call") == function_call


def test_tools_that_must_not_be_called_do_not_keep_documents_from_being_read():
    """ "none" would switch GigaChat's own function off too."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    made = chat(user([file(file_id="x")]), tools=tools, tool_choice="none")
    given = made.data()["generate_parameters"]
    assert (given["function_call"], "functions" in given) == ("auto", False)


def test_with_tools_documents_are_read_anyway():
    """A list of functions is enough for the API; another `function_call` would overrule the caller's choice."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    made = chat(user([file(file_id="x")]), tools=tools, tool_choice={"type": "function", "function": {"name": "f"}})
    assert made.data()["generate_parameters"]["function_call"] == {"name": "f"}


# ---- What is refused ----


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url"}, "image_url"),
        ({"type": "image_url", "image_url": {}}, "image_url.url"),
        ({"type": "image_url", "image_url": 5}, "image_url"),
        (image(None), "image_url.url"),
        (image("cat.jpg"), "image_url.url"),
        (image("file:///etc/passwd"), "image_url.url"),
        (image("ftp://example.com/cat.jpg"), "image_url.url"),
        (image(""), "image_url.url"),
        ({"type": "file"}, "file"),
        (file(), "file"),
        (file(filename="a.pdf"), "file"),
        (file(file_data=5), "file.file_data"),
        (file(file_id="../../models"), "file.file_id"),
        (file(file_id="https://10.0.0.1/"), "file.file_id"),
        (file(file_id="a b"), "file.file_id"),
        (file(file_id="x" * 201), "file.file_id"),
        (sound(data=""), "input_audio.data"),
        (sound(format="flac"), "input_audio.format"),
        ({"type": "input_audio"}, "input_audio"),
    ],
)
def test_a_wrong_part_is_named(part, param):
    with pytest.raises(BadRequest) as refused:
        chat(user([text("?"), part]))
    assert refused.value.param == f"messages[0].content[1].{param}"


@pytest.mark.parametrize("role", ["system", "developer", "assistant", "tool", "function"])
def test_only_users_attach(role):
    """OpenAI says so too."""
    with pytest.raises(BadRequest) as refused:
        chat({"role": role, "content": [image()], "tool_call_id": "a", "name": "f"})
    assert '"user"' in refused.value.message


def test_the_operator_may_switch_attachments_off():
    """Files that are at the API already are no matter of downloads and uploads."""
    off = Options(enable_images=False)
    with pytest.raises(BadRequest) as refused:
        chat(user([image()]), options=off)
    assert "GPT2GIGA_ENABLE_IMAGES" in refused.value.message
    assert refused.value.param == "messages[0].content[0].image_url.url"
    assert chat(user([file(file_id="x")]), options=off).attachments


def test_a_large_image_is_not_copied_into_an_error():
    url = "data" + base64.b64encode(b"x" * 1_000_000).decode()
    with pytest.raises(BadRequest) as refused:
        chat(user([image(url)]))
    assert len(refused.value.message) < 300


def test_reading_a_request_does_not_change_it():
    """It is read twice: when it comes, and when its turn comes."""
    asked = body(user([text("?"), image(), image(SITE)]))
    files = {PNG: "1", SITE: "2"}
    first, second = (Chat(asked, Options(), id="x", created=1).data(files) for _ in range(2))
    assert first == second
