"""Another API behind the same line: connectors written here and in docs/connectors.md, as real processes.

The upstream is a small server of our own. It does what the last message says: `echo`, `slow 0.2`, `status 503`,
`once 429`, `cut`, `html`, `prepare` and the like.
"""

import asyncio
import itertools
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from processes import ROOT, Process, copy_tree, launch, started, swap_connector
from running import chat

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = ROOT / "docs" / "connectors.md"
KEY = "key-of-my-api"

#: What the connectors below have in common.
CHECKS = """
def validate_data(data):
    for message in data["messages"]:
        if "content" not in message:
            raise ValueError("messages: content is missing")
        if not isinstance(message["content"], str):
            raise TypeError("messages: content must be a string")
    return True

def get_info():
    return {"default-model": "mine", "avail-models": ["mine"]}
"""

ASYNC = (
    """
import asyncio, os
import aiohttp
from proxy.connector import mark_sent
from proxy.errors import UpstreamError
from proxy.upstream import retry_after_seconds

async def request_api(data):
    if data["messages"][-1]["content"].startswith("prepare"):
        await asyncio.sleep(0.8)
        mark_sent()
    body = {**data["generate_parameters"], "messages": data["messages"]}
    async with aiohttp.ClientSession() as http:
        async with http.post(os.environ["MY_API_URL"] + "/chat/completions", json=body) as answer:
            if answer.status != 200:
                raise UpstreamError(answer.status, await answer.read(), retry_after_seconds(answer.headers))
            return await answer.json()
"""
    + CHECKS
)

PLAIN = (
    """
import json, os, time, urllib.request
from proxy.connector import mark_sent

def request_api(data):
    if data["messages"][-1]["content"].startswith("prepare"):
        time.sleep(0.8)
        mark_sent()
    body = json.dumps({**data["generate_parameters"], "messages": data["messages"]}).encode()
    with urllib.request.urlopen(os.environ["MY_API_URL"] + "/chat/completions", body, timeout=60) as answer:
        return json.load(answer)
"""
    + CHECKS
)


