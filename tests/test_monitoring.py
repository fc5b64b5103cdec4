"""What is given to Prometheus and Grafana fits what the service tells, and its compose profile holds together."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import blocks_of, rows_of
from pydantic import SecretStr
from redis_server import free_port
from running import StartProxy
from scraped import Scraped, scraped

from proxy.settings import describe

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "assets" / "grafana"
OPERATIONS = ROOT / "docs" / "operations.md"
IN_CI = os.environ.get("CI", "").lower() == "true"
#: Names of series in an expression, and what Prometheus and Grafana know by themselves.
SERIES = re.compile(r"\b(?:gigachat_proxy|process|python)_\w+")
LABELS = re.compile(r'[{,]\s*(\w+)\s*(?:=~|!~|!=|=)\s*"|\b(?:by|on)\s*\(([^)]*)\)')
THEIRS = {"instance", "job", "le", "alertname", "alertstate"}


def read(path: str) -> Any:
    return yaml.safe_load((HOME / path).read_text())


BOARD: dict[str, Any] = json.loads((HOME / "dashboards" / "gigachat-proxy.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
ALERTS = [rule for group in read("alerts.yml")["groups"] for rule in group["rules"]]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = {name: one for name, one in COMPOSE["services"].items() if one.get("profiles") == ["monitoring"]}


def expressions() -> Iterator[str]:
    """All that are asked of Prometheus, but for the list of alerts."""
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (variable["definition"] for variable in BOARD["templating"]["list"] if "definition" in variable)
    yield from (rule["expr"] for rule in ALERTS)


@pytest.fixture
async def told(start_proxy: StartProxy, tmp_path: Path) -> Scraped:
    """By a service that has everything: a pace, jobs, and a Redis."""
    proxy = await start_proxy(
        ext_api_rpm=600,
        redis_url=SecretStr(f"redis://127.0.0.1:{free_port()}"),
        jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")),
    )
    return await scraped(proxy)


# ---- The dashboard and the alerts ----


async def test_every_series_that_is_asked_for_is_told(told: Scraped) -> None:
    """By the dashboard, the alerts and the document; and the document leaves out none of ours."""
    asked = {name for expression in expressions() for name in SERIES.findall(expression)}
    assert len(asked) > 25 and asked <= told.names
    described = {name for row in rows_of(OPERATIONS.read_text(), 3) for name in SERIES.findall(row[0])}
    ours = {name for name in told.families if name.startswith("gigachat_proxy_")}
    totals = {name + "_total" if told.families[name].type == "counter" else name for name in ours}
    assert {name for name in described if name.startswith("gigachat_proxy_")} == totals


def test_the_first_429_and_the_first_pause_are_seen(told: Scraped) -> None:
    """They are told as 0 before, for Prometheus sees no rise where a counter begins with 1."""
    assert ({"lane": "main", "status": "429"}, 0) in told.rows("upstream_attempts_total")
    assert ({"lane": "main"}, 0) in told.rows("pauses_total")


def test_every_label_that_is_asked_for_is_one() -> None:
    """A misspelt one would make an empty picture."""
    source = "".join((ROOT / "proxy" / name).read_text() for name in ("metrics.py", "scrape.py"))
    for expression in expressions():
        for one, several in LABELS.findall(expression):
            for label in [one] if one else re.findall(r"\w+", several):
                assert label in THEIRS or f'"{label}"' in source, (label, expression)


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Each panel has its own id, its place, and a query to the chosen source."""
    assert BOARD["uid"] == "gigachat-proxy" and len(PANELS) > 20
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["title"] and panel["targets"] and panel["datasource"]["uid"] == "${datasource}"
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters))


def test_every_alert_says_what_is_wrong_and_is_described() -> None:
    """In a sentence for who is woken up, and in docs/operations.md with what to do."""
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
    described = [row[0].strip("`") for row in rows_of(OPERATIONS.read_text(), 2) if row[0].startswith("`GigachatProxy")]
    assert described == names


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        (pytest.fail if IN_CI else pytest.skip)("promtool is not installed (Debian, Ubuntu: apt install prometheus)")
    return program


