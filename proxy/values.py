"""What the value of a setting may be: each kind with how it is read and what is allowed."""

import json
import os
import re
from base64 import b64decode
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, Field, SecretBytes, SecretStr
from yarl import URL

from proxy.knob import Unit

#: What keys of the Standard Webhooks begin with.
WHSEC: Final = "whsec_"
PROXY: Final = re.compile(r"http://([^\s/?#@]*@)?[^\s/?#@]+/?")
#: An address without a password and without a query: it is told where something is wrong with it.
COLLECTOR: Final = re.compile(r"https?://[^\s?#@]+")
#: Where a collector takes traces, under its address.
TRACES: Final = "/v1/traces"
#: A header as the wire takes it.
HEADER: Final = re.compile(r"[\w!#$%&'*+.^`|~-]+=[\x20-\x7e]+", re.ASCII)
SWITCH: Final = dict.fromkeys(("1", "t", "true", "y", "yes"), "on") | dict.fromkeys(
    ("0", "f", "false", "n", "no"), "off"
)


def _pairs(text: str, form: str) -> Iterator[tuple[int, str, str]]:
    """`a:b,c:d` -> (1, a, b), (2, c, d). What it complains of must not repeat a key."""
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, _, value = map(str.strip, entry.partition(":"))
        if not name or not value:
            raise ValueError(f"entry {number} is not {form}")
        yield number, name, value


def _keys(value: object) -> object:
    """`name:key,name2:key2` -> {name: key}."""
    if not isinstance(value, str):
        return value
    keys: dict[str, str] = {}
    for number, name, key in _pairs(value, "name:key"):
        if name in keys or key in keys.values():
            raise ValueError(f"entry {number} repeats a name or a key")
        keys[name] = key
    return keys


def _models(value: object) -> object:
    """`gpt-4o:GigaChat-2-Max,o3:GigaChat-2-Pro`, or the same as an object in JSON -> {name: model}."""
    if not isinstance(value, str):
        return value
    if value.startswith("{"):
        return json.loads(value)
    models: dict[str, str] = {}
    for number, name, model in _pairs(value, "name:model"):
        if name in models:
            raise ValueError(f"entry {number} repeats a name")
        models[name] = model
    return models


def _words(value: object) -> object:
    """`a, b` or, as gpt2giga writes its lists, `["a", "b"]` -> words."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else value.replace(",", " ").split()


def _networks(value: object) -> object:
    """`127.0.0.1, 10.0.0.0/8` -> networks."""
    return tuple(map(ip_network, value.replace(",", " ").split())) if isinstance(value, str) else value


def _origins(value: object) -> object:
    """`https://Chat.Example.org/, *` -> origins as browsers write them."""
    words = _words(value)
    return tuple(_origin(str(word)) for word in words) if isinstance(words, list) else words


def _origin(text: str) -> str:
    if text == "*":
        return text
    try:
        url = URL(text)
        origin = url.origin()
    except ValueError:
        url = origin = URL()
    if not url.host or "*" in url.host or url not in (origin, origin / ""):
        raise ValueError(f'"{text}" is no origin')
    return str(origin)


def _proxy(value: SecretStr) -> SecretStr:
    """`user:password@proxy:3128` -> an http:// address. What it complains of must not repeat the password."""
    text = value.get_secret_value()
    text = text if "://" in text else f"http://{text}"
    if not PROXY.fullmatch(text) or not _is_url(text):
        raise ValueError("no address of an HTTP proxy")
    return SecretStr(text)


def _collector(text: str) -> str:
    """`http://collector:4318`. What it complains of must not repeat a password."""
    if not COLLECTOR.fullmatch(text) or not _is_url(text):
        raise ValueError("a key, if it asks for one, goes into OTEL_EXPORTER_OTLP_HEADERS")
    if text.rstrip("/").endswith(TRACES):
        raise ValueError(f"leave {TRACES} out: it is added to the address")
    return text


def _headers(value: object) -> object:
    """`api-key=a%20b,tenant=c` -> {api-key: a b, tenant: c}. What it complains of must not repeat a value."""
    if not isinstance(value, str):
        return value
    headers: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, value.split(","))), 1):
        name, _, text = (unquote(part.strip()) for part in entry.partition("="))
        if not HEADER.fullmatch(f"{name}={text}"):
            raise ValueError(f"entry {number} is not name=value")
        headers[name.lower()] = text
    return headers


def _is_url(text: str) -> bool:
    try:
        return bool(URL(text).host)
    except ValueError:
        return False


def _hosts(value: object) -> object:
    """`.Example.org, 10.0.0.0/8` -> words in lower case. Whatever other programs put there does no harm."""
    return tuple(value.lower().replace(",", " ").split()) if isinstance(value, str) else value