def code_of_the_page() -> list[str]:
    """The page's Python, block by block."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def connectors() -> dict[str, str]:
    _, whole, plain, stream, *_ = code_of_the_page()
    return {
        "async_one": ASYNC,
        "plain_one": PLAIN,
        "page_one": whole,
        "page_plain": plain,
        "page_stream": whole + stream,
    }


# ---- The API behind ----


@dataclass
class Api:
    """A small API of our own, and what it has seen."""

    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        arrived = time.monotonic()
        body = await request.json()
        text = body["messages"][-1]["content"]
        word, _, argument = text.partition(" ")
        again = any(call["text"] == text for call in self.seen)
        self.in_flight += 1
        call = {"text": text, "at": arrived, "in_flight": self.in_flight, "body": body, "headers": request.headers}
        self.seen.append(call)
        try:
            if word == "slow":
                await asyncio.sleep(float(argument.split()[0]))
            return await self.told(request, body, word, argument, again)
        finally:
            self.in_flight -= 1

    async def told(
        self, request: web.Request, body: dict[str, Any], word: str, argument: str, again: bool
    ) -> web.StreamResponse:
        if word == "status" or (word == "once" and not again):
            return web.json_response({"error": {"message": f"said {argument}"}}, status=int(argument.split()[0]))
        if word == "cut":
            assert request.transport is not None
            request.transport.abort()
        if word == "html":
            return web.Response(text="<html>nginx</html>", content_type="text/html")
        if body.get("stream"):
            events = [*(f'data: {{"piece": {number}}}\n\n' for number in range(3)), "data: [DONE]\n\n"]
            return web.Response(text="".join(events), content_type="text/event-stream")
        return web.json_response({"choices": [{"message": {"content": body["messages"][-1]["content"]}}], "extra": 1})

    def of(self, text: str) -> list[dict[str, Any]]:
        return [call for call in self.seen if call["text"].startswith(text)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def api() -> AsyncIterator[Api]:
    api = Api()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield api
    await runner.cleanup()


# ---- The service before it ----


@dataclass
class Running:
    process: Process
    api: Api
    http: aiohttp.ClientSession

    async def ask(self, text: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """The status and body of a native chat request."""
        async with self.http.post(self.process.url, json=chat(text, **parameters)) as answer:
            return answer.status, await answer.json()

    async def ask_in_turn(self, *texts: str) -> list[int]:
        """Their statuses; each is sent a moment after the one before."""
        asking = []
        for text in texts:
            asking.append(asyncio.create_task(self.ask(text)))
            await asyncio.sleep(0.01)
        return [status for status, _ in await asyncio.gather(*asking)]

    async def sent(self, text: str) -> None:
        """Until the API has received it."""
        async with asyncio.timeout(20):
            while not self.api.of(text):  # noqa: ASYNC110 - what is watched comes over the wire
                await asyncio.sleep(0.005)


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of whoever starts the service, with all connectors in it."""
    folder = tmp_path_factory.mktemp("here")
    for name, code in connectors().items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return folder


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def start(tree: Path, here: Path, api: Api) -> AsyncIterator[Start]:
    """`start("plain_one", EXT_API_RPM="600")`: the service with this connector; the same one for the same words."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        running: dict[object, Running] = {}

        def start_it(connector: str, **env: str) -> Running:
            what = (connector, *sorted(env.items()))
            if what not in running:
                settings = {"CONNECTOR": connector, "MY_API_URL": api.url, "MY_API_KEY": KEY, "EXT_RETRIES": "1", **env}
                # urllib's HTTPError leaves its socket to the garbage collector
                settings["PYTHONWARNINGS"] = "error,ignore::ResourceWarning"
                log = here / f"log{len(running)}"
                process = stack.enter_context(started(tree, log, env=settings, cwd=here))
                running[what] = Running(process, api, http)
            return running[what]

        yield start_it


@pytest.fixture(autouse=True)
def _forget_calls(api: Api) -> None:
    api.seen.clear()


every_connector = pytest.mark.parametrize("connector", connectors())
own_client = pytest.mark.parametrize("connector", ["async_one", "plain_one"])


# ---- The same service ----


@every_connector
async def test_another_api_is_served_in_the_native_envelope(start: Start, connector: str) -> None:
    """The API's answer whole in `data`, everything the caller gave in what the API receives; no GigaChat key."""
    service = start(connector)
    status, body = await service.ask("echo", temperature=0.5, unknown={"deep": [1]})
    assert status == 200 and body["app"] == "gigachat-proxy" and body["status"] == "ok"
    assert body["data"] == {"choices": [{"message": {"content": "echo"}}], "extra": 1}
    [call] = service.api.seen
    assert call["body"]["messages"] == [{"role": "user", "content": "echo"}]
    assert (call["body"]["temperature"], call["body"]["unknown"]) == (0.5, {"deep": [1]})
    assert f"connector {connector};" in service.process.output and KEY not in service.process.output


@every_connector
async def test_get_shows_what_the_connector_tells_of_itself(start: Start, connector: str) -> None:
    """Its models, its name, and the limits that are kept for it."""
    service = start(connector)
    async with service.http.get(service.process.url) as answer:
        info = (await answer.json())["info"]
    assert info["connector"] == connector and info["lane"]["requests-in-flight-limit"] == 1
    if connector != "page_plain":
        assert info["default-model"] in ("mine", "small")


@own_client
async def test_what_the_connector_does_not_accept_is_a_400_and_is_never_sent(start: Start, connector: str) -> None:
    """ValueError and TypeError of validate_data, with their words."""
    service = start(connector)
    for message, told in (({"role": "user"}, "content is missing"), ({"content": 1}, "content must be a string")):
        async with service.http.post(service.process.url, json={"messages": [message]}) as answer:
            body = await answer.json()
        assert answer.status == 400 and told in body["status"] and body["data"] == {}
    assert service.api.seen == []


#: What the API does: the status that its caller sees, and how many calls it took.
OUTCOMES = {
    "status 422": (422, 1),
    "status 401": (502, 1),
    "status 500": (502, 2),
    "status 503": (503, 2),
    "cut": (502, 2),
    "html": (502, 2),
    "once 500": (200, 2),
    "once 429": (200, 2),
}


@pytest.mark.parametrize("connector", ["async_one", "plain_one", "page_one"])
async def test_errors_of_the_api_end_as_they_do_for_gigachat(start: Start, connector: str) -> None:
    """Raised as UpstreamError, or as what the connector's own client raises: retried, passed on, or a 502."""
    service = start(connector)
    answers = await asyncio.gather(*(service.ask(text) for text in OUTCOMES))
    outcomes = {text: (status, len(service.api.of(text))) for text, (status, _) in zip(OUTCOMES, answers, strict=True)}
    assert outcomes == OUTCOMES
    assert [body for status, body in answers if status != 200 and (body["data"] or "internal" in body["status"])] == []
    assert "Traceback" not in service.process.output


