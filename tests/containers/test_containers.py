"""The image, rebuild.sh, run.sh and compose.yaml, built and run for real from a copy of this checkout."""

import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

REPO = Path(__file__).resolve().parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".env", "env", "*.log*", "*.sqlite*")
IS_ROOT = os.geteuid() == 0
OWNER = 12345 if IS_ROOT else os.geteuid()  # of assets, so of the service too


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with none of our variables in its environment but what Docker's client needs."""
    names = [name for name in os.environ if name in ("PATH", "HOME", "XDG_RUNTIME_DIR") or name.startswith("DOCKER_")]
    environment = {name: os.environ[name] for name in names}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def succeed(*command: str, cwd: Path | None = None) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{command} exited {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout.strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class House:
    """A copy of this checkout with its own container name, port and assets/env."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"gigachat_proxy_test_{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        shutil.copytree(REPO, path, ignore=NOT_COPIED)
        shutil.copy(path / "assets/env_example.txt", path / "assets/env")
        self.set(
            SANDBOX="on  # an inline comment",
            APP_NAME='"in a box"  # quotes too',
            PORT=f"{self.port}  # the port",
            PROXY_CONTAINER=f"{self.name}  # its name",
        )
        self.give_assets_to(OWNER)

    def set(self, **settings: str) -> None:
        """Add lines to assets/env; the last one of a name counts."""
        with (self.path / "assets/env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def give_assets_to(self, uid: int) -> None:
        if IS_ROOT:
            for path in [self.path / "assets", *(self.path / "assets").rglob("*")]:
                os.chown(path, uid, uid)

    def get(self, path: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return json.load(answer)

    def wait_until_it_answers(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.get("/health")
                return
            except (OSError, HTTPException):
                assert time.monotonic() < deadline, run("docker", "logs", self.name)
                time.sleep(0.2)

    def inspect(self, what: str) -> str:
        return succeed("docker", "container", "inspect", "--format", f"{{{{{what}}}}}", self.name)

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run("docker", "exec", self.name, *command)


@pytest.fixture(scope="module")
def make_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], House]]:
    if run("docker", "info").returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Docker does not answer, see `docker info`")
    houses: list[House] = []

    def make() -> House:
        houses.append(House(tmp_path_factory.mktemp("house") / "checkout"))
        return houses[-1]

    yield make
    for house in houses:
        run("docker", "rm", "--force", "--volumes", house.name)
        run("docker", "rmi", "--force", house.name)


@pytest.fixture(scope="module")
def house(make_house: Callable[[], House]) -> House:
    """A house whose container was started by rebuild.sh."""
    house = make_house()
    succeed("./rebuild.sh", cwd=house.path)
    return house


def test_without_assets_env_the_scripts_say_what_to_copy(make_house: Callable[[], House]) -> None:
    house = make_house()
    (house.path / "assets/env").unlink()
    for script in ("./rebuild.sh", "./run.sh"):
        result = run(script, cwd=house.path)
        assert result.returncode == 1
        assert "copy assets/env_example.txt to assets/env" in result.stderr


def test_without_an_image_run_sends_to_rebuild(make_house: Callable[[], House]) -> None:
    result = run("./run.sh", cwd=make_house().path)
    assert result.returncode == 1
    assert "run ./rebuild.sh" in result.stderr


def test_rebuild_starts_a_service_that_answers_as_the_env_file_says(house: House) -> None:
    """The port, the name and the values with inline comments all come from assets/env."""
    assert house.get("/health")
    assert house.get("/")["app"] == "in a box"
    assert succeed("docker", "port", house.name) == f"8078/tcp -> 127.0.0.1:{house.port}"
    assert house.inspect(".HostConfig.RestartPolicy.Name") == "always"


def test_the_engine_finds_it_healthy(house: House) -> None:
    deadline = time.monotonic() + 40
    while (status := house.inspect(".State.Health.Status")) == "starting" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert status == "healthy"


def test_the_service_runs_as_the_owner_of_assets_and_can_write_there(house: House) -> None:
    assert house.inside("id", "-u").stdout.strip() == str(OWNER)
    assert house.inside("sh", "-c", "echo it >/app/assets/written").returncode == 0
    assert (house.path / "assets/written").stat().st_uid == OWNER


def test_the_service_can_write_nowhere_else(house: House) -> None:
    assert house.inside("sh", "-c", "echo it >/app/written").returncode != 0
    assert house.inside("sh", "-c", "echo it >/tmp/written").returncode == 0


def test_the_image_alone_is_not_root_and_holds_no_env_file_key_or_test(house: House) -> None:
    (house.path / "assets/certificates/client.key").write_text("secret")
    (house.path / ".env").write_text("GIGACHAT_API_KEY=secret\n")
    name = f"{house.name}_bare"
    try:
        succeed("docker", "build", "--tag", name, ".", cwd=house.path)
        assert succeed("docker", "run", "--rm", "--entrypoint", "id", name, "-u") != "0"
        files = succeed("docker", "run", "--rm", "--entrypoint", "find", name, "/app", "-type", "f").splitlines()
    finally:
        (house.path / ".env").unlink()
        run("docker", "rmi", "--force", name)
    assert "/app/app.py" in files
    assert "/app/assets/certificates/russian_trusted_root_ca.pem" in files
    forbidden = ("/.git", "/tests/", "/assets/env", "/.env", ".key", "/docs/", "/.venv/")
    assert [file for file in files if any(f in file for f in forbidden) and file != "/app/assets/env_example.txt"] == []


def test_rebuild_again_replaces_the_container(house: House) -> None:
    before = house.inspect(".Id")
    succeed("./rebuild.sh", cwd=house.path)
    assert house.inspect(".Id") != before
    assert house.get("/health")


def test_run_replaces_the_container_without_building_and_passes_its_arguments_on(house: House) -> None:
    container, image = house.inspect(".Id"), house.inspect(".Image")
    succeed("./run.sh", "--app-name", "by hand", cwd=house.path)
    assert house.inspect(".Id") != container
    assert house.inspect(".Image") == image
    assert house.get("/")["app"] == "by hand"


def test_a_dotenv_file_outranks_assets_env_in_the_container_too(house: House) -> None:
    (house.path / ".env").write_text("APP_NAME=from dotenv  # comment\n")
    try:
        succeed("./run.sh", cwd=house.path)
        assert house.get("/")["app"] == "from dotenv"
    finally:
        (house.path / ".env").unlink()
        succeed("./run.sh", cwd=house.path)


def test_a_failed_build_leaves_the_old_container_running(house: House) -> None:
    before = house.inspect(".Id")
    dockerfile = house.path / "Dockerfile"
    good = dockerfile.read_text()
    dockerfile.write_text(good + "RUN false\n")
    try:
        assert run("./rebuild.sh", cwd=house.path).returncode != 0
    finally:
        dockerfile.write_text(good)
    assert house.inspect(".Id") == before
    assert house.get("/health")


def test_a_start_that_fails_is_told_with_its_log(house: House) -> None:
    house.set(EXT_API_RPM="plenty")
    try:
        result = run("./run.sh", cwd=house.path)
    finally:
        succeed("docker", "rm", "--force", house.name)
        house.set(EXT_API_RPM="")
        succeed("./run.sh", cwd=house.path)
    assert result.returncode == 1
    assert "EXT_API_RPM" in result.stderr
    assert "did not become healthy" in result.stderr


def test_sigterm_stops_it_with_exit_code_0(house: House) -> None:
    assert int(house.inspect(".Config.StopTimeout")) == 40  # DRAIN_TIMEOUT=30 and time to say goodbye
    started = time.monotonic()
    succeed("docker", "stop", house.name)
    assert time.monotonic() - started < 20
    assert house.inspect(".State.ExitCode") == "0"
    succeed("docker", "start", house.name)
    house.wait_until_it_answers()


@pytest.mark.skipif(not IS_ROOT, reason="only root can own the checkout of root")
def test_assets_of_root_are_given_to_the_user_of_the_image(house: House) -> None:
    house.give_assets_to(0)
    result = run("./run.sh", cwd=house.path)
    try:
        assert result.returncode == 0, result.stderr
        assert "must not be root" in result.stderr
        uid = house.inside("id", "-u").stdout.strip()
        user = succeed("docker", "image", "inspect", "--format", "{{.Config.User}}", house.name)
        assert uid == user.partition(":")[0] != "0"
        assert (house.path / "assets/env").stat().st_uid == int(uid)
    finally:
        house.give_assets_to(OWNER)
        succeed("./run.sh", cwd=house.path)


def test_compose_brings_it_up_and_takes_it_down(make_house: Callable[[], House]) -> None:
    """Compose takes the port and name from .env, the service its settings from assets/env and .env."""
    house = make_house()
    (house.path / ".env").write_text(
        f"PORT={house.port}  # the port\n"
        f"PROXY_CONTAINER={house.name}\n"
        f"RUN_AS={OWNER}:{OWNER}\n"
        "APP_NAME=composed  # a comment\n"
    )
    compose = ("docker", "compose", "--project-name", house.name)
    try:
        succeed(*compose, "up", "--detach", "--build", "--wait", cwd=house.path)
        assert house.get("/")["app"] == "composed"
        assert house.inspect(".State.Health.Status") == "healthy"
        assert house.inside("id", "-u").stdout.strip() == str(OWNER)
        assert house.inside("sh", "-c", "echo it >/app/assets/written").returncode == 0
        assert (house.path / "assets/written").stat().st_uid == OWNER
        succeed(*compose, "stop", cwd=house.path)
        assert house.inspect(".State.ExitCode") == "0"
    finally:
        run(*compose, "down", "--remove-orphans", cwd=house.path)
    assert run("docker", "container", "inspect", house.name).returncode != 0


def test_the_profile_replicas_is_one_service_at_the_same_address(make_house: Callable[[], House]) -> None:
    """nginx, three replicas that Redis knows of, and no single container; one that is killed costs no request."""
    house = make_house()
    (house.path / ".env").write_text(
        f"PORT={house.port}\nPROXY_CONTAINER={house.name}\nRUN_AS={OWNER}:{OWNER}\nAPP_NAME=composed\n"
    )
    compose = ("docker", "compose", "--project-name", house.name, "--profile", "replicas")
    try:
        succeed(*compose, "up", "--detach", "--build", "--wait", "nginx", cwd=house.path)
        house.wait_until_it_answers()
        assert succeed(*compose, "ps", "--services", cwd=house.path).split() == ["nginx", "redis", "replica"]
        replicas = succeed(*compose, "ps", "--quiet", "replica", cwd=house.path).split()
        assert len(replicas) == 3
        redis = (*compose, "exec", "-T", "redis", "redis-cli")
        (key,) = succeed(*redis, "keys", "gigachat-proxy:*:replicas", cwd=house.path).split()
        assert succeed(*redis, "zcard", key, cwd=house.path) == "3"
        assert house.get("/ready") == {"status": "ready", "trouble": None}
        succeed("docker", "kill", replicas[0])
        assert [house.get("/")["app"] for _ in range(6)] == ["composed"] * 6
    finally:
        run(*compose, "down", "--remove-orphans", cwd=house.path)
