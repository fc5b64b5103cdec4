"""Whoever comes from gpt2giga keeps the env file and the start script: what they mean here, and what does nothing."""

import fnmatch
import logging
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents import rows_of
from processes import copy_tree, started

from proxy import gpt2giga
from proxy.settings import Settings, SettingsError, describe, load, others

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / gpt2giga.PAGE
EXAMPLE = ROOT / ".env.example"

#: Its template, filled in.
TEMPLATE = """
# --- Proxy settings ---
GPT2GIGA_MODE=PROD
GPT2GIGA_HOST=0.0.0.0
GPT2GIGA_PORT=8090
GPT2GIGA_USE_HTTPS=False
GPT2GIGA_LOG_LEVEL=INFO
GPT2GIGA_ENABLE_API_KEY_AUTH=True
GPT2GIGA_API_KEY="a-strong-secret"

# GPT2GIGA_CORS_ALLOW_ORIGINS=["https://app.example.org"]
# GPT2GIGA_CORS_ALLOW_METHODS=["GET","POST","OPTIONS"]

# --- GigaChat settings ---
GIGACHAT_SCOPE=GIGACHAT_API_PERS
GIGACHAT_CREDENTIALS="TWFuOm1hbg=="
GIGACHAT_PROFANITY_CHECK=False
GIGACHAT_MODEL=GigaChat-2-Max
GIGACHAT_VERIFY_SSL_CERTS=True
GIGACHAT_TIMEOUT=70000
"""

#: All of its settings that we have, under its names: how it writes them, our name, what they mean here.
KEPT: dict[str, tuple[str, str, Any]] = {
    "GPT2GIGA_MODE": ("prod", "gpt2giga_mode", "PROD"),
    "GPT2GIGA_HOST": ("localhost", "host", "localhost"),
    "GPT2GIGA_PORT": ("8090", "port", 8090),
    "GPT2GIGA_PASS_MODEL": ("True", "gpt2giga_pass_model", "true"),
    "GPT2GIGA_PASS_TOKEN": ("True", "gpt2giga_pass_token", True),
    "GPT2GIGA_SHUTDOWN_TIMEOUT_SECONDS": ("10.0", "drain_timeout", 10),
    "GPT2GIGA_EMBEDDINGS": ("Embeddings-2", "gpt2giga_embeddings", "Embeddings-2"),
    "GPT2GIGA_CORS_ALLOW_ORIGINS": (
        '["https://a.example", "http://b:3000"]',
        "cors_origins",
        ("https://a.example", "http://b:3000"),
    ),
    "GPT2GIGA_ENABLE_IMAGES": ("False", "gpt2giga_enable_images", False),
    "GPT2GIGA_STRUCTURED_OUTPUT_MODE": ("Native", "gpt2giga_structured_output_mode", "native"),
    "GPT2GIGA_MAX_REQUEST_BODY_BYTES": ("1048576", "max_body_bytes", 1_048_576),
    "GPT2GIGA_LOG_LEVEL": ("WARNING", "log_level", "WARNING"),
    "GPT2GIGA_LOG_FILENAME": ("gpt2giga.log", "log_file", Path("gpt2giga.log")),
    "GPT2GIGA_ENABLE_API_KEY_AUTH": ("True", "gpt2giga_enable_api_key_auth", True),
    "GPT2GIGA_API_KEY": ("a:secret", "proxy_api_keys", {"default": "a:secret"}),
    "GIGACHAT_BASE_URL": ("http://giga/api/v1", "gigachat_base_url", "http://giga/api/v1"),
    "GIGACHAT_AUTH_URL": ("http://giga/oauth", "gigachat_auth_url", "http://giga/oauth"),
    "GIGACHAT_CREDENTIALS": ("TWFuOm1hbg==", "gigachat_api_key", "TWFuOm1hbg=="),
    "GIGACHAT_SCOPE": ("GIGACHAT_API_CORP", "gigachat_scope", "GIGACHAT_API_CORP"),
    "GIGACHAT_ACCESS_TOKEN": ("a-token", "gigachat_access_token", "a-token"),
    "GIGACHAT_USER": ("anna", "gigachat_user", "anna"),
    "GIGACHAT_PASSWORD": ("a-password", "gigachat_password", "a-password"),
    "GIGACHAT_MODEL": ("GigaChat-2-Max", "gigachat_model", "GigaChat-2-Max"),
    "GIGACHAT_PROFANITY_CHECK": ("False", "gigachat_profanity_check", False),
    "GIGACHAT_VERIFY_SSL_CERTS": ("False", "gigachat_verify_ssl_certs", False),
    "GIGACHAT_CA_BUNDLE_FILE": (__file__, "gigachat_ca_bundle_file", Path(__file__)),
    "GIGACHAT_CERT_FILE": (__file__, "gigachat_cert_file", Path(__file__)),
    "GIGACHAT_KEY_FILE": (__file__, "gigachat_key_file", Path(__file__)),
    "GIGACHAT_KEY_FILE_PASSWORD": ("another", "gigachat_key_file_password", "another"),
    "GIGACHAT_FLAGS": ('["preprocess"]', "gigachat_flags", ("preprocess",)),
    "GIGACHAT_MAX_CONNECTIONS": ("7", "ext_max_requests", 7),
    "GIGACHAT_MAX_RETRIES": ("0", "ext_retries", 0),
    "GIGACHAT_TIMEOUT": ("120.0", "exp_resp_timeout", 120),
}

