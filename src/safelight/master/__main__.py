"""The master as a program."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from safelight import recipe, serve, settings
from safelight.access import route
from safelight.access.connections.places import Places
from safelight.client.db import DbClient
from safelight.client.partials import PartialClient
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.errors import Error
from safelight.master import app
from safelight.master.access.parts import AccessConfig, MasterAccess
from safelight.master.access.quotas import Quotas
from safelight.master.api.endpoint import HasEndpoints
from safelight.master.batches import Batches
from safelight.master.classic import Classic
from safelight.master.clock import Clock
from safelight.master.download.archive import Archive
from safelight.master.download.downloads import Downloads
from safelight.master.download.renditions import Renditions
from safelight.master.leases import Leases
from safelight.master.live.events import Events
from safelight.master.live.feed import Feed
from safelight.master.live.last_hour import LastHourCounter
from safelight.master.live.spans import StatisticsOfSpans
from safelight.master.metrics import Metrics
from safelight.master.queue import Queue
from safelight.master.recipes.endpoints import Recipes
from safelight.master.recipes.recipe_book import RecipeBook
from safelight.master.services import Services
from safelight.master.storage import Storage
from safelight.master.task_actions import TaskActions
from safelight.master.tasks import Tasks
from safelight.master.upload.ingest import Ingest
from safelight.master.upload.replay import ReplayBudget
from safelight.master.upload.task_batcher import TaskBatcher
from safelight.master.upload.tus import Tus
from safelight.master.upload.uploads import Limits, Uploads
from safelight.master.webhook.calls import WebhookCalls
from safelight.master.webhook.secrets import WebhookSecrets
from safelight.master.webhook.signing import Signer
from safelight.master.webhook.webhooks import Webhooks
from safelight.wire import MAX_PHOTO_BYTES


class Config(AccessConfig, frozen=True, kw_only=True):
    """Run the master, which serves clients, workers and the web page."""

    port: serve.Port = 8003
    data: serve.DataDirectory = "data/master"
    recipes: Annotated[
        str | None, Meta(description="A TOML file of recipes, one table for each.", extra={"metavar": "FILE"})
    ] = None
    max_photo: serve.MaxPhoto = MAX_PHOTO_BYTES
    uploads: Annotated[
        int, Meta(ge=1, description="How many uploads may run at once; further ones are refused and may try again.")
    ] = 64
    upload_idle_timeout: Annotated[
        settings.Duration, Meta(description="Drop an upload that sends nothing for this long.")
    ] = 30.0
    event_readers: Annotated[int, Meta(ge=0, description="How many event streams may be open at once.")] = 1000
    event_stall_timeout: Annotated[
        settings.Duration, Meta(description="Close an event stream whose reader has left events unread for this long.")
    ] = 20.0
    webhook_secret: Annotated[
        str | None,
        Meta(description="The secret that signs webhook calls of the tenant default: whsec_ and base64."),
    ] = None
    webhook_allow_private: Annotated[
        bool,
        Meta(description="Let webhooks call private addresses; users with the scope read see how their answers begin."),
    ] = False
    webhook_authorities: Annotated[
        str | None,
        Meta(
            description="A PEM file of the certificate authorities that webhooks trust; by default the system's.",
            extra={"metavar": "FILE"},
        ),
    ] = None
    webhook_retry: Annotated[
        settings.Duration,
        Meta(description="The delay before a webhook's first retry; later delays grow up to 2880 times as long."),
    ] = 10.0


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Connect the parts, without waiting for db or storage."""
    db = service.uses(DbClient, "db", breaks=True)
    access = MasterAccess(config, service, db)
    metrics = Metrics(service.registry)
    feed = Feed(db)
    last_hour = LastHourCounter(feed, db)
    signer = _signer(config, access)
    webhooks = Webhooks(
        db,
        metrics,
        signer=signer,
        allow_private=config.webhook_allow_private,
        first_pause=config.webhook_retry,
        authorities=_existing(config.webhook_authorities),
    )

    async def take_summary() -> None:
        metrics.take(await db.summary())

    service.refreshers.append(take_summary)
    parts = (WebhookCalls(db), WebhookSecrets(access.accounts, signer, access.audit))
    application = _application(config, service, db, feed, last_hour, metrics, access, parts)
    async with feed.following(), last_hour.counting(), webhooks.delivering(), access.running():
        yield application


