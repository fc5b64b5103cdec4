"""Every knob of the emulator: name, default, one sentence. Flags are made from this table, see `__main__`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

SCOPES = ("GIGACHAT_API_PERS", "GIGACHAT_API_B2B", "GIGACHAT_API_CORP")
TARIFFS = ("any", "prepaid", "postpaid")


def knob(default: Any, sentence: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": sentence, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the emulator behaves. Times are seconds; 0 means none.

    Raises:
        ValueError: a value of the wrong type or out of range; the text names the option.
    """

    concurrency: int = knob(0, "generation calls in flight for each account; one more is answered 429")
    interval: float = knob(0.0, "a call sooner than this after the last accepted one is answered 429")
    rpm: float = knob(0.0, "the same as an even rate: 60/RPM seconds between calls")
    pace_tolerance: float = knob(0.001, "how much too early a call may come and still be accepted")
    token_rate: int = knob(0, "token requests a second; one more is answered 429 (the real limit is 10)")
    latency: float = knob(0.0, "time before a plain answer")
    latency_jitter: float = knob(0.0, "up to this much more, at random but the same in every run")
    chunk_delay: float = knob(0.0, "time before each chunk of a stream")
    token_ttl: float = knob(1800.0, "how long an access token lives")
    keepalive: float = knob(15.0, "how long an idle connection stays open")
    credentials: tuple[str, ...] = knob((), "an authorization key to accept; none given: any", metavar="KEY")
    user: str = knob("", "the user name to accept at /token; none given: any")
    password: str = knob("", "the password of that user")
    access_tokens: tuple[str, ...] = knob((), "a token that never expires", flag="access-token", metavar="TOKEN")
    scopes: tuple[str, ...] = knob(SCOPES, "a scope that the keys have; none given: all", flag="scope")
    legacy: bool = knob(True, "serve the names of the old host too: GigaChat, GigaChat-Pro, GigaChat-Max and so on")
    tariff: str = knob("any", "any, prepaid (no batches, no ai/check) or postpaid (no balance)", choices=TARIFFS)
    tls_cert: str = knob("", "serve https with this certificate (PEM file)", metavar="FILE")
    tls_key: str = knob("", "the key of that certificate (PEM file)", metavar="FILE")
    client_ca: str = knob("", "accept client certificates signed by this CA in place of tokens", metavar="FILE")

    def __post_init__(self) -> None:
        for knob in fields(self):
            value = checked(knob, getattr(self, knob.name))
            object.__setattr__(self, knob.name, value)

    @property
    def pace(self) -> float:
        """Seconds that must lie between two accepted calls; 0 means no pacing."""
        return self.interval or (60 / self.rpm if self.rpm else 0.0)

    def changed(self, changes: dict[str, Any]) -> Options:
        """A copy with some values replaced. Raises ValueError for an unknown name or a wrong value."""
        unknown = sorted(changes.keys() - {knob.name for knob in fields(self)})
        if unknown:
            raise ValueError(f"unknown option: {', '.join(unknown)}")
        return replace(self, **changes)


def checked(knob: Field[Any], value: Any) -> Any:
    check, expected = CHECKS[type(knob.default)]
    choices = knob.metadata.get("choices")
    if not check(value) or (choices and value not in choices):
        raise ValueError(f"{knob.name} must be {' or '.join(choices) if choices else expected}, not {value!r}")
    return tuple(value) if isinstance(value, list) else value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def is_count(value: Any) -> bool:
    return is_number(value) and isinstance(value, int)


def is_texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(text, str) and text for text in value)


CHECKS: dict[type, tuple[Callable[[Any], bool], str]] = {
    int: (is_count, "a whole number, 0 or more"),
    float: (is_number, "a number, 0 or more"),
    str: (lambda value: isinstance(value, str), "text"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    tuple: (is_texts, "a list of texts that are not empty"),
}
