"""docs/bring-your-code.md: every program on the page is run, by its own client, and prints what stands below it."""

import asyncio
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby, pairwise
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from documents import Block, blocks_of, rows_of, sandbox
from running import Proxy, StartProxy

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "bring-your-code.md"
#: Where the page says that the service is.
ADDRESS = "http://127.0.0.1:8078"
JS_SDK = "gigachat@0.0.20"
IN_CI = os.environ.get("CI", "").lower() == "true"
#: Seconds that a program may take, and npm.
PATIENCE, NPM_PATIENCE = 60.0, 180.0
#: Ids, times and tokens are others each time.
CHANGING = {
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}": "<id>",
    r'("created(?:_at)?"|"expires_at"):\d+': r"\1:<time>",
    r'"access_token":"[^"]+"': '"access_token":"<token>"',
}
#: A block in one of these languages is run, by this.
RUN_BY: dict[str, Callable[[str, Path], list[str]]] = {
    "sh": lambda text, home: ["bash", "-euo", "pipefail", "-c", text],
    "python": lambda text, home: [sys.executable, "-c", text],
    "js": lambda text, home: ["node", str(written(home / "program.mjs", text))],
}


# -- what the page has


@dataclass(frozen=True)
class Step:
    """A block, and what the page says it prints; None for what only sets something up."""

    block: Block
    output: str | None

    @property
    def words(self) -> list[list[str]]:
        """The commands of a shell block."""
        return [shlex.split(line) for line in self.block.text.splitlines()]

    @property
    def is_start(self) -> bool:
        return self.block.text.endswith("make run")

    @property
    def is_export(self) -> bool:
        return self.block.text.startswith("export ")

    @property
    def is_install(self) -> bool:
        return self.block.text.startswith(("pip install", "npm install"))

    @property
    def settings(self) -> dict[str, str]:
        """What an `export` or the `make run` sets."""
        return dict(word.split("=", 1) for line in self.words for word in line if "=" in word)


def steps() -> list[Step]:
    found = []
    for block, after in pairwise([*blocks_of(PAGE), Block("", "", "")]):
        if block.language in RUN_BY:
            found.append(Step(block, after.text if after.language == "text" else None))
    return found


SECTIONS = {title: list(group) for title, group in groupby(steps(), lambda step: step.block.section) if title}
#: How the service is started for every section that does not say otherwise.
STARTED = steps()[0].settings
#: The table of clients: the section that each row leads to, and its other cells.
CLIENTS = {row[0][1:].partition("]")[0]: row[1:] for row in rows_of(PAGE.read_text(), 4) if row[0].startswith("[")}


def comparable(output: str) -> list[str]:
    for pattern, name in CHANGING.items():
        output = re.sub(pattern, name, output)
    return output.strip("\n").splitlines()


# -- what runs it


def written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def required(program: str) -> str:
    """Where this program is. Skips the test without it, and fails it in CI."""
    found = shutil.which(program)
    if found is None:
        (pytest.fail if IN_CI else pytest.skip)(f"{program} is not installed")
    return found


async def told_by(command: list[str], home: Path, env: Mapping[str, str]) -> str:
    """What it prints. Fails with what it complained of if it ends badly."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=home, env=dict(env), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            output, complaints = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, f"{command[:2]} ended with {process.returncode}:\n{complaints.decode()}"
    return output.decode()


@pytest.fixture(scope="session")
def js_sdk(request: pytest.FixtureRequest) -> Path:
    """The folder `node_modules` with the library; installed once, and kept with pytest's other memories."""
    required("node")
    npm = required("npm")
    kept = Path(request.config.cache.mkdir(JS_SDK.replace("@", "-")))
    if not (kept / "node_modules").is_dir():
        with tempfile.TemporaryDirectory(dir=kept) as fresh:
            flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
            command = [npm, "install", "--prefix", fresh, *flags, JS_SDK]
            try:
                subprocess.run(command, timeout=NPM_PATIENCE, check=True, capture_output=True, text=True)
            except subprocess.SubprocessError as error:
                told = getattr(error, "stderr", "")
                pytest.fail(f"npm could not install {JS_SDK}: is the package registry within reach?\n{error}\n{told}")
            (Path(fresh) / "node_modules").rename(kept / "node_modules")
    return kept / "node_modules"


