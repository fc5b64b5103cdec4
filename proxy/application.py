"""What serves requests: the operations of the edge, what each needs of the others, and the table of their paths."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import web

from proxy.accepting import Accepting
from proxy.admins import OPERATOR, Admins
from proxy.attachments import Attachments
from proxy.batches_edge import BatchesEdge
from proxy.belongings import EVERYBODYS, Belongings, Everybodys
from proxy.browsers import Browsers
from proxy.callers import Callers
from proxy.completions import Completions
from proxy.dashboard import Dashboard
from proxy.delivery import Delivery
from proxy.dialects.language_model_chat import LanguageModelChat
from proxy.dialects.native import Native
from proxy.dialects.openai import Options
from proxy.dialects.openai.options import IMAGE_LINK
from proxy.docs import Docs
from proxy.durable import Durable
from proxy.following import Following
from proxy.guard import Guard, explained
from proxy.heartbeat import Heartbeat
from proxy.idempotency import Idempotency
from proxy.jobs import Room
from proxy.jobs.store import Store
from proxy.jobs_edge import JobsEdge
from proxy.journal import Listener
from proxy.kept_files import KeptFiles
from proxy.lanes import Lanes
from proxy.metrics import Metrics
from proxy.openai_edge import OpenAIEdge
from proxy.overview import Overview
from proxy.owners import Ownership
from proxy.readiness import Readiness, disks_of, token_of
from proxy.reception import Reception
from proxy.replay import Replay
from proxy.routes import Table
from proxy.scrape import Jobs, Scrape
from proxy.serving import Edge
from proxy.settings import ASSETS, Settings
from proxy.steering import Steering
from proxy.steering_edge import SteeringEdge
from proxy.tracing import Tracing
from proxy.watching import Watching
from proxy.work import Work


@dataclass(frozen=True)
class Parts:
    """What stands before the first request is let in. `listeners` are told of each when it is over."""

    settings: Settings
    version: str
    lanes: Lanes
    steering: Steering
    heartbeat: Heartbeat
    owners: Ownership
    attachments: Attachments
    store: Store | None
    metrics: Metrics
    overview: Overview
    tracing: Tracing
    listeners: Sequence[Listener]


def application(parts: Parts) -> tuple[web.Application, Work]:
    """What serves requests, and what runs jobs as requests from within."""
    settings, lanes, overview = parts.settings, parts.lanes, parts.overview
    has_keys = bool(settings.proxy_api_keys)
    callers = callers_of(settings, lanes)
    browsers = Browsers(settings.host, settings.cors_origins, has_keys=has_keys, is_proxy=callers.is_proxy)
    table = Table(Native(settings.app_name), LanguageModelChat(settings.lmc_system or ""))
    delivery = Delivery(settings, parts.heartbeat, explained)
    reception = Reception(settings, lanes, callers, parts.tracing)
    edge = Edge(lanes, callers, reception, delivery, belongings_of(settings, parts.owners))
    guard = guard_of(parts, table, callers, browsers)
    app = web.Application(client_max_size=settings.max_body_bytes)
    if settings.cors_origins:
        app.on_response_prepare.append(browsers.label)
    replay = Replay(app.router, guard)
    work = Work(settings, parts.store, replay.serve)
    accepting = Accepting(settings, reception, work, replay.rehearse)
    admins = admins_of(settings, callers)
    jobs = JobsEdge(accepting, delivery, work, lanes, admins)
    following = Following(delivery)
    once = Idempotency(settings, accepting, reception, work, following, table.dialect_for)
    app.middlewares.append(guard.middleware(Durable(jobs.accept, once).operation))
    options, kept_files = options_of(settings), KeptFiles(work, has_keys=has_keys)
    completions = Completions(options, reception, delivery, parts.attachments, edge.belongings_for)
    openai = OpenAIEdge(options, edge, completions, reception, delivery, kept_files)
    batches = BatchesEdge(work, reception, delivery, has_keys=has_keys)
    watching = watching_of(parts, delivery, admins)
    steering = SteeringEdge(parts.steering, lanes, callers, admins, delivery, work)
    dashboard = Dashboard(ASSETS / "dashboard", overview, admins)
    docs = Docs(ASSETS / "docs", lambda: described(parts, routes))
    routes = table.routes(edge, openai, batches, jobs, watching, steering, dashboard, docs)
    app.add_routes(routes)
    app.on_shutdown.extend((following.stop, overview.stop))
    app.on_cleanup.append(watching.close)
    return app, work


def callers_of(settings: Settings, lanes: Lanes) -> Callers:
    keys = {name: key.get_secret_value() for name, key in settings.proxy_api_keys.items()}
    if keys and settings.admin_api_key:
        keys = {OPERATOR: settings.admin_api_key.get_secret_value(), **keys}  # the operator may call, too
    has_issued = lanes.has_issued if settings.gpt2giga_pass_token else None
    return Callers(keys, settings.trusted_proxies, has_issued=has_issued)


def belongings_of(settings: Settings, owners: Ownership) -> Everybodys:
    """Without keys everything is everybody's."""
    keys = settings.proxy_api_keys
    return Belongings(owners, is_sole=len(keys) == 1) if keys else EVERYBODYS


