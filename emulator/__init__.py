"""A stand-in GigaChat: the same paths, shapes, limits and errors, without a key and without the internet.

    async with emulator.start(emulator.Options(concurrency=1)) as giga:
        ...  # giga.url, giga.port, giga.state.calls, giga.state.faults.add({"kind": "cut"})

or `python -m emulator --port 8079`. Reading order: `options`, `routes`, `edge`, `calls`, `accounts`, `faults`;
then `chat_v1`, `chat_v2` and `mind`, which finds something to say.
"""

from emulator.options import Options
from emulator.server import STATE, Emulator, create_app, start
from emulator.state import State

__all__ = ["STATE", "Emulator", "Options", "State", "create_app", "start"]