@pytest.fixture
def home(title: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An empty folder to run this section in; with the JavaScript library for the one about it."""
    folder = tmp_path / "home"
    folder.mkdir()
    if any(step.block.language == "js" for step in SECTIONS[title]):
        (folder / "node_modules").symlink_to(request.getfixturevalue("js_sdk"))
    return folder


@pytest.mark.parametrize("title", SECTIONS)
async def test_each_program_prints_what_the_page_says(title: str, home: Path, tmp_path: Path) -> None:
    """In the order of the page, with what it exports, against a service started as the page says."""
    if any(step.block.language == "sh" and "curl " in step.block.text for step in SECTIONS[title]):
        required("curl")
    started = next((step.settings for step in SECTIONS[title] if step.is_start), STARTED)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "LANGSMITH_TRACING": "false"}
    async with sandbox(started, tmp_path) as service:
        for step in SECTIONS[title]:
            if step.is_export:
                env |= {name: value.replace(ADDRESS, service.url) for name, value in step.settings.items()}
            elif not (step.is_start or step.is_install):
                command = RUN_BY[step.block.language](step.block.text.replace(ADDRESS, service.url), home)
                assert step.output is not None, "what it prints is not on the page"
                assert comparable(await told_by(command, home, env)) == comparable(step.output)


# -- what the page claims


def test_the_table_of_clients_says_which_sections_are_run() -> None:
    """*yes* stands where a program is run, *no* elsewhere, and all of them are there."""
    assert {title: is_run for title, (_, _, is_run) in CLIENTS.items()} == {
        title: "yes" if title in SECTIONS else "no" for title in CLIENTS
    }
    assert [title for title in CLIENTS if title in SECTIONS] == list(SECTIONS)[: len(CLIENTS) - 1]


def test_no_block_is_left_out_by_a_slip_in_its_language() -> None:
    """So that the test above cannot pass by finding nothing."""
    assert {block.language for block in blocks_of(PAGE)} == {*RUN_BY, "text", "java"}
    assert len([step for step in steps() if step.output is not None]) >= 15


def test_what_is_installed_is_what_the_page_says() -> None:
    """The versions in its table, the ranges of its `pip install`, and the package of its `npm install`."""
    for title, package in (("GigaChat's SDK for Python", "gigachat"), ("langchain-gigachat", "langchain-gigachat")):
        assert version(package).startswith(CLIENTS[title][0] + "."), title
    assert JS_SDK.endswith("@" + CLIENTS["GigaChat's SDK for JavaScript"][0])
    installed = {step.words[0][2] for step in steps() if step.is_install}
    assert installed - {JS_SDK} <= set((ROOT / "requirements-dev.txt").read_text().splitlines())
    assert JS_SDK in installed


# -- the library that is not run

#: What Java's HTTP client adds of its own: it offers HTTP/2, and goes on without.
OF_JAVAS_CLIENT = {
    "Connection": "Upgrade, HTTP2-Settings",
    "HTTP2-Settings": "AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
    "Upgrade": "h2c",
}
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class JavaSdk:
    """Requests as GigaChat's SDK for Java writes them, all on one connection."""

    def __init__(self, proxy: Proxy) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=10)
        self.token = ""

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """The status and the body of the answer. A body that is no bytes goes as JSON."""
        own = {"User-Agent": "GigaChat-java-lib", "X-Request-ID": str(uuid4()), **OF_JAVAS_CLIENT}
        if self.token:
            own["Authorization"] = f"Bearer {self.token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()

        def ask() -> tuple[int, bytes]:
            self._connection.request(method, path, data, {**JSON, **own, **headers})
            response = self._connection.getresponse()
            assert response.getheader("Upgrade") is None
            return response.status, response.read()

        return await asyncio.to_thread(ask)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
async def java(start_proxy: StartProxy) -> AsyncIterator[JavaSdk]:
    """The library with a token for its key."""
    sdk = JavaSdk(await start_proxy(proxy_api_keys=STARTED["PROXY_API_KEYS"]))
    form = {"Content-Type": "application/x-www-form-urlencoded", "RqUID": str(uuid4())}
    status, answer = await sdk.send(
        "POST", "/api/v2/oauth", b"scope=GIGACHAT_API_PERS", Authorization="Basic long-random-word", **form
    )
    assert status == 200
    sdk.token = json.loads(answer)["access_token"]
    yield sdk
    sdk.close()


async def test_both_chats_of_javas_library_are_served(java: JavaSdk) -> None:
    """The second one at the address that it makes of the first: `/api/v1` becomes `/v2`."""
    asked = {"model": "GigaChat-2", "stream": False}
    body = {**asked, "messages": [{"role": "user", "content": "Сколько будет 2 + 3?"}]}
    status, answer = await java.send("POST", "/api/v1/chat/completions", body)
    assert status == 200 and json.loads(answer)["choices"][0]["message"]["content"] == "2 + 3 = 5"
    body = {**asked, "messages": [{"role": "user", "content": [{"text": "Сколько будет 2 + 3?"}]}]}
    status, answer = await java.send("POST", "/v2/chat/completions", body)
    assert status == 200 and json.loads(answer)["messages"][0]["content"][0]["text"] == "2 + 3 = 5"


async def test_a_stream_of_javas_library_is_served(java: JavaSdk) -> None:
    """Of the second chat too."""
    for path, content, last in (
        ("/api/v1", "Скажи: раз, два", b"data: [DONE]\n\n"),
        ("/v2", [{"text": "Скажи: раз, два"}], b"}\n\n"),
    ):
        body = {"model": "GigaChat-2", "stream": True, "messages": [{"role": "user", "content": content}]}
        status, answer = await java.send("POST", f"{path}/chat/completions", body, Accept="text/event-stream")
        assert status == 200 and answer.endswith(last) and "раз, ".encode() in answer


async def test_the_rest_of_javas_library_is_served(java: JavaSdk) -> None:
    """Models, embeddings, tokens, and a file up, down and away."""
    status, answer = await java.send("GET", "/api/v1/models")
    assert status == 200 and json.loads(answer)["data"]
    for path, body in (
        ("/embeddings", {"model": "Embeddings", "input": ["раз"]}),
        ("/tokens/count", {"model": "GigaChat-2", "input": ["раз"]}),
    ):
        assert (await java.send("POST", f"/api/v1{path}", body))[0] == 200
    parts = (
        '--18f\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
        "Content-Type: text/plain\r\n\r\nтекст"
        '\r\n--18f\r\nContent-Disposition: form-data; name="purpose"\r\n\r\ngeneral\r\n--18f--\r\n'
    )
    multipart = {"Content-Type": "multipart/form-data; boundary=18f"}
    status, answer = await java.send("POST", "/api/v1/files", parts.encode(), **multipart)
    assert status == 200
    file = f"/api/v1/files/{json.loads(answer)['id']}"
    binary = {"Accept": "application/octet-stream"}
    assert await java.send("GET", f"{file}/content", **binary) == (200, "текст".encode())
    assert (await java.send("POST", f"{file}/delete"))[0] == 200
