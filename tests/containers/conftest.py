"""These tests need a Docker engine, so they run only when this folder is named: `make test-containers`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containers.house import House, do_without, run

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = (config.invocation_params.dir / arg.partition("::")[0] for arg in config.invocation_params.args)
    return None if any(path.resolve().is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="module")
def make_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], House]]:
    if run("docker", "info").returncode:
        do_without("Docker does not answer, see `docker info`")
    houses: list[House] = []

    def make() -> House:
        houses.append(House(tmp_path_factory.mktemp("house") / "checkout"))
        return houses[-1]

    yield make
    for house in houses:
        run("docker", "rm", "--force", "--volumes", house.name)
        run("docker", "rmi", "--force", house.name)
