"""The compose profile `monitoring`: Prometheus and Grafana, up for real beside a service that is busy."""

import base64
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
import yaml

from containers.house import REPO, Composed, composed, free_port, run, succeed, until

HOME = REPO / "assets" / "grafana"
BOARD: dict[str, Any] = json.loads((HOME / "dashboards" / "gigachat-proxy.json").read_text())
ALERTS = [rule for group in yaml.safe_load((HOME / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
#: What nobody has to see: the operator's key, the credential, Grafana's password.
SECRETS = {
    "ADMIN_API_KEY": "operators-own-word",
    "GIGACHAT_API_KEY": "c2VjcmV0OndvcmQ=",
    "GRAFANA_PASSWORD": "pass-word",
}
EMULATOR = "http://127.0.0.1:8079/api"
#: An API that refuses a second call in flight, before which four are let out: it answers 429.
KNOBS = {
    "SANDBOX": "off",
    "GIGACHAT_BASE_URL": f"{EMULATOR}/v1",
    "GIGACHAT_AUTH_URL": f"{EMULATOR}/v2/oauth",
    "EXT_API_RPM": "1200",
    "EXT_MAX_REQUESTS": "4",
    "LOG_LEVEL": "DEBUG",
    "REPLICAS_NETWORK": "172.31.80",
}


class Watched:
    """A service with its Prometheus and its Grafana."""

    def __init__(self, compose: Composed, grafana: str) -> None:
        self.compose = compose
        self.house = compose.house
        self._grafana = grafana

    def prometheus(self, path: str) -> Any:
        """What its API says."""
        told = self.compose.inside("prometheus", "wget", "-qO-", f"http://127.0.0.1:9090/api/v1/{path}")
        return json.loads(told)["data"]

    def query(self, expression: str) -> list[Any]:
        filled = expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$lane", ".*")
        found: list[Any] = self.prometheus(f"query?query={quote(filled)}")["result"]
        return found

    def grafana(self, path: str) -> Any:
        """What its API tells its administrator."""
        login = base64.b64encode(f"admin:{SECRETS['GRAFANA_PASSWORD']}".encode()).decode()
        with urlopen(Request(self._grafana + path, headers={"Authorization": f"Basic {login}"}), timeout=10) as answer:
            return json.load(answer)

    def be_busy(self) -> None:
        """Callers of every kind, so that every series has something to tell."""
        with ThreadPoolExecutor(12) as callers:
            for _ in range(3):
                for path, body in REQUESTS:
                    callers.submit(self.house.post, path, body)
            callers.submit(self._leave)

    def _leave(self) -> None:
        """A caller that loses patience."""
        body = json.dumps({"messages": [["user", "I am gone"]]}).encode()
        with suppress(OSError, HTTPException):
            urlopen(Request(f"http://127.0.0.1:{self.house.port}/", body), timeout=0.05).close()


CHAT = {"messages": [{"role": "user", "content": "2 + 3?"}]}
REQUESTS = [
    ("/", CHAT),
    ("/", {"messages": []}),
    ("/v1/chat/completions", {"model": "GigaChat-2", **CHAT}),
    ("/v1/chat/completions", {"model": "GigaChat-2", "stream": True, **CHAT}),
    ("/v1/embeddings", {"input": "2 + 3"}),
    ("/jobs", {"body": CHAT}),
]


@pytest.fixture(scope="module")
def watched(make_house: Callable[..., Any]) -> Iterator[Watched]:
    house, port = make_house(), free_port()
    with composed(house, profile="monitoring", GRAFANA_PORT=str(port), **KNOBS, **SECRETS) as compose:
        api = ["python", "-m", "emulator", "--concurrency", "1", "--latency", "0.1"]
        succeed("docker", "exec", "--detach", house.name, *api)
        yield Watched(compose, f"http://127.0.0.1:{port}")


def test_prometheus_finds_the_service_and_is_let_in(watched: Watched) -> None:
    """By its name in compose, with the operator's key."""
    seen: list[Any] = []

    def is_up() -> bool:
        seen[:] = watched.prometheus("targets")["activeTargets"]
        return [target["health"] for target in seen] == ["up"]

    until(is_up, lambda: seen, 60)
    assert seen[0]["discoveredLabels"]["__meta_dns_name"] == "gigachat_proxy"
    assert not seen[0]["lastError"]


def test_every_alert_is_loaded_and_can_be_judged(watched: Watched) -> None:
    rules: list[Any] = []

    def are_judged() -> bool:
        rules[:] = [rule for group in watched.prometheus("rules")["groups"] for rule in group["rules"]]
        return {rule["health"] for rule in rules} == {"ok"}

    until(are_judged, lambda: rules, 60)
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in ALERTS]


def test_every_query_of_the_dashboard_has_an_answer(watched: Watched) -> None:
    """But for that about Redis, which this service has not."""
    asked = [target["expr"] for panel in BOARD["panels"] for target in panel.get("targets", [])]
    empty: list[str] = []

    def are_answered() -> bool:
        watched.be_busy()
        empty[:] = [expression for expression in asked if not watched.query(expression)]
        return len(empty) <= 1

    until(are_answered, lambda: (empty, watched.compose("logs", "gigachat_proxy")), 120)
    assert ["redis_up" in expression for expression in empty] == [True]


def test_grafana_has_the_dashboard_and_reaches_prometheus(watched: Watched) -> None:
    """It is the first page, and the data source is the one that its panels choose from."""
    assert watched.grafana("/api/health")["database"] == "ok"
    titles = [panel["title"] for panel in BOARD["panels"]]
    for path in (f"/api/dashboards/uid/{BOARD['uid']}", "/api/dashboards/home"):
        assert [panel["title"] for panel in watched.grafana(path)["dashboard"]["panels"]] == titles
    (variable,) = [one for one in BOARD["templating"]["list"] if one["type"] == "datasource"]
    source = watched.grafana("/api/datasources/uid/prometheus")
    assert source["type"] == variable["query"] and source["isDefault"]
    assert watched.grafana("/api/datasources/uid/prometheus/health")["status"] == "OK"


def test_nothing_of_it_is_root_or_writes_beside_its_volume(watched: Watched) -> None:
    for service in ("gigachat_proxy", "prometheus", "grafana"):
        assert watched.compose.inside(service, "id", "-u") != "0"
        (container,) = watched.compose.containers(service)
        assert run("docker", "exec", container, "sh", "-c", "echo it >/written").returncode != 0


def test_no_log_tells_a_secret(watched: Watched) -> None:
    """Not even with all details."""
    logs = watched.compose("logs")
    assert "DEBUG" in logs
    assert [name for name, secret in SECRETS.items() if secret in logs] == []


def test_an_alert_goes_off_when_the_service_is_gone(watched: Watched) -> None:
    """Its name goes with it, so that Prometheus has no target left to find dead."""
    (down,) = [rule["expr"] for rule in ALERTS if rule["alert"] == "GigachatProxyDown"]
    assert watched.query(down) == []
    watched.compose("stop", "gigachat_proxy")
    until(lambda: watched.query(down) != [], lambda: watched.query("up"), 60)
    until(lambda: watched.query('ALERTS{alertname="GigachatProxyDown"}') != [], lambda: watched.prometheus("rules"), 60)
