"""The new process of `alone.py`: `python -m conformance.newborn my_api` prints what it found, as JSON."""

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from conformance.fence import Fence
from conformance.promises import file_of, told
from proxy import settings
from proxy.connector import Connector, ConnectorError, load_connector
from proxy.errors import CredentialMissing

#: Seconds that a start may take.
START_LIMIT = 5.0

#: What importing must not do, by the name of Python's audit event; {} is what it is done with.
DEEDS = {
    "open": "opens the file {}",
    "socket.__new__": "opens a socket",
    "socket.getaddrinfo": "looks up the address of {}",
    "sqlite3.connect": "opens the database {}",
    "subprocess.Popen": "starts the program {}",
    "os.system": "starts the program {}",
    "_thread.start_new_thread": "starts a thread",
}


class Watch:
    """Notes what the connector's own lines do while it is imported; what its libraries do for themselves is theirs."""

    def __init__(self, name: str) -> None:
        self._home = home_of(name)
        self.deeds: list[str] = []
        self.is_on = False
        getitem = os._Environ.__getitem__

        def read(environ: "os._Environ[str]", key: str) -> str:
            self._note(f"reads the setting {key}")
            return getitem(environ, key)

        setattr(os._Environ, "__getitem__", read)  # noqa: B010 - a plain assignment is an error for mypy
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[object, ...]) -> None:
        if self.is_on and event in DEEDS:
            self._note(DEEDS[event].format(*map(plainly, args[:1])))

    def _note(self, deed: str) -> None:
        if self.is_on and (line := self._line()):
            self.is_on = False  # where it stands may be asked of files and settings too
            noted = f"{deed} (line {line})"
            if noted not in self.deeds:
                self.deeds.append(noted)
            self.is_on = True

    def _line(self) -> int | None:
        """The connector's line that leads here, unless it only imports something that does it for itself."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith("<frozen importlib"):
                return None
            if name == self._home or name.startswith(self._home + os.sep):
                return frame.f_lineno
            frame = frame.f_back
        return None


def home_of(name: str) -> str:
    """The connector's file, or its folder. Raises ConnectorError by way of the loader if there is none."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        load_connector(name)
        raise ConnectorError(f"{name} has no file")
    return str(Path(spec.origin).parent) if spec.submodule_search_locations else spec.origin


def plainly(value: object) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes) else str(value)


def found_out(name: str) -> dict[str, object]:
    """`deeds` and `start`, as `alone.Findings` explains them."""
    watch = Watch(name)
    watch.is_on = True
    try:
        connector = load_connector(name)
    finally:
        watch.is_on = False
    deeds = watch.deeds + (["reads the settings of the service"] if settings._in_force else [])
    Fence()
    with TemporaryDirectory() as empty:
        settings.use(settings.load(env={}, cwd=Path(empty), assets=Path(empty)))
    return {"deeds": deeds, "start": asyncio.run(started(connector))}


async def started(connector: Connector) -> str:
    """What is wrong with a start that has no settings; "" if nothing is."""
    try:
        await asyncio.wait_for(connector.startup(), START_LIMIT)
    except (CredentialMissing, settings.SettingsError) as error:
        return "" if str(error).strip() else f"startup() raised {type(error).__name__} without a word"
    except TimeoutError:
        return f"startup() was not done after {START_LIMIT:g} s"
    except ConnectorError as error:
        return f"startup() raised {told(error.__cause__ or error, file_of(connector))}"
    await connector.shutdown()
    return ""


if __name__ == "__main__":
    print(json.dumps(found_out(sys.argv[1])))
