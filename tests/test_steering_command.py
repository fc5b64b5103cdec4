"""`app.py status`, `limits`, `pause` and `resume`: against a service that runs, against none, against another one."""

import asyncio
import json
import os
import pty
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from authority import Authority
from pydantic import SecretStr
from running import Proxy, StartProxy, busy, until, waiting

import app
from proxy import admins
from proxy.operators import service, steering
from proxy.operators.service import RunningService, WrongAddress, url_of
from proxy.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
KEY = "key-of-the-operator"
KEYED = {"admin_api_key": SecretStr(KEY), "proxy_api_keys": {"anna": SecretStr("key-of-anna")}}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(admins, "PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "PORT", "ADMIN_API_KEY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


class Told(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


Say = Callable[..., Any]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """`await say("limits", "--rpm", "100", url=proxy.url)`: type a command, in a folder with nothing in it."""

    async def typed(name: str, *argv: str, url: str | None = None) -> Told:
        capsys.readouterr()
        flags = ["--url", url] if url else []
        code = await asyncio.to_thread(steering.main, name, [*argv, *flags], tmp_path)
        return Told(code, *capsys.readouterr())

    return typed


# ---- What is seen ----


async def test_status_is_a_table_of_how_the_service_fares(start_proxy: StartProxy, say: Say, tmp_path: Path) -> None:
    proxy = await start_proxy(
        ext_api_rpm=60, ext_max_requests=1, jobs_url=SecretStr(str(tmp_path / "jobs.sqlite")), ext_queue_size=50
    )
    first = await busy(proxy, 30)
    asking = [asyncio.create_task(proxy.ask("x")) for _ in range(3)]
    await until(lambda: waiting(proxy) == 3)
    told = await say("status", url=proxy.url)
    lines = told.out.splitlines()
    assert told.code == 0 and told.err == ""
    assert lines[0].split("  ")[0] == "LANE"
    assert lines[1].startswith("main  60 a minute  1 of 1")
    assert "3 of 50" in lines[1] and lines[1].endswith("serves")
    assert lines[-1].startswith("jobs: 0 queued, 0 lines of batches queued")
    for task in (first, *asking):
        task.cancel()


async def test_status_tells_what_was_set_and_that_it_is_paused(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(ext_api_rpm=60)
    assert (await say("limits", "--rpm", "100", "--concurrency", "0", url=proxy.url)).code == 0
    assert (await say("pause", url=proxy.url)).code == 0
    told = (await say("status", url=proxy.url)).out
    assert "PAUSED" in told and "100 a minute" in told
    assert "main: rpm 100 in place of 60, since 20" in told and "by operator at 127.0.0.1" in told
    assert "main: concurrency 0 in place of 10" in told
    assert "main: paused until `app.py resume`, since 20" in told


async def test_status_tells_the_command_that_resumes_another_lane(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(api_key=SecretStr("a-key"))
    assert "chatgpt: paused, it was not" in (await say("pause", "--lane", "chatgpt", url=proxy.url)).out
    told = (await say("status", url=proxy.url)).out
    assert "chatgpt: paused until `app.py resume --lane chatgpt`, since 20" in told
    assert "chatgpt: resumed, it was paused" in (await say("resume", "--lane", "chatgpt", url=proxy.url)).out


async def test_large_numbers_are_told_as_people_type_them(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(ext_api_rpm=60)
    told = await say("limits", "--rpm", "1000000", "--concurrency", "1000000", url=proxy.url)
    assert "main: rpm 1000000, it was 60" in told.out and "main: concurrency 1000000, it was 10" in told.out
    told = await say("status", url=proxy.url)
    assert "1000000 a minute" in told.out and "main: concurrency 1000000 in place of 10" in told.out
    assert "e+0" not in told.out + (await say("limits", url=proxy.url)).out
    assert "limits: 1000000 calls a minute" in app.banner(proxy.service)


async def test_for_scripts_there_is_one_json_object(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(ext_api_rpm=60)
    told = json.loads((await say("status", "--json", url=proxy.url)).out)
    assert told["lanes"][0]["limits"]["rpm"]["now"] == 60 and told["jobs"] is None
    told = json.loads((await say("limits", "--json", url=proxy.url)).out)
    assert [lane["name"] for lane in told["lanes"]] == ["main"]
    told = json.loads((await say("limits", "--rpm", "90.5", "--json", url=proxy.url)).out)
    assert told["changes"] == [{"field": "rpm", "from": 60, "to": 90.5, "is_setting": False}]
    assert json.loads((await say("pause", "--json", url=proxy.url)).out)["lane"]["paused"]


async def test_limits_shows_what_holds_and_by_which_setting(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(ext_api_rpm=60)
    await say("limits", "--timeout", "5", url=proxy.url)
    lines = (await say("limits", url=proxy.url)).out.splitlines()
    assert lines[0].split() == ["LANE", "LIMIT", "NOW", "SETTING", "SINCE", "BY"]
    assert lines[1].split() == ["main", "rpm", "60", "60", "(EXT_API_RPM)"]
    assert lines[3].split()[:5] == ["main", "timeout", "5", "60", "(EXP_RESP_TIMEOUT)"]
    assert lines[3].endswith("operator at 127.0.0.1") and lines[5].split()[:3] == ["main", "paused", "no"]


# ---- What is changed ----


async def test_limits_are_changed_and_what_comes_of_it_is_told(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy(ext_api_rpm=60)
    told = await say("limits", "--rpm", "100", "--queue-size", "5", "--preview", url=proxy.url)
    assert told.out.splitlines() == [
        "main: rpm would be 100, it was 60",
        "main: queue_size would be 5, it was 10000",
        "main: nobody waits",
    ]
    assert proxy.service.line.state().limits.rpm == 60
    told = await say("limits", "--rpm", "100", "--concurrency", "0", "--timeout", "0.5", url=proxy.url)
    assert "main: rpm 100, it was 60" in told.out and "main: concurrency no limit, it was 10" in told.out
    assert "calls that begin from now on may take 0.5 s" in told.out
    assert "this will not outlast the service" in told.out  # it was started without a folder
    assert proxy.service.line.state().limits.rpm == 100
    told = await say("limits", "--rpm", "setting", url=proxy.url)
    assert "main: rpm 60 (the setting), it was 100" in told.out
    assert "nothing changes, it is so already" in (await say("limits", "--rpm", "setting", url=proxy.url)).out


async def test_a_service_is_paused_and_resumed(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy()
    told = await say("pause", url=proxy.url)
    assert "main: paused: nothing is sent until it is resumed, nobody waits" in told.out
    asking = asyncio.create_task(proxy.ask("x"))
    await until(lambda: waiting(proxy) == 1)
    assert (await say("resume", "--lane", "main", url=proxy.url)).code == 0
    assert (await asking).status == 200


@pytest.mark.parametrize(
    "argv",
    [
        ["limits", "--rpm", "-1"],
        ["limits", "--rpm", "nan"],
        ["limits", "--rpm", "inf"],
        ["limits", "--rpm", ""],
        ["limits", "--concurrency", "1.5"],
        ["limits", "--timeout", "0"],
        ["limits", "--queue-size", "0"],
        ["limits", "--queue-size", "1e999"],
        ["limits", "--pace", "5"],
        ["status", "--lane", "main"],
        ["pause", "now"],
    ],
)
async def test_a_wrong_command_is_told_before_anybody_is_asked(say: Say, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        await say(*argv, url="http://127.0.0.1:1")
    assert end.value.code == 2


async def test_an_unknown_lane_is_told_those_there_are(start_proxy: StartProxy, say: Say) -> None:
    proxy = await start_proxy()
    for argv in (["pause", "--lane", "x"], ["limits", "--lane", "x"]):
        told = await say(*argv, url=proxy.url)
        assert told.code == 1 and 'no lane "x"; there is main' in told.err and told.out == ""


# ---- The key ----


async def test_the_operators_key_is_that_of_the_settings(
    start_proxy: StartProxy, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the environment or an env file; it is in no word that is told."""
    proxy = await start_proxy(**KEYED)
    told = await say("status", url=proxy.url)
    assert told.code == 1
    assert "(no ADMIN_API_KEY is set here: put it into the environment, .env or assets/env)" in told.err
    monkeypatch.setenv("ADMIN_API_KEY", "wrong")
    told = await say("pause", url=proxy.url)
    assert told.code == 1 and "wrong" not in told.err
    assert "(the ADMIN_API_KEY that is set here was sent: it comes from the environment, .env or" in told.err
    monkeypatch.setenv("ADMIN_API_KEY", KEY)
    assert (await say("pause", url=proxy.url)).code == 0
    monkeypatch.delenv("ADMIN_API_KEY")
    (tmp_path / "other.env").write_text(f"ADMIN_API_KEY={KEY}\n")
    assert (await say("resume", "--env-path", "other.env", url=proxy.url)).code == 0
    assert not proxy.service.line.state().limits.is_held


async def test_a_key_that_no_header_takes_is_told_without_it(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TIMEOUT", 1.0)

    async def nobody(reader: object, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(nobody, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(service.NoService, match="ADMIN_API_KEY cannot be sent"):
            await asyncio.to_thread(RunningService(f"http://127.0.0.1:{port}", "a\nb").ask, "GET", "/limits")


# ---- No service, or another one ----


async def test_where_nothing_listens_it_says_so(say: Say, unused_port: int) -> None:
    told = await say("status", url=f"http://127.0.0.1:{unused_port}")
    assert told == (
        1,
        "",
        f"app.py status: http://127.0.0.1:{unused_port}: nothing listens there: start the service, or say where it is "
        "with --url\n",
    )


async def test_the_service_is_looked_for_where_the_settings_put_it(
    say: Say, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setenv("PORT", str(unused_port))
    assert f"http://127.0.0.1:{unused_port}: nothing listens there" in (await say("status")).err


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_where_a_service_listens_is_where_it_is_reached(host, url):
    assert url_of(Settings(host=host, port=80)) == url


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8078",
        "ftp://x",
        "http://",
        "http://x:y",
        "http://x:99999",
        "http://u:p@x",
        "http://x/?a",
        "http://x:0",
    ],
)
async def test_what_is_no_address_is_told(say: Say, url: str) -> None:
    told = await say("status", url=url)
    assert told.code == 2 and "an address looks like" in told.err and "p@" not in told.err


async def test_any_free_port_is_no_address(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    told = await say("status")
    assert told.code == 2 and "--url" in told.err


async def test_a_wrong_setting_is_told(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    told = await say("status")
    assert told.code == 2 and "PORT=many" in told.err


@asynccontextmanager
async def another(answer: Callable[[web.Request], Any], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that is none of ours."""

    async def told(request: web.Request) -> web.Response:
        return answer(request)  # type: ignore[no-any-return]

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", told)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: web.Response(text="<html>", content_type="text/html"),
        lambda request: web.Response(text="[]", content_type="application/json"),
        lambda request: web.Response(status=404, text="nothing"),
        lambda request: web.Response(status=302, headers={"Location": "http://example.org/"}),
        lambda request: web.json_response({"error": "what?"}, status=400),
    ],
)
async def test_something_else_that_answers_is_told_from_the_service(say: Say, answer: Any) -> None:
    """A redirect is not followed: the key is not for where it leads."""
    async with another(answer) as url:
        told = await say("status", url=url)
        assert told.code == 1 and "is no gigachat-proxy" in told.err


async def test_what_speaks_no_http_is_told(say: Say) -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 smtp.example.org\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(mumble, "127.0.0.1", 0)
    async with server:
        told = await say("status", url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert told.code == 1 and "speaks no HTTP" in told.err


async def test_who_does_not_answer_is_not_waited_for_for_ever(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TIMEOUT", 0.2)
    asked = asyncio.Event()

    async def silent(reader: object, writer: asyncio.StreamWriter) -> None:
        await asked.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        told = await say("status", url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        asked.set()
        assert told.code == 1 and "no answer within 0.2 s" in told.err


async def test_over_tls_the_certificate_is_verified(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_proxy: StartProxy
) -> None:
    proxy = await start_proxy()
    authority = Authority.found(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue())
    told = json.loads((await say("limits", "--json", url=proxy.url)).out)
    async with another(lambda request: web.json_response(told), tls) as url:
        refused = await say("limits", url=url)
        assert refused.code == 1 and "certificate is not accepted" in refused.err
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.root))
        assert (await say("limits", url=url)).code == 0
        plain = await say("limits", url=url.replace("https", "http"))
        assert plain.code == 1 and ("speaks no HTTP" in plain.err or "no gigachat-proxy" in plain.err)
    refused = await say("limits", url=proxy.url.replace("http", "https"))
    assert refused.code == 1 and "is it http:// perhaps?" in refused.err


async def test_words_of_strangers_do_not_steer_a_terminal(say: Say) -> None:
    refusal = {"app": "x", "status": "no \x1b[2J\r way", "data": {}}
    async with another(lambda request: web.json_response(refusal, status=400)) as url:
        told = await say("pause", url=url)
        assert told.code == 1 and "\x1b" not in told.err and "\r" not in told.err


# ---- As people type them ----


async def test_the_commands_are_part_of_app_py(start_proxy: StartProxy, tmp_path: Path) -> None:
    """On a terminal, too; and the ordinary command line names them."""
    proxy = await start_proxy(ext_api_rpm=60)
    assert {"status", "limits", "pause", "resume"} < {*app.COMMANDS}

    def typed(*argv: str) -> tuple[int, str]:
        told = subprocess.run(
            [sys.executable, str(ROOT / "app.py"), *argv],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
        )
        return told.returncode, told.stdout + told.stderr

    code, out = await asyncio.to_thread(typed, "limits", "--rpm", "100", "--url", proxy.url)
    assert code == 0 and "main: rpm 100, it was 60" in out
    code, out = await asyncio.to_thread(typed, "--help")
    assert code == 0 and "jobs|status|limits|pause|resume" in out
    for name in ("status", "limits", "pause", "resume"):
        code, out = await asyncio.to_thread(typed, name, "--help")
        assert code == 0 and "Exit code" in out


async def test_a_table_fits_its_terminal(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy: Proxy = await start_proxy(ext_api_rpm=60)

    def typed() -> bytes:
        end, terminal = pty.openpty()
        try:
            subprocess.run(
                [sys.executable, str(ROOT / "app.py"), "status", "--url", proxy.url],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "COLUMNS": "40"},
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                check=True,
            )
            return os.read(end, 100_000)
        finally:
            os.close(terminal)
            os.close(end)

    out = (await asyncio.to_thread(typed)).decode()
    assert "main" in out and all(len(line) <= 40 for line in out.splitlines()[:2])


def test_an_address_may_have_a_path_and_a_wrong_one_has_no_service():
    """Behind a proxy, say."""
    assert RunningService("https://example.org/giga/", None).url == "https://example.org/giga"
    with pytest.raises(WrongAddress):
        RunningService("example.org", None)
