"""Who sent a request: the name of its key, else its address; and what it asks of the line in its headers."""

import hmac
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

from proxy import passes
from proxy.errors import BadRequest, KeyRefused, Unauthorized

Network = IPv4Network | IPv6Network

#: Where client libraries put a key, besides `Authorization: Bearer`.
KEY_HEADERS = ("X-API-Key", "api-key", "x-goog-api-key")


class Callers:
    """Tells callers apart.

    Args:
        keys: name -> key; empty: everybody may call, and the address is the name.
        trusted: proxies whose X-Forwarded-For is believed.
    """

    def __init__(self, keys: Mapping[str, str], trusted: Sequence[Network]) -> None:
        self.keys = keys
        self._trusted = trusted
        self._secret = secrets.token_bytes(32)
        self._names = {self._digest(key.encode()): name for name, key in keys.items()}

    def name(self, request: web.Request) -> str:
        """Raises Unauthorized if keys are configured and the request has neither one nor a pass made of one."""
        if not self.keys:
            return self._address(request)
        given = keys_in(request.headers)
        now = time.time()
        for token in given:
            if name := passes.holder(token, self.keys, now):
                return name
        return self._owner(given)

    def name_by_credentials(self, request: web.Request) -> str:
        """The same for who asks for a pass: only a key will do, in any form of credentials. Raises Unauthorized."""
        if not self.keys:
            return self._address(request)
        told = request.headers
        return self._owner([*passes.keys_in(told.get("Authorization", "")), *keys_in(told)])

    def is_proxy(self, address: str) -> bool:
        """At this address there is a proxy of ours."""
        parsed = parsed_address(address)
        return parsed is not None and any(parsed in network for network in self._trusted)

    def _owner(self, given: Iterable[str]) -> str:
        """Whose key is among these."""
        refusal: type[Unauthorized] = Unauthorized
        for word in given:
            key = as_sent(word)
            # Found by a digest that nobody else can know, the time of the search tells nothing about the keys.
            name = self._names.get(self._digest(key))
            if name is not None and hmac.compare_digest(self.keys[name].encode(), key):
                return name
            refusal = KeyRefused
        raise refusal

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._secret, digest_size=32).digest()

    def _address(self, request: web.Request) -> str:
        """The peer, or the last address in X-Forwarded-For that no trusted proxy of ours has added."""
        address = request.remote or ""
        if not self._trusted:
            return address
        hops = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        while hops and self.is_proxy(address):
            hop = hops.pop().strip()
            if not hop:
                continue
            parsed = parsed_address(hop)
            if parsed is None:
                break  # "unknown": all that is known is which proxy said so
            address = str(parsed)
        return address


def parsed_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as peers and proxies write it: with a port or without, IPv6 in brackets or bare."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # On a socket for both families an IPv4 peer looks like this.
    return getattr(address, "ipv4_mapped", None) or address


def keys_in(headers: Mapping[str, str]) -> list[str]:
    """What may be a key in the headers of a request, in all the forms that client libraries use."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    given = [token] if scheme.lower() == "bearer" else []
    given += [headers[name] for name in KEY_HEADERS if name in headers]
    return [word for word in map(str.strip, given) if word]


def as_sent(text: str) -> bytes:
    """The bytes of a header's text, which need not have been UTF-8."""
    return text.encode(errors="surrogateescape")


def patience_of(headers: Mapping[str, str], longest: float) -> float:
    """Seconds that the request may wait for its answer to begin: X-Request-Timeout, at most RESP_TIMEOUT."""
    told = headers.get("X-Request-Timeout")
    if told is None:
        return longest
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadRequest(
            f'the header X-Request-Timeout must be a number of seconds above 0, not "{told[:40]}"',
            param="X-Request-Timeout",
        )
    return min(seconds, longest)
