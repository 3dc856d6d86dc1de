"""Measure how much time an idle system adds to the bare processing, from the end of an upload to the result.

    python -m benchmarks.pipeline.latency [--photos 40] [--beside TREE]

One photo is processed at a time. The clock starts when the client hands the last byte to the network, and stops when
the event says that the result is ready. In turn with it, this process runs the same recipe on the same bytes. With
`--beside`, a system from another tree takes its turns too.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import system

from safelight import engine
from safelight.client.master import Client
from safelight.client.requests.uploads import Upload
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
    parser.add_argument("--beside", type=Path, metavar="TREE")
    options = parser.parse_args()
    engine.set_concurrency(1)
    trees = {"here": None} | ({} if options.beside is None else {"beside": options.beside})
    print("| format | megapixels | system | bare processing, ms | upload's end to result, ms | added, ms | p90 | p99 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    async with AsyncExitStack() as stack:
        clients = {}
        for name, tree in trees.items():
            running = await stack.enter_async_context(system(tree=tree))
            clients[name] = await stack.enter_async_context(Client.connect(running.master))
        for size, kind in [(0.25, "JPEG"), (2, "JPEG"), (2, "PNG")]:
            variants = Variants(photos(size, kind))
            alone: list[float] = []
            whole: dict[str, list[float]] = {name: [] for name in clients}
            for number in range(-1, options.photos):  # the first only warms up
                data = variants.take(1)[0]
                taken = await asyncio.to_thread(bare, data) * 1e3
                alone += [taken] if number >= 0 else []
                order = list(clients) if number % 2 else list(clients)[::-1]
                for name in order:
                    taken = await through(clients[name], data, f"{kind}{size}-{number}") * 1e3
                    whole[name] += [taken] if number >= 0 else []
            for name, times in whole.items():
                row(f"| {kind} | {size} | {name}", alone, times)


def row(head: str, alone: list[float], whole: list[float]) -> None:
    """Print a row of the table."""
    added = sorted(b - a for a, b in zip(alone, whole, strict=True))
    print(
        f"{head} | {statistics.median(alone):.1f} | {statistics.median(whole):.1f} | "
        f"**{statistics.median(added):.1f}** | {added[len(added) * 9 // 10]:.1f} | "
        f"{added[len(added) * 99 // 100]:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    asyncio.run(main())