#: Its settings that do nothing here, switched on.
IDLE = {
    "GPT2GIGA_USE_HTTPS": "True",
    "GPT2GIGA_HTTPS_KEY_FILE": "/etc/ssl/key.pem",
    "GPT2GIGA_HTTPS_CERT_FILE": "/etc/ssl/cert.pem",
    "GPT2GIGA_PASS_TOKEN_CLIENT_CACHE_SIZE": "32",
    "GPT2GIGA_CORS_ALLOW_METHODS": '["GET","POST"]',
    "GPT2GIGA_CORS_ALLOW_HEADERS": '["*"]',
    "GPT2GIGA_ENABLE_REASONING": "True",
    "GPT2GIGA_DISABLE_REASONING": "True",
    "GPT2GIGA_DEFAULT_MAX_TOKENS": "2048",
    "GPT2GIGA_MODEL_MAX_CONNECTIONS": '{"GigaChat-2-Max": 2}',
    "GPT2GIGA_MODEL_MAX_CONNECTIONS_DEFAULT": "1",
    "GPT2GIGA_MODEL_MAX_CONNECTIONS_ACQUIRE_TIMEOUT": "30",
    "GPT2GIGA_GIGACHAT_API_MODE": "v1",
    "GPT2GIGA_DISABLE_BUILTIN_TOOL_MAPPING": "true",
    "GPT2GIGA_NORMALIZATION_MODE": "shadow",
    "GPT2GIGA_LEGACY_CHAT_FALLBACK": "true",
    "GPT2GIGA_CONVERSATION_STITCHING_ENABLED": "true",
    "GPT2GIGA_CONVERSATION_TTL_SECONDS": "3600",
    "GPT2GIGA_CONVERSATION_MAX_MESSAGES": "40",
    "GPT2GIGA_CONVERSATION_USE_SESSION_ID": "true",
    "GPT2GIGA_CONVERSATION_ON_DIVERGENCE": "fork",
    "GPT2GIGA_MAX_AUDIO_FILE_SIZE_BYTES": "36700160",
    "GPT2GIGA_MAX_IMAGE_FILE_SIZE_BYTES": "15728640",
    "GPT2GIGA_MAX_TEXT_FILE_SIZE_BYTES": "41943040",
    "GPT2GIGA_MAX_AUDIO_IMAGE_TOTAL_SIZE_BYTES": "83886080",
    "GPT2GIGA_LOG_MAX_SIZE": "10485760",
    "GPT2GIGA_LOG_REDACT_SENSITIVE": "True",
    "GPT2GIGA_LOGS_IP_ALLOWLIST": '["10.0.0.1"]',
    "GPT2GIGA_LOGS_TRUSTED_PROXIES": '["10.0.0.2"]',
    "GPT2GIGA_HARNESS_MODEL_KEY": "hush-1",
    "GPT2GIGA_ADMIN_API_ENABLED": "True",
    "GPT2GIGA_ADMIN_API_KEY": "hush-2",
    "GPT2GIGA_DEBUG_TRANSLATE_ENABLED": "True",
    "GPT2GIGA_REPLAY_ENABLED": "True",
    "GPT2GIGA_UI_ENABLED": "True",
    "GPT2GIGA_METRICS_ENABLED": "True",
    "GPT2GIGA_METRICS_PATH": "/metrics",
    "GPT2GIGA_CONFIG": "providers.yaml",
    "GPT2GIGA_TRAFFIC_LOG_ENABLED": "True",
    "GPT2GIGA_TRAFFIC_LOG_SINK": "jsonl",
    "GPT2GIGA_TRAFFIC_LOG_SINKS": '["jsonl"]',
    "GPT2GIGA_TRAFFIC_LOG_JSONL_PATH": "traffic_logs.jsonl",
    "GPT2GIGA_TRAFFIC_LOG_POSTGRES_DSN": "postgresql://joe:hush-3@db/gpt2giga",
    "GPT2GIGA_TRAFFIC_LOG_CAPTURE_CONTENT": "True",
    "GPT2GIGA_TRAFFIC_LOG_QUEUE_SIZE": "10000",
    "GPT2GIGA_TRAFFIC_LOG_BATCH_SIZE": "500",
    "GPT2GIGA_TRAFFIC_LOG_FLUSH_INTERVAL_MS": "2000",
    "GPT2GIGA_TRAFFIC_LOG_DROP_ON_BACKPRESSURE": "True",
    "GPT2GIGA_TRAFFIC_LOG_REDACT_SENSITIVE": "True",
    "GPT2GIGA_TRAFFIC_LOG_REDACT_EXTRA_KEYS": '["inn"]',
    "GPT2GIGA_TRAFFIC_LOG_RETENTION_DAYS": "30",
    "GPT2GIGA_TRAFFIC_LOG_PURGE_INTERVAL_SECONDS": "3600",
    "GPT2GIGA_OBSERVABILITY_ENABLED": "True",
    "GPT2GIGA_OBSERVABILITY_BACKEND": "phoenix",
    "GPT2GIGA_OBSERVABILITY_SAMPLE_RATE": "1.0",
    "GPT2GIGA_OBSERVABILITY_QUEUE_SIZE": "10000",
    "GPT2GIGA_OBSERVABILITY_DROP_ON_BACKPRESSURE": "True",
    "GPT2GIGA_OBSERVABILITY_CAPTURE_CONTENT": "True",
    "GPT2GIGA_OBSERVABILITY_CAPTURE_MESSAGES": "True",
    "GPT2GIGA_OBSERVABILITY_CAPTURE_TOOL_ARGS": "True",
    "GPT2GIGA_OBSERVABILITY_CAPTURE_RESPONSES": "True",
    "GPT2GIGA_OBSERVABILITY_MAX_CONTENT_LENGTH": "8000",
    "GPT2GIGA_OBSERVABILITY_REDACTION_ENABLED": "True",
    "GPT2GIGA_PHOENIX_COLLECTOR_ENDPOINT": "http://localhost:4317",
    "GPT2GIGA_PHOENIX_PROJECT_NAME": "gpt2giga",
    "GPT2GIGA_PHOENIX_API_KEY": "hush-4",
    "GPT2GIGA_OPENSEARCH_URL": "http://localhost:9200",
    "GPT2GIGA_OPENSEARCH_USERNAME": "admin",
    "GPT2GIGA_OPENSEARCH_PASSWORD": "hush-5",
    "GPT2GIGA_OPENSEARCH_INDEX": "gpt2giga-traffic",
    "GPT2GIGA_OPENSEARCH_DATA_STREAM": "True",
    "GPT2GIGA_OPENSEARCH_BULK_SIZE": "500",
    "GPT2GIGA_OPENSEARCH_FLUSH_INTERVAL_MS": "2000",
    "GIGACHAT_RETRY_BACKOFF_FACTOR": "0.5",
    "GIGACHAT_RETRY_ON_STATUS_CODES": "[429, 500, 502, 503, 504]",
    "GIGACHAT_TOKEN_EXPIRY_BUFFER_MS": "60000",
}

