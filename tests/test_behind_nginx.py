"""Behind a real nginx no answer is lost, however it is set up and whoever asks."""

import asyncio
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import gigachat
import httpx
import pytest
from running import Proxy, StartProxy, busy, chat

IN_CI = os.environ.get("CI", "").lower() == "true"

#: How people set nginx up before a service like ours. The first betrays itself by headers, the second by HTTP/1.0,
#: the third by its `Connection: close`, and the others by nothing but the order of their headers.
SETUPS = {
    "typical": """
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
    """,
    "host only": "proxy_set_header Host $host;",
    "host only, HTTP/1.1": "proxy_http_version 1.1; proxy_set_header Host $host;",
    "keep-alive": """
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection "";
    """,
    "keep-alive, client's word": """
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection $http_connection;
    """,
    "unbuffered": """
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_request_buffering off;
        proxy_buffering off;
    """,
}

CONFIG = """
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    upstream service {{ server {upstream}; keepalive 16; }}
    {servers}
}}
"""
#: Where it is, so that it may call the service as it likes: one of the setups keeps no name at all.
NGINX = "127.0.0.1"
SERVER = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://service; {setup} }} }}"

StartNginx = Callable[[Proxy], Awaitable[dict[str, str]]]


@pytest.fixture
async def start_nginx(tmp_path: Path, unused_tcp_port_factory: Callable[[], int]) -> AsyncIterator[StartNginx]:
    """`await start_nginx(proxy)`: one nginx before this proxy; the address of each of its SETUPS."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        (pytest.fail if IN_CI else pytest.skip)("nginx is not installed (Debian, Ubuntu: apt install nginx-light)")
    async with AsyncExitStack() as stack:

        async def start(proxy: Proxy) -> dict[str, str]:
            ports = {name: unused_tcp_port_factory() for name in SETUPS}
            servers = "\n".join(SERVER.format(port=ports[name], setup=setup) for name, setup in SETUPS.items())
            config = tmp_path / "nginx.conf"
            config.write_text(CONFIG.format(home=tmp_path, upstream=proxy.url.removeprefix("http://"), servers=servers))
            await stack.enter_async_context(
                nginx([program, "-c", str(config), "-p", str(tmp_path)], list(ports.values()))
            )
            return {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}

        yield start


@asynccontextmanager
async def nginx(command: list[str], ports: list[int]) -> AsyncIterator[None]:
    """It runs, and listens on all of these."""
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(10):
            for port in ports:
                while not await listens(port):
                    assert process.returncode is None, (await process.communicate())[1].decode()
                    await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


# -- who asks

AGENTS = ["GigaChat-python-lib", "OpenAI/Python 2.7.1", "AsyncOpenAI/Python 2.7.1", "python-httpx/0.28.1"]
PATIENCE = 20.0


async def by_httpx(url: str, number: int) -> str:
    streaming = number % 2 == 0
    async with httpx.AsyncClient(timeout=PATIENCE, headers={"User-Agent": AGENTS[number // 2 % 4]}) as client:
        response = await client.post(url, json=chat(stream=streaming))
    return verdict(response.status_code, response.text, streaming)


async def by_aiohttp(url: str, number: int) -> str:
    streaming = number % 2 == 0
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as client,
        client.post(url, json=chat(stream=streaming)) as response,
    ):
        return verdict(response.status, await response.text(), streaming)


async def by_curl(url: str, number: int) -> str:
    streaming = number % 2 == 0
    body = json.dumps(chat(stream=streaming))
    command = ["curl", "-sS", "--max-time", f"{PATIENCE:g}", "-w", "%{stderr}%{http_code}", url, "-d", body]
    curl = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    answer, status = await curl.communicate()
    return verdict(int(status), answer.decode(), streaming) if status.isdigit() else status.decode()


async def by_sdk(url: str, number: int) -> str:
    async with gigachat.GigaChat(base_url=f"{url}/api/v1", model="GigaChat-2", timeout=PATIENCE) as client:
        if number % 2:
            text = (await client.achat("Привет")).choices[0].message.content
        else:
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in client.astream("Привет")])
    return "answered" if text else "empty"


def verdict(status: int, text: str, streaming: bool) -> str:
    """The answer must be there whole, and nothing but it."""
    if status == 200 and streaming and text.endswith("data: [DONE]\n\n") and "HTTP/1.1" not in text:
        return "answered"
    if status == 200 and not streaming and json.loads(text)["status"] == "ok":
        return "answered"
    return f"{status} {text[:200]}"


async def outcome(ask: Callable[[str, int], Awaitable[str]], url: str, number: int) -> str:
    try:
        return await ask(url, number)
    except (
        gigachat.exceptions.GigaChatException,
        httpx.HTTPError,
        aiohttp.ClientError,
        TimeoutError,
        ValueError,
    ) as error:
        return f"{ask.__name__}: {error!r}"


#: Fifty: thirty-two by httpx under each of its names, eight by aiohttp, eight by the SDK, two by curl if it is there.
CLIENTS = [by_httpx] * 32 + [by_aiohttp] * 8 + [by_sdk] * 8 + [by_curl if shutil.which("curl") else by_httpx] * 2


async def test_no_answer_is_lost_behind_nginx(start_proxy: StartProxy, start_nginx: StartNginx) -> None:
    """Fifty callers at once through each setup, plain and streaming, all wait several seconds; all are answered."""
    proxy = await start_proxy(
        trusted_proxies=NGINX, ext_max_requests=1, heartbeat_interval=0.3, stream_early_200=1, resp_timeout=3600
    )
    first = await busy(proxy, 3)
    urls = await start_nginx(proxy)
    calls = [
        (name, asyncio.create_task(outcome(ask, url, n))) for name, url in urls.items() for n, ask in enumerate(CLIENTS)
    ]
    found = {name: Counter[str]() for name in urls}
    for name, call in calls:
        found[name][await call] += 1
    assert found == {name: {"answered": 50} for name in urls}
    await first


async def test_comments_come_through_nginx_while_a_stream_waits(
    start_proxy: StartProxy, start_nginx: StartNginx
) -> None:
    """nginx is told not to hold them back, so that neither it nor the client runs out of patience."""
    proxy = await start_proxy(trusted_proxies=NGINX, ext_max_requests=1, heartbeat_interval=0.2, stream_early_200=0.3)
    urls = await start_nginx(proxy)
    first = await busy(proxy, 1.5)

    async def first_line(url: str) -> tuple[bytes, float]:
        since = time.monotonic()
        async with proxy.http.post(url, json=chat(stream=True)) as response:
            return await response.content.readline(), time.monotonic() - since

    for line, seconds in await asyncio.gather(*map(first_line, urls.values())):
        assert line.startswith(b": queued position=")
        assert seconds < 1.2
    await first


async def test_a_stream_that_is_cut_is_no_whole_answer_behind_nginx(
    start_proxy: StartProxy, start_nginx: StartNginx
) -> None:
    """GigaChat's dialect cuts the connection. nginx passes that on, over HTTP/1.0 too."""
    proxy = await start_proxy(trusted_proxies=NGINX)
    for url in (await start_nginx(proxy)).values():
        proxy.giga.state.faults.add({"kind": "cut_stream", "after_chunks": 2})
        async with gigachat.GigaChat(base_url=f"{url}/api/v1", model="GigaChat-2", timeout=PATIENCE) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                assert not [chunk async for chunk in client.astream("Привет")]


async def test_a_refusal_keeps_its_status_behind_nginx(start_proxy: StartProxy, start_nginx: StartNginx) -> None:
    """The API's own 402 and our 504, after a wait."""
    proxy = await start_proxy(trusted_proxies=NGINX, exp_resp_timeout=0.5, heartbeat_interval=0.1)
    for url in (await start_nginx(proxy)).values():
        proxy.giga.state.faults.add({"kind": "status", "status": 402}, {"kind": "stall"})
        statuses: list[Any] = []
        for _ in range(2):
            async with httpx.AsyncClient(timeout=PATIENCE) as client:
                response = await client.post(url, json=chat())
            statuses.append((response.status_code, response.json()["data"]))
        assert statuses == [(402, {}), (504, {})]
