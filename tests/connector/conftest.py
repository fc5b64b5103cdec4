"""An emulator, accounts on it, servers that answer as a test says, and a certificate authority of our own."""

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import emulator
import gigachat_connector
from gigachat_connector import Account
from proxy import settings
from proxy.clock import Clock
from proxy.connector import current_gate
from proxy.settings import Settings

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


class HeldClock(Clock):
    """Time moves when the test says so."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


class CountingGate:
    """A permit that lets everything through and counts what passes."""

    is_sent = False

    def __init__(self) -> None:
        self.passed = 0

    async def gate(self) -> None:
        self.passed += 1

    def mark_sent(self) -> None: ...

    def release_after(self, call: object) -> None: ...


@dataclass(frozen=True)
class Authority:
    """A certificate authority made by openssl, and what it has signed."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.pem"

    def issue(self, name: str, *, password: str = "") -> tuple[Path, Path]:
        """The certificate and the key of `name`, which is valid for 127.0.0.1."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        if certificate.exists():
            return certificate, key
        secrecy = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        openssl("req", "-newkey", "rsa:2048", *secrecy, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        signer = ("-CA", self.root, "-CAkey", self.folder / "root.key", "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *signer, "-out", certificate, "-days", "2", "-extfile", extensions)
        return certificate, key


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("authority"))
    key = ("-newkey", "rsa:2048", "-nodes", "-keyout", made.folder / "root.key")
    usage = ("-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *key, "-out", made.root, "-days", "2", "-subj", "/CN=Test Root", *usage)
    return made


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """`chat(temperature=1)`: a call with these parameters."""

    def make(**parameters: Any) -> dict[str, Any]:
        return CHAT | {"generate_parameters": parameters}

    return make


@pytest.fixture
async def upstream() -> AsyncIterator[emulator.Emulator]:
    async with emulator.start() as running:
        yield running


@pytest.fixture
async def account() -> AsyncIterator[Callable[..., Account]]:
    """`account(url, gigachat_model="X")`: an account there, by key if nothing else is said."""
    async with AsyncExitStack() as stack:

        def make(url: str, *, clock: Clock | None = None, **chosen: Any) -> Account:
            made = Account(chosen_for(url, **chosen), clock=clock)
            stack.push_async_callback(made.shutdown)
            return made

        yield make


@pytest.fixture
def choose() -> Callable[..., Settings]:
    return chosen_for


def chosen_for(url: str, **chosen: Any) -> Settings:
    credentials = {"gigachat_api_key", "gigachat_access_token", "gigachat_user", "gigachat_mtls_auth"}
    if not credentials & chosen.keys():
        chosen["gigachat_api_key"] = "a2V5"
    addresses = {"gigachat_base_url": f"{url}/api/v1", "gigachat_auth_url": f"{url}/api/v2/oauth"}
    return Settings(**(addresses | chosen))


@pytest.fixture
async def default_account(upstream: emulator.Emulator) -> AsyncIterator[None]:
    """The module's own account is on the emulator."""
    before = list(settings._in_force)
    settings.use(chosen_for(upstream.url))
    yield
    await gigachat_connector.shutdown()
    settings._in_force[:] = before


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await serve({"/api/v1/models": handler})`: the address of a server that answers so; tokens it has, too."""
    async with AsyncExitStack() as stack:

        async def start(handlers: dict[str, Handler]) -> str:
            app = web.Application()
            for path, handler in ({"/api/v2/oauth": token} | handlers).items():
                app.router.add_route("*", path, handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


async def token(request: web.Request) -> web.Response:
    return web.json_response({"access_token": "token"})


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def gate() -> Any:
    """The permit of the current call."""
    made = CountingGate()
    before = current_gate.set(made)
    yield made
    current_gate.reset(before)
