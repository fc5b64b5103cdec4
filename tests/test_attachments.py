"""Pictures and files on their way to the API: uploaded once, through the line, for their own account alone."""

import asyncio
import base64
import gc
import io
import json
import socket
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from running import Proxy, StartProxy, busy, settings_for, until, waiting
from strangers import HOST, Names, a_server, never, saying

import app
import emulator
from emulator import Options
from emulator.multipart import parts
from emulator.shelves import File
from proxy import api_files
from proxy import attachments as module
from proxy.api_files import form
from proxy.attachments import AGE, Attachments, Sender, fitting
from proxy.clock import Clock
from proxy.dialects.openai.files import BY_NAME, TYPES
from proxy.dialects.openai.parts import Attachment, Kind
from proxy.errors import (
    AttachmentTooLarge,
    BadRequest,
    DeadlineExpired,
    LineFull,
    ProxyError,
    UnsupportedMedia,
    UpstreamError,
)
from proxy.fetching import Fetching
from proxy.lanes import Lane
from proxy.line import Priority
from proxy.passed import PassedCredential
from proxy.public_hosts import PublicHosts

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PARAM = "messages[0].content[1].image_url.url"
MEGABYTE = 2**20


def data_url(content: bytes = PNG, type: str = "image/png") -> str:
    return f"data:{type};base64,{base64.b64encode(content).decode()}"


def attached(source: str = "", kind: Kind = "image", filename: str = "") -> Attachment:
    return Attachment(source or data_url(), kind, 0, filename, PARAM)


def from_caller(
    proxy: Proxy,
    *,
    lane: Lane | None = None,
    id: str = "request-1",
    caller: str = "anna",
    client: str = "",
    patience: float = 20.0,
    **knobs: Any,
) -> Sender:
    """A request of a caller, as the edge describes it."""
    lane = lane or proxy.service.lanes.main
    passed_on = {"X-Client-ID": client} if client else None

    def enrol(call: Any) -> Any:
        return lane.line.enrol(
            call, id=id, caller=caller, client=client, patience=patience, passed_on=passed_on, **knobs
        )

    ends = asyncio.get_running_loop().time() + patience
    return Sender(lane=lane, enrol=enrol, id=id, caller=caller, client=client, ends=ends)


def uploaded(proxy: Proxy) -> list[File]:
    """What the API has now, in the order of its arrival."""
    return list(proxy.giga.state.files._things.values())


def heard(proxy: Proxy) -> list[str]:
    """What the API was asked, in the order of arrival."""
    paths = [call.path for call in proxy.giga.state.calls if "oauth" not in call.path]
    return ["delete" if path.endswith("/delete") else path.rpartition("/")[2] for path in paths]


@asynccontextmanager
async def making(names: Names | None = None, **knobs: Any) -> AsyncIterator[Attachments]:
    attachments = Attachments(Fetching(PublicHosts((HOST,), names or Names())), **knobs)
    try:
        yield attachments
    finally:
        await attachments.close()


async def id_of(attachments: Attachments, sender: Sender, each: Attachment | None = None) -> str:
    """The id that a request gets for its one attachment."""
    each = each or attached()
    async with attachments.of(sender) as uploads:
        ids = await uploads.ids([each])
    assert list(ids) == [each.source]
    return ids[each.source]


async def refusal(proxy: Proxy, each: Attachment) -> BadRequest:
    """What is wrong with an attachment; nothing of it reaches the API."""
    async with making() as attachments:
        with pytest.raises(BadRequest) as told:
            await id_of(attachments, from_caller(proxy), each)
    assert told.value.param == PARAM and PARAM in str(told.value)
    assert heard(proxy) == []
    return told.value


# -- what is uploaded


async def test_a_picture_of_a_data_url_becomes_a_file_byte_for_byte(start_proxy: StartProxy) -> None:
    """Its type, a name that fits, the general purpose; and an attachment that is an id already stays as it is."""
    proxy = await start_proxy()
    async with making() as attachments, attachments.of(from_caller(proxy)) as uploads:
        picture = attached()
        ids = await uploads.ids([attached("file-7", "file"), picture])
    (file,) = uploaded(proxy)
    assert ids == {picture.source: file.id}
    assert (file.content, file.mime, file.filename, file.purpose) == (PNG, "image/png", "image.png", "general")


async def test_a_picture_behind_an_address_becomes_one_too(start_proxy: StartProxy) -> None:
    """With the name that the address has."""
    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        await id_of(attachments, from_caller(proxy), attached(server.url(path="/%D0%BA%D0%BE%D1%82.png?size=1")))
    (file,) = uploaded(proxy)
    assert (file.mime, file.filename) == ("image/png", "кот.png")
    assert file.content.startswith(b"\x89PNG")