def complaint(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if not found.returncode else found.stdout + found.stderr


def test_prometheus_takes_the_rules_and_the_settings(promtool: str, tmp_path: Path) -> None:
    """Its own tool reads them; those of the document, too."""
    key = tmp_path / "key"
    key.write_text("key")
    for name, text in (("compose", (HOME / "prometheus.yml").read_text()), ("document", example())):
        settings = tmp_path / f"{name}.yml"
        settings.write_text(re.sub(r"credentials_file: \S+", f"credentials_file: {key}", text))
        shutil.copy(HOME / "alerts.yml", tmp_path)
        assert complaint(promtool, "check", "config", str(settings)) == ""


#: By alert, what Prometheus reads every minute for a quarter of an hour.
TROUBLES = {
    "GigachatProxyDown": {"up": "0x15"},
    "GigachatProxyNotReady": {"gigachat_proxy_ready": "0x15"},
    "GigachatProxyCredentialRefused": {'gigachat_proxy_errors_total{code="credential_refused"}': "0+1x15"},
    "GigachatProxyUpstreamFailing": {
        'gigachat_proxy_upstream_attempts_total{lane="main", status="200"}': "0+60x15",
        'gigachat_proxy_upstream_attempts_total{lane="main", status="502"}': "0+30x15",
    },
    "GigachatProxyThrottled": {
        'gigachat_proxy_upstream_attempts_total{lane="main", status="200"}': "0+60x15",
        'gigachat_proxy_upstream_attempts_total{lane="main", status="429"}': "0+6x15",
    },
    "GigachatProxyQueueFillsUp": {
        'gigachat_proxy_queue_depth{lane="main"}': "90x15",
        'gigachat_proxy_queue_limit{lane="main"}': "100x15",
    },
    "GigachatProxyRefusing": {'gigachat_proxy_errors_total{code="line_full"}': "0+1x15"},
    "GigachatProxyPaceUnused": {
        'gigachat_proxy_pace_utilisation_ratio{lane="main"}': "0.5x15",
        'gigachat_proxy_queue_depth{lane="main"}': "9x15",
        'gigachat_proxy_held{lane="main"}': "0x15",
    },
    "GigachatProxyHeld": {
        'gigachat_proxy_held{lane="main"}': "1x45",
        'gigachat_proxy_queue_depth{lane="main"}': "1x45",
    },
    "GigachatProxyLimitsNotKept": {'gigachat_proxy_limits_kept{lane="main"}': "0x15"},
    "GigachatProxyJobsStoreDown": {"gigachat_proxy_jobs_store_up": "0x15"},
    "GigachatProxyJobsStoreFillsUp": {
        'gigachat_proxy_jobs{state="queued"}': "60x15",
        'gigachat_proxy_jobs{state="ended"}': "30x15",
        "gigachat_proxy_jobs_limit": "100x15",
    },
    "GigachatProxyOpenFiles": {"process_open_fds": "95x15", "process_max_fds": "100x15"},
}
#: What is in order, though it may look like trouble.
ORDER = {
    "a fifth of the calls is cancelled by operators": {
        'gigachat_proxy_upstream_attempts_total{lane="main", status="200"}': "0+60x15",
        'gigachat_proxy_upstream_attempts_total{lane="main", status="cancelled"}': "0+30x15",
        'gigachat_proxy_upstream_attempts_total{lane="main", status="left"}': "0+30x15",
    },
    "nobody waits": {
        'gigachat_proxy_pace_utilisation_ratio{lane="main"}': "0.1x15",
        'gigachat_proxy_queue_depth{lane="main"}': "0x15",
        'gigachat_proxy_held{lane="main"}': "1x15",
    },
}


def alarmed(promtool: str, home: Path, series: dict[str, str], alert: str, *, fires: bool) -> str:
    """What Prometheus's own tool complains of if this alert should fire in the end, or should not."""
    at = max(int(values.rpartition("x")[2]) for values in series.values())
    inputs = [{"series": labelled(name), "values": values} for name, values in {"up": "1x45", **series}.items()]
    query = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
    expected = {"expr": f"count({query}) or vector(0)", "eval_time": f"{at}m", "exp_samples": [{"value": int(fires)}]}
    tests = [{"interval": "1m", "input_series": inputs, "promql_expr_test": [expected]}]
    file = home / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(HOME / "alerts.yml")], "tests": tests}))
    return complaint(promtool, "test", "rules", str(file))


