"""Access tokens: issued, checked, expired."""

from __future__ import annotations

import base64
import os
import time
from collections import deque
from dataclasses import dataclass

from emulator.errors import ApiError

# The real token is an encrypted JWT of about 1.2 kB.
HEADER = base64.urlsafe_b64encode(b'{"cty":"jwt","enc":"A256CBC-HS512","alg":"RSA-OAEP-256"}').decode().rstrip("=")
TOKEN_BYTES = 840
MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """A token and whose it is. `expires_at` is unix time in seconds."""

    text: str
    account: str
    expires_at: float

    @property
    def expires_at_ms(self) -> int:
        return int(self.expires_at * 1000)


class Tokens:
    """The tokens issued and not forgotten; an expired one is told from an unknown one."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._expired: deque[str] = deque(maxlen=MAX_TOKENS)
        self.requests: deque[int] = deque(maxlen=1000)
        self.request_count = 0

    def issue(self, account: str, ttl: float) -> Token:
        text = f"{HEADER}.{base64.urlsafe_b64encode(os.urandom(TOKEN_BYTES)).decode()}"
        token = Token(text, account, time.time() + ttl)
        self._tokens[text] = token
        if len(self._tokens) > MAX_TOKENS:
            self.expire(next(iter(self._tokens)))
        return token

    def account(self, text: str) -> str:
        """Whose token it is. Raises the API's 401 if it is unknown or expired."""
        token = self._tokens.get(text)
        if token is None:
            raise ApiError(401, "Token has expired" if text in self._expired else "")
        if token.expires_at <= time.time():
            self.expire(text)
            raise ApiError(401, "Token has expired")
        return token.account

    def expire(self, text: str) -> None:
        if self._tokens.pop(text, None):
            self._expired.append(text)

    def expire_all(self) -> None:
        """From now on every token is answered 401 `Token has expired`."""
        for text in list(self._tokens):
            self.expire(text)

    def live(self) -> int:
        now = time.time()
        return sum(token.expires_at > now for token in self._tokens.values())

    def count_request(self, arrived_ns: int, rate: int) -> None:
        """Raises 429 when `rate` requests have come within the last second already."""
        self.request_count += 1
        recent = sum(arrived_ns - then < 10**9 for then in self.requests)
        if rate and recent >= rate:
            raise ApiError(429)
        self.requests.append(arrived_ns)
