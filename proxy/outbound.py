"""Which HTTP proxy stands on the way out to an address, and what it is told.

Rule 1: OUTBOUND_PROXY is for every address. HTTPS_PROXY, which is meant for all programs of a machine, counts if that
        is unset, for https:// addresses that NO_PROXY does not name.
Rule 2: this machine's own addresses are called directly, and so is the built-in emulator.
Rule 3: user and password go into a header for the proxy alone; no address that may be logged or told has them.
"""

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address, ip_network

import aiohttp
from pydantic import SecretStr
from yarl import URL

from proxy.browsers import is_loopback
from proxy.errors import CredentialRefused, UpstreamError
from proxy.settings import Settings


@dataclass(frozen=True, slots=True)
class Hop:
    """A proxy on the way out: the setting that names it, its bare address, and the header that opens it."""

    setting: str
    url: URL
    headers: Mapping[str, str] = field(repr=False)

    def refusal(self, status: int) -> UpstreamError:
        """The error to raise if it answers a call itself, with this status."""
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            # None of the errors that are tried again: whoever repeats a wrong password is soon locked out.
            return CredentialRefused(
                "the proxy on the way out wants another user and password: "
                f"check {self.setting}=http://user:password@host:port",
                status=status,
            )
        return self._failure(f"the proxy on the way out lets no call pass ({status})")

    def trouble(self, error: BaseException) -> UpstreamError | None:
        """The error to raise for one of the client's; None if it has nothing to do with this proxy."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return self.refusal(error.status)
        if isinstance(error, aiohttp.ClientConnectorError) and self._is_at(error.host, error.port):
            return self._failure("no connection to the proxy on the way out could be opened")
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._failure("no connection could be opened through the proxy on the way out")
        return None

    def _is_at(self, host: str, port: int | None) -> bool:
        return (host, port) == (self.url.raw_host, self.url.port)

    def _failure(self, what: str) -> UpstreamError:
        return UpstreamError(None, message=f"{what}: check {self.setting}")


class Outbound:
    """Chooses the proxy of a URL, for `proxy.upstream.Upstream`."""

    def __init__(self, chosen: Settings) -> None:
        self._for_all = hop("OUTBOUND_PROXY", chosen.outbound_proxy)
        self._for_https = hop("HTTPS_PROXY", chosen.https_proxy)
        self._direct = chosen.no_proxy

    def __call__(self, url: URL) -> Hop | None:
        """None: it is called directly."""
        if (self._for_all or self._for_https) is None or is_this_machine(url.host or ""):
            return None
        if self._for_all is not None:
            return self._for_all
        if url.scheme != "https" or any(names(entry, url) for entry in self._direct):
            return None
        return self._for_https


def hop(setting: str, address: SecretStr | None) -> Hop | None:
    if address is None:
        return None
    url = URL(address.get_secret_value())
    if url.user is None and url.password is None:
        return Hop(setting, url, {})
    secret = b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
    return Hop(setting, url.with_user(None), {"Proxy-Authorization": f"Basic {secret}"})


def is_this_machine(host: str) -> bool:
    return is_loopback(host) or host.endswith(".localhost")


def names(entry: str, url: URL) -> bool:
    """Whether an entry of NO_PROXY means this address: `*`, a network, or a host (with a port) and those under it."""
    host = url.host or ""
    with suppress(ValueError):
        return ip_address(host) in ip_network(entry, strict=False)
    name = entry.removeprefix("*").lstrip(".")
    return entry == "*" or any(f".{target}".endswith(f".{name}") for target in (host, f"{host}:{url.port}") if name)
