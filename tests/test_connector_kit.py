"""The connector kit: the suite that any author can use, the connectors that it must pass and those that it must catch,
the starting point, and the walk of docs/connectors.md.
"""

import asyncio
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from processes import ROOT, copy_tree, started
from running import chat

from conformance import BrokenPromises, Report, check
from conformance.declaration import KINDS, DeclarationError, read
from conformance.new import CannotWrite, check_name
from conformance.report import Outcome
from conformance.suite import PROMISES, report_of

PAGE = (ROOT / "docs" / "connectors.md").read_text(encoding="utf-8")
WRONG = ROOT / "tests" / "wrong_connectors"
#: How the connectors of the page are called.
MY_API = ("--env", "MY_API_URL={url}/v1", "--env", "MY_API_KEY=any-key-will-do")


def blocks_of_the_page(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


PARROT, WHOLE, PLAIN, STREAM, *_ = blocks_of_the_page("python")
PAGES_CONNECTORS = {"parrot": PARROT, "whole": WHOLE, "plain": PLAIN, "streaming": WHOLE + STREAM}

#: Which promises each wrong connector breaks, and a word of what is said about it. All others it keeps.
CAUGHT: dict[str, dict[str, str]] = {
    "holds_the_loop": {
        "calls run side by side: none holds up another, or the service": "what blocks belongs into a plain function",
        "its own time-out, if it has one, is told as a time-out, which is not tried again": "UpstreamTimeout",
        "a caller who leaves takes the call along; so does a call that takes too long": "let CancelledError pass",
    },
    "reads_early": {
        "importing it reads no setting and does no I/O": "reads the setting MY_API_KEY (line 13)",
        "without its settings it says what is missing, or starts all the same": "KeyError: 'MY_API_URL' (line 19",
    },
    "says_not_why": {
        "what is wrong is refused by ValueError or TypeError that names the field": "does not name 'messages'",
        "whatever a caller sends, it passes or is refused with a reason": "KeyError: 'content' (line 22",
        "get_info is a JSON object that names the connector, and holds no secret": "tells the value of MY_API_KEY",
    },
    "takes_errors_for_answers": {
        "the API's 400 is told as 400, in its words": "as if that were an answer: look at the status before the body",
        "the API's 422 is told as 422, in its words": "raise UpstreamError(422, body, retry_after)",
        "the API's 500 is told as 500": "as if that were an answer",
        "the API's 503 is told as 503": "as if that were an answer",
        "the API's 429 is told as 429": "as if that were an answer",
        "the API's 429 with Retry-After is told as 429, with the seconds": "as if that were an answer",
        "the API's 502 with a page of HTML is told as 502": "it must be UpstreamError(502",
    },
    "tries_again": {
        "request_api sends the call once and gives the API's answer back as a JSON object": "changed its data",
        "the API's 500 is told as 500": "was sent to the API 2 times: do not try again",
        "the API's 503 is told as 503": "2 times",
        "the API's 502 with a page of HTML is told as 502": "2 times",
        "a 200 with a page of HTML is told as no answer": "2 times",
        "a 200 with JSON that is no object is told as no answer": "2 times",
        "a connection that is cut before the answer is told as no answer": "2 times",
        "a connection that is cut within the answer is told as no answer": "2 times",
    },
    "clings": {
        "a caller who leaves takes the call along; so does a call that takes too long": "was still open at the API",
        "after shutdown() nothing is open: no connection, no task, no thread": "add a shutdown() that closes your",
    },
    "jumps_the_queue": {
        "nothing is sent before its turn has come": "does not pass through it",
        **dict.fromkeys(
            (
                "the API's 400 is told as 400, in its words",
                "the API's 422 is told as 422, in its words",
                "the API's 500 is told as 500",
                "the API's 503 is told as 503",
                "the API's 429 is told as 429",
                "the API's 429 with Retry-After is told as 429, with the seconds",
                "the API's 502 with a page of HTML is told as 502",
            ),
            "the text of the error tells the value of MY_API_KEY",
        ),
    },
    "saves_up_chunks": {
        "a chunk is passed on when it comes, not when all have come": "yield each as it comes",
        "a stream that is left early takes its call along": "yield each as it comes",
        "a refusal before the first chunk is told as for request_api": "look at the status first",
        "a stream that breaks off is told as no answer, not as its end": "as if the answer were complete",
    },
}


# ---- Those that it must pass, and those that it must catch ----


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """What the suite says of every connector here; a few at a time, for each is mostly waiting."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in PAGES_CONNECTORS.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    asked: dict[str, tuple[Path, tuple[str, ...]]] = dict.fromkeys(CAUGHT, (WRONG, ()))
    asked |= {name: (folder, () if "CHECK" in code else MY_API) for name, code in PAGES_CONNECTORS.items()}
    asked["gigachat_connector"] = (ROOT, ())

    async def all_of_them() -> list[Report]:
        few = asyncio.Semaphore(7)

        async def one(name: str, folder: Path, arguments: tuple[str, ...]) -> Report:
            async with few:
                return await asyncio.to_thread(report_of, name, *arguments, folder=folder)

        return await asyncio.gather(*(one(name, *how) for name, how in asked.items()))

    return dict(zip(asked, asyncio.run(all_of_them()), strict=True))


@pytest.mark.parametrize("name", ["gigachat_connector", *PAGES_CONNECTORS])
def test_gigachats_connector_and_those_of_the_page_keep_every_promise(reports: dict[str, Report], name: str) -> None:
    """The suite asks for nothing that our own do not give."""
    assert reports[name].is_kept and reports[name].exit_code == 0, reports[name].text
    absent = reports[name].of(Outcome.ABSENT)
    streams = name in ("gigachat_connector", "parrot", "streaming")
    assert any("stream_api" in verdict.told for verdict in absent) != streams


def test_every_wrong_connector_is_in_the_table() -> None:
    """At least five, and none is shipped that nobody looks at."""
    assert {file.stem for file in WRONG.glob("*.py")} == set(CAUGHT) and len(CAUGHT) >= 5


@pytest.mark.parametrize("name", CAUGHT)
def test_a_wrong_connector_is_caught_with_a_telling_message(reports: dict[str, Report], name: str) -> None:
    """It breaks these promises and no others, and what is said tells what to do."""
    report = reports[name]
    assert {verdict.promise for verdict in report.broken} == set(CAUGHT[name]), report.text
    for verdict in report.broken:
        assert CAUGHT[name][verdict.promise] in verdict.told
    assert report.exit_code == 1


def test_the_promises_of_the_table_are_promises() -> None:
    """One that is renamed is noticed, and no two have the same words."""
    texts = [promise.text for promise in PROMISES]
    assert {promise for caught in CAUGHT.values() for promise in caught} <= set(texts)
    assert len(set(texts)) == len(texts)


# ---- What it says if it cannot check ----


def test_a_connector_that_does_not_load_is_told_as_the_service_tells_it(tmp_path: Path) -> None:
    """One broken promise, with the loader's own words."""
    (tmp_path / "half.py").write_text("def validate_data(data): return True\n")
    for name, words in (("half", "lacks request_api, get_info"), ("nowhere", "there is no connector module")):
        (verdict,) = report_of(name, folder=tmp_path).verdicts
        assert verdict.outcome is Outcome.BROKEN and words in verdict.told


def test_without_the_apis_address_it_checks_what_it_can_and_says_how_to_go_on(tmp_path: Path) -> None:
    """Nobody is called then: the settings could be real ones."""
    (tmp_path / "whole.py").write_text(WHOLE)
    report = report_of("whole", folder=tmp_path)
    assert report.exit_code == 2 and not report.broken
    assert 'CHECK = {"env": {"MY_API_URL": "{url}/v1"' in report.of(Outcome.UNKNOWN)[0].told
    kept = {verdict.promise for verdict in report.of(Outcome.KEPT)}
    assert "importing it reads no setting and does no I/O" in kept and "what is right passes" in kept
    with pytest.raises(BrokenPromises, match="unknown"):
        check("whole", folder=tmp_path)


def test_nothing_leaves_this_machine(tmp_path: Path) -> None:
    """A connector that does not ask its settings for the address is stopped, and told where it wanted to go."""
    code = WHOLE.replace('os.environ["MY_API_URL"]', '"http://api.example.com"')
    (tmp_path / "fixed.py").write_text(code)
    report = report_of("fixed", *MY_API, folder=tmp_path)
    told = {verdict.promise: verdict.told for verdict in report.broken}
    assert "it wanted to call api.example.com:80" in told[PROMISES[-1].text]
    answer = "request_api sends the call once and gives the API's answer back as a JSON object"
    assert "api.example.com:80, but nothing leaves this machine" in told[answer]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([], "must be a dict"),
        ({"enw": {}}, 'did you mean "env"?'),
        ({"env": ["MY_API_URL"]}, '"env" must be an object such as'),
        ({"env": {"PORT": 1}}, 'names and values of "env" must be strings'),
        ({"sample": {"messages": "hello"}}, '"sample" must be data such as'),
        ({"invalid": {"temperature": 5}}, '"invalid" must be an object such as'),
        ({"chunks": ["a", "b"]}, "at least three"),
    ],
)
def test_what_is_wrong_in_check_is_named(told: Any, words: str) -> None:
    """With the place, and what it must be instead."""
    with pytest.raises(DeclarationError, match=re.escape(words)) as error:
        read(told, "CHECK of my_api")
    assert "CHECK of my_api" in str(error.value)


