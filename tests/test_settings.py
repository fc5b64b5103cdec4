"""Settings: where values come from and which wins, what is refused and how it is told, and what never shows."""

import logging
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy import settings as module
from proxy.settings import Settings, SettingsError, current, describe, load, others, use

ROOT = Path(module.__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def nothing_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings of another, nor those of whoever runs it."""
    monkeypatch.setattr(module, "_in_force", [])
    for knob in describe():
        for name in (knob.name, *knob.aliases):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., Settings]:
    """Loads from a house of its own: `house("PORT=1", dotenv="PORT=2", env={...}, argv=[...])`."""

    def load_from(
        assets: str = "", *, dotenv: str = "", env: dict[str, str] | None = None, argv: list[str] | None = None
    ) -> Settings:
        for path, text in ((tmp_path / "assets" / "env", assets), (tmp_path / "here" / ".env", dotenv)):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
        return load(argv or [], env=env or {}, cwd=tmp_path / "here", assets=tmp_path / "assets")

    return load_from


def complaint(house: Callable[..., Settings], *args: str, **sources: object) -> str:
    with pytest.raises(SettingsError) as caught:
        house(*args, **sources)
    return str(caught.value)


# ---- Which value wins ----


def test_the_sources_rank_command_line_environment_dotenv_assets_default(house):
    """Each source is asked only where those above it are silent."""
    sources = {"argv": ["--port", "1"], "env": {"PORT": "2"}, "dotenv": "PORT=3"}
    seen = []
    while sources:
        seen.append(house("PORT=4", **sources).port)
        sources.pop(next(iter(sources)))
    assert [*seen, house("PORT=4").port, house().port] == [1, 2, 3, 4, 8078]


def test_a_higher_source_wins_by_whichever_name(house):
    """The old name in the environment beats the new name in a file."""
    settings = house("PORT=4", dotenv="PROXY_PORT=3", env={"GPT2GIGA_PORT": "2"})
    assert settings.port == 2
    assert (
        house("GIGACHAT_BASE_URL=http://low/v1", env={"URL_GIGACHAT": "http://high/v1/chat/completions"}).gigachat_base
        == "http://high/v1"
    )


def test_inside_one_source_the_first_name_wins_in_whatever_order_they_stand(house):
    """`PORT` is the name, then its aliases as they are declared."""
    assert house("GPT2GIGA_PORT=3\nPROXY_PORT=2\nPORT=1").port == 1
    assert house("GPT2GIGA_PORT=3\nPROXY_PORT=2").port == 2


def test_an_empty_value_is_unset_and_does_not_hide_what_ranks_below(house):
    """`PORT=` in a file or in the environment is as good as no line."""
    assert house("PORT=9", dotenv="PORT=", env={"PORT": "  "}, argv=["--port="]).port == 9
    assert house("PORT=\nPROXY_PORT=9").port == 9
    assert house('EXT_API_RPM=""').ext_api_rpm is None


def test_settings_made_in_code_read_neither_environment_nor_files(monkeypatch, tmp_path):
    """Only `load` looks at the world."""
    (tmp_path / ".env").write_text("PORT=1234")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "4321")
    assert Settings().port == 8078
    assert Settings(port=0, ext_api_rpm=600).ext_api_rpm == 600
    assert load(assets=tmp_path).port == 4321
    monkeypatch.delenv("PORT")
    assert load(assets=tmp_path).port == 1234


def test_assets_lie_beside_the_service_wherever_it_is_started_from(monkeypatch, tmp_path):
    """The current folder has no say in where `assets/env` is."""
    monkeypatch.chdir(tmp_path)
    assert ROOT / "assets" == module.ASSETS


# ---- Names of the systems before ----


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("PROXY_HOST=0.0.0.0", "host", "0.0.0.0"),
        ("GPT2GIGA_HOST=0.0.0.0", "host", "0.0.0.0"),
        ("GPT2GIGA_TIMEOUT=70", "exp_resp_timeout", 70),
        ("GPT2GIGA_VERBOSE=True", "log_level", "DEBUG"),
        ("GPT2GIGA_VERBOSE=0", "log_level", "INFO"),
        ("SCOPE=GIGACHAT_API_B2B", "gigachat_scope", "GIGACHAT_API_B2B"),
        ("AUTH_URL=http://a/oauth", "gigachat_auth_url", "http://a/oauth"),
        ("URL_GIGACHAT=https://h/api/v1/chat/completions", "gigachat_base", "https://h/api/v1"),
        ("URL_GIGACHAT=https://h/api/v1/chat/completions/", "gigachat_base", "https://h/api/v1"),
        ("GIGACHAT_BASE_URL=https://h/v1/", "gigachat_base", "https://h/v1"),
        (f"MTLS_CA_CERT_PATH={__file__}", "gigachat_ca_bundle_file", Path(__file__)),
        (f"MTLS_CERT_FILE_PATH={__file__}", "gigachat_cert_file", Path(__file__)),
        (f"MTLS_KEY_FILE_PATH={__file__}", "gigachat_key_file", Path(__file__)),
    ],
)
def test_names_of_the_systems_before_work_as_they_are(house, line, attribute, value):
    """Whoever moves here keeps the env file."""
    assert getattr(house(line), attribute) == value


@pytest.mark.parametrize("name", ["GIGACHAT_API_KEY", "GIGACHAT_CREDENTIALS", "AUTH_CREDENTIALS"])
def test_the_authorization_key_has_three_names(house, name):
    """Base64's `==` at its end survives."""
    assert house(f"{name}=TWFuIG==").gigachat_api_key.get_secret_value() == "TWFuIG=="


def test_verbose_off_is_unset_rather_than_a_level(house):
    """`GPT2GIGA_VERBOSE=false` does not undo a LOG_LEVEL of lower rank."""
    assert house("LOG_LEVEL=WARNING", env={"GPT2GIGA_VERBOSE": "false"}).log_level == "WARNING"


def test_the_one_key_of_the_peer_is_a_key_without_a_caller(house):
    """`GPT2GIGA_API_KEY` is a whole key, whatever signs are in it; its caller is called `default`."""
    keys = house("GPT2GIGA_API_KEY=a:b,c").proxy_api_keys
    assert {name: key.get_secret_value() for name, key in keys.items()} == {"default": "a:b,c"}


def test_an_address_that_kubernetes_puts_in_the_environment_is_not_a_port(house):
    """A Kubernetes service named `proxy` makes PROXY_PORT=tcp://...; nobody set our port by it."""
    assert house(env={"PROXY_PORT": "tcp://10.0.0.1:8078"}).port == 8078


# ---- Env files ----


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("APP_NAME=mine", "mine"),
        ("APP_NAME=mine   # the name", "mine"),
        ("APP_NAME=   # the name", "gigachat-proxy"),
        ("APP_NAME=#1", "#1"),
        ("APP_NAME=a#1", "a#1"),
        ("  export APP_NAME = mine", "mine"),
        ("APP_NAME='mine # mine'  # the name", "mine # mine"),
        ('APP_NAME="mine # mine"  # the name', "mine # mine"),
        (r'APP_NAME="say \"hi\""', 'say "hi"'),
        (r"APP_NAME='say \"hi\"'", r"say \"hi\""),
        ("APP_NAME=two words", "two words"),
        ("APP_NAME=$HOME", "$HOME"),
        ("APP_NAME=кот", "кот"),
        ("#APP_NAME=mine", "gigachat-proxy"),
        ("\n# first\n\nAPP_NAME=one\nAPP_NAME=two", "two"),
        ("\ufeffAPP_NAME=mine", "mine"),
        ("PORT=1\r\nAPP_NAME=mine\r\n", "mine"),
        ("words of somebody else\n'\"\nOTHER='open\nAPP_NAME=mine", "mine"),
    ],
)
def test_env_files_are_read_as_people_write_them(house, line, value):
    """Comments, quotes, `export`, a BOM, CRLF and lines of others do no harm."""
    assert house(line).app_name == value
    assert house(dotenv=line).app_name == value


