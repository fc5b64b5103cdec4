"""The documents are true: every setting is described, every example is executed, every link leads somewhere."""

import asyncio
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from documents import Block, blocks_of, rows_of, sandbox

import app
import proxy_request
from proxy import (
    attachments,
    credentials,
    errors,
    fetching,
    info,
    lanes,
    passes,
    promises,
    serving,
    settings,
    tokens,
    upstream,
)
from proxy.limits import local

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, RUSSIAN, BEHAVIOUR = ROOT / "README.md", ROOT / "README.ru.md", ROOT / "docs" / "behaviour.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
#: Where the examples say that the service is.
ADDRESS = "http://localhost:8078"
CYRILLIC = re.compile("[а-яё]")


# -- reading


def prose_of(file: Path) -> str:
    return re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.S | re.M)


def headings_of(file: Path) -> list[tuple[int, str]]:
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", prose_of(file), re.M)]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# -- settings


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def rows_about_settings(file: Path) -> list[list[str]]:
    return list(rows_of(file.read_text(), 5))


def test_the_english_table_says_of_every_setting_what_the_code_says() -> None:
    """Name, other names, what is allowed, default and sentence, in the order of the code, and no other setting."""
    assert rows_about_settings(ENGLISH) == [
        [code(knob.name), ", ".join(map(code, knob.aliases)), knob.unit.text, code(knob.default), knob.sentence]
        for knob in settings.describe()
    ]


def test_the_russian_table_has_the_same_settings_with_a_sentence_in_russian() -> None:
    """Names, other names and defaults are the same; the sentence is Russian and ends like one."""
    english, russian = rows_about_settings(ENGLISH), rows_about_settings(RUSSIAN)
    assert [[row[0], row[1], row[3]] for row in russian] == [[row[0], row[1], row[3]] for row in english]
    for row in russian:
        assert CYRILLIC.search(row[4]) and row[4].endswith("."), row
    translations = {(ours[2], theirs[2]) for ours, theirs in zip(english, russian, strict=True)}
    assert len(translations) == len({ours for ours, _ in translations}), "one way to say what is allowed"


#: Names that belong to the scripts, to make, to Compose, to another engine, to GigaChat's SDK or to the drop-in class.
NOT_OURS = {"PUBLISH", "PROXY_CONTAINER", "RUN_AS", "START_TIMEOUT", "STOP_GRACE_PERIOD", "ARGS", "PYTHON", "NAME"} | {
    "BUILDAH_FORMAT",
    "GIGACHAT_TIMEOUT",
    "GIGACHAT_PROXY_URL",
    "GIGACHAT_PROXY_KEY",
}


@pytest.mark.parametrize(
    "file",
    [file for file in DOCUMENTS if file.name != "connectors.md"],  # a connector has settings of its own
    ids=lambda file: file.name,
)
def test_no_document_sets_what_does_not_exist(file: Path) -> None:
    """NAME=value in a document is a setting of the service, or one of the scripts'."""
    known = {name for knob in settings.describe() for name in (knob.name, *knob.aliases)} | NOT_OURS
    named = set(re.findall(r"(?<![\w-])([A-Z][A-Z0-9]*_[A-Z0-9_]+|PORT|HOST|SANDBOX)=", file.read_text()))
    assert named <= known


# -- the two READMEs


def test_both_readmes_have_the_same_headings() -> None:
    """As many, on the same levels."""
    english, russian = headings_of(ENGLISH), headings_of(RUSSIAN)
    assert [level for level, _ in russian] == [level for level, _ in english]
    assert all(
        CYRILLIC.search(text)
        for _, text in russian
        if text not in {"gigachat-proxy", "GigaChat", "LanguageModelChat", "Docker"}
    )


def test_both_readmes_have_the_same_commands_and_answers() -> None:
    """Block by block the same; only the pictures (text) are drawn in each language."""
    english, russian = blocks_of(ENGLISH), blocks_of(RUSSIAN)
    assert [block.language for block in russian] == [block.language for block in english]
    for ours, theirs in zip(english, russian, strict=True):
        assert ours.language == "text" or theirs.text == ours.text


