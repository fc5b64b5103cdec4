"""What docs/scaling.md gives to copy is whole: compose's profile, nginx's part of it, the manifests, Redis's rights."""

import asyncio
import io
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import blocks_of, rows_of
from redis_server import RedisServer
from running import Proxy, StartProxy, busy, chat, until
from test_behind_nginx import IN_CI, nginx

from proxy.limits.address import Address
from proxy.limits.link import RedisLink
from proxy.limits.shared import SharedLimits
from proxy.settings import Settings, describe

ROOT = Path(__file__).resolve().parent.parent
SCALING = ROOT / "docs" / "scaling.md"
CONFIG = (ROOT / "assets" / "nginx.conf").read_text()
KNOBS = {name for knob in describe() for name in (knob.name, *knob.aliases)}


def seconds(config: str, directive: str) -> float:
    """What nginx is told."""
    (told,) = re.findall(rf"^\s*{directive} (\d+)s;", config, re.M)
    return float(told)


# ---- compose.yaml ----


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return told


def test_without_the_profile_compose_starts_the_one_service_as_before(compose: dict[str, Any]) -> None:
    """It wants no Redis and keeps its name, its port and its folder."""
    (name,) = [name for name, service in compose["services"].items() if "profiles" not in service]
    service = compose["services"][name]
    assert name == "gigachat_proxy" and "depends_on" not in service
    assert service["container_name"] == "${PROXY_CONTAINER:-gigachat_proxy}"
    assert service["volumes"] == ["./assets:/app/assets:z"] and not service["environment"].keys() - {"HOST", "PORT"}


def test_the_profile_has_redis_three_replicas_and_nginx(compose: dict[str, Any]) -> None:
    """Only nginx is published, at the address of the single service; all that they need of each other is there."""
    services = compose["services"]
    ours = {name: service for name, service in services.items() if service.get("profiles") == ["replicas"]}
    assert ours.keys() == {"redis", "jobs", "replica", "nginx"}
    assert [name for name, service in ours.items() if "ports" in service] == ["nginx"]
    assert ours["nginx"]["ports"] == services["gigachat_proxy"]["ports"]
    assert ours["nginx"]["volumes"] == ["./assets/nginx.conf:/etc/nginx/nginx.conf:ro,z"]
    assert ours["replica"]["deploy"]["replicas"] == "${REPLICAS:-3}" and "container_name" not in ours["replica"]
    environment = ours["replica"]["environment"]
    assert environment.keys() <= KNOBS
    assert Address(environment["REDIS_URL"]).text == "redis://redis:6379/0"
    assert Address(environment["JOBS_URL"]).text == "redis://jobs:6379/0"
    assert environment["TRUSTED_PROXIES"] == ours["nginx"]["networks"]["replicas"]["ipv4_address"]


def test_what_jobs_are_told_is_on_a_disk_before_their_callers_hear_so(compose: dict[str, Any]) -> None:
    """Unlike what the limits know, which is worth seconds."""
    jobs, limits = compose["services"]["jobs"], compose["services"]["redis"]
    assert jobs["command"][1:5] == ["--appendonly", "yes", "--appendfsync", "always"]
    assert jobs["volumes"] == ["jobs:/data"] and "jobs" in compose["volumes"] and not jobs["tmpfs"]
    assert "volumes" not in limits and limits["tmpfs"] == ["/data"]


@pytest.mark.parametrize("name", ["gigachat_proxy", "replica", "redis", "jobs", "nginx"])
def test_no_container_may_do_more_than_it_needs(compose: dict[str, Any], name: str) -> None:
    """Not root, nothing but its tmpfs to write to, no capabilities; it comes back after a crash."""
    service = compose["services"][name]
    assert not service["user"].startswith("0") and service["restart"] == "always"
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


# ---- nginx ----


