"""Files and batches belong to the key that made them: for other keys they do not exist, wherever their ids stand."""

import gzip
import json
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import gigachat
import orjson
import pytest
from gigachat.exceptions import NotFoundError, ResponseError
from hypothesis import given
from hypothesis import strategies as st
from processes import copy_tree, started
from pydantic import SecretStr
from running import Proxy, StartProxy, settings_for, until

import app
import emulator
from proxy import belongings
from proxy.belongings import Belongings, Listing, Making
from proxy.errors import NotFound, UpstreamError
from proxy.forwarding import RawCall
from proxy.logfile import Writer
from proxy.owners import MOST, Owners, Register, line_of, owners_of, read

ANNA, BORIS = {"X-API-Key": "key-of-anna"}, {"X-API-Key": "key-of-boris"}
KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key-of-boris")}
MODEL = "GigaChat-2"
DRAW = [{"role": "user", "content": "Нарисуй кота"}]
CHAT, FILES, BATCHES = "/api/v1/chat/completions", "/api/v1/files", "/api/v1/batches?method=chat_completions"
ID = "0a1b2c3d-0001-4abc-8def-00112233aabb"
NO_FILE = {"status": 404, "message": "No such file"}


@dataclass
class Started:
    """A service in a process of its own, as far as these tests ask it."""

    url: str
    http: aiohttp.ClientSession


@pytest.fixture
async def proxy(start_proxy: StartProxy) -> Proxy:
    """A service with two keys."""
    started: Proxy = await start_proxy(proxy_api_keys=KEYS)
    return started


async def asked(
    proxy: Proxy | Started, path: str, who: dict[str, str], body: Any = None, method: str = "", **headers: str
) -> tuple[int, bytes]:
    """A request with a JSON body, or with these bytes; the status and the bytes of its answer."""
    data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    told = {"Content-Type": "application/json", **who, **headers}
    verb = method or ("GET" if data is None else "POST")
    async with proxy.http.request(verb, proxy.url + path, data=data, headers=told) as response:
        return response.status, await response.read()


async def upload(proxy: Proxy | Started, who: dict[str, str], name: str = "note.txt") -> str:
    form = aiohttp.FormData()
    form.add_field("file", b"text", filename=name, content_type="text/plain")
    async with proxy.http.post(proxy.url + FILES, data=form, headers=who) as response:
        assert response.status == 200
        return str((await response.json())["id"])


async def listed(proxy: Proxy | Started, who: dict[str, str]) -> list[str]:
    """The ids of the files that this caller sees."""
    status, body = await asked(proxy, FILES, who)
    assert status == 200
    return [file["id"] for file in orjson.loads(body)["data"]]


async def reached(proxy: Proxy, path: str) -> int:
    """How many calls of this path the API has seen."""
    return len(await proxy.calls(path))


@asynccontextmanager
async def two_sdks(proxy: Proxy) -> AsyncIterator[list[gigachat.GigaChat]]:
    """The SDK in Anna's hands and in Boris's."""
    urls = {"base_url": f"{proxy.url}/api/v1", "auth_url": f"{proxy.url}/api/v2/oauth", "model": MODEL}
    async with AsyncExitStack() as stack:
        keys = [key.get_secret_value() for key in KEYS.values()]
        yield [await stack.enter_async_context(gigachat.GigaChat(**urls, credentials=key)) for key in keys]


# -- files, through the SDK


async def test_a_file_exists_for_its_own_key_alone(proxy: Proxy) -> None:
    """Described, read, listed and deleted by who uploaded it; to the other key the API's own 404, and no call."""
    async with two_sdks(proxy) as (anna, boris):
        id = (await anna.aupload_file(("заметка.txt", "текст".encode(), "text/plain"))).id_
        theirs = (await boris.aupload_file(("other.txt", b"other", "text/plain"))).id_
        assert (await anna.aget_file(id)).filename == "заметка.txt"
        assert (await anna.aget_image(id)).content
        assert [file.id_ for file in (await anna.aget_files()).data] == [id]
        assert [file.id_ for file in (await boris.aget_files()).data] == [theirs]
        calls = await reached(proxy, "")
        for forbidden in (boris.aget_file, boris.aget_image, boris.adelete_file):
            with pytest.raises(ResponseError) as refused:
                await forbidden(id)
            assert (refused.value.status_code, orjson.loads(refused.value.content)) == (404, NO_FILE)
        assert await reached(proxy, "") == calls
        assert (await anna.adelete_file(id)).deleted
        assert (await anna.aget_files()).data == []
        with pytest.raises(NotFoundError):
            await anna.aget_file(id)