#: The names and flags of its older versions, as it read them.
OLDER = {
    "GPT2GIGA_VERBOSE": ("True", "log_level", "DEBUG"),
    "GPT2GIGA_TIMEOUT": ("70", "exp_resp_timeout", 70),
    "GIGACHAT_MTLS_AUTH": ("True", "gigachat_mtls_auth", True),
    "MTLS_CA_CERT_PATH": (__file__, "gigachat_ca_bundle_file", Path(__file__)),
    "MTLS_CERT_FILE_PATH": (__file__, "gigachat_cert_file", Path(__file__)),
    "MTLS_KEY_FILE_PATH": (__file__, "gigachat_key_file", Path(__file__)),
}

House = Callable[..., Settings]


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Loads with this `.env` in the current folder, this command line and this environment."""

    def load_from(dotenv: str = "", *argv: str, env: dict[str, str] | None = None) -> Settings:
        (tmp_path / ".env").write_text(dotenv)
        return load(argv, env=env or {}, cwd=tmp_path, assets=tmp_path / "assets")

    return load_from


def plain(settings: Settings, attribute: str) -> Any:
    """A setting without the veil over its secrets."""
    value = getattr(settings, attribute)
    if isinstance(value, dict):
        return {name: getattr(part, "get_secret_value", lambda part=part: part)() for name, part in value.items()}
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# ---- Its env file ----


def test_its_template_filled_in_needs_no_change_and_has_nothing_to_tell(house, caplog):
    """Only the time-out is not as it says: nobody waits for 19 hours."""
    settings = house(TEMPLATE)
    told = {name: plain(settings, name) for name in settings.model_fields_set}
    assert told == {
        "gpt2giga_mode": "PROD",
        "host": "0.0.0.0",
        "port": 8090,
        "log_level": "INFO",
        "gpt2giga_enable_api_key_auth": True,
        "proxy_api_keys": {"default": "a-strong-secret"},
        "gigachat_scope": "GIGACHAT_API_PERS",
        "gigachat_api_key": "TWFuOm1hbg==",
        "gigachat_profanity_check": False,
        "gigachat_model": "GigaChat-2-Max",
        "gigachat_verify_ssl_certs": True,
        "exp_resp_timeout": 600,
    }
    assert warnings_in(caplog) == []


def test_every_setting_of_its_is_understood_or_named_in_one_line(house, caplog):
    """All of them in one file: those that we have with their meaning, the others told by name, in their order."""
    both = {name: value for name, (value, _, _) in KEPT.items()} | IDLE
    settings = house("\n".join(f"{name}={value}" for name, value in both.items()))
    assert {name: plain(settings, ours) for name, (_, ours, _) in KEPT.items()} == {
        name: meaning for name, (_, _, meaning) in KEPT.items()
    }
    assert settings.model_fields_set == {ours for _, ours, _ in KEPT.values()}
    assert warnings_in(caplog) == [f"without effect here: {', '.join(IDLE)}; {gpt2giga.PAGE} says why"]
    assert "hush" not in caplog.text


@pytest.mark.parametrize("name", KEPT | OLDER)
def test_each_name_means_the_same_alone_in_small_letters_and_in_the_environment(house, name):
    """gpt2giga does not care for the case of a name."""
    value, ours, meaning = (KEPT | OLDER)[name]
    key = "\nGPT2GIGA_API_KEY=a:secret"
    spelt = name if name.startswith("MTLS") else name.lower()
    assert plain(house(f"{name}={value}{key}"), ours) == meaning
    assert plain(house(f"{spelt}={value}{key}"), ours) == meaning
    assert plain(house(key, env={spelt: value}), ours) == meaning


def test_the_exact_name_wins_over_its_small_letters_in_the_environment(house):
    """Whichever of them the system lists first."""
    for env in ({"GPT2GIGA_PORT": "1", "gpt2giga_port": "2"}, {"gpt2giga_port": "2", "GPT2GIGA_PORT": "1"}):
        assert house(env=env).port == 1


def test_small_letters_of_other_names_are_nobodys(house):
    """A variable `port` or `host` in the environment may be anybody's."""
    assert house(env={"port": "1", "host": "example.org", "Scope": "mine"}) == Settings()


