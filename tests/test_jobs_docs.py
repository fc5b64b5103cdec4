"""docs/jobs.md is true: its examples are executed, its tables are the code's, its numbers too."""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
from documents import Block, blocks_of, rows_of
from jobs_talk import Caller
from pydantic import SecretBytes
from running import Proxy
from test_docs import ROOT, Curl, commands_of, parted, shape

import app
from proxy import settings, webhooks
from proxy.dialects import jobs as shapes
from proxy.jobs import Job, State, runner
from proxy.webhooks import body_of, signed

PAGE = ROOT / "docs" / "jobs.md"
#: The sections of operators and of Idempotency-Key have tests of their own.
ELSEWHERE = {"Operators", "Idempotency-Key", "Measured"}
ID = re.compile(r"job_[0-9a-f]{32}")
#: What an answer cost: the emulator counts alike each time.
USAGE = re.compile(r'"usage":\{[^}]*\}')
#: What of a job does not change when it is there.
FOR_GOOD = ("created", "started", "finished", "deadline", "expires_at", "path", "priority")


def examples() -> list[tuple[Curl, str]]:
    """Each curl, and the answer that is shown to it."""
    found = []
    for block, after in pairwise([*blocks_of(PAGE), Block("", "", "")]):
        if block.language == "sh" and block.section not in ELSEWHERE:
            (words,) = commands_of(block.text)
            assert words[0] == "curl" and after.language == "http", block.text
            found.append((Curl.read(words), after.text))
    return found


def likened(answer: str) -> str:
    """What is the same each time: who is quick has its place in line, who is not sees that it has left it."""
    return re.sub(r'"(position|eta)":(null|[0-9.]+)', r'"\1":<n>', shape(answer))


async def test_every_curl_is_answered_as_the_page_says(tmp_path: Path):
    """One after the other against one service, on the ids that it gives."""
    chosen = settings.load(["--port=0", "--drain-timeout=0"], env={"SANDBOX": "on"}, cwd=tmp_path, assets=tmp_path)
    async with app.serving(chosen, assets=tmp_path) as service, aiohttp.ClientSession() as http:
        caller: Any = Caller(Proxy(service, None, http))  # type: ignore[arg-type]
        ours: dict[str, str] = {}
        for curl, answer in examples():
            for shown, given in ours.items():
                await caller.over(given)  # as for whoever reads before the next command
                curl.url = curl.url.replace(shown, given)
            told = await curl.perform(http, service.url.replace("127.0.0.1", "localhost"))
            for shown, given in zip(dict.fromkeys(ID.findall(answer)), dict.fromkeys(ID.findall(told)), strict=True):
                ours[shown] = given
                told = told.replace(given, shown)
            status, headers, body = parted(told)
            shown_status, shown_headers, shown_body = parted(answer)
            assert status == shown_status, told
            assert set(map(shape, shown_headers)) <= set(map(shape, headers)), told
            assert likened(body) == likened(shown_body)
            assert USAGE.findall(body) == USAGE.findall(shown_body)


def test_each_job_of_the_page_has_one_story():
    """Wherever it is shown, it came, began and ended at the same time."""
    told: defaultdict[str, set[Any]] = defaultdict(set)
    for line in PAGE.read_text().splitlines():
        if line.removeprefix("data: ").startswith("{"):
            for job in jobs_in(json.loads(line.removeprefix("data: "))):
                told[job["id"]] |= {(name, job[name]) for name in FOR_GOOD if job.get(name) is not None}
    assert len(told) == 2
    for facts in told.values():
        assert len(facts) == len(dict(facts)), facts


def jobs_in(shown: Any) -> Iterator[dict[str, Any]]:
    """All jobs, wherever they are in it: a job, a list, an event."""
    if isinstance(shown, dict):
        if ID.fullmatch(str(shown.get("id"))):
            yield shown
        shown = [*shown.values()]
    if isinstance(shown, list):
        for part in shown:
            yield from jobs_in(part)


def test_the_examples_are_found():
    """So that the test above cannot pass by finding nothing."""
    assert {parted(answer)[0].split()[1] for _, answer in examples()} >= {"200", "202", "400"}


def test_the_table_of_fields_is_what_a_job_may_say():
    """Each field, and no other; each header, each priority."""
    section = PAGE.read_text().partition("## What a job says")[2].partition("\n## ")[0]
    rows = {row[0].strip("`"): row for row in rows_of(section, 3)}
    assert set(rows) == set(shapes.READ)
    assert {name.lower() for name in re.findall("`([^`]+)`", rows["headers"][2])} == shapes.HEADERS
    assert set(re.findall("`([^`]+)`", rows["priority"][2])) == set(shapes.PRIORITIES)


def test_the_table_of_states_names_them_all():
    section = PAGE.read_text().partition("## States")[2].partition("\n## ")[0]
    assert [row[0].strip("`") for row in rows_of(section, 3)] == [*State]


def test_the_numbers_that_are_promised_are_those_of_the_code():
    """Who changes a constant changes the page."""
    page = " ".join(PAGE.read_text().split())
    live, batch, _ = runner.UNDER_WAY.values()
    assert live == batch and runner.WAITING == 10
    for promise in (
        f"`limit` ({shapes.PAGE} unless told, {shapes.LONGEST_PAGE} at most)",
        f"and {live} of each are under way at most",
        f"after {runner.FIRST_BACKOFF / 2:g} to {runner.FIRST_BACKOFF:g} s, then after three times as long each",
        f"claims jobs for {runner.LEASE:g} s",
        f"Any 2xx within {webhooks.TIMEOUT:g} s",
    ):
        assert promise in page, promise
    assert runner.LONGEST_BACKOFF == 3600


def test_the_webhook_that_is_shown_is_as_they_are_and_its_check_works():
    """The event's fields, and the program that verifies it."""
    blocks = {block.language: block.text for block in blocks_of(PAGE) if block.section == "Webhooks"}
    shown = json.loads(blocks["json"])
    job = Job(caller="*", operation="request", dialect="native", path="/", state=State.DONE)
    event = json.loads(body_of(job, 1_795_271_136.131))
    assert (list(event), list(event["data"])) == (list(shown), list(shown["data"]))
    finished = datetime.fromtimestamp(shown["data"]["finished"], UTC)
    assert datetime.fromisoformat(shown["timestamp"]) == finished

    names: dict[str, Any] = {}
    exec(blocks["python"], names)
    key = b"k" * 24
    headers = signed([SecretBytes(b"x" * 24), SecretBytes(key)], "hook_1", 1_795_271_136, b"{}")
    secret = f"whsec_{base64.b64encode(key).decode()}"
    assert names["is_genuine"](secret, headers, b"{}")
    assert not names["is_genuine"](secret, headers, b"{} ")
