"""Who may look behind the counter and change things there: the operator.

Rule 1: the operator has ADMIN_API_KEY. Only where nobody is asked for any key, and nobody but this machine reaches us,
        whoever calls directly is taken for the operator.
Rule 2: keys are compared in constant time, and who has a wrong one is told so late. Those are counted: beyond MOST they
        are told at once, so that they fill no memory.
Rule 3: what came through a proxy is not this machine's own, whatever its address; nor is what a browser was led to by
        a stranger's name.
"""

import hmac
import secrets
from hashlib import blake2b

from aiohttp import web

from proxy.browsers import LOCAL_NAMES, is_loopback, name_of
from proxy.callers import Callers, as_sent, keys_in, parsed_address
from proxy.clock import Clock
from proxy.entry import NOTE
from proxy.errors import KeyRefused, Unauthorized
from proxy.heartbeat import BETWEEN

#: Seconds after which a wrong key is told so, and how many may wait for that at once.
PAUSE = 1.0
MOST = 100
#: The operator, as requests are told of in the journal.
OPERATOR = "operator"

WANTED = 'the operator\'s key is needed: send ADMIN_API_KEY as "Authorization: Bearer <key>" or "X-API-Key: <key>"'
UNSET = "this is the operator's, and there is no key for it: set ADMIN_API_KEY, then send it as a Bearer or X-API-Key"
WRONG = "this is not the operator's key, which is needed here (ADMIN_API_KEY)"


class Admins:
    """Tells operators from others.

    Args:
        key: ADMIN_API_KEY; None: there is none.
        host: the address that the service listens on.
    """

    def __init__(self, key: str | None, callers: Callers, host: str, *, clock: Clock | None = None) -> None:
        self._salt = secrets.token_bytes(32)
        self._key = None if key is None else self._digest(key.encode())
        self._callers = callers
        self._is_bound_here = is_loopback(host)
        self._clock = clock or Clock()
        self._refusing = 0

    async def check(self, request: web.Request) -> None:
        """It is the operator's. Raises Unauthorized, KeyRefused."""
        given = keys_in(request.headers)
        if not self._is_operators(request, given):
            if self._key is not None and given:
                await self._refuse(KeyRefused(WRONG))
            raise Unauthorized(UNSET if self._key is None else WANTED)
        request[NOTE].caller = OPERATOR

    async def is_operators(self, request: web.Request) -> bool:
        """Whether it is the operator's. Else it is a caller's, and its note says whose. Raises Unauthorized."""
        note, given = request[NOTE], keys_in(request.headers)
        if self._is_operators(request, given):
            note.caller = OPERATOR
            return True
        try:
            note.caller, note.credential = self._callers.identify(request, is_raw=False)
            if given and self._key is not None and not self._callers.keys and note.credential is None:
                raise KeyRefused(WRONG)
        except KeyRefused as refusal:
            await self._refuse(refusal)
        return False

    def has_key(self, request: web.Request) -> bool:
        """Whether it brought the operator's key."""
        return self._is_key(keys_in(request.headers))

    async def check_reader(self, request: web.Request) -> None:
        """It may see numbers: whoever has a key, the operator's or a caller's, and this machine without one.

        Raises Unauthorized, KeyRefused.
        """
        given = keys_in(request.headers)
        if self._is_key(given):
            request[NOTE].caller = OPERATOR
        elif given and self._callers.keys:
            try:
                request[NOTE].caller = self._callers.name(request)
            except KeyRefused as refusal:
                await self._refuse(refusal)
        elif given and self._key is not None:
            await self._refuse(KeyRefused(WRONG))
        elif not self.is_local(request):
            raise Unauthorized if self._callers.keys else Unauthorized(UNSET if self._key is None else WANTED)

    def is_local(self, request: web.Request) -> bool:
        """It was sent on this machine, to this machine, and nothing passed it on."""
        peer, told = request.remote or "", request.headers
        if not is_here(peer) or self._callers.is_proxy(peer):
            return False
        host = name_of(told.get("Host", ""))
        # Before 1.29.7 nginx leaves no other trace than this, as it is out of the box.
        is_passed_on = BETWEEN.search("\n".join(told).lower()) or told.get("Connection", "").lower() == "close"
        return not is_passed_on and (host in LOCAL_NAMES or is_here(host))

    def _is_operators(self, request: web.Request, given: list[str]) -> bool:
        """By its key; where nobody is asked for any, by where it comes from."""
        if self._key is not None or self._callers.keys:
            return self._is_key(given)
        return self._is_bound_here and self.is_local(request)

    def _is_key(self, given: list[str]) -> bool:
        if self._key is None:
            return False
        alike = [hmac.compare_digest(self._digest(as_sent(word)), self._key) for word in given]
        return any(alike)

    def _digest(self, key: bytes) -> bytes:
        return blake2b(key, key=self._salt, digest_size=32).digest()

    async def _refuse(self, refusal: Unauthorized) -> None:
        """Raises it, after a pause if there are not too many already."""
        if self._refusing < MOST:
            self._refusing += 1
            try:
                await self._clock.until(self._clock.now() + PAUSE)
            finally:
                self._refusing -= 1
        raise refusal


def is_here(address: str) -> bool:
    """It is one of this machine to itself."""
    parsed = parsed_address(address)
    return parsed is not None and parsed.is_loopback
