import asyncio
import logging
import ssl

import pytest
from yarl import URL

import emulator
from gigachat_connector import Account
from proxy.errors import CredentialRefused, UpstreamError
from proxy.passed import PassedCredential
from proxy.settings import Settings, SettingsError
from proxy.tls import RUSSIAN_ROOT_SHA256, Tls, is_api_host, russian_root

CHAT = "/chat/completions"
OWN = "https://gateway.example.com:8443"
NEW = "https://api.giga.chat/v1/chat/completions"
OLD = "https://gigachat.devices.sberbank.ru/api/v1/chat/completions"
OAUTH = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"


def subjects(context):
    return {dict(pair[0] for pair in root["subject"]).get("commonName") for root in context.get_ca_certs()}


def trusts_russian_root(context):
    return "Russian Trusted Root CA" in subjects(context)


@pytest.fixture
async def secure(authority):
    """An emulator behind TLS; its certificate is signed by the test's authority, which it asks of clients too."""
    certificate, key = authority.issue("server")
    options = emulator.Options(tls_cert=str(certificate), tls_key=str(key), client_ca=str(authority.root))
    async with emulator.start(options) as running:
        yield running


# ---- Trust ----


def test_genuine_root():
    """The certificate that we ship is the Russian Trusted Root CA, by the digest that is known everywhere."""
    pinned = "D2:6D:2D:02:31:B7:C3:9F:92:CC:73:85:12:BA:54:10:35:19:E4:40:5D:68:B5:BD:70:3E:97:88:CA:8E:CF:31"
    assert pinned.replace(":", "").lower() == RUSSIAN_ROOT_SHA256
    assert russian_root()


def test_forged_root(authority, tmp_path):
    """Another certificate in its place, garbage or nothing: it is not loaded, and the remedy is named."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\xff\x00")
    for file in (authority.root, garbage, tmp_path / "nothing.pem"):
        with pytest.raises(SettingsError, match="GIGACHAT_CA_BUNDLE_FILE"):
            russian_root(file)


@pytest.mark.parametrize("address", [NEW, OLD, OAUTH, "https://gigachat-preview.devices.sberbank.ru/api/v1"])
@pytest.mark.parametrize("base", ["https://api.giga.chat/v1", OWN])
def test_root_is_trusted_for_the_api(choose, address, base):
    """For the API's hosts the Russian root is trusted beside the system's roots."""
    context = Tls(choose(OWN, gigachat_base_url=base))(URL(address))
    assert trusts_russian_root(context)
    assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()) + 1


@pytest.mark.parametrize(
    "address",
    [OWN, "https://example.com", "https://notsberbank.ru", "https://giga.chat.example.com", "https://mygiga.chat"],
)
def test_root_is_trusted_for_nobody_else(choose, address):
    """For any other host, configured or not, the Russian root is not trusted."""
    context = Tls(choose(OWN))(URL(address))
    assert not trusts_russian_root(context)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_hosts():
    """The API's domains and what is under them; nothing that merely looks like it."""
    assert all(map(is_api_host, ("giga.chat", "api.giga.chat", "ngw.devices.sberbank.ru", "sberbank.ru")))
    assert not any(map(is_api_host, ("", "chat", "xgiga.chat", "sberbank.ru.com", "sberbank.com")))


def test_verified_by_default():
    """Whatever is not said, certificates are verified."""
    context = Tls(Settings())(URL(NEW))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_contexts_are_made_once(choose):
    """A context is made at its first use and kept; plain HTTP needs none."""
    tls = Tls(choose(OWN))
    assert tls(URL(NEW)) is tls(URL(OLD))
    assert tls(URL(OWN)) is tls(URL(OWN + "/other"))
    assert tls(URL(OWN)) is not tls(URL(NEW))
    assert tls(URL("http://127.0.0.1:1")) is True


def test_own_roots(choose, authority):
    """A bundle of the operator's own is trusted for the configured hosts, and nothing else is; others keep theirs."""
    tls = Tls(choose(OWN, gigachat_base_url="https://api.giga.chat/v1", gigachat_ca_bundle_file=authority.root))
    for configured in (OWN, NEW):
        assert subjects(tls(URL(configured))) == {"Test Root"}
    assert "Test Root" not in subjects(tls(URL("https://example.com")))


def test_no_verification_by_wish_only(choose):
    """Verification is switched off for the configured hosts only."""
    tls = Tls(choose(OWN, gigachat_verify_ssl_certs=False))
    assert tls(URL(OWN)).verify_mode == ssl.CERT_NONE
    assert tls(URL(NEW)).verify_mode == ssl.CERT_REQUIRED


async def test_unknown_authority(secure, account, chat):
    """A certificate of an unknown authority is refused, and the text names the setting that helps."""
    with pytest.raises(UpstreamError, match="GIGACHAT_CA_BUNDLE_FILE") as told:
        await account(secure.url).request_api(chat())
    assert told.value.status == 502
    assert not list(secure.state.calls)


async def test_known_authority(secure, account, authority, chat):
    """With its authority named, a private gateway is served, token and chat."""
    served = account(secure.url, gigachat_ca_bundle_file=authority.root)
    served.startup()
    assert await served.request_api(chat())


async def test_wrong_name(account, authority, chat):
    """A good certificate for another name is refused."""
    certificate, key = authority.issue("server")
    options = emulator.Options(tls_cert=str(certificate), tls_key=str(key))
    async with emulator.start(options) as upstream:
        url = f"https://localhost:{upstream.port}"
        with pytest.raises(UpstreamError):
            await account(url, gigachat_ca_bundle_file=authority.root).request_api(chat())
    assert not list(upstream.state.calls)


