"""`app.py status`, `limits`, `pause` and `resume`: the command line of a service that runs."""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from proxy import settings as knobs
from proxy.effect import spoken
from proxy.limits.overrides import CONCURRENCY, FIELDS, PAUSED, QUEUE_SIZE, RPM, TIMEOUT, checked
from proxy.operators.service import NoService, Refused, RunningService, WrongAddress
from proxy.operators.telling import harmless, moment, tell, tell_json, tell_rows
from proxy.settings import SettingsError

#: On the command line: the setting holds again.
SETTING = "setting"
#: The lane of the service's own account, which need not be named.
MAIN = "main"
#: The settings that changes are made in place of.
NAMES = {
    RPM: "EXT_API_RPM",
    CONCURRENCY: "EXT_MAX_REQUESTS",
    TIMEOUT: "EXP_RESP_TIMEOUT",
    QUEUE_SIZE: "EXT_QUEUE_SIZE",
}
FLAGS = {RPM: "N", CONCURRENCY: "N", TIMEOUT: "SECONDS", QUEUE_SIZE: "N"}
EPILOG = """\
The service is found by the settings HOST and PORT, or by --url; the operator's key is the setting ADMIN_API_KEY.

Exit code: 0 it is done, 1 the service is not there or refuses, 2 the command or a setting is wrong."""

Told = dict[str, Any]


def main(name: str, argv: Sequence[str], assets: Path = knobs.ASSETS) -> int:
    """The exit code of a command. Raises SystemExit for one that is wrong, and after `--help`."""
    asked = PARSERS[name]().parse_args(argv)
    try:
        flags = [f"--env-path={asked.env_path}"] if asked.env_path else []
        service = RunningService.of(knobs.load(flags, assets=assets), asked.url)
        does: Callable[[RunningService, Namespace], None] = asked.does
        does(service, asked)
    except (SettingsError, WrongAddress) as error:
        return failed(name, error, 2)
    except (NoService, Refused) as error:
        return failed(name, error, 1)
    except KeyboardInterrupt:
        return 130
    return 0


def failed(name: str, error: Exception, code: int) -> int:
    print(f"app.py {name}: {harmless(str(error), keeps=chr(10))}", file=sys.stderr)
    return code


# ---- status ----


def status(service: RunningService, asked: Namespace) -> None:
    lanes: list[Told] = service.ask("GET", "/limits")["lanes"]
    jobs: Told | None = service.ask("GET", "/queue?limit=0")["jobs"]
    if asked.json:
        return tell_json({"lanes": lanes, "jobs": jobs})
    tell_rows(("LANE", "PACE", "IN FLIGHT", "WAITING", "ETA", "TIMEOUT", "NOW"), [row(lane) for lane in lanes])
    for line in (line for lane in lanes for line in overridden(lane)):
        tell(line)
    if jobs is not None:
        tell("")
        tell(
            f"jobs: {jobs['queued']} queued, {jobs['batch_lines']} lines of batches queued, "
            f"{jobs['delayed']} waiting for another attempt, {jobs['running']} running"
        )


def row(lane: Told) -> list[str]:
    limits = {field: limit["now"] for field, limit in lane["limits"].items()}
    allowed = lane["allowed_in_flight"]
    return [
        lane["name"],
        f"{plain(limits[RPM])} a minute" if limits[RPM] else "any",
        f"{lane['in_flight']} of {allowed}" if allowed else f"{lane['in_flight']}",
        f"{lane['waiting']} of {limits[QUEUE_SIZE]}",
        "-" if lane["eta"] is None else spoken(lane["eta"]),
        spoken(limits[TIMEOUT]),
        now_of(lane),
    ]


def now_of(lane: Told) -> str:
    """What a person should know first."""
    told = ["PAUSED"] if lane["paused"] else []
    if lane["api_pause"]:
        told.append(f"the API wants a pause of {spoken(lane['api_pause'])}")
    if lane["trouble"]:
        told.append(lane["trouble"])
    return "; ".join(told) or "serves"


def overridden(lane: Told) -> Iterator[str]:
    """What operators have set, a line for each."""
    for field, limit in lane["limits"].items():
        if limit["override"] is not None:
            by = f" by {limit['by']}" if limit["by"] else ""
            what = (
                f"paused until `{resume_of(lane['name'])}`"
                if field == PAUSED
                else f"{field} {plain(limit['now'])} in place of {in_words(limit['setting'])}"
            )
            yield f"{lane['name']}: {what}, since {moment(limit['since'])}{by}"


def resume_of(lane: str) -> str:
    return "app.py resume" if lane == MAIN else f"app.py resume --lane {lane}"


def in_words(value: float) -> str:
    return plain(value) if value else "no limit"


