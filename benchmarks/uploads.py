"""What the services spend on an upload (`POST /task`), without any worker.

    python benchmarks/uploads.py [--megapixels 12] [--photos 40] [--beside TREE]

One photo after another, in three rounds that alternate with those of another checkout. Prints the processor time and
the context switches of all services for one photo.
"""

import argparse
import asyncio
import statistics
from contextlib import AsyncExitStack
from pathlib import Path

from photos import Variants, photos
from running import Running, system
from safelight.client.master import Client

ROUNDS = 3


async def spent(running: Running, client: Client, files: list[bytes]) -> tuple[float, float]:
    """Upload the photos; return the milliseconds and the context switches of the services for one."""
    before = running.costs()
    for data in files:
        await client.upload(data)
    costs = [cost.since(before[name]) for name, cost in running.costs().items() if name != "up"]
    return sum(cost.cpu for cost in costs) / len(files) * 1e3, sum(cost.switches for cost in costs) / len(files)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12.0)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--beside", type=Path, help="another checkout to run in the same rounds")
    options = parser.parse_args()
    variants = Variants(photos(options.megapixels, "JPEG"))
    figures: dict[str, list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        systems = {}
        for name, tree in {"safelight": None, **({"beside": options.beside} if options.beside else {})}.items():
            running = await stack.enter_async_context(system("--workers", "0", tree=tree))
            systems[name] = running, await stack.enter_async_context(Client.connect(running.master))
        for _ in range(1 + ROUNDS):
            for name, (running, client) in systems.items():
                figures.setdefault(name, []).append(await spent(running, client, variants.take(options.photos)))
    print("| | processor ms | each round | context switches |\n| --- | --- | --- | --- |")
    for name, rounds in figures.items():
        times = [time for time, _ in rounds[1:]]  # the first one warms up
        switches = statistics.median(count for _, count in rounds[1:])
        each = ", ".join(f"{time:.1f}" for time in times)
        print(f"| {name} | **{statistics.median(times):.1f}** | {each} | {switches:.0f} |")


if __name__ == "__main__":
    asyncio.run(main())
