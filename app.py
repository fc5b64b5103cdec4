"""The composition root: settings -> lane -> routes; start, stop; the command line. Works from any current folder."""

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

try:
    from aiohttp import web
    from pydantic import SecretStr
except ModuleNotFoundError as missing:
    OWN_PYTHON = Path(__file__).with_name(".venv") / "bin" / "python"
    if OWN_PYTHON.exists() and not os.path.samefile(sys.prefix, OWN_PYTHON.parents[1]):
        own = os.path.relpath(OWN_PYTHON)
        sys.exit(f"this Python has no {missing.name}; the one that `make run` made has: type {own} {sys.argv[0]} ...")
    sys.exit(f"{missing.name} is not installed: `make run` installs and starts all, or pip install -r requirements.txt")

from proxy import settings as knobs
from proxy.admins import OPERATOR
from proxy.application import Parts, application
from proxy.attachments import Attachments
from proxy.browsers import is_loopback
from proxy.connector import Connector, ConnectorError, load_connector
from proxy.dialects.steering import lane_of
from proxy.errors import CredentialMissing, PassedRefused
from proxy.fetching import Fetching
from proxy.heartbeat import Heartbeat
from proxy.jobs.store import Store
from proxy.journal import Secrets, journal_of, log_file_of
from proxy.lanes import Account, Lane, Lanes
from proxy.limits.making import Engine, limits_of
from proxy.line import Line
from proxy.metrics import PASSED, Metrics
from proxy.operators import jobs
from proxy.operators.steering import COMMANDS as STEERING
from proxy.operators.steering import overridden, plain
from proxy.overview import About, Overview
from proxy.owners import owners_of
from proxy.passed import PassedCredential
from proxy.public_hosts import PublicHosts
from proxy.request import Story
from proxy.settings import Settings, SettingsError
from proxy.steering import Steering
from proxy.tracing import Tracing
from proxy.work import Work, store_of
from proxy_request import ProxyQueue, default_connector

VERSION = "0.1.0"

log = logging.getLogger("proxy")

#: Connections that may wait to be accepted, should thousands of callers come at once.
BACKLOG = 4096
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
#: Seconds of the drain that are kept for writing the last answers and closing; a fifth of a short one.
FAREWELL = 1.0
#: Seconds after which whoever has not taken its last answer is cut off, at least.
CUT_OFF = 0.2
#: The dialect of the API that the built-in emulator stands in for.
GIGACHAT = "gigachat"
#: The lane of an API like OpenAI's that serves beside the main one, and what calls it.
CHATGPT = "chatgpt"
CHATGPT_CONNECTOR = "chatgpt_connector"
#: Where traces go is said by one name alone.
IDLE = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")


class CannotListen(Exception):
    """HOST and PORT cannot be listened on; the text says why and what else there is."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    settings: Settings
    lanes: Lanes
    work: Work
    overview: Overview
    is_sandbox: bool
    #: Why no jobs are taken, though nobody has turned them off.
    no_jobs: str

    @property
    def connector(self) -> Connector:
        """What calls the server's own account."""
        return self.lanes.main.connector

    @property
    def line(self) -> Line:
        """Who waits for the server's own account."""
        return self.lanes.main.line


@asynccontextmanager
async def serving(settings: Settings, assets: Path | None = None) -> AsyncIterator[Service]:
    """Start everything; afterwards stop in the order of the promises: refuse new, finish old, close.

    `assets` is the folder for what outlives the process; None: nothing does.
    Raises SettingsError, CredentialMissing, ConnectorError, or CannotListen if the port is taken.
    """
    farewell = min(FAREWELL, settings.drain_timeout / 5)
    async with AsyncExitStack() as stack:
        settings, connector, is_sandbox = await opened(settings, stack)
        stack.push_async_callback(shut, connector)
        found = await stack.enter_async_context(store_of(settings, assets))
        store, no_jobs = (None, found) if isinstance(found, str) else (found, "")
        parts = await parts_of(settings, connector, assets, store, stack, is_sandbox=is_sandbox)
        lanes, overview = parts.lanes, parts.overview
        app, work = application(parts)
        stack.push_async_callback(work.close)
        overview.start(lanes, store)
        url = await listen(app, settings, farewell, stack)
        # The last callback is the first to run: the socket stays open, so that newcomers are told to come back.
        stack.push_async_callback(lanes.drain, settings.drain_timeout - farewell)
        work.start()
        stack.push_async_callback(work.stop)
        yield Service(url, settings, lanes, work, overview, is_sandbox, no_jobs)
        log.info(
            "stopping: what waits is served for up to %g s, newcomers get 503; a second signal stops at once",
            settings.drain_timeout,
        )