def test_both_readmes_link_to_the_same_documents_and_name_the_same_things() -> None:
    """What stands in code marks is the same in both, and so are the files linked to."""
    marks = re.compile(r"\]\([^)#]+\)|`[^`\n]+`")
    named = [set(marks.findall(prose_of(file))) for file in (ENGLISH, RUSSIAN)]
    assert named[0] ^ named[1] == {"](README.md)", "](README.ru.md)", "`[role, text]`", "`[роль, текст]`"}


# -- links


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_between_documents_lead_somewhere(file: Path) -> None:
    """The file is there, and so is the heading after the #."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(file)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists(), f"{file.name} links to {link}"
        if heading:
            assert heading in {anchor(text) for _, text in headings_of(target)}, f"{file.name} links to {link}"


# -- the examples


@dataclass
class Curl:
    """One curl command of a document, as far as documents use curl."""

    url: str
    method: str = "GET"
    body: str | None = None
    is_shown: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, words: list[str]) -> "Curl":
        curl = cls("", headers={"User-Agent": "curl/8.14.1", "Accept": "*/*"})
        rest = iter(words[1:])
        for word in rest:
            if word == "-d":
                curl.body, curl.method = next(rest), "POST"
                curl.headers["Content-Type"] = "application/x-www-form-urlencoded"
            elif word == "-H":
                name, _, value = next(rest).partition(":")
                curl.headers[name] = value.strip()
            elif word == "-A":
                curl.headers["User-Agent"] = next(rest)
            elif word == "-o":
                curl.is_shown = next(rest) != "/dev/null"
            elif word.startswith("-"):
                assert set(word[1:]) <= set("isN"), f"the test does not know curl {word}"
            else:
                curl.url = word
        return curl

    async def perform(self, http: aiohttp.ClientSession, url: str) -> str:
        """The answer as `curl -i` shows it."""
        assert self.url.startswith(ADDRESS)
        async with http.request(
            self.method, url + self.url.removeprefix(ADDRESS), data=self.body, headers=self.headers
        ) as response:
            head = [
                f"HTTP/1.1 {response.status} {response.reason}",
                *(f"{n}: {v}" for n, v in response.headers.items()),
            ]
            return "\n".join([*head, "", await response.text()])


@dataclass(frozen=True)
class Example:
    """Commands, the answer that the document shows to the last one, and the settings of the service."""

    section: str
    commands: list[Curl]
    answer: str
    env: Mapping[str, str]


def examples_of(file: Path) -> list[Example]:
    """Every block of curl commands; its service is started as the section's last `make run` before it says."""
    section = ""
    examples: list[Example] = []
    env: dict[str, str] = {}
    for block, after in pairwise([*blocks_of(file), Block("", "", "")]):
        if block.section != section:
            section, env = block.section, {}
        if block.language != "sh":
            continue
        for words in commands_of(block.text):
            if words[-2:] == ["make", "run"]:
                env = dict(word.split("=", 1) for word in words[:-2])
        curls = [Curl.read(words) for words in commands_of(block.text) if words[0] == "curl"]
        if curls:
            assert after.language == "http", f"{file.name}, {section}: curl without its answer"
            examples.append(Example(section, curls, after.text, env))
    return examples


def commands_of(text: str) -> list[list[str]]:
    """Each command of a shell block as its words; a quoted word may run over lines."""
    lexer = shlex.shlex(re.sub(r" +# .*", "", text), posix=True, punctuation_chars="\n")
    lexer.whitespace, lexer.whitespace_split = " ", True
    return [list(words) for is_end, words in groupby(lexer, lambda word: set(word) == {"\n"}) if not is_end]


def shape(answer: str) -> str:
    """What of an answer is the same each time: ids, numbers and the number of comments are not."""
    answer = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", answer)
    answer = re.sub(r"(?<!HTTP/1\.1 )\b\d+(\.\d+)?\b", "<n>", answer)
    return re.sub(r"(: [a-z].*\n\n)+", ": <comments>\n\n", answer).strip()