def test_the_declaration_may_stand_in_a_file(tmp_path: Path) -> None:
    """Over CHECK, key by key; a file that is none is named."""
    (tmp_path / "whole.py").write_text(WHOLE)
    env = {"MY_API_URL": "{url}/v1", "MY_API_KEY": "any-key-will-do"}
    (tmp_path / "check.json").write_bytes(orjson.dumps({"env": env, "invalid": {"temperature": {"messages": []}}}))
    report = report_of("whole", "--check", "check.json", folder=tmp_path)
    (verdict,) = report.broken
    assert "does not name 'temperature'" in verdict.told
    with pytest.raises(BrokenPromises, match=r"none\.json cannot be read"):
        check("whole", "--check", "none.json", folder=tmp_path)


# ---- The starting point ----


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A house of its own with all that make needs, and a .venv that is this interpreter."""
    tree = copy_tree(tmp_path_factory.mktemp("house"))
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt", "pyproject.toml"):
        shutil.copy2(ROOT / name, tree / name)
    shutil.copytree(ROOT / "conformance", tree / "conformance")
    (tree / "tests").mkdir()
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    runtime, development = (tree / name for name in ("requirements.txt", "requirements-dev.txt"))
    (tree / ".venv" / runtime.name).write_bytes(runtime.read_bytes() * 2)
    (tree / ".venv" / development.name).write_bytes(runtime.read_bytes() + development.read_bytes())
    return tree


def make(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # The tests may run under `make test`, and a make within a make says more than it does to people.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", *words], cwd=tree, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def written(tree: Path) -> str:
    """What `make new-connector NAME=my_api` says."""
    done = make(tree, "new-connector", "NAME=my_api")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_starting_point_keeps_every_promise_at_once(tree: Path, written: str) -> None:
    """`make check-connector` right after `make new-connector`."""
    assert "my_api.py" in written and "make check-connector CONNECTOR=my_api" in written
    done = make(tree, "check-connector", "CONNECTOR=my_api")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^(\d+) kept of \1 promises$", done.stdout, re.MULTILINE)


def test_its_test_is_green_and_its_code_is_clean(tree: Path, written: str) -> None:
    """pytest and ruff with our own settings; mypy reads the starting point where it is."""
    for tool in (
        ["pytest", "-q", "-p", "no:cacheprovider", "tests/test_my_api.py"],
        ["ruff", "check", "--no-cache", "my_api.py", "tests"],
        ["ruff", "format", "--no-cache", "--check", "my_api.py", "tests"],
    ):
        done = subprocess.run([sys.executable, "-m", *tool], cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{tool}\n{done.stdout}{done.stderr}"


def test_nothing_is_overwritten(tree: Path, written: str) -> None:
    """Neither the connector nor the test, nor is one half of the two written."""
    before = {file: file.read_bytes() for file in tree.rglob("*.py")}
    done = make(tree, "new-connector", "NAME=my_api")
    assert done.returncode != 0 and "my_api.py is there already and stays as it is" in done.stderr
    (tree / "tests" / "test_other.py").write_text("")
    done = make(tree, "new-connector", "NAME=other")
    assert done.returncode != 0 and "tests/test_other.py is there already" in done.stderr
    (tree / "tests" / "test_other.py").unlink()
    assert {file: file.read_bytes() for file in tree.rglob("*.py")} == before


@pytest.mark.parametrize("name", ["proxy", "app", "json", "aiohttp", "conformance", "gigachat"])
def test_a_name_that_would_hide_a_module_is_refused(tree: Path, name: str) -> None:
    """Ours, Python's own, or an installed one."""
    done = make(tree, "new-connector", f"NAME={name}")
    assert done.returncode != 0 and re.search(rf"{name}(\.py)? is there already|there is a module {name}", done.stderr)