@own_client
async def test_an_api_that_is_not_there_is_a_502(start: Start, connector: str, unused_tcp_port: int) -> None:
    """The OSError of the connector's own client, without the address."""
    service = start(connector, MY_API_URL=f"http://127.0.0.1:{unused_tcp_port}", EXT_RETRIES="0")
    status, body = await service.ask("echo")
    assert status == 502 and body["app"] == "gigachat-proxy"
    assert str(unused_tcp_port) not in str(body)


async def test_a_time_out_of_the_connector_is_a_504_and_is_not_tried_again(start: Start, here: Path) -> None:
    """The call may have been billed."""
    (here / "hasty.py").write_text(PLAIN.replace("timeout=60", "timeout=0.2"))
    service = start("hasty")
    assert (await service.ask("slow 1"))[0] == 504
    assert len(service.api.seen) == 1


async def test_a_bug_of_the_connector_is_a_500_with_the_requests_id(start: Start, here: Path) -> None:
    """The caller is told where to look, the log tells what."""
    (here / "buggy.py").write_text("def request_api(data): return data['nothing']\n" + CHECKS)
    service = start("buggy")
    async with service.http.post(service.process.url, json=chat(), headers={"X-Request-ID": "id-7"}) as answer:
        body = await answer.json()
    assert answer.status == 500 and "id-7" in body["status"] and "nothing" not in str(body)
    assert "KeyError: 'nothing'" in service.process.output


# ---- The same limits ----


@pytest.mark.parametrize("connector", ["async_one", "plain_one", "page_one"])
async def test_the_pace_is_kept_for_any_connector(start: Start, connector: str) -> None:
    """At 1200 a minute ten calls take nine intervals; threads and connections may blur one interval, not the pace."""
    service = start(connector, EXT_API_RPM="1200", EXT_MAX_REQUESTS="0")
    answers = await asyncio.gather(*(service.ask(f"echo {number}") for number in range(10)))
    assert {status for status, _ in answers} == {200}
    times = [call["at"] for call in service.api.seen]
    assert times[-1] - times[0] >= 9 * 0.05 - 0.03
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 0.02


@pytest.mark.parametrize("connector", ["async_one", "plain_one", "page_one"])
async def test_never_more_in_flight_than_allowed(start: Start, connector: str) -> None:
    """EXT_MAX_REQUESTS is kept, and used."""
    service = start(connector, EXT_MAX_REQUESTS="3")
    answers = await asyncio.gather(*(service.ask("slow 0.1") for _ in range(9)))
    assert {status for status, _ in answers} == {200}
    assert max(call["in_flight"] for call in service.api.seen) == 3


@own_client
async def test_a_call_counts_from_its_start_or_from_mark_sent(start: Start, connector: str) -> None:
    """Whoever prepares for long and says when it sends keeps the next call at its distance from there."""
    service = start(connector, EXT_API_RPM="60", EXT_MAX_REQUESTS="0")
    assert await service.ask_in_turn("echo first", "echo second") == [200, 200]
    first, second = (call["at"] for call in service.api.seen)
    assert second - first >= 0.6  # on a busy machine a call may arrive some time after it was made
    await asyncio.sleep(1.1)
    service.api.seen.clear()
    assert await service.ask_in_turn("prepare", "echo next") == [200, 200]
    prepared, following = (call["at"] for call in service.api.seen)
    # Without mark_sent it would be 0.2 s: 1 s from the start of the first, of which 0.8 s went by in preparation.
    assert following - prepared >= 0.6


async def test_a_plain_call_whose_caller_leaves_keeps_its_slot_until_it_ends(start: Start) -> None:
    """A thread cannot be stopped: its call is still in flight, so the next one waits for it."""
    service = start("plain_one")
    leaver = asyncio.create_task(service.ask("slow 0.8 leaver"))
    await service.sent("slow")
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    assert (await service.ask("echo next"))[0] == 200
    first, second = service.api.seen
    assert second["at"] - first["at"] >= 0.75 and second["in_flight"] == 1


async def test_an_async_call_whose_caller_leaves_frees_its_slot(start: Start) -> None:
    """It is cancelled, and the next one goes at once."""
    service = start("async_one")
    leaver = asyncio.create_task(service.ask("slow 5 leaver"))
    await service.sent("slow")
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    assert (await service.ask("echo next"))[0] == 200
    first, second = service.api.seen
    assert second["at"] - first["at"] < 4


