"""Which certificates are trusted for which host, and which one is shown to it.

Rule 1: the Russian Trusted Root CA is trusted for the API's own hosts and for no other: it is a state's authority and
        names no limits to itself. Its file is compared with the pinned digest whenever it is read.
Rule 2: the operator's own roots, the client certificate and the wish not to verify hold for the configured hosts only.
Rule 3: a context is made once; a file that is of no use is told at start, by the name of its setting.
"""

import hashlib
import ssl
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from yarl import URL

from proxy.settings import ASSETS, Settings, SettingsError

API_DOMAINS: Final = ("giga.chat", "sberbank.ru")
RUSSIAN_ROOT: Final = ASSETS / "certificates" / "russian_trusted_root_ca.pem"
# Of the DER form. More than ten unrelated public projects pin the same value.
RUSSIAN_ROOT_SHA256: Final = "d26d2d0231b7c39f92cc738512ba54103519e4405d68b5bd703e9788ca8ecf31"


class Tls:
    """Chooses the TLS context of a URL, for `proxy.upstream.Upstream`."""

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self._configured = {URL(chosen.gigachat_base).host, URL(chosen.gigachat_auth_url).host}
        self._contexts: dict[tuple[bool, bool], ssl.SSLContext] = {}

    def __call__(self, url: URL) -> ssl.SSLContext | bool:
        """Raises SettingsError if a file that it takes is of no use."""
        if url.scheme != "https":
            return True
        kind = (url.host in self._configured, is_api_host(url.host or ""))
        if kind not in self._contexts:
            self._contexts[kind] = self._make(*kind)
        return self._contexts[kind]

    def check(self) -> None:
        """Make the contexts of the configured hosts now. Raises SettingsError."""
        for address in (self._chosen.gigachat_base, self._chosen.gigachat_auth_url):
            self(URL(address))

    def _make(self, is_configured: bool, is_api: bool) -> ssl.SSLContext:
        bundle = self._chosen.gigachat_ca_bundle_file if is_configured else None
        context = with_roots_of(bundle) if bundle else ssl.create_default_context()
        if is_api and not bundle:
            context.load_verify_locations(cadata=russian_root())
        if is_configured:
            self._show_certificate(context)
            if not self._chosen.gigachat_verify_ssl_certs:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        chosen = self._chosen
        if chosen.gigachat_cert_file is None:
            if chosen.gigachat_key_file is not None:
                raise SettingsError("GIGACHAT_KEY_FILE is of no use without GIGACHAT_CERT_FILE")
            return
        password = Password(chosen.gigachat_key_file_password)
        try:
            context.load_cert_chain(chosen.gigachat_cert_file, chosen.gigachat_key_file, password)
        except OSError as error:
            raise SettingsError(certificate_trouble(error, password)) from error


class Password:
    """Says the password to OpenSSL, so that it never asks at the terminal; knows whether it was wanted."""

    def __init__(self, secret: SecretStr | None) -> None:
        self.text = secret.get_secret_value() if secret else ""
        self.is_wanted = False

    def __call__(self) -> str:
        self.is_wanted = True
        return self.text


def certificate_trouble(error: OSError, password: Password) -> str:
    """What keeps a client certificate from being used, in the operator's words."""
    if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return "GIGACHAT_KEY_FILE does not hold the key of the certificate in GIGACHAT_CERT_FILE"
    if password.is_wanted and not password.text:
        return "the key in GIGACHAT_KEY_FILE is encrypted: put its password into GIGACHAT_KEY_FILE_PASSWORD"
    if password.is_wanted:
        return "GIGACHAT_KEY_FILE_PASSWORD does not open the key in GIGACHAT_KEY_FILE"
    return (
        "GIGACHAT_CERT_FILE and GIGACHAT_KEY_FILE must hold a client certificate and its key in PEM form "
        f"({error.strerror or error})"
    )


def is_api_host(host: str) -> bool:
    return any(host == domain or host.endswith("." + domain) for domain in API_DOMAINS)


def russian_root(file: Path = RUSSIAN_ROOT) -> bytes:
    """The certificate in DER form. Raises SettingsError if the file is not the genuine one."""
    try:
        certificate = ssl.PEM_cert_to_DER_cert(file.read_text("ascii").strip())
    except (OSError, ValueError):
        certificate = b""
    if hashlib.sha256(certificate).hexdigest() != RUSSIAN_ROOT_SHA256:
        raise SettingsError(
            f"{file} is missing or is not the Russian Trusted Root CA: restore it from the release, "
            "or name roots of your own in GIGACHAT_CA_BUNDLE_FILE"
        )
    return certificate


def with_roots_of(bundle: Path) -> ssl.SSLContext:
    """As the API's own library does it: these roots and no others. Raises SettingsError."""
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise SettingsError(f"GIGACHAT_CA_BUNDLE_FILE={bundle} holds no certificate in PEM form ({error})") from error