def parted(answer: str) -> tuple[str, list[str], str]:
    """Status line, headers, body."""
    head, _, body = answer.partition("\n\n")
    status, *headers = head.split("\n")
    return status, headers, body


async def check(examples: list[Example], empty: Path) -> None:
    async with sandbox(examples[0].env, empty) as service, aiohttp.ClientSession() as http:
        for example in examples:
            answers = [
                (curl, await curl.perform(http, service.url.replace("127.0.0.1", "localhost")))
                for curl in example.commands
            ]
            (told,) = [answer for curl, answer in answers if curl.is_shown]
            assert all("HTTP/1.1 200 " in answer for curl, answer in answers if not curl.is_shown)
            status, headers, body = parted(told)
            shown_status, shown_headers, shown_body = parted(example.answer)
            assert status == shown_status, told
            assert set(map(shape, shown_headers)) <= set(map(shape, headers)), told
            assert shape(body) == shape(shown_body)


SERVICES = [
    list(examples)
    for file in (ENGLISH, BEHAVIOUR)  # the Russian examples are the same; the other documents have tests of their own
    for _, examples in groupby(examples_of(file), lambda example: (example.section, example.env))
]


@pytest.mark.parametrize("examples", SERVICES, ids=lambda examples: examples[0].section)
async def test_every_curl_is_answered_as_the_document_says(examples: list[Example], tmp_path: Path) -> None:
    """Executed against a real service on the emulator: the status, the headers shown, and the body."""
    await check(examples, tmp_path)


def test_the_examples_are_found() -> None:
    """So that the test above cannot pass by finding nothing."""
    statuses = {parted(example.answer)[0].split()[1] for example in examples_of(ENGLISH)}
    assert statuses >= {"200", "400", "401", "429"}


def test_the_example_of_the_sdk_prints_what_the_readme_says(tmp_path: Path) -> None:
    """GigaChat's own library against the service, plain and streamed."""
    program, output = next(
        (block, after) for block, after in pairwise(blocks_of(ENGLISH)) if "import GigaChat" in block.text
    )

    async def both() -> str:
        async with sandbox({}, tmp_path) as service:
            return await asyncio.to_thread(printed, program.text.replace(ADDRESS, service.url))

    assert asyncio.run(both()).strip() == output.text


def test_the_environment_of_a_program_on_the_sdk_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the README exports the library finds the service, asks it for a token, and calls."""
    (block,) = [block for block in blocks_of(ENGLISH) if block.text.startswith("export ")]
    exported = dict(re.findall(r"(\w+)=(\S+)", block.text))
    program = (
        "from gigachat import GigaChat\n"
        "with GigaChat() as giga:\n"
        "    print(giga.chat('Сколько будет 2 + 3?').choices[0].message.content)\n"
    )

    async def served() -> str:
        async with sandbox({}, tmp_path) as service:
            for name, value in exported.items():
                monkeypatch.setenv(name, value.replace("http://127.0.0.1:8078", service.url))
            return await asyncio.to_thread(printed, program)

    assert asyncio.run(served()).strip() == "2 + 3 = 5"


def printed(program: str) -> str:
    with redirect_stdout(io.StringIO()) as output:
        exec(program, {})
    return output.getvalue()


async def test_the_banner_is_the_one_that_the_readme_shows(tmp_path: Path) -> None:
    """Word for word, but for the port."""
    async with sandbox({}, tmp_path) as service:
        made = replace(service, settings=service.settings.model_copy(update={"sandbox": "auto"}))  # as `make run` does
        banner = app.banner(made).replace(service.url, "http://127.0.0.1:8078")
    assert any(block.text.endswith(banner) for block in blocks_of(ENGLISH))


async def test_without_a_key_it_says_what_the_readme_says() -> None:
    """Both ways out, in the words of the credential's own file."""
    assert any(block.text.endswith(f"cannot start: {credentials.MISSING}") for block in blocks_of(ENGLISH))


