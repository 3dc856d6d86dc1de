"""Compare safelight with alternatives: Celery with Redis, Procrastinate with PostgreSQL, thumbor, sharp.

    benchmarks/peers/environment DIRECTORY
    PYTHONPATH=tests python -m benchmarks.peers DIRECTORY [--rounds 3] [--seconds 4] [--only queue,photos,…]

All systems keep everything that they acknowledge: Redis appends each command to its log and flushes it, PostgreSQL runs
with fsync, and the photos and results of Celery's tasks are flushed as safelight flushes its own. All use the same
cores and the same photos, in rounds of alternating order. The table shows medians, and the ratio of each round.

- `queue`: durable tasks that do nothing, from creation to end. safelight is used over HTTP from 32 clients one at a
time
  and from 6 clients in batches of 100; Celery from 4 threads, with a worker process per core; Procrastinate with one
  worker.
- `photos`: JPEG of 0.25 and 2 megapixels with the recipe `invert`, from the first upload to the last result.
- `thumbor`: a server process per core that reads files and stores its results, with the outputs of `thumbnail` and
`web`.
- `sharp`: the outputs of `thumbnail` and `web` from 12 megapixels, in one process that only reads and writes files.
"""

import argparse
import asyncio
import os
import runpy
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.peers import alternatives
from benchmarks.pipeline.__main__ import CORES, Ours
from benchmarks.queue.peers import procrastinate
from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import system

from safelight.client.master import Client
from support.servers import postgres

Measure = Callable[[int], Awaitable[float]]
"""A function that runs round N and returns the number of items per second."""
SECTIONS = ("queue", "photos", "thumbor", "sharp")
_QUEUE = Path(__file__).parents[1] / "queue" / "__main__.py"


class Table:
    """A table of systems that are measured in alternating rounds."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        print("| | safelight / s | beside | of it / s | ratio | each round |\n| --- | --- | --- | --- | --- | --- |")

    async def compare(self, name: str, ours: Measure, beside: dict[str, Measure]) -> None:
        measures = {"safelight": ours, **beside}
        rates: dict[str, list[float]] = {each: [] for each in measures}
        for number in range(self._rounds):
            for each in list(measures)[:: -1 if number % 2 else 1]:
                rates[each].append(await measures[each](number))
                print(f"{name}, {each}: {rates[each][-1]:.1f} / s", file=sys.stderr)
        own = rates.pop("safelight")
        for each, found in rates.items():
            ratios = [a / b for a, b in zip(own, found, strict=True)]
            cells = [name, f"{statistics.median(own):.1f}", each, f"{statistics.median(found):.1f}"]
            cells += [f"**{statistics.median(ratios):.2f}**", ", ".join(f"{ratio:.2f}" for ratio in ratios)]
            print(f"| {' | '.join(cells)} |", flush=True)


async def queue(table: Table, peers: Path, seconds: float) -> None:
    own = runpy.run_path(str(_QUEUE))["over_http"]  # the file's name is that of a standard module
    with tempfile.TemporaryDirectory(prefix="safelight-peers-") as directory:
        broker, server = alternatives.celery(peers), postgres.server(fsync=True)
        async with broker as celery:
            with server as database:
                url = await database.empty()

                async def safelight(batch: int, clients: int, number: int) -> float:
                    return (await own(Path(directory, f"{batch}-{number}.sqlite"), batch, clients, seconds))[0]

                for batch, clients in ((1, 32), (100, 6)):
                    beside = {"Celery + Redis": lambda _: celery.tasks(seconds)} if batch == 1 else {}
                    beside["Procrastinate + PostgreSQL"] = lambda _, batch=batch: procrastinate(
                        str(peers / "bin" / "python"), url, batch=batch, jobs=32, seconds=seconds
                    )
                    name = f"tasks, {clients} clients, batches of {batch}"
                    await table.compare(name, lambda n, b=batch, c=clients: safelight(b, c, n), beside)


@asynccontextmanager
async def running() -> AsyncIterator[Ours]:
    async with system() as found, Client.connect(found.master) as client:
        yield Ours(found, client)


async def with_photos(table: Table, peers: Path, seconds: float) -> None:
    async with running() as safelight, alternatives.celery(peers) as celery:
        for size in (0.25, 2):
            variants = Variants(photos(size, "JPEG"))
            n = max(16, round(seconds * 50 / size**0.7))
            await safelight.run(variants.take(16), f"warm-{size}")
            await celery.photos(variants.take(16))

            async def ours(number: int, size: float = size, n: int = n, variants: Variants = variants) -> float:
                return n / await safelight.run(variants.take(n), f"{size}-{number}")

            beside = {"Celery + Redis": lambda _, v=variants, n=n: celery.photos(v.take(n))}
            await table.compare(f"photos of {size} MP, `invert`", ours, beside)


async def recipes(table: Table, seconds: float, size: float, name: str, other: alternatives.Outputs) -> None:
    """Compare the outputs of two recipes."""
    async with running() as safelight:
        variants = Variants(photos(size, "JPEG"))
        for recipe, rate in (("thumbnail", 60), ("web", 8)):
            n = max(CORES * 4, round(seconds * rate / size**0.5))
            await safelight.run(variants.take(CORES * 2), f"warm-{recipe}", recipe)

            async def ours(number: int, n: int = n, recipe: str = recipe) -> float:
                return n / await safelight.run(variants.take(n), f"{recipe}-{number}", recipe)

            beside = {name: lambda _, n=n, recipe=recipe: other(variants.take(n), recipe)}
            await table.compare(f"photos of {size} MP, `{recipe}`", ours, beside)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "peers", type=Path, metavar="DIRECTORY", help="the directory that benchmarks/peers/environment made"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="the approximate duration of a round")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    given = parser.parse_args()
    peers, only = given.peers.resolve(), set(given.only.split(","))
    load = " / ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{CORES} cores, {given.rounds} alternating rounds, load before {load}\n")
    table = Table(given.rounds)
    if "queue" in only:
        await queue(table, peers, given.seconds)
    if "photos" in only:
        await with_photos(table, peers, given.seconds)
    async with AsyncExitStack() as stack:
        if "thumbor" in only:
            thumbor = await stack.enter_async_context(alternatives.thumbor(peers))
            await recipes(table, given.seconds, 2, "thumbor", thumbor)
    if "sharp" in only:
        await recipes(table, given.seconds, 12, "sharp", alternatives.sharp(peers))


if __name__ == "__main__":
    asyncio.run(main())
