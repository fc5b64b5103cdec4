"""Calls that the emulator answers when a test says so: nothing depends on how fast a machine is."""

import asyncio
from typing import Any

import pytest

from emulator import faults


class Gate:
    """`gate.holds(giga)`: its next calls are answered when the gate is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened = asyncio.Event()
        monkeypatch.setitem(faults.EFFECTS, "held", self._held)

    async def _held(self, _: faults.Fault, compose: faults.Compose) -> Any:
        await self._opened.wait()
        return await compose()

    def holds(self, giga: Any, times: int = 1) -> None:
        self._opened.clear()
        giga.state.faults.add({"kind": "held", "times": times})

    def open(self) -> None:
        self._opened.set()
