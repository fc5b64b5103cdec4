"""Hosts that callers may make us call: those whose addresses are public. For downloads of what they name, for webhooks.

Rule 1: a host is checked where its connection is opened, so redirects and whoever forgets to ask are checked too.
Rule 2: a name is looked up once, all its addresses are checked, and the connection goes to one of those very addresses:
        a name that leads elsewhere a moment later gains nothing.
Rule 3: a host that has no public address and one that does not exist look alike from outside.
"""

import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.threads import in_thread

Address = IPv4Address | IPv6Address
#: The addresses of a name. Raises OSError if there are none.
Lookup = Callable[[str], Awaitable[list[str]]]

#: Where IPv6 is given out to hosts of the internet. What lies outside is local, multicast, or leads to IPv4.
GLOBAL_UNICAST = IPv6Network("2000::/3")
#: Prefixes whose last 32 bits are an IPv4 address, which is what counts: mapped ones, and those that NAT64 makes.
EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
#: What `is_global` takes for public, in one release of Python or the other, and what is a cloud's own.
NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # of protocols; clouds keep services there
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # the platform below each machine of one cloud
            "224.0.0.0/4",  # multicast
            "2001::/23",  # of protocols; Teredo
            "2002::/16",  # 6to4, which leads to any IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)


class NotPublic(aiohttp.ClientError):
    """The host has no address, or has one that is not public."""


class PublicHosts(AbstractResolver):
    """Looks up hosts, and refuses those that are not public.

    Args:
        allowed: what is let through all the same: networks, names with those under them, or `*` for all.
        lookup: unless given, the system's own.
    """

    def __init__(self, allowed: Iterable[str] = (), lookup: Lookup | None = None) -> None:
        self._allowed = tuple(allowed)
        self._lookup = lookup or addresses_of

    def connector(self) -> "PublicConnector":
        """A pool of connections to such hosts alone. Made within a running loop, closed by its session."""
        return PublicConnector(self)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            found = await self._lookup(host)
        except (OSError, ValueError):  # ValueError: it is no name at all
            found = []
        if not found:
            raise NotPublic(f"{host} has no address")
        return [as_result(host, self._checked(host, text), port) for text in found]

    async def close(self) -> None: ...

    def check_address(self, host: str) -> None:
        """Raises NotPublic for a host that is an address, and no public one; nobody is asked to resolve those."""
        if ":" in host or host.replace(".", "").isdigit():
            self._checked(host, host)

    def _checked(self, host: str, text: str) -> Address:
        try:
            address = ip_address(text)
        except ValueError:  # 2130706433, 017700000001: an address to the system, and written to deceive
            raise NotPublic(f"{host} is not how an address is written") from None
        meant = plain(address)
        if is_public(meant) or any(covers(entry, host, meant) for entry in self._allowed):
            return address
        raise NotPublic(f"{host} leads to {address}, which is not public")


class PublicConnector(aiohttp.TCPConnector):
    """Connections to public hosts. None is used again, as the next request may be another caller's."""

    def __init__(self, hosts: PublicHosts) -> None:
        super().__init__(resolver=hosts, use_dns_cache=False, force_close=True, limit=0)
        self._hosts = hosts

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        self._hosts.check_address(req.url.raw_host or "")
        return await super().connect(req, traces, timeout)


async def addresses_of(host: str) -> list[str]:
    """What the system knows of a name; numbers are read as its C library reads them."""
    # A thread of its own: names that nobody answers for must not hold up the API's.
    found = await in_thread(socket.getaddrinfo, host, None, 0, socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, or itself."""
    if isinstance(address, IPv6Address) and any(address in network for network in EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    if any(address in network for network in NOT_PUBLIC) or not address.is_global:
        return False
    return address.version == 4 or address in GLOBAL_UNICAST


def covers(entry: str, host: str, address: Address) -> bool:
    """Whether an entry means this address, or this host by its name."""
    with suppress(ValueError):
        return address in ip_network(entry, strict=False)
    name = entry.removeprefix("*").lstrip(".")
    return entry == "*" or (bool(name) and f".{host.rstrip('.')}".endswith(f".{name}"))


def as_result(host: str, address: Address, port: int) -> ResolveResult:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=str(address), port=port, family=family, proto=0, flags=flags)
