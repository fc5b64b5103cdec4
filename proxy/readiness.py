"""Whether new requests are served, for whoever sends them on: `GET /ready`.

Rule 1: a probe costs next to nothing: what takes time is found out in the background, at most once in AGE seconds, and
        a probe waits for it for PATIENCE at most.
Rule 2: who would wait in line is served. So Redis that is away is told of, and is no reason to refuse; nor is a store
        of jobs that is away, for the rest is served.
Rule 3: anybody may ask, so nothing is told that is not in the documents: the log knows more.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from proxy.connector import Connector
from proxy.errors import CredentialRefused, ProxyError
from proxy.jobs import StoreState
from proxy.known import Known
from proxy.line import Line
from proxy.threads import in_thread

#: Seconds for which what was found out serves, and that a probe waits for it.
AGE = 5.0
PATIENCE = 0.5
NO_JOBS = "the store of jobs (JOBS_URL) cannot be asked: jobs, batches and whatever has an Idempotency-Key get a 503"
#: Bytes that are written to see whether a disk takes them.
PROBE = bytes(64 * 1024)


class Verdict(NamedTuple):
    """What a probe is told. `trouble` is for people, "" if there is none; it may be there though all is ready."""

    status: str
    trouble: str = ""

    @property
    def is_ready(self) -> bool:
        return self.status == "ready"


class Readiness:
    """Knows whether new requests are served.

    Args:
        line: the one of the server's own account.
        reasons: each tells why they cannot be, "" if they can.
        jobs: what the store of jobs says of itself, somebody else's to close; None: none are kept.
    """

    def __init__(self, line: Line, reasons: Sequence[Known[str]], jobs: Known[StoreState | None] | None = None) -> None:
        self._line = line
        self._reasons = reasons
        self._jobs = jobs

    async def verdict(self) -> Verdict:
        """As far as it is known."""
        if self._line.state().is_stopping:
            return Verdict("stopping")
        jobs, *told = await asyncio.gather(self._jobs_trouble(), *(reason.found(PATIENCE) for reason in self._reasons))
        trouble = "; ".join(filter(None, [*told, self._line.trouble, jobs]))
        return Verdict("not ready" if any(told) else "ready", trouble)

    async def _jobs_trouble(self) -> str:
        if self._jobs is None:
            return ""
        await self._jobs.found(PATIENCE)
        return NO_JOBS if self._jobs.has_failed else ""

    async def close(self) -> None:
        await asyncio.gather(*(reason.close() for reason in self._reasons))


def token_of(connector: Connector) -> Known[str]:
    """Whether calls can be authorized."""
    return Known(partial(without_token, connector), "no access token has been issued yet", age=AGE)


async def without_token(connector: Connector) -> str:
    try:
        await connector.ready()
    except CredentialRefused:
        return "the API refuses this service's credential: the log says what to change"
    except ProxyError:
        return "no access token can be had now: the log says why"
    return ""


def disks_of(files: Mapping[str, Path]) -> Known[str]:
    """Whether what is kept in these files, by their settings, can be written."""
    return Known(partial(unwritten, files), "", age=AGE)


async def unwritten(files: Mapping[str, Path]) -> str:
    # A thread of its own: on a network's disk it may hang for ever.
    return str(await in_thread(lambda: "; ".join(troubles_of(files))))


def troubles_of(files: Mapping[str, Path]) -> Iterator[str]:
    for name, path in files.items():
        try:
            probe(path)
        except OSError as error:
            yield f"nothing can be written where {name} is: {error.strerror or type(error).__name__}"


def probe(path: Path) -> None:
    """See that its disk takes something more. Raises OSError."""
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            file.write(PROBE)
    except PermissionError:
        if not os.access(path, os.W_OK):  # else the file alone is ours, not its folder
            raise
