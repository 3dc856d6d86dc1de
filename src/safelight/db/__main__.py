"""db as a program."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import logs, recipe, serve, settings
from safelight.access import route
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.db import app, only_database
from safelight.db.accounts.app import Accounts
from safelight.db.backup import Backup
from safelight.db.calls.store import CallStore
from safelight.db.metrics import Metrics, QueueCollector
from safelight.db.store import Policy
from safelight.errors import Error
from safelight.settings import Duration
from safelight.wire import NewTask, State

log = logging.getLogger(__name__)

_DEFAULT = Policy()
_Count = Annotated[int, Meta(ge=1)]


class Config(serve.Config, frozen=True, kw_only=True):
    """Run db, which keeps tasks, leases and events."""

    port: serve.Port = 8001
    data: serve.DataDirectory = "data/db"
    store: Annotated[
        str | None,
        Meta(
            description="The URL of the store, sqlite:///FILE or postgresql://USER@HOST/DATABASE (also several hosts, "
            "separated by commas, of which one is the primary); by default a file in the data directory.",
            extra={"metavar": "URL"},
        ),
    ] = None
    migrate: Annotated[
        bool,
        Meta(
            description="Migrate the schema of a PostgreSQL database to this version, and exit. A file is migrated "
            "when it is opened."
        ),
    ] = False
    readers: Annotated[
        _Count, Meta(description="How many PostgreSQL sessions read at once, besides the one that writes.")
    ] = 4
    statement_timeout: Annotated[
        Duration, Meta(description="How long PostgreSQL may take for one statement before it is cancelled.")
    ] = 30.0
    max_errors: Annotated[_Count, Meta(description="A task fails after this many errors.")] = _DEFAULT.max_errors
    retry_first: Annotated[Duration, Meta(description="The delay after the first error; it doubles with each.")] = (
        _DEFAULT.retry_first
    )
    retry_longest: Annotated[Duration, Meta(description="The longest delay after an error.")] = _DEFAULT.retry_longest
    max_deaths: Annotated[_Count, Meta(description="A task is quarantined after this many deaths.")] = (
        _DEFAULT.max_deaths
    )
    classic_max_deaths: Annotated[_Count, Meta(description="The same for a task that only classic workers tried.")] = (
        _DEFAULT.classic_max_deaths
    )
    classic_lease_duration: Annotated[Duration, Meta(description="How long a classic worker may take.")] = (
        _DEFAULT.classic_lease_duration
    )
    keep_tasks: Annotated[Duration, Meta(description="How long ended tasks are kept; 0 keeps them forever.")] = (
        _DEFAULT.keep_tasks
    )
    keep_events: Annotated[Duration, Meta(description="How long events are kept; 0 keeps them forever.")] = (
        _DEFAULT.keep_events
    )
    keep_uploading: Annotated[
        Duration, Meta(description="How long a task may wait for its upload; 0 means forever.")
    ] = _DEFAULT.keep_uploading
    max_waiting: Annotated[_Count, Meta(description="Refuse new tasks while this many wait.")] = _DEFAULT.max_waiting
    oldest_every: Annotated[
        int,
        Meta(ge=0, description="One lease of a tenant in this many goes to its oldest task; 0 turns this off."),
    ] = _DEFAULT.oldest_every
    keep_audit: Annotated[Duration, Meta(description="How long the audit log is kept; 0 keeps it forever.")] = (
        _DEFAULT.keep_audit
    )


def policy(config: Config) -> Policy:
    """Return the policy in the settings."""
    return Policy(**{field.name: getattr(config, field.name) for field in msgspec.structs.fields(Policy)})


_INVERT = recipe.BUILTIN["invert"]

CLASSIC_TASK = NewTask(
    recipe="invert",
    recipe_digest=recipe.digest(_INVERT, ""),
    spec=msgspec.Raw(recipe.encode_work(_INVERT)),
    classic=True,
    state=State.UPLOADING,
)
"""The task that the classic protocol's `POST /task` creates."""


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Open the backend that the store's URL names, and yield the application."""
    metrics = Metrics(service.registry)
    url = config.store or f"sqlite://{config.data}/tasks.sqlite"
    opened: AbstractAsyncContextManager[CallStore]
    match url.partition("://")[0]:
        case "sqlite":
            from safelight.db.sqlite import SqliteStore  # noqa: PLC0415 - only what is chosen is imported

            path = Path(url.removeprefix("sqlite://"))
            opened = SqliteStore.open(path, policy=policy(config), observe=metrics.committed)
        case "postgresql" | "postgres":
            _need_driver()
            from safelight.db.postgres import PostgresStore  # noqa: PLC0415 - only what is chosen is imported

            opened = PostgresStore.open(
                url,
                policy=policy(config),
                readers=config.readers,
                statement_timeout=config.statement_timeout,
                observe=metrics.committed,
                wait=True,
            )
        case scheme:
            detail = (
                f"--store: db has no backend for {scheme}://. Write sqlite:///FILE or postgresql://USER@HOST/DATABASE."
            )
            settings.fail(detail)
    async with opened as store:
        service.registry.register(QueueCollector(store.summary))
        service.on_stop(store.wake)
        if store.reachability is not None:
            service.depends_on(store.reachability)
        only_database.require(service, store)
        service.neighbours.offer(DbClient, store)
        service.neighbours.offer(AccountClient, store.accounts)
        application = app.make(store, CLASSIC_TASK)
        route.add(application, *Accounts(store.accounts).routes())
        route.add(application, Backup(store, Path(config.data)).routes())
        yield application


def _need_driver() -> None:
    if find_spec("asyncpg") is None or find_spec("greenlet") is None:
        settings.fail("--store: PostgreSQL needs more packages: pip install 'safelight[postgres]'.")


def _migrate(config: Config) -> None:
    """Migrate the database to the schema of this version."""
    if not (config.store or "").startswith(("postgresql://", "postgres://")):
        settings.fail("--migrate: a file is migrated when it is opened; name a database of PostgreSQL by --store.")
    _need_driver()
    from safelight.db.postgres import schema  # noqa: PLC0415 - only what is chosen is imported
    from safelight.db.postgres.sessions.address import Address  # noqa: PLC0415

    logs.configure("db", config.log_format, config.log_level)
    try:
        version = asyncio.run(schema.migrate(Address(url=config.store or "")))
    except Error as error:
        settings.fail(error.detail)
    log.info("The database has schema version %d", version)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service, or migrate its database."""
    config = settings.load(Config, argv, section="db", program="safelight db")
    if config.migrate:
        _migrate(config)
        return
    serve.run("db", Config, build, loaded=config)


if __name__ == "__main__":
    main()
