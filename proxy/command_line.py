"""The command line: a flag for every setting, gpt2giga's spellings of it, and --help."""

from argparse import SUPPRESS, Action, ArgumentParser, Namespace
from collections.abc import Collection, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

from proxy import gpt2giga
from proxy.knob import Knob
from proxy.sources import Found, SettingsError, Source

WHERE = "on the command line"
#: Other spellings that --help shows.
HELP = {"--verbose": "LOG_LEVEL=DEBUG"}


class CommandLine(NamedTuple):
    """What the command line gives, and the env file that it names in place of `.env`."""

    source: Source
    env_path: str | None


def command_line(argv: Sequence[str], knobs: Sequence[Knob]) -> CommandLine:
    """
    Read a command line.

    Raises:
        SettingsError: names the flag that is unknown or lacks its value.
        SystemExit: after `--help`.
    """
    flags = _flags(knobs)
    given, rest = _parser(knobs, flags).parse_known_args(argv)
    idle = dict(_idle(rest, flags))
    env_path = vars(given).pop("env_path", None)
    return CommandLine({**idle, **vars(given)}, env_path)


def _flags(knobs: Iterable[Knob]) -> dict[str, tuple[Knob, str]]:
    """Every flag, with its setting and the name under which it sets it. Our own spellings go first."""
    flags = {knob.flag: (knob, knob.name) for knob in knobs}
    for knob in knobs:
        for name in knob.names:
            for flag in gpt2giga.flags_of(name):
                flags.setdefault(flag, (knob, name))
    return flags


def _idle(rest: Sequence[str], flags: Collection[str]) -> Iterator[tuple[str, Found]]:
    """What no setting answers to: flags of gpt2giga's that have no effect here. Raises SettingsError for any other."""
    words = list(rest)
    while words:
        flag, is_given, value = words.pop(0).partition("=")
        if not _is_idle(flag, flags):
            # A word without a flag may be a secret that slipped: it is not repeated.
            wrong = flag if flag.startswith("-") else "a word without a flag"
            near = get_close_matches(wrong, flags, 1) or ["--help"]
            raise SettingsError(f"{wrong} on the command line is unknown; did you mean {near[0]}?")
        if not is_given:
            value = words.pop(0) if words and not words[0].startswith("-") else "true"
        yield flag, Found(flag, value, WHERE, flag)


def _is_idle(flag: str, flags: Collection[str]) -> bool:
    """A slip of the finger is no flag of gpt2giga's."""
    if gpt2giga.is_idle(gpt2giga.name_of(flag) or ""):
        return True
    return gpt2giga.is_newest(flag) and not get_close_matches(flag, flags, 1, cutoff=0.85)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists every setting")


class _Find(Action):
    """Remembers a value under the name that its flag stands for."""

    def __call__(self, parser: ArgumentParser, found: Namespace, value: Any, flag: str | None = None) -> None:
        setattr(found, self.dest, Found(self.dest, value.strip(), WHERE, str(flag)))


def _parser(knobs: Iterable[Knob], flags: dict[str, tuple[Knob, str]]) -> ArgumentParser:
    parser = _Parser(
        "app.py",
        "%(prog)s [--setting value ...]\n       %(prog)s jobs|status|limits|pause|resume ...",
        epilog=f"Flags are also understood as gpt2giga spells them: see {gpt2giga.PAGE}. `jobs` lists, cancels, "
        "retries and purges the jobs that are kept: see `%(prog)s jobs --help`. `status`, `limits`, `pause` and "
        "`resume` see to a service that runs: see `%(prog)s status --help`.",
        argument_default=SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--env-path", metavar="FILE", help="env file to read in place of .env in the current folder")
    for flag, (knob, name) in flags.items():
        bare = gpt2giga.BARE.get(name, knob.unit.bare)
        alone: dict[str, Any] = {"nargs": "?", "const": bare} if bare else {}
        told = _help(knob) if flag == knob.flag else HELP.get(flag, SUPPRESS)
        parser.add_argument(flag, dest=name, metavar=knob.name, action=_Find, help=told, **alone)
    return parser


def _help(knob: Knob) -> str:
    default = f"default {knob.default}" if knob.default else ""
    aliases = f"also {', '.join(knob.aliases)}" if knob.aliases else ""
    return f"{knob.sentence} ({'; '.join(filter(None, (knob.unit.text, default, aliases)))})"
