"""Who calls: keys in every form, refusals in the caller's dialect, and an address that nobody can choose."""

import asyncio
import json
import logging
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, chat, until, waiting

import app
from emulator import Options
from proxy.callers import parsed_address

KEYS = {"anna": SecretStr("key-of-anna"), "boris": SecretStr("key:of:борис")}
FORMS = [
    *("Authorization: Bearer {}", "authorization: BEARER  {}"),
    *("x-api-key: {}", "X-API-Key: {}", "api-key: {}", "x-goog-api-key: {}"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def header(form: str, key: str) -> dict[str, str]:
    name, _, value = form.format(key).partition(": ")
    return {name: value}


def text_of(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(file).splitlines()]


async def entries(file: Path, count: int = 1) -> list[dict[str, Any]]:
    """The lines of the journal, when there are so many."""
    await until(lambda: len(lines(file)) >= count)
    return lines(file)


async def sent_raw(proxy: Proxy, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """A request byte for byte; the status of its answer, and the answer."""
    address = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(*address)
    writer.write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), answer


# -- keys


@pytest.mark.parametrize("form", FORMS)
async def test_a_key_is_taken_wherever_client_libraries_put_it(start_proxy: StartProxy, file: Path, form: str) -> None:
    """Each name is a caller; a key may be any text."""
    proxy = await start_proxy(proxy_api_keys=KEYS, requests_log_file=file)
    for key in KEYS.values():
        assert (await proxy.ask(headers=header(form, key.get_secret_value()))).status == 200
    assert [line["caller"] for line in await entries(file, 2)] == list(KEYS)


async def test_one_right_key_among_wrong_ones_is_enough(start_proxy: StartProxy) -> None:
    """Libraries that insist on a key of their own send `Authorization: Bearer unused` beside the one that counts."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for authorization in ("Bearer unused", "Basic dXNlcjpwYXNz", "Bearer ", ""):
        answer = await proxy.ask(headers={"Authorization": authorization, "X-API-Key": "key-of-anna"})
        assert answer.status == 200


WRONG = [
    {},
    {"Authorization": "Bearer "},
    {"Authorization": "key-of-anna"},
    {"Authorization": "Basic " + b64encode(b"anna:key-of-anna").decode()},
    {"Authorization": "Bearer anna:key-of-anna"},
    {"Authorization": "Bearer key-of-ann"},
    {"Authorization": "Bearer key-of-anna2"},
    {"Authorization": "Bearer KEY-OF-ANNA"},
    {"X-API-Key": "anna"},
    {"Cookie": "x-api-key=key-of-anna"},
]


@pytest.mark.parametrize("headers", WRONG, ids=str)
async def test_whoever_has_no_key_is_told_in_its_dialect_how_to_send_one(
    start_proxy: StartProxy, headers: dict[str, str]
) -> None:
    """401 with WWW-Authenticate: in the native envelope, in GigaChat's shape; a place in line is not given."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for path in ("/", "/nowhere", "/api/v1/chat/completions", "/api/v1/models", "/api/v1/nowhere"):
        async with proxy.http.post(proxy.url + path, json=chat(), headers=headers) as response:
            body = await response.json()
        if path == "/nowhere":
            assert response.status == 404
            continue
        assert response.status == 401
        assert response.headers["WWW-Authenticate"].startswith('Bearer realm="gigachat-proxy"')
        told = body["message"] if path.startswith("/api/") else body["status"]
        assert "Authorization: Bearer <key>" in told and "X-API-Key: <key>" in told
        assert body == (
            {"status": 401, "message": told}
            if path.startswith("/api/")
            else {"app": "gigachat-proxy", "status": told, "data": {}}
        )
        assert "X-Queue-Position" not in response.headers
    assert await proxy.calls("") == []


async def test_a_missing_key_and_a_wrong_one_are_told_apart(start_proxy: StartProxy, file: Path) -> None:
    """In words, in the challenge and in the journal; a wrong one is not repeated."""
    proxy = await start_proxy(proxy_api_keys=KEYS, requests_log_file=file)
    missing = await proxy.ask()
    wrong = await proxy.ask(headers={"X-API-Key": "wrong-word"})
    assert missing.body["status"] != wrong.body["status"]
    assert "error" not in missing.headers["WWW-Authenticate"]
    assert wrong.headers["WWW-Authenticate"].endswith('error="invalid_token"')
    assert "wrong-word" not in str(wrong)
    assert [line["error"] for line in await entries(file, 2)] == ["unauthorized", "key_refused"]
    assert "wrong-word" not in text_of(file)


async def test_a_stranger_is_refused_at_once_however_long_the_line_is(start_proxy: StartProxy) -> None:
    """It neither waits nor takes a place from those who may."""
    proxy = await start_proxy(proxy_api_keys=KEYS, ext_max_requests=1, ext_queue_size=1)
    key = {"X-API-Key": "key-of-anna"}
    proxy.http.headers.update(key)
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    assert (await proxy.ask(headers={"X-API-Key": "wrong"})).status == 401
    assert waiting(proxy) == 1
    assert (await first).status == (await second).status == 200


async def test_health_needs_no_key(start_proxy: StartProxy) -> None:
    """A wrong one does no harm either."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for path in ("/health", "/health/"):
        for headers in ({}, {"X-API-Key": "wrong"}):
            async with proxy.http.get(proxy.url + path, headers=headers) as response:
                assert response.status == 200


@pytest.mark.parametrize("value", [b"\xff\xfe", b"gcp-\xff", b"gcp-0KE6", "ключ".encode(), b"x" * 5000])
async def test_a_key_of_any_bytes_is_a_wrong_key(start_proxy: StartProxy, value: bytes) -> None:
    """What is no text, no base64 or very long is a 401, not a bug."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for name in (b"Authorization: Bearer", b"X-API-Key:", b"Authorization: Basic"):
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s %s\r\n"
        for path in (b"/", b"/api/v2/oauth", b"/api/v1/models"):
            status, answer = await sent_raw(proxy, head % (path, name, value), orjson.dumps(chat()))
            assert status == 401, answer


@pytest.mark.parametrize("name", [b"X-Priority", b"X-Request-Timeout"])
async def test_a_header_that_is_no_text_is_told_of_in_text(start_proxy: StartProxy, name: bytes) -> None:
    """A refusal repeats what it refuses, as far as it can be written."""
    proxy = await start_proxy()
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\n%s: \xff\r\n" % name
    status, answer = await sent_raw(proxy, head, orjson.dumps(chat()))
    assert status == 400 and name in answer and b'\\"?\\"' in answer


async def test_callers_are_told_apart_by_the_names_of_their_keys(start_proxy: StartProxy) -> None:
    """Two from one address take turns, and X-Forwarded-For or X-Client-ID gives nobody a second share."""
    proxy = await start_proxy(
        Options(latency=0.1), ext_max_requests=1, proxy_api_keys=KEYS, trusted_proxies="127.0.0.1"
    )
    anna, boris = {"X-API-Key": "key-of-anna"}, {"api-key": "key:of:борис"}
    proxy.http.headers.update(anna)
    first = await busy(proxy, 0.3)
    del proxy.http.headers["X-API-Key"]
    asking = []
    for number, (text, headers) in enumerate([("a1", anna), ("a2", anna), ("a3", anna), ("b1", boris)]):
        more = {"X-Forwarded-For": f"10.0.0.{number}", "X-Client-ID": text}
        asking.append(asyncio.create_task(proxy.ask(text, headers=headers | more)))
        await until(lambda: waiting(proxy) == len(asking))
    await asyncio.gather(first, *asking)
    assert await proxy.sent_texts() == ["first", "a1", "b1", "a2", "a3"]


async def test_no_key_is_passed_on_printed_or_logged(
    start_proxy: StartProxy, file: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the right one nor a wrong one; not at DEBUG, not by forwarding, not in the banner."""
    caplog.set_level(logging.DEBUG)
    proxy = await start_proxy(proxy_api_keys=KEYS, requests_log_file=file, log_level="DEBUG")
    print(app.banner(proxy.service), proxy.service, proxy.service.settings)
    statuses = set()
    for form in FORMS:
        for key in ("key-of-anna", "key-of-nobody"):
            headers = header(form, key)
            statuses.add((await proxy.ask(headers=headers)).status)
            for method, path in (
                ("POST", "/api/v1/chat/completions"),
                ("GET", "/api/v1/models"),
                ("POST", "/api/v2/oauth"),
                ("GET", "/nowhere"),
            ):
                body = chat() if method == "POST" else None
                async with proxy.http.request(method, proxy.url + path, json=body, headers=headers) as response:
                    statuses.add(response.status)
                    assert key not in await response.text() + str(response.headers)
    assert statuses == {200, 400, 401, 404}
    await entries(file, len(FORMS) * 10)
    captured = capfd.readouterr()
    everywhere = caplog.text + captured.out + captured.err + text_of(file) + str(await proxy.calls(""))
    assert "gigachat-proxy" in everywhere and "key-of" not in everywhere


async def test_without_keys_a_bind_that_others_can_reach_warns(start_proxy: StartProxy) -> None:
    """In the banner, with what to do; loopback and keys are silent."""
    for host, keys, warns in (
        ("0.0.0.0", {}, True),
        ("0.0.0.0", KEYS, False),
        ("127.0.0.1", {}, False),
        ("127.0.0.2", {}, False),
        ("localhost", {}, False),
    ):
        proxy = await start_proxy(host=host, proxy_api_keys=keys)
        banner = app.banner(proxy.service)
        assert ("WARNING" in banner) is warns
        assert ("PROXY_API_KEYS" in banner and "HOST=127.0.0.1" in banner) is warns


# -- addresses

PROXIES = "127.0.0.1, 10.0.0.0/8, fd00::/8"


@pytest.mark.parametrize(
    ("told", "caller"),
    [
        ([], "127.0.0.1"),
        ([""], "127.0.0.1"),
        (["6.6.6.6"], "6.6.6.6"),
        (["6.6.6.6:50123"], "6.6.6.6"),
        (["1.1.1.1, 6.6.6.6"], "6.6.6.6"),
        (["1.1.1.1", "6.6.6.6"], "6.6.6.6"),
        (["6.6.6.6, 10.0.0.9"], "6.6.6.6"),
        (["6.6.6.6", "10.0.0.9:80, 10.1.2.3"], "6.6.6.6"),
        (["1.1.1.1, 6.6.6.6,, 10.0.0.9 ,"], "6.6.6.6"),
        (["10.0.0.7, 10.0.0.9"], "10.0.0.7"),
        (["2001:DB8::0:1"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["[2001:db8::1]:443, [fd00::5]:80"], "2001:db8::1"),
        (["::ffff:6.6.6.6, ::ffff:10.0.0.9"], "6.6.6.6"),
        (["unknown"], "127.0.0.1"),
        (["6.6.6.6, unknown, 10.0.0.9"], "10.0.0.9"),
        (["unknown, 6.6.6.6"], "6.6.6.6"),
        (["1.1.1.1, 6.6.6.6.6"], "127.0.0.1"),
        (["<script>"], "127.0.0.1"),
    ],
)
async def test_behind_trusted_proxies_the_caller_is_the_last_address_that_is_none_of_them(
    start_proxy: StartProxy, file: Path, told: list[str], caller: str
) -> None:
    """With ports, of both families, in several headers; what a caller put in front is never reached."""
    proxy = await start_proxy(trusted_proxies=PROXIES, requests_log_file=file)
    headers = [("X-Forwarded-For", line) for line in told]
    async with proxy.http.post(proxy.url, json=chat(), headers=headers) as response:
        assert response.status == 200
    (line,) = await entries(file)
    assert line["caller"] == caller


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8, 127.0.0.9"])
async def test_who_comes_through_no_trusted_proxy_cannot_choose_its_address(
    start_proxy: StartProxy, file: Path, trusted: str
) -> None:
    """Not by any header that carries one."""
    proxy = await start_proxy(trusted_proxies=trusted, requests_log_file=file)
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6", "Via": "1.1 x"}
    assert (await proxy.ask(headers=forged)).status == 200
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.5", 0))
    async with (
        aiohttp.ClientSession(connector=connector, headers=forged) as http,
        http.post(proxy.url, json=chat()) as response,
    ):
        assert response.status == 200
    assert [line["caller"] for line in await entries(file, 2)] == ["127.0.0.1", "127.0.0.5"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::1]:8", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("", "None"),
        ("[", "None"),
        ("1.2.3.4:5:6", "None"),
        ("\udcff", "None"),
    ],
)
def test_addresses_are_read_as_peers_and_proxies_write_them(text: str, address: str) -> None:
    assert str(parsed_address(text)) == address


async def test_it_is_reached_by_ipv6_as_well(start_proxy: StartProxy, file: Path) -> None:
    """HOST=::1: its callers have such addresses, and it is loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    proxy = await start_proxy(host="::1", requests_log_file=file)
    assert (await proxy.ask()).status == 200
    assert "WARNING" not in app.banner(proxy.service)
    assert (await entries(file))[0]["caller"] == "::1"
