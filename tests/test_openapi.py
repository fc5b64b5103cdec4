"""The description of the service: whole, valid, the same as what serves, and shown without anybody else's help."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai_upstream
import orjson
import pytest
from aiohttp import web
from documents import rows_of
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, chat, until, waiting
from yarl import URL

import gigachat_connector
from proxy.dialects import jobs, steering
from proxy.dialects.language_model_chat import LanguageModelChat
from proxy.dialects.native import Native
from proxy.dialects.openai import Chat, Embeddings, Options
from proxy.dialects.openai.batches import BatchRequest
from proxy.errors import BadRequest
from proxy.openapi import About, Route, document, routes_of
from proxy.openapi.operations import METHODS, OF_OPENAI, OPERATIONS, operation_for
from proxy.routes import Table

ROOT = Path(__file__).parents[1]
KEYS = {"proxy_api_keys": {"anna": SecretStr("key-of-anna")}, "admin_api_key": SecretStr("key-of-the-operator")}
ABOUT = About("gigachat-proxy", "1", has_keys=True, has_operator=True)


@pytest.fixture
async def routes(start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch) -> list[Route]:
    """Those of a service that runs."""
    found: list[web.RouteDef] = []
    define = Table.routes

    def hear(table: Table, *edges: Any) -> list[web.RouteDef]:
        found.extend(define(table, *edges))
        return found

    monkeypatch.setattr(Table, "routes", hear)
    await start_proxy()
    return routes_of(found)


async def told(proxy: Proxy) -> dict[str, Any]:
    async with proxy.http.get(f"{proxy.url}/openapi.json") as response:
        return dict(await response.json())


def operations_in(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


# ---- What is described is served, and the other way round ----


def test_every_route_is_described(routes: list[Route]) -> None:
    """Whoever adds a row to `proxy/routes.py` says what it does in `proxy/openapi/operations.py`, under its name."""
    missing = [f"add a row to OPERATIONS (or OF_OPENAI): {route}" for route in routes if operation_for(*route) is None]
    assert missing == []


def test_whatever_is_described_is_a_route(routes: list[Route]) -> None:
    served = {str(route) for route in routes}
    assert OPERATIONS.keys() <= served
    assert {name.replace(" ", " /v1", 1) for name in OF_OPENAI} <= served


def test_a_route_that_only_refuses_methods_is_not_described() -> None:
    async def serve(request: web.Request) -> web.Response:
        raise NotImplementedError

    defined = [web.route("GET", "/pets", serve), web.route("GET", "/pets/", serve), web.route("*", "/pets", serve)]
    assert routes_of(defined) == [Route("GET", "/pets")]


def test_openais_operations_are_described_alike_at_all_their_addresses(routes: list[Route]) -> None:
    """So it is enough to try those under /v1."""
    paths = document(ABOUT, routes)["paths"]
    for name in OF_OPENAI:
        method, path = name.lower().split(" ")
        ours, root, prefixed = (paths[prefix + path][method] for prefix in ("/v1", "", "/{prefix}/v1"))
        for other in (root, prefixed):
            parameters = [each for each in other["parameters"] if each.get("name") != "prefix"]
            assert {**other, "parameters": parameters} == {
                **ours,
                "operationId": other["operationId"],
                "tags": ["OpenAI, elsewhere"],
            }


def test_the_apis_own_paths_take_any_method(routes: list[Route]) -> None:
    paths = document(ABOUT, routes)["paths"]
    assert {*paths["/api/{version}/{path}"]} == {method.lower() for method in METHODS}


# ---- The document ----


@pytest.mark.parametrize("knobs", [{}, KEYS], ids=["without keys", "with keys"])
async def test_it_is_valid(start_proxy: StartProxy, knobs: dict[str, Any]) -> None:
    """An independent validator says so; names of operations are unique."""
    described = await told(await start_proxy(**knobs))
    assert [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()] == []
    names = [operation["operationId"] for _, operation in operations_in(described)]
    assert len(names) == len(set(names))


def test_the_same_service_is_described_by_the_same_bytes(routes: list[Route]) -> None:
    assert orjson.dumps(document(ABOUT, routes)) == orjson.dumps(document(ABOUT, routes))


def test_of_another_api_nothing_is_said_that_gigachat_alone_asks_for(routes: list[Route]) -> None:
    """Its connector judges the chats; what this service itself asks for stays."""
    described = document(ABOUT._replace(dialect="openai"), routes)
    assert [error.message for error in OpenAPIV31SpecValidator(described).iter_errors()] == []
    components = described["components"]
    shape = Draft202012Validator({"$ref": "#/components/schemas/NativeChat", "components": components})
    assert shape.is_valid({"messages": [["oracle", "x"]], "generate_parameters": {"temperature": -1}})
    assert not shape.is_valid({"messages": [["oracle", "x"]], "temperature": 1})


async def test_it_tells_every_status_and_code_of_the_table_of_statuses(start_proxy: StartProxy) -> None:
    """docs/behaviour.md has them for people."""
    components = (await told(await start_proxy()))["components"]["responses"]
    statuses = (ROOT / "docs/behaviour.md").read_text().partition("## Statuses")[2]
    rows = [row for row in rows_of(statuses, 3) if re.fullmatch(r"4xx|\d{3}", row[0])]
    assert len(rows) > 25
    for status, code, _ in rows:
        if code != "`method_not_allowed`":  # the method that is refused is not described
            assert f"{code}:" in components[f"openai-{status.upper()}"]["description"], (status, code)


async def test_every_answer_has_an_id_and_every_failure_a_body(start_proxy: StartProxy) -> None:
    described = await told(await start_proxy())
    responses = described["components"]["responses"]
    for name, operation in operations_in(described):
        for status, answer in operation["responses"].items():
            whole = responses[answer["$ref"].rpartition("/")[2]] if "$ref" in answer else answer
            assert "X-Request-ID" in whole["headers"], (name, status)
            assert "content" in whole or status in ("204", "304"), (name, status)


async def test_it_says_who_needs_a_key(start_proxy: StartProxy) -> None:
    with_keys, without = await told(await start_proxy(**KEYS)), await told(await start_proxy())
    callers, operators = {"key", "x-api-key", "api-key", "x-goog-api-key"}, {"operator", "operator-x-api-key"}

    def ways(described: dict[str, Any], path: str, method: str = "get") -> set[str]:
        return {name for way in described["paths"][path][method]["security"] for name in way or [""]}

    assert ways(with_keys, "/", "post") == ways(with_keys, "/jobs") == callers
    assert ways(with_keys, "/limits", "patch") == operators
    assert ways(with_keys, "/queue") == callers | operators
    assert ways(with_keys, "/metrics") == callers | operators | {""}  # this machine needs none
    assert ways(with_keys, "/health") == ways(with_keys, "/openapi.json") == set()
    assert all(not operation["security"] for _, operation in operations_in(without))


# ---- What it is served as ----


async def test_it_is_served_to_anybody_and_only_once_to_who_has_it(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(**KEYS)
    async with proxy.http.get(f"{proxy.url}/openapi.json") as first:
        assert (first.status, first.content_type) == (200, "application/json")
        text, tag = await first.text(), first.headers["ETag"]
    assert "key-of" not in text
    async with proxy.http.get(f"{proxy.url}/openapi.json", headers={"If-None-Match": tag}) as second:
        assert (second.status, await second.read(), second.headers["ETag"]) == (304, b"", tag)
    async with proxy.http.get(f"{proxy.url}/openapi.json", headers={"If-None-Match": '"older"'}) as third:
        assert (third.status, await third.text()) == (200, text)


async def test_the_page_comes_from_here_alone(start_proxy: StartProxy) -> None:
    """What it is made of is here, and its policy lets it ask nobody else."""
    proxy = await start_proxy(**KEYS)
    async with proxy.http.get(f"{proxy.url}/docs/") as response:
        page, policy = await response.text(), response.headers["Content-Security-Policy"]
    assert (response.status, response.content_type) == (200, "text/html")
    assert policy.startswith("default-src 'self';")
    assert "http" not in policy + page
    for file in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page):
        async with proxy.http.get(proxy.url + file) as part:
            assert (part.status, part.headers["X-Content-Type-Options"]) == (200, "nosniff")


@pytest.mark.parametrize("file", ["nothing.js", "swagger", "..%2fdashboard/index.html", "..%2f..%2fapp.py", "%00"])
async def test_the_page_has_no_other_files(start_proxy: StartProxy, file: str) -> None:
    proxy = await start_proxy()
    async with proxy.http.get(URL(f"{proxy.url}/docs/{file}", encoded=True)) as response:
        assert response.status == 404


# ---- What is told is of the shapes that are described ----


def check(described: dict[str, Any], name: str, status: int, body: Any) -> None:
    """This answer to an operation is as it is described."""
    method, path = name.lower().split(" ")
    content = described["paths"][path][method]["responses"][str(status)]["content"]
    schema = content["application/json"]["schema"]
    Draft202012Validator({**schema, "components": described["components"]}).validate(body)


async def test_who_waits_is_told_as_described(start_proxy: StartProxy) -> None:
    """schemathesis finds nobody in line."""
    proxy = await start_proxy(ext_max_requests=1)
    described = await told(proxy)
    first = await busy(proxy, 2)
    second = asyncio.create_task(proxy.ask("second", headers={"X-Request-ID": "second"}))
    await until(lambda: waiting(proxy) == 1)
    for method, path in (("GET", "/queue"), ("GET", "/queue/{id}"), ("DELETE", "/queue/{id}")):
        async with proxy.http.request(method, proxy.url + path.format(id="second")) as response:
            assert response.status == 200
            check(described, f"{method} {path}", 200, await response.json())
    assert (await second).status == 503
    check(described, "POST /", 200, (await first).body)


async def test_a_batch_and_its_files_are_told_as_described(start_proxy: StartProxy, tmp_path: Path) -> None:
    """From its beginning to its end."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    described = await told(proxy)

    async def ask(method: str, path: str, **more: Any) -> Any:
        id = more.pop("id", "")
        async with proxy.http.request(method, proxy.url + path.format(id=id), **more) as response:
            body = await response.json()
            check(described, f"{method} {path}", 200, body)
            return body

    line = {"custom_id": "a", "method": "POST", "url": "/", "body": chat()}
    form = aiohttp.FormData({"purpose": "batch"})
    form.add_field("file", orjson.dumps(line), filename="lines.jsonl")
    file = await ask("POST", "/v1/files", data=form)
    asked = {"input_file_id": file["id"], "endpoint": "/", "completion_window": "24h", "metadata": {"of": "mine"}}
    batch = await ask("POST", "/v1/batches", json=asked)
    async with asyncio.timeout(20):
        # Its callers have no other way to know.
        while (batch := await ask("GET", "/v1/batches/{id}", id=batch["id"]))["status"] != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    for path in ("/v1/batches", "/v1/files"):
        assert (await ask("GET", path))["data"]
    await ask("GET", "/v1/files/{id}", id=batch["output_file_id"])
    await ask("DELETE", "/v1/files/{id}", id=file["id"])


