"""kill -9 of the service, as people run it: each accepted job gets its answer once, and few calls are made again.

The story is that of `benchmarks/jobs_kill.py`, in short. How fast anything is, is not tested here.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from processes import Process, copy_tree, started
from redis_server import RedisServer, missing

from benchmarks.jobs_kill import IN_FLIGHT, Place, Seen, moments, ordeal
from benchmarks.processes import emulated

#: Seconds for which replicas hold a job, and of a call.
LEASE, LATENCY = 5.0, 0.2
#: Seconds of a call that is sure to be in flight when something happens to who made it.
LONG = 2.0

#: The service, but for how long it holds a job.
IMPATIENT = f"""
import sys
from proxy.jobs import runner
runner.LEASE, runner.RENEWAL = {LEASE}, {LEASE / 3}
import app
sys.exit(app.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = copy_tree(tmp_path_factory.mktemp("tree"))
    (tree / "impatient.py").write_text(IMPATIENT, encoding="utf-8")
    return tree


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    if shutil.which("redis-server") is None:
        missing()
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    server.start()
    yield server.url
    server.stop()


class Stage:
    """Where it happens: services of one tree before one API, with one store. Each writes a log of its own."""

    def __init__(self, tree: Path, folder: Path, api: str, place: Place, program: str) -> None:
        self._tree = tree
        self._folder = folder
        self._program = program
        self._numbers = count()
        self._env = {
            "GIGACHAT_BASE_URL": f"{api}/v1",
            "GIGACHAT_AUTH_URL": f"{api}/api/v2/oauth",
            "GIGACHAT_API_KEY": "a-key",
            "EXT_MAX_REQUESTS": str(IN_FLIGHT),
            "DRAIN_TIMEOUT": "10",
            "JOBS_URL": str(place),
        }

    @contextmanager
    def service(self) -> Iterator[Process]:
        """One that stops in order, if it lives so long."""
        log = self._folder / f"{next(self._numbers)}.log"
        with started(self._tree, log, env=self._env, program=self._program) as process:
            yield process
            if process.process.poll() is None:
                process.signal(signal.SIGTERM)
                process.wait()


def assert_nothing_lost(seen: Seen, jobs: int) -> None:
    """And no more calls were made twice than were in flight when somebody died."""
    assert seen.accepted == jobs
    assert not seen.lost and not seen.changed
    assert seen.repeated <= seen.in_flight


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_kills_at_random_moments_every_job_has_its_answer_once(tree: Path, tmp_path: Path, seed: int):
    """60 jobs in an SQLite file, three kills while they are submitted and run; each next life begins at once."""
    place = tmp_path / "jobs.sqlite"
    with emulated(LATENCY) as api:
        stage = Stage(tree, tmp_path, api.url, place, "app.py")
        async with ordeal(api.url, stage.service, place) as run:
            seen = await run.killed_often(60, moments(60, 3, seed))
    assert_nothing_lost(seen, 60)
    assert len(seen.deaths) == 3


async def test_the_jobs_of_a_killed_replica_are_taken_over(tree: Path, tmp_path: Path, redis_url: str):
    """One of two on one Redis is killed and stays dead: the other waits for the leases to end, and runs all."""
    with emulated(LATENCY) as api:
        stage = Stage(tree, tmp_path, api.url, redis_url, "impatient.py")
        async with ordeal(api.url, stage.service, redis_url) as run:
            seen = await run.one_killed(60, 20)
    assert_nothing_lost(seen, 60)


async def test_a_late_first_runner_overwrites_nothing(tree: Path, tmp_path: Path, redis_url: str):
    """One of two stands still, with calls in flight and jobs in its line, until the other has run them all. Then it
    goes on: its answers change nothing, and what had not begun there is not called again."""
    with emulated(LONG) as api:
        stage = Stage(tree, tmp_path, api.url, redis_url, "impatient.py")
        async with ordeal(api.url, stage.service, redis_url) as run:
            seen = await run.one_held(30, IN_FLIGHT + 5)  # more than the other can have begun
    assert_nothing_lost(seen, 30)
    assert seen.repeated  # there was something to be late with
