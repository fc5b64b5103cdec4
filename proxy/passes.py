"""Access tokens of the proxy's own making, for clients that insist on asking for one before they call.

A pass names its holder and its end, and is signed with the holder's own key: every replica that knows the key accepts
it, nothing is stored, and it is dead when its key is removed. Without keys nobody is asked for one and any will do.
"""

import hashlib
import hmac
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

from proxy.errors import PassExpired

#: Seconds that a pass lives; the API's own tokens live as long.
LIFETIME = 1800
PREFIX = "gcp-"


def issue(name: str, key: str, now: float) -> tuple[str, int]:
    """A pass for the caller `name`, and its end in Unix milliseconds. `now` is Unix seconds."""
    ends = int((now + LIFETIME) * 1000)
    claim = f"{ends}:{name}"
    return PREFIX + encoded(f"{claim}:{signature(claim, key)}"), ends


def holder(token: str, keys: Mapping[str, str], now: float) -> str | None:
    """The caller whom this pass names; None if it is no pass, forged, or its key is gone. Raises PassExpired."""
    if not token.startswith(PREFIX):
        return None
    claim, _, signed = decoded(token.removeprefix(PREFIX)).rpartition(":")
    ends, _, name = claim.partition(":")
    key = keys.get(name)
    if key is None or not hmac.compare_digest(signed.encode(), signature(claim, key).encode()):
        return None
    if is_over(ends, now):
        raise PassExpired
    return name


def is_over(ends: str, now: float) -> bool:
    """Whoever has the key can sign what is no time, too."""
    try:
        return int(ends) <= now * 1000
    except ValueError:
        return True


def signature(claim: str, key: str) -> str:
    return hmac.new(key.encode(), claim.encode(), hashlib.sha256).hexdigest()


def keys_in(authorization: str) -> list[str]:
    """What may be a key in an Authorization header of a token request, in whatever form clients send one.

    `Basic <key>` and `Bearer <key>` as the SDK sends its credentials, and `Basic base64(name:key)`.
    """
    given = authorization.partition(" ")[2].strip()
    plain = decoded_standard(given)
    return [part for part in (given, plain, plain.partition(":")[2]) if part]


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decoded(text: str) -> str:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (NotBase64, ValueError):
        return ""


def decoded_standard(text: str) -> str:
    try:
        return b64decode(text, validate=True).decode()
    except (NotBase64, ValueError):
        return ""