@pytest.mark.parametrize("word", ["True", "TRUE", "1", "yes", "on", "t", "Y"])
def test_yes_is_said_in_every_way_that_it_knows(house, word):
    """And so is no."""
    settings = house(f"GPT2GIGA_PASS_TOKEN={word}\nGPT2GIGA_PASS_MODEL={word}\nGPT2GIGA_VERBOSE={word}")
    assert (settings.gpt2giga_pass_token, settings.gpt2giga_pass_model, settings.log_level) == (True, "true", "DEBUG")
    no = {"True": "False", "TRUE": "FALSE", "1": "0", "yes": "no", "on": "off", "t": "f", "Y": "N"}[word]
    settings = house(f"GIGACHAT_VERIFY_SSL_CERTS={no}\nGPT2GIGA_PASS_MODEL={no}\nGPT2GIGA_VERBOSE={no}")
    assert not settings.gigachat_verify_ssl_certs
    assert (settings.gpt2giga_pass_model, settings.log_level) == ("false", "INFO")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ('["*"]', ("*",)),
        ("[]", ()),
        ('["https://a.example","https://b.example/"]', ("https://a.example", "https://b.example")),
        ("https://a.example, https://b.example", ("https://a.example", "https://b.example")),
    ],
)
def test_lists_are_read_in_json_too(house, text, origins):
    """As gpt2giga writes them."""
    assert house(f"GPT2GIGA_CORS_ALLOW_ORIGINS={text}").cors_origins == origins
    assert house(f"CORS_ORIGINS={text}").cors_origins == origins


