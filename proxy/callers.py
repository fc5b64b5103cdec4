"""Who sent a request: the name of its key, else its address; the credential that it brought along, if callers may;
and what it asks of the line in its headers."""

import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

from proxy import passes
from proxy.errors import BadRequest, KeyRefused, PassingOff, Unauthorized
from proxy.passed import PassedCredential, credential_for_token, credential_in, may_be_theirs, word_in

Network = IPv4Network | IPv6Network

HasIssued = Callable[[PassedCredential], bool]

#: Where client libraries put a key, besides `Authorization: Bearer`.
KEY_HEADERS = ("X-API-Key", "api-key", "x-goog-api-key")


class Callers:
    """Tells callers apart.

    Args:
        keys: name -> key; empty: everybody may call, and the address is the name.
        trusted: proxies whose X-Forwarded-For is believed.
        has_issued: tells an access token of the API that this service gave out; None: callers may not bring
            credentials of their own.
    """

    def __init__(
        self, keys: Mapping[str, str], trusted: Sequence[Network], *, has_issued: HasIssued | None = None
    ) -> None:
        self.keys = keys
        self._has_issued = has_issued
        self._trusted = trusted
        self._secret = secrets.token_bytes(32)
        self._names = {self._digest(key.encode()): name for name, key in keys.items()}

    def name(self, request: web.Request) -> str:
        """Raises Unauthorized if keys are configured and the request has neither one nor a pass made of one."""
        if not self.keys:
            return self.address(request)
        given = keys_in(request.headers)
        now = time.time()
        for token in given:
            if name := passes.holder(token, self.keys, now):
                return name
        return self._owner(given)

    def identify(self, request: web.Request, *, is_raw: bool) -> tuple[str, PassedCredential | None]:
        """The caller's name, and the credential that it brought along.

        `is_raw` says that it calls the API's own path, where any Bearer that is not of ours is the API's own.
        Raises Unauthorized.
        """
        authorization = request.headers.get("Authorization", "")
        brought = credential_in(authorization)
        if self._has_issued is None:
            if brought is not None:
                raise PassingOff
            return self.name(request), None
        if brought is not None:
            return self._name_beside(request), brought
        if not word_in(authorization) or self._is_ours(authorization):
            return self.name(request), None
        # Whoever sends anything else means some account, and it is not ours to spend.
        if not is_raw or not is_bearer(authorization):
            raise KeyRefused
        brought = PassedCredential("token", word_in(authorization))
        # Whoever got it here has shown the API a credential, and its client may have no place for a key.
        return (self.address(request) if self._has_issued(brought) else self._name_beside(request)), brought

    def identify_for_token(self, request: web.Request, scope: str) -> tuple[str, PassedCredential | None]:
        """The same for who asks for a token: by a key in any form of credentials, or by a credential of the API's.

        Raises Unauthorized.
        """
        told = request.headers
        authorization = told.get("Authorization", "")
        key = next((name for word in passes.keys_in(authorization) if (name := self._named(word))), None)
        if key is None and authorization and self._has_issued is not None:
            is_password = not request.path.rstrip("/").endswith("/oauth")
            brought = credential_for_token(authorization, scope, is_password=is_password)
            if self.keys and brought is not None and not may_be_theirs(brought):
                raise KeyRefused  # misspelt perhaps, and nobody else's to read
            return self.address(request), brought
        if not self.keys:
            return self.address(request), None
        return key or self._owner([*keys_in(told), *passes.keys_in(authorization)]), None

    def _is_ours(self, authorization: str) -> bool:
        """A key, or a pass; without keys any pass will do."""
        word = word_in(authorization)
        if not self.keys:
            return word.startswith(passes.PREFIX)
        return passes.holder(word, self.keys, time.time()) is not None or self._named(word) is not None

    def _name_beside(self, request: web.Request) -> str:
        """Who calls with a credential of its own in Authorization: its key, if keys are asked for, is beside it."""
        beside = [request.headers[name].strip() for name in KEY_HEADERS if name in request.headers]
        return self._owner(beside) if self.keys else self.address(request)

    def is_proxy(self, address: str) -> bool:
        """At this address there is a proxy of ours."""
        parsed = parsed_address(address)
        return parsed is not None and any(parsed in network for network in self._trusted)

    def _owner(self, given: Iterable[str]) -> str:
        """Whose key is among these."""
        refusal: type[Unauthorized] = Unauthorized
        for word in given:
            if (name := self._named(word)) is not None:
                return name
            refusal = KeyRefused
        raise refusal

    def _named(self, word: str) -> str | None:
        """Whose key this is."""
        key = as_sent(word)
        # Found by a digest that nobody else can know, the time of the search tells nothing about the keys.
        name = self._names.get(self._digest(key))
        return name if name is not None and hmac.compare_digest(self.keys[name].encode(), key) else None

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._secret, digest_size=32).digest()

    def address(self, request: web.Request) -> str:
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


def is_bearer(authorization: str) -> bool:
    return authorization.strip().lower().startswith("bearer ")


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
