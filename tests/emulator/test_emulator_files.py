"""Files: upload, list, read, delete; each for its owner only."""

import io

import aiohttp
import pytest
from emulator_callers import Answer, Caller, bearer

from emulator import files
from emulator.multipart import Part, parts

BINARY = bytes(range(256)) + b"\r\n--\r\n\0"


async def upload(
    caller: Caller, content: bytes = BINARY, mime: str = "image/png", headers: dict[str, str] | None = None
) -> Answer:
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(content), filename="report.png", content_type=mime)
    form.add_field("purpose", "general")
    return await caller.send("POST", "/v1/files", data=form, headers=headers)


async def test_an_uploaded_file_is_described(caller: Caller) -> None:
    file = (await upload(caller)).json
    assert len(file.pop("id")) == 36
    assert file.pop("created_at") > 0
    assert file == {
        "object": "file",
        "bytes": len(BINARY),
        "filename": "report.png",
        "purpose": "general",
        "access_policy": "private",
        "modalities": ["image"],
    }


async def test_the_same_bytes_come_back(caller: Caller) -> None:
    id = (await upload(caller)).json["id"]
    answer = await caller.get(f"/v1/files/{id}/content")
    assert answer.content == BINARY
    assert answer.headers["Content-Type"] == "image/png"


async def test_files_are_listed_and_found(caller: Caller) -> None:
    first, second = [(await upload(caller)).json for _ in range(2)]
    assert (await caller.get("/v1/files")).json == {"data": [first, second]}
    assert (await caller.get(f"/v1/files/{second['id']}")).json == second


async def test_a_deleted_file_is_gone(caller: Caller) -> None:
    id = (await upload(caller)).json["id"]
    answer = await caller.post(f"/v1/files/{id}/delete")
    assert answer.json == {"id": id, "object": "file", "deleted": True, "access_policy": "private"}
    assert (await caller.get(f"/v1/files/{id}")).status == 404
    assert (await caller.post(f"/v1/files/{id}/delete")).status == 404


async def test_files_of_others_do_not_exist(caller: Caller) -> None:
    id = (await upload(caller)).json["id"]
    other = bearer((await caller.oauth()).json["access_token"])
    assert (await caller.get(f"/v1/files/{id}", headers=other)).status == 404
    assert (await caller.get("/v1/files", headers=other)).json == {"data": []}


async def test_a_file_made_for_a_client_is_read_by_that_client_only(caller: Caller) -> None:
    mine = {"X-Client-ID": "cat"}
    id = (await upload(caller, headers=mine)).json["id"]
    assert (await caller.get(f"/v1/files/{id}/content", headers=mine)).status == 200
    assert (await caller.get(f"/v1/files/{id}/content")).status == 404


@pytest.mark.parametrize(("mime", "status"), [("image/png", 413), ("audio/mpeg", 200), ("application/pdf", 200)])
async def test_a_file_over_the_limit_of_its_kind_is_too_large(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, mime: str, status: int
) -> None:
    assert files.MAX_BYTES == {"image": 15 * 2**20, "audio": 35 * 2**20, "text": 40 * 2**20}
    monkeypatch.setitem(files.MAX_BYTES, "image", len(BINARY) - 1)
    answer = await upload(caller, mime=mime)
    assert answer.status == status
    assert status == 200 or answer.json == {"status": 413, "message": "Payload too large"}


async def test_a_file_of_many_megabytes_arrives_whole(caller: Caller) -> None:
    content = BINARY * 20_000
    id = (await upload(caller, content)).json["id"]
    assert (await caller.get(f"/v1/files/{id}/content")).content == content


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "multipart/form-data; boundary=x"}])
async def test_an_upload_without_a_file_is_refused(caller: Caller, headers: dict[str, str]) -> None:
    answer = await caller.send("POST", "/v1/files", data=b"--x\r\n\r\nabc\r\n--x--\r\n", headers=headers)
    assert answer.status == 400


def test_a_form_is_taken_apart_whatever_is_in_it() -> None:
    head = 'Content-Disposition: form-data; name="file"; filename="отчёт.txt"\r\nContent-Type: text/plain'
    field = 'Content-Disposition: form-data; name="purpose"'
    body = f"--x\r\n{head}\r\n\r\na\r\n--y\r\n--x\r\n{field}\r\n\r\ngeneral\r\n--x--\r\n".encode()
    assert parts('multipart/form-data; boundary="x"', body) == {
        "file": Part(b"a\r\n--y", "отчёт.txt", "text/plain"),
        "purpose": Part(b"general"),
    }