@pytest.mark.parametrize("text", ['["*"', "[1]", '["a.example"]', "[[]]", '["*"] x'])
def test_a_list_that_is_none_stops_the_start_with_its_name(house, text):
    """Not with a traceback, and not with an open door."""
    with pytest.raises(SettingsError, match=r"^GPT2GIGA_CORS_ALLOW_ORIGINS=.* is wrong"):
        house(f"GPT2GIGA_CORS_ALLOW_ORIGINS={text}")


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("gpt-4o:GigaChat-2-Max,o3:GigaChat-2-Pro", {"gpt-4o": "GigaChat-2-Max", "o3": "GigaChat-2-Pro"}),
        (" gpt-4o : GigaChat-2-Max , ", {"gpt-4o": "GigaChat-2-Max"}),
        ("gpt-4o:GigaChat:latest", {"gpt-4o": "GigaChat:latest"}),
        ('{"llama3:8b": "GigaChat-2", "o3": "GigaChat-2-Pro"}', {"llama3:8b": "GigaChat-2", "o3": "GigaChat-2-Pro"}),
        ("{}", {}),
    ],
)
def test_a_map_of_models_is_written_as_pairs_or_in_json(house, text, models):
    """A name with a colon needs JSON."""
    assert house(f"MODEL_MAP={text}").model_map == models


@pytest.mark.parametrize(
    "text", ["gpt-4o", "gpt-4o:", ":GigaChat-2", "a:b,a:c", '{"a": 1}', '{"a": ""}', '{"a"', "[1]"]
)
def test_a_map_of_models_that_is_none_stops_the_start_with_its_name(house, text):
    """And with what is allowed."""
    with pytest.raises(SettingsError, match=r"^MODEL_MAP=.* is wrong.*; allowed: name:model,name2:model2"):
        house(f"MODEL_MAP={text}")


# ---- Its time-out and its key ----


@pytest.mark.parametrize(
    ("dotenv", "seconds"),
    [
        ("GIGACHAT_TIMEOUT=70000", 600),
        ("GIGACHAT_TIMEOUT=70000\nRESP_TIMEOUT=900", 900),
        ("GIGACHAT_TIMEOUT=30", 30),
        ("GPT2GIGA_TIMEOUT=70000", 600),
        ("EXP_RESP_TIMEOUT=70000", 70_000),
        ("EXP_RESP_TIMEOUT=70000\nGIGACHAT_TIMEOUT=30", 70_000),
    ],
)
def test_its_time_out_is_cut_to_the_time_that_a_request_has(house, dotenv, seconds):
    """Else one stalled stream could hold the line for the 19 hours of its template. Our own name is believed."""
    assert house(dotenv).exp_resp_timeout == seconds


@pytest.mark.parametrize(
    ("dotenv", "is_asked_for"),
    [
        ("GPT2GIGA_API_KEY=word", True),
        ("GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=true", True),
        ("GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=False", False),
        ("GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=False\nGPT2GIGA_MODE=PROD", True),
        ("GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=False\nGPT2GIGA_MODE=DEV", False),
        ("GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=", True),
    ],
)
def test_a_key_counts_unless_it_is_switched_off(house, dotenv, is_asked_for):
    """In PROD it cannot be. A key that stands there and is not asked for would be an open door."""
    assert bool(house(dotenv).proxy_api_keys) is is_asked_for


def test_keys_of_our_own_are_asked_for_whatever_its_switch_says(house, tmp_path):
    """A line left over from gpt2giga opens nothing, wherever the keys stand."""
    old = "GPT2GIGA_API_KEY=word\nGPT2GIGA_ENABLE_API_KEY_AUTH=False\n"
    assert list(house(f"{old}PROXY_API_KEYS=anna:word2").proxy_api_keys) == ["anna"]
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "env").write_text("PROXY_API_KEYS=anna:word2")
    assert list(house(old).proxy_api_keys) == ["anna"]


