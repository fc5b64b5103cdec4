"""TLS, and client certificates in place of tokens."""

import ssl
import subprocess
from pathlib import Path

import aiohttp
import pytest
from emulator_callers import bearer

import emulator
from emulator import Options

URL_PATH = "/v1/models"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA, and a server's and a client's certificate by it."""
    folder = tmp_path_factory.mktemp("papers")
    extensions = "subjectAltName=IP:127.0.0.1"
    openssl(folder, "req", "-x509", *NEW_KEY, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA", "-days", "2")
    for name in ("server", "client"):
        (folder / "extensions").write_text(extensions)
        openssl(folder, "req", *NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "extensions", "-days", "2")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)
    return folder


def options(papers: Path) -> Options:
    files = {"tls_cert": "server.pem", "tls_key": "server.key", "client_ca": "ca.pem"}
    return Options(access_tokens=("t",), **{name: str(papers / file) for name, file in files.items()})


def trusting(papers: Path, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=papers / "ca.pem")
    if with_certificate:
        context.load_cert_chain(papers / "client.pem", papers / "client.key")
    return context


@pytest.mark.parametrize(
    ("with_certificate", "headers", "status"),
    [(True, {}, 200), (False, bearer("t"), 200), (False, {}, 401), (True, bearer("unknown"), 401)],
    ids=["certificate", "token", "neither", "wrong token"],
)
async def test_a_certificate_does_instead_of_a_token(
    papers: Path, with_certificate: bool, headers: dict[str, str], status: int
) -> None:
    context = trusting(papers, with_certificate)
    async with emulator.start(options(papers)) as giga, aiohttp.ClientSession() as session:
        assert giga.url.startswith("https://")
        async with session.get(giga.url + URL_PATH, headers=headers, ssl=context) as response:
            assert response.status == status
            body = await response.json()
        accounts = [call.account for call in giga.state.calls]
    assert status == 200 or body == {"status": 401, "message": "Unauthorized"}
    assert headers or accounts == ["certificate-client" if with_certificate else ""]


async def test_a_certificate_of_another_authority_is_not_accepted(papers: Path, tmp_path: Path) -> None:
    openssl(
        tmp_path, "req", "-x509", *NEW_KEY, "-keyout", "k.pem", "-out", "c.pem", "-subj", "/CN=stranger", "-days", "2"
    )
    context = trusting(papers, with_certificate=False)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    async with emulator.start(options(papers)) as giga, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(giga.url + URL_PATH, ssl=context)


async def test_a_context_of_ones_own_can_be_given(papers: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(papers / "server.pem", papers / "server.key")
    async with (
        emulator.start(Options(access_tokens=("t",)), ssl_context=context) as giga,
        aiohttp.ClientSession(headers=bearer("t")) as session,
        session.get(giga.url + URL_PATH, ssl=trusting(papers, False)) as response,
    ):
        assert response.status == 200
