"""Who may look behind the counter: keys in every form, this machine, and nobody who only looks like it."""

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from held import HeldClock
from pydantic import SecretStr
from running import Proxy, StartProxy
from scraped import counted
from test_keys import FORMS, header, sent_raw

from proxy import admins
from proxy.admins import MOST, PAUSE, Admins
from proxy.callers import Callers
from proxy.entry import NOTE, Note
from proxy.errors import KeyRefused, Unauthorized
from proxy.settings import SettingsError, load

ADMIN, CALLERS = "key-of-operator", {"anna": SecretStr("key-of-anna")}


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admins, "PAUSE", 0.0)


async def status(proxy: Proxy, headers: dict[str, str] | None = None) -> int:
    async with proxy.http.get(f"{proxy.url}/metrics", headers=headers) as response:
        return response.status


def admins_of(key: str | None = None, *, keys: dict[str, str] | None = None, host: str = "127.0.0.1") -> Admins:
    return Admins(key, Callers(keys or {}, []), host, clock=HeldClock())


def request(peer: str = "127.0.0.1", **headers: str) -> Any:
    made = make_mocked_request("GET", "/", headers={"Host": "localhost", **headers})
    made._transport_peername = (peer, 1)  # type: ignore[attr-defined]
    made[NOTE] = Note("id", "native")
    return made


async def may(check: Any, asking: Any) -> bool:
    try:
        await check(asking)
    except Unauthorized:
        return False
    return True


# ---- GET /metrics ----


@pytest.mark.parametrize("form", FORMS)
async def test_a_key_of_the_operator_or_of_a_caller_opens_the_metrics(start_proxy: StartProxy, form: str) -> None:
    """In every form in which client libraries send keys."""
    proxy = await start_proxy(admin_api_key=SecretStr(ADMIN), proxy_api_keys=CALLERS)
    for key in (ADMIN, "key-of-anna"):
        assert await status(proxy, header(form, key)) == 200


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize("knobs", [{}, {"admin_api_key": SecretStr(ADMIN)}, {"proxy_api_keys": CALLERS}], ids=str)
async def test_this_machine_needs_no_key_but_a_wrong_one_is_told(
    start_proxy: StartProxy, knobs: dict[str, Any]
) -> None:
    """A key that never counted would be noticed too late."""
    proxy = await start_proxy(**knobs)
    assert await status(proxy) == 200
    assert await status(proxy, {"X-API-Key": "wrong"}) == (401 if knobs else 200)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
        {"Connection": "close"},
        {"Host": "rebound.example.org"},
    ],
    ids=str,
)
async def test_what_came_through_a_proxy_or_by_another_name_is_not_of_this_machine(
    start_proxy: StartProxy, headers: dict[str, str]
) -> None:
    """nginx before 1.29.7 says `Connection: close`; a page that leads its name here says that name."""
    proxy = await start_proxy(admin_api_key=SecretStr(ADMIN), cors_origins="http://rebound.example.org")
    assert await status(proxy, headers) == 401
    assert await status(proxy, headers | {"Authorization": f"Bearer {ADMIN}"}) == 200


async def test_a_trusted_proxy_on_this_machine_is_not_this_machine(start_proxy: StartProxy) -> None:
    assert await status(await start_proxy(trusted_proxies="127.0.0.1")) == 401


async def test_who_is_not_let_in_is_told_what_to_do(start_proxy: StartProxy) -> None:
    """Whether there is a key to send, or one to set."""
    through = {"Via": "1.1 proxy"}
    for knobs, remedy in (
        ({}, "set ADMIN_API_KEY"),
        ({"admin_api_key": SecretStr(ADMIN)}, "send ADMIN_API_KEY as"),
        ({"proxy_api_keys": CALLERS}, "Authorization: Bearer <key>"),
    ):
        proxy = await start_proxy(**knobs)
        async with proxy.http.get(f"{proxy.url}/metrics", headers=through) as response:
            assert response.status == 401 and response.headers["WWW-Authenticate"].startswith("Bearer")
            assert remedy in (await response.json())["status"]


@pytest.mark.usefixtures("_no_pause")
@pytest.mark.parametrize("value", [b"\xff\xfe", "ключ".encode(), b"x" * 5000, b"gcp-\xff", b""])
async def test_a_key_of_any_bytes_is_a_wrong_one(start_proxy: StartProxy, value: bytes) -> None:
    """A 401, not a bug."""
    proxy = await start_proxy(admin_api_key=SecretStr(ADMIN), proxy_api_keys=CALLERS)
    head = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nVia: 1\r\n%s %s\r\n"
    for name in (b"Authorization: Bearer", b"X-API-Key:"):
        assert (await sent_raw(proxy, head % (name, value)))[0] == 401


