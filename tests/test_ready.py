"""Whether new requests are served, for whoever sends them on."""

import asyncio
from pathlib import Path

from pydantic import SecretStr
from running import StartProxy, busy, until


async def test_a_running_service_is_ready_and_says_so_without_a_key(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(proxy_api_keys={"anna": SecretStr("key")})
    async with proxy.http.get(f"{proxy.url}/ready") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready", "trouble": None})


async def test_a_service_that_stops_is_not_ready_while_it_still_serves_those_who_wait(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    first = await busy(proxy, 0.5)
    stopping = asyncio.create_task(proxy.service.lanes.drain(10))
    await until(lambda: proxy.service.line.state().is_stopping)
    async with proxy.http.get(f"{proxy.url}/ready/") as response:
        assert (response.status, (await response.json())["status"]) == (503, "stopping")
    assert (await first).status == 200
    await stopping


async def test_being_asked_is_not_told_in_the_log(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Probes come every few seconds."""
    proxy = await start_proxy(requests_log_file=tmp_path / "requests.jsonl")
    async with proxy.http.get(f"{proxy.url}/ready") as response:
        assert response.status == 200
    await proxy.ask()
    await until(lambda: (tmp_path / "requests.jsonl").read_text().count("\n") == 1)
    assert '"path":"/"' in (tmp_path / "requests.jsonl").read_text()
