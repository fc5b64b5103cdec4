"""The compose profile `replicas`: nginx, several replicas and two Redis, up for real."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException

import pytest

from containers.house import Composed, House, composed, run, succeed, until

REPLICAS = 2
CALLERS = 24
NETWORK = "172.31.79"  # not that of somebody's own replicas on this machine
JOURNAL = "/tmp/requests.jsonl"


@pytest.fixture(scope="module")
def replicas(make_house: Callable[[], House]) -> Iterator[Composed]:
    """Slow enough that callers wait in line while something happens."""
    knobs = {"APP_NAME": "composed", "EXT_API_RPM": "600", "EXT_MAX_REQUESTS": "4", "REQUESTS_LOG_FILE": JOURNAL}
    ours = {"REPLICAS": str(REPLICAS), "REPLICAS_NETWORK": NETWORK}
    with composed(make_house(), "nginx", profile="replicas", **ours, **knobs) as compose:
        compose.house.wait_until_it_answers()
        yield compose


def test_it_is_one_service_at_the_address_of_the_single_one(replicas: Composed) -> None:
    """nginx, the replicas, a Redis that knows them all, another for jobs, and no single container."""
    house = replicas.house
    assert house.get("/")["app"] == "composed"
    assert house.get("/ready") == {"status": "ready", "trouble": None}
    assert sorted(replicas("ps", "--services").split()) == ["jobs", "nginx", "redis", "replica"]
    assert len(replicas.containers("replica")) == REPLICAS
    key = replicas.inside("redis", "redis-cli", "keys", "gigachat-proxy:*:replicas")
    assert replicas.inside("redis", "redis-cli", "zcard", key) == str(REPLICAS)


def test_the_replicas_know_a_caller_from_nginx_and_from_what_it_claims(replicas: Composed) -> None:
    """They believe the nginx of their own network, and it believes nobody."""
    forged = "203.0.113.7"
    replicas.house.post("/", {"messages": [["user", "who am I?"]]}, **{"X-Forwarded-For": forged})
    lines = "\n".join(run("docker", "exec", one, "cat", JOURNAL).stdout for one in replicas.containers("replica"))
    callers = {json.loads(line)["caller"] for line in lines.splitlines() if line}
    assert callers and not callers & {forged, f"{NETWORK}.2"}


def test_what_it_writes_is_a_volume_or_nothing(replicas: Composed) -> None:
    for service in ("replica", "redis", "jobs", "nginx"):
        assert replicas.inside(service, "id", "-u") != "0"
        (container, *_) = replicas.containers(service)
        assert run("docker", "exec", container, "sh", "-c", "echo it >/written").returncode != 0


def persistent(house: House, text: str) -> int:
    """How often a caller asked until it was answered: again whenever nginx had lost the replica, or the connection."""
    for attempt in range(1, 10):
        with suppress(OSError, HTTPException):
            if house.ask(text) == 200:
                return attempt
        time.sleep(0.3)
    raise AssertionError(f"{text} was never answered")


def accepted(house: House, number: int) -> str:
    """The id of a new job."""
    job = {"body": {"messages": [["user", f"job {number}"]]}}
    status, told = house.post("/jobs", job, **{"Idempotency-Key": uuid.uuid4().hex})
    assert status == 202, told
    return str(told["id"])


def test_one_that_is_killed_costs_neither_an_answer_nor_a_job(replicas: Composed) -> None:
    """Who waited there asks again and is answered by another one; the jobs that it ran are run there."""
    house = replicas.house
    victim, *_ = replicas.containers("replica")
    with ThreadPoolExecutor(2 * CALLERS) as callers:
        jobs = [one.result() for one in [callers.submit(accepted, house, n) for n in range(CALLERS)]]
        asked = [callers.submit(persistent, house, f"{n} + 3?") for n in range(2 * CALLERS)]
        until(lambda: any(one.done() for one in asked), lambda: replicas("logs"))
        succeed("docker", "kill", victim)
        attempts = [one.result() for one in asked]
    assert len(attempts) == 2 * CALLERS and attempts.count(1) >= CALLERS // 2
    states = dict.fromkeys(jobs, "")

    def all_done() -> bool:
        states.update((job, house.get(f"/jobs/{job}")["state"]) for job in jobs if states[job] != "done")
        return set(states.values()) == {"done"}

    until(all_done, lambda: (states, replicas("logs", "replica")), 120)
    succeed("docker", "start", victim)


def test_one_that_is_stopped_fails_nobody(replicas: Composed) -> None:
    """Whoever is in its line is answered before it ends; whoever comes meanwhile asks another one."""
    house = replicas.house
    leaver = replicas.containers("replica")[-1]
    with ThreadPoolExecutor(CALLERS) as callers:
        asked = [callers.submit(house.ask, f"{n} + 3?") for n in range(CALLERS)]
        until(lambda: any(one.done() for one in asked), lambda: replicas("logs"))
        succeed("docker", "stop", leaver)
        assert [one.result() for one in asked] == [200] * CALLERS
    assert succeed("docker", "inspect", "--format", "{{.State.ExitCode}}", leaver) == "0"
    assert persistent(house, "and now?")
    succeed("docker", "start", leaver)


def test_both_redis_may_be_restarted_meanwhile(replicas: Composed) -> None:
    """What the limits know is told anew, what jobs are is on the disk, and nobody fails."""
    house = replicas.house
    with ThreadPoolExecutor(CALLERS) as callers:
        job = accepted(house, 0)
        asked = [callers.submit(house.ask, f"{n} + 3?") for n in range(CALLERS)]
        until(lambda: any(one.done() for one in asked), lambda: replicas("logs"))
        replicas("restart", "redis", "jobs")
        assert [one.result() for one in asked] == [200] * CALLERS
    until(lambda: house.get(f"/jobs/{job}")["state"] == "done", lambda: replicas("logs"))