@pytest.mark.parametrize("line", ["GPT2GIGA_MODE=PROD", "GPT2GIGA_ENABLE_API_KEY_AUTH=True"])
def test_where_a_key_must_be_asked_for_there_is_no_start_without_one(house, line):
    """As with gpt2giga; keys of our own will do."""
    with pytest.raises(SettingsError, match=rf"^{line} in .*: set PROXY_API_KEYS, or GPT2GIGA_API_KEY"):
        house(line)
    assert house(f"{line}\nPROXY_API_KEYS=anna:word").proxy_api_keys
    with pytest.raises(SettingsError) as caught:
        house(f"{line}\nPROXY_API_KEYS=anna")
    assert len(str(caught.value).splitlines()) == 1, "one mistake, one line"


# ---- What has no effect ----


@pytest.mark.parametrize("word", ["False", "false", "0", "no", "off", ""])
def test_what_is_switched_off_is_not_missed(house, caplog, word):
    """Whoever does without a feature there does without it here."""
    house(f"GPT2GIGA_USE_HTTPS={word}", f"--proxy.metrics-enabled={word}", env={"GPT2GIGA_UI_ENABLED": word})
    assert warnings_in(caplog) == []


def test_names_from_everywhere_stand_in_the_one_line_each_once(house, caplog):
    """Files, environment, flags; the name as it was written, the value never."""
    house(
        "GPT2GIGA_USE_HTTPS=1\nGPT2GIGA_FROM_THE_FUTURE=1",
        *("--proxy.opensearch-password", "hush", "--gigachat.from-the-future=hush"),
        env={
            "GPT2GIGA_USE_HTTPS": "1",
            "gpt2giga_ui_enabled": "1",
            "GIGACHAT_RETRY_BACKOFF_FACTOR": "1",
            "SHELL": "sh",
        },
    )
    assert warnings_in(caplog) == [
        "without effect here: GPT2GIGA_USE_HTTPS, GPT2GIGA_FROM_THE_FUTURE, GPT2GIGA_UI_ENABLED, "
        "GIGACHAT_RETRY_BACKOFF_FACTOR, --proxy.opensearch-password, --gigachat.from-the-future; "
        "docs/from-gpt2giga.md says why"
    ]


@pytest.mark.parametrize(
    ("name", "meant"), [("GPT2GIGA_PROT", "GPT2GIGA_PORT"), ("GPT2GIGA_PASS_MODELS", "GPT2GIGA_PASS_MODEL")]
)
def test_a_misspelling_is_told_as_one(house, caplog, name, meant):
    """It is a setting of nobody's."""
    house(f"{name}=1")
    assert [line.partition(" and ")[2] for line in warnings_in(caplog)] == [f"does nothing; did you mean {meant}?"]


@pytest.mark.parametrize("name", IDLE)
def test_no_setting_of_its_is_taken_for_a_misspelling_of_ours(house, caplog, name):
    """However near their names are."""
    house(f"{name}={IDLE[name]}")
    assert warnings_in(caplog) == [f"without effect here: {name}; {gpt2giga.PAGE} says why"]


# ---- Its command line ----

#: The flags that its users' scripts have, in the spelling of its first versions.
FLAGS: list[tuple[list[str], str, Any]] = [
    (["--host", "0.0.0.0"], "host", "0.0.0.0"),
    (["--port", "8090"], "port", 8090),
    (["--verbose"], "log_level", "DEBUG"),
    (["--verbose", "True"], "log_level", "DEBUG"),
    (["--pass-model"], "gpt2giga_pass_model", "true"),
    (["--pass-model", "False"], "gpt2giga_pass_model", "false"),
    (["--pass-token"], "gpt2giga_pass_token", True),
    (["--base-url", "http://giga/v1"], "gigachat_base_url", "http://giga/v1"),
    (["--model", "GigaChat-2-Pro"], "gigachat_model", "GigaChat-2-Pro"),
    (["--timeout", "30"], "exp_resp_timeout", 30),
    (["--embeddings", "Embeddings"], "gpt2giga_embeddings", "Embeddings"),
    (["--verify-ssl-certs"], "gigachat_verify_ssl_certs", True),
    (["--verify-ssl-certs", "true"], "gigachat_verify_ssl_certs", True),
    (["--verify-ssl-certs", "False"], "gigachat_verify_ssl_certs", False),
    (["--verify-ssl-certs=0"], "gigachat_verify_ssl_certs", False),
    (["--mtls-auth"], "gigachat_mtls_auth", True),
    (["--mtls-ca-cert-path", __file__], "gigachat_ca_bundle_file", Path(__file__)),
    (["--mtls-cert-file-path", __file__], "gigachat_cert_file", Path(__file__)),
    (["--mtls-key-file-path", __file__], "gigachat_key_file", Path(__file__)),
    (["--enable-images"], "gpt2giga_enable_images", True),
    (["--enable-images", "False"], "gpt2giga_enable_images", False),
]