async def test_nothing_attached_costs_nothing(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with making(deletes=True) as attachments, attachments.of(from_caller(proxy)) as uploads:
        assert await uploads.ids([]) == {} == await uploads.ids([attached("file-7", "file")])
    assert heard(proxy) == []


async def test_several_are_uploaded_one_after_the_other_and_the_same_source_once(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    sources = [data_url(PNG + bytes([number])) for number in (1, 2, 1, 3)]
    async with making() as attachments, attachments.of(from_caller(proxy)) as uploads:
        ids = await uploads.ids(map(attached, sources))
    assert [ids[source] for source in dict.fromkeys(sources)] == [file.id for file in uploaded(proxy)]
    assert len(uploaded(proxy)) == 3


@given(name=st.text(max_size=150), content=st.binary(max_size=200))
def test_whatever_a_file_is_called_its_form_has_one_file_with_its_bytes(name: str, content: bytes) -> None:
    """Quotes, line ends, paths, boundaries: nothing of a name gets out of its place."""
    filename = fitting(name, BY_NAME["application/pdf"])
    content_type, body = form(filename, "application/pdf", content)
    found = parts(content_type, body)
    assert set(found) == {"purpose", "file"}
    assert found["purpose"].content == b"general" and found["file"].content == content
    assert found["file"].mime == "application/pdf"
    assert filename.lower().endswith(".pdf") and len(filename) <= api_files.NAME_LENGTH + len(".pdf")


@pytest.mark.parametrize(
    ("name", "type", "fits"),
    [
        ("report.pdf", "application/pdf", "report.pdf"),
        ("Отчёт за год.PDF", "application/pdf", "Отчёт за год.PDF"),
        ("report", "application/pdf", "report.pdf"),
        ("", "application/pdf", "document.pdf"),
        ("cat.jpg", "image/jpeg", "cat.jpg"),
        ("cat.png", "image/jpeg", "cat.png.jpeg"),
        ('../"etc"/passwd\r\nX: y', "text/plain", "..__etc__passwd__X: y.txt"),
    ],
)
def test_a_name_is_kept_and_ends_as_its_type_wants_it(name: str, type: str, fits: str) -> None:
    assert fitting(name, BY_NAME[type]) == fits


# -- types


@pytest.mark.parametrize("media", [media for media, _ in TYPES], ids=lambda media: media.extension)
async def test_every_type_of_the_apis_is_taken_by_each_of_its_names(start_proxy: StartProxy, media: Any) -> None:
    """Under the name that the API knows."""
    proxy = await start_proxy()
    names = [name for name, known in BY_NAME.items() if known is media]
    async with making() as attachments:
        for number, name in enumerate(names):
            each = attached(data_url(bytes([number]), f"{name.upper()};charset=utf-8"), "file")
            await id_of(attachments, from_caller(proxy), each)
    assert {file.mime for file in uploaded(proxy)} == {media.name} and len(uploaded(proxy)) == len(names)


def archive(*names: str) -> bytes:
    """A zip file with these members, as office programs write them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            zipped.writestr(name, b"application/epub+zip" if name == "mimetype" else b"<xml/>")
    return file.getvalue()


DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
BEGINNINGS = {
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "image/png": PNG,
    "image/tiff": b"II*\x00\x08\x00\x00\x00",
    "image/bmp": b"BM\x46\x00\x00\x00\x00\x00\x00\x00",
    "application/pdf": b"%PDF-1.7\n",
    "application/epub": archive("mimetype", "META-INF/container.xml"),
    DOCX: archive("[Content_Types].xml", "_rels/.rels", "word/document.xml"),
    "application/pptx": archive("[Content_Types].xml", "_rels/.rels", "ppt/presentation.xml"),
    "audio/wav": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "audio/mp3": b"ID3\x04\x00",
    "audio/ogg": b"OggS\x00\x02" + bytes(22) + b"\x01vorbis",
    "audio/opus": b"OggS\x00\x02" + bytes(22) + b"OpusHead",
    "audio/x-m4a": b"\x00\x00\x00\x20ftypM4A \x00",
    "audio/mp4": b"\x00\x00\x00\x20ftypisom\x00",
    "audio/webm": b"\x1aE\xdf\xa3\x9f",
}


@pytest.mark.parametrize(("type", "content"), BEGINNINGS.items(), ids=list(BEGINNINGS))
async def test_what_has_no_type_is_known_by_its_first_bytes(start_proxy: StartProxy, type: str, content: bytes) -> None:
    """As a data URL, and as a download whose server does not know."""
    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        server.says = saying(content, "application/octet-stream")
        for source in (data_url(content, ""), data_url(content, "application/octet-stream"), server.url(path="/")):
            await id_of(attachments, from_caller(proxy), attached(source, "file"))
    (file,) = uploaded(proxy)
    assert file.mime == type


async def test_else_by_its_name(start_proxy: StartProxy) -> None:
    """The caller's, or that in the address."""
    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        server.says = saying(b"\xd0\xcf\x11\xe0", "application/octet-stream")
        await id_of(attachments, from_caller(proxy), attached(data_url(b"word", ""), "file", "notes.txt"))
        await id_of(attachments, from_caller(proxy), attached(server.url(path="/old/letter.DOC?v=2"), "file"))
    assert [file.mime for file in uploaded(proxy)] == ["text/plain", "application/msword"]


@pytest.mark.parametrize(
    ("source", "kind", "named"),
    [
        (data_url(b"RIFF....WEBP", "image/webp"), "image", "image/webp"),
        (data_url(b"RIFF....WEBP", ""), "image", "image/webp"),
        (data_url(b"GIF89a", "application/octet-stream"), "image", "image/gif"),
        (data_url(b"<html>", "text/html"), "file", "text/html"),
        (data_url(b"{}", "application/json"), "file", "application/json"),
        (data_url(b"MZ\x90\x00", ""), "file", "application/octet-stream"),
        (data_url(b"%PDF-1.7", "application/pdf"), "image", "application/pdf"),
        (data_url(b"%PDF-1.7", ""), "image", "application/pdf"),
        (data_url(PNG, "audio/mp3"), "image", "audio/mp3"),
        (data_url(PNG, "x" * 500), "image", "xxx"),
    ],
)
async def test_what_the_api_does_not_take_is_a_415_that_names_the_type(
    start_proxy: StartProxy, source: str, kind: Kind, named: str
) -> None:
    """A document where a picture is meant too: it would count against another limit."""
    told = await refusal(await start_proxy(), attached(source, kind))
    assert isinstance(told, UnsupportedMedia) and told.status == 415
    assert named in str(told) and len(str(told)) < 500


async def test_a_download_of_a_wrong_type_is_refused_before_it_is_read(start_proxy: StartProxy) -> None:
    async def says(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        await response.prepare(request)
        return await never(request)

    async with a_server() as server:
        server.says = says
        told = await refusal(await start_proxy(), attached(server.url()))
    assert isinstance(told, UnsupportedMedia) and "video/mp4" in str(told)


# -- sizes


@pytest.mark.parametrize(("type", "limit"), [("image/png", 15), ("audio/wav", 35), ("application/pdf", 40)])
async def test_one_byte_above_the_limit_of_its_type_is_a_413(start_proxy: StartProxy, type: str, limit: int) -> None:
    """As a data URL and as a download. What is just as large as the limit is uploaded."""
    content = bytes(limit * MEGABYTE)
    proxy = await start_proxy()
    async with a_server() as server:
        server.says = saying(content + b"x", type)
        for source in (data_url(content + b"x", type), server.url()):
            told = await refusal(proxy, attached(source, "file"))
            assert isinstance(told, AttachmentTooLarge) and told.status == 413
            assert f"{limit} MB" in str(told)
    async with making() as attachments:
        await id_of(attachments, from_caller(proxy), attached(data_url(content, type), "file"))
    assert [len(file.content) for file in uploaded(proxy)] == [len(content)]


async def test_all_pictures_of_a_request_together_have_a_limit(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents do not count, and neither do the pictures of another request."""
    monkeypatch.setattr(module, "MOST_BYTES", 2 * len(PNG))
    proxy = await start_proxy()
    pictures = [attached(data_url(bytes([number]) * len(PNG))) for number in range(3)]
    document = attached(data_url(bytes(10 * len(PNG)), "text/plain"), "document")
    async with making() as attachments:
        for some in (pictures[:2], pictures[1:]):
            async with attachments.of(from_caller(proxy)) as uploads:
                await uploads.ids([*some, document])
        async with attachments.of(from_caller(proxy)) as uploads:
            with pytest.raises(AttachmentTooLarge, match="are more than the"):
                await uploads.ids(pictures)


@pytest.mark.parametrize(
    "source",
    [
        *("data:", "data:image/png", "data:image/png;base64", "data:image/png;base64,", "data:image/png,"),
        *("data:image/png;base64,!!!!", "data:image/png;base64,кот", "data:,"),
        *("data:image/png;base64,AA==AA==", "data:image/png;base64,A", "DATA:image/png;BASE64,=", "data:;;,"),
    ],
)
async def test_a_data_url_that_cannot_be_read_or_is_empty_is_a_400(start_proxy: StartProxy, source: str) -> None:
    told = await refusal(await start_proxy(), attached(source))
    assert told.status == 400


@pytest.mark.parametrize(
    "source",
    [
        *("data:text/plain,%D0%BA%D0%BE%D1%82", "DATA:Text/Plain;charset=utf-8,кот"),
        *("data:text/plain;charset=utf-8;base64,0LrQvtGC", "data:text/plain;BASE64,0LrQ\r\nvtGC\r\n"),
        *("data:text/plain;base64,0LrQ%0AvtGC", "data:text/plain;base64,%30LrQvtGC"),
    ],
)
async def test_a_data_url_may_be_percent_encoded_base64_or_both(start_proxy: StartProxy, source: str) -> None:
    """And base64 may come in lines."""
    proxy = await start_proxy()
    async with making() as attachments:
        await id_of(attachments, from_caller(proxy), attached(source, "document"))
    (file,) = uploaded(proxy)
    assert file.content.decode() == "кот"


# -- once an hour and account


async def test_the_same_content_is_uploaded_once_by_whatever_address_it_comes(start_proxy: StartProxy) -> None:
    """A data URL, a download, another address; also for another caller of the same account."""
    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        server.says = saying(PNG, "image/png")
        ids = {
            await id_of(attachments, from_caller(proxy, caller=caller), attached(source))
            for source in (data_url(), server.url(), server.url(path="/another?cat"))
            for caller in ("anna", "boris")
        }
        assert len(server.asked) == 4  # each time, since what is there may have changed
    assert len(ids) == 1 and heard(proxy) == ["files"]


async def test_what_has_changed_behind_an_address_is_uploaded_again(start_proxy: StartProxy) -> None:
    contents = [PNG, PNG + b"new"]

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=contents.pop(0), content_type="image/png")

    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        server.says = says
        ids = [await id_of(attachments, from_caller(proxy), attached(server.url())) for _ in range(2)]
    assert [file.id for file in uploaded(proxy)] == ids
    assert uploaded(proxy)[1].content == PNG + b"new"


async def test_the_same_bytes_of_another_type_are_another_file(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with making() as attachments:
        for type in ("image/png", "text/plain", "image/x-png"):
            await id_of(attachments, from_caller(proxy), attached(data_url(PNG, type), "file"))
    assert [file.mime for file in uploaded(proxy)] == ["image/png", "text/plain"]


async def test_no_account_gets_the_ids_of_another(start_proxy: StartProxy) -> None:
    """Credentials of the callers' own, and the server's."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    lanes = [proxy.service.lanes.of(PassedCredential("key", word)) for word in ("a2V5LW9uZQ==", "a2V5LXR3bw==")]
    async with making() as attachments:
        ids = [
            await id_of(attachments, from_caller(proxy, lane=lane))
            for lane in (proxy.service.lanes.main, *lanes)
            for _ in range(2)
        ]
    files = uploaded(proxy)
    assert ids == [file.id for file in files for _ in range(2)]
    assert len({file.account for file in files}) == len(files) == 3


async def test_a_file_is_for_the_client_that_it_was_made_with(start_proxy: StartProxy) -> None:
    """X-Client-ID: the API lets no other read it."""
    proxy = await start_proxy()
    async with making() as attachments:
        for client in ("phone", "desk", "phone", ""):
            await id_of(attachments, from_caller(proxy, client=client))
    assert [file.client for file in uploaded(proxy)] == ["phone", "desk", ""]


class StoppedClock(Clock):
    time = 1000.0

    def now(self) -> float:
        return self.time


async def test_after_an_hour_it_is_uploaded_again(start_proxy: StartProxy) -> None:
    clock = StoppedClock()
    proxy = await start_proxy()
    async with making(clock=clock) as attachments:
        first = await id_of(attachments, from_caller(proxy))
        clock.time += AGE - 1
        assert await id_of(attachments, from_caller(proxy)) == first
        clock.time += 1
        assert await id_of(attachments, from_caller(proxy)) != first


async def test_no_more_than_so_many_files_are_remembered(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is forgotten first."""
    monkeypatch.setattr(module, "MOST", 2)
    proxy = await start_proxy()
    async with making() as attachments:
        for number in (1, 2, 3, 3, 2, 1):
            await id_of(attachments, from_caller(proxy), attached(data_url(bytes([number]))))
    assert [file.content[0] for file in uploaded(proxy)] == [1, 2, 3, 1]


async def test_two_requests_at_once_upload_the_same_picture_once(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 0.05, "path": "/files"})
    async with making() as attachments:
        ids = await asyncio.gather(*(id_of(attachments, from_caller(proxy, caller=str(n))) for n in range(5)))
    assert len(set(ids)) == 1 and heard(proxy) == ["files"]


async def test_different_pictures_do_not_wait_for_each_other(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "path": "/files"})
    async with making() as attachments:
        stuck = asyncio.create_task(id_of(attachments, from_caller(proxy)))
        await until(lambda: heard(proxy) == ["files"])
        await id_of(attachments, from_caller(proxy), attached(data_url(b"another")))
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)


async def test_who_leaves_while_it_uploads_leaves_the_upload_to_the_next(start_proxy: StartProxy) -> None:
    """Its own call is ended, as nothing is done for nobody."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "path": "/files"})
    async with making() as attachments:
        first = asyncio.create_task(id_of(attachments, from_caller(proxy, id="first")))
        await until(lambda: heard(proxy) == ["files"])
        second = asyncio.create_task(id_of(attachments, from_caller(proxy, id="second")))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == uploaded(proxy)[0].id
        assert first.cancelled()
    assert [call["headers"]["x-request-id"] for call in await proxy.calls("/files")] == ["first", "second"]


async def test_whose_upload_fails_fails_alone(start_proxy: StartProxy) -> None:
    """Who waited for it tries by itself."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 422, "path": "/files"})
    async with making() as attachments:
        told = await asyncio.gather(*(id_of(attachments, from_caller(proxy)) for _ in range(2)), return_exceptions=True)
    assert isinstance(told[0], UpstreamError) and told[0].status == 422
    assert told[1] == uploaded(proxy)[0].id


async def test_where_the_api_refuses_a_request_its_files_are_uploaded_anew_the_next_time(
    start_proxy: StartProxy,
) -> None:
    """Somebody may have deleted them there. Whatever else goes wrong, they are kept."""
    proxy = await start_proxy()
    async with making() as attachments:
        first = await id_of(attachments, from_caller(proxy))
        for error in (UpstreamError(502), UpstreamError(None), ValueError(), DeadlineExpired()):
            with pytest.raises(type(error)):
                async with attachments.of(from_caller(proxy)) as uploads:
                    await uploads.ids([attached()])
                    raise error
        assert await id_of(attachments, from_caller(proxy)) == first
        with pytest.raises(UpstreamError):
            async with attachments.of(from_caller(proxy)) as uploads:
                await uploads.ids([attached()])
                raise UpstreamError(404)
        assert await id_of(attachments, from_caller(proxy)) != first


# -- through the line


async def test_an_upload_and_its_chat_keep_the_limits_and_their_order(start_proxy: StartProxy) -> None:
    """One in flight, evenly paced: an upload waits its turn like any other call, as the request that needs it."""
    proxy = await start_proxy(Options(concurrency=1), ext_max_requests=1, ext_api_rpm=1200)
    first = await busy(proxy, 0.1)
    async with making() as attachments:
        uploading = asyncio.create_task(id_of(attachments, from_caller(proxy, id="with-a-cat")))
        await until(lambda: waiting(proxy) == 1)
        assert uploaded(proxy) == []
        await uploading
        await proxy.ask("and what is this?")
    assert (await first).status == 200
    assert heard(proxy) == ["completions", "files", "completions"]
    calls = [call for call in proxy.giga.state.calls if "oauth" not in call.path]
    for sooner, later in pairwise(calls):
        assert later.arrived_ns >= sooner.finished_ns
        assert later.arrived_ns - sooner.arrived_ns >= 0.049e9
    assert calls[1].headers["X-Request-ID"] == "with-a-cat"
    assert proxy.giga.state.accounts.refused == 0


async def test_an_upload_takes_its_callers_turn(start_proxy: StartProxy) -> None:
    """Behind its own request, before the second one of a caller who came first."""
    proxy = await start_proxy(ext_max_requests=1)
    first = await busy(proxy, 0.2)
    async with making() as attachments:
        others = []
        for count in (1, 2):
            sender = from_caller(proxy, caller="boris", id=f"boris-{count}")
            others.append(asyncio.create_task(id_of(attachments, sender, attached(data_url(bytes([count]))))))
            await until(lambda: waiting(proxy) == count)  # noqa: B023
        await id_of(attachments, from_caller(proxy, caller="anna", id="anna"))
        await asyncio.gather(*others, first)
    assert [call["headers"]["x-request-id"] for call in await proxy.calls("/files")] == ["boris-1", "anna", "boris-2"]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 413, 422])
async def test_an_upload_that_the_api_refuses_fails_the_request_with_its_words(
    start_proxy: StartProxy, status: int
) -> None:
    """At once; and nothing of it is remembered."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": status, "path": "/files", "body": {"message": "not that"}})
    async with making() as attachments:
        with pytest.raises(UpstreamError, match="not that") as told:
            await id_of(attachments, from_caller(proxy))
        assert told.value.status == status and heard(proxy) == ["files"]
        await id_of(attachments, from_caller(proxy))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "429", "retry_after": 0},
        {"kind": "cut"},
        {"kind": "html200"},
        {"kind": "bad_json", "body": "{}"},
        {"kind": "bad_json", "body": '{"id": 7}'},
        {"kind": "expired_token"},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('body', '')}",
)
async def test_an_upload_that_may_succeed_later_is_tried_again(
    start_proxy: StartProxy, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the line, as any call is: 5xx, a broken connection, an answer that is none, an old token."""
    monkeypatch.setattr("proxy_request.FIRST_BACKOFF", 0.01)
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"path": "/files", **fault})
    async with making() as attachments:
        id = await id_of(attachments, from_caller(proxy))
    assert id == uploaded(proxy)[-1].id and heard(proxy) == ["files", "files"]


async def test_an_upload_that_never_succeeds_fails_the_request(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the line has tried as often as it tries anything."""
    monkeypatch.setattr("proxy_request.FIRST_BACKOFF", 0.01)
    proxy = await start_proxy(ext_retries=1)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "path": "/files", "times": -1})
    async with making() as attachments:
        with pytest.raises(UpstreamError) as told:
            await id_of(attachments, from_caller(proxy))
    assert told.value.status == 502 and heard(proxy) == ["files", "files"]


