"""Measure the collection of 10^5 unreferenced blobs while other blobs are stored.

    python -m benchmarks.storage.collecting [--blobs 100000]

The blobs are files of a few bytes, made without a flush before the clock starts. During the collection, the same
process stores one blob of 100 kB every 20 ms. It also does so before, without a collection. The program prints the
seconds that the collection takes, and the median and the 99th percentile of the puts in both cases.
"""

import argparse
import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from safelight.storage.directory import DirectoryStore
from safelight.storage.maintenance.collector import Collector
from safelight.wire import Reference

_PUT = 100_000
_PAUSE = 0.02
_ALONE = 3.0


def fill(root: Path, count: int) -> None:
    """Make blobs that appear to have been stored long ago."""
    for number in range(count):
        data = b"blob %d" % number
        digest = hashlib.sha256(data).hexdigest()
        path = root / "blobs" / digest[:2] / digest
        path.write_bytes(data)
        os.utime(path, (1e9, 1e9))


async def none() -> AsyncIterator[Reference]:
    """Yield the references of a db without tasks: none."""
    yield Reference(digests=[], names=[])


async def chunks() -> AsyncIterator[bytes]:
    yield os.urandom(_PUT)


async def puts(store: DirectoryStore, stop: asyncio.Event) -> list[float]:
    """Store blobs until asked to stop; return the milliseconds that each put took."""
    taken = []
    while not stop.is_set():
        start = time.perf_counter()
        await store.put(chunks())
        taken.append((time.perf_counter() - start) * 1e3)
        await asyncio.sleep(_PAUSE)
    return sorted(taken)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=100_000)
    count = parser.parse_args().blobs
    with tempfile.TemporaryDirectory(prefix="safelight-benchmark-") as directory:
        root = Path(directory)
        async with DirectoryStore.at(root / "store") as store:
            await asyncio.to_thread(fill, root / "store", count)
            alone, stop = [], asyncio.Event()
            storing = asyncio.create_task(puts(store, stop))
            await asyncio.sleep(_ALONE)
            stop.set()
            alone = await storing
            collector = Collector(store, none, grace=60.0, known_db=root / "db", ages=_Now())
            stop = asyncio.Event()
            storing = asyncio.create_task(puts(store, stop))
            start = time.perf_counter()
            collected = await collector.collect()
            taken = time.perf_counter() - start
            stop.set()
            beside = await storing
    assert collected.removed == count, collected
    print("| blobs collected | seconds | put alone, median, ms | p99 | put beside it, median, ms | p99 |")
    print("| --- " * 6 + "|")
    cells = [f"{value:.1f}" for times in (alone, beside) for value in (times[len(times) // 2], _last_percent(times))]
    print(f"| {count} | **{taken:.1f}** | {' | '.join(cells)} |")


class _Now:
    """Judge the age of blobs without a second check a day later: the blobs of this program are as old as they claim."""

    def before(self, _name: str, keep: float) -> float:
        return time.time() - keep


def _last_percent(times: list[float]) -> float:
    return times[min(len(times) - 1, len(times) * 99 // 100)]


if __name__ == "__main__":
    asyncio.run(main())
