"""Who sent a request: the name of its key, else its address; and what it asks of the line in its headers."""

import hmac
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web

from proxy import passes
from proxy.errors import BadRequest, Unauthorized

Network = IPv4Network | IPv6Network


class Callers:
    """Tells callers apart.

    Args:
        keys: name -> key; empty: everybody may call, and the address is the name.
        trusted: proxies whose X-Forwarded-For is believed.
    """

    def __init__(self, keys: Mapping[str, str], trusted: Sequence[Network]) -> None:
        self.keys = keys
        self._trusted = trusted

    def name(self, request: web.Request) -> str:
        """Raises Unauthorized if keys are configured and the request has neither one nor a pass made of one."""
        given = key_of(request.headers)
        return passes.holder(given, self.keys, time.time()) or self.name_of_any(request, [given])

    def name_of_any(self, request: web.Request, given: Sequence[str]) -> str:
        """The caller of whom one of these is the key. Raises Unauthorized."""
        if not self.keys:
            return self._address(request)
        # Every key is compared, so that the time tells nothing about where a match was found.
        matches = [
            name
            for name, key in self.keys.items()
            for candidate in given
            if hmac.compare_digest(key.encode(), candidate.encode())
        ]
        if not matches:
            raise Unauthorized
        return matches[0]

    def _address(self, request: web.Request) -> str:
        """The peer, or the last address in X-Forwarded-For that no trusted proxy of ours has added."""
        address = request.remote or ""
        hops = [hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")]
        while hops and hops[-1] and self._is_trusted(address):
            address = hops.pop()
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)


def key_of(headers: Mapping[str, str]) -> str:
    """The key in any of the forms that client libraries use; "" if there is none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    for name in ("X-API-Key", "api-key", "x-goog-api-key"):
        if headers.get(name):
            return headers[name].strip()
    return ""


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