# -- time


async def test_a_download_ends_with_the_deadline_of_its_request(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with a_server() as server, making() as attachments:
        server.says = never
        with pytest.raises(DeadlineExpired):
            await id_of(attachments, from_caller(proxy, patience=0.05), attached(server.url()))


async def test_so_does_the_wait_for_anothers_upload(start_proxy: StartProxy) -> None:
    """A patient caller's upload does not take an impatient one along."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "path": "/files"})
    async with making() as attachments:
        patient = asyncio.create_task(id_of(attachments, from_caller(proxy)))
        await until(lambda: heard(proxy) == ["files"])
        with pytest.raises(DeadlineExpired):
            await id_of(attachments, from_caller(proxy, caller="boris", patience=0.05))
        assert not patient.done()
        patient.cancel()
        await asyncio.gather(patient, return_exceptions=True)


async def test_a_caller_holds_so_many_downloads_at_once_and_hinders_no_other(
    start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first byte until the API has them; so a few small requests cannot fill the memory."""
    monkeypatch.setattr(module, "MOST_HELD", 2)
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "path": "/files", "times": 2})

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=request.path.encode(), content_type="image/png")

    async with a_server() as server, making() as attachments:
        server.says = says
        four = [
            asyncio.create_task(id_of(attachments, from_caller(proxy), attached(server.url(path=f"/{number}"))))
            for number in range(4)
        ]
        await until(lambda: heard(proxy) == ["files", "files"])
        await id_of(attachments, from_caller(proxy, caller="boris"), attached(server.url(path="/other")))
        assert sorted(request.path for request in server.asked) == ["/0", "/1", "/other"]
        four[0].cancel()
        await four[2]
        await four[3]
        four[1].cancel()
        await asyncio.gather(*four, return_exceptions=True)
        gc.collect()
        assert "boris" not in attachments._holds, "nothing is remembered of callers who are gone"


