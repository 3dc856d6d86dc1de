"""The worker as a program: `python -m safelight.worker KEYVALUESTORE_HOST:PORT`."""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from aiohttp import web
from msgspec import Meta, field

from safelight import serve, settings
from safelight.access.networks import is_loopback
from safelight.access.policy import host_of
from safelight.client.master import Client
from safelight.client.shared import SharedBlobs
from safelight.client.storage import StorageClient
from safelight.engine.limits import Limits
from safelight.wire import MAX_PHOTO_BYTES, WorkerInfo
from safelight.worker import decoder
from safelight.worker.attempts import Attempts
from safelight.worker.cores import usable
from safelight.worker.inputs import Inputs
from safelight.worker.leases import Leases
from safelight.worker.metrics import DecoderRestarts, Metrics
from safelight.worker.outage import Outage
from safelight.worker.prefetch import Prefetch
from safelight.worker.workdir import Workdir
from safelight.worker.worker import Worker

_NAME = "up to 40 letters, digits, dots, - and _, beginning with a letter or digit"


class Config(serve.Config, frozen=True, kw_only=True):
    """Run a worker, which takes tasks from the master, processes their photos and stores the results."""

    data: serve.DataDirectory = "data/worker"
    name: Annotated[
        Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}(?!\n)$", extra={"words": _NAME})] | None,
        Meta(
            description="What people call this worker: up to 40 letters, digits, dots, - and _. Its unique id begins "
            "with it; by default with the host's name.",
        ),
    ] = None
    drain: Annotated[settings.Duration, Meta(description="How long photos in progress may take to end at a stop.")] = (
        20.0
    )
    slots: Annotated[
        int, Meta(ge=1, le=1024, description="How many photos to process at once; by default one for each usable core.")
    ] = field(default_factory=usable)
    threads: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="How many threads to use for all photos together; by default one for each usable core. A photo "
            "that is alone gets all of them for the outputs of its recipe; on a busy worker each photo gets one.",
        ),
    ] = field(default_factory=usable)
    prefetch: Annotated[settings.Size, Meta(description="How many bytes of photos to fetch ahead of their turn.")] = (
        64 << 20
    )
    lease_duration: Annotated[
        float,
        Meta(ge=1, le=3600, description="How long a lease lasts without a heartbeat.", extra={"unit": "seconds"}),
    ] = 30.0
    isolation: Annotated[
        Literal["process", "thread"],
        Meta(description="Decode in separate processes, or in threads of this one where processes cannot be started."),
    ] = field(default_factory=lambda: "process" if hasattr(os, "fork") else "thread")
    sandbox: Annotated[
        Literal["require", "prefer"] | None,
        Meta(
            description="What to do where the kernel lacks a part of the decoders' sandbox: refuse to start or warn. "
            "By default refuse, on loopback warn."
        ),
    ] = None
    check_sandbox: Annotated[
        bool, Meta(description="Try to get out of the decoders' sandbox, print the results and exit.")
    ] = False
    memory_limit: Annotated[
        int,
        Meta(ge=256 << 20, description="How much memory one decoder process may allocate.", extra={"unit": "bytes"}),
    ] = 2 << 30
    time_limit: Annotated[float, Meta(gt=0, description="How long one photo may take.", extra={"unit": "seconds"})] = (
        60.0
    )
    max_pixels: Annotated[
        int, Meta(ge=1, description="Refuse a photo with more pixels than this: frames times width times height.")
    ] = Limits().max_pixels
    max_frames: Annotated[int, Meta(ge=1, description="Refuse an animation with more frames than this.")] = (
        Limits().max_frames
    )
    max_photo: serve.MaxPhoto = MAX_PHOTO_BYTES
    max_output_pixels: Annotated[int, Meta(ge=1, description="Refuse to make a result with more pixels than this.")] = (
        Limits().max_output_pixels
    )
    max_output: Annotated[settings.Size, Meta(description="Refuse to make a result that is larger than this.")] = (
        Limits().max_output_bytes
    )
    max_memory: Annotated[
        settings.Size, Meta(description="Refuse a photo that would take more memory than this, judged by its header.")
    ] = Limits().max_memory