async def test_without_verification(secure, account, chat, caplog):
    """Switched off, anything is believed, and the log warns of it once, at start."""
    served = account(secure.url, gigachat_verify_ssl_certs=False)
    with caplog.at_level(logging.WARNING):
        served.startup()
        await served.request_api(chat())
        await served.request_api(chat())
    warnings = [record for record in caplog.records if "GIGACHAT_VERIFY_SSL_CERTS" in record.message]
    assert len(warnings) == 1


async def test_no_warning_without_need(secure, account, authority, caplog):
    """A verified connection is nothing to warn of."""
    account(secure.url, gigachat_ca_bundle_file=authority.root).startup()
    assert not caplog.records


# ---- The client's certificate ----


async def test_client_certificate(secure, account, authority, chat):
    """By certificate: a real handshake, no Authorization header, no token request."""
    certificate, key = authority.issue("client")
    served = account(
        secure.url,
        gigachat_mtls_auth=True,
        gigachat_ca_bundle_file=authority.root,
        gigachat_cert_file=certificate,
        gigachat_key_file=key,
    )
    served.startup()
    assert await served.request_api(chat())
    assert [chunk async for chunk in served.stream_api(chat())]
    call = secure.state.calls.to(CHAT)[0]
    assert (call.certificate, call.account) == ("client", "certificate-client")
    assert "Authorization" not in call.headers
    assert secure.state.tokens.request_count == 0


async def test_client_certificate_is_a_credential(secure, account, authority, chat):
    """A certificate alone is enough, also if GIGACHAT_MTLS_AUTH is not said; its key may be in the same file."""
    certificate, key = authority.issue("sealed", password="open sesame")
    both = certificate.with_name("both.pem")
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    chosen = {"gigachat_ca_bundle_file": authority.root, "gigachat_cert_file": both}
    served = account(secure.url, gigachat_api_key=None, gigachat_key_file_password="open sesame", **chosen)
    assert await served.request_api(chat())


async def test_client_certificate_beside_a_key(secure, account, authority, chat):
    """A certificate beside a key: the handshake shows the one, the header the token of the other."""
    certificate, key = authority.issue("client")
    files = {"gigachat_cert_file": certificate, "gigachat_key_file": key, "gigachat_ca_bundle_file": authority.root}
    await account(secure.url, **files).request_api(chat())
    call = secure.state.calls.to(CHAT)[0]
    assert call.certificate == "client"
    assert call.headers["Authorization"].startswith("Bearer ")


async def test_callers_of_their_own_credentials_do_not_show_it(authority, account, chat):
    """Theirs are connections without it, shared by all of them, and so is the pace of their token requests."""
    certificate, key = authority.issue("server")
    options = emulator.Options(
        tls_cert=str(certificate), tls_key=str(key), client_ca=str(authority.root), token_rate=10
    )
    async with emulator.start(options) as giga:
        shown, its_key = authority.issue("client")
        files = {"gigachat_cert_file": shown, "gigachat_key_file": its_key, "gigachat_ca_bundle_file": authority.root}
        ours = account(giga.url, gigachat_mtls_auth=True, gpt2giga_pass_token=True, **files)
        theirs = [ours.beside(PassedCredential("key", f"key{n}")) for n in range(15)]
        await asyncio.gather(*(one.request_api(chat()) for one in theirs))
        assert {call.certificate for call in giga.state.calls.to(CHAT)} == {""}
        assert [call.status for call in giga.state.calls.to("/api/v2/oauth")] == [200] * 15
        await ours.request_api(chat())
        assert giga.state.calls.to(CHAT)[-1].certificate == "client"


async def test_refused_client_certificate(secure, account, authority, chat):
    """An API that does not take the certificate for a credential: the setting is named, nothing is sent twice."""
    certificate, key = authority.issue("client")
    chosen = {"gigachat_cert_file": certificate, "gigachat_key_file": key, "gigachat_ca_bundle_file": authority.root}
    secure.state.faults.add({"kind": "status", "status": 401})
    with pytest.raises(CredentialRefused, match="GIGACHAT_CERT_FILE"):
        await account(secure.url, gigachat_mtls_auth=True, **chosen).request_api(chat())
    assert len(secure.state.calls.to(CHAT)) == 1


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"gigachat_cert_file": "client.pem", "gigachat_key_file": "server.key"}, "GIGACHAT_KEY_FILE does not hold"),
        ({"gigachat_cert_file": "client.pem"}, "GIGACHAT_KEY_FILE must hold"),
        ({"gigachat_cert_file": "garbage", "gigachat_key_file": "server.key"}, "GIGACHAT_CERT_FILE and .+ must hold"),
        (
            {"gigachat_cert_file": "sealed.pem", "gigachat_key_file": "sealed.key"},
            "GIGACHAT_KEY_FILE is encrypted: put",
        ),
        (
            {
                "gigachat_cert_file": "sealed.pem",
                "gigachat_key_file": "sealed.key",
                "gigachat_key_file_password": "wrong",
            },
            "GIGACHAT_KEY_FILE_PASSWORD does not open the key",
        ),
        ({"gigachat_key_file": "server.key"}, "without GIGACHAT_CERT_FILE"),
        ({"gigachat_ca_bundle_file": "garbage"}, "GIGACHAT_CA_BUNDLE_FILE"),
    ],
)
def test_files_of_no_use(choose, authority, chosen, words):
    """A file that cannot be used is told at start by the name of its setting, and no password is asked for."""
    authority.issue("server")
    authority.issue("client")
    authority.issue("sealed", password="open sesame")
    (authority.folder / "garbage").write_text("not a certificate")
    files = {name: authority.folder / value if name.endswith("file") else value for name, value in chosen.items()}
    with pytest.raises(SettingsError, match=words):
        Account(choose(OWN, **files)).startup()
