"""Measure storage in a bucket beside storage in a directory and a bare loop of obstore.

    PYTHONPATH=tests python -m benchmarks.storage.buckets

The server is SeaweedFS on this machine. Everything else runs in this process, without our HTTP services, so the figures
show what the store adds to the requests that any program would have to send. Rounds alternate; the table shows medians.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.store import S3Store

from safelight.storage.bucket import BucketStore
from safelight.storage.directory import DirectoryStore
from safelight.storage.store import BlobStore
from support.servers.seaweedfs import seaweedfs

SMALL, LARGE = 100_000, 64 << 20
SECONDS, ROUNDS = 1.5, 5

PREDICTION = """\
Predicted before the first run, as a share of the bare loop: small blobs stored 0.8 (one request, as there, and a hop to
a thread that hashes); the same blob again 0.3 (the refused request, and three small ones); small blobs read 0.9; large
blobs stored 0.6 (a copy within the bucket, which the bare loop does not make)."""

Case = Callable[[], Awaitable[object]]


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1 << 18):
        yield data[start : start + (1 << 18)]


async def rate(case: Case, clients: int) -> float:
    """Return the calls per second."""
    end, done = time.monotonic() + SECONDS, itertools.count()

    async def client() -> None:
        while time.monotonic() < end:
            await case()
            next(done)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return next(done) / (time.monotonic() - began)


async def compare(title: str, cases: dict[str, Case], clients: int) -> None:
    figures: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            figures[name].append(await rate(case, clients))
    bare = statistics.median(figures["bare obstore"])
    print(f"\n{title}, {clients} at a time, per second")
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"  {name:14} {median:8.1f}   {median / bare:5.2f} of bare   ({min(values):.1f} to {max(values):.1f})")


async def read(store: BlobStore, digest: str) -> None:
    async with store.open(digest) as reading:
        assert sum([len(chunk) async for chunk in reading.chunks()]) == SMALL


class Bare:
    """Send obstore's own requests, which the stores are compared with."""

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._body = bytearray(random.Random(1).randbytes(LARGE))

    def fresh(self, size: int) -> bytes:
        """Return bytes that have not been stored before."""
        self._body[:16] = secrets.token_bytes(16)
        return bytes(self._body[:size])

    async def put(self, data: bytes) -> str:
        """Store bytes; return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        key = f"bare/{digest}"
        if len(data) == LARGE:
            await obstore.put_async(self._store, key, chunks(data), chunk_size=8 << 20, max_concurrency=2)
        else:
            with suppress(obstore.exceptions.AlreadyExistsError):
                await obstore.put_async(self._store, key, data, mode="create")
        return digest

    async def read(self, digest: str) -> None:
        """Read a small blob."""
        assert len(await (await obstore.get_async(self._store, f"bare/{digest}")).bytes_async()) == SMALL


async def compare_all(bare: Bare, bucket: BlobStore, directory: BlobStore) -> None:
    """Compare storing new blobs, known blobs and large blobs, and reading."""

    def storing(make: Callable[[], bytes]) -> dict[str, Case]:
        return {
            "bare obstore": lambda: bare.put(make()),
            "bucket": lambda: bucket.put(chunks(make())),
            "directory": lambda: directory.put(chunks(make())),
        }

    known = bare.fresh(SMALL)
    digest = await bare.put(known)
    for store in (bucket, directory):
        await store.put(chunks(known))
    for clients in (1, 16):
        await compare("New blobs of 100 kB stored", storing(lambda: bare.fresh(SMALL)), clients)
    await compare("The same blob of 100 kB stored again", storing(lambda: known), 4)
    reading: dict[str, Case] = {
        "bare obstore": lambda: bare.read(digest),
        "bucket": lambda: read(bucket, digest),
        "directory": lambda: read(directory, digest),
    }
    await compare("Blobs of 100 kB read", reading, 4)
    await compare("Blobs of 64 MiB stored", storing(lambda: bare.fresh(LARGE)), 1)


async def main() -> None:
    print(PREDICTION)
    with tempfile.TemporaryDirectory() as place, seaweedfs(Path(place, "seaweedfs")) as server:
        os.environ.update(server.environment())
        async with (
            BucketStore.at(server.url()) as bucket,
            DirectoryStore.at(Path(place, "directory")) as directory,
        ):
            await compare_all(Bare(server.store()), bucket, directory)


if __name__ == "__main__":
    asyncio.run(main())