def plain(value: float) -> str:
    """`1000000` and `90.5`: as people type it, without an exponent."""
    return f"{value:.10g}"


# ---- limits, pause, resume ----


def limits(service: RunningService, asked: Namespace) -> None:
    wishes = {field: told[0] for field in FLAGS if (told := getattr(asked, field)) is not None}
    if wishes:
        change(service, asked, wishes, is_preview=asked.preview)
    else:
        show(service, asked)


def show(service: RunningService, asked: Namespace) -> None:
    lanes: list[Told] = service.ask("GET", "/limits")["lanes"]
    wanted = [lane for lane in lanes if asked.lane in (None, lane["name"])]
    if not wanted:
        raise Refused(f'there is no lane "{asked.lane}"; there is {", ".join(lane["name"] for lane in lanes)}')
    if asked.json:
        return tell_json({"lanes": wanted})
    rows = [limit_row(lane["name"], field, limit) for lane in wanted for field, limit in lane["limits"].items()]
    tell_rows(("LANE", "LIMIT", "NOW", "SETTING", "SINCE", "BY"), rows)


def limit_row(lane: str, field: str, limit: Told) -> list[str]:
    since = moment(limit["since"]) if limit["since"] is not None else ""
    setting = (
        f"{shown(limit['setting'])} ({NAMES[field]})" if field in NAMES and lane == MAIN else shown(limit["setting"])
    )
    return [lane, field, shown(limit["now"]), setting, since, limit["by"] or ""]


def shown(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return in_words(value)


def paused(is_paused: bool, service: RunningService, asked: Namespace) -> None:
    change(service, asked, {PAUSED: is_paused}, is_preview=False)


def change(service: RunningService, asked: Namespace, wishes: Mapping[str, object], *, is_preview: bool) -> None:
    lane = {"lane": asked.lane} if asked.lane else {}
    told = service.ask("PATCH", f"/limits{'?preview=true' if is_preview else ''}", {**lane, **wishes})
    if asked.json:
        return tell_json(told)
    name, would = told["lane"]["name"], "would be " if is_preview else ""
    for made in told["changes"]:
        tell(f"{name}: {change_in_words(made, would)}")
    if not told["changes"]:
        tell(f"{name}: nothing changes, it is so already")
    tell(f"{name}: {told['effect']['text']}")
    if told["trouble"]:
        tell(f"{name}: this will not outlast the service: {told['trouble']}")


def change_in_words(made: Told, would: str) -> str:
    if made["field"] == PAUSED:
        return "paused, it was not" if made["to"] else "resumed, it was paused"
    back = " (the setting)" if made["is_setting"] else ""
    return f"{made['field']} {would}{shown(made['to'])}{back}, it was {shown(made['from'])}"


# ---- The command line ----


def parser(
    name: str, does: Callable[[RunningService, Namespace], None], help: str, *, has_lane: bool = True
) -> ArgumentParser:
    whole = ArgumentParser(
        f"app.py {name}",
        description=help,
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.set_defaults(does=does)
    if has_lane:
        whole.add_argument("--lane", metavar="NAME", help="of this lane; main unless it is said")
    whole.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    whole.add_argument("--url", help="where the service is, in place of HOST and PORT: http://127.0.0.1:8078")
    whole.add_argument("--env-path", metavar="FILE", help="env file to read in place of .env in the current folder")
    return whole


def parser_of_limits() -> ArgumentParser:
    whole = parser("limits", limits, "Show the limits of a service that runs, or change them: at once, for good.")
    for field, unit in FLAGS.items():
        whole.add_argument(
            f"--{field.replace('_', '-')}",
            type=partial(wish, field),
            metavar=unit,
            help=f'{FIELDS[field].allowed}; or "{SETTING}": {NAMES[field]} holds again',
        )
    whole.add_argument("--preview", action="store_true", help="change nothing, only tell what would come of it")
    return whole


def wish(field: str, text: str) -> tuple[float | None]:
    """What is to hold. In a tuple, for None is a wish too."""
    if text == SETTING:
        return (None,)
    try:
        value = float(text)
        return (checked(field, int(value) if value.is_integer() else value),)
    except (ValueError, OverflowError):
        raise ArgumentTypeError(f"{text!r} is none of these: {FIELDS[field].allowed}, or {SETTING}") from None


#: By the command's name.
PARSERS: Mapping[str, Callable[[], ArgumentParser]] = {
    "status": lambda: parser("status", status, "Show how a service that runs fares.", has_lane=False),
    "limits": parser_of_limits,
    "pause": lambda: parser("pause", partial(paused, True), "Send nothing more; what is in flight ends, callers wait."),
    "resume": lambda: parser("resume", partial(paused, False), "Go on sending."),
}
COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {name: partial(main, name) for name in PARSERS}
