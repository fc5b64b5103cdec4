"""`python -m conformance my_api`: the promises of a connector, kept and broken. `make check-connector` calls it."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

from conformance.declaration import ADDRESS, DeclarationError
from conformance.suite import run
from proxy.settings import SettingsError


def main() -> int:
    chosen = make_parser().parse_args()
    # The loop is not closed: what a connector has left in it could keep it from closing for ever.
    loop = asyncio.new_event_loop()
    try:
        report = loop.run_until_complete(run(chosen.connector, file=chosen.check, env=dict(chosen.env)))
    except (DeclarationError, SettingsError) as error:
        print(f"{chosen.connector} cannot be checked: {error}", file=sys.stderr)
        return 2
    print(report.to_json() if chosen.json else report.text)
    return report.exit_code


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Check which promises a connector keeps. It is called on a scripted API on this machine.",
        epilog="Exit code 0: all kept; 1: some broken; 2: not all could be checked. See docs/connectors.md.",
    )
    parser.add_argument("connector", help="its module, as CONNECTOR names it")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=VALUE",
        help=f"a setting of the connector; {ADDRESS} in it becomes the scripted API's address. Over CHECK['env']",
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="a JSON file with the keys of CHECK, over CHECK")
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    return parser


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that the connector has left running end here too
