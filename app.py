"""The composition root: settings -> lane -> routes; start, stop; the command line. Works from any current folder."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web
from pydantic import SecretStr

from proxy import settings as knobs
from proxy.connector import Connector, ConnectorError, load_connector
from proxy.dialects.native import Native
from proxy.errors import CredentialMissing
from proxy.heartbeat import Heartbeat
from proxy.lanes import Account, Lane
from proxy.limits.local import LocalLimits
from proxy.routes import add_routes, dialect_for
from proxy.serving import Edge
from proxy.settings import Settings, SettingsError
from proxy_request import ProxyQueue, Story, default_connector

VERSION = "0.1.0"

log = logging.getLogger("proxy")

#: Connections that may wait to be accepted, should thousands of callers come at once.
BACKLOG = 4096
#: Seconds of the drain that are kept for writing the last answers.
FAREWELL = 0.5
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    settings: Settings
    connector: Connector
    line: ProxyQueue


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Service]:
    """Start everything; afterwards stop in the order of the promises: refuse new, finish old, close.

    Raises CredentialMissing, ConnectorError, or OSError if the port is taken.
    """
    async with AsyncExitStack() as stack:
        settings, connector = await opened(settings, stack)
        stack.push_async_callback(connector.shutdown)
        line = ProxyQueue(
            [Account(connector, LocalLimits(rpm=settings.rpm, concurrency=settings.concurrency))],
            size=settings.ext_queue_size,
            call_timeout=settings.exp_resp_timeout,
            retries=settings.ext_retries,
            listeners=[log_story],
        )
        line.start()
        stack.push_async_callback(line.close)
        heartbeat = Heartbeat(settings.heartbeat_interval)
        stack.callback(heartbeat.close)
        runner = web.AppRunner(
            application(settings, Lane("main", connector, line), heartbeat),
            handler_cancellation=True,  # a caller who leaves takes its request along
            access_log=None,
            shutdown_timeout=FAREWELL,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
        # The last callback is the first to run: the socket stays open, so that newcomers are told to come back.
        stack.push_async_callback(line.drain, settings.drain_timeout - min(FAREWELL, settings.drain_timeout / 5))
        yield Service(url_of(settings.host, runner), settings, connector, line)
        log.info("stopping: what waits is served for up to %g s, newcomers get 503", settings.drain_timeout)


async def opened(settings: Settings, stack: AsyncExitStack) -> tuple[Settings, Connector]:
    """The connector, ready to call; on the emulator if that is wished, and then with settings that point there."""
    connector = load_connector(settings.connector) if settings.connector else default_connector()
    if settings.sandbox != "on":
        knobs.use(settings)
        try:
            await connector.startup()
            return settings, connector
        except CredentialMissing:
            if settings.sandbox != "auto":
                raise
    settings = await sandboxed(settings, stack)
    knobs.use(settings)
    await connector.startup()
    return settings, connector


async def sandboxed(settings: Settings, stack: AsyncExitStack) -> Settings:
    """Start the emulator on a free port of this machine. It keeps the limits that the settings suppose."""
    import emulator  # a service with a credential never needs it

    giga = await stack.enter_async_context(emulator.start(emulator.Options(concurrency=settings.concurrency or 0)))
    return settings.model_copy(
        update={
            "sandbox": "on",
            "gigachat_base_url": f"{giga.url}/v1",
            "gigachat_auth_url": f"{giga.url}/api/v2/oauth",
            "gigachat_api_key": SecretStr("sandbox"),
            "gigachat_user": None,
            "gigachat_password": None,
            "gigachat_access_token": None,
            "gigachat_mtls_auth": False,
        }
    )


def application(settings: Settings, lane: Lane, heartbeat: Heartbeat) -> web.Application:
    native = Native(settings.app_name)
    edge = Edge(settings, lane, heartbeat)
    app = web.Application(
        client_max_size=settings.max_body_bytes, middlewares=[edge.guard(partial(dialect_for, native))]
    )
    add_routes(app, edge, native)
    return app


def log_story(story: Story) -> None:
    """One line a request in the log."""
    log.info(
        "request %s of %s: %s, waited %.3f s, took %.3f s, attempts %d",
        story.id,
        story.caller,
        f"{story.status} {story.error}".rstrip() if story.status else "its caller left",
        story.waited,
        story.took,
        story.attempts,
    )


def url_of(host: str, runner: web.AppRunner) -> str:
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def banner(service: Service) -> str:
    """What a person who starts the service reads first."""
    settings = service.settings
    pace = f"{settings.rpm:g} calls a minute, evenly spaced" if settings.rpm else "no pacing (EXT_API_RPM is not set)"
    flight = f"{settings.concurrency} in flight" if settings.concurrency else "any number in flight"
    lines = [f"{settings.app_name} {VERSION} listens on {service.url}"]
    if settings.sandbox == "on":
        lines = [
            "=" * 78,
            "  SANDBOX: answers come from the built-in emulator, not from GigaChat.",
            "  For real answers put GIGACHAT_API_KEY=... into assets/env and start again.",
            "=" * 78,
            *lines,
        ]
    lines.append(
        f"  connector {service.connector.name}; limits: {pace}, {flight}, {settings.exp_resp_timeout:g} s a call"
    )
    if not settings.proxy_api_keys and settings.host not in LOOPBACK:
        lines.append(
            f"  WARNING: {settings.host} can be reached from outside and no key is asked for: anybody there spends "
            "your quota. Set PROXY_API_KEYS, or HOST=127.0.0.1"
        )
    return "\n".join(lines)


def raise_open_files(queue_size: int) -> None:
    """Every waiting caller holds a connection: allow as many open files as the system lets us."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY and allowed < queue_size + 500:
        log.warning(
            "only %d files may be open, too few for EXT_QUEUE_SIZE=%d callers: raise the limit (ulimit -n %d)",
            allowed,
            queue_size,
            queue_size + 500,
        )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops at once."""
    stop = asyncio.Event()
    async with serving(settings) as service:
        listen_for_signals(stop, service.line)
        print(banner(service), flush=True)
        await stop.wait()
    log.info("stopped")


def listen_for_signals(stop: asyncio.Event, line: ProxyQueue) -> None:
    def told() -> None:
        if stop.is_set():
            line.interrupt_all()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, told)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(told))


def main(argv: Sequence[str]) -> int:
    """The command line. Exit code 0 after an orderly stop, 1 if the service cannot start."""
    try:
        settings = knobs.load(argv)
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        raise_open_files(settings.ext_queue_size)
        asyncio.run(run(settings))
    except (SettingsError, ConnectorError, CredentialMissing) as error:
        print(f"gigachat-proxy cannot start: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gigachat-proxy cannot start: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