async def test_the_operator_calls_under_a_name_of_its_own(start_proxy: StartProxy) -> None:
    """Where callers need keys. What it spends is no other caller's."""
    proxy = await start_proxy(admin_api_key=SecretStr(ADMIN), proxy_api_keys=CALLERS)
    key = {"X-API-Key": ADMIN}
    assert (await proxy.ask(headers=key)).status == 200
    told = await counted(proxy, lambda now: now.sum("requests_total", route="/") == 1, key)
    assert told.sum("requests_total", route="/", caller="operator") == 1
    assert told.sum("tokens_total", caller="operator") == told.sum("tokens_total") > 0


async def test_no_caller_can_have_the_operators_key(tmp_path: Any) -> None:
    """What is told says why and what to do, and no more."""
    with pytest.raises(SettingsError) as caught:
        load(env={"PROXY_API_KEYS": f"anna:{ADMIN}", "ADMIN_API_KEY": ADMIN}, cwd=tmp_path, assets=tmp_path)
    assert str(caught.value) == (
        "ADMIN_API_KEY=*** in the environment is wrong (a caller has that key, see PROXY_API_KEYS: choose another one)"
    )


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost:8078", True),
        ("127.0.0.2", True),
        ("[::1]:8078", True),
        ("203.0.113.5", False),
        ("203.0.113.5:80", False),
        ("[2001:db8::1]:8078", False),
        ("[fe80::1", False),
        ("", False),
    ],
)
async def test_who_asks_for_another_address_than_this_machines_own_came_through_a_proxy(
    host: str, is_local: bool
) -> None:
    """One that keeps connections and the Host, as HAProxy does, leaves no other trace."""
    assert admins_of(host="0.0.0.0").is_local(request(Host=host)) is is_local


# ---- The operator ----


async def test_the_operator_is_known_by_its_key_alone_where_there_is_one() -> None:
    """A caller's key will not do, nor being here."""
    known = admins_of(ADMIN, keys={"anna": "key-of-anna"})
    asking = request("198.51.100.7", Authorization=f"Bearer {ADMIN}")
    await known.check(asking)
    assert asking[NOTE].caller == "operator"
    assert not await may(known.check, request())


@pytest.mark.parametrize(
    ("keys", "host", "peer", "is_let_in"),
    [
        ({}, "127.0.0.1", "127.0.0.1", True),
        ({}, "localhost", "127.0.0.1", True),
        ({}, "::1", "::1", True),
        ({}, "0.0.0.0", "127.0.0.1", False),
        ({}, "127.0.0.1", "198.51.100.7", False),
        ({"anna": "key-of-anna"}, "127.0.0.1", "127.0.0.1", False),
    ],
)
async def test_without_any_key_the_operator_is_who_is_on_the_machine(
    keys: dict[str, str], host: str, peer: str, is_let_in: bool
) -> None:
    """And only where nobody else can reach the service. With keys for callers there must be one for the operator."""
    known = admins_of(keys=keys, host=host)
    assert await may(known.check, request(peer)) is is_let_in
    assert not await may(known.check, request(peer, **{"X-Forwarded-For": "127.0.0.1"}))


@pytest.mark.parametrize("check", ["check", "check_reader"])
async def test_a_wrong_key_is_told_late_and_a_right_one_at_once(check: str) -> None:
    known = admins_of(ADMIN)
    clock: HeldClock = known._clock  # type: ignore[assignment]
    guessing = asyncio.create_task(getattr(known, check)(request(**{"X-API-Key": "guess"})))
    await clock.forward(PAUSE * 0.99)
    assert not guessing.done()
    await getattr(known, check)(request(**{"X-API-Key": ADMIN}))
    await clock.forward(PAUSE * 0.01)
    assert isinstance(guessing.exception(), KeyRefused)


async def test_those_who_guess_fill_no_memory() -> None:
    """No more than so many wait for their refusal; who leaves makes room."""
    known = admins_of(ADMIN)
    clock: HeldClock = known._clock  # type: ignore[assignment]
    guessing = [asyncio.create_task(known.check(request(**{"X-API-Key": str(number)}))) for number in range(MOST + 50)]
    await clock.settle()
    assert sum(not guess.done() for guess in guessing) == MOST
    for guess in guessing:
        guess.cancel()
    await asyncio.gather(*guessing, return_exceptions=True)
    assert known._refusing == 0


async def test_without_a_key_the_refusal_comes_at_once() -> None:
    """Nothing was guessed."""
    known = admins_of(ADMIN)
    with pytest.raises(Unauthorized):
        await known.check(request())
