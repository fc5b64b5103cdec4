"""What operators have set, in a file: so that one process knows it again after a restart.

    {"<account>": {"rpm": {"value": 100, "since": 1763731200.1, "by": "operator at 127.0.0.1"}}}

Rule 1: the file is its owner's alone (0600) and is replaced as a whole: whoever reads it reads all of it or what was
        there before.
Rule 2: a file that is wrong is nobody's to guess at: it stops the start, and is never written over.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from proxy.limits.overrides import NONE, Overrides, of_json

#: Bytes of the largest file that is read: it holds some hundred bytes for each account that was ever changed.
LARGEST = 16 * 1024 * 1024


class LimitsFile:
    """The file at `path`. It need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = Lock()

    def read(self) -> Mapping[str, Overrides]:
        """What is kept, by account; blocks. Raises ValueError if it is wrong, OSError if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                told = file.read(LARGEST)
        except (FileNotFoundError, NotADirectoryError):  # what cannot be there is not there
            return {}
        try:
            return {account: overrides_of(fields) for account, fields in object_in(orjson.loads(told)).items()}
        except ValueError as error:
            raise ValueError(f"{self.path} is wrong: {error}. Mend it, or delete it: then the settings hold") from None

    async def keep(self, account: str, overrides: Overrides) -> str:
        """Returns why it cannot be kept, "" if it is."""
        return await asyncio.to_thread(self._keep, account, overrides)

    def _keep(self, account: str, overrides: Overrides) -> str:
        try:
            with self._turn:
                kept = {**self.read(), account: overrides}
                self._replace({name: fields for name, fields in kept.items() if fields})
        except (OSError, ValueError) as error:
            return str(error)
        return ""

    def _replace(self, kept: Mapping[str, Overrides]) -> None:
        told = {
            account: {field: override._asdict() for field, override in overrides.items()}
            for account, overrides in kept.items()
        }
        fresh = f"{self.path}.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            os.chmod(fresh, 0o600)  # it may have been left there with wider rights
            file.write(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)


def overrides_of(told: object) -> Overrides:
    """Those of one account. Raises ValueError."""
    return {field: of_json(field, override) for field, override in object_in(told).items()} or NONE


def object_in(told: object) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ValueError("an object is wanted where there is something else")
    return told
