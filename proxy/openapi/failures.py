"""The failures of the family as a description tells them: by status, with their codes and remedies, in each dialect."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from proxy import errors
from proxy.errors import ProxyError
from proxy.openapi import told
from proxy.openapi.headers import answer_headers, raw_headers

Status = int | str
JSON: Final = "application/json"

#: The API's own refusals, which come as they are.
THEIRS: Final = "4XX"
#: Of those whose status is a question: what they answer.
ASKED: Final[Mapping[type[ProxyError], tuple[Status, ...]]] = {
    errors.UpstreamError: (THEIRS, 502, 503, 504),
    errors.CredentialRefused: (502,),
    errors.PassedRefused: (401,),
    errors.UpstreamTimeout: (504,),
}
#: Where the API may say the same in its own words.
RAW: Final = "api"
#: As failures are told in each dialect.
DIALECTS: Final[Mapping[str, type[BaseModel]]] = {
    "native": told.NativeFailure,
    "gigachat": told.GigaChatFailure,
    RAW: told.GigaChatFailure,
    "language-model-chat": told.LanguageModelChatFailure,
    "token": told.TokenFailure,
    "openai": told.OpenAIFailure,
}


class Failure(NamedTuple):
    """One kind of failure."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"`{self.code}`: {self.text}"


def family(root: type[ProxyError] = ProxyError) -> Iterator[type[ProxyError]]:
    yield root
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield from family(kind)


def statuses_of(kind: type[ProxyError]) -> tuple[Status, ...]:
    return ASKED.get(kind, (kind.status,))


def by_status() -> dict[Status, list[Failure]]:
    """All of them."""
    found: defaultdict[Status, list[Failure]] = defaultdict(list)
    for kind in family():
        text = "A bug of ours; the log tells more." if kind is ProxyError else sentence(kind)
        for status in statuses_of(kind):
            found[status].append(Failure(kind.code, text))
    return dict(found)


def sentence(kind: type[ProxyError]) -> str:
    """What its docstring begins with."""
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).split(" `", 1)[0]


FAILURES: Final = by_status()


def name_of(dialect: str, status: Status) -> str:
    """Of its component."""
    return f"{dialect}-{status}"


def components() -> dict[str, Any]:
    """All failures in all dialects."""
    return {
        name_of(dialect, status): response(dialect, status, failures)
        for dialect in DIALECTS
        for status, failures in FAILURES.items()
    }


def response(dialect: str, status: Status, failures: list[Failure]) -> dict[str, Any]:
    ours = {"$ref": f"#/components/schemas/{DIALECTS[dialect].__name__}"}
    theirs = {"description": "The API's own."}
    return {
        "description": "\n".join(f"- {failure}" for failure in failures),
        "headers": raw_headers() if dialect == RAW else answer_headers(status),
        "content": {"*/*": {"schema": {"anyOf": [ours, theirs]}}} if dialect == RAW else {JSON: {"schema": ours}},
    }