@pytest.fixture
async def before(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[Any]:
    """`await before(first, second)`: nginx with our file, these addresses in Docker's place; its own address."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        (pytest.fail if IN_CI else pytest.skip)("nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
    async with AsyncExitStack() as stack:

        async def start(*addresses: str) -> str:
            port = unused_tcp_port_factory()
            servers = " ".join(f"server {address};" for address in addresses)
            config = tmp_path / "nginx.conf"
            config.write_text(
                CONFIG.replace("listen 8078 ", f"listen 127.0.0.1:{port} ")
                .replace("/tmp/", f"{tmp_path}/")
                .replace("replica:8078;", "replicas;")
                .replace("    server {", f"    upstream replicas {{ {servers} }}\n    server {{", 1)
            )
            command = [program, "-c", str(config), "-p", str(tmp_path), "-g", "daemon off; master_process off;"]
            check = await asyncio.create_subprocess_exec(*command, "-t", stderr=asyncio.subprocess.PIPE)
            told = (await check.communicate())[1].decode()
            assert check.returncode == 0 and "[warn]" not in told, told
            await stack.enter_async_context(nginx(command, [port]))
            return f"http://127.0.0.1:{port}"

        yield start


def address_of(proxy: Proxy) -> str:
    return proxy.url.removeprefix("http://")


async def test_a_stream_that_waits_behind_our_nginx_is_heard_at_once(start_proxy: StartProxy, before: Any) -> None:
    """Its comments come while it waits, its chunks as they are written, to the end."""
    proxy = await start_proxy(
        trusted_proxies="127.0.0.1", ext_max_requests=1, heartbeat_interval=0.1, stream_early_200=0.1
    )
    url = await before(address_of(proxy))
    first = await busy(proxy, 1)
    async with proxy.http.post(url, json=chat(stream=True)) as response:
        assert (await response.content.readline()).startswith(b": queued position=")
        assert not first.done()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    assert (await first).status == 200


async def test_our_nginx_says_who_calls_whatever_the_caller_claims(
    start_proxy: StartProxy, before: Any, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    proxy = await start_proxy(trusted_proxies="127.0.0.1", requests_log_file=log)
    url = await before(address_of(proxy))
    async with proxy.http.post(url, json=chat(), headers={"X-Forwarded-For": "198.51.100.7"}) as response:
        assert response.status == 200
    await until(lambda: log.exists() and log.read_text().endswith("\n"))
    assert json.loads(log.read_text())["caller"] == "127.0.0.1"


async def test_a_replica_that_is_not_there_costs_no_request(
    start_proxy: StartProxy, before: Any, unused_tcp_port: int
) -> None:
    """nginx takes another one, and sends nothing twice."""
    proxy = await start_proxy(trusted_proxies="127.0.0.1")
    url = await before(f"127.0.0.1:{unused_tcp_port}", address_of(proxy))
    for number in range(4):
        async with proxy.http.post(url, json=chat(str(number))) as response:
            assert response.status == 200
    assert await proxy.sent_texts() == ["0", "1", "2", "3"]


async def test_a_body_that_is_too_large_is_refused_by_the_service_in_its_own_words(
    start_proxy: StartProxy, before: Any
) -> None:
    """nginx would say so from 1 MB on, in HTML."""
    proxy = await start_proxy(trusted_proxies="127.0.0.1", max_body_bytes=1_500_000)
    url = await before(address_of(proxy))
    body = io.BytesIO(json.dumps(chat("x" * 2_000_000)).encode())
    async with proxy.http.post(url, data=body) as response:
        assert (response.status, (await response.json())["app"]) == (413, "gigachat-proxy")


def test_our_nginx_waits_longer_than_the_service() -> None:
    assert seconds(CONFIG, "proxy_read_timeout") > Settings.model_fields["resp_timeout"].default


# ---- docs/scaling.md ----


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name."""
    (block,) = [block for block in blocks_of(SCALING) if block.language == "yaml"]
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(block.text)}


Manifests = dict[tuple[str, str], dict[str, Any]]


