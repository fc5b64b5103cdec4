"""Files and models: what GigaChat takes, and what it has, in OpenAI's words."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import FileDeleted, FileObject, Model
from openai_talk import check

from proxy.dialects.openai import (
    decoded,
    file_deleted,
    file_list,
    file_object,
    media_type,
    model,
    model_info,
    model_info_list,
    model_list,
    type_by_filename,
)
from proxy.dialects.openai.files import MEGABYTE
from proxy.errors import AttachmentTooLarge, BadRequest, UnsupportedMedia, UpstreamError

FILE = {
    "id": "e7f0b84b",
    "object": "file",
    "bytes": 5,
    "created_at": 100,
    "filename": "a.pdf",
    "purpose": "general",
    "access_policy": "private",
    "modalities": ["text"],
}


# ---- What GigaChat takes ----


@pytest.mark.parametrize(
    ("given", "name", "family"),
    [
        ("image/jpeg", "image/jpeg", "image"),
        ("image/jpg", "image/jpeg", "image"),
        ("IMAGE/PNG; charset=binary", "image/png", "image"),
        ("text/plain;charset=utf-8", "text/plain", "document"),
        ("application/pdf", "application/pdf", "document"),
        ("application/epub+zip", "application/epub", "document"),
        ("audio/mpeg", "audio/mp3", "audio"),
        ("audio/x-wav", "audio/wav", "audio"),
    ],
)
def test_a_type_is_uploaded_under_the_name_that_the_api_has_for_it(given, name, family):
    found = media_type(given, 1, "x")
    assert (found.name, found.family) == (name, family)


@pytest.mark.parametrize(
    "given", ["image/webp", "image/gif", "image/svg+xml", "text/html", "application/zip", "video/mp4", ""]
)
def test_other_types_are_refused_with_those_that_are_taken(given):
    with pytest.raises(UnsupportedMedia) as refused:
        media_type(given, 1, "messages[0].content[0].image_url.url")
    assert (refused.value.status, refused.value.param) == (415, "messages[0].content[0].image_url.url")
    assert "png" in refused.value.message


@pytest.mark.parametrize(("given", "limit"), [("image/png", 15), ("audio/wav", 35), ("application/pdf", 40)])
def test_each_family_has_its_limit(given, limit):
    assert media_type(given, limit * MEGABYTE, "x").limit == limit * MEGABYTE
    with pytest.raises(AttachmentTooLarge) as refused:
        media_type(given, limit * MEGABYTE + 1, "x")
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.PDF", "application/pdf"),
        ("a.b.jpg", "image/jpeg"),
        ("a", "application/octet-stream"),
        ("", "application/octet-stream"),
        ("a.exe", "application/octet-stream"),
    ],
)
def test_a_files_name_tells_its_type(name, expected):
    assert type_by_filename(name) == expected


# ---- Data URLs ----


@given(st.binary(max_size=50), st.sampled_from(["image/png", "text/plain;charset=utf-8", ""]))
def test_a_data_url_is_its_type_and_its_bytes(content, kind):
    assert decoded(f"data:{kind};base64,{base64.b64encode(content).decode()}", "x") == (kind, content)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("data:,Hi%20there", ("", b"Hi there")),
        ("data:text/plain,%D0%B4%D0%B0", ("text/plain", "да".encode())),
        ("data:;base64,AAAA", ("", b"\0\0\0")),
        ("DATA:image/png;BASE64,AAAA", ("image/png", b"\0\0\0")),
        ("data:image/png;base64,", ("image/png", b"")),
        ("data:image/png;base64,AAA", ("image/png", b"\0\0")),
        ("data:image/png;base64,AA==", ("image/png", b"\0")),
        ("data:image/png;base64,AA\r\nAA", ("image/png", b"\0\0\0")),
        ("data:image/png;base64,AA%3D%3D", ("image/png", b"\0")),
    ],
)
def test_a_data_url_may_be_written_in_other_ways(url, expected):
    assert decoded(url, "x") == expected


@pytest.mark.parametrize(
    "url", ["data:", "data:image/png;base64", "data:image/png;base64,A", "data:;base64,AAA!", "data:;base64,да"]
)
def test_a_broken_data_url_is_refused_by_the_name_of_its_field(url):
    with pytest.raises(BadRequest) as refused:
        decoded(url, "messages[0].content[0].image_url.url")
    assert refused.value.param == "messages[0].content[0].image_url.url"


# ---- Files ----


def test_a_file_is_told_as_openai_does():
    check(FileObject, file_object(FILE))
    assert file_object(FILE) == {
        "id": "e7f0b84b",
        "object": "file",
        "bytes": 5,
        "created_at": 100,
        "filename": "a.pdf",
        "purpose": "user_data",
        "status": "processed",
    }


def test_the_purpose_of_an_upload_is_told_back():
    """GigaChat has no word for it."""
    assert file_object(FILE, "assistants")["purpose"] == "assistants"


def test_a_file_of_which_little_is_known_is_told_too():
    check(FileObject, file_object({"id": "x"}))


def files(count):
    return [{**FILE, "id": f"f{number}", "created_at": number} for number in range(count)]


def ids(page):
    return [each["id"] for each in page["data"]]


def test_files_are_listed_the_latest_first():
    assert ids(file_list(files(3))) == ["f2", "f1", "f0"]
    assert ids(file_list(files(3), ascending=True)) == ["f0", "f1", "f2"]


def test_a_list_comes_in_pages():
    first = file_list(files(5), limit=2)
    assert (ids(first), first["has_more"], first["first_id"], first["last_id"]) == (["f4", "f3"], True, "f4", "f3")
    last = file_list(files(5), limit=2, after="f1")
    assert (ids(last), last["has_more"]) == (["f0"], False)


def test_a_list_may_be_empty():
    assert file_list([]) == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_page_after_a_file_that_is_gone_is_the_first():
    assert ids(file_list(files(2), after="gone")) == ["f1", "f0"]


def test_a_deletion_is_told_as_openai_does():
    check(FileDeleted, file_deleted("x"))


# ---- Models ----

MODELS = {
    "object": "list",
    "data": [
        {"id": "GigaChat-2", "object": "model", "owned_by": "salutedevices", "type": "chat"},
        {"id": "Embeddings", "object": "model", "owned_by": "salutedevices", "type": "embedder"},
        {"id": "GigaFilter", "object": "model", "type": "filter"},
        {"id": "new"},
    ],
}


def test_models_are_told_as_openai_does():
    found = model_list(MODELS)
    assert found["object"] == "list"
    for each in found["data"]:
        check(Model, each)
    assert [each["id"] for each in found["data"]] == ["GigaChat-2", "Embeddings", "GigaFilter", "new"]


def test_one_model_is_told_by_the_name_that_was_asked_for():
    assert model(MODELS["data"][0], "gpt-4o")["id"] == "gpt-4o"
    assert model({"id": "x", "created": 7, "owned_by": "me"}) == {
        "id": "x",
        "object": "model",
        "created": 7,
        "owned_by": "me",
    }


def test_litellm_is_told_what_it_asks_for():
    first, second, third, _ = model_info_list(MODELS)["data"]
    assert first == {
        "model_name": "GigaChat-2",
        "litellm_params": {"model": "GigaChat-2"},
        "model_info": {"id": "GigaChat-2", "mode": "chat"},
    }
    assert second["model_info"]["mode"] == "embedding"
    assert "mode" not in third["model_info"]
    assert model_info(MODELS["data"][0], "gpt-4o")["model_name"] == "gpt-4o"


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": [5]}, {"data": [{}]}])
def test_a_list_that_is_none_is_the_upstreams_failure(answer):
    with pytest.raises(UpstreamError):
        model_list(answer)
    with pytest.raises(UpstreamError):
        model_info_list(answer)