@pytest.mark.parametrize(("argv", "ours", "meaning"), FLAGS, ids=str)
def test_the_flags_of_its_first_versions_work(house, caplog, argv, ours, meaning):
    """Bare, with a value, and before another flag."""
    assert plain(house("", *argv), ours) == meaning
    assert plain(house("", *argv, "--app-name", "mine"), ours) == meaning
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("sign", ["-", "."])
def test_the_flags_of_its_newer_versions_work(house, caplog, name, sign):
    """`--proxy-port` and `--proxy.port`, `--gigachat-model` and `--gigachat.model`."""
    value, ours, meaning = KEPT[name]
    group, _, rest = name.lower().replace("_", "-").partition("-")
    flag = f"--{group.replace('gpt2giga', 'proxy')}{sign}{rest}"
    key = "" if name == "GPT2GIGA_API_KEY" else "GPT2GIGA_API_KEY=a:secret"
    assert plain(house(key, flag, value), ours) == meaning
    assert plain(house(key, f"{flag}={value}"), ours) == meaning
    assert warnings_in(caplog) == []


@pytest.mark.parametrize("flag", ["--verbose", "--proxy-verbose", "--proxy.verbose"])
def test_verbose_stands_alone_in_every_spelling(house, flag):
    """Before another flag too."""
    assert house("", flag, "--port", "1").log_level == "DEBUG"


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("sign", ["-", "."])
def test_flags_without_effect_are_accepted_with_the_same_line(house, caplog, name, sign):
    """Its users' start scripts work; a value, in two words or in one, goes with its flag."""
    group, _, rest = name.lower().replace("_", "-").partition("-")
    flag = f"--{group.replace('gpt2giga', 'proxy')}{sign}{rest}"
    assert house("", flag, IDLE[name], "--port", "1").port == 1
    assert house("", f"{flag}={IDLE[name]}", "--port", "1").port == 1
    assert set(warnings_in(caplog)) == {f"without effect here: {flag}; {gpt2giga.PAGE} says why"}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--proxy.prot", "1"], "--proxy.prot on the command line is unknown; did you mean --proxy.port?"),
        (
            ["--proxy-api-kyes", "hush"],
            "--proxy-api-kyes on the command line is unknown; did you mean --proxy-api-keys?",
        ),
        (
            ["--gigachat-modell", "x"],
            "--gigachat-modell on the command line is unknown; did you mean --gigachat-model?",
        ),
        (["--inspect-config"], "--inspect-config on the command line is unknown; did you mean --help?"),
        (
            ["--proxy.use-https", "true", "hush"],
            "a word without a flag on the command line is unknown; did you mean --help?",
        ),
        (["--proxy.port", "x"], "--proxy.port=x on the command line is wrong; allowed: 0 to 65535"),
        (["--proxy.api-key"], "argument --proxy.api-key: expected one argument; --help lists every setting"),
        (
            ["--proxy.mode", "PROD"],
            "--proxy.mode=PROD on the command line is wrong (there is no key: set PROXY_API_KEYS, or GPT2GIGA_API_KEY)",
        ),
    ],
)
def test_a_slip_of_the_finger_is_still_an_error(house, argv, told):
    """In its spellings as in ours; a flag of its that would do something else than serve is one as well."""
    with pytest.raises(SettingsError) as caught:
        house("", *argv)
    assert str(caught.value) == told


def test_a_key_on_the_command_line_is_not_repeated(house):
    """Whatever is wrong with it."""
    with pytest.raises(SettingsError) as caught:
        house("", "--proxy-api-keys", "hush")
    assert "hush" not in str(caught.value)


# ---- Another env file ----


