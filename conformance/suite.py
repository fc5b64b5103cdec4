"""The run: load the connector as the service does, put the scripted API behind it, take one promise after another."""

import asyncio
import faulthandler
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conformance import alone, calls, leaving, streams, words
from conformance.declaration import ADDRESS, declared_by, put_in_force
from conformance.fence import Fence
from conformance.promises import Absent, Bench, Broken, Promise, file_of, told
from conformance.report import BrokenPromises, Outcome, Report, Verdict
from conformance.scripted import ScriptedApi
from proxy import settings
from proxy.connector import ConnectorError, described, load_connector

ROOT = Path(__file__).resolve().parent.parent
#: Every promise, in the order in which it is looked at.
PROMISES: list[Promise] = [
    *alone.CHAPTER,
    *leaving.START,
    *words.CHAPTER,
    *calls.CHAPTER,
    *leaving.CHAPTER,
    *streams.CHAPTER,
    *leaving.STOP,
]
LOADING = "it can be loaded: a module with validate_data, request_api and get_info"
POINTING = "the suite knows where to put the scripted API"
#: Seconds for one promise; and for all, after which the process says where it hangs, and ends.
LIMIT = 20.0
WHOLE_LIMIT = 120.0


def check(connector: str, *arguments: str, folder: Path | None = None) -> Report:
    """Check a connector in a process of its own, for tests. Raises BrokenPromises with the whole list.

    Args:
        connector: as CONNECTOR names it.
        arguments: as `python -m conformance --help` explains them.
        folder: the current folder of that process, in which the connector may be.
    """
    report = report_of(connector, *arguments, folder=folder)
    if not report.is_kept:
        raise BrokenPromises(report.text)
    return report


def report_of(connector: str, *arguments: str, folder: Path | None = None) -> Report:
    """The same, whatever comes of it. Raises BrokenPromises only if there is no list."""
    roots = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "--json", *arguments, "--", connector],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        return Report.from_json(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise BrokenPromises(f"{connector} could not be checked:\n{done.stderr or done.stdout}") from None


async def run(name: str, *, file: Path | None = None, env: Mapping[str, str] | None = None) -> Report:
    """Check a connector in this process, which is good for nothing else afterwards.

    Raises DeclarationError, or SettingsError if CHECK holds a setting of the service that is wrong.
    """
    faulthandler.dump_traceback_later(WHOLE_LIMIT, exit=True)
    try:
        connector = load_connector(name)
    except ConnectorError as error:
        return Report(name, [Verdict(LOADING, Outcome.BROKEN, str(error))])
    declared = declared_by(connector.home, connector.name, file, env or {})
    verdicts = [Verdict(LOADING, Outcome.KEPT)]
    if not declared.names_the_api:
        verdicts.append(Verdict(POINTING, Outcome.UNKNOWN, how_to_point(connector.name)))
    with ScriptedApi(declared) as api, TemporaryDirectory() as empty:
        put_in_force(declared, api.url)
        settings.use(settings.load(env=declared.settings(api.url), cwd=Path(empty), assets=Path(empty)))
        bench = Bench(connector, declared, api, Fence())
        listen(bench)
        verdicts += [await verdict_on(promise, bench) for promise in PROMISES]
    return Report(connector.name, verdicts)


async def verdict_on(promise: Promise, bench: Bench) -> Verdict:
    if promise.needs_api and not bench.declared.names_the_api:
        return Verdict(promise.text, Outcome.UNKNOWN)
    try:
        async with asyncio.timeout(LIMIT):
            return Verdict(promise.text, Outcome.KEPT, await promise.keep(bench) or "")
    except Absent as why:
        return Verdict(promise.text, Outcome.ABSENT, str(why))
    except Broken as why:
        return Verdict(promise.text, Outcome.BROKEN, str(why))
    except TimeoutError:
        return Verdict(promise.text, Outcome.BROKEN, f"this could not be found out within {LIMIT:g} s: something hangs")
    except Exception as error:
        return Verdict(promise.text, Outcome.BROKEN, f"it failed with {told(error, file_of(bench.connector))}")


def listen(bench: Bench) -> None:
    """Hear what is said to nobody: by the event loop, and about coroutines that nobody awaited."""

    def complained(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        bench.complaints.append(context["message"] + (f" ({described(error)})" if error else ""))

    def warned(message: Warning | str, *_: Any, **__: Any) -> None:
        if "never awaited" in str(message) or "unclosed transport" in str(message):
            bench.complaints.append(str(message))

    asyncio.get_running_loop().set_exception_handler(complained)
    warnings.simplefilter("always", RuntimeWarning)
    warnings.simplefilter("always", ResourceWarning)
    warnings.showwarning = warned


def how_to_point(name: str) -> str:
    return (
        f'say which setting holds the address of its API, as in CHECK = {{"env": {{"MY_API_URL": "{ADDRESS}/v1", '
        f'"MY_API_KEY": "any-key-will-do"}}}} in {name}, or ARGS="--env MY_API_URL={ADDRESS}/v1"; {ADDRESS} becomes '
        "the address of a scripted API on this machine"
    )