def test_the_manifests_belong_together(manifests: Manifests) -> None:
    """Services and the disruption budget find their pods; ports and secrets have the names that are used."""
    for name in ("gigachat-proxy", "gigachat-redis"):
        deployment = manifests["Deployment", name]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert labels == deployment["selector"]["matchLabels"] == manifests["Service", name]["spec"]["selector"]
        (container,) = deployment["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {port["targetPort"] for port in manifests["Service", name]["spec"]["ports"]} == ports.keys()
        secret = manifests["Secret", "gigachat-proxy"]["stringData"]
        for variable in container["env"]:
            if "valueFrom" in variable:
                source = variable["valueFrom"]["secretKeyRef"]
                assert source["name"] == "gigachat-proxy" and source["key"] in secret
    budget = manifests["PodDisruptionBudget", "gigachat-proxy"]["spec"]
    assert budget["selector"] == manifests["Deployment", "gigachat-proxy"]["spec"]["selector"]
    assert 0 < budget["minAvailable"] < manifests["Deployment", "gigachat-proxy"]["spec"]["replicas"]


def test_the_manifests_set_what_exists_to_what_is_allowed(manifests: Manifests) -> None:
    """The service starts with them; its Redis is the one beside it."""
    (container,) = manifests["Deployment", "gigachat-proxy"]["spec"]["template"]["spec"]["containers"]
    secret = manifests["Secret", "gigachat-proxy"]["stringData"]
    environment = {one["name"]: one.get("value") or secret[one["name"]] for one in container["env"]}
    assert environment.keys() <= KNOBS
    settings = Settings(**{name.lower(): value for name, value in environment.items()})
    assert settings.redis_url is not None
    redis = manifests["Service", "gigachat-redis"]
    assert (
        Address(settings.redis_url.get_secret_value()).text
        == f"redis://{redis['metadata']['name']}:{redis['spec']['ports'][0]['port']}/0"
    )
    assert secret["REDIS_PASSWORD"] in settings.redis_url.get_secret_value()


async def test_the_probes_ask_what_the_service_answers(manifests: Manifests, start_proxy: StartProxy) -> None:
    """And a stop has the time that it takes."""
    pod = manifests["Deployment", "gigachat-proxy"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    proxy = await start_proxy()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        async with proxy.http.get(proxy.url + container[probe]["httpGet"]["path"]) as response:
            assert response.status == 200
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    drain = float(next(one["value"] for one in container["env"] if one["name"] == "DRAIN_TIMEOUT"))
    pause = float(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] >= pause + drain + 10


def test_every_form_of_address_in_the_table_is_one() -> None:
    forms = [row[0].strip("`") for row in rows_of(SCALING.read_text(), 2) if "://" in row[0]]
    assert len(forms) == 5
    for form in forms:
        if not form.endswith("..."):
            assert Address(form.replace("?ssl_ca_certs=/app/assets/ca.pem", ""))


async def test_the_rights_that_the_document_names_are_enough_for_redis(tmp_path: Path) -> None:
    """With them and no others an account's limits are kept."""
    text = SCALING.read_text()
    (rights,), (names,) = re.findall(r"`(\+@[^`]+)`", text), re.findall(r"`(~[^`]+)`", text)
    server = RedisServer(tmp_path / "redis")
    await asyncio.to_thread(server.start)
    try:
        server.client.execute_command("ACL", "SETUSER", "limited", "on", ">word", *rights.split(), *names.split())
        server.client.execute_command("ACL", "SETUSER", "default", "resetpass", "nopass", "-@all", "+acl", "+ping")
        link = RedisLink(f"redis://limited:word@127.0.0.1:{server.port}/0")
        await link.start()
        limits = SharedLimits(link, "account", rpm=6000, concurrency=1)
        limits.start()
        try:
            async with asyncio.timeout(20):
                for _ in range(2):
                    permit = await limits.acquire()
                    await permit.gate()
                    permit.throttled(0.05)
                    permit.release()
            assert link.is_connected and not limits.trouble
        finally:
            await limits.close()
            await link.close()
    finally:
        await asyncio.to_thread(server.stop)
