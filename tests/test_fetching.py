"""Downloads of what callers name: only what is public is reached, nothing is told of the rest, and all has an end."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.connector
import pytest
from aiohttp import web
from authority import Authority
from hypothesis import given
from hypothesis import strategies as st
from strangers import HOST, PICTURE, Names, Says, Server, a_server, never, saying
from yarl import URL

from proxy.errors import AttachmentTooLarge, BadRequest
from proxy.fetching import MAX_REDIRECTS, Fetching, checked
from proxy.public_hosts import NotPublic, PublicHosts, addresses_of, is_public, plain

PARAM = "messages[0].content[1].image_url.url"
LIMIT = 100_000
SAME_REFUSAL = f'"{PARAM}" leads to a host that has no public address'


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with a_server() as server:
        yield server


@asynccontextmanager
async def a_fetching(
    names: Names | None = None, allowed: tuple[str, ...] = (HOST,), **knobs: Any
) -> AsyncIterator[Fetching]:
    fetching = Fetching(PublicHosts(allowed, names or Names()), **knobs)
    try:
        yield fetching
    finally:
        await fetching.close()


async def refusal(url: str, fetching: Fetching, limit: int = LIMIT) -> BadRequest:
    """What a caller is told."""
    with pytest.raises(BadRequest) as told:
        await fetching.fetch(url, lambda type: limit, PARAM)
    assert told.value.param == PARAM and PARAM in str(told.value)
    assert "127.0.0" not in str(told.value) and HOST not in str(told.value)
    return told.value


def redirecting(*where: str, status: int = 302) -> Says:
    """Answers that lead there, one after the other."""
    left = list(where)

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": left.pop(0)})

    return says


# -- what is not public

ADDRESSES = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("192.88.99.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:808:808::1", "2001:0:808:808::1", "2001:db8::1"),
    *("100::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1"),
    *("ff0e::1", "4000::1", "::ffff:168.63.129.16"),
]


@pytest.mark.parametrize("address", ADDRESSES)
async def test_an_address_that_is_not_public_is_refused_as_a_host_and_as_a_names_answer(address: str) -> None:
    """Also behind a first answer that is public."""
    literal = f"[{address.replace('%', '%25')}]" if ":" in address else address
    names = Names({"evil.test": [[address]], "half.test": [["93.184.215.14", address]]})
    async with a_fetching(names) as fetching:
        for host in (literal, "evil.test", "half.test"):
            assert str(await refusal(f"http://{host}/", fetching)) == SAME_REFUSAL


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]
)
async def test_a_public_address_is_not(address: str) -> None:
    hosts = PublicHosts((), Names({"good.test": [[address]]}))
    hosts.check_address(address)
    (found,) = await hosts.resolve("good.test", 443)
    assert (found["port"], found["hostname"], ip_address(found["host"])) == (443, "good.test", ip_address(address))
    assert found["family"] == (socket.AF_INET6 if ":" in address else socket.AF_INET)


@given(st.ip_addresses().map(plain))
def test_what_python_knows_to_be_private_is_never_public(address: Any) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert not is_public(address)


SPELLINGS = [
    *("localhost", "LOCALHOST", "localhost.", "ｌocalhost", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0", "0x0"),
    *("017700000001", "0177.0.0.1", "127.0.0.1.", "127.000.000.001", "①②⑦.⓪.⓪.①", "127。0。0。1", "[::]", "[::1]"),
    *("[0:0:0:0:0:0:0:1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[::1%25lo]", "[fe80::1%25lo]", "1.2.3", "1.2.3.4.5"),
    *("%31%32%37.0.0.1", "127.0.0.1%00.test", "%00", "a..b", "a b", "x" * 300, "-", ".", "..", "*", "xn--", "a_b"),
]


async def without_dns(host: str) -> list[str]:
    """What the system's own lookup makes of it, numbers in all bases included, but for asking others."""
    if host.rstrip(".") == "localhost":
        return ["127.0.0.1", "::1"]
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(entry[4][0]) for entry in found]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_this_machine_leads_to_it(host: str, server: Server) -> None:
    """Nothing is connected to, and every refusal is the same."""
    fetching = Fetching(PublicHosts((), without_dns))
    told = str(await refusal(f"http://{host}:{server.port}/", fetching))
    await fetching.close()
    assert told == SAME_REFUSAL or "must be" in told
    assert server.asked == []


