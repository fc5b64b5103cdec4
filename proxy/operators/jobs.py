"""`app.py jobs`: the command line, and the store that it works on."""

import asyncio
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from proxy import settings as knobs
from proxy.errors import ProxyError
from proxy.jobs import ENDS, State
from proxy.jobs.runner import LEASE, RENEWAL
from proxy.jobs.store import Store
from proxy.operators.changing import cancel, purge, retry
from proxy.operators.looking import list_jobs, show
from proxy.operators.telling import harmless
from proxy.settings import Settings, SettingsError
from proxy.work import place_of, store_at

#: Jobs of a list unless told otherwise.
LISTED = 50
#: Seconds of the units that times are given in.
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
EPILOG = f"""\
A job that runs when it is cancelled is let go within {RENEWAL:g} s, and its answer is not kept. One that is queued
again while the service runs begins within {LEASE:g} s, if there is no line before it.

Exit code: 0 all is done, 1 something is not there or cannot be done, 2 the command or a setting is wrong."""


class NoStore(Exception):
    """There are no jobs to look at; the text says why."""


def main(argv: Sequence[str], assets: Path = knobs.ASSETS) -> int:
    """The exit code. Raises SystemExit for a command that is wrong, and after `--help`."""
    asked = read(argv)
    try:
        settings = knobs.load(flags_of(asked), assets=assets)
        return asyncio.run(perform(asked, settings, assets))
    except (SettingsError, NoStore, ProxyError) as error:
        print(f"app.py jobs: {harmless(str(error), keeps=chr(10))}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


async def perform(asked: Namespace, settings: Settings, assets: Path) -> int:
    """Raises NoStore, SettingsError for a wrong JOBS_URL, JobsUnavailable."""
    place = found(place_of(settings, assets))
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(store_at(place, settings, is_shared=True))
        except ValueError as error:
            raise SettingsError(str(error)) from None
        does: Callable[[Store, Namespace], Awaitable[int]] = asked.does
        return await does(store, asked)


def found(place: str | Path | None) -> str | Path:
    """The place of a store that is there: to look at one must not make it. Raises NoStore."""
    if place is None:
        raise NoStore("the service keeps no jobs (JOBS_URL=off)")
    if "://" not in str(place) and not Path(place).exists():
        raise NoStore(
            f"no jobs are kept at {place}: the service was never started here, or JOBS_URL names another place"
        )
    return place


# ---- The command line ----


def read(argv: Sequence[str]) -> Namespace:
    """What is asked for; it is the list if no command is named."""
    is_named = bool(argv) and (argv[0] in ("-h", "--help") or not argv[0].startswith("-"))
    return parser().parse_args(argv if is_named else ["list", *argv])


def flags_of(asked: Namespace) -> list[str]:
    """What of it are settings of the service."""
    place = [f"--jobs-url={asked.url}"] if asked.url else []
    return place + ([f"--env-path={asked.env_path}"] if asked.env_path else [])


def parser() -> ArgumentParser:
    whole = ArgumentParser(
        "app.py jobs",
        description="List, cancel, retry and purge the jobs that the service keeps. It may run meanwhile.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = whole.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, does: Callable[[Store, Namespace], Awaitable[int]], help: str) -> ArgumentParser:
        part = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
        part.set_defaults(does=does)
        part.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
        part.add_argument("--url", metavar="JOBS_URL", help="where the jobs are, in place of the setting JOBS_URL")
        part.add_argument("--env-path", metavar="FILE", help="env file to read in place of .env in the current folder")
        return part

    part = command("list", list_jobs, "jobs, the newest first; this is done if no command is named")
    add_filters(part, State)
    part.add_argument("--batch", metavar="ID", help="the lines of this batch; without it, jobs of no batch")
    part.add_argument("--limit", type=count, default=LISTED, metavar="N", help=f"so many at most ({LISTED})")
    part = command("show", show, "what is known of a job or a batch")
    part.add_argument("id", metavar="ID")
    part.add_argument("--body", action="store_true", help="with what was sent, and what was answered")
    part = command("cancel", cancel, "end jobs and batches that have not ended")
    part.add_argument("ids", nargs="+", metavar="ID")
    part = command("retry", retry, "queue jobs again that failed, expired or were cancelled")
    part.add_argument("ids", nargs="+", metavar="ID")
    part = command("purge", purge, "forget jobs that have ended, and their answers; lines go with their batch")
    add_filters(part, ENDS)
    part.add_argument(
        "--older-than", type=seconds, default=0.0, metavar="TIME", help="that ended so long ago: 90s, 15m, 1h, 7d"
    )
    part.add_argument("--yes", action="store_true", help="do not ask whether to")
    return whole


def add_filters(part: ArgumentParser, states: Iterable[State]) -> None:
    allowed = {state.value: state for state in states}

    def read(text: str) -> list[State]:
        if wrong := [word for word in text.split(",") if word not in allowed]:
            raise ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return [allowed[word] for word in text.split(",")]

    names = ", ".join(allowed)
    part.add_argument(
        "--state", type=read, default=[*allowed.values()], metavar="STATE", help=f"one or more of {names}"
    )
    part.add_argument("--caller", metavar="NAME", help='of the key with this name; "" is the service itself')


def count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def seconds(text: str) -> float:
    told = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if told is None:
        raise ArgumentTypeError(f"{text!r} is no time such as 90s, 15m, 1h or 7d")
    return float(int(told[1]) * UNITS[told[2]])
