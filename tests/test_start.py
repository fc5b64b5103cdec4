"""The start, with real processes: what is said, what is refused and how, and what is never told."""

import json
import re
import resource
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from processes import Process, copy_tree, launch, started

import emulator

KEY = "bXktdmVyeS1zZWNyZXQta2V5OmFuZC1pdHMtc2Vjb25kLWhhbGY="
NO_CREDENTIAL = "GigaChat needs a credential"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def sandbox(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Started with the one flag, from a folder that has nothing to do with it."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with started(tree, elsewhere / "log", "--sandbox", cwd=elsewhere) as service:
        yield service


def refused(tree: Path, log: Path, *argv: str, **how: Any) -> str:
    """The one thing that a service says which cannot start."""
    service = launch(tree, log, *argv, **how)
    assert service.wait() == 1
    told = service.output
    assert "Traceback" not in told
    prefix = "gigachat-proxy cannot start: "
    assert told.startswith(prefix) and told.endswith("\n"), told
    return told.removeprefix(prefix).strip()


def ask(url: str) -> dict[str, Any]:
    body = json.dumps({"messages": [["user", "Привет"]]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def info(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


# ---- On the emulator ----


def test_with_the_sandbox_flag_it_serves_from_any_folder(sandbox: Process) -> None:
    """`python3 <path>/app.py --sandbox` is all it takes."""
    answer = ask(sandbox.url)
    assert answer["app"] == "gigachat-proxy" and answer["status"] == "ok"
    assert answer["data"]["choices"][0]["message"]["content"]


def test_the_sandbox_says_loudly_what_it_is(sandbox: Process) -> None:
    """Nobody takes the emulator's answers for GigaChat's; the way to real ones is named."""
    banner = sandbox.output.split("listens on")[0]
    assert "SANDBOX" in banner and "emulator, not from GigaChat" in banner
    assert "GIGACHAT_API_KEY" in banner and "without --sandbox" in banner


def test_the_start_says_the_limits_and_that_there_is_no_pacing(sandbox: Process) -> None:
    """What is not limited is said as clearly as what is."""
    assert "no pacing (EXT_API_RPM is not set), 1 in flight, 60 s a call" in sandbox.output


def test_sandbox_auto_falls_back_only_without_a_credential(tree: Path, tmp_path: Path) -> None:
    """`make run` starts with SANDBOX=auto: a key that is there is used."""
    with (
        started(tree, tmp_path / "without", env={"SANDBOX": "auto"}) as without,
        started(tree, tmp_path / "with", env={"SANDBOX": "auto", "GIGACHAT_API_KEY": KEY}) as with_key,
    ):
        assert "SANDBOX" in without.output and ask(without.url)["status"] == "ok"
        assert "SANDBOX" not in with_key.output


# ---- What it refuses ----


def test_without_a_credential_it_names_both_ways_out(tree: Path, tmp_path: Path) -> None:
    """One sentence: where the key goes, and --sandbox."""
    told = refused(tree, tmp_path / "log")
    assert told.startswith(NO_CREDENTIAL) and "\n" not in told
    assert "GIGACHAT_API_KEY" in told and "assets/env" in told and "--sandbox" in told


@pytest.mark.parametrize(
    ("argv", "env", "told"),
    [
        ([], {"RESP_TIMEOUT": "soon"}, ["RESP_TIMEOUT=soon", "in the environment", "seconds, above 0"]),
        (["--port", "70000"], {}, ["--port=70000", "on the command line", "0 to 65535"]),
        (["--log-level", "loud"], {}, ["--log-level=loud", "DEBUG", "CRITICAL"]),
        (["--prot", "1"], {}, ["--prot", "did you mean --port"]),
        ([], {"EXT_API_RPM": "-1", "DRAIN_TIMEOUT": "x"}, ["EXT_API_RPM=-1", "DRAIN_TIMEOUT=x"]),
        ([], {"PROXY_API_KEYS": "anna:s3cret,s3cret"}, ["PROXY_API_KEYS=***", "entry 2", "name:key"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_told_by_name_value_and_what_is_allowed(
    tree: Path, tmp_path: Path, argv: list[str], env: dict[str, str], told: list[str]
) -> None:
    """All wrong ones at once, secrets masked, no traceback, an exit code that scripts see."""
    said = refused(tree, tmp_path / "log", *argv, env=env)
    assert [part for part in told if part not in said] == []
    assert "s3cret" not in said


def test_a_wrong_line_of_the_env_file_is_told_with_its_place(tmp_path: Path) -> None:
    """File and line, so that nobody has to search."""
    tree = copy_tree(tmp_path)
    (tree / "assets" / "env").write_text("# mine\nEXT_MAX_REQUESTS=many  # too many\n")
    told = refused(tree, tmp_path / "log")
    assert f"EXT_MAX_REQUESTS=many in {tree / 'assets' / 'env'}:2 is wrong" in told


def test_a_port_that_is_taken_is_one_sentence(tree: Path, tmp_path: Path) -> None:
    """Which port, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = refused(tree, tmp_path / "log", "--sandbox", "--port", port)
    assert told == f"port {port} of 127.0.0.1 is taken: stop what listens there, or choose another with --port or PORT"


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_one_sentence(tree: Path, tmp_path: Path, host: str) -> None:
    """HOST is named, and what it may be."""
    told = refused(tree, tmp_path / "log", "--sandbox", "--host", host)
    assert f"HOST={host}" in told and "127.0.0.1" in told and "\n" not in told


@pytest.mark.parametrize("name", ["GIGACHAT_CERT_FILE", "GIGACHAT_CA_BUNDLE_FILE"])
@pytest.mark.parametrize("is_there", [True, False], ids=["of no use", "missing"])
def test_a_bad_certificate_file_is_told_at_the_start(tree: Path, tmp_path: Path, name: str, is_there: bool) -> None:
    """Not at the first call, and by the name of its setting."""
    file = tmp_path / "certificate.pem"
    if is_there:
        file.write_text("this is no certificate")
    told = refused(tree, tmp_path / "log", env={"GIGACHAT_API_KEY": KEY, name: str(file)})
    assert name in told and "\n" not in told
    assert ("PEM" if is_there else "no such file") in told


# ---- What it obeys ----


def test_each_source_of_settings_is_heard_in_its_rank(tmp_path: Path) -> None:
    """Command line > environment > .env of the current folder > assets/env, seen from the outside."""
    tree = copy_tree(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    (tree / "assets" / "env").write_text(
        "APP_NAME=assets\nEXT_API_RPM=1\nEXT_MAX_REQUESTS=1\nGIGACHAT_MODEL='from assets'  # the lowest\nSANDBOX=on\n"
    )
    (here / ".env").write_text("APP_NAME=dotenv\nEXT_API_RPM=2\nEXT_MAX_REQUESTS=2\n")
    env = {"APP_NAME": "environment", "EXT_API_RPM": "6000"}
    with started(tree, tmp_path / "log", "--app-name", "flag", env=env, cwd=here) as service:
        told = info(service.url)
        assert told["app"] == "flag"
        assert told["info"]["lane"]["requests-a-minute"] == 6000
        assert told["info"]["lane"]["requests-in-flight-limit"] == 2
        assert told["info"]["default-model"] == "from assets"
        assert "6000 calls a minute, evenly spaced, 2 in flight" in service.output


def test_log_level_decides_how_much_is_said(tree: Path, tmp_path: Path) -> None:
    """WARNING leaves the banner alone; DEBUG tells more than INFO."""
    said = {}
    for level in ("WARNING", "INFO", "DEBUG"):
        with started(tree, tmp_path / level, "--sandbox", "--log-level", level) as service:
            ask(service.url)
            service.signal()
            assert service.wait() == 0
            said[level] = service.output
    assert " INFO " not in said["WARNING"] and "listens on" in said["WARNING"]
    assert re.search(r" INFO .*: 200, waited ", said["INFO"]) and " DEBUG " not in said["INFO"]
    assert " INFO " in said["DEBUG"] and " DEBUG " in said["DEBUG"]


def test_whoever_can_be_reached_from_outside_without_keys_is_warned(tree: Path, tmp_path: Path) -> None:
    """HOST=0.0.0.0 spends the quota of whoever comes; with keys there is nothing to warn of."""
    with (
        started(tree, tmp_path / "open", "--sandbox", "--host", "0.0.0.0") as is_open,
        started(
            tree, tmp_path / "kept", "--sandbox", "--host", "0.0.0.0", env={"PROXY_API_KEYS": "anna:long-word"}
        ) as kept,
    ):
        assert "WARNING" in is_open.output and "PROXY_API_KEYS" in is_open.output
        assert "WARNING" not in kept.output and "long-word" not in kept.output


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits of another process are read in /proc")
def test_the_limit_of_open_files_is_raised_and_a_low_one_is_told(tree: Path, tmp_path: Path) -> None:
    """Every waiting caller holds a connection: the soft limit becomes the hard one, with a warning if it is too low."""
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20_000)
    with (
        started(tree, tmp_path / "log", "--sandbox", open_files=(256, hard)) as service,
        started(tree, tmp_path / "low", "--sandbox", open_files=(256, 512)) as low,
    ):
        told = re.search(r"Max open files +(\d+)", Path(f"/proc/{service.pid}/limits").read_text())
        assert told is not None and int(told[1]) == hard
        assert "only 512 files may be open" in low.output
        assert "EXT_QUEUE_SIZE=10000" in low.output and "ulimit -n" in low.output


# ---- What it never tells ----


@pytest.mark.parametrize("way", ["key", "password", "token", "refused key"])
async def test_no_secret_is_ever_printed(tree: Path, tmp_path: Path, way: str) -> None:
    """Keys, passwords and tokens are in no line of the output, DEBUG included, whatever happens meanwhile."""
    password, ready, ours = "pa55-of-the-user", "ready-access-token-1", "key-of-a-caller-1"
    credentials = {
        "key": {"GIGACHAT_API_KEY": KEY},
        "password": {"GIGACHAT_USER": "anna", "GIGACHAT_PASSWORD": password},
        "token": {"GIGACHAT_ACCESS_TOKEN": ready},
        "refused key": {"GIGACHAT_API_KEY": KEY},
    }[way]
    options = emulator.Options(
        credentials=("another",) if way == "refused key" else (),
        access_tokens=(ready,),
    )
    async with emulator.start(options) as giga:
        env = {
            **credentials,
            "GIGACHAT_BASE_URL": f"{giga.url}/v1",
            "GIGACHAT_AUTH_URL": f"{giga.url}/api/v2/oauth",
            "PROXY_API_KEYS": f"anna:{ours}",
            "LOG_LEVEL": "DEBUG",
            "EXT_RETRIES": "1",
        }
        giga.state.faults.add({"kind": "expired_token"}, {"kind": "html502"}, {"kind": "status", "status": 400})
        with started(tree, tmp_path / "log", env=env) as service:
            async with aiohttp.ClientSession() as http:
                for key in (ours, ours, ours, "wrong-key-of-somebody"):
                    body = {"messages": [["user", "Привет"]]}
                    async with http.post(service.url, json=body, headers={"X-API-Key": key}) as answer:
                        await answer.read()
            service.signal()
            assert await service.gone() == 0
        shown = {
            value.split()[-1]
            for call in giga.state.calls
            for name, value in call.headers.items()
            if name == "Authorization"
        }
    assert shown or way == "refused key"
    output = service.output
    assert " DEBUG " in output
    secrets = {KEY, password, ready, ours, "wrong-key-of-somebody", *shown}
    assert [secret for secret in secrets if secret in output] == []


def test_without_its_packages_it_says_how_to_install_them(tmp_path: Path) -> None:
    """A person who types `python3 app.py` on a bare Python is not shown a traceback."""
    command = [sys.executable, "-I", "-S", str(copy_tree(tmp_path) / "app.py")]
    bare = subprocess.run(command, capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert "aiohttp is not installed" in bare.stderr and "make run" in bare.stderr
    assert "Traceback" not in bare.stderr


def test_beside_a_venv_it_says_which_python_has_its_packages(tmp_path: Path) -> None:
    """After `make run` nobody is told to install what is installed."""
    tree = copy_tree(tmp_path)
    own = tree / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    command = [sys.executable, "-I", "-S", "app.py", "status", "--gigachat-api-key=s3cret"]
    bare = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert bare.returncode == 1 and "s3cret" not in bare.stderr
    assert (
        bare.stderr
        == "this Python has no aiohttp; the one that `make run` made has: type .venv/bin/python app.py ...\n"
    )


def test_a_second_service_in_one_folder_serves_without_jobs(tmp_path: Path) -> None:
    """One file of jobs is one service's; the other one says so, and goes on."""
    (tmp_path / "tree").mkdir()
    tree = copy_tree(tmp_path / "tree")
    with started(tree, tmp_path / "one", "--sandbox") as one, started(tree, tmp_path / "two", "--sandbox") as two:
        assert "no jobs are taken" not in one.output
        assert "no jobs are taken" in two.output and "JOBS_URL" in two.output