def _signing_keys(value: object) -> object:
    """`whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_...` -> keys. What it complains of must not repeat one."""
    if not isinstance(value, str):
        return value
    entries = filter(None, map(str.strip, value.split(",")))
    return tuple(_signing_key(number, entry) for number, entry in enumerate(entries, 1))


def _signing_key(number: int, entry: str) -> bytes:
    text = entry.removeprefix(WHSEC).rstrip("=")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        key = b""
    # 24 to 64 bytes: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    if not entry.startswith(WHSEC) or not 24 <= len(key) <= 64:
        raise ValueError(f"entry {number} is not {WHSEC} and 24 to 64 bytes in base64")
    return key


def switch(value: object) -> str:
    """`TRUE`, `1`, `yes` -> `on`, likewise `off`; any other word in lower case."""
    word = str(value).lower()
    return SWITCH.get(word, word)


def _truth(value: object) -> str:
    """`TRUE`, `1`, `yes`, `on` -> `true`, likewise `false`; any other word in lower case."""
    word = switch(value)
    return {"on": "true", "off": "false"}.get(word, word)


def _file(value: str | Path) -> Path:
    path = Path(value).expanduser()
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise ValueError("no such file, or no right to read it")
    return path


#: Any secret: what is wrong with one is for its setting to say.
ANYTHING: Final = Unit("secret", is_secret=True)
SWITCHED: Final = BeforeValidator(switch)
UPPER: Final = BeforeValidator(lambda value: str(value).upper())
LOWER: Final = BeforeValidator(lambda value: str(value).lower())

Text = Annotated[str, Field(min_length=1), Unit("text")]
MaybeText = Annotated[str | None, Unit("text")]
Secret = Annotated[SecretStr | None, ANYTHING]
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$"), Unit("http:// or https:// address")]
File = Annotated[Annotated[Path, BeforeValidator(_file)] | None, Unit("path of a readable file")]
NewFile = Annotated[Annotated[Path, AfterValidator(Path.expanduser)] | None, Unit("path of a file, each its own")]
Flag = Annotated[bool, Unit("true or false", bare="true")]
MaybeFlag = Annotated[bool | None, Unit("true or false", bare="true")]
AutoFlag = Annotated[Literal["auto", "true", "false"], BeforeValidator(_truth), Unit("auto, true, false", bare="true")]
Port = Annotated[int, Field(ge=0, le=65535), Unit("0 to 65535")]
Count = Annotated[int, Field(ge=0), Unit("whole number, 0 or more")]
MaybeCount = Annotated[int | None, Field(ge=0), Unit("whole number, 0 or more")]
Size = Annotated[int, Field(ge=1), Unit("whole number, 1 or more")]
Few = Annotated[int, Field(ge=0, le=3), Unit("0 to 3")]
Bytes = Annotated[int, Field(ge=1), Unit("bytes, 1 or more")]
Rate = Annotated[float | None, Field(ge=0, allow_inf_nan=False), Unit("calls a minute, 0 or more")]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("seconds, 0 or more")]
Timeout = Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("seconds, above 0")]
Keys = Annotated[dict[str, SecretStr], BeforeValidator(_keys), Unit("name:key,name2:key2", is_secret=True)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_words), Unit("words, or a list in JSON")]
Models = Annotated[dict[Word, Word], BeforeValidator(_models), Unit("name:model,name2:model2, or an object in JSON")]
Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks), Unit("10.0.0.5, 10.0.0.0/8 and the like")]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins), Unit("https://chat.example.org and the like, or *")]
Proxy = Annotated[
    Annotated[SecretStr, AfterValidator(_proxy)] | None,
    Unit("http://host:port, http://user:password@host:port", is_secret=True),
]
Collector = Annotated[
    Annotated[str, AfterValidator(_collector)] | None,
    Unit("http://host:4318, https://host and the like", is_secret=True),
]
Headers = Annotated[dict[str, SecretStr], BeforeValidator(_headers), Unit("name=value,name2=value2", is_secret=True)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_hosts), Unit("example.org, 10.0.0.0/8 and the like, or *")]
SigningKeys = Annotated[
    tuple[SecretBytes, ...],
    BeforeValidator(_signing_keys),
    Unit("whsec_ and 24 to 64 bytes in base64, several with commas", is_secret=True),
]
Fallback = Literal["local_share", "closed", "open"]
AutoOff = Annotated[Literal["auto", "off"], SWITCHED]
AutoOnOff = Annotated[Literal["auto", "on", "off"], SWITCHED, Unit("auto, on, off", bare="on")]
Scope = Annotated[Literal["GIGACHAT_API_PERS", "GIGACHAT_API_B2B", "GIGACHAT_API_CORP"], UPPER]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], UPPER]
Mode = Annotated[Literal["DEV", "PROD"], UPPER]
StructuredOutput = Annotated[Literal["function_call", "native"], LOWER]
Dimensions = Annotated[Literal["refuse", "truncate"], LOWER]
Images = Annotated[Literal["link", "data"], LOWER]
