"""Web pages: a stranger's may not call, wherever its name leads; those of CORS_ORIGINS may, and read the answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, chat, until, waiting

from proxy.settings import Settings, SettingsError, load

EVIL = "https://evil.example"
PAGE = "https://chat.example.org"
KEYS = {"anna": SecretStr("key-of-anna")}
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    """The journal."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def port_of(proxy: Proxy) -> str:
    return proxy.url.rpartition(":")[2]


async def asked(
    proxy: Proxy, headers: dict[str, str], *, method: str = "POST", path: str = "/", body: Any = None
) -> tuple[int, Any, Any]:
    """What a browser gets: the status, the headers, the body."""
    data = orjson.dumps(body or chat()) if method == "POST" else None
    async with proxy.http.request(method, proxy.url + path, data=data, headers=headers) as response:
        return response.status, response.headers, await response.read()


async def status_of(proxy: Proxy, headers: dict[str, str], **more: Any) -> int:
    return (await asked(proxy, headers, **more))[0]


# -- strangers


@pytest.mark.parametrize("origin", [EVIL, "http://evil.example:8078", "http://localhost:3000", "null", "", "app://x"])
async def test_a_page_of_another_origin_may_not_call(start_proxy: StartProxy, file: Path, origin: str) -> None:
    """403 in the path's dialect, with the way out; nothing is queued, nothing can be read, and it is on record."""
    proxy = await start_proxy(requests_log_file=file)
    for path, word in (("/", "status"), ("/api/v1/chat/completions", "message"), ("/api/v2/oauth", "message")):
        status, headers, body = await asked(proxy, {"Origin": origin}, path=path)
        assert status == 403
        assert "CORS_ORIGINS" in json.loads(body)[word]
        assert headers["Vary"] == "Origin"
        assert not [name for name in headers if name.startswith(("Access-Control", "X-Queue"))]
    assert await proxy.calls("") == []
    await until(lambda: len(lines(file)) == 3)
    for line in lines(file):
        assert (line["status"], line["error"], line["caller"]) == (403, "forbidden", "127.0.0.1")


async def test_a_simple_post_of_another_site_is_refused_although_no_browser_asks_before_it(
    start_proxy: StartProxy,
) -> None:
    """A form or a fetch with text/plain needs no preflight: what it sends must not be done."""
    proxy = await start_proxy()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert await status_of(proxy, {"Origin": EVIL, "Content-Type": kind}) == 403
    assert await proxy.calls("") == []


async def test_a_page_is_refused_before_its_key_is_looked_at(start_proxy: StartProxy) -> None:
    """So that it cannot try keys out."""
    proxy = await start_proxy(proxy_api_keys=KEYS)
    for key in ("key-of-anna", "wrong"):
        assert await status_of(proxy, {"Origin": EVIL, "X-API-Key": key}) == 403
    assert await status_of(proxy, {"Origin": EVIL, **ASKING}, method="OPTIONS") == 403


@pytest.mark.parametrize("kind", ["cross-site", "same-site"])
async def test_a_page_of_another_site_may_not_embed_answers(start_proxy: StartProxy, kind: str) -> None:
    """Pictures and frames come without an Origin, and each would cost a place in line. A link may be followed."""
    proxy = await start_proxy()
    for dest in ("image", "script", "iframe", "empty"):
        told = {"Sec-Fetch-Site": kind, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": dest}
        assert await status_of(proxy, told, method="GET", path="/api/v1/models") == 403
    assert await proxy.calls("") == []
    link = {"Sec-Fetch-Site": kind, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert await status_of(proxy, link, method="GET") == 200
    for site in ("none", "same-origin"):
        assert await status_of(proxy, {**link, "Sec-Fetch-Site": site}, method="GET") == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io"])
@pytest.mark.parametrize("scheme", ["", "http", "https"])
async def test_a_strangers_name_that_leads_here_opens_nothing(
    start_proxy: StartProxy, file: Path, host: str, scheme: str
) -> None:
    """DNS rebinding: to its browser such a page is of our own origin. All that betrays it is the name."""
    proxy = await start_proxy(requests_log_file=file)
    host = host.format(port=port_of(proxy))
    headers = {"Host": host} | ({"Origin": f"{scheme}://{host}"} if scheme else {})
    for method, path in (("GET", "/"), ("POST", "/"), ("GET", "/health"), ("GET", "/api/v1/models"), ("GET", "/x")):
        status, _, body = await asked(proxy, headers, method=method, path=path)
        assert status == 403 and b"127.0.0.1" in body
    assert await proxy.calls("") == []


@pytest.mark.parametrize(
    "host", ["localhost@evil.example", "localhost:80:80", "[::1].evil", "localhost:x", "\xff", "[::1"]
)
async def test_a_name_that_only_looks_like_ours_is_not_ours(start_proxy: StartProxy, host: str) -> None:
    proxy = await start_proxy()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port_of(proxy)))
    writer.write(b"GET /health HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode("latin-1"))
    assert (await reader.readline()).split()[1] in (b"400", b"403")
    writer.close()


@pytest.mark.parametrize("host", ["localhost", "localhost:{port}", "LocalHost:1", "127.0.0.1:9000", "[::1]:{port}", ""])
async def test_by_the_names_of_this_machine_it_is_reached_at_any_port(start_proxy: StartProxy, host: str) -> None:
    """So that it is behind a forwarded port, too."""
    proxy = await start_proxy()
    assert await status_of(proxy, {"Host": host.format(port=port_of(proxy))}, method="GET") == 200


async def test_who_names_no_host_is_no_browser(start_proxy: StartProxy) -> None:
    """Health checks in HTTP/1.0."""
    proxy = await start_proxy()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port_of(proxy)))
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"200"
    writer.close()


