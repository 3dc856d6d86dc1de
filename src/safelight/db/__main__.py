"""db as a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from safelight import recipe, serve, settings
from safelight.access import route
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.db import app
from safelight.db.accounts.app import Accounts
from safelight.db.backup import Backup
from safelight.db.metrics import Metrics, QueueCollector
from safelight.db.store import Policy
from safelight.settings import Duration
from safelight.wire import NewTask, State

_DEFAULT = Policy()
_Count = Annotated[int, Meta(ge=1)]


class Config(serve.Config, frozen=True, kw_only=True):
    """Run db, which keeps tasks, leases and events."""

    port: serve.Port = 8001
    data: serve.DataDirectory = "data/db"
    store: Annotated[
        str | None,
        Meta(
            description="The URL of the store, sqlite:///FILE; by default a file in the data directory.",
            extra={"metavar": "URL"},
        ),
    ] = None
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
    keep_uploading: Annotated[Duration, Meta(description="How long a task may wait for its upload; 0 is forever.")] = (
        _DEFAULT.keep_uploading
    )
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
    spec=msgspec.Raw(recipe.encode(_INVERT)),
    classic=True,
    state=State.UPLOADING,
)
"""What the classic protocol's `POST /task` creates."""


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Open the backend that the store's URL names, and yield the application."""
    metrics = Metrics(service.registry)
    scheme, _, place = (config.store or f"sqlite://{config.data}/tasks.sqlite").partition("://")
    match scheme:
        case "sqlite":
            from safelight.db.sqlite import SqliteStore  # noqa: PLC0415 - only what is chosen is imported

            opened = SqliteStore.open(Path(place), policy=policy(config), observe=metrics.committed)
        case _:
            settings.fail(f"--store: db has no backend for {config.store}. Write sqlite:///FILE.")
    async with opened as store:
        service.registry.register(QueueCollector(store.summary))
        service.on_stop(store.wake)
        service.neighbours.offer(DbClient, store)
        service.neighbours.offer(AccountClient, store.accounts)
        application = app.make(store, CLASSIC_TASK)
        route.add(application, *Accounts(store.accounts).routes())
        route.add(application, Backup(store, Path(config.data)).routes())
        yield application


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    serve.run("db", Config, build, argv)


if __name__ == "__main__":
    main()