# -- deleted afterwards


async def test_with_deletion_each_request_has_files_of_its_own_which_go_with_it(start_proxy: StartProxy) -> None:
    """Not one moment before: two requests with the same picture do not share it."""
    proxy = await start_proxy()
    async with making(deletes=True) as attachments:
        async with attachments.of(from_caller(proxy)) as one, attachments.of(from_caller(proxy)) as two:
            first = (await one.ids([attached()]))[data_url()]
            second = (await two.ids([attached()]))[data_url()]
            assert [file.id for file in uploaded(proxy)] == [first, second]
        await until(lambda: uploaded(proxy) == [])
    assert heard(proxy) == ["files", "files", "delete", "delete"]


async def test_within_a_request_the_same_content_is_uploaded_and_deleted_once(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with making(deletes=True) as attachments:
        async with attachments.of(from_caller(proxy)) as uploads:
            ids = await uploads.ids([attached(), attached(data_url(type="image/x-png"))])
            assert len(set(ids.values())) == 1 < len(ids)
        await until(lambda: uploaded(proxy) == [])
    assert heard(proxy) == ["files", "delete"]


@pytest.mark.parametrize("error", [UpstreamError(422), ValueError(), asyncio.CancelledError()], ids=repr)
async def test_files_go_however_the_request_ends(start_proxy: StartProxy, error: BaseException) -> None:
    """Also those that were uploaded before another one of it could not be."""
    proxy = await start_proxy()
    async with making(deletes=True) as attachments:
        with pytest.raises(type(error)):
            async with attachments.of(from_caller(proxy)) as uploads:
                await uploads.ids([attached()])
                raise error
        with pytest.raises(UnsupportedMedia):
            async with attachments.of(from_caller(proxy)) as uploads:
                await uploads.ids([attached(), attached(data_url(type="image/webp"))])
        await until(lambda: uploaded(proxy) == [])
    assert heard(proxy).count("delete") == 2


async def test_a_deletion_waits_behind_the_living(start_proxy: StartProxy) -> None:
    """Through the line, at low priority, and as the client that the file was made with."""
    proxy = await start_proxy(ext_max_requests=1)
    async with making(deletes=True) as attachments:
        async with attachments.of(from_caller(proxy, id="with-a-cat", client="phone")) as uploads:
            await uploads.ids([attached()])
            first = await busy(proxy, 0.2)
        await until(lambda: waiting(proxy) == 1)
        second = asyncio.create_task(proxy.ask("second"))
        await until(lambda: waiting(proxy) == 2)
        await asyncio.gather(first, second)
        await until(lambda: uploaded(proxy) == [])
    assert heard(proxy) == ["files", "completions", "completions", "delete"]
    (deletion,) = await proxy.calls("/delete")
    assert (deletion["method"], deletion["status"]) == ("POST", 200)
    assert deletion["headers"]["x-request-id"] == "with-a-cat" and deletion["headers"]["x-client-id"] == "phone"


async def test_a_deletion_that_fails_is_told_to_the_log_alone(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "status", "status": 404, "path": "/delete"})
    async with making(deletes=True) as attachments:
        id = await id_of(attachments, from_caller(proxy))
        await until(lambda: "stays at the API" in caplog.text)
    assert id in caplog.text and "request-1" in caplog.text


