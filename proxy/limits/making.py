"""Which engine keeps the limits: this process, or Redis for all replicas. It keeps what operators set, too."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from proxy.audit import Audit, FileAudit, MemoryAudit
from proxy.limits import Limits
from proxy.limits.fleet import Alone, Fleet
from proxy.limits.kept import LimitsFile
from proxy.limits.local import LocalLimits, keep_nothing
from proxy.limits.overrides import NONE, Overrides
from proxy.settings import Settings, SettingsError

if TYPE_CHECKING:
    from proxy.limits.link import RedisLink

#: Of what operators set and of who did, in the folder for what outlives the process.
LIMITS_FILE = "limits.json"
AUDIT_FILE = "audit.jsonl"


class Engine(Protocol):
    """Keeps limits; `audit` records who changed them."""

    audit: Audit

    def limits(self, name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
        """Those of one account, as the settings have them.

        `name` is what all replicas call the account, and tells nobody anything. `rest` is how many seconds must pass
        before the first send.
        """

    def fleet(self, name: str) -> Fleet:
        """The replicas that keep the limits of this account together."""


class LocalEngine:
    """An `Engine` of one process.

    Args:
        file: what operators set is kept there; None: as long as the process lives.
        overrides: what is there already, by account.
    """

    def __init__(self, audit: Audit, file: LimitsFile | None, overrides: Mapping[str, Overrides]) -> None:
        self.audit = audit
        self._file = file
        self._overrides = dict(overrides)

    def limits(self, name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
        # A lane that was dropped for a while finds again what was set for its account.
        overrides, keep = self._overrides.get(name, NONE), partial(self._keep, name)
        return LocalLimits(rpm=rpm, concurrency=concurrency, rest=rest, overrides=overrides, keep=keep)

    def fleet(self, name: str) -> Fleet:
        return Alone()

    async def _keep(self, name: str, overrides: Overrides) -> str:
        self._overrides[name] = overrides
        return await (keep_nothing(overrides) if self._file is None else self._file.keep(name, overrides))


class SharedEngine:
    """An `Engine` of all the processes that use one Redis."""

    def __init__(self, settings: Settings, link: "RedisLink") -> None:
        from proxy.limits.shared import SharedLimits  # redis takes time to import, and is not wanted elsewhere
        from proxy.limits.shared_audit import SharedAudit
        from proxy.limits.shared_fleet import SharedFleet

        self._make = partial(SharedLimits, link, fallback=settings.redis_fallback)
        self.audit: Audit = SharedAudit(link)
        self._make_fleet = partial(SharedFleet, link)

    def limits(self, name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
        # Redis remembers the last send itself.
        return self._make(name, rpm=rpm, concurrency=concurrency)

    def fleet(self, name: str) -> Fleet:
        return self._make_fleet(name)


@asynccontextmanager
async def limits_of(settings: Settings, assets: Path | None = None) -> AsyncIterator[Engine]:
    """The engine that the settings name, while the block runs; one process keeps its changes in the folder `assets`.

    Raises SettingsError.
    """
    if settings.redis_url is None:
        yield await local(assets)
        return
    from proxy.limits.link import RedisLink  # see above

    try:
        link = RedisLink(
            settings.redis_url.get_secret_value(), prefix=settings.redis_prefix, grace=settings.redis_grace
        )
    except ValueError as error:
        raise SettingsError(str(error)) from None
    await link.start()
    try:
        yield SharedEngine(settings, link)
    finally:
        await link.close()


async def local(assets: Path | None) -> LocalEngine:
    """Raises SettingsError for a file that is wrong: nobody can know what it was to say."""
    if assets is None:
        return LocalEngine(MemoryAudit(), None, {})
    file = LimitsFile(assets / LIMITS_FILE)
    try:
        overrides = await asyncio.to_thread(file.read)
    except (OSError, ValueError) as error:
        raise SettingsError(str(error)) from None
    return LocalEngine(FileAudit(assets / AUDIT_FILE), file, overrides)
