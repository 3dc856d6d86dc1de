"""The key-value store as a program."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from safelight import serve, settings
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.keyvaluestore import app


class Config(serve.StandaloneConfig, frozen=True, kw_only=True):
    """Run the key-value store, where services register and find one another."""

    port: serve.Port = 8000
    data: serve.DataDirectory = "data/keyvaluestore"
    store: Annotated[
        str | None,
        Meta(
            description="The URL of the store, sqlite:///FILE; by default a file in the data directory.",
            extra={"metavar": "URL"},
        ),
    ] = None
    max_entries: Annotated[int, Meta(ge=1, description="Refuse more entries than this.")] = 10_000


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Open the backend that the store's URL names, and yield the application."""
    scheme, _, place = (config.store or f"sqlite://{config.data}/keyvaluestore.sqlite").partition("://")
    match scheme:
        case "sqlite":
            from safelight.keyvaluestore.sqlite import SqliteStore  # noqa: PLC0415 - only what is chosen is imported

            opened = SqliteStore.open(Path(place), max_entries=config.max_entries, registry=service.registry)
        case _:
            settings.fail(f"--store: the key-value store has no backend for {config.store}. Write sqlite:///FILE.")
    async with opened as store:
        service.on_stop(store.wake)
        service.neighbours.offer(KeyValueStoreClient, store)
        yield app.make(store, service.registry)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    serve.run("keyvaluestore", Config, build, argv)


if __name__ == "__main__":
    main()