class FullAtFirst:
    """A line that is full, and then is not."""

    def __init__(self) -> None:
        self.enrolled: list[dict[str, Any]] = []

    def enrol(self, call: Any, **known: Any) -> Any:
        self.enrolled.append(known)
        return call

    async def answer(self, request: Any) -> Any:
        if len(self.enrolled) < 3:
            raise LineFull(retry_after=0.001)


async def test_a_deletion_comes_again_if_the_line_is_full() -> None:
    line: Any = FullAtFirst()
    lane: Any = SimpleNamespace(line=line)
    await module.delete(Sender(lane, line.enrol, "request-1", "anna", "", 0.0), "file-1")
    assert len(line.enrolled) == 3
    assert {known["priority"] for known in line.enrolled} == {Priority.LOW}
    assert {known["caller"] for known in line.enrolled} == {"anna"}


async def test_deletions_have_an_owner_who_ends_them(start_proxy: StartProxy, caplog: pytest.LogCaptureFixture) -> None:
    """And tells that files were left behind."""
    proxy = await start_proxy()
    proxy.giga.state.faults.add({"kind": "stall", "path": "/delete"})
    async with making(deletes=True) as attachments:
        await id_of(attachments, from_caller(proxy))
        await until(lambda: heard(proxy) == ["files", "delete"])
        assert "1 deletions" in repr(attachments)
    assert "1 files of requests that are over stay at the API" in caplog.text
    assert "0 deletions" in repr(attachments)
    await until(lambda: proxy.service.line.is_idle)