def labelled(name: str) -> str:
    """With what Prometheus itself says of where it comes from."""
    name, _, labels = name.partition("{")
    return f'{name}{{job="gigachat-proxy", instance="one:8078"{", " + labels if labels else "}"}'


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_fires_when_there_is_what_it_is_for(promtool: str, tmp_path: Path, alert: str) -> None:
    assert alarmed(promtool, tmp_path, TROUBLES[alert], alert, fires=True) == ""


@pytest.mark.parametrize("order", ORDER.values(), ids=ORDER)
def test_no_alert_fires_where_all_is_in_order(promtool: str, tmp_path: Path, order: dict[str, str]) -> None:
    for alert in TROUBLES:
        assert alarmed(promtool, tmp_path, order, alert, fires=False) == ""


def test_prometheus_takes_every_query_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    """As if each were a rule."""
    filled = [
        expression.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$lane", ".*")
        for expression in expressions()
    ]
    rules = [
        {"record": f"query:{number}", "expr": expression}
        for number, expression in enumerate(filled)
        if not expression.startswith("label_values(")
    ]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert len(rules) > 40 and complaint(promtool, "check", "rules", str(file)) == ""


def example() -> str:
    """Prometheus's settings in the document."""
    (block,) = [block for block in blocks_of(OPERATIONS) if block.language == "yaml"]
    return block.text


# ---- The compose profile ----


def test_the_profile_is_prometheus_and_grafana_with_fixed_versions() -> None:
    """Who starts it next year gets what was tried."""
    assert OURS.keys() == {"prometheus", "grafana"}
    for one in OURS.values():
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", one["image"])


@pytest.mark.parametrize("name", OURS)
def test_no_container_of_it_may_do_more_than_it_needs(name: str) -> None:
    """Not root, nothing to write to but a volume of its own and its tmpfs; Grafana is for this machine alone."""
    one = OURS[name]
    assert not one["user"].startswith("0") and one["restart"] == "always"
    assert one["read_only"] and one["cap_drop"] == ["ALL"] and one["security_opt"] == ["no-new-privileges:true"]
    mounts = [volume.split(":") for volume in one["volumes"]]
    assert [mount[0] for mount in mounts if mount[-1] != "ro,z"] == [name] and name in COMPOSE["volumes"]
    assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))


@pytest.mark.parametrize("name", OURS)
def test_what_it_mounts_is_there(name: str) -> None:
    for volume in OURS[name]["volumes"]:
        source = volume.split(":")[0]
        assert not source.startswith(".") or (ROOT / source).exists()


def test_prometheus_finds_the_service_and_shows_it_the_operators_key() -> None:
    """The single one and the replicas, by the names that compose gives them."""
    (job,) = read("prometheus.yml")["scrape_configs"]
    (search,) = job["dns_sd_configs"]
    environment = COMPOSE["services"]["gigachat_proxy"]["environment"]
    assert set(search["names"]) == {"gigachat_proxy", "replica"} <= COMPOSE["services"].keys()
    assert search["port"] == environment["PORT"]
    prometheus = OURS["prometheus"]
    assert {"default", *COMPOSE["services"]["replica"]["networks"]} == set(prometheus["networks"])
    (script,) = prometheus["command"]
    assert '"$${ADMIN_API_KEY:?' in script and f">{job['authorization']['credentials_file']}\n" in script
    assert prometheus["environment"] == {"ADMIN_API_KEY": "${ADMIN_API_KEY:-}"}
    assert "ADMIN_API_KEY" in {knob.name for knob in describe()}
    targets = {volume.split(":")[1] for volume in prometheus["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in read("prometheus.yml")["rule_files"]} < targets


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    (source,) = read("provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["isDefault"]
    (provider,) = read("provisioning/dashboards/gigachat-proxy.yml")["providers"]
    targets = {volume.split(":")[1] for volume in OURS["grafana"]["volumes"]}
    assert {provider["options"]["path"], "/etc/grafana/provisioning"} < targets
    front = Path(OURS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (HOME / "dashboards" / front.name).is_file() and str(front.parent) == provider["options"]["path"]


def test_alerts_and_dashboard_are_for_the_same_job() -> None:
    """The one that Prometheus is told of, here and in the document."""
    jobs = {
        job["job_name"]
        for text in (example(), (HOME / "prometheus.yml").read_text())
        for job in yaml.safe_load(text)["scrape_configs"]
    }
    asked = set(re.findall(r'job="([^"]+)"', " ".join(expressions())))
    assert asked == jobs == {"gigachat-proxy"}