async def test_the_configured_host_is_known_and_so_are_those_of_cors_origins(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(host="127.0.0.2", cors_origins="https://Giga.Example.org:8443")
    for host, status in (("127.0.0.2", 200), ("giga.example.org", 200), ("127.0.0.3", 403), ("example.org", 403)):
        assert await status_of(proxy, {"Host": host}) == status


async def test_a_trusted_proxy_may_pass_any_name_on(start_proxy: StartProxy) -> None:
    """Names that lead to nginx are nginx's business; a page by such a name must be listed, or have a key."""
    proxy = await start_proxy(trusted_proxies="127.0.0.1")
    named = {"Host": "giga.example.org"}
    assert await status_of(proxy, named) == 200
    assert await status_of(proxy, {**named, "Origin": "https://giga.example.org"}) == 403
    proxy = await start_proxy(trusted_proxies="127.0.0.1", proxy_api_keys=KEYS)
    told = {**named, "Origin": "https://giga.example.org", "X-API-Key": "key-of-anna"}
    assert await status_of(proxy, told) == 200


async def test_where_everybody_can_reach_it_it_has_any_name(start_proxy: StartProxy) -> None:
    """HOST=0.0.0.0: who knows how others call us. A page by a name is ours only if keys are asked for."""
    for keys, by_name in (({}, 403), (KEYS, 200)):
        proxy = await start_proxy(host="0.0.0.0", proxy_api_keys=keys)
        key = {"X-API-Key": "key-of-anna"}
        for host, status in (("nas.lan:8078", by_name), ("10.0.0.5:8078", 200), ("[fd00::5]", 200), ("localhost", 200)):
            assert await status_of(proxy, {"Host": host, **key}) == 200
            assert await status_of(proxy, {"Host": host, "Origin": f"http://{host}", **key}) == status
            assert await status_of(proxy, {"Host": host, "Origin": EVIL, **key}) == 403


async def test_pages_of_its_own_may_call(start_proxy: StartProxy) -> None:
    """The origin is the address that they were asked at: name and port."""
    proxy = await start_proxy()
    for name in ("localhost", "127.0.0.1", "[::1]"):
        host = f"{name}:{port_of(proxy)}"
        assert await status_of(proxy, {"Host": host, "Origin": f"http://{host}"}) == 200
        for other in (f"http://{name}", f"http://{name}:1", f"ftp://{host}", f"http://{host}.evil.example", host):
            assert await status_of(proxy, {"Host": host, "Origin": other}) == 403
    assert await status_of(proxy, {"Host": "127.0.0.1:1", "Origin": "http://localhost:1"}) == 403


async def test_whoever_is_no_browser_notices_nothing(start_proxy: StartProxy) -> None:
    """No header is added to its answers, not even where there are origins, but the one for caches."""
    for origins, more in (("", set()), (PAGE, {"Vary"})):
        proxy = await start_proxy(cors_origins=origins)
        answer = await proxy.ask()
        assert answer.status == 200
        assert {name for name in answer.headers if name.startswith(("Vary", "Access-Control"))} == more


# -- pages that may


async def test_a_browser_that_asks_first_is_told_what_its_page_may_do(start_proxy: StartProxy, file: Path) -> None:
    """Without a key, which no browser sends then; at every path, and also while the line is full."""
    proxy = await start_proxy(
        proxy_api_keys=KEYS, cors_origins=PAGE, ext_max_requests=1, ext_queue_size=1, requests_log_file=file
    )
    proxy.http.headers["X-API-Key"] = "key-of-anna"
    first = await busy(proxy, 0.5)
    second = asyncio.create_task(proxy.ask())
    await until(lambda: waiting(proxy) == 1)
    del proxy.http.headers["X-API-Key"]
    for path in ("/", "/api/v1/chat/completions", "/api/v2/oauth", "/nowhere"):
        status, headers, body = await asked(proxy, {"Origin": PAGE, **ASKING}, method="OPTIONS", path=path)
        assert (status, body) == (204, b"")
        assert headers["Access-Control-Allow-Origin"] == PAGE
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert int(headers["Access-Control-Max-Age"]) > 0
        assert headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in headers
    assert (await first).status == (await second).status == 200
    await until(lambda: len(lines(file)) == 6)
    preflights = [line for line in lines(file) if line["method"] == "OPTIONS"]
    assert {(line["operation"], line["status"]) for line in preflights} == {("preflight", 204)}
    assert len(await proxy.calls("")) == len(await proxy.calls()) + len(await proxy.calls("/oauth"))


EXPOSED = {"x-request-id", "x-queue-wait-ms", "x-queue-position", "ratelimit", "ratelimit-policy", "retry-after"}


async def test_a_page_that_may_call_reads_answers_streams_and_refusals(start_proxy: StartProxy) -> None:
    """With the headers that tell of the line; the same key is needed as from anybody."""
    proxy = await start_proxy(proxy_api_keys=KEYS, cors_origins=f"{PAGE}, http://localhost:3000", ext_retries=0)
    proxy.giga.state.faults.add({"kind": "status", "status": 500, "times": 1})
    key = {"Authorization": "Bearer key-of-anna"}
    for origin in (PAGE, "http://localhost:3000"):
        for expected, headers, more in (
            (502 if origin == PAGE else 200, key, {}),
            (200, key, {}),
            (200, key, {"body": chat(stream=True)}),
            (200, key, {"path": "/api/v1/models", "method": "GET"}),
            (401, {}, {}),
            (400, key, {"body": {"messages": 5}}),
            (404, key, {"path": "/nowhere"}),
            (405, key, {"method": "DELETE"}),
        ):
            status, told, _ = await asked(proxy, {"Origin": origin, **headers}, **more)
            assert status == expected
            assert told.getall("Access-Control-Allow-Origin") == [origin]
            assert {name.strip().lower() for name in told["Access-Control-Expose-Headers"].split(",")} >= EXPOSED
            assert told["Vary"] == "Origin"


async def test_pages_that_are_not_listed_stay_strangers(start_proxy: StartProxy) -> None:
    """Scheme, name and port count; a page within a listed one is another."""
    proxy = await start_proxy(cors_origins=PAGE)
    for origin in (
        PAGE.replace("https", "http"),
        f"{PAGE}:8443",
        f"{PAGE}.evil.example",
        "https://example.org",
        "null",
    ):
        status, headers, _ = await asked(proxy, {"Origin": origin})
        assert status == 403 and "Access-Control-Allow-Origin" not in headers
        assert await status_of(proxy, {"Origin": origin, **ASKING}, method="OPTIONS") == 403


async def test_a_stream_that_is_begun_early_may_be_read_too(start_proxy: StartProxy) -> None:
    """The headers come with the early 200."""
    proxy = await start_proxy(cors_origins=PAGE, ext_max_requests=1, stream_early_200=0, heartbeat_interval=0.1)
    first = await busy(proxy, 0.4)
    async with proxy.http.post(proxy.url, json=chat(stream=True), headers={"Origin": PAGE}) as response:
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert (await response.content.readline()).startswith(b": queued")
    await first


async def test_a_star_is_every_page(start_proxy: StartProxy) -> None:
    """Whatever its origin or the name by which it came here; the keys remain."""
    proxy = await start_proxy(proxy_api_keys=KEYS, cors_origins="*")
    for headers in ({"Origin": EVIL}, {"Origin": "null"}, {"Origin": EVIL, "Host": "evil.example"}):
        for key, expected in (("key-of-anna", 200), ("wrong", 401)):
            status, told, _ = await asked(proxy, {**headers, "X-API-Key": key})
            assert (status, told["Access-Control-Allow-Origin"]) == (expected, "*")
            assert "Retry-After" in told["Access-Control-Expose-Headers"]
        status, told, _ = await asked(proxy, {**headers, **ASKING}, method="OPTIONS")
        assert (status, told["Access-Control-Allow-Origin"]) == (204, "*")


async def test_an_options_that_is_no_question_of_a_browser_is_served_like_any_other(start_proxy: StartProxy) -> None:
    """405 where there is no such method."""
    proxy = await start_proxy(cors_origins=PAGE)
    for headers in ({}, {"Origin": PAGE}, ASKING):
        assert await status_of(proxy, headers, method="OPTIONS") == 405


# -- the setting


def origins(text: str) -> tuple[str, ...]:
    return load([], env={"CORS_ORIGINS": text}, cwd=Path("/nowhere"), assets=Path("/nowhere")).cors_origins


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", ()),
        ("*", ("*",)),
        (f"{PAGE}, http://localhost:3000", (PAGE, "http://localhost:3000")),
        (
            "https://Chat.Example.org/ https://a.example:443 http://b.example:80",
            (PAGE, "https://a.example", "http://b.example"),
        ),
        ("https://чат.рф", ("https://xn--80a0bn.xn--p1ai",)),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("chrome-extension://abcdef", ("chrome-extension://abcdef",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, read: tuple[str, ...]) -> None:
    """In lower case, without a slash or the usual port, with letters as in the DNS."""
    assert origins(text) == read


@pytest.mark.parametrize(
    "text",
    ["chat.example.org", "https://a/page", "https://a?b", "https://*.a", "null", "https://u@a", "https://", "a b"],
)
def test_what_is_no_origin_stops_the_start(text: str) -> None:
    """With the word that is wrong and what would be right."""
    with pytest.raises(SettingsError, match=r"is no origin.*https://chat.example.org"):
        origins(text)


def test_no_page_may_call_by_default() -> None:
    assert Settings().cors_origins == ()
