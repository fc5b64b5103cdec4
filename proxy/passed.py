"""Credentials that callers bring along for accounts of their own (GPT2GIGA_PASS_TOKEN): how they are written.

| in Authorization, with `Bearer` or without  | way      |
|---------------------------------------------|----------|
| giga-cred-<authorization key>[:<scope>]     | key      |
| giga-user-<user>:<password>                 | password |
| giga-auth-<access token>                    | token    |
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, Literal

from proxy.errors import PassedMalformed

Way = Literal["key", "password", "token"]

#: What a key is for that names no scope.
USUAL_SCOPE: Final = "GIGACHAT_API_PERS"
SCOPES: Final = (USUAL_SCOPE, "GIGACHAT_API_B2B", "GIGACHAT_API_CORP")
#: Characters of the longest scope that a token request may name; whether there is such a one the API knows.
LONGEST_SCOPE: Final = 100
#: What can stand in a header of ours: no space, no line break, Latin letters.
PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class PassedCredential:
    """A credential of a caller's own. `secret` is the key, the token or the password; `user` goes with a password."""

    way: Way
    secret: str = field(repr=False)
    user: str = field(default="", repr=False)
    scope: str = USUAL_SCOPE

    def fingerprint(self, salt: bytes) -> str:
        """A name for it: the same for the same credential and salt, and it tells nobody else anything."""
        told = "\n".join((self.way, self.user, self.scope, self.secret))
        return blake2b(told.encode(errors="surrogateescape"), key=salt, digest_size=16).hexdigest()


def credential_in(authorization: str) -> PassedCredential | None:
    """The credential that an Authorization header names by its prefix; None if it names none.

    Raises PassedMalformed for one that cannot be right.
    """
    word = word_in(authorization)
    for prefix, read in (("giga-cred-", of_key), ("giga-user-", of_password), ("giga-auth-", of_token)):
        if word.startswith(prefix):
            return read(word.removeprefix(prefix))
    return None


def word_in(authorization: str) -> str:
    """What is in an Authorization header, with `Bearer` or without."""
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else authorization.strip()


def of_key(text: str, scope: str = "") -> PassedCredential:
    key, colon, told = text.partition(":")
    scope = told if colon else scope or USUAL_SCOPE
    if not PRINTABLE.fullmatch(key):
        raise PassedMalformed("giga-cred- is followed by the authorization key: giga-cred-<key>[:<scope>]")
    if scope not in SCOPES:
        raise PassedMalformed(f"the scope of giga-cred-<key>:<scope> must be one of {', '.join(SCOPES)}")
    return PassedCredential("key", key, scope=scope)


def of_password(text: str) -> PassedCredential:
    user, _, password = text.partition(":")
    if not user or not password:
        raise PassedMalformed("giga-user- is followed by the user and the password: giga-user-<user>:<password>")
    return PassedCredential("password", password, user)


def of_token(text: str) -> PassedCredential:
    if not PRINTABLE.fullmatch(text):
        raise PassedMalformed("giga-auth- is followed by the access token: giga-auth-<token>")
    return PassedCredential("token", text)


def credential_for_token(authorization: str, scope: str, *, is_password: bool) -> PassedCredential | None:
    """The credential with which a client of the API asks for a token: `Basic <key>`, `Basic base64(user:password)`.

    None if there is none. Raises PassedMalformed.
    """
    if (named := credential_in(authorization)) is not None:
        if named.way == "token":  # nobody asks the API about it here, so it proves nothing
            raise PassedMalformed("giga-auth- brings an access token: send it with your calls, and ask for none")
        return named
    given = authorization.strip().partition(" ")[2].strip()
    if not given:
        return None
    if is_password:
        return of_password(plain(given))
    if not PRINTABLE.fullmatch(given):
        raise PassedMalformed("the authorization key cannot have a space in it")
    if len(scope) > LONGEST_SCOPE:
        raise PassedMalformed(f"the scope must be one of {', '.join(SCOPES)}")
    return PassedCredential("key", given, scope=scope or USUAL_SCOPE)


def may_be_theirs(credential: PassedCredential) -> bool:
    """Whether the API can have given it out: its authorization keys are texts in base64, what people make up is not."""
    if credential.way != "key":
        return True
    text = plain(credential.secret)
    return text != "" and text.isprintable()


def plain(encoded: str) -> str:
    try:
        return b64decode(encoded, validate=True).decode(errors="surrogateescape")
    except (NotBase64, ValueError):
        return ""