async def parts_of(
    settings: Settings,
    connector: Connector,
    assets: Path | None,
    store: Store | None,
    stack: AsyncExitStack,
    *,
    is_sandbox: bool,
) -> Parts:
    """What must stand before requests are let in; `stack` ends it."""
    tracing = await stack.enter_async_context(tracing_of(settings))
    metrics = Metrics({OPERATOR, *settings.proxy_api_keys}, Secrets(settings).hidden)
    engine = await stack.enter_async_context(limits_of(settings, assets))
    overview = Overview(About(settings.app_name, VERSION, is_sandbox), engine.fleet(account_of(connector)))
    make = Lines(settings, engine, metrics, overview)
    main = Lane("main", connector, make.line(connector, settings.rpm, settings.concurrency))
    stack.push_async_callback(main.line.close)
    others = await other_lanes(settings, main, make, stack)
    lanes = Lanes(main, partial(make.opened_lane, connector), others=others, most=settings.lanes_max)
    stack.push_async_callback(lanes.close)
    steering = Steering(lanes, engine.audit)
    stack.push_async_callback(steering.close)
    await steering.settled()
    heartbeat = Heartbeat(settings.heartbeat_interval)
    stack.callback(heartbeat.close)
    attachments = attachments_of(settings)
    stack.push_async_callback(attachments.close)
    return Parts(
        settings=settings,
        version=VERSION,
        lanes=lanes,
        steering=steering,
        heartbeat=heartbeat,
        owners=await stack.enter_async_context(owners_of(assets, has_keys=bool(settings.proxy_api_keys))),
        attachments=attachments,
        store=store,
        metrics=metrics,
        overview=overview,
        tracing=tracing,
        listeners=await stack.enter_async_context(journal_of(settings)),
    )


class Lines:
    """Makes lines, each for one account, and the lanes of callers' own accounts."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics, overview: Overview) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._overview = overview

    def line(
        self,
        connector: Connector,
        rpm: float | None,
        concurrency: int | None,
        *listeners: Callable[[Story], None],
        rest: float = 0.0,
        lane: str = "main",
    ) -> ProxyQueue:
        """A line at work, of a lane that metrics call so. It sends nothing in the first `rest` seconds."""
        settings = self._settings
        limits = self._engine.limits(account_of(connector), rpm=rpm or None, concurrency=concurrency or None, rest=rest)
        metrics = self._metrics.of_lane(lane, limits.state)
        overview = self._overview.of_lane(lane)
        line = ProxyQueue(
            [Account(connector, limits)],
            size=settings.ext_queue_size,
            call_timeout=settings.exp_resp_timeout,
            retries=settings.ext_retries,
            listeners=[metrics, overview, *listeners, *([log_story] if log.isEnabledFor(logging.INFO) else [])],
            observers=[metrics, overview],
        )
        line.start()
        return line

    def opened_lane(
        self, main: Connector, credential: PassedCredential, name: str, rest: float, refuse: Callable[[], None]
    ) -> Lane:
        """The lane of a credential that a caller brought along; `refuse` is told when the API refuses it."""

        def listen(story: Story) -> None:
            if story.error == PassedRefused.code:
                refuse()

        connector = main.opened(credential)
        concurrency = self._settings.concurrency_of(credential)
        line = self.line(connector, self._settings.rpm, concurrency, listen, rest=rest, lane=PASSED)
        return Lane(name, connector, line)


def account_of(connector: Connector) -> str:
    """What all replicas call its account; it tells nobody anything."""
    return f"{connector.name}-{connector.account()}"


async def other_lanes(settings: Settings, main: Lane, make: Lines, stack: AsyncExitStack) -> dict[str, Lane]:
    """The lanes that callers can ask for by a name, ready to call: an API like OpenAI's, if one is configured."""
    if main.connector.name == CHATGPT_CONNECTOR:
        return {CHATGPT: main}
    if not settings.has_chatgpt:
        return {}
    connector = load_connector(CHATGPT_CONNECTOR)
    await connector.startup()
    stack.push_async_callback(shut, connector)
    line = make.line(connector, settings.chatgpt_ext_api_rpm, settings.chatgpt_ext_max_requests, lane=CHATGPT)
    stack.push_async_callback(line.close)
    return {CHATGPT: Lane(CHATGPT, connector, line)}


