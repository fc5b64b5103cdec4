"""Which engine keeps the limits: this process, or Redis for all replicas."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from proxy.limits import Limits
from proxy.limits.local import LocalLimits
from proxy.settings import Settings, SettingsError


class MakeLimits(Protocol):
    """Makes the limits of one account."""

    def __call__(self, name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
        """`name` is what all replicas call the account, and tells nobody anything.

        `rest` is how many seconds must pass before the first send.
        """


def local(name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
    return LocalLimits(rpm=rpm, concurrency=concurrency, rest=rest)


@asynccontextmanager
async def limits_of(settings: Settings) -> AsyncIterator[MakeLimits]:
    """The engine that the settings name, while the block runs. Raises SettingsError."""
    if settings.redis_url is None:
        yield local
        return
    from proxy.limits.link import RedisLink  # redis takes time to import, and is not wanted elsewhere
    from proxy.limits.shared import SharedLimits

    try:
        link = RedisLink(
            settings.redis_url.get_secret_value(), prefix=settings.redis_prefix, grace=settings.redis_grace
        )
    except ValueError as error:
        raise SettingsError(str(error)) from None

    def shared(name: str, *, rpm: float | None, concurrency: int | None, rest: float = 0.0) -> Limits:
        # Redis remembers the last send itself.
        return SharedLimits(link, name, rpm=rpm, concurrency=concurrency, fallback=settings.redis_fallback)

    await link.start()
    try:
        yield shared
    finally:
        await link.close()
