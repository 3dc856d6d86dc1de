"""Measure how much time an idle system adds to the bare processing, from the end of an upload to the result.

    python -m benchmarks.pipeline.latency [--photos 40]

One photo is processed at a time. The clock starts when the client hands the last byte to the network, and stops when
the event says that the result is ready. In turn with it, this process runs the same recipe on the same bytes.
"""

import argparse
import asyncio
import statistics
import time

from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import running

from safelight import engine
from safelight.client.master import Client
from safelight.client.uploads import Upload
from safelight.recipe import BUILTIN
from safelight.wire import ENDED


async def through(client: Client, data: bytes, batch: str) -> float:
    """Return the seconds from the last byte of the upload to the event that ends its task."""
    sent = 0.0

    def progress(_: int) -> None:
        nonlocal sent
        sent = time.perf_counter()

    after = (await client.summary()).seq
    upload = asyncio.create_task(client.upload_many([Upload(source=data, progress=progress)], batch=batch))
    while True:
        page = await client.changes(after, wait=30.0)
        after = page.last
        if any(event.batch == batch and event.state in ENDED for event in page.events):
            ready = time.perf_counter()
            await upload
            return ready - sent


def bare(data: bytes) -> float:
    """Return the seconds that the processing alone takes."""
    start = time.perf_counter()
    engine.process(data, BUILTIN["invert"])
    return time.perf_counter() - start


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=40)
    options = parser.parse_args()
    engine.set_concurrency(1)
    print("| format | megapixels | bare processing, ms | upload's end to result, ms | added, ms | p90 | p99 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    async with running() as master, Client.connect(master) as client:
        for size, kind in [(0.25, "JPEG"), (2, "JPEG"), (2, "PNG")]:
            variants = Variants(photos(size, kind))
            await through(client, variants.take(1)[0], f"{kind}{size}-warm")
            alone, whole = [], []
            for number, data in enumerate(variants.take(options.photos)):
                alone.append(await asyncio.to_thread(bare, data) * 1e3)
                whole.append(await through(client, data, f"{kind}{size}-{number}") * 1e3)
            added = sorted(b - a for a, b in zip(alone, whole, strict=True))
            print(
                f"| {kind} | {size} | {statistics.median(alone):.1f} | {statistics.median(whole):.1f} | "
                f"**{statistics.median(added):.1f}** | {added[len(added) * 9 // 10]:.1f} | "
                f"{added[len(added) * 99 // 100]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