@pytest.mark.parametrize("line", ["APP_NAME='mine", 'export APP_NAME="mine', "APP_NAME: mine", "APP_NAME mine"])
def test_a_line_of_ours_that_cannot_be_read_is_told_rather_than_skipped(house, line):
    """With the file, the line and the right form."""
    assert "APP_NAME in" in (text := complaint(house, "\n" + line))
    assert "assets/env:2 cannot be read" in text
    assert "APP_NAME=value" in text


def test_a_file_in_another_encoding_is_told_by_its_path(house, tmp_path):
    """PowerShell's `>` writes UTF-16."""
    house()
    (tmp_path / "here" / ".env").write_bytes("PORT=1".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"here/\.env.*UTF-8"):
        load(env={}, cwd=tmp_path / "here", assets=tmp_path / "assets")


def test_a_folder_where_a_file_should_be_is_no_source(tmp_path):
    """A container engine makes a folder of a mount that is missing."""
    (tmp_path / "env").mkdir()
    assert load(env={}, cwd=tmp_path, assets=tmp_path) == Settings()


def test_a_probable_misspelling_in_a_file_is_told_once_and_changes_nothing(house, caplog):
    """One line names the nearest name; the value, which may be a secret, is not repeated."""
    with caplog.at_level(logging.WARNING):
        assert house("EXT_API_RMP=60\nGIGACHAT_APIKEY=hush\n").ext_api_rpm is None
    assert [record.message.partition("env:")[2] for record in caplog.records] == [
        "1 is no setting of ours and does nothing; did you mean EXT_API_RPM?",
        "2 is no setting of ours and does nothing; did you mean GIGACHAT_API_KEY?",
    ]
    assert "hush" not in caplog.text


