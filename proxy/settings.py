"""Every knob of the service: its name, what it may be, its default, the other names it answers to, one sentence.

1. A setting is declared once, on one line of `Settings`; the command line, the errors and the README's table
   follow from that line.
2. Command line > environment > `.env` in the current folder > `assets/env` > default. A source of higher rank
   wins whichever name it uses; inside one source the first name wins. An empty value means unset.
3. Only `load` reads the world: `Settings(...)` made in code is what its arguments say.
4. A secret is never shown: not in a repr, not in an error, not in a log.
"""

import logging
import os
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from io import StringIO
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn, cast, get_args

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from yarl import URL

logger = logging.getLogger(__name__)

ASSETS: Final = Path(__file__).resolve().parent.parent / "assets"  # beside app.py, wherever we are started from
GIGACHAT_URL: Final = "https://api.giga.chat/v1"
GIGACHAT_OAUTH: Final = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"
SCOPE_CONCURRENCY: Final = {"GIGACHAT_API_PERS": 1, "GIGACHAT_API_B2B": 10, "GIGACHAT_API_CORP": 10}
SWITCH: Final = dict.fromkeys(("1", "true", "yes"), "on") | dict.fromkeys(("0", "false", "no"), "off")


class SettingsError(Exception):
    """Settings that cannot be used: a line for each wrong value with its name, its place and what is allowed."""


# ---- What a value may be ----


def _keys(value: object) -> object:
    """`name:key,name2:key2` -> {name: key}. What it complains of must not repeat a key."""
    if not isinstance(value, str):
        return value
    keys: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, value.split(","))), 1):
        name, _, key = map(str.strip, entry.partition(":"))
        if not name or not key:
            raise ValueError(f"entry {number} is not name:key")
        if name in keys or key in keys.values():
            raise ValueError(f"entry {number} repeats a name or a key")
        keys[name] = key
    return keys


def _networks(value: object) -> object:
    """`127.0.0.1, 10.0.0.0/8` -> networks."""
    return tuple(map(ip_network, value.replace(",", " ").split())) if isinstance(value, str) else value


def _origins(value: object) -> object:
    """`https://Chat.Example.org/, *` -> origins as browsers write them."""
    return tuple(map(_origin, value.replace(",", " ").split())) if isinstance(value, str) else value


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


def _switch(value: object) -> str:
    """`TRUE`, `1`, `yes` -> `on`, likewise `off`; any other word in lower case."""
    word = str(value).lower()
    return SWITCH.get(word, word)


def _file(value: str | Path) -> Path:
    path = Path(value).expanduser()
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise ValueError("no such file, or no right to read it")
    return path


@dataclass(frozen=True)
class Unit:
    """What a value is measured in and what is allowed; `bare` is what the flag alone means."""

    text: str
    is_secret: bool = False
    bare: str | None = None


SWITCHED: Final = BeforeValidator(_switch)
UPPER: Final = BeforeValidator(lambda value: str(value).upper())

Text = Annotated[str, Field(min_length=1), Unit("text")]
MaybeText = Annotated[str | None, Unit("text")]
Secret = Annotated[SecretStr | None, Unit("secret", is_secret=True)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$"), Unit("http:// or https:// address")]
File = Annotated[Annotated[Path, BeforeValidator(_file)] | None, Unit("path of a readable file")]
NewFile = Annotated[Annotated[Path, AfterValidator(Path.expanduser)] | None, Unit("path of a file, each its own")]
Flag = Annotated[bool, Unit("true or false", bare="true")]
MaybeFlag = Annotated[bool | None, Unit("true or false", bare="true")]
Port = Annotated[int, Field(ge=0, le=65535), Unit("0 to 65535")]
Count = Annotated[int, Field(ge=0), Unit("whole number, 0 or more")]
MaybeCount = Annotated[int | None, Field(ge=0), Unit("whole number, 0 or more")]
Size = Annotated[int, Field(ge=1), Unit("whole number, 1 or more")]
Bytes = Annotated[int, Field(ge=1), Unit("bytes, 1 or more")]
Rate = Annotated[float | None, Field(ge=0, allow_inf_nan=False), Unit("calls a minute, 0 or more")]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("seconds, 0 or more")]
Timeout = Annotated[float, Field(gt=0, allow_inf_nan=False), Unit("seconds, above 0")]
Keys = Annotated[dict[str, SecretStr], BeforeValidator(_keys), Unit("name:key,name2:key2", is_secret=True)]
Network = IPv4Network | IPv6Network
Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks), Unit("10.0.0.5, 10.0.0.0/8 and the like")]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins), Unit("https://chat.example.org and the like, or *")]
AutoOff = Annotated[Literal["auto", "off"], SWITCHED]
AutoOnOff = Annotated[Literal["auto", "on", "off"], SWITCHED, Unit("auto, on, off", bare="on")]
Scope = Annotated[Literal["GIGACHAT_API_PERS", "GIGACHAT_API_B2B", "GIGACHAT_API_CORP"], UPPER]
Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], UPPER]


