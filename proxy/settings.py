"""Every knob of the service: its name, what it may be, its default, the other names it answers to, one sentence.

1. A setting is declared once, on one line of `Settings`; the command line, the errors and the README's table
   follow from that line.
2. Command line > environment > `.env` in the current folder > `assets/env` > default. A source of higher rank
   wins whichever name it uses; inside one source the first name wins. An empty value means unset. `--env-path`
   names another file in place of `.env`.
3. Only `load` reads the world: `Settings(...)` made in code is what its arguments say.
4. A secret is never shown: not in a repr, not in an error, not in a log.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from proxy import gpt2giga
from proxy.command_line import CommandLine, command_line
from proxy.knob import Knob, knob
from proxy.passed import PassedCredential
from proxy.sources import Found, Source, env_file, environment
from proxy.sources import SettingsError as SettingsError
from proxy.values import (
    ANYTHING,
    AutoFlag,
    AutoOff,
    AutoOnOff,
    Bytes,
    Collector,
    Count,
    Dimensions,
    Duration,
    Fallback,
    Few,
    File,
    Flag,
    Headers,
    Hosts,
    Images,
    Keys,
    Level,
    MaybeCount,
    MaybeFlag,
    MaybeText,
    Mode,
    Models,
    Networks,
    NewFile,
    Origins,
    Port,
    Proxy,
    Rate,
    Scope,
    Secret,
    SigningKeys,
    Size,
    StructuredOutput,
    Text,
    Timeout,
    Url,
    Words,
    switch,
)

logger = logging.getLogger(__name__)

ASSETS: Final = Path(__file__).resolve().parent.parent / "assets"  # beside app.py, wherever we are started from
GIGACHAT_URL: Final = "https://api.giga.chat/v1"
GIGACHAT_OAUTH: Final = "https://ngw.devices.sberbank.ru:9443/api/v2/oauth"
OPENAI_URL: Final = "https://api.openai.com/v1"
LMC_SYSTEM: Final = "Ты заботливый ассистент и хочешь помочь пользователю решить его проблему"
SCOPE_CONCURRENCY: Final = {"GIGACHAT_API_PERS": 1, "GIGACHAT_API_B2B": 10, "GIGACHAT_API_CORP": 10}
#: Asked for or not, as two other settings say.
KEY: Final = "GPT2GIGA_API_KEY"


class Clash(ValueError):
    """The value is allowed, but not beside those of other settings; the text says which."""


class Settings(BaseSettings):
    """The settings of one process. Made in code, they read neither the environment nor a file."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The service
    host: Text = knob("127.0.0.1", "Address to listen on.", "PROXY_HOST", "GPT2GIGA_HOST")
    port: Port = knob(8078, "Port to listen on; 0 takes any free one.", "PROXY_PORT", "GPT2GIGA_PORT")
    app_name: Text = knob("gigachat-proxy", "Name in the `app` field of native answers.")
    log_level: Level = knob("INFO", "Least severe message that is logged.", "GPT2GIGA_LOG_LEVEL", "GPT2GIGA_VERBOSE")
    log_file: NewFile = knob(
        None, "File that the log also goes to; 0600, rotated at 50 MB, 3 older ones kept.", "GPT2GIGA_LOG_FILENAME"
    )
    requests_log_file: NewFile = knob(None, "File that gets a JSON line for each request; kept like LOG_FILE.")
    otel_exporter_otlp_endpoint: Collector = knob(
        None, "OpenTelemetry's collector that traces go to, by OTLP over HTTP; unset: none are made."
    )
    otel_exporter_otlp_headers: Headers = knob({}, "Headers that it asks for, such as a key.")
    connector: MaybeText = knob(None, "Module that calls the API; unset: the one proxy_request.py imports.")
    sandbox: AutoOnOff = knob("off", "Serve from the built-in emulator; auto: if a credential is missing.")
    drain_timeout: Duration = knob(
        30, "How long waiting requests are still served after SIGTERM.", "GPT2GIGA_SHUTDOWN_TIMEOUT_SECONDS"
    )

    # The limits
    ext_api_rpm: Rate = knob(None, "Pace of the calls to the API, evenly spaced; unset or 0: no pacing.")
    ext_max_requests: MaybeCount = knob(
        None, "Calls in flight; unset: 1 for PERS, 10 for B2B and CORP; 0: no limit.", "GIGACHAT_MAX_CONNECTIONS"
    )
    exp_resp_timeout: Timeout = knob(
        60, "Wait for the API's answer, or a stream's next chunk.", "GPT2GIGA_TIMEOUT", "GIGACHAT_TIMEOUT"
    )
    resp_timeout: Timeout = knob(600, "From a request's arrival to the first byte of its answer.")
    ext_queue_size: Size = knob(10_000, "Requests that may wait; one more gets 429 with Retry-After.")
    ext_retries: Count = knob(3, "Further attempts after the API's 5xx or a broken connection.", "GIGACHAT_MAX_RETRIES")
    # The largest file that the API takes, 40 MB, as a data URL.
    max_body_bytes: Bytes = knob(
        64 * 1024 * 1024, "Largest request body; a larger one gets 413.", "GPT2GIGA_MAX_REQUEST_BODY_BYTES"
    )

    # Replicas
    redis_url: Secret = knob(None, "Redis or Valkey that keeps the limits for all replicas; unset: each its own.")
    redis_prefix: Text = knob("gigachat-proxy", "What the keys there begin with, and those of jobs.")
    redis_grace: Duration = knob(3, "How long it may be away before REDIS_FALLBACK holds.")
    redis_fallback: Fallback = knob("local_share", "Then: a share of the limits, nothing, or all of them.")

    # Jobs
    jobs_url: Secret = knob(
        None, "Where accepted jobs are kept: an SQLite file, redis://..., or off; unset: assets/jobs.sqlite."
    )
    jobs_keep: Duration = knob(86_400, "How long a job's answer is kept.")
    jobs_max: Size = knob(200_000, "Jobs that are kept at once; one more gets 507.")
    jobs_max_bytes: Bytes = knob(4 * 1024**3, "Room for jobs, their answers and files.")
    jobs_attempts: Size = knob(10, "How often a job is begun before it has failed.")
    idempotency_keep: Duration = knob(86_400, "How long an answer is told again to its Idempotency-Key.")
    webhook_secret: SigningKeys = knob((), "What webhooks are signed with; unset: no job may name one.")
    webhook_allow: Hosts = knob((), "Hosts without a public address that webhooks may go to.")

    # The callers
    proxy_api_keys: Keys = knob({}, "Keys of the callers, by name; unset: none is asked for.", "GPT2GIGA_API_KEY")
    admin_api_key: Secret = knob(None, "Key of the operator: steers the limits, sees the dashboard.")
    gpt2giga_enable_api_key_auth: MaybeFlag = knob(
        None, "True: no start without keys; false: GPT2GIGA_API_KEY does not count."
    )
    gpt2giga_mode: Mode = knob("DEV", "PROD: no start without keys.")
    trusted_proxies: Networks = knob((), "Proxies whose X-Forwarded-For is believed.")
    gpt2giga_pass_token: Flag = knob(False, "Callers may bring a credential of their own in Authorization.")
    lanes_max: Size = knob(256, "Accounts of such credentials that are held at once; one more gets 503.")
    cors_origins: Origins = knob(
        (), "Origins of the web pages that may call; * for all.", "GPT2GIGA_CORS_ALLOW_ORIGINS"
    )
    heartbeat_102: AutoOff = knob("auto", "102 Processing to waiting clients that are known to skip it.")
    heartbeat_interval: Timeout = knob(1, "Time between two signs of life to a waiting client.")
    stream_early_200: Duration = knob(15, "Wait after which a stream gets its 200 and its place in line.")

    lmc_system: MaybeText = knob(LMC_SYSTEM, "System message of LanguageModelChat requests that have none.")

    # What OpenAI's clients ask for
    gpt2giga_pass_model: AutoFlag = knob(
        "auto", "Whether callers choose the model; auto: names of GigaChat's alone, others get the default."
    )
    model_map: Models = knob({}, "Models that callers name, and GigaChat's in their place.")
    gpt2giga_embeddings: Text = knob("EmbeddingsGigaR", "Model of embeddings for requests that name none.")
    embeddings_dimensions: Dimensions = knob("refuse", "What comes of `dimensions`: an error, or shorter vectors.")
    gpt2giga_structured_output_mode: StructuredOutput = knob(
        "function_call", "How a JSON schema reaches GigaChat: as a function that must be called, or as it is."
    )
    json_repairs: Few = knob(1, "How often the model may mend JSON that does not fit.")
    gpt2giga_enable_images: Flag = knob(True, "Requests may bring images, documents and sounds along.")
    delete_attachments: Flag = knob(False, "Their files at the API are deleted when the request is over.")
    fetch_allow: Hosts = knob((), "Hosts without a public address that images may be downloaded from.")
    generated_images: Images = knob("link", "How a generated image stands in the answer: as a link, or as data.")

    # The way out
    outbound_proxy: Proxy = knob(None, "HTTP proxy that all calls of APIs go through.")
    https_proxy: Proxy = knob(None, "The same, for https:// addresses that NO_PROXY does not name.", "https_proxy")
    no_proxy: Hosts = knob((), "Hosts, with those under them, that HTTPS_PROXY is not for.", "no_proxy")

    # GigaChat
    gigachat_api_key: Secret = knob(None, "Authorization key.", "GIGACHAT_CREDENTIALS", "AUTH_CREDENTIALS")
    gigachat_scope: Scope = knob("GIGACHAT_API_PERS", "Kind of contract that the key belongs to.", "SCOPE")
    gigachat_user: MaybeText = knob(None, "User name, for authorization without a key.")
    gigachat_password: Secret = knob(None, "Password of that user.")
    gigachat_access_token: Secret = knob(None, "Ready access token; used as it is, never renewed.")
    gigachat_mtls_auth: Flag = knob(False, "Authorize by the client certificate alone.")
    gigachat_model: Text = knob("GigaChat-2", "Model for requests that name none.")
    gigachat_profanity_check: MaybeFlag = knob(None, "Censor for requests that do not say; unset: the API's.")
    gigachat_flags: Words = knob((), "Flags for requests that have none.")
    gigachat_base_url: Url = knob(GIGACHAT_URL, "The API's base address or full chat address.", "URL_GIGACHAT")
    gigachat_auth_url: Url = knob(GIGACHAT_OAUTH, "Where access tokens are issued.", "AUTH_URL")
    gigachat_verify_ssl_certs: Flag = knob(True, "Verify the API's certificate; false is unsafe.")
    gigachat_ca_bundle_file: File = knob(None, "Roots to trust instead of the usual ones.", "MTLS_CA_CERT_PATH")
    gigachat_cert_file: File = knob(None, "Client certificate.", "MTLS_CERT_FILE_PATH")
    gigachat_key_file: File = knob(None, "Key of the client certificate.", "MTLS_KEY_FILE_PATH")
    gigachat_key_file_password: Secret = knob(None, "Password of that key.")

    # ChatGPT and its like
    url_gpt: Url = knob(OPENAI_URL, "Base address or full chat address of an API that speaks like OpenAI's.")
    api_key: Secret = knob(None, "Its key; an API on this machine may need none.")
    chatgpt_model: Text = knob("gpt-6-luna", "Model for its requests that name none.")
    chatgpt_ext_api_rpm: Rate = knob(None, "Pace of its calls where it serves beside GigaChat; unset or 0: no pacing.")
    chatgpt_ext_max_requests: MaybeCount = knob(None, "Its calls in flight there; unset or 0: no limit.")

    @field_validator("requests_log_file")
    @classmethod
    def _not_the_log_file(cls, path: Path | None, others: ValidationInfo) -> Path | None:
        if path is not None and path == others.data.get("log_file"):
            raise Clash("LOG_FILE is that file already")
        return path

    @field_validator("admin_api_key")
    @classmethod
    def _no_callers_key(cls, key: SecretStr | None, others: ValidationInfo) -> SecretStr | None:
        if key is not None and key in others.data.get("proxy_api_keys", {}).values():
            raise Clash("a caller has that key, see PROXY_API_KEYS: choose another one")
        return key

    @field_validator("gpt2giga_enable_api_key_auth", "gpt2giga_mode")
    @classmethod
    def _with_keys(cls, value: bool | str | None, others: ValidationInfo) -> bool | str | None:
        if value in (True, "PROD") and others.data.get("proxy_api_keys") == {}:
            raise Clash("there is no key: set PROXY_API_KEYS, or GPT2GIGA_API_KEY")
        return value

    @property
    def has_chatgpt(self) -> bool:
        """Whether an API like OpenAI's is configured."""
        return self.api_key is not None or "url_gpt" in self.model_fields_set

    @property
    def concurrency(self) -> int | None:
        """Calls that may be in flight at once; None means no limit."""
        if self.ext_max_requests is None:
            return SCOPE_CONCURRENCY[self.gigachat_scope]
        return self.ext_max_requests or None

    def concurrency_of(self, credential: PassedCredential) -> int | None:
        """The same for a credential that a caller brought along; who holds a token alone is not known."""
        if credential.way == "token":
            return 1
        if self.ext_max_requests is None and credential.way == "key":
            return SCOPE_CONCURRENCY.get(credential.scope, 1)
        return self.concurrency

    @property
    def rpm(self) -> float | None:
        """Calls a minute; None means no pacing."""
        return self.ext_api_rpm or None

    @property
    def gigachat_base(self) -> str:
        """The API's base address, without a trailing slash, also where a full chat address was given."""
        return base_of(self.gigachat_base_url)

    @property
    def gpt_base(self) -> str:
        """The same of the API that speaks like OpenAI's."""
        return base_of(self.url_gpt)

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` gathers the other sources itself: it ranks across aliases and names what the user wrote.
        return (init_settings,)


def base_of(address: str) -> str:
    return address.rstrip("/").removesuffix("/chat/completions").rstrip("/")


@cache
def describe() -> tuple[Knob, ...]:
    """Every setting, in the order of its declaration."""
    return tuple(Knob.of(name, field) for name, field in Settings.model_fields.items())


@cache
def _names() -> frozenset[str]:
    return frozenset(name for setting in describe() for name in setting.names)


# ---- Gathering them ----


def load(
    argv: Sequence[str] = (),
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    assets: Path | None = None,
) -> Settings:
    """
    Gather the settings from the command line, the environment, `.env` in `cwd` or the file that --env-path names in its
    place, and `env` in `assets`.

    Raises:
        SettingsError: tells every value that is wrong, or the flag or the file that cannot be read.
        SystemExit: after `--help`.
    """
    told = command_line(argv, describe())
    surroundings = environment(os.environ if env is None else env, _names())
    sources = [*_files(told, cwd, assets), surroundings, told.source]
    _warn(sources)
    chosen = _chosen(sources)
    if _is_key_idle(chosen):
        chosen = _chosen([{name: found for name, found in source.items() if name != KEY} for source in sources])
    values: dict[str, Any] = {name.lower(): found.meaning for name, found in chosen.items()}
    try:
        return _bounded(Settings(**values), chosen)
    except ValidationError as error:
        raise SettingsError(_complaint(error, chosen)) from None


def others(argv: Sequence[str] = (), *, cwd: Path | None = None, assets: Path | None = None) -> dict[str, str]:
    """What the env files give under names that are not ours: a connector's own settings, say."""
    lower, higher = _files(command_line(argv, describe()), cwd, assets)
    return {name: found.value for name, found in (lower | higher).items() if name not in _names()}


def _files(told: CommandLine, cwd: Path | None, assets: Path | None) -> tuple[Source, Source]:
    """What `assets/env` gives, and what `.env` or the file in its place does."""
    path = (cwd or Path()) / os.path.expanduser(told.env_path or ".env")
    if told.env_path and not path.is_file():
        raise SettingsError(f"--env-path {told.env_path} on the command line is wrong: there is no such file")
    return env_file((assets or ASSETS) / "env", _names()), env_file(path, _names())


def _chosen(sources: Iterable[Source]) -> Source:
    """By setting, what the highest of the sources gives."""
    chosen: Source = {}
    for source in sources:
        chosen |= _pick(source)
    return chosen


def _pick(source: Source) -> Source:
    """The settings that one source gives, each by the first of its names that has a value there."""
    given = {name: found for name, found in source.items() if found.meaning != ""}
    named = {setting.name: [name for name in setting.names if name in given] for setting in describe()}
    return {name: given[names[0]] for name, names in named.items() if names}


def _is_key_idle(chosen: Source) -> bool:
    """gpt2giga asks for its key if it is told to, or in PROD. Here a key counts unless it is told not to."""
    has_auth, mode = chosen.get("GPT2GIGA_ENABLE_API_KEY_AUTH"), chosen.get("GPT2GIGA_MODE")
    is_prod = mode is not None and mode.value.upper() == "PROD"
    return has_auth is not None and switch(has_auth.value) == "off" and not is_prod


def _bounded(settings: Settings, chosen: Source) -> Settings:
    """gpt2giga's template has GIGACHAT_TIMEOUT=70000: with that a stalled stream would hold its slot for 19 hours."""
    found = chosen.get("EXP_RESP_TIMEOUT")
    if found is None or found.name == "EXP_RESP_TIMEOUT" or settings.exp_resp_timeout <= settings.resp_timeout:
        return settings
    return settings.model_copy(update={"exp_resp_timeout": settings.resp_timeout})


def _complaint(error: ValidationError, chosen: Source) -> str:
    """A line for each wrong value: its name, the value unless it is secret, its place, what is allowed."""
    wrong = {str(detail["loc"][0]).upper(): detail for detail in error.errors()}
    lines = []
    for setting in describe():
        if detail := wrong.get(setting.name):
            found = chosen[setting.name]
            value = "***" if setting.unit.is_secret else found.value
            reason = detail["ctx"]["error"] if detail["type"] == "value_error" else None
            why = f" ({reason})" if reason else ""
            is_clear = setting.unit is ANYTHING or isinstance(reason, Clash)
            allowed = "" if is_clear else f"; allowed: {setting.unit.text}"
            lines.append(f"{found.written}={value} {found.where} is wrong{why}{allowed}")
    return "\n".join(lines)


def _warn(sources: Iterable[Source]) -> None:
    """Tell what does nothing: each name that is probably misspelt, and in one line what only gpt2giga has."""
    idle: dict[str, None] = {}
    for found in (found for source in sources for found in source.values() if found.name not in _names()):
        if near := _near(found):
            logger.warning(
                "%s %s is no setting of ours and does nothing; did you mean %s?", found.name, found.where, near
            )
        elif (found.flag or gpt2giga.is_its(found.name)) and not gpt2giga.is_off(found.value):
            idle[found.written] = None
    if idle:
        logger.warning("without effect here: %s; %s says why", ", ".join(idle), gpt2giga.PAGE)


def _near(found: Found) -> str | None:
    """The setting that is probably meant by a name."""
    if found.flag or gpt2giga.is_idle(found.name):
        return None
    return next(iter(get_close_matches(found.name.upper(), _names(), 1, cutoff=0.85)), None)


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