def test_another_env_file_stands_in_place_of_the_one_in_the_current_folder(house, tmp_path):
    """It keeps the rank of `.env`; relative names are found from the current folder."""
    (tmp_path / "prod.env").write_text("GPT2GIGA_PORT=2\nMY_URL=http://prod\n")
    dotenv = "GPT2GIGA_PORT=1\nAPP_NAME=mine\nMY_URL=http://dev\n"
    for path in ("prod.env", str(tmp_path / "prod.env")):
        settings = house(dotenv, "--env-path", path)
        assert (settings.port, settings.app_name) == (2, "gigachat-proxy")
        assert house(dotenv, f"--env-path={path}", env={"PORT": "3"}).port == 3
        assert others([f"--env-path={path}"], cwd=tmp_path, assets=tmp_path) == {"MY_URL": "http://prod"}
    assert house(dotenv, "--env-path=").port == 1


@pytest.mark.parametrize("path", ["missing.env", "folder", "~nobody-of-this-name/.env"])
def test_another_env_file_that_is_missing_stops_the_start(house, tmp_path, path):
    """gpt2giga starts without; then nobody knows why its settings do nothing."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(SettingsError) as caught:
        house("GPT2GIGA_PORT=1", "--env-path", path)
    assert str(caught.value) == f"--env-path {path} on the command line is wrong: there is no such file"


# ---- The service itself ----


def test_the_service_starts_with_its_env_file_and_its_flags(tmp_path):
    """A process in a folder with nothing but its `.env`, filled in, and one more line for the warning."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    tree.mkdir()
    elsewhere.mkdir()
    (elsewhere / ".env").write_text(TEMPLATE + "GPT2GIGA_METRICS_ENABLED=True\n")
    argv = ["--proxy.host", "localhost", "--proxy.port", "0", "--pass-model", "--verify-ssl-certs", "False"]
    with started(copy_tree(tree), tmp_path / "log", *argv, env={"PORT": ""}, cwd=elsewhere) as service:
        with urllib.request.urlopen(f"{service.url}/health", timeout=10) as answer:
            assert answer.status == 200
        assert "1 in flight, 600 s a call" in service.output
        assert service.output.count("without effect here: GPT2GIGA_METRICS_ENABLED;") == 1
        assert "a-strong-secret" not in service.output and "TWFuOm1hbg" not in service.output


# ---- The documents ----

ROWS = list(rows_of(PAGE.read_text().partition("## Every setting")[2], 3))


def patterns_of(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("name", [*KEPT, *OLDER, *IDLE])
def test_the_page_says_what_becomes_of_every_setting(name):
    """Once, and what the code does: the same, another name, or nothing."""
    (row,) = [row for row in ROWS if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns_of(row[0]))]
    (knob,) = [knob for knob in describe() if name in knob.names] or [None]
    here = "nothing" if knob is None else "the same" if name == knob.name else f"`{knob.name}`"
    assert row[1] == here
    assert row[2] or here == "the same", "a reason"


def test_the_page_names_no_setting_that_nobody_has():
    """Each name or pattern in the table stands for some of gpt2giga's."""
    for row in ROWS:
        for pattern in patterns_of(row[0]):
            assert fnmatch.filter([*KEPT, *OLDER, *IDLE], pattern), pattern


def test_the_settings_tested_here_are_all_that_we_have_under_its_names():
    """Whoever adds an alias tests and documents it."""
    ours = {name for knob in describe() for name in knob.names if name.startswith(("GPT2GIGA_", "GIGACHAT_"))}
    assert ours - set(KEPT) - set(OLDER) == {"GIGACHAT_API_KEY"}
    assert all(gpt2giga.is_idle(name) for name in IDLE)


def test_the_example_file_can_be_used_as_it_is_and_with_every_line_in_force(house, caplog):
    """All that it names exists, and its values are allowed."""
    text = EXAMPLE.read_text()
    house(text)
    everything = re.sub(r"^#(?=[A-Z][A-Z0-9_]+=)", "", text, flags=re.M)
    assert everything != text
    house(everything)
    assert warnings_in(caplog) == []


def test_the_example_file_is_in_english_and_russian():
    """Each comment that is a sentence has its like."""
    comments = [line for line in EXAMPLE.read_text().splitlines() if re.match(r"# \S", line) and line.endswith(".")]
    russian = [line for line in comments if re.search("[а-яё]", line)]
    assert len(russian) * 2 >= len(comments) > 10
