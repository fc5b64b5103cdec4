"""An HTTP proxy as companies have them, in a process of its own: CONNECT and absolute-form, one request a connection.

    python forward_proxy.py PORT LOG [user:password | STATUS]

Whatever address it is asked for, it leads to PORT of 127.0.0.1. LOG gets a line of JSON for each request. With
`user:password` it serves nobody else; with STATUS it answers that to everybody. It prints the address where it listens.
"""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

#: Headers that are meant for it and go no further.
OWN = ("proxy-authorization", "proxy-connection", "connection")


def status_for(headers: dict[str, str], demand: str) -> HTTPStatus:
    """What it thinks of a request with these headers."""
    if demand.isdecimal():
        return HTTPStatus(int(demand))
    wanted = "Basic " + base64.b64encode(demand.encode()).decode()
    if demand and headers.get("proxy-authorization") != wanted:
        return HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    return HTTPStatus.OK


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


async def serve(source: asyncio.StreamReader, sink: asyncio.StreamWriter, port: int, log: str, demand: str) -> None:
    try:
        head = (await source.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:  # it was only looked whether anybody listens
        return sink.close()
    (method, target, _), *lines = (line.split(" ", 2) for line in head.split("\r\n") if line)
    headers = {name.rstrip(":").lower(): " ".join(value) for name, *value in lines}
    status = status_for(headers, demand)
    told = {"method": method, "target": target, "headers": headers, "status": status}
    with open(log, "a") as file:  # noqa: ASYNC230 - a line of a test
        file.write(json.dumps(told) + "\n")
    if status != HTTPStatus.OK:
        sink.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        return sink.close()
    there, onward = await asyncio.open_connection("127.0.0.1", port)
    if method == "CONNECT":
        sink.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        kept = [f"{name}: {value}\r\n" for name, value in headers.items() if name not in OWN]
        path = target.removeprefix("http://" + urlsplit(target).netloc)
        onward.write(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n{''.join(kept)}\r\n".encode("latin-1"))
    await asyncio.gather(pump(source, onward), pump(there, sink))


async def main(port: str, log: str, demand: str = "") -> None:
    server = await asyncio.start_server(lambda *ends: serve(*ends, int(port), log, demand), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# -- starting it


@dataclass(frozen=True)
class ForwardProxy:
    """One that runs."""

    url: str
    log: Path

    def url_for(self, user: str, password: str) -> str:
        """Its address with these in it."""
        return self.url.replace("//", f"//{quote(user, '')}:{quote(password, '')}@")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it was asked: `method`, `target`, `headers`, and the `status` that it thought right."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def targets(self) -> list[str]:
        return [f"{request['method']} {request['target']}" for request in self.requests]


@contextmanager
def forwarding(port: int, folder: Path, demand: str = "") -> Iterator[ForwardProxy]:
    """It leads to this port, and is gone afterwards."""
    log = folder / "forward_proxy.jsonl"
    log.touch()
    command = [sys.executable, __file__, str(port), str(log), demand]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield ForwardProxy(process.stdout.readline().strip(), log)
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