async def test_a_plain_call_that_hangs_does_not_keep_the_service_from_stopping(
    tree: Path, here: Path, tmp_path: Path, api: Api
) -> None:
    """503 when the drain is over, exit code 0, and gone, thread or no thread."""
    env = {"CONNECTOR": "plain_one", "MY_API_URL": api.url, "DRAIN_TIMEOUT": "1"}
    with started(tree, tmp_path / "log", env=env, cwd=here) as process:
        async with aiohttp.ClientSession() as http:
            service = Running(process, api, http)
            asking = asyncio.create_task(service.ask("slow 30"))
            await service.sent("slow")
            began = time.monotonic()
            process.signal(signal.SIGTERM)
            assert (await asking)[0] == 503
            assert await process.gone() == 0
            assert time.monotonic() - began < 3
        assert "Traceback" not in process.output


# ---- Streams ----


async def streamed(service: Running) -> tuple[int, list[str]]:
    async with service.http.post(service.process.url, json=chat("echo", stream=True)) as answer:
        events = [event.removeprefix("data: ") for event in (await answer.text()).split("\n\n") if event]
        return answer.status, events


@pytest.mark.parametrize("connector", ["async_one", "plain_one", "page_one", "page_plain"])
async def test_without_stream_api_a_stream_is_one_chunk(start: Start, connector: str) -> None:
    """The whole answer and [DONE]; the API is not asked for a stream that nobody would understand."""
    service = start(connector)
    status, events = await streamed(service)
    assert status == 200 and len(events) == 2 and '"extra":1' in events[0] and events[1] == "[DONE]"
    assert "stream" not in service.api.seen[0]["body"]


async def test_with_stream_api_it_is_the_apis_chunks(start: Start) -> None:
    """As the page shows it."""
    service = start("page_stream")
    assert await streamed(service) == (200, ['{"piece": 0}', '{"piece": 1}', '{"piece": 2}', "[DONE]"])
    assert service.api.seen[0]["headers"]["Authorization"] == f"Bearer {KEY}"


# ---- Which connector ----


@pytest.fixture(scope="module")
def house_without_gigachat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of its own, in which the GigaChat connector is deleted."""
    tree = copy_tree(tmp_path_factory.mktemp("without"))
    (tree / "gigachat_connector.py").unlink()
    (tree / "my_connector.py").write_text(ASYNC)
    return tree


async def test_it_works_where_the_gigachat_connector_is_deleted(
    house_without_gigachat: Path, tmp_path: Path, api: Api
) -> None:
    """Nothing else needs it; without CONNECTOR the start says what is missing."""
    tree = house_without_gigachat
    env = {"CONNECTOR": "my_connector", "MY_API_URL": api.url}
    async with aiohttp.ClientSession() as http:
        with started(tree, tmp_path / "log", env=env, cwd=tmp_path) as process:
            assert (await Running(process, api, http).ask("echo"))[0] == 200
    bare = launch(tree, tmp_path / "bare")
    assert await bare.gone() == 1
    assert "there is no connector module 'gigachat_connector'" in bare.output and "CONNECTOR" in bare.output


async def test_swapping_the_one_import_line_swaps_the_api(tmp_path: Path, api: Api) -> None:
    """No setting is needed; the optional functions are found as well."""
    tree = copy_tree(tmp_path)
    (tree / "gigachat_connector.py").unlink()
    (tree / "my_connector.py").write_text(connectors()["page_stream"])
    swap_connector(tree, "my_connector")
    async with aiohttp.ClientSession() as http:
        with started(tree, tmp_path / "log", env={"MY_API_URL": api.url, "MY_API_KEY": KEY}) as process:
            service = Running(process, api, http)
            assert (await service.ask("echo"))[0] == 200
            assert len((await streamed(service))[1]) == 4
            assert "connector my_connector;" in process.output


async def test_the_page_is_complete() -> None:
    """Its connector is about twenty lines, and every function of the contract is on it."""
    _, whole, *_ = code_of_the_page()
    assert len([line for line in whole.splitlines() if line.strip()]) <= 25
    page = PAGE.read_text(encoding="utf-8")
    for name in (
        "validate_data",
        "request_api",
        "get_info",
        "stream_api",
        "startup",
        "shutdown",
        "mark_sent",
        "DIALECT",
    ):
        assert f"`{name}" in page