async def test_the_line_of_the_requests_log_is_as_the_readme_shows_it(tmp_path: Path) -> None:
    """The same fields in the same order."""
    file = tmp_path / "requests.jsonl"
    async with (
        sandbox({"REQUESTS_LOG_FILE": str(file)}, tmp_path) as service,
        aiohttp.ClientSession() as http,
        http.post(service.url, json={"messages": [["user", "Привет"]]}) as response,
    ):
        assert response.status == 200
    (line,) = file.read_text().splitlines()
    (shown,) = [block.text for block in blocks_of(ENGLISH) if block.language == "json"]
    assert list(json.loads(line)) == list(json.loads(shown))


# -- what is promised


def family(kind: type[errors.ProxyError]) -> Iterator[type[errors.ProxyError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


def statuses_of(kind: type[errors.ProxyError]) -> set[int]:
    """Every status that this failure can have."""
    if kind is errors.UpstreamError:
        told = [None, *(status for status in range(400, 600) if status not in (401, 429))]
        return {errors.UpstreamError(status).status for status in told}
    examples: dict[type[Any], Any] = {
        errors.CredentialRefused: errors.CredentialRefused("no"),
        errors.UpstreamTimeout: errors.UpstreamTimeout(1),
        errors.PassedRefused: errors.PassedRefused(),
    }
    return {examples.get(kind, kind).status}


#: The API's own refusals that reach the caller as they are.
PASSED_ON = set(range(400, 500)) - errors.UpstreamError.NOT_PASSED


def test_the_table_of_statuses_is_the_family_of_errors() -> None:
    """Each kind of failure with each status that it can have, and nothing else."""
    table = {
        (status, row[1].strip("`"))
        for row in rows_of(BEHAVIOUR.read_text().partition("## Statuses")[2], 3)
        for told in row[0].split(", ")
        for status in (PASSED_ON if told == "4xx" else {int(told)})
    }
    ours = [kind for kind in family(errors.ProxyError) if kind.__module__ == errors.__name__]
    assert table == {(status, kind.code) for kind in ours for status in statuses_of(kind)}


def test_the_numbers_that_are_promised_are_those_of_the_code() -> None:
    """Who changes a constant changes the page."""
    page = " ".join(BEHAVIOUR.read_text().split())
    for promise in (
        f"for {promises.GRACE:g} s, a place is kept",
        f"takes it, for {passes.LIFETIME:,} s",
        f"At most {promises.MOST:,} places",
        f"comes after {proxy_request.FIRST_BACKOFF / 2:g} to {proxy_request.FIRST_BACKOFF:g}",
        f"for {local.FIRST_BACKOFF / 2:g} to {local.FIRST_BACKOFF:g}, doubled by each further 429",
        f"429 up to {local.MAX_BACKOFF:g}",
        f"each {local.FIRST_RUN} successes",
        f"up to {local.MAX_RUN}",
        f"renewed {tokens.AHEAD:g} s ahead",
        f"| opening a connection to the API | {upstream.CONNECT_TIMEOUT:g} |",
        f"| getting an access token | {credentials.TOKEN_TIMEOUT:g} |",
        f"longer than {info.PATIENCE:g} s",
        f"from memory for {info.AGE:g} s",
        f"for {lanes.REFUSAL_AGE:g} s nobody shows",
        f"at most {(credentials.OWN_TOKEN_REQUESTS_RPM + credentials.PASSED_TOKEN_REQUESTS_RPM) / 60:g} a second",
        f"has at most {serving.LARGEST_FORM} bytes",
        f"uploaded once in {attachments.AGE:,.0f} s",
        f"{attachments.MOST:,} files of an account are remembered",
        f"may take {fetching.TIMEOUT:g} s and {fetching.MAX_REDIRECTS} redirects",
        f"at most {attachments.MOST_HELD} downloads",
        f"all pictures and sounds of a request {attachments.MOST_BYTES // attachments.MEGABYTE} MB",
    ):
        assert promise in page, promise


def test_the_version_is_the_same_everywhere() -> None:
    """The changelog's newest, the package's, and the one that the banner tells."""
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert newest and newest[1] == project["version"] == app.VERSION