async def test_a_request_without_attachments_deletes_nothing(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with making(deletes=True) as attachments, attachments.of(from_caller(proxy)):
        pass
    assert heard(proxy) == []


# -- as callers meet it


def asking(source: str, **more: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": source}}]
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": parts}], **more}


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_chat_is_asked_about_the_file_that_was_made_of_its_picture(
    start_proxy: StartProxy, is_stream: bool
) -> None:
    """As data and behind an address that FETCH_ALLOW lets through; the same picture, so the same file."""
    proxy = await start_proxy(ext_max_requests=1, fetch_allow=("127.0.0.1",))
    async with a_server() as server:
        server.says = saying(PNG, "image/png")
        for source in (data_url(), server.url("127.0.0.1")):
            body = asking(source, stream=is_stream)
            async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
                await response.read()
    (file,) = uploaded(proxy)
    assert [call["body"]["messages"][-1]["attachments"] for call in await proxy.calls()] == [[file.id], [file.id]]
    assert heard(proxy) == ["files", "completions", "completions"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_who_waits_with_a_picture_keeps_its_bytes_once(start_proxy: StartProxy, is_stream: bool) -> None:
    """Those of the request itself, and no name of a file that is as long."""
    proxy = await start_proxy(ext_max_requests=1)
    source = data_url(PNG * 100)
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=asking(source)) as response:
        assert response.status == 200  # so that it is there already
    first = await busy(proxy, 60)
    body = json.dumps(asking(source, stream=is_stream))
    second = asyncio.create_task(proxy.http.post(f"{proxy.url}/v1/chat/completions", data=body))
    await until(lambda: waiting(proxy) == 1)
    assert [each for each in gc.get_objects() if isinstance(each, dict) and source in each] == []
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_a_stream_whose_picture_is_slow_to_come_is_kept_alive(start_proxy: StartProxy) -> None:
    """By its early 200 and comments, before any call of it stands in line."""
    proxy = await start_proxy(fetch_allow=("127.0.0.1",), stream_early_200=0, heartbeat_interval=0.05)
    is_there = asyncio.Event()

    async def late(request: web.BaseRequest) -> web.StreamResponse:
        await is_there.wait()
        return web.Response(body=PNG, content_type="image/png")

    async with a_server() as server:
        server.says = late
        body = asking(server.url("127.0.0.1"), stream=True)
        async with proxy.http.post(f"{proxy.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            assert await response.content.readline() == b": fetching what is attached\n"
            is_there.set()
            told = await response.text()
    assert '"error"' not in told and told.endswith("data: [DONE]\n\n") and uploaded(proxy)


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        (data_url(type="image/webp"), 415, "unsupported_media"),
        (data_url(bytes(15 * MEGABYTE + 1)), 413, "attachment_too_large"),
        ("data:image/png;base64,!", 400, "bad_request"),
        ("http://127.0.0.1:9/cat.png", 400, "bad_request"),
        ("http://169.254.169.254/latest/meta-data/", 400, "bad_request"),
    ],
)
async def test_what_is_wrong_is_told_in_openais_words(
    start_proxy: StartProxy, source: str, status: int, code: str
) -> None:
    """The status, the field, and a code."""
    proxy = await start_proxy(max_body_bytes=100 * MEGABYTE)
    body = io.BytesIO(json.dumps(asking(source)).encode())
    async with proxy.http.post(f"{proxy.url}/v1/chat/completions", data=body) as response:
        told = (await response.json())["error"]
        assert (response.status, told["param"], told["code"]) == (status, PARAM, code)
    assert heard(proxy) == []


async def test_a_stop_waits_for_deletions_that_are_in_the_line() -> None:
    """As it does for every request."""
    async with emulator.start(Options()) as giga:
        giga.state.faults.add({"kind": "slow", "seconds": 0.1, "path": "/delete"})
        async with (
            app.serving(settings_for(giga, drain_timeout=20, delete_attachments=True)) as service,
            aiohttp.ClientSession() as http,
            http.post(f"{service.url}/v1/chat/completions", json=asking(data_url())) as response,
        ):
            assert response.status == 200
            await until(lambda: len(giga.state.calls.to("/delete")) == 1)
        assert giga.state.files.of(giga.state.calls.to("/files")[0].account) == []
        assert giga.state.calls.to("/delete")[0].status == 200


# -- nothing leaks


async def test_nothing_of_a_picture_or_its_address_is_in_a_log_or_an_error(
    start_proxy: StartProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Addresses may be signed, and pictures are private."""
    caplog.set_level("DEBUG", logger="proxy")
    proxy = await start_proxy()
    names = Names({HOST: [["127.0.0.1"]], "inner.test": [["10.0.0.1"]]})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with making(names) as attachments:
            for address in (f"http://{HOST}:{port}/cat?signature=secret", "http://inner.test/cat?signature=secret"):
                with pytest.raises(ProxyError) as told:
                    await id_of(attachments, from_caller(proxy), attached(address))
                assert "secret" not in str(told.value)
    assert "could not be downloaded" in caplog.text and "secret" not in caplog.text
