"""Storage as a program."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

from aiohttp import web
from msgspec import Meta
from prometheus_client import Gauge

from safelight import background, serve, settings
from safelight.access import route
from safelight.client.accounts import AccountClient
from safelight.client.db import DbClient
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.errors import Error
from safelight.steady import Ages
from safelight.storage import app, backends
from safelight.storage.direct import DirectPartials, DirectStorage
from safelight.storage.identity import Identity
from safelight.storage.maintenance.collector import Collector, references
from safelight.storage.maintenance.kept_ages import kept_ages
from safelight.storage.maintenance.remake import make_again
from safelight.storage.maintenance.scrubber import Scrubber
from safelight.storage.partial.app import Partials
from safelight.storage.partial.store import PartialLimits
from safelight.storage.store import BlobStore


class Config(serve.Config, frozen=True, kw_only=True):
    """Run storage, which keeps immutable blobs, each named by the SHA-256 of its bytes."""

    port: serve.Port = 8002
    data: serve.DataDirectory = "data/storage"
    store: Annotated[
        str | None,
        Meta(
            description="The URL of the store: file:///DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or "
            "az://CONTAINER/PREFIX; by default the data directory.",
            extra={"metavar": "URL"},
        ),
    ] = None
    public_bucket: Annotated[
        str | None,
        Meta(
            description="The URL of the bucket for clients, such as https://photos.s3.amazonaws.com; large downloads "
            "are redirected there. Needs s3:// and its keys in the environment.",
            extra={"metavar": "URL"},
        ),
    ] = None
    max_blob: Annotated[settings.Size, Meta(description="Refuse blobs that are larger than this.")] = 2 << 30
    keep_free: Annotated[
        settings.Size, Meta(description="Refuse blobs that would leave less of the disk free than this.")
    ] = 64 << 20
    idle_timeout: Annotated[settings.Duration, Meta(description="Drop an upload that sends nothing for this long.")] = (
        30.0
    )
    grace: Annotated[
        settings.Duration,
        Meta(description="Keep a blob for at least this long after it was stored, even if nothing refers to it."),
    ] = 86400.0
    collect_every: Annotated[
        settings.Duration,
        Meta(description="How often to remove blobs that nothing refers to; 0 removes them only on request."),
    ] = 3600.0
    scrub_rate: Annotated[
        settings.Size,
        Meta(description="How many bytes per second to read in search of damaged blobs; 0 turns the search off."),
    ] = 8 << 20
    keep_partial: Annotated[
        settings.Period, Meta(description="Remove a partial upload that has not been continued for this long.")
    ] = 86400.0
    max_partials: Annotated[
        int,
        Meta(
            ge=1,
            description="Refuse new partial uploads while this many are open; a tenant has half of what others leave.",
        ),
    ] = 10_000


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Open the backend that the store's URL names, and yield the application."""
    limits = app.Limits(blob=config.max_blob, idle_timeout=config.idle_timeout)
    numbers = app.Numbers(service.registry)
    async with kept_ages(Path(config.data, "ages.json")) as ages, _backend(config, ages) as backend:
        store = backend.blobs
        if backend.reachability is not None:
            service.depends_on(backend.reachability)
        free = Gauge("safelight_storage_free_bytes", "Bytes that still fit, or -1", registry=service.registry)
        free.set_function(partial(_free, store))
        collector = tasks = remake = identity = None
        if service.discovery is not None:
            # Not `service.needs`: once db has confirmed that it knows this store, storage needs db only for garbage
            # collection and the classic protocol.
            db, address = service.neighbours.find(DbClient), service.discovery.address("db")
            # Requests with an id of the classic protocol wait until db is found.
            tasks = db or DbClient(service.connection(address))
            db = db or DbClient(service.connection(address, retry_for=2.0))
            identity = Identity(backend.marks, db.claim_store, service.stop)
            collector = Collector(
                store, partial(references, db), config.grace, backend.known_db, backend.turn, ages, db.clock_confirmed
            )
            accounts = service.neighbours.find(AccountClient) or AccountClient(service.connection(address))
            remake = partial(make_again, db, accounts)
        application = app.make(store, collector, limits, numbers, tasks, backend.handover, backend.link)
        route.add(application, Partials(backend.partials, config.idle_timeout).routes())
        scrubber = Scrubber(store, config.scrub_rate, numbers.count_scrubbed, remake)
        collecting = _collecting(collector, identity, config.collect_every, numbers)
        async with _identified(identity, application, service), collecting, scrubber.running():
            if identity is None or identity.is_accepted:  # direct calls are not refused here, only requests over HTTP
                service.neighbours.offer(StorageClient, DirectStorage(store, limits, numbers, backend.link))
                service.neighbours.offer(PartialClient, DirectPartials(backend.partials, config.idle_timeout))
            yield application


def _free(store: BlobStore) -> int:
    """Return how many bytes still fit, or -1 if that is unknown: without its disk, storage still has other metrics."""
    try:
        left = store.free()
    except OSError:
        return -1
    return -1 if left is None else left


def _backend(config: Config, ages: Ages) -> AbstractAsyncContextManager[backends.Backend]:
    limits = PartialLimits(count=config.max_partials, keep=config.keep_partial)
    url = config.store or f"file://{config.data}"
    scheme, _, place = url.partition("://")
    match scheme:
        case "file" if config.public_bucket:
            settings.fail("--public-bucket needs --store s3://BUCKET/PREFIX.")
        case "file":
            _check_disk(Path(place), config.keep_free)
            opened = backends.directory(Path(place), Path(config.data), config.keep_free, config.grace, limits, ages)
        case "s3" | "gs" | "az":
            opened = backends.bucket(url, config.public_bucket, limits, ages)
        case _:
            settings.fail(
                f"--store: storage has no backend for {url}. Write file:///DIRECTORY, s3://BUCKET/PREFIX, "
                "gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
            )
    return opened


def _check_disk(place: Path, keep_free: int) -> None:
    """Refuse a disk on which no photo would ever fit, such as the memory of a small machine without a volume."""
    existing = next(one for one in (place.absolute(), *place.absolute().parents) if one.exists())
    figures = os.statvfs(existing)
    size = figures.f_blocks * figures.f_frsize
    if 0 < size <= keep_free:
        settings.fail(
            f"--keep-free: the disk of {place} has {size >> 20} MiB, of which {keep_free >> 20} MiB must stay free, so "
            "no photo fits. Give storage a larger disk, such as a volume, or lower --keep-free."
        )


@asynccontextmanager
async def _identified(
    identity: Identity | None, application: web.Application, service: serve.Service
) -> AsyncIterator[None]:
    """Refuse all requests while the store is not the one that db knows."""
    if identity is None:
        yield
        return
    application.middlewares.append(identity.refusing())
    service.checks["store"] = identity.check
    if service.neighbours.find(DbClient) is not None:
        with suppress(Error):  # it is asked again
            await identity.look()
    async with identity.asking():
        yield


@asynccontextmanager
async def _collecting(
    collector: Collector | None, identity: Identity | None, every: float, numbers: app.Numbers
) -> AsyncIterator[None]:
    if collector is None or identity is None or not every:
        yield
        return

    async def collect() -> None:
        await identity.accepted()
        await collector.run(every, numbers.count_collection, numbers.failed.inc)

    async with background.running(collect, "collector"):
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    serve.run("storage", Config, build, argv)


if __name__ == "__main__":
    main()
