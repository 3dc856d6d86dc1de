"""Storage in a bucket beside the directory and beside a bare loop of obstore.

    PYTHONPATH=tests python benchmarks/buckets.py

SeaweedFS is the server, on this machine. Everything runs in this process, without HTTP of ours: what is measured is
what the store adds to the requests that anybody would have to send. Rounds alternate; medians are printed.
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
from pathlib import Path

import obstore

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
    """Calls per second."""
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


async def main() -> None:
    print(PREDICTION)
    with tempfile.TemporaryDirectory() as place, seaweedfs(Path(place, "seaweedfs")) as server:
        os.environ.update(server.environment())
        bare, body = server.store(), bytearray(random.Random(1).randbytes(LARGE))

        def fresh(size: int) -> bytes:
            body[:16] = secrets.token_bytes(16)
            return bytes(body[:size])

        async def put(size: int, data: bytes | None = None) -> None:
            data = data or fresh(size)
            digest = hashlib.sha256(data).hexdigest()
            if size == LARGE:
                await obstore.put_async(bare, f"bare/{digest}", chunks(data), chunk_size=8 << 20, max_concurrency=2)
            else:
                await obstore.put_async(bare, f"bare/{digest}", data, mode="create")

        async with (
            BucketStore.at(server.url()) as bucket,
            DirectoryStore.at(Path(place, "directory")) as directory,
        ):
            known = fresh(SMALL)
            await put(SMALL, known)
            await directory.put(chunks(known))
            digest = (await bucket.put(chunks(known))).digest

            async def again() -> None:
                try:
                    await put(SMALL, known)
                except obstore.exceptions.AlreadyExistsError:
                    return

            async def get() -> None:
                assert len(await (await obstore.get_async(bare, f"bare/{digest}")).bytes_async()) == SMALL

            for clients in (1, 16):
                await compare(
                    "New blobs of 100 kB stored",
                    {
                        "bare obstore": lambda: put(SMALL),
                        "bucket": lambda: bucket.put(chunks(fresh(SMALL))),
                        "directory": lambda: directory.put(chunks(fresh(SMALL))),
                    },
                    clients,
                )
            await compare(
                "The same blob of 100 kB stored again",
                {
                    "bare obstore": again,
                    "bucket": lambda: bucket.put(chunks(known)),
                    "directory": lambda: directory.put(chunks(known)),
                },
                4,
            )
            await compare(
                "Blobs of 100 kB read",
                {
                    "bare obstore": get,
                    "bucket": lambda: read(bucket, digest),
                    "directory": lambda: read(directory, digest),
                },
                4,
            )
            await compare(
                "Blobs of 64 MiB stored",
                {
                    "bare obstore": lambda: put(LARGE),
                    "bucket": lambda: bucket.put(chunks(fresh(LARGE))),
                    "directory": lambda: directory.put(chunks(fresh(LARGE))),
                },
                1,
            )


if __name__ == "__main__":
    asyncio.run(main())
