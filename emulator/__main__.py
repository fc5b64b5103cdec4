"""`python -m emulator`: the command line, made from the table of options."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import sys
from dataclasses import Field, fields
from typing import Any

from emulator.options import Options
from emulator.server import start

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    parser = make_parser()
    values = vars(parser.parse_args(arguments))
    host, port, level = values.pop("host"), values.pop("port"), values.pop("log_level")
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    try:
        asyncio.run(serve(Options(**values), host, port))
    except (ValueError, OSError) as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 2
    return 0


async def serve(options: Options, host: str, port: int) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    # The record holds many objects; looking through all of them for cycles would stop the clock for 80 ms.
    gc.set_threshold(50_000, 20, 1000)
    async with start(options, host, port) as emulator:
        print(f"emulator: {emulator.url}", flush=True)
        await stop.wait()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m emulator",
        description="A stand-in GigaChat: the same paths, shapes, limits and errors, without a key.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8079, help="port to listen on; 0 takes a free one")
    parser.add_argument("--log-level", default="WARNING", type=str.upper, choices=LEVELS, help="INFO shows calls")
    for knob in fields(Options):
        add_flag(parser, knob)
    return parser


def add_flag(parser: argparse.ArgumentParser, knob: Field[Any]) -> None:
    flag = f"--{knob.metadata.get('flag', knob.name.replace('_', '-'))}"
    parser.add_argument(flag, dest=knob.name, help=knob.metadata["help"], **flag_form(knob))


def flag_form(knob: Field[Any]) -> dict[str, Any]:
    """How argparse reads an option of this type."""
    if isinstance(knob.default, bool):
        return {"action": argparse.BooleanOptionalAction, "default": knob.default}
    if isinstance(knob.default, tuple):
        metavar = knob.metadata.get("metavar")
        return {"action": "extend", "nargs": 1, "default": argparse.SUPPRESS, "metavar": metavar}
    choices, metavar = knob.metadata.get("choices"), knob.metadata.get("metavar")
    form = {"type": type(knob.default), "default": knob.default, "choices": choices, "metavar": metavar}
    return {name: value for name, value in form.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