def _limits(config: Config) -> Limits:
    return Limits(
        max_bytes=config.max_photo,
        max_pixels=config.max_pixels,
        max_frames=config.max_frames,
        max_memory=config.max_memory,
        max_output_pixels=config.max_output_pixels,
        max_output_bytes=config.max_output,
    )


@asynccontextmanager
async def build(config: Config, service: serve.Service) -> AsyncIterator[web.Application]:
    """Start the decoders and the worker; leaving drains them."""
    master, storage = service.needs("master"), service.needs("storage")
    # The loops that use these clients have their own retries.
    master.retry_for = storage.retry_for = 0.0
    host = socket.gethostname()
    worker_id = f"{config.name or host[:40]}-{secrets.token_hex(8)}"
    prefetch = Prefetch(config.slots, config.prefetch)
    metrics = Metrics(service.registry, config.slots)
    metrics.busy.set_function(lambda: prefetch.busy)
    with Workdir.open(Path(config.data), worker_id, config.slots) as workdir:
        async with decoder.open_pool(_pool_settings(config, workdir.path(""))) as pool:
            service.registry.register(DecoderRestarts(pool.restarts))

            def info() -> WorkerInfo:
                return WorkerInfo(
                    id=worker_id,
                    name=config.name or "",
                    host=host,
                    engine=pool.version,
                    slots=config.slots,
                    busy=prefetch.busy,
                    isolation=config.isolation,
                )

            leases = Leases(Client(master), info, config.lease_duration, metrics)
            outage = Outage(StorageClient(storage), pool)
            attempts = _attempts(config, pool, StorageClient(storage), workdir, prefetch, metrics, outage)
            assert service.discovery is not None, "without one, `needs` has ended the program"
            worker = Worker(leases, attempts, prefetch, service.discovery, workdir, outage, drain=config.drain)
            service.on_stop(worker.stop)
            async with worker.running():
                yield web.Application()


def _pool_settings(config: Config, directory: Path) -> decoder.Settings:
    if config.isolation == "thread" and config.sandbox == "require":
        settings.fail("Threads cannot be confined. Use --isolation process, or leave out --sandbox require.")
    return decoder.Settings(
        isolation=config.isolation,
        count=config.slots,
        memory_limit=config.memory_limit,
        sandbox=config.sandbox or ("prefer" if _on_this_machine_alone(config) else "require"),
        directory=directory,
    )


def _on_this_machine_alone(config: Config) -> bool:
    """Return whether this worker and its key-value stores are all on loopback addresses."""
    stores = [host_of(address) for address in (config.keyvaluestore or "").split(",")]
    return all(is_loopback(host) for host in (config.host, *stores))


def _attempts(
    config: Config,
    pool: decoder.DecoderPool,
    storage: StorageClient,
    workdir: Workdir,
    prefetch: Prefetch,
    metrics: Metrics,
    outage: Outage,
) -> Attempts:
    shared = SharedBlobs(storage)
    return Attempts(
        pool,
        storage,
        shared,
        Inputs(storage, shared, workdir),
        workdir,
        limits=_limits(config),
        time_limit=config.time_limit,
        threads=config.threads,
        prefetch=prefetch,
        metrics=metrics,
        outage=outage,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the service."""
    config = settings.load(Config, argv, section="worker", program="safelight worker")
    if config.check_sandbox:
        from safelight.worker.decoder.check import check_sandbox  # noqa: PLC0415 - starts processes; not all guests can

        raise SystemExit(check_sandbox(config.memory_limit))
    serve.run("worker", Config, build, loaded=config)


if __name__ == "__main__":
    main()