@pytest.mark.parametrize(
    "name", ["", "My_api", "my-api", "1api", "my__api", "_my", "../api", "a/b", "class", "мой", "x" * 25]
)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """With an example of a good one."""
    with pytest.raises(CannotWrite, match="my_api"):
        check_name(name)


def test_make_says_what_it_needs(tree: Path) -> None:
    """Both targets are in its list, and neither does anything without a name."""
    assert {"new-connector", "check-connector"} <= set(re.findall(r"^make (\S+)", make(tree).stdout, re.MULTILINE))
    for target, words in (("new-connector", "NAME=my_api"), ("check-connector", "CONNECTOR=my_api")):
        done = make(tree, target)
        assert done.returncode != 0 and f"make {target} {words}" in done.stderr


# ---- The walk ----


def test_the_walk_prints_what_it_says(tree: Path, reports: dict[str, Report]) -> None:
    """The output of `make new-connector`, and the lines of the list that are shown."""
    new, kept, broken, *_ = blocks_of_the_page("text")
    assert make(tree, "new-connector", "NAME=parrot").stdout == new
    lines = reports["parrot"].text.splitlines()
    assert [line for line in kept.splitlines() if line != "  ..." and line not in lines] == []
    assert [line for line in broken.splitlines() if line not in reports["saves_up_chunks"].text.splitlines()] == []