@pytest.mark.parametrize("name", ["localhost", "0x7f.1", "127.0.0.1"])
async def test_the_systems_own_lookup_is_asked_for_all_addresses(name: str) -> None:
    found = await addresses_of(name)
    assert found and all(ip_address(address).is_loopback for address in found)


async def test_a_host_that_does_not_exist_is_told_like_one_that_must_not_be_known_of() -> None:
    """So that nobody learns the names of the inner network."""
    names = Names({"wiki.corp.test": [["10.1.2.3"]], "empty.corp.test": [[]]})
    async with a_fetching(names) as fetching:
        for host in ("wiki", "nobody", "empty"):
            assert str(await refusal(f"http://{host}.corp.test/", fetching)) == SAME_REFUSAL


@pytest.mark.parametrize(
    "address",
    [
        *("ftp://pictures.test/cat.png", "file:///etc/passwd", "gopher://pictures.test/", "data:,x", "//pictures.test"),
        *("/cat.png", "cat.png", "", "http://", "http:///cat.png", "http:cat.png", "http://[::1", "http://a:99999/"),
        *("http://user@pictures.test/", "http://user:word@pictures.test/", "http://:word@pictures.test/"),
        *("http://:@pictures.test/", "http://pictures.test\\@127.0.0.1/", "unix:///run/x", "ws://pictures.test/"),
        *("http://[]", "http://[)]@a", "http://][@a"),
    ],
)
async def test_only_plain_http_and_https_addresses_are_taken(address: str) -> None:
    """No other scheme, no user, no password; nobody is asked anything."""
    names = Names()
    async with a_fetching(names) as fetching:
        await refusal(address, fetching)
    assert names.asked == []


@given(st.text(max_size=60))
def test_whatever_an_address_may_be_it_is_read_or_refused(text: str) -> None:
    for address in (text, f"http://{text}", f"http://pictures.test{text}", f"http://pictures.test/{text}"):
        try:
            url = checked(URL("http://pictures.test/a"), address, PARAM)
        except BadRequest as error:
            assert error.param == PARAM
        else:
            assert url.scheme in ("http", "https") and url.host and url.user is None


# -- names that change their mind


