"""These tests need a Docker engine, so they run only when this folder is named: `make test-containers`."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = (config.invocation_params.dir / arg.partition("::")[0] for arg in config.invocation_params.args)
    return None if any(path.resolve().is_relative_to(HERE) for path in named) else True