def test_other_peoples_names_are_passed_over_in_silence(house, caplog):
    """An env file may serve several programs, and the environment always does."""
    house("DATABASE_URL=x\nGPT2GIGA_MODE=DEV\nGPT2GIGA_USE_HTTPS=0\nTZ=UTC", env={"EXT_API_RMP": "1"})
    assert not caplog.records


# ---- Wrong values ----


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("PORT=abc", "0 to 65535"),
        ("PORT=65536", "0 to 65535"),
        ("PORT=-1", "0 to 65535"),
        ("EXT_API_RPM=-1", "calls a minute, 0 or more"),
        ("EXT_API_RPM=nan", "calls a minute, 0 or more"),
        ("EXT_API_RPM=inf", "calls a minute, 0 or more"),
        ("EXT_API_RPM=10,5", "calls a minute, 0 or more"),
        ("EXT_MAX_REQUESTS=1.5", "whole number, 0 or more"),
        ("EXT_MAX_REQUESTS=-1", "whole number, 0 or more"),
        ("EXT_QUEUE_SIZE=0", "whole number, 1 or more"),
        ("EXT_RETRIES=-1", "whole number, 0 or more"),
        ("EXP_RESP_TIMEOUT=0", "seconds, above 0"),
        ("RESP_TIMEOUT=10s", "seconds, above 0"),
        ("DRAIN_TIMEOUT=-1", "seconds, 0 or more"),
        ("MAX_BODY_BYTES=10MB", "bytes, 1 or more"),
        ("LOG_LEVEL=LOUD", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("GPT2GIGA_VERBOSE=perhaps", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("SANDBOX=maybe", "auto, on, off"),
        ("HEARTBEAT_102=on", "auto, off"),
        ("GIGACHAT_SCOPE=PERS", "GIGACHAT_API_PERS, GIGACHAT_API_B2B, GIGACHAT_API_CORP"),
        ("GIGACHAT_VERIFY_SSL_CERTS=perhaps", "true or false"),
        ("GIGACHAT_PROFANITY_CHECK=perhaps", "true or false"),
        ("GIGACHAT_BASE_URL=api.giga.chat/v1", "http:// or https:// address"),
        ("GIGACHAT_CA_BUNDLE_FILE=/no/such/file", "path of a readable file"),
        ("TRUSTED_PROXIES=proxy.local", "10.0.0.5, 10.0.0.0/8 and the like"),
        ("TRUSTED_PROXIES=10.0.0.5/8", "10.0.0.5, 10.0.0.0/8 and the like"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_its_place_and_what_is_allowed(house, line, allowed):
    """As the user wrote it, alias or not."""
    text = complaint(house, f"\n{line}")
    assert text.startswith(f"{line} in ")
    assert "assets/env:2 is wrong" in text
    assert text.endswith(f"; allowed: {allowed}")


def test_all_wrong_values_are_told_at_once_each_where_it_stands(house):
    """Nobody mends one to be told of the next."""
    lines = complaint(house, "EXT_RETRIES=x", dotenv="GPT2GIGA_TIMEOUT=x", env={"SCOPE": "x"}, argv=["--port", "x"])
    told = [line.partition(" is wrong")[0] for line in lines.splitlines()]
    assert told[0] == "--port=x on the command line"
    assert told[1].startswith("GPT2GIGA_TIMEOUT=x in ")
    assert told[1].endswith("here/.env:1")
    assert told[2].endswith("assets/env:1")
    assert told[3] == "SCOPE=x in the environment"


def test_a_wrong_value_that_a_higher_source_overrules_does_no_harm(house):
    """What is not in force is not judged."""
    assert house("PORT=abc", env={"PORT": "1"}).port == 1


def test_settings_cannot_be_changed_nor_invented():
    """What was read at the start is in force until the end."""
    with pytest.raises(ValidationError):
        Settings().port = 1
    with pytest.raises(ValidationError):
        Settings(prot=1)


# ---- Secrets ----


def test_secrets_show_neither_in_a_repr_nor_in_a_dump(house):
    """Whatever prints the settings prints stars."""
    secrets = [knob.name for knob in describe() if knob.unit.is_secret]
    assert len(secrets) == 14
    values = dict.fromkeys(secrets, "n:hush@proxy") | {
        "WEBHOOK_SECRET": f"whsec_{b64encode(b'hush' * 8).decode()}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",  # masked where it is wrong: a password may be in it
        "OTEL_EXPORTER_OTLP_HEADERS": "n=hush",
    }
    settings = house("\n".join(f"{name}={value}" for name, value in values.items()))
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "hush" not in shown and "aHVza" not in shown
    assert settings.gigachat_password.get_secret_value() == "n:hush@proxy"
    assert settings.proxy_api_keys["n"].get_secret_value() == "hush@proxy"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("hush", "entry 1 is not name:key"),
        ("a:hush,:hush", "entry 2 is not name:key"),
        ("a:", "entry 1 is not name:key"),
        ("a:hush,a:hush2", "entry 2 repeats a name or a key"),
        ("a:hush,b:hush", "entry 2 repeats a name or a key"),
    ],
)
def test_a_wrong_secret_is_told_without_its_value(house, value, why):
    """The reason names the entry by its number. Made in code, the error keeps silent too."""
    text = complaint(house, env={"PROXY_API_KEYS": value})
    assert text == f"PROXY_API_KEYS=*** in the environment is wrong ({why}); allowed: name:key,name2:key2"
    with pytest.raises(ValidationError) as caught:
        Settings(proxy_api_keys=value)
    assert "hush" not in str(caught.value)


def whsec(size: int) -> str:
    return f"whsec_{b64encode(b'hush' * (size // 4) + b'!' * (size % 4)).decode()}"


def test_keys_of_webhooks_are_read_as_their_standard_writes_them(house):
    """Several with commas, with padding or without; keys of 24 to 64 bytes."""
    text = f" {whsec(24)}, {whsec(25).rstrip('=')},{whsec(26)} ,{whsec(64)},"
    keys = [key.get_secret_value() for key in house(env={"WEBHOOK_SECRET": text}).webhook_secret]
    assert [len(key) for key in keys] == [24, 25, 26, 64]
    assert keys[0] == b"hush" * 6 and Settings(webhook_secret=text).webhook_secret[1].get_secret_value() == keys[1]
    assert house().webhook_secret == ()


@pytest.mark.parametrize(
    "value",
    [
        *(whsec(23), whsec(65), whsec(0), whsec(32).upper(), whsec(32).removeprefix("whsec_"), "whsk_" + whsec(32)[6:]),
        *("whsec_hush" + "\N{SNOWMAN}" * 40, "whsec_" + "hush_-" * 6, whsec(32)[:-3], f"whsec_{whsec(32)}", "hush"),
    ],
)
def test_what_is_no_such_key_is_told_by_its_number_alone(house, value):
    text = complaint(house, env={"WEBHOOK_SECRET": f"{whsec(32)},{value}"})
    allowed = "whsec_ and 24 to 64 bytes in base64"
    why = f"(entry 2 is not {allowed}); allowed: {allowed}, several with commas"
    assert text == f"WEBHOOK_SECRET=*** in the environment is wrong {why}"
    with pytest.raises(ValidationError) as caught:
        Settings(webhook_secret=value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("argv", [["--gigachat-api-kye", "hush"], ["--gigachat-api-kye=hush"], ["hush"]])
def test_a_secret_after_a_wrong_flag_is_not_repeated(house, argv):
    """A slip of the finger does not put the key in a log."""
    assert "hush" not in complaint(house, argv=argv)


# ---- The command line ----


def test_every_setting_has_a_flag(house):
    """`--kebab-case` of its name, with `=` or a space."""
    assert house(argv=["--ext-api-rpm=0.5", "--app-name", "mine"]).model_dump(include={"ext_api_rpm", "app_name"}) == {
        "ext_api_rpm": 0.5,
        "app_name": "mine",
    }


@pytest.mark.parametrize(
    ("argv", "attribute", "value"),
    [
        (["--sandbox"], "sandbox", "on"),
        (["--sandbox", "auto"], "sandbox", "auto"),
        (["--verbose"], "log_level", "DEBUG"),
        (["--gigachat-mtls-auth"], "gigachat_mtls_auth", True),
        (["--gigachat-verify-ssl-certs=off"], "gigachat_verify_ssl_certs", False),
    ],
)
def test_a_switch_may_stand_alone(house, argv, attribute, value):
    """`--sandbox` is SANDBOX=on, `--verbose` is LOG_LEVEL=DEBUG."""
    assert getattr(house(argv=argv), attribute) == value


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--prot", "1"], "--prot on the command line is unknown; did you mean --port?"),
        (["--ext-api"], "--ext-api on the command line is unknown; did you mean --ext-api-rpm?"),
        (["--zzz"], "--zzz on the command line is unknown; did you mean --help?"),
        (["--port"], "argument --port: expected one argument; --help lists every setting"),
    ],
)
def test_a_flag_that_is_not_understood_stops_with_a_sentence(house, argv, told):
    """Abbreviations are not guessed at."""
    assert complaint(house, argv=argv) == told