# ---- The settings ----


def knob(default: object, sentence: str, *aliases: str) -> Any:
    """A setting: its default, its sentence, and the other names that it answers to."""
    return Field(default, description=sentence, json_schema_extra={"aliases": list(aliases)})


class Settings(BaseSettings):
    """The settings of one process. Made in code, they read neither the environment nor a file."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The service
    host: Text = knob("127.0.0.1", "Address to listen on.", "PROXY_HOST", "GPT2GIGA_HOST")
    port: Port = knob(8078, "Port to listen on; 0 takes any free one.", "PROXY_PORT", "GPT2GIGA_PORT")
    app_name: Text = knob("gigachat-proxy", "Name in the `app` field of native answers.")
    log_level: Level = knob("INFO", "Least severe message that is logged.", "GPT2GIGA_VERBOSE")
    log_file: NewFile = knob(None, "File that the log also goes to; 0600, rotated at 50 MB, 3 older ones kept.")
    requests_log_file: NewFile = knob(None, "File that gets a JSON line for each request; kept like LOG_FILE.")
    connector: MaybeText = knob(None, "Module that calls the API; unset: the one proxy_request.py imports.")
    sandbox: AutoOnOff = knob("off", "Serve from the built-in emulator; auto: if a credential is missing.")
    drain_timeout: Duration = knob(30, "How long waiting requests are still served after SIGTERM.")

    # The limits
    ext_api_rpm: Rate = knob(None, "Pace of the calls to the API, evenly spaced; unset or 0: no pacing.")
    ext_max_requests: MaybeCount = knob(None, "Calls in flight; unset: 1 for PERS, 10 for B2B and CORP; 0: no limit.")
    exp_resp_timeout: Timeout = knob(60, "Wait for the API's answer, or a stream's next chunk.", "GPT2GIGA_TIMEOUT")
    resp_timeout: Timeout = knob(600, "From a request's arrival to the first byte of its answer.")
    ext_queue_size: Size = knob(10_000, "Requests that may wait; one more gets 429 with Retry-After.")
    ext_retries: Count = knob(3, "Further attempts after the API's 5xx or a broken connection.")
    # A full context of 128k tokens is about 1 MB of Russian text: ten times that refuses no honest chat;
    # it bounds what one caller can make us hold while it waits.
    max_body_bytes: Bytes = knob(10 * 1024 * 1024, "Largest request body; a larger one gets 413.")

    # The callers
    proxy_api_keys: Keys = knob({}, "Keys of the callers, by name; unset: none is asked for.", "GPT2GIGA_API_KEY")
    trusted_proxies: Networks = knob((), "Proxies whose X-Forwarded-For is believed.")
    cors_origins: Origins = knob((), "Origins of the web pages that may call; * for all.")
    heartbeat_102: AutoOff = knob("auto", "102 Processing to waiting clients that are known to skip it.")
    heartbeat_interval: Timeout = knob(1, "Time between two signs of life to a waiting client.")
    stream_early_200: Duration = knob(15, "Wait after which a stream gets its 200 and its place in line.")

    # GigaChat
    gigachat_api_key: Secret = knob(None, "Authorization key.", "GIGACHAT_CREDENTIALS", "AUTH_CREDENTIALS")
    gigachat_scope: Scope = knob("GIGACHAT_API_PERS", "Kind of contract that the key belongs to.", "SCOPE")
    gigachat_user: MaybeText = knob(None, "User name, for authorization without a key.")
    gigachat_password: Secret = knob(None, "Password of that user.")
    gigachat_access_token: Secret = knob(None, "Ready access token; used as it is, never renewed.")
    gigachat_mtls_auth: Flag = knob(False, "Authorize by the client certificate alone.")
    gigachat_model: Text = knob("GigaChat-2", "Model for requests that name none.")
    gigachat_profanity_check: MaybeFlag = knob(None, "Censor for requests that do not say; unset: the API's.")
    gigachat_base_url: Url = knob(GIGACHAT_URL, "The API's base address or full chat address.", "URL_GIGACHAT")
    gigachat_auth_url: Url = knob(GIGACHAT_OAUTH, "Where access tokens are issued.", "AUTH_URL")
    gigachat_verify_ssl_certs: Flag = knob(True, "Verify the API's certificate; false is unsafe.")
    gigachat_ca_bundle_file: File = knob(None, "Roots to trust instead of the usual ones.", "MTLS_CA_CERT_PATH")
    gigachat_cert_file: File = knob(None, "Client certificate.", "MTLS_CERT_FILE_PATH")
    gigachat_key_file: File = knob(None, "Key of the client certificate.", "MTLS_KEY_FILE_PATH")
    gigachat_key_file_password: Secret = knob(None, "Password of that key.")

    @field_validator("requests_log_file")
    @classmethod
    def _not_the_log_file(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None and path == others.data.get("log_file"):
            raise ValueError("LOG_FILE is that file already")
        return path

    @property
    def concurrency(self) -> int | None:
        """Calls that may be in flight at once; None means no limit."""
        if self.ext_max_requests is None:
            return SCOPE_CONCURRENCY[self.gigachat_scope]
        return self.ext_max_requests or None

    @property
    def rpm(self) -> float | None:
        """Calls a minute; None means no pacing."""
        return self.ext_api_rpm or None

    @property
    def gigachat_base(self) -> str:
        """The API's base address, without a trailing slash, also where a full chat address was given."""
        return self.gigachat_base_url.rstrip("/").removesuffix("/chat/completions").rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` gathers the other sources itself: it ranks across aliases and names what the user wrote.
        return (init_settings,)


class Knob(NamedTuple):
    """What is known of one setting; `default` is as one would write it, empty for unset."""

    name: str
    aliases: tuple[str, ...]
    unit: Unit
    default: str
    sentence: str

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.lower().replace("_", "-")


@cache
def describe() -> tuple[Knob, ...]:
    """Every setting, in the order of its declaration."""
    return tuple(_knob(name, field) for name, field in Settings.model_fields.items())


def _knob(name: str, field: FieldInfo) -> Knob:
    choices = Unit(", ".join(map(str, get_args(field.annotation))))
    unit = next((extra for extra in field.metadata if isinstance(extra, Unit)), choices)
    aliases = cast("dict[str, list[str]]", field.json_schema_extra)["aliases"]
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default or "")
    return Knob(name.upper(), tuple(aliases), unit, default, str(field.description))


@cache
def _names() -> frozenset[str]:
    return frozenset(name for knob in describe() for name in (knob.name, *knob.aliases))


# ---- Where the values come from ----


class Found(NamedTuple):
    """A value as the user wrote it, and where."""

    name: str
    value: str
    where: str

    @property
    def meaning(self) -> Any:
        """What the value means under the name it was given; empty for unset."""
        if self.name == "GPT2GIGA_VERBOSE":
            return {"on": "DEBUG", "off": ""}.get(_switch(self.value), self.value)
        if self.name == "GPT2GIGA_API_KEY" and self.value:
            return {"default": self.value}
        return self.value


Source = dict[str, Found]


def load(
    argv: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    assets: Path | None = None,
) -> Settings:
    """
    Gather the settings from the command line, the environment, `.env` in `cwd`, and `env` in `assets`.

    Raises:
        SettingsError: tells every value that is wrong, or the flag or the file that cannot be read.
        SystemExit: after `--help`.
    """
    chosen: Source = {}
    for source in (
        _env_file((assets or ASSETS) / "env"),
        _env_file((cwd or Path()) / ".env"),
        _environment(os.environ if env is None else env),
        _command_line(argv),
    ):
        chosen |= _pick(source)
    values: dict[str, Any] = {name.lower(): found.meaning for name, found in chosen.items()}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_complaint(error, chosen)) from None


def _pick(source: Source) -> Source:
    """The settings that one source gives, each by the first of its names that has a value there."""
    given = {name: found for name, found in source.items() if found.meaning != ""}
    named = {knob.name: [name for name in (knob.name, *knob.aliases) if name in given] for knob in describe()}
    return {name: given[names[0]] for name, names in named.items() if names}


def _complaint(error: ValidationError, chosen: Source) -> str:
    """A line for each wrong value: its name, the value unless it is secret, its place, what is allowed."""
    wrong = {str(detail["loc"][0]).upper(): detail for detail in error.errors()}
    lines = []
    for knob in describe():
        if detail := wrong.get(knob.name):
            name, value, where = chosen[knob.name]
            value = "***" if knob.unit.is_secret else value
            why = f" ({detail['ctx']['error']})" if detail["type"] == "value_error" else ""
            lines.append(f"{name}={value} {where} is wrong{why}; allowed: {knob.unit.text}")
    return "\n".join(lines)


def _environment(env: Mapping[str, str]) -> Source:
    # For a service named "proxy" Kubernetes sets PROXY_PORT=tcp://10.0.0.1:8078; nobody meant us by it.
    ours = {name: value for name, value in env.items() if name in _names() and not value.startswith("tcp://")}
    return {name: Found(name, value.strip(), "in the environment") for name, value in ours.items()}


def _env_file(path: Path) -> Source:
    """What an env file gives; names that are not ours may stand there too."""
    try:
        entries = list(parse_stream(StringIO(path.read_text(encoding="utf-8-sig")))) if path.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}; it must be a readable text file in UTF-8 ({error})") from None
    source: Source = {}
    for entry in entries:
        text = entry.original.string.lstrip()
        blank = entry.original.string[: -len(text) or None].count(
            "\n"
        )  # the parser counts blank lines as its beginning
        where = f"in {path}:{entry.original.line + blank}"
        name = entry.key or text.removeprefix("export ").replace("=", " ").replace(":", " ").partition(" ")[0]
        if entry.error and name in _names():
            raise SettingsError(f"{name} {where} cannot be read; allowed: {name}=value, every quote closed")
        if entry.key is not None and not entry.error:
            source[name] = Found(name, (entry.value or "").strip(), where)
            _warn_if_misspelt(name, where)
    return source


def _warn_if_misspelt(name: str, where: str) -> None:
    if name not in _names() and (near := get_close_matches(name.upper(), _names(), 1, cutoff=0.85)):
        logger.warning("%s %s is no setting of ours and does nothing; did you mean %s?", name, where, near[0])


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists every setting")


def _command_line(argv: Sequence[str]) -> Source:
    parser = _Parser("app.py", "%(prog)s [--setting value ...]", argument_default=SUPPRESS, allow_abbrev=False)
    parser.add_argument("--verbose", dest="LOG_LEVEL", action="store_const", const="DEBUG", help="LOG_LEVEL=DEBUG")
    for knob in describe():
        alone: dict[str, Any] = {"nargs": "?", "const": knob.unit.bare} if knob.unit.bare else {}
        parser.add_argument(knob.flag, dest=knob.name, metavar=knob.name, help=_help(knob), **alone)
    given, rest = parser.parse_known_args(argv)
    flags = {knob.name: knob.flag for knob in describe()}
    if rest:
        # A word without a flag may be a secret that slipped: it is not repeated.
        wrong = next((word.partition("=")[0] for word in rest if word.startswith("-")), "a word without a flag")
        near = get_close_matches(wrong, ["--verbose", *flags.values()], 1) or ["--help"]
        raise SettingsError(f"{wrong} on the command line is unknown; did you mean {near[0]}?")
    return {name: Found(flags[name], value.strip(), "on the command line") for name, value in vars(given).items()}


def _help(knob: Knob) -> str:
    default = f"default {knob.default}" if knob.default else ""
    aliases = f"also {', '.join(knob.aliases)}" if knob.aliases else ""
    return f"{knob.sentence} ({'; '.join(filter(None, (knob.unit.text, default, aliases)))})"


def others(*, cwd: Path | None = None, assets: Path | None = None) -> dict[str, str]:
    """What the env files give under names that are not ours: a connector's own settings, say."""
    found = _env_file((assets or ASSETS) / "env") | _env_file((cwd or Path()) / ".env")
    return {name: str(entry.value) for name, entry in found.items() if name not in _names()}


# ---- The settings in force ----

_in_force: list[Settings] = []


def use(settings: Settings) -> None:
    """Put these settings in force for the whole process."""
    _in_force[:] = [settings]


def current() -> Settings:
    """The settings in force; if nobody called `use`, those that `load` finds without a command line."""
    if not _in_force:
        use(load())
    return _in_force[0]