async def test_a_refusal_is_told_as_described(start_proxy: StartProxy) -> None:
    """In each dialect."""
    proxy = await start_proxy(**KEYS)
    described = await told(proxy)
    asks = ["POST /", "POST /gigachat", "POST /v1/chat/completions", "POST /api/v2/oauth", "PATCH /limits", "GET /jobs"]
    for name in asks:
        method, path = name.split(" ")
        async with proxy.http.request(method, proxy.url + path, headers={"X-API-Key": "nobody's"}) as response:
            assert response.status == 401
            failure = described["paths"][path][method.lower()]["responses"]["401"]["$ref"].rpartition("/")[2]
            schema = described["components"]["responses"][failure]["content"]["application/json"]["schema"]
            Draft202012Validator({**schema, "components": described["components"]}).validate(await response.json())


# ---- Headers are those that are described ----

#: Of HTTP itself.
OF_HTTP = {"content-length", "content-type", "date", "server", "transfer-encoding", "connection"}


def check_headers(described: dict[str, Any], name: str, response: aiohttp.ClientResponse) -> None:
    """Each that an answer has is described with what it may be, and those that it must have are there."""
    method, path = name.lower().split(" ")
    answers = described["paths"][path][method]["responses"]
    answer = answers.get(str(response.status)) or answers[f"{response.status // 100}XX"]
    if "$ref" in answer:
        answer = described["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    known = {name.lower(): header_of(described, header) for name, header in answer["headers"].items()}
    told = {name.lower(): value for name, value in response.headers.items() if name.lower() not in OF_HTTP}
    assert told.keys() <= known.keys(), (name, response.status)
    assert {name for name, header in known.items() if header.get("required")} <= told.keys(), (name, response.status)
    for header, value in told.items():
        schema = known[header]["schema"]
        Draft202012Validator(schema).validate(int(value) if schema.get("type") == "integer" else value)


def header_of(described: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    return described["components"]["headers"][header["$ref"].rpartition("/")[2]] if "$ref" in header else header


CHATS: dict[str, dict[str, Any]] = {
    "POST /": chat(),
    "POST /gigachat": {"messages": [{"role": "user", "content": "x"}]},
    "POST /v1/chat/completions": {"model": "GigaChat-2", "messages": [{"role": "user", "content": "x"}]},
}


@pytest.mark.parametrize("status", [200, 400, 402, 403, 404, 413, 422, 500, 502, 503])
async def test_answers_of_the_api_have_the_headers_that_are_described(start_proxy: StartProxy, status: int) -> None:
    """Its refusals too: they tell their way through the line, and the pause that the API asks for."""
    proxy = await start_proxy(ext_api_rpm=6000, ext_retries=0)
    described = await told(proxy)
    for name, body in CHATS.items():
        if status != 200:
            proxy.giga.state.faults.add({"kind": "status", "status": status, "retry_after": 7})
        async with proxy.http.post(proxy.url + name.partition(" ")[2], json=body) as response:
            assert response.status == (502 if status == 500 else status)
            assert "X-Queue-Wait-Ms" in response.headers
            check_headers(described, name, response)


async def test_refusals_of_ours_have_the_headers_that_are_described(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(**KEYS, ext_max_requests=1, ext_queue_size=1, max_body_bytes=1000)
    described = await told(proxy)
    anna = {"Authorization": "Bearer key-of-anna"}
    proxy.giga.state.faults.add({"kind": "slow", "seconds": 4})
    calls = [asyncio.create_task(proxy.ask("x", headers={**anna, "X-Request-ID": id})) for id in ("1st", "2nd")]
    await until(lambda: proxy.service.line.state().limits.in_flight == 1 and waiting(proxy) == 1)
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (401, "POST /", {"json": chat()}),
        (401, "GET /dashboard/events", {"headers": anna}),
        (403, "POST /", {"json": chat(), "headers": {**anna, "Origin": "https://elsewhere.example"}}),
        (413, "POST /v1/chat/completions", {"data": bytes(2000), "headers": anna}),
        (429, "POST /", {"json": chat(), "headers": anna}),
        (429, "POST /v1/embeddings", {"json": {"input": "x"}, "headers": anna}),
        (404, "GET /dashboard/{file}", {"headers": anna}),
        (501, "GET /jobs", {"headers": anna}),
    ]
    for status, name, more in cases:
        method, path = name.split(" ")
        async with proxy.http.request(method, proxy.url + path.replace("{file}", "no.css"), **more) as response:
            assert response.status == status, name
            check_headers(described, name, response)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v2/oauth"])
async def test_a_refused_credential_is_told_as_described(start_proxy: StartProxy, path: str) -> None:
    """A 401 says how to come in (RFC 9110), also where the API refuses what a caller brought along."""
    proxy = await start_proxy(gpt2giga_pass_token=True)
    described = await told(proxy)
    proxy.giga.state.faults.add({"kind": "status", "status": 401, "path": "/oauth", "times": -1})
    headers = {"Authorization": "Bearer giga-cred-a2V5LW9uZQ==" if path.startswith("/v1") else "Basic a2V5LW9uZQ=="}
    more: dict[str, Any] = {"json": CHATS["POST /v1/chat/completions"]} if path.startswith("/v1") else {"data": b""}
    async with proxy.http.post(proxy.url + path, headers=headers, **more) as response:
        assert response.status == 401
        check_headers(described, f"POST {path}", response)


async def test_whatever_takes_get_takes_head(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Of a stream too it has the head alone: more would be taken for the answer to what comes next."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    job = (await proxy.ask(headers={"Prefer": "respond-async"})).body["id"]
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        for path in ("/dashboard/events", f"/jobs/{job}/events", "/dashboard", "/openapi.json", "/health"):
            writer.write(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async with asyncio.timeout(20):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), path
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.read()).endswith(b'\r\n\r\n{"status":"ok"}')
    finally:
        writer.close()
    await until(lambda: proxy.service.overview.watchers == 0)


@pytest.mark.parametrize("prefix", ["", "/api/openai", "/api/v3"])
async def test_openais_clients_read_failures_wherever_their_base_address_is(
    start_proxy: StartProxy, prefix: str
) -> None:
    """One that begins like GigaChat's own is none of GigaChat's."""
    proxy = await start_proxy()
    async with proxy.http.post(f"{proxy.url}{prefix}/v1/chat/completions", json={"messages": 5}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "messages"


# ---- Examples work as they are ----


def examples_in(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each with its operation and its media type: at one of OpenAI's addresses, and by one method of GigaChat's own."""
    for name, operation in operations_in(described):
        is_told_before = operation["tags"] == ["OpenAI, elsewhere"] or re.match("(PUT|PATCH|DELETE) .*{path}", name)
        for kind, media in () if is_told_before else operation.get("requestBody", {}).get("content", {}).items():
            if kind != "*/*":
                yield name, kind, media["example"]


async def test_every_body_that_is_described_has_an_example_of_its_shape(start_proxy: StartProxy) -> None:
    described = await told(await start_proxy())
    for name, operation in operations_in(described):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            assert "example" in media, name
            whole = media["example"] | ({"file": "of its sender"} if kind == "multipart/form-data" else {})
            Draft202012Validator({**media["schema"], "components": described["components"]}).validate(whole)


async def test_every_example_is_answered_well(start_proxy: StartProxy, tmp_path: Path) -> None:
    """Sent as it is, by whoever tries it first; a batch needs the id of a file."""
    async with openai_upstream.running() as other:
        gpt = {"url_gpt": other.base, "api_key": SecretStr(openai_upstream.KEY)}
        proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), **KEYS, **gpt)
        tried = [*examples_in(await told(proxy))]
        assert len(tried) == 14
        file = ""
        for name, kind, example in tried:
            method, path = name.format(version="v1", path="chat/completions").split(" ")
            body = {**example, "input_file_id": file} if path == "/v1/batches" else example
            async with proxy.http.request(method, proxy.url + path, **sent_as(name, kind, body)) as response:
                assert response.status in (200, 202), (name, await response.text())
                file = (await response.json())["id"] if name == "POST /v1/files" else file


def sent_as(name: str, kind: str, example: dict[str, Any]) -> dict[str, Any]:
    """As the page at /docs sends it, with the file that its reader chooses and the key that it needs."""
    key = "key-of-the-operator" if name == "PATCH /limits" else "key-of-anna"
    more: dict[str, Any] = {"headers": {"X-API-Key": key}}
    if name in ("POST /v1/token", "POST /{version}/{path}"):
        more["headers"]["User-Agent"] = "GigaChat-python-lib"
    if kind == "application/json":
        return {**more, "json": example}
    form = aiohttp.FormData({field: str(value) for field, value in example.items()})
    if kind == "multipart/form-data":
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [USER]}}
        form.add_field("file", orjson.dumps(line), filename="lines.jsonl")
    return {**more, "data": form}


async def test_nothing_but_a_preview_is_prefilled_beside_a_body(start_proxy: StartProxy) -> None:
    """Swagger UI sends what is an example or a default: a wish for a job, say, that nobody has."""
    described = await told(await start_proxy())
    components = described["components"]["parameters"]
    prefilled: list[tuple[str, str]] = []
    for name, operation in operations_in(described):
        for each in operation["parameters"]:
            parameter = components[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
            if {"example", "examples"} & parameter.keys() or {"example", "default"} & parameter["schema"].keys():
                prefilled.append((name, parameter["name"]))
    assert prefilled == [("PATCH /limits", "preview")]


async def test_the_example_of_limits_tried_as_the_page_has_it_changes_nothing(start_proxy: StartProxy) -> None:
    """Two clicks of a reader tell what would come of it."""
    proxy = await start_proxy(**KEYS)
    (patch,) = (operation for name, operation in operations_in(await told(proxy)) if name == "PATCH /limits")
    asked = {each["name"]: str(each["example"]).lower() for each in patch["parameters"] if "example" in each}
    before = proxy.service.line.state().limits
    example = patch["requestBody"]["content"]["application/json"]["example"]
    headers = {"X-API-Key": "key-of-the-operator"}
    async with proxy.http.patch(f"{proxy.url}/limits", params=asked, json=example, headers=headers) as response:
        assert (response.status, (await response.json())["preview"]) == (200, True)
    assert proxy.service.line.state().limits == before


# ---- The shapes are those that the code checks ----

#: What somebody may write in any field.
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 129, 3600, 0.5, 1.5, 2.5, -0.5, 0.0005, 10_000_000),
    *("", " ", "x", "auto", "none", "minimal", "low", "high", "batch", "float", "base64", "POST", "GET", "/", "//x"),
    *("/v1/chat/completions", "24h", "0h", "168h", "169h", "юг", "x" * 600),
    *(
        [],
        [None],
        [1],
        ["x"],
        [""],
        ["text"],
        ["a", "b", "c", "d", "e"],
        [{}],
        [["user", "x"]],
        [["user"]],
        [["x", "x"]],
    ),
    *([["user", "x", "y"]], [["user", 1]], [{"role": "user"}], [{"role": "user", "content": "x"}]),
    *([{"role": "user", "content": 1}], [{"role": "x", "content": "x"}], [{"role": "assistant", "attachments": []}]),
    *([{"role": "assistant", "function_call": {"name": "f"}}], [{"role": "user", "attachments": ["x"]}]),
    *([{"name": "f"}], [{"name": "1 f"}], [{"name": "f", "parameters": 1}], [{"type": "function"}]),
    *([{"type": "function", "function": {"name": "f"}}], [{"type": "function", "function": {"name": ""}}]),
    *({}, {"x": 1}, {"x": "y"}, {"name": "x"}, {"type": "text"}, {"type": "x"}, {"include_usage": 1}),
    *({"anchor": "created_at", "seconds": 3600}, {"anchor": "created_at", "seconds": 1}, {"anchor": "x"}),
    *({"x-client-id": "x"}, {"x-client-id": 1}, {"x-client-id": "a\r\nb"}, {"authorization": "x"}),
    {str(number): "x" for number in range(17)},
]


def native(body: Any) -> None:
    gigachat_connector.validate_data(Native("x").request(body))


def conversation(body: Any) -> None:
    gigachat_connector.validate_data(LanguageModelChat("").request(body))


def parameters(body: Any) -> None:
    if body is None:
        raise TypeError("there are none, which is no shape")
    native({**chat(), "generate_parameters": body})


def message(body: Any) -> None:
    native({"messages": [body]})


def openai(body: Any) -> None:
    Chat(body, Options(), id="x", created=1)


def embeddings(body: Any) -> None:
    Embeddings(body, Options(dimensions="truncate"))


def job(body: Any) -> None:
    jobs.Wanted.read(body, longest_keep=jobs.LONGEST)


def limits(body: Any) -> None:
    steering.Wanted.read(orjson.dumps(body))


USER = {"role": "user", "content": "x"}
SHAPES: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "NativeChat": (native, chat()),
    "GenerateParameters": (parameters, {}),
    "Message": (message, USER),
    "LanguageModelChat": (conversation, {"messages": [USER]}),
    "OpenAIChat": (openai, {"messages": [USER]}),
    "EmbeddingsAsked": (embeddings, {"input": "x"}),
    "BatchAsked": (BatchRequest.of, {"input_file_id": "x", "endpoint": "/", "completion_window": "24h"}),
    "JobAsked": (job, {"body": {}}),
    "LimitsAsked": (limits, {"rpm": 60}),
}
#: What no shape can say of a field: what stands beside it, or within a text.
BESIDE = {
    ("OpenAIChat", "stream_options"),  # only with a stream
    ("OpenAIChat", "extra_body"),  # counts as if it stood at the top
    ("OpenAIChat", "tool_choice"),  # among the tools
    ("OpenAIChat", "function_call"),
    ("OpenAIChat", "response_format"),  # a schema within
    ("OpenAIChat", "messages"),  # parts within
    ("JobAsked", "webhook"),  # where it leads to
}


def is_taken(read: Callable[[Any], object], body: Any) -> bool:
    try:
        read(body)
    except (BadRequest, ValueError, TypeError):
        return False
    return True


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_takes_what_the_code_takes(name: str, routes: list[Route]) -> None:
    """Each of its fields with each value, unknown fields, and fields that are missing."""
    components = document(ABOUT, routes)["components"]
    shape = Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})
    read, good = SHAPES[name]
    assert shape.is_valid(good)
    assert is_taken(read, good)
    fields = [*components["schemas"][name]["properties"], "unknown"]
    bodies = [{**good, field: value} for field in fields if (name, field) not in BESIDE for value in VALUES]
    bodies += [{field: good[field] for field in good if field != left_out} for left_out in good]
    bodies += [None, [], "x", 1]
    assert [body for body in bodies if shape.is_valid(body) != is_taken(read, body)] == []


# ---- What schemathesis found ----


async def test_a_wrong_timeout_is_refused_though_a_job_has_none(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")))
    wrong = {"Prefer": "respond-async", "X-Request-Timeout": "0"}
    answer = await proxy.ask(headers=wrong)
    assert (answer.status, "X-Request-Timeout" in answer.body["status"]) == (400, True)


async def test_a_job_told_again_has_an_id_though_its_caller_sent_a_wrong_one(
    start_proxy: StartProxy, tmp_path: Path
) -> None:
    """An empty one, or one with spaces, is nobody's id: that of the job is told."""
    proxy = await start_proxy(jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), **KEYS)
    key = {"Idempotency-Key": "k", "Authorization": "Bearer key-of-anna"}
    accepted = await proxy.ask(headers={**key, "Prefer": "respond-async", "X-Request-ID": "two words"})
    assert accepted.status == 202
    again = await proxy.ask(headers=key)
    assert (again.status, again.headers["X-Request-ID"]) == (200, accepted.body["id"])


async def test_an_unknown_order_of_files_is_refused(start_proxy: StartProxy) -> None:
    proxy = await start_proxy()
    async with proxy.http.get(f"{proxy.url}/v1/files?order=newest") as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "order")