def test_help_lists_every_setting_with_unit_default_names_and_sentence(house, capsys, monkeypatch):
    """And ends the program in peace."""
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        house(argv=["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for knob in describe():
        line = re.search(rf"^  {knob.flag} (.*\n +)?.*$", shown, re.MULTILINE)[0]
        for fact in (knob.name, knob.unit.text, knob.default, knob.sentence, *knob.aliases):
            assert fact in line


# ---- What the values mean ----


@pytest.mark.parametrize(("value", "rpm"), [(None, None), (0, None), (0.5, 0.5), (60_000, 60_000), (600, 600)])
def test_rpm_unset_or_zero_is_no_pacing(value, rpm):
    """Fractions and very high rates are rates like any other."""
    assert Settings(ext_api_rpm=value).rpm == rpm


@pytest.mark.parametrize(("scope", "concurrency"), [("PERS", 1), ("B2B", 10), ("CORP", 10)])
def test_concurrency_is_the_setting_or_what_the_contract_allows(scope, concurrency):
    """Unset: by scope. 0: no limit."""
    scope = f"GIGACHAT_API_{scope}"
    assert Settings(gigachat_scope=scope).concurrency == concurrency
    assert Settings(gigachat_scope=scope, ext_max_requests=7).concurrency == 7
    assert Settings(gigachat_scope=scope, ext_max_requests=0).concurrency is None


def test_choices_take_capitals_and_the_usual_words_for_on_and_off(house):
    """Many a YAML reader turns an unquoted `off` into `false`."""
    settings = house("SANDBOX=TRUE\nHEARTBEAT_102=false\nLOG_LEVEL=warning\nGIGACHAT_SCOPE=gigachat_api_corp")
    assert (settings.sandbox, settings.heartbeat_102) == ("on", "off")
    assert (settings.log_level, settings.gigachat_scope) == ("WARNING", "GIGACHAT_API_CORP")


def test_keys_of_callers_are_told_apart_by_name(house):
    """Blanks and a last comma do no harm; a key may have colons in it."""
    keys = house("PROXY_API_KEYS= alice:one , bob:two:three ,").proxy_api_keys
    assert {name: key.get_secret_value() for name, key in keys.items()} == {"alice": "one", "bob": "two:three"}


def test_trusted_proxies_are_addresses_and_networks(house):
    """Of both families, with commas or blanks between."""
    networks = house("TRUSTED_PROXIES=127.0.0.1, 10.0.0.0/8 fd00::/8,").trusted_proxies
    trusted = [
        address
        for address in ("127.0.0.1", "10.9.8.7", "fd00::1", "127.0.0.2", "::1")
        if any(ip_address(address) in net for net in networks)
    ]
    assert trusted == ["127.0.0.1", "10.9.8.7", "fd00::1"]


# ---- The settings in force ----


def test_the_settings_in_force_are_those_of_use():
    """For the whole process, until `use` is called again."""
    use(mine := Settings(port=1))
    assert current() is mine
    use(other := Settings(port=2))
    assert current() is other


def test_without_use_the_settings_are_loaded_once_at_first_need(monkeypatch, tmp_path):
    """So a connector works in a script of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ASSETS", tmp_path)
    monkeypatch.setenv("PORT", "1")
    first = current()
    monkeypatch.setenv("PORT", "2")
    assert current() is first
    assert first.port == 1


# ---- The declarations ----


def test_no_two_settings_share_a_name():
    """Else which of them is meant would be a matter of luck."""
    names = [name for knob in describe() for name in (knob.name, *knob.aliases)]
    assert len(names) == len(set(names))


def test_a_described_default_is_what_one_would_write(house):
    """Writing every default out changes nothing."""
    assert house("\n".join(f"{knob.name}={knob.default}" for knob in describe())) == Settings()


def test_every_setting_says_what_it_is_in_one_sentence():
    """With a capital, a full stop and no sign that would break the README's table."""
    for knob in describe():
        assert knob.unit.text
        assert knob.sentence[0].isupper() or knob.sentence[0].isdigit()
        assert knob.sentence.endswith(".")
        assert "|" not in knob.sentence + knob.unit.text


def test_importing_reads_no_setting_and_loads_no_server():
    """Settings stand on the lowest rung: nothing of the network comes with them."""
    code = "import sys, proxy.settings as module; print('aiohttp' in sys.modules, module._in_force)"
    env = {"PATH": os.environ["PATH"], "PORT": "not a port"}
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["False", "[]"]


def test_what_is_not_ours_in_an_env_file_is_kept_for_connectors(tmp_path):
    """A connector's own settings may stand beside ours; `.env` outranks `assets/env`."""
    (tmp_path / "env").write_text("PORT=1\nMY_API_KEY=from-assets\nMY_API_URL=http://a\n")
    (tmp_path / ".env").write_text("MY_API_KEY='from .env'  # mine\n")
    assert others(cwd=tmp_path, assets=tmp_path) == {"MY_API_KEY": "from .env", "MY_API_URL": "http://a"}