async def opened(settings: Settings, stack: AsyncExitStack) -> tuple[Settings, Connector, bool]:
    """The connector, ready to call, and whether on the emulator: then with settings that point there."""
    connector = load_connector(settings.connector) if settings.connector else default_connector()
    is_emulated = connector.dialect == GIGACHAT
    if settings.gpt2giga_pass_token and not connector.opens_others:
        raise SettingsError(
            f"GPT2GIGA_PASS_TOKEN=true, but the connector {connector.name} has no open_connector(credential) and "
            "serves its own account alone: leave the setting out"
        )
    if settings.sandbox == "on" and not is_emulated:
        raise SettingsError(
            f"SANDBOX=on, but the emulator stands in for GigaChat alone and the connector {connector.name} calls "
            "another API: start without --sandbox (SANDBOX=off)"
        )
    if settings.sandbox != "on":
        knobs.use(settings)
        try:
            await connector.startup()
            return settings, connector, False
        except CredentialMissing:
            if settings.sandbox != "auto" or not is_emulated:
                raise
    settings = await sandboxed(settings, stack)
    knobs.use(settings)
    await connector.startup()
    return settings, connector, True


async def sandboxed(settings: Settings, stack: AsyncExitStack) -> Settings:
    """Start the emulator on a free port of this machine. It keeps the limits that the settings suppose."""
    import emulator  # a service with a credential never needs it

    giga = await stack.enter_async_context(emulator.start(emulator.Options(concurrency=settings.concurrency or 0)))
    return settings.model_copy(
        update={
            "gigachat_base_url": f"{giga.url}/v1",
            "gigachat_auth_url": f"{giga.url}/api/v2/oauth",
            "gigachat_api_key": SecretStr("sandbox"),
            "gigachat_user": None,
            "gigachat_password": None,
            "gigachat_access_token": None,
            "gigachat_mtls_auth": False,
        }
    )