async def test_a_name_is_looked_up_once_and_the_connection_goes_to_that_answer(server: Server) -> None:
    """DNS rebinding: the second answer is for nobody."""
    names = Names({HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    async with a_fetching(names, allowed=("127.0.0.1",)) as fetching:
        fetched = await fetching.fetch(server.url(), lambda type: LIMIT, PARAM)
    assert fetched.content == PICTURE
    assert (len(server.asked), names.asked) == (1, [HOST])


async def test_the_next_request_looks_it_up_again_and_checks_again(server: Server) -> None:
    names = Names({HOST: [["127.0.0.1"], ["127.0.0.2"]]})
    server.says = redirecting("/again")
    async with a_fetching(names, allowed=("127.0.0.1",)) as fetching:
        assert str(await refusal(server.url(), fetching)) == SAME_REFUSAL
    assert (len(server.asked), names.asked) == (1, [HOST, HOST])


# -- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_this_machine_is_refused(server: Server, status: int) -> None:
    """As an address, by a name, and in disguise."""
    names = Names({HOST: [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    for host in ("127.0.0.1", "other.test", "[::ffff:127.0.0.1]", "2130706433"):
        server.says = redirecting(server.url(host, "/secret"), status=status)
        async with a_fetching(names) as fetching:
            assert str(await refusal(server.url(), fetching)) == SAME_REFUSAL
    assert [request.path for request in server.asked] == ["/cat.png"] * 4


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://pictures.test/", "http://[::1", "http://a@b/"])
async def test_a_redirect_leads_to_plain_addresses_only(server: Server, where: str) -> None:
    server.says = redirecting(where)
    async with a_fetching() as fetching:
        await refusal(server.url(), fetching)
    assert len(server.asked) == 1


async def test_redirects_are_followed_and_their_number_has_an_end(server: Server) -> None:
    """Relative ones too, and each with the same few headers."""

    async def says(request: web.BaseRequest) -> web.StreamResponse:
        left = int(request.query["left"])
        where = {"Location": f"?left={left - 1}", "Set-Cookie": "a=b"}
        return web.Response(status=302, headers=where) if left else web.Response(body=PICTURE)

    server.says = says
    async with a_fetching() as fetching:
        fetched = await fetching.fetch(server.url(path=f"/a?left={MAX_REDIRECTS}"), lambda type: LIMIT, PARAM)
        assert fetched.content == PICTURE
        assert "redirected" in str(await refusal(server.url(path=f"/a?left={MAX_REDIRECTS + 1}"), fetching))
    assert len(server.asked) == 2 * (1 + MAX_REDIRECTS)


async def test_a_redirect_to_nowhere_in_particular_has_an_end(server: Server) -> None:
    server.says = saying(status=302)
    async with a_fetching() as fetching:
        assert "redirected" in str(await refusal(server.url(), fetching))


# -- what goes along


async def test_nothing_goes_along_but_our_name(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cookie of an earlier answer, no word of the environment's, no proxy of the environment's."""
    (tmp_path / "netrc").write_text(f"machine {HOST} login joe password word\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.says = saying(PICTURE, **{"Set-Cookie": "who=you"})
    async with a_fetching() as fetching:
        for _ in range(2):
            await fetching.fetch(server.url(), lambda type: LIMIT, PARAM)
    for request in server.asked:
        assert request.method == "GET"
        assert dict(request.headers) == {
            "Host": f"{HOST}:{server.port}",
            "User-Agent": "gigachat-proxy",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }


# -- how large, how long, of what type


@pytest.mark.parametrize("header", ["image/png", "Image/PNG; charset=x", "nonsense", ""])
async def test_the_type_is_what_the_server_says(server: Server, header: str) -> None:
    """As it writes it; it is shown before the body is read."""
    shown: list[str] = []

    def room(type: str) -> int:
        shown.append(type)
        return LIMIT

    server.says = saying(PICTURE, header)
    async with a_fetching() as fetching:
        assert await fetching.fetch(server.url(), room, PARAM) == (header, PICTURE)
    assert shown == [header]


def endless(server: Server, **headers: str) -> Says:
    async def says(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)
            server.written += 10_000

    return says


async def test_a_type_that_is_not_wanted_costs_no_download(server: Server) -> None:
    """The refusal of whoever wants the file is the caller's answer."""

    def room(type: str) -> int:
        raise BadRequest("no such type", param=PARAM)

    server.says = endless(server)
    async with a_fetching() as fetching:
        with pytest.raises(BadRequest, match="no such type"):
            await fetching.fetch(server.url(), room, PARAM)


async def test_a_body_without_an_end_is_left_at_the_limit(server: Server) -> None:
    """Chunked, so that no header tells; what was written and not read yet is in the system's buffers."""
    server.says = endless(server)
    async with a_fetching() as fetching:
        told = await refusal(server.url(), fetching)
    assert isinstance(told, AttachmentTooLarge) and told.status == 413
    assert server.written < 20_000_000


async def test_a_body_that_says_to_be_too_large_is_not_read(server: Server) -> None:
    server.says = endless(server, **{"Content-Length": "10000000000"})
    async with a_fetching() as fetching:
        assert isinstance(await refusal(server.url(), fetching), AttachmentTooLarge)


async def test_a_compressed_body_counts_as_what_it_becomes(server: Server) -> None:
    """1000 to 1: a bomb is left at the limit too."""
    bomb = gzip.compress(bytes(LIMIT * 50))
    assert len(bomb) < LIMIT
    server.says = saying(bomb, **{"Content-Encoding": "gzip"})
    async with a_fetching() as fetching:
        assert isinstance(await refusal(server.url(), fetching), AttachmentTooLarge)


@pytest.mark.parametrize("size", [0, 1, len(PICTURE)])
async def test_a_body_of_just_the_limit_is_taken(server: Server, size: int) -> None:
    server.says = saying(PICTURE[:size])
    async with a_fetching() as fetching:
        assert (await fetching.fetch(server.url(), lambda type: size, PARAM)).content == PICTURE[:size]


async def half(request: web.BaseRequest) -> web.StreamResponse:
    """A body that stops in the middle."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"x" * 500)
    return await never(request)


async def in_circles(request: web.BaseRequest) -> web.StreamResponse:
    """Redirects, each after a while: the time is for all of them together."""
    await asyncio.sleep(0.05)
    return web.Response(status=302, headers={"Location": request.path})


@pytest.mark.parametrize("says", [never, half, in_circles])
async def test_a_download_has_a_time_in_which_it_must_end(server: Server, says: Any) -> None:
    server.says = says
    async with a_fetching(seconds=0.1) as fetching:
        told = await refusal(server.url(), fetching)
    assert "longer than 0.1 s" in str(told)


async def test_a_name_that_nobody_answers_for_has_it_too() -> None:
    async def silent(host: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    fetching = Fetching(PublicHosts((HOST,), silent), seconds=0.05)
    assert "longer than 0.05 s" in str(await refusal(f"http://{HOST}/", fetching))
    await fetching.close()


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 404, 500])
async def test_any_answer_but_a_200_is_a_400_that_says_so(server: Server, status: int) -> None:
    server.says = saying(status=status)
    async with a_fetching() as fetching:
        told = await refusal(server.url(), fetching)
    assert told.status == 400 and f"answered {status}" in str(told)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_valid_answer_is_a_400(answer: bytes) -> None:
    """Whatever a stranger's server writes."""

    async def say(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await source.readuntil(b"\r\n\r\n")
        sink.write(answer)
        sink.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server, a_fetching() as fetching:
        told = await refusal(f"http://{HOST}:{server.sockets[0].getsockname()[1]}/", fetching)
        assert told.status == 400


async def test_nobody_there_is_a_400(server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with a_fetching() as fetching:
            told = await refusal(f"http://{HOST}:{closed.getsockname()[1]}/", fetching)
    assert "no connection" in str(told)


# -- what is let through


@pytest.mark.parametrize(
    "entry", ["127.0.0.1", "127.0.0.0/8", "pictures.test", ".test", "*.test", "test", "*", "::/0, 127.0.0.0/8"]
)
async def test_an_entry_lets_a_network_through_or_a_name_with_those_under_it(server: Server, entry: str) -> None:
    async with a_fetching(allowed=tuple(entry.split(", "))) as fetching:
        assert (await fetching.fetch(server.url(), lambda type: LIMIT, PARAM)).content == PICTURE


@pytest.mark.parametrize(
    "entry", ["", ".", "127.0.0.2", "ictures.test", "pictures.test.com", "10.0.0.0/33", "::1", "a"]
)
async def test_an_entry_lets_nothing_else_through(server: Server, entry: str) -> None:
    async with a_fetching(allowed=(entry,)) as fetching:
        await refusal(server.url(), fetching)
    assert server.asked == []


async def test_a_name_that_is_let_through_takes_its_address_to_no_other_name(server: Server) -> None:
    names = Names({HOST: [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with a_fetching(names) as fetching:
        await fetching.fetch(server.url(), lambda type: LIMIT, PARAM)
        for host in ("other.test", "127.0.0.1"):
            assert str(await refusal(server.url(host), fetching)) == SAME_REFUSAL


async def test_whoever_uses_the_pool_alone_is_guarded_as_well(server: Server) -> None:
    """Webhooks, say: an address in digits, and a redirect that the library follows by itself."""
    names = Names({HOST: [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    server.says = redirecting(server.url("127.0.0.1"), server.url("other.test"))
    async with aiohttp.ClientSession(connector=PublicHosts((HOST,), names).connector()) as http:
        for url in (server.url("127.0.0.1"), server.url("other.test"), server.url(), server.url()):
            with pytest.raises(NotPublic):
                await http.get(url)
    assert len(server.asked) == 2


# -- certificates


async def test_a_certificate_is_verified_and_for_the_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the connection goes to an address. One of an authority that nobody knows is refused."""
    authority = Authority.found(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue(HOST))
    names = Names({HOST: [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})
    async with a_server(tls=tls) as server, a_fetching(names, allowed=(".test",)) as fetching:
        assert "certificate" in str(await refusal(server.url(scheme="https"), fetching))
        friendly = ssl.create_default_context(cafile=str(authority.root))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", friendly)
        assert (await fetching.fetch(server.url(scheme="https"), lambda type: LIMIT, PARAM)).content == PICTURE
        assert "certificate" in str(await refusal(server.url("other.test", scheme="https"), fetching))