async def test_a_list_is_the_apis_own_without_what_is_others(proxy: Proxy) -> None:
    """Each file as the API describes it, field by field in its order; what is beside the list stays."""
    for who in (ANNA, BORIS, ANNA):
        await upload(proxy, who)
    whole = [emulator.files.described(file) for file in proxy.giga.state.files._things.values()]
    assert (await asked(proxy, FILES, ANNA))[1] == orjson.dumps({"data": [whole[0], whole[2]]})
    assert (await asked(proxy, FILES, BORIS))[1] == orjson.dumps({"data": [whole[1]]})


def test_a_list_without_others_is_not_written_anew() -> None:
    """Its spaces and escapes stay; fields beside the list stay where something is left out, too."""
    owners = Owners({ID: "anna"})
    body = b'{ "object": "list", "data": [ {"id": "%s", "n": 1.0} ], "more": null }' % ID.encode()
    for caller, told in (("anna", body), ("boris", b'{"object":"list","data":[],"more":null}')):
        assert Listing(owners, caller, is_new=False, has_nobodys=False).told(200, body) == told


@pytest.mark.parametrize("path", [FILES, FILES + "/", "/api/v1/FILES", "/api/v1/%66iles", "/%61pi/v1/files"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH"])
async def test_no_spelling_of_the_path_shows_a_list_of_everybodys(proxy: Proxy, path: str, method: str) -> None:
    """With an early 200 for the list, asked for as a stream, neither."""
    id = await upload(proxy, ANNA)
    _, body = await asked(proxy, path, BORIS, {"stream": True}, method)
    assert id.encode() not in body


@pytest.mark.parametrize(
    ("version", "path"), [("%61pi", "/v1/files"), ("v%31", "/files/"), ("v1", "/api/v1/Files"), ("v2", "/%66iles")]
)
def test_the_list_of_files_is_known_by_any_path_that_the_api_may_take_for_it(version: str, path: str) -> None:
    """Encoded letters, and a second prefix."""
    call = RawCall("GET", version, path)
    assert isinstance(Belongings(Owners()).of_call("anna", call, is_read=False), Listing)


async def test_an_early_200_does_not_let_the_whole_list_through(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(proxy_api_keys=KEYS, stream_early_200=0)
    id = await upload(proxy, ANNA)
    status, body = await asked(proxy, FILES, BORIS, {"stream": True}, "GET")
    assert (status, body) == (200, b'{"data":[]}') and await listed(proxy, ANNA) == [id]


async def test_a_list_that_cannot_be_read_is_not_passed_on(proxy: Proxy) -> None:
    """A 502 in the API's form; nobody knows whose the files in it are."""
    id = await upload(proxy, ANNA)
    proxy.giga.state.faults.add({"kind": "html200", "path": "/files", "body": f"<b>{id}</b>"})
    status, body = await asked(proxy, FILES, BORIS)
    assert status == 502 and orjson.loads(body)["status"] == 502 and id.encode() not in body


@pytest.mark.parametrize("odd", [b"7", b'"x"', b"", b"[]", b"{}", b'{"data": {}}', b'{"data": [1, null, {"id": 7}]}'])
def test_an_odd_list_is_survived(odd: bytes) -> None:
    """Either refused or told without anything in it that has no owner."""
    listing = Listing(Owners(), "anna", is_new=False, has_nobodys=False)
    try:
        assert listing.told(200, odd) in (odd, b'{"data":[]}')
    except UpstreamError:
        assert odd in (b"7", b'"x"')


async def test_a_refused_deletion_leaves_the_file_with_its_owner(proxy: Proxy) -> None:
    """Whether the API says so by its status or in its answer."""
    id = await upload(proxy, ANNA)
    path = f"{FILES}/{id}/delete"
    proxy.giga.state.faults.add({"kind": "status", "status": 403, "path": "/delete"})
    assert (await asked(proxy, path, ANNA, b""))[0] == 403
    proxy.giga.state.faults.add({"kind": "status", "status": 200, "path": "/delete", "body": {"deleted": False}})
    assert (await asked(proxy, path, ANNA, b""))[0] == 200
    assert await listed(proxy, ANNA) == [id]
    assert await asked(proxy, f"{FILES}/{id}", BORIS) == (404, orjson.dumps(NO_FILE))


# -- files that a request names

V2 = {"model": MODEL, "messages": [{"role": "user", "content": [{"text": "?"}, {"files": [{"id": ID}]}]}]}
V1 = {"model": MODEL, "messages": [{"role": "user", "content": "?", "attachments": [ID]}]}
LINES = b'{"id": "1", "request": {}}\r\n\n' + orjson.dumps({"id": "2", "request": V1}) + b"\n"
NAMING: list[tuple[str, Any, str]] = [
    ("/", {"messages": V1["messages"]}, "messages[0].attachments[0]"),
    (
        "/",
        {"messages": [["user", "?"]], "generate_parameters": {"attachments": ["x", ID]}},
        "generate_parameters.attachments[1]",
    ),
    ("/gigachat/", V1, "messages[0].attachments[0]"),
    (CHAT, V1, "messages[0].attachments[0]"),
    (CHAT, {**V1, "stream": True}, "messages[0].attachments[0]"),
    (CHAT, {"model": MODEL, "messages": [], "attachments": [ID]}, "attachments[0]"),
    ("/api/v2/chat/completions", V2, "messages[0].content[1].files[0].id"),
    ("/api/v1/assistants", {"model": MODEL, "file_ids": [ID]}, "file_ids[0]"),
    ("/api/v1/assistants/modify", {"assistant_id": "1", "file_ids": [ID]}, "file_ids[0]"),
    ("/api/v1/assistants/files/delete", {"assistant_id": "1", "file_id": ID}, "file_id"),
    ("/api/v1/threads/messages", {"thread_id": "1", **V1}, "messages[0].attachments[0]"),
    ("/api/v1/threads/messages/run", V1, "messages[0].attachments[0]"),
    (BATCHES, LINES, "line 3, request.messages[0].attachments[0]"),
]


@pytest.mark.parametrize(("path", "body", "field"), NAMING, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_request_that_names_anothers_file_is_a_404_that_names_the_field(
    proxy: Proxy, path: str, body: Any, field: str
) -> None:
    """In every dialect; it is not queued. From its owner, the same request reaches the API."""
    id = await upload(proxy, ANNA)
    data = (body if isinstance(body, bytes) else orjson.dumps(body)).replace(ID.encode(), id.encode())
    calls = await reached(proxy, "")
    status, told = await asked(proxy, path, BORIS, data)
    assert status == 404 and f"No such file: {field}" in told.decode()
    assert await reached(proxy, "") == calls
    await asked(proxy, path, ANNA, data)
    assert await reached(proxy, "") == calls + 1


async def test_the_owner_may_use_its_file_in_a_chat(proxy: Proxy) -> None:
    """Through the SDK: 200 for the owner, the API's 404 for the other."""
    async with two_sdks(proxy) as (anna, boris):
        id = (await anna.aupload_file(("note.txt", b"text", "text/plain"))).id_
        body = {"messages": [{"role": "user", "content": "Что здесь?", "attachments": [id]}]}
        assert (await anna.achat(body)).choices
        with pytest.raises(NotFoundError):
            await boris.achat(body)


SPELLINGS = [
    *(ID.upper(), ID.replace("-", ""), "a1b2c3d-1-4abc-8def-112233aabb", f"{{{ID}}}", f"urn:uuid:{ID}", f" {ID}\n"),
    *(f"urn:uuid:{ID.replace('-', '')}", ID.replace("2", "\uff12"), f"{ID}\u200b"),
]


@pytest.mark.parametrize("spelt", SPELLINGS)
def test_another_spelling_of_an_id_is_the_same_id(spelt: str) -> None:
    """As readers of UUIDs take it; in a body, and with its odd characters encoded in a path."""
    heeded = Belongings(Owners({ID: "anna"}))
    body = orjson.dumps({"messages": [{"role": "user", "attachments": [spelt]}]})
    with pytest.raises(NotFound, match="attachments"):
        heeded.of_chat("boris", body)
    heeded.of_chat("anna", body)
    path = "/files/" + "".join(f"%{byte:02X}" for byte in spelt.encode())
    with pytest.raises(NotFound):
        heeded.of_call("boris", RawCall("GET", "v1", path), is_read=False)


PATHS = [f"/files/{ID};x=1", f"/files;x=1/{ID}", f"/files/%25{ID}", f"/files%20/{ID}", f"/files/{ID}%00", "/files/*"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_can_be_read_in_two_ways_does_not_exist(path: str) -> None:
    for caller in ("anna", "boris"):
        with pytest.raises(NotFound):
            Belongings(Owners({ID: "anna"})).of_call(caller, RawCall("GET", "v1", path), is_read=False)


def named(text: str) -> bytes:
    return f'{{"model": "m", {text}, "messages": []}}'.replace("ID", ID).encode()


DISGUISED = {
    "escaped name": named('"\\u0061ttachments": ["ID"]'),
    "escaped id": named('"attachments": ["ID"]').replace(b"0a1b", b"\\u0030a1b"),
    "name in capitals": named('"ATTACHMENTS": ["ID"]'),
    "long s": named('"attachment\u017f": ["ID"]'),
    "twice, the first": named('"attachments": ["ID"], "attachments": []'),
    "twice, the last": named('"attachments": [], "attachments": ["ID"]'),
    "UTF-16": named('"attachments": ["ID"]').decode().encode("utf-16"),
    "UTF-16 without a mark": named('"attachments": ["ID"]').decode().encode("utf-16-le"),
    "a mark before it": b"\xef\xbb\xbf" + named('"attachments": ["ID"]'),
    "not a list": named('"attachments": "ID"'),
    "objects": named('"attachments": [{"file_id": "ID"}]'),
    "deeper": named('"attachments": [[{"files": {"id": "ID"}}]]'),
    "control characters": named('"a\tb": 1, "attachments": ["ID"]'),
    "no number": named('"n": NaN, "attachments": ["ID"]'),
}


@pytest.mark.parametrize("name", DISGUISED)
def test_no_disguise_of_a_field_gets_through(name: str) -> None:
    """Whatever the API's reader of JSON may take for the field."""
    body = DISGUISED[name]
    with pytest.raises(NotFound):
        Belongings(Owners({ID: "anna"})).of_call(
            "boris", RawCall("POST", "v1", "/chat/completions", body=body), is_read=belongings.is_json(body)
        )


UNREADABLE = {
    "compressed": gzip.compress(named('"attachments": ["ID"]')),
    "EBCDIC": named('"attachments": ["ID"]').decode().encode("cp037"),
    "broken off": named('"attachments": ["ID"]')[:-1],
    "comments": b"/* hello */" + named('"attachments": ["ID"]'),
    "too deep": b"[" * 100_000,
    "nothing in it": b"\0",
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_a_body_that_cannot_be_read_is_refused(proxy: Proxy, name: str) -> None:
    """A 400, where keys are set, and it does not reach the API."""
    headers = {"Content-Encoding": "x-gzip"} if name == "compressed" else {}
    status, body = await asked(proxy, CHAT, BORIS, UNREADABLE[name], **headers)
    assert status == 400 and "not valid JSON" in orjson.loads(body)["message"]
    assert await reached(proxy, "/completions") == 0


HARMLESS = [
    {"messages": [{"role": "user", "content": f'Что такое "files" и <img src="{ID}">?'}]},
    {"messages": [], "functions": [{"name": "f", "parameters": {"properties": {"files": {"type": "array"}}}}]},
    {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": {"files": ["src/main.py", ""]}}}]},
    {"messages": [], "attachments": None, "file_ids": [], "files": {}, "file": ID, "x": {"id": ID}},
    {"messages": [], "attachments": [7, None, True, {"id": 5}, "no id at all", "\ud7ff", "-", ""]},
]


@pytest.mark.parametrize("body", HARMLESS, ids=range(len(HARMLESS)))
def test_what_names_nobodys_file_passes(body: dict[str, Any]) -> None:
    """Prose about files, functions that take files, and values that are no ids."""
    data = orjson.dumps(body)
    heeded = Belongings(Owners({ID: "anna"}))
    heeded.of_chat("boris", data)
    heeded.of_call("boris", RawCall("POST", "v1", "/chat/completions", body=data), is_read=True)


def test_a_body_that_names_no_file_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are searched, and that is all."""
    monkeypatch.setattr(belongings, "parsed", None)
    monkeypatch.setattr(belongings, "is_json", None)
    body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": 'Привет, "файл" \\ attach a file'}]})
    heeded = Belongings(Owners({ID: "anna"}))
    heeded.of_chat("boris", body)
    heeded.of_call("boris", RawCall("POST", "v1", "/chat/completions", body=body), is_read=True)


async def test_a_description_in_yaml_reaches_the_api(proxy: Proxy) -> None:
    """Functions are described in any language, and name no files."""
    text = b'paths:\n  /pets:\n    get:\n      operationId: list_pets # "files"\n'
    assert (await asked(proxy, "/api/v1/functions/convert", ANNA, text))[0] == 200


# -- pictures


async def drawn(proxy: Proxy, way: str, who: dict[str, str]) -> str:
    """A picture made by a chat in this way; its id."""
    is_stream = "stream" in way
    path = {"native": "/", "raw v1": CHAT, "raw v2": "/api/v2/chat/completions", "LMC": "/gigachat/"}[
        way.removesuffix(" stream")
    ]
    body: dict[str, Any] = {"model": MODEL, "messages": DRAW, "function_call": "auto", "stream": is_stream}
    if path == "/":
        parameters = {"function_call": "auto", "stream": is_stream}
        body = {"messages": DRAW, "generate_parameters": parameters}
    if "v2" in path:
        message = {"role": "user", "content": [{"text": DRAW[0]["content"]}]}
        body = {"model": MODEL, "messages": [message], "tools": [{"image_generate": {}}], "stream": is_stream}
    status, answer = await asked(proxy, path, who, body)
    (picture,) = (id for id in proxy.giga.state.files._things if id.encode() in answer)
    assert status == 200
    return str(picture)


@pytest.mark.parametrize(
    "way", ["native", "native stream", "LMC", "raw v1", "raw v1 stream", "raw v2", "raw v2 stream"]
)
async def test_a_picture_belongs_to_the_caller_whose_chat_made_it(proxy: Proxy, way: str) -> None:
    id = await drawn(proxy, way, ANNA)
    assert await listed(proxy, ANNA) == [id] and await listed(proxy, BORIS) == []
    assert (await asked(proxy, f"{FILES}/{id}/content", ANNA))[0] == 200
    assert await asked(proxy, f"{FILES}/{id}/content", BORIS) == (404, orjson.dumps(NO_FILE))


def test_the_answer_of_a_run_is_listened_to_when_it_is_fetched() -> None:
    """By GET; other lists of messages tell of pictures that others have made."""
    heeded = Belongings(Owners())
    assert isinstance(heeded.of_call("anna", RawCall("GET", "v1", "/threads/run"), is_read=False), Making)
    assert heeded.of_call("anna", RawCall("GET", "v1", "/threads/messages"), is_read=False) is belongings.NOTHING


async def test_a_picture_of_a_thread_belongs_to_who_ran_it(proxy: Proxy) -> None:
    """Whole, or as a stream."""
    for is_stream in (False, True):
        body = {"model": MODEL, "messages": DRAW, "function_call": "auto", "stream": is_stream}
        assert (await asked(proxy, "/api/v1/threads/messages/run", ANNA, body))[0] == 200
    assert len(await listed(proxy, ANNA)) == 2 and await listed(proxy, BORIS) == []


async def test_through_the_sdk_a_picture_is_its_makers(proxy: Proxy) -> None:
    async with two_sdks(proxy) as (anna, boris):
        text = (await anna.achat({"messages": DRAW, "function_call": "auto"})).choices[0].message.content
        id = text.split('"')[1]
        assert (await anna.aget_image(id)).content.startswith("/9j/")
        with pytest.raises(ResponseError, match="404"):
            await boris.aget_image(id)


def told_of(id: str) -> bytes:
    """An answer that shows this file."""
    return orjson.dumps({"content": f'<img src="{id}" fuse="true"/> Вот кот.'})


def test_a_picture_is_seen_however_the_stream_is_cut() -> None:
    """Both versions' ways to tell of it, and with the escapes that some writers of JSON use."""
    second = orjson.dumps({"content": [{"files": [{"mime": "image/jpeg", "id": ID, "target": "image"}]}]})
    escaped = told_of(ID).replace(b"<", b"\\u003c").replace(b'\\"', b"\\u0022")
    for answer in (told_of(ID), second, escaped, told_of(ID).replace(b'\\"', b"'")):
        for cut in range(len(answer)):
            owners = Owners()
            making = Making(owners, "anna", b"")
            making.hear(answer[:cut])
            making.hear(answer[cut:])
            assert owners.is_anothers(ID, "boris"), (answer, cut)


def test_repeating_an_id_makes_nobody_its_owner() -> None:
    """Not of another's file, and not of nobody's, if the caller has named it itself."""
    owners = Owners({ID: "anna"})
    Making(owners, "boris", b"").hear(told_of(ID))
    assert not owners.is_anothers(ID, "anna")
    nobodys = ID.replace("0", "f")
    Making(owners, "boris", told_of(nobodys)).hear(told_of(nobodys))
    assert not owners.is_anothers(nobodys, "anna")


# -- batches


async def batch(proxy: Proxy, who: dict[str, str]) -> str:
    line = {"id": "1", "request": {"model": MODEL, "messages": [{"role": "user", "content": "Привет"}]}}
    status, body = await asked(proxy, BATCHES, who, orjson.dumps(line) + b"\n")
    assert status == 200
    return str(orjson.loads(body)["id"])


async def batches(proxy: Proxy, who: dict[str, str], query: str = "") -> list[dict[str, Any]]:
    status, body = await asked(proxy, f"/api/v1/batches{query}", who)
    assert status == 200
    return list(orjson.loads(body)["batches"])


async def test_a_batch_exists_for_its_own_key_alone(proxy: Proxy) -> None:
    """In the list and by its id, which to others is the API's 404."""
    mine, theirs = await batch(proxy, ANNA), await batch(proxy, BORIS)
    assert [each["id"] for each in await batches(proxy, ANNA)] == [mine]
    assert [each["id"] for each in await batches(proxy, ANNA, f"?batch_id={mine}")] == [mine]
    calls = await reached(proxy, "/batches")
    for query in (f"batch_id={theirs}", f"batch_id={mine}&batch_id={theirs}", f"batch%5Fid={theirs.upper()}"):
        status, body = await asked(proxy, f"/api/v1/batches?{query}", ANNA)
        assert (status, orjson.loads(body)) == (404, {"status": 404, "message": "Batch task not found"})
    assert (await asked(proxy, f"/api/v1/batches/{theirs}", ANNA))[0] == 404
    assert await reached(proxy, "/batches") == calls


async def test_the_answers_of_a_batch_belong_to_its_owner_whoever_sees_them_first(proxy: Proxy) -> None:
    """The file of them is in the owner's list from then on, and not there for others."""
    await batch(proxy, ANNA)
    assert await batches(proxy, BORIS) == []
    (mine,) = await batches(proxy, ANNA)
    id = mine["output_file_id"]
    assert await listed(proxy, ANNA) == [id]
    assert (await asked(proxy, f"{FILES}/{id}/content", ANNA))[0] == 200
    assert (await asked(proxy, f"{FILES}/{id}/content", BORIS))[0] == 404


@pytest.mark.parametrize("shape", ["{}", "[{}]", '{{"batches":[{}]}}'])
def test_every_shape_of_a_batch_is_understood(shape: str) -> None:
    """Alone, in a bare list, in an object. One that the API shows to a wrong caller is still not passed on."""
    told = shape.format(f'{{"id":"{ID}","output_file_id":"of-a-batch"}}').encode()
    owners = Owners({ID: "anna"})
    boris = Listing(owners, "boris", is_new=False, has_nobodys=True)
    try:
        assert ID.encode() not in boris.told(200, told)
    except NotFound:
        assert shape == "{}"
    assert Listing(owners, "anna", is_new=False, has_nobodys=True).told(200, told) == told
    assert owners.is_anothers("of-a-batch", "boris") and not owners.is_anothers("of-a-batch", "anna")


# -- what is nobody's


async def test_what_nobody_is_known_to_own_is_in_no_list_and_open_to_whoever_knows_it(proxy: Proxy) -> None:
    """Made by another program with the service's own account, or before there were keys."""
    account = (await own_account(proxy)).account
    file = emulator.shelves.File(account=account, filename="shared.txt", content=b"text", mime="text/plain")
    id = proxy.giga.state.files.add(file).id
    body = {"model": MODEL, "messages": [{"role": "user", "content": "?", "attachments": [id]}]}
    for who in (ANNA, BORIS):
        assert await listed(proxy, who) == []
        assert (await asked(proxy, f"{FILES}/{id}", who))[0] == 200
        assert (await asked(proxy, CHAT, who, body))[0] == 200
    assert (await asked(proxy, f"{FILES}/{id}", {}))[0] == 401


async def own_account(proxy: Proxy) -> Any:
    """A call that the service has made with its own account."""
    await asked(proxy, "/api/v1/balance", ANNA)
    return [*proxy.giga.state.calls][-1]


async def test_who_has_the_only_key_sees_nobodys_files_too(start_proxy: StartProxy) -> None:
    """There is nobody else. But what another key has left is not its own."""
    proxy = await start_proxy(proxy_api_keys={"anna": KEYS["anna"]})
    account = (await own_account(proxy)).account
    file = emulator.shelves.File(account=account, filename="old.txt", content=b"text", mime="text/plain")
    old = proxy.giga.state.files.add(file).id
    new = await upload(proxy, ANNA)
    assert await listed(proxy, ANNA) == [old, new]
    gone = Listing(Owners({ID: "a-key-of-before"}), "anna", is_new=False, has_nobodys=True)
    assert gone.told(200, orjson.dumps({"data": [{"id": ID}]})) == b'{"data":[]}'


async def test_an_account_of_its_own_shows_a_caller_all_of_it(start_proxy: StartProxy) -> None:
    """Whoever brings a credential along sees what is its account's; other accounts' files are not there anyway."""
    proxy = await start_proxy(proxy_api_keys=KEYS, gpt2giga_pass_token=True)
    brought = {"Authorization": "Bearer giga-cred-a2V5LW9uZQ=="}
    id, servers = await upload(proxy, {**ANNA, **brought}), await upload(proxy, ANNA)
    assert await listed(proxy, {**BORIS, **brought}) == [id]
    assert (await asked(proxy, f"{FILES}/{servers}", {**BORIS, **brought}))[0] == 404
    assert await listed(proxy, ANNA) == [servers]
    assert (await asked(proxy, f"{FILES}/{id}", ANNA))[0] == 404


async def test_who_brings_the_services_own_credential_still_sees_its_own_only(start_proxy: StartProxy) -> None:
    """It is the service's account, whoever names it."""
    proxy = await start_proxy(proxy_api_keys=KEYS, gpt2giga_pass_token=True, gigachat_api_key=SecretStr("b3Vycw=="))
    id = await upload(proxy, ANNA)
    brought = {"Authorization": "Bearer giga-cred-b3Vycw=="}
    assert await listed(proxy, {**BORIS, **brought}) == []
    assert await listed(proxy, {**ANNA, **brought}) == [id]


# -- without keys


async def test_without_keys_everything_is_as_at_the_api_itself(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Byte for byte: uploads, lists, contents, pictures, batches, and bodies that are no JSON; nothing is kept."""
    proxy = await start_proxy()
    token = (await asked_for_token(proxy.giga.url))["access_token"]
    first = await upload(proxy, {})
    await batch(proxy, {})
    await drawn(proxy, "raw v1", {})
    for path, body in [
        (FILES, None),
        (f"{FILES}/{first}", None),
        (f"{FILES}/{first}/content", None),
        (f"{FILES}/{first}%20", None),
        ("/api/v1/batches", None),
        ("/api/v1/batches?batch_id=nobodys", None),
        (CHAT, b"no JSON"),
        (CHAT, orjson.dumps({"model": MODEL, "messages": [], "attachments": ["nobodys"]})),
    ]:
        ours = await asked(proxy, path, {}, body)
        async with proxy.http.request(
            "GET" if body is None else "POST",
            proxy.giga.url + path,
            data=body,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        ) as response:
            assert ours == (response.status, await response.read()), path
    async with owners_of(tmp_path, has_keys=False) as owners:
        owners.claim(ID, "anna")
        assert not owners.is_anothers(ID, "boris") and owners.mine([{"id": ID}], "boris") == [{"id": ID}]
    assert os.listdir(tmp_path) == []


async def asked_for_token(url: str) -> dict[str, Any]:
    headers = {"Authorization": "Basic a-key", "RqUID": ID}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/api/v2/oauth", data={"scope": "GIGACHAT_API_PERS"}, headers=headers) as response,
    ):
        told: dict[str, Any] = await response.json()
        return told


# -- the record


@asynccontextmanager
async def life(giga: emulator.Emulator, assets: Path) -> AsyncIterator[Proxy]:
    """The service from its start to its stop, with this folder."""
    async with (
        app.serving(settings_for(giga, proxy_api_keys=KEYS, drain_timeout=0), assets) as service,
        aiohttp.ClientSession() as http,
    ):
        yield Proxy(service, giga, http)


async def test_owners_outlive_the_process(tmp_path: Path) -> None:
    """Files, pictures and batches; what was deleted is forgotten. The file is its owner's alone."""
    async with emulator.start() as giga:
        async with life(giga, tmp_path) as proxy:
            kept, gone = await upload(proxy, ANNA), await upload(proxy, ANNA)
            picture, task = await drawn(proxy, "raw v1 stream", ANNA), await batch(proxy, ANNA)
            await asked(proxy, f"{FILES}/{gone}/delete", ANNA, b"")
        file = tmp_path / "owners.jsonl"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        async with life(giga, tmp_path) as proxy:
            assert await listed(proxy, ANNA) == [kept, picture] and await listed(proxy, BORIS) == []
            assert (await asked(proxy, f"{FILES}/{kept}", BORIS))[0] == 404
            assert [each["id"] for each in await batches(proxy, ANNA)] == [task] and await batches(proxy, BORIS) == []
        assert gone not in file.read_text() and "key-of" not in file.read_text()


async def test_a_killed_service_knows_the_owners_when_it_is_back(tmp_path: Path) -> None:
    """A process as people start it keeps them in its assets, without a setting; SIGKILL gives it no time to."""
    (tmp_path / "tree").mkdir()
    tree = copy_tree(tmp_path / "tree")
    file = tree / "assets" / "owners.jsonl"
    keys = ",".join(f"{name}:{key.get_secret_value()}" for name, key in KEYS.items())
    async with emulator.start() as giga, aiohttp.ClientSession() as http:
        urls = {"GIGACHAT_BASE_URL": f"{giga.url}/v1", "GIGACHAT_AUTH_URL": f"{giga.url}/api/v2/oauth"}
        env = {"GIGACHAT_API_KEY": "YS1rZXk=", "PROXY_API_KEYS": keys, **urls}
        with started(tree, tmp_path / "first", env=env) as service:
            id = await upload(Started(service.url, http), ANNA)
            await until(lambda: id.encode() in file.read_bytes())
            service.signal(signal.SIGKILL)
            await service.gone()
        with started(tree, tmp_path / "second", env=env) as service:
            again = Started(service.url, http)
            assert await listed(again, ANNA) == [id] and await listed(again, BORIS) == []


async def test_lines_that_cannot_be_read_cost_those_lines_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a line at the end too, and the next line begins a line. How many there were is told."""
    file = tmp_path / "owners.jsonl"
    good = line_of("first", "anna") + line_of("second", "boris")
    file.write_bytes(b'\xff\xfe\n[]\n7\n{"id": 1, "owner": 2}\n{"id": "x"}\n\n' + good + b'{"id": "ha')
    async with owners_of(tmp_path, has_keys=True) as owners:
        owners.claim("third", "anna")
    assert owners.is_anothers("first", "boris") and owners.is_anothers("second", "anna")
    assert file.read_bytes() == good + line_of("third", "anna")
    assert "owners=" in caplog.text and "left out: 7" in caplog.text


@pytest.mark.parametrize("wrong", ["no folder", "a file in the folder's place", "a folder in the file's place"])
async def test_a_record_that_cannot_be_kept_does_not_stop_the_service(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """Owners are then known as long as the process lives; a warning says why."""
    assets = tmp_path / "assets"
    if wrong == "a file in the folder's place":
        assets.touch()
    elif wrong == "a folder in the file's place":
        (assets / "owners.jsonl").mkdir(parents=True)
    async with emulator.start() as giga, life(giga, assets) as proxy:
        id = await upload(proxy, ANNA)
        assert await listed(proxy, ANNA) == [id] and await listed(proxy, BORIS) == []
        await until(lambda: "owners=" in caplog.text)
    assert all(record.levelno == logging.WARNING for record in caplog.records if "owners=" in record.message)


async def test_the_record_is_not_the_business_of_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk hangs, uploads are answered as ever."""
    async with emulator.start() as giga, life(giga, tmp_path) as proxy:
        monkeypatch.setattr(Register, "append", lambda self, line: (_ for _ in ()).throw(OSError("no space")))
        ids = [await upload(proxy, ANNA) for _ in range(3)]
        assert await listed(proxy, ANNA) == ids


def test_the_first_claim_counts() -> None:
    owners = Owners()
    owners.claim(ID, "anna")
    owners.claim(ID.upper(), "boris")
    with pytest.raises(NotFound, match="No such thing"):
        owners.check(ID, "boris", "No such thing")
    owners.check(ID, "anna")
    owners.drop(ID)
    owners.check(ID, "boris")


def test_the_oldest_are_forgotten_first() -> None:
    """Then they are nobody's. What is no id is not remembered at all."""
    owners = Owners(most=3)
    for id in ("", "---", "x" * 1000, *"abcd"):
        owners.claim(id, "anna")
    assert [owners.is_anothers(id, "boris") for id in "abcd"] == [False, True, True, True]
    assert repr(owners) == "<Owners of 3/3>"


NAMES = st.sampled_from(["anna", "boris", "ключ", "\udcff", '"\n'])
STEPS = st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(NAMES, st.none())))


@given(STEPS)
def test_what_is_read_is_what_was_known(steps: list[tuple[str, str | None]]) -> None:
    """After any claims and drops, with any names."""
    lines: list[bytes] = []
    owners = Owners(write=lines.append)
    for id, caller in steps:
        owners.drop(id) if caller is None else owners.claim(id, caller)
    known, wrong = read(b"".join(lines))
    assert (known, wrong) == (owners._owners, 0)
    assert list(known) == list(owners._owners), "the oldest first"


@pytest.fixture
def write_to(tmp_path: Path) -> Any:
    """`write_to(size=..., most=...)`: a writer to a record of this size, closed after the test."""
    writers: list[Writer] = []

    def make(**shape: int) -> tuple[Path, Callable[[bytes], None], Writer]:
        file = tmp_path / "owners.jsonl"
        writers.append(Writer("owners", Register(file, **shape), pause=0.01))
        return file, writers[-1].write, writers[-1]

    yield make
    for writer in writers:
        writer.close()


def test_the_file_is_written_anew_before_it_grows_too_large(write_to: Any, tmp_path: Path) -> None:
    """With what counts alone: a record that turns over for years stays small, private and whole."""
    file, write, writer = write_to(size=2000)
    owners = Owners(write=write)
    owners.claim("the-first", "anna")
    for number in range(500):
        owners.claim(f"file-{number}", "anna")
        owners.drop(f"file-{number}")
    owners.claim("the-last", "boris")
    writer.close(10)
    assert read(file.read_bytes()) == ({"the-first": "anna", "the-last": "boris"}, 0)
    assert file.stat().st_size < 2000 and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["owners.jsonl"]


def test_no_more_is_kept_than_is_remembered(tmp_path: Path) -> None:
    """The newest."""
    file = tmp_path / "owners.jsonl"
    file.write_bytes(b"".join(line_of(str(number), "anna") for number in range(10)))
    register = Register(file, most=3)
    assert list(register.known()) == ["7", "8", "9"] == list(read(file.read_bytes())[0])


def test_a_file_that_cannot_be_written_anew_goes_on_growing(
    write_to: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No line is lost for it, and it is not tried at every line."""
    (tmp_path / "owners.jsonl.new").mkdir()
    file, write, writer = write_to(size=200)
    for number in range(100):
        write(line_of(str(number), "anna"))
        write(line_of("gone", None))
    writer.close(10)
    assert len(read(file.read_bytes())[0]) == 100
    assert 1 <= caplog.text.count("cannot be written anew") < 10


def test_a_line_tells_people_whose_a_file_is() -> None:
    """By the id as the API writes it, in JSON."""
    lines: list[bytes] = []
    Owners(write=lines.append).claim(ID, "anna")
    assert [json.loads(line) for line in lines] == [{"id": ID, "owner": "anna"}]


def test_the_number_that_is_promised_is_that_of_the_code() -> None:
    """Who changes it changes the page."""
    page = (Path(__file__).parents[1] / "docs" / "behaviour.md").read_text()
    assert f"for the newest {MOST:,}" in page