async def listen(app: web.Application, settings: Settings, farewell: float, stack: AsyncExitStack) -> str:
    """Let requests in; at the end the last answers have `farewell` seconds. Returns the URL. Raises CannotListen."""
    runner = web.AppRunner(
        app,
        handler_cancellation=True,  # a caller who leaves takes its request along
        access_log=None,
        shutdown_timeout=max(CUT_OFF, farewell / 2),  # it waits twice so long
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    except OSError as error:
        raise CannotListen(why_not_listening(settings, error)) from error
    return url_of(settings.host, runner)


def why_not_listening(settings: Settings, error: OSError) -> str:
    host, port = settings.host, settings.port
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken: stop what listens there, or choose another with --port or PORT"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than we have: choose one above 1023 with --port or PORT"
    return (
        f"cannot listen on HOST={host}, PORT={port} ({error.strerror or error}): HOST must be an address of this "
        "machine, such as 127.0.0.1, or 0.0.0.0 for all of them"
    )


@asynccontextmanager
async def tracing_of(settings: Settings) -> AsyncIterator[Tracing]:
    """Who follows requests: nobody unless OTEL_EXPORTER_OTLP_ENDPOINT is set. Raises SettingsError."""
    warn_of_idle(os.environ)
    if settings.otel_exporter_otlp_endpoint is None:
        yield Tracing()
        return
    from proxy.collector import tracer_of  # whoever does not ask for traces need not load their library
    from proxy.spans import Spans

    hidden = Secrets(settings).hidden
    async with tracer_of(settings, VERSION, hidden) as tracer:
        yield Spans(tracer, {OPERATOR, *settings.proxy_api_keys}, hidden)


def warn_of_idle(environment: Mapping[str, str]) -> None:
    """Tell which of OpenTelemetry's own switches do nothing here."""
    if idle := [name for name in IDLE if environment.get(name, "").strip()]:
        log.warning("without effect here: %s; OTEL_EXPORTER_OTLP_ENDPOINT alone turns traces on", ", ".join(idle))


async def shut(connector: Connector) -> None:
    """Let the connector close; whatever it does then, the service stops."""
    try:
        async with asyncio.timeout(FAREWELL / 2):
            await connector.shutdown()
    except Exception:
        log.warning("the connector %s did not shut down in order", connector.name, exc_info=True)


def attachments_of(settings: Settings) -> Attachments:
    fetching = Fetching(PublicHosts(settings.fetch_allow))
    return Attachments(fetching, deletes=settings.delete_attachments)


def log_story(story: Story) -> None:
    """One line a request in the log."""
    log.info(
        "request %s of %s: %s, waited %.3f s, took %.3f s, attempts %d",
        f"{story.id} (trace {story.trace})" if story.trace else story.id,
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
    limits = service.line.state().limits
    pace = f"{plain(limits.rpm)} calls a minute, evenly spaced" if limits.rpm else "no pacing (EXT_API_RPM is not set)"
    flight = f"{limits.concurrency} in flight" if limits.concurrency else "any number in flight"
    lines = [f"{settings.app_name} {VERSION} listens on {service.url}"]
    if service.is_sandbox:
        again = "start without --sandbox" if settings.sandbox == "on" else "start again"
        lines = [
            "=" * 78,
            "  SANDBOX: answers come from the built-in emulator, not from GigaChat.",
            f"  For real answers put GIGACHAT_API_KEY=... into assets/env and {again}.",
            "=" * 78,
            *lines,
        ]
    lines.append(
        f"  connector {service.connector.name}; limits: {pace}, {flight}, {settings.exp_resp_timeout:g} s a call"
    )
    lines += [f"  also: {lane.name}, connector {lane.connector.name}" for lane in service.lanes.all()[1:]]
    lines += traces_of(settings)
    lines += [f"  SET WHILE IT RAN: {told}" for lane in service.lanes.all() for told in overridden(lane_of(lane))]
    if service.no_jobs:
        lines.append(f"  no jobs are taken: {service.no_jobs}")
    if not settings.proxy_api_keys and not is_loopback(settings.host):
        lines.append(
            f"  WARNING: {settings.host} can be reached from outside and no key is asked for: anybody there spends "
            "your quota. Set PROXY_API_KEYS, or HOST=127.0.0.1 (in a container: publish the port on 127.0.0.1)"
        )
    return "\n".join(lines)


def traces_of(settings: Settings) -> list[str]:
    """Where traces go, if they are on: the host alone, for the rest of an address may be secret."""
    if settings.otel_exporter_otlp_endpoint is None:
        return []
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ["  no traces are made: OTEL_SDK_DISABLED=true"]
    return [f"  traces go to {urlsplit(settings.otel_exporter_otlp_endpoint).netloc}"]


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


def collect_less_often() -> None:
    """What was made at the start stays, and thousands of waiting requests are no garbage: look for some less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one stops at once."""
    stop = asyncio.Event()
    collect_less_often()
    async with serving(settings, knobs.ASSETS) as service:
        listen_for_signals(stop, service.lanes)
        print(banner(service), flush=True)
        await stop.wait()
    log.info("stopped")


def listen_for_signals(stop: asyncio.Event, lanes: Lanes) -> None:
    def told() -> None:
        if stop.is_set():
            lanes.interrupt_all()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, told)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(told))


#: What the command line does instead of serving, by its first word.
COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"jobs": jobs.main, **STEERING}


def main(argv: Sequence[str]) -> int:
    """The command line. Exit code 0 after an orderly stop, 1 if the service cannot start."""
    if argv and (command := COMMANDS.get(argv[0])):
        return command(argv[1:])
    try:
        settings = knobs.load(argv)
        os.environ.update(knobs.others(argv) | os.environ)  # where connectors look for settings of their own
        logging.basicConfig(level=settings.log_level, format=LOG_FORMAT)
        with log_file_of(settings, LOG_FORMAT):
            raise_open_files(settings.ext_queue_size)
            asyncio.run(run(settings))
    except (SettingsError, ConnectorError, CredentialMissing, CannotListen) as error:
        print(f"gigachat-proxy cannot start: {error}", file=sys.stderr)
        log.debug("this is why", exc_info=True)
        return 1
    except KeyboardInterrupt:  # before the signals were ours
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