def guard_of(parts: Parts, table: Table, callers: Callers, browsers: Browsers) -> Guard:
    listeners: list[Listener] = [parts.metrics, parts.overview, *parts.tracing.listeners, *parts.listeners]
    keeps_bodies = parts.settings.log_level == "DEBUG"
    return Guard(table.dialect_for, callers, browsers, listeners=listeners, keeps_bodies=keeps_bodies)


def admins_of(settings: Settings, callers: Callers) -> Admins:
    key = settings.admin_api_key
    return Admins(key.get_secret_value() if key else None, callers, settings.host)


def options_of(settings: Settings) -> Options:
    """The settings that matter to the translation of OpenAI's requests."""
    is_native = settings.gpt2giga_structured_output_mode == "native"
    return Options(
        default_model=settings.gigachat_model,
        default_embeddings=settings.gpt2giga_embeddings,
        pass_model=settings.gpt2giga_pass_model,
        model_map=settings.model_map,
        structured_output="native" if is_native else "function",
        json_repairs=settings.json_repairs,
        enable_images=settings.gpt2giga_enable_images,
        dimensions=settings.embeddings_dimensions,
        image_link=IMAGE_LINK if settings.generated_images == "link" else None,
    )


def described(parts: Parts, routes: Sequence[web.RouteDef]) -> bytes:
    """The API description of what is served."""
    from proxy.openapi import About, document, routes_of  # whoever never asks for it need not load it

    settings, dialect = parts.settings, parts.lanes.main.connector.dialect
    keys, admin = bool(settings.proxy_api_keys), settings.admin_api_key is not None
    about = About(settings.app_name, parts.version, keys, has_operator=admin, dialect=dialect)
    return orjson.dumps(document(about, routes_of(routes)))


def watching_of(parts: Parts, delivery: Delivery, admins: Admins) -> Watching:
    """What tells how the service is, to those who may know."""
    settings, lanes, store = parts.settings, parts.lanes, parts.store
    jobs = None if store is None else Jobs(store.jobs, Room(settings.jobs_max, settings.jobs_max_bytes))
    reasons = [token_of(lanes.main.connector), disks_of(files_of(settings, store))]
    readiness = Readiness(lanes.main.line, reasons, None if jobs is None else jobs.state)
    about = {"version": parts.version, "connector": lanes.main.connector.name}
    scrape = Scrape(parts.metrics, lanes, readiness, jobs, about=about, has_redis=settings.redis_url is not None)
    return Watching(delivery, readiness, scrape, admins)


def files_of(settings: Settings, store: Store | None) -> dict[str, Path]:
    """What must be written while the service serves, by its settings."""
    journal = settings.requests_log_file
    files = {} if journal is None else {"REQUESTS_LOG_FILE": journal}
    if store is not None and "://" not in store.where:
        files["JOBS_URL"] = Path(store.where)
    return files
