"""An access token: kept, renewed ahead of its end, given up when it is refused. No I/O: it is told how to ask.

Rule 1: one request for a token at a time, however many wait for it.
Rule 2: while the old token is valid it serves; renewing it makes nobody wait.
Rule 3: a refusal gives up only the token that was refused, not one that has replaced it since.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from proxy.clock import Clock
from proxy.errors import CredentialRefused, UpstreamError
from proxy.once import Once

logger = logging.getLogger(__name__)

#: Seconds ahead of a token's end at which it is renewed; never more than half of its life.
AHEAD = 60.0
#: Seconds after a failed renewal, or after a refused credential, in which nobody asks again.
PAUSE = 5.0
#: Seconds that the API's tokens live; taken when an answer does not say, or our clock makes nonsense of it.
USUAL_LIFE = 30 * 60.0
#: Unix times above this are milliseconds: in seconds it is the year 5138, in milliseconds 1973.
MILLISECONDS_FROM = 1e11


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and its `life`: seconds from its issue to its end, None if that is not known."""

    text: str = field(repr=False)
    life: float | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.text}"}


class NoToken(Token):
    """For an account that the upstream knows by other means, its client certificate."""

    def __init__(self) -> None:
        super().__init__("")

    @property
    def headers(self) -> Mapping[str, str]:
        return {}


def read_token(answer: Mapping[str, object]) -> Token:
    """The token in `{"access_token", "expires_at"}` or `{"tok", "exp"}`; the end is unix time, in ms or seconds.

    Raises UpstreamError if there is none.
    """
    text, end = answer.get("access_token"), answer.get("expires_at")
    if text is None:
        text, end = answer.get("tok"), answer.get("exp")
    if not isinstance(text, str) or not text:
        raise UpstreamError(None, message="the upstream's answer to a token request has no token in it")
    if isinstance(end, bool) or not isinstance(end, int | float):
        return Token(text, USUAL_LIFE)
    life = (end / 1000 if end > MILLISECONDS_FROM else end) - time.time()
    if life <= 0:
        logger.warning("a new access token seems to have expired %.0f s ago: one of the two clocks is wrong", -life)
        life = USUAL_LIFE
    return Token(text, life)


class Tokens:
    """The current token of one account.

    Args:
        ask: gets a new token. None: there is only the one that was given.
        token: a token to begin with.
        pause: seconds after a refusal in which nobody asks again.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[Token]] | None,
        token: Token | None = None,
        clock: Clock | None = None,
        *,
        pause: float = PAUSE,
    ) -> None:
        if ask is None and token is None:
            raise ValueError("either a token or a way to get one is needed")
        self._ask = ask
        self._clock = clock or Clock()
        self._renewal = Once(self._renew, clock=self._clock, memory=partial(_pause_after, pause))
        self._token = token
        self._ends = self._renew_at = float("inf")

    def __repr__(self) -> str:
        if self._token is None:
            return "<Tokens: none>"
        left = self._ends - self._clock.now()
        return "<Tokens: lasting>" if left == float("inf") else f"<Tokens: valid for {left:.0f} s>"

    async def fresh(self) -> tuple[Token, float]:
        """A token to give away, and the seconds that it lasts: it is not about to be renewed. Raises as `get`."""
        token, now = self._token, self._clock.now()
        if token is None or (now >= self._renew_at and self._ask is not None):
            token = await self._renewal()
        return token, self._ends - self._clock.now()

    async def get(self) -> Token:
        """A valid token. Raises CredentialRefused, or UpstreamError if it cannot be got just now."""
        token, now = self._token, self._clock.now()
        if token is None or now >= self._ends:
            return await self._renewal()
        if now >= self._renew_at:
            self._renewal.start()
        return token

    def give_up(self, refused: Token) -> bool:
        """Never give out this token again. False if no other can be got in its place."""
        if self._ask is None:
            return False
        if self._token is refused:
            self._token = None
        return True

    async def close(self) -> None:
        await self._renewal.close()

    async def _renew(self) -> Token:
        assert self._ask is not None  # else the token that was given has no end and is not given up
        try:
            token = await self._ask()
        except UpstreamError as error:
            self._renew_at = self._clock.now() + PAUSE
            logger.warning("no new access token: %s", error, extra={"action": "token_failed"})
            raise
        life = USUAL_LIFE if token.life is None else token.life
        self._token = token
        self._ends = self._clock.now() + life
        self._renew_at = self._ends - min(AHEAD, life / 2)
        logger.debug("a new access token, valid for %.0f s", life, extra={"action": "token_renewed"})
        return token


def _pause_after(pause: float, error: BaseException | None) -> float:
    """A wrong credential stays wrong: the API's ten token requests a second are not spent on it."""
    return pause if isinstance(error, CredentialRefused) else 0.0
