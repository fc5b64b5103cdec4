"""REDIS_URL: where Redis is, and how it is to be reached.

| form                                                         |                                                      |
|--------------------------------------------------------------|------------------------------------------------------|
| `redis://[[user]:password@]host[:6379][/database]`           | one server                                           |
| `rediss://...`                                               | the same over TLS; `?ssl_ca_certs=/path/ca.pem`      |
| `unix://[[user]:password@]/path/redis.sock[?db=database]`    | a socket of this machine                             |
| `redis+sentinel://[[user]:password@]host[:26379],host.../service[/database]` | the master that these Sentinels name |
| `rediss+sentinel://...`                                      | the same over TLS, to the Sentinels too              |

The Sentinels' own password is `?sentinel_password=`, their user `?sentinel_username=`. Whatever else redis-py reads
from an address works too.
"""

from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

SENTINEL_PORT = 26379
FORMS = "redis://host:6379/0, rediss://..., unix:///path or redis+sentinel://host1,host2/service/0"


class Address:
    """A REDIS_URL that can be used. Raises ValueError for one that cannot; the text does not repeat it."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._parts = urlsplit(url)
            #: For people; nothing secret is in it.
            self.text = shown(self._parts)
            self.client(timeout=1.0).connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, AttributeError, OSError):
            raise ValueError(f"REDIS_URL cannot be used; allowed: {FORMS}") from None

    def __repr__(self) -> str:
        return f"<Address {self.text}>"

    def client(self, *, timeout: float, listens: bool = False) -> Redis:
        """A client with a pool of its own.

        `timeout` is seconds for a connection, and for an answer unless it `listens`, which may take for ever.
        """
        # A script that failed is asked again by whoever knows what it meant. RESP2 takes the fewest words to begin.
        options: dict[str, Any] = {
            "socket_timeout": None if listens else timeout,
            "socket_connect_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if self._parts.scheme.endswith("+sentinel"):
            return behind_sentinels(self._parts, options, timeout=timeout / 2)
        return Redis.from_pool(ConnectionPool.from_url(self._url, **options))


def shown(parts: SplitResult) -> str:
    """An address without what may be secret: user, password, parameters."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def behind_sentinels(parts: SplitResult, options: dict[str, Any], *, timeout: float) -> Redis:
    """A client of the master that Sentinels name, whichever it is when a connection is opened.

    `timeout` is seconds after which the next Sentinel is asked.
    """
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = unquote(parts.path.strip("/")).partition("/")
    scheme = parts.scheme.removesuffix("+sentinel")
    # redis-py knows no address of this form, but reads one of a single server: what is not about hosts is the same.
    known: dict[str, Any] = dict(parse_url(f"{scheme}://{login}{'@' if login else ''}-/{database}?{parts.query}"))
    del known["host"]
    own = {word: known.pop(f"sentinel_{word}", None) for word in ("username", "password")}
    secure = {"ssl": known.pop("connection_class", None) is not None}
    tls = {word: value for word, value in known.items() if word.startswith("ssl_")}
    if not service:
        raise ValueError("no service")
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [host_and_port(host) for host in hosts.split(",")],
        sentinel_kwargs=options | secure | tls | own | {"socket_timeout": timeout, "socket_connect_timeout": timeout},
        **options | secure | known,
    )
    client: Redis = sentinels.master_for(service)
    return client


def host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or SENTINEL_PORT


async def close(client: Redis) -> None:
    """Close a client, and the clients of the Sentinels that it asks."""
    sentinels: Sentinel | None = getattr(client.connection_pool, "sentinel_manager", None)
    await client.aclose()
    for sentinel in sentinels.sentinels if sentinels is not None else ():
        await sentinel.aclose()