def _application(
    config: Config,
    service: serve.Service,
    db: DbClient,
    feed: Feed,
    last_hour: LastHourCounter,
    metrics: Metrics,
    access: MasterAccess,
    webhook_parts: tuple[HasEndpoints, ...],
) -> web.Application:
    """Put the parts together."""
    storage, recipes = service.uses(StorageClient, "storage", breaks=True), RecipeBook(db, _from_file(config.recipes))
    batcher, downloads = TaskBatcher(db, storage), Downloads(db, storage)
    uploads, tus = _uploads(config, service, db, batcher, recipes, downloads, metrics, access.quotas)
    events = Events(
        feed, db, access.quotas, metrics, stall_timeout=config.event_stall_timeout, readers=config.event_readers
    )
    service.on_stop(events.stop)
    parts: tuple[HasEndpoints, ...] = (
        uploads,
        Classic(db, storage, downloads),
        Tasks(db),
        TaskActions(db, batcher, recipes, access.audit),
        Queue(db, access.accounts, recipes),
        Clock(db, access.audit),
        Batches(db),
        downloads,
        Archive(db, storage, downloads),
        Renditions(db, recipes, downloads, batcher, feed, access.quotas),
        Recipes(recipes),
        events,
        last_hour,
        StatisticsOfSpans(db),
        Storage(service.uses(StorageClient, "storage", retry_for=0.0), db, access.audit),
        *([Services(service)] if service.discovery is not None else []),
        Leases(service.uses(DbClient, "db", retry_for=0.0), service.stopping),
        *access.parts,
        *webhook_parts,
    )
    return _routed(app.make([access.checked(each) for part in parts for each in part.endpoints()]), tus, access)


def _uploads(
    config: Config,
    service: serve.Service,
    db: DbClient,
    batcher: TaskBatcher,
    recipes: RecipeBook,
    downloads: Downloads,
    metrics: Metrics,
    quotas: Quotas,
) -> tuple[Uploads, Tus]:
    """Make both kinds of uploads, which share the limit of concurrent uploads and the memory for retries."""
    budget, places = ReplayBudget(), Places(config.uploads)
    metrics.uploading.set_function(lambda: len(places))
    storage = service.uses(StorageClient, "storage", breaks=True)
    shared = None if service.neighbours.find(StorageClient) else SharedBlobs(storage)
    ingest = Ingest(storage, metrics, limit=config.max_photo, budget=budget, shared=shared)
    tus = Tus(
        service.uses(PartialClient, "storage", breaks=True),
        batcher,
        recipes,
        downloads,
        metrics,
        quotas,
        places=places,
        budget=budget,
        limit=config.max_photo,
        idle_timeout=config.upload_idle_timeout,
        private_webhooks=config.webhook_allow_private,
    )
    return Uploads(db, ingest, batcher, recipes, metrics, _limits(config), quotas, places), tus


def _routed(application: web.Application, tus: Tus, access: MasterAccess) -> web.Application:
    """Add the routes that are not endpoints of the API."""
    route.add(application, tus.routes(), access.routes)
    return application


def _limits(config: Config) -> Limits:
    return Limits(
        photo=config.max_photo,
        idle_timeout=config.upload_idle_timeout,
        private_webhooks=config.webhook_allow_private,
    )


def _signer(config: Config, access: MasterAccess) -> Signer:
    try:
        return Signer(access.accounts, config.webhook_secret)
    except ValueError as error:
        settings.fail(f"--webhook-secret: {error}.")


def _existing(authorities: str | None) -> str | None:
    if authorities is not None and not Path(authorities).is_file():
        settings.fail(f"--webhook-authorities: the file {authorities} does not exist.")
    return authorities


def _from_file(path: str | None) -> dict[str, recipe.Recipe]:
    if path is None:
        return {}
    try:
        return recipe.load_file(Path(path))
    except Error as error:
        settings.fail(error.detail)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    serve.run("master", Config, build, argv)


if __name__ == "__main__":
    main()