def test_the_page_tells_every_key_of_check() -> None:
    """And no other."""
    table = PAGE.partition("| key |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(KINDS)


@pytest.fixture
async def parrot() -> AsyncIterator[str]:
    """The Parrot API, as the walk describes it."""

    async def say(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Parrot-Key") != "cracker":
            return web.json_response({"message": "which cracker?"}, status=401)
        body = await request.json()
        said = body["text"].upper() if body["loudness"] > 5 else body["text"]
        if not request.query:
            return web.json_response({"said": said})
        lines = [*({"piece": word} for word in said.split()), {"end": True}]
        return web.Response(body=b"".join(orjson.dumps(line) + b"\n" for line in lines))

    app = web.Application()
    app.router.add_post("/v2/say", say)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_connector_of_the_walk_serves_the_parrot(tmp_path: Path, parrot: str) -> None:
    """The real service before it: whole, streamed, and what it does not accept."""
    tree = copy_tree(tmp_path)
    (tree / "parrot.py").write_text(PARROT)
    env = {"CONNECTOR": "parrot", "PARROT_URL": parrot, "PARROT_KEY": "cracker"}
    with started(tree, tmp_path / "log", env=env) as process:
        async with aiohttp.ClientSession() as http:
            async with http.post(process.url, json=chat("Polly wants", loudness=11)) as answer:
                body = await answer.json()
            assert body["data"]["choices"][0]["message"]["content"] == "POLLY WANTS"
            async with http.post(process.url, json=chat("Polly wants", stream=True)) as answer:
                events = re.findall(r'"content":"(\w+)"', await answer.text())
            assert events == ["Polly", "wants"]
            async with http.post(process.url, json=chat("Polly wants", loudness=12)) as answer:
                assert answer.status == 400 and "loudness must be from 0 to 11" in await answer.text()
