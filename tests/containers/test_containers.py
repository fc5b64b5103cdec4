"""The image, rebuild.sh, run.sh and the single service of compose.yaml, built and run for real."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from containers.house import IS_ROOT, OWNER, House, composed, run, succeed, until


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
    until(lambda: house.inspect(".State.Health.Status") == "healthy", lambda: house.inspect("json .State.Health"), 40)


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
    forbidden = ("/.git", "/tests/", "/assets/env", "/.env", ".key", "/app/docs/", "/.venv/")
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


def test_docker_stop_waits_until_who_stands_in_line_is_answered(house: House) -> None:
    """Nobody who came before it fails, and the engine need not kill."""
    house.set(EXT_API_RPM="60")
    succeed("./run.sh", cwd=house.path)
    try:
        with ThreadPoolExecutor(4) as callers:
            asked = [callers.submit(house.ask, "2 + 3?") for _ in range(4)]
            until(lambda: house.get("/")["info"]["lane"]["waiting"] >= 2, lambda: house.get("/"))
            succeed("docker", "stop", house.name)
            assert [one.result() for one in asked] == [200] * 4
        assert house.inspect(".State.ExitCode") == "0"
    finally:
        house.set(EXT_API_RPM="")
        succeed("./run.sh", cwd=house.path)


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
    with composed(house, PORT=f"{house.port}  # the port", APP_NAME="composed  # a comment") as compose:
        assert house.get("/")["app"] == "composed"
        assert house.inspect(".State.Health.Status") == "healthy"
        assert house.inside("id", "-u").stdout.strip() == str(OWNER)
        assert house.inside("sh", "-c", "echo it >/app/assets/written").returncode == 0
        assert (house.path / "assets/written").stat().st_uid == OWNER
        compose("stop")
        assert house.inspect(".State.ExitCode") == "0"
    assert run("docker", "container", "inspect", house.name).returncode != 0
