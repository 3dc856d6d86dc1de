"""Measure photos per second from the first upload to the last result, beside bare loops of the same recipe.

    python -m benchmarks.pipeline [--rounds 5] [--seconds 6] [--only JPEG,0.25] [--noise 3] [--beside TREE]
        [--distributed]

All systems process the same files with the recipe `invert` on the same cores. The bare loops run one process per core;
each process reads a file, processes it and writes the result. `vips` uses pyvips. `turbo` uses libjpeg-turbo, the
fastest known library for JPEG. For safelight, the Python client uploads the photos from this process, and the clock
stops when the last result can be downloaded. `--beside` runs another checkout of safelight in the same rounds.
`--distributed` also runs one of each service and a worker on PostgreSQL, etcd and SeaweedFS (with PYTHONPATH=tests).
The order of the systems alternates between rounds. The first table shows medians and the spread of the ratios. The
second shows what one photo costs each program of a system that is not distributed.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.support.cost import Cost
from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import OnServers, Running, on_servers, system

from safelight.client.master import Client
from safelight.client.requests.uploads import Upload
from safelight.wire import ENDED, State

CASES = [(size, kind) for kind in ("JPEG", "PNG") for size in (0.25, 2, 12)]
CORES = len(os.sched_getaffinity(0))


class Bare:
    """Run a bare loop in one process per core."""

    def __init__(self, library: str, directory: Path) -> None:
        self._library = library
        self._source, self._target = directory / "source", directory / "target"
        self._source.mkdir(parents=True)
        self._target.mkdir()
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        script = Path(__file__).with_name("bare.py")
        for _ in range(CORES):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(script), self._library, str(self._source), str(self._target),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            self._processes.append(process)

    async def stop(self) -> None:
        for process in self._processes:
            process.stdin.close()
            await process.wait()

    async def run(self, files: list[bytes]) -> float:
        """Write the files to disk, then process them; return the seconds that the processing took."""
        names = [f"{number}.photo" for number in range(len(files))]
        for name, data in zip(names, files, strict=True):
            (self._source / name).write_bytes(data)
        waiting = iter(names)
        start = time.perf_counter()
        await asyncio.gather(*(self._feed(process, waiting) for process in self._processes))
        return time.perf_counter() - start

    async def _feed(self, process: asyncio.subprocess.Process, names: Iterator[str]) -> None:
        for name in names:
            process.stdin.write(f"{name}\n".encode())
            assert await process.stdout.readline() == b"done\n"


class Ours:
    """Run photos through a running system. `spent` holds, for each round, what the photos cost each program."""

    def __init__(self, running: Running | OnServers, client: Client) -> None:
        self._running = running
        self._client = client
        self.spent: list[dict[str, Cost]] = []

    async def run(self, files: list[bytes], batch: str, recipe: str | None = None) -> float:
        """Upload the files and wait for all results; return the seconds taken."""
        after = (await self._client.summary()).seq
        before, processor = self._running.costs(), time.process_time()
        start = time.perf_counter()
        ended = asyncio.create_task(self._all_ended(after, batch, len(files)))
        waiting = iter([files[i : i + 4] for i in range(0, len(files), 4)])
        await asyncio.gather(*(self._upload(waiting, batch, recipe) for _ in range(2)))
        await ended
        taken = time.perf_counter() - start
        spent = {name: cost.since(before.get(name, Cost())) for name, cost in self._running.costs().items()}
        spent["client"] = Cost(cpu=time.process_time() - processor)
        self.spent.append(spent)
        return taken

    async def _upload(self, groups: Iterator[list[bytes]], batch: str, recipe: str | None) -> None:
        for group in groups:
            uploads = [Upload(source=data) for data in group]
            for answer in await self._client.upload_many(uploads, recipe=recipe, batch=batch):
                assert answer.task is not None, answer.problem

    async def _all_ended(self, after: int, batch: str, n: int) -> None:
        while n:
            page = await self._client.changes(after, wait=30.0)
            after = page.last
            for event in page.events:
                if event.batch == batch and event.state in ENDED:
                    assert event.state is State.FINISHED, event
                    n -= 1


class Case:
    """Measure one size and format in alternating rounds."""

    def __init__(self, bare: dict[str, Bare], ours: dict[str, Ours], size: float, kind: str, noise: float) -> None:
        self._bare = bare if kind == "JPEG" else {"vips": bare["vips"]}
        self._ours = ours
        self._size, self._kind = size, kind
        self._originals = photos(size, kind, noise=noise)
        self._variants = Variants(self._originals)
        self._n = 0
        self._rates: dict[str, list[float]] = {}

    async def measure(self, rounds: int, seconds: float) -> None:
        for each in self._bare.values():
            await each.run(self._variants.take(CORES * 2))
        taken = await self._bare["vips"].run(self._variants.take(CORES * 2))
        self._n = max(8, round(seconds * CORES * 2 / taken))
        for name, each in self._ours.items():
            await each.run(self._variants.take(CORES * 4), f"{self._kind}-{self._size}-{name}-warm")
            each.spent.clear()
        for number in range(rounds):
            order = [*self._bare, *self._ours]
            for name in order if number % 2 == 0 else reversed(order):
                files = self._variants.take(self._n)
                if name in self._bare:
                    seconds = await self._bare[name].run(files)
                else:
                    seconds = await self._ours[name].run(files, f"{self._kind}-{self._size}-{number}-{name}")
                self._rates.setdefault(name, []).append(self._n / seconds)

    def row(self, name: str) -> str:
        """Return the row of a system in the first table."""
        weight = statistics.mean(map(len, self._originals)) / 1e6
        rates = self._rates
        cells = [
            self._kind,
            f"{self._size}",
            f"{weight:.2f}",
            f"{self._n}",
            name,
            f"{statistics.median(rates[name]):.1f}",
        ]
        for beside in ("vips", "turbo"):
            if beside not in rates:
                cells += ["", "", ""]
                continue
            ratios = [a / b for a, b in zip(rates[name], rates[beside], strict=True)]
            cells += [
                f"{statistics.median(rates[beside]):.1f}",
                f"**{statistics.median(ratios):.2f}**",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        return f"| {' | '.join(cells)} |"

    def costs(self, name: str) -> list[str]:
        """Return the rows of a system in the second table."""
        spent = self._ours[name].spent
        rows = []
        sums = [0.0, 0.0, 0.0, 0.0]
        for program in spent[0]:
            each = [round_[program] for round_ in spent if program in round_]
            values = [
                statistics.median(cost.cpu for cost in each) / self._n * 1e3,
                statistics.median(cost.flushes for cost in each) / self._n,
                statistics.median(cost.switches for cost in each) / self._n,
                statistics.median(cost.memory for cost in each) / 1e6,
            ]
            sums = [a + b for a, b in zip(sums, values, strict=True)]
            rows.append(self._cost_row(name, program, values))
        return [*rows, self._cost_row(name, "**all**", sums)]

    def _cost_row(self, name: str, program: str, values: list[float]) -> str:
        cpu, flushes, switches, memory = values
        return (
            f"| {self._kind} | {self._size} | {name} | {program} | {cpu:.2f} | {flushes:.2f} | {switches:.1f} "
            f"| {memory:.0f} |"
        )


def chosen(only: str) -> list[tuple[float, str]]:
    """Return the pairs of size (in megapixels) and format that `only` names; an empty `only` selects all."""
    names = set(only.split(",")) - {""}
    kinds, sizes = names & {"JPEG", "PNG"}, names - {"JPEG", "PNG"}
    return [(size, kind) for size, kind in CASES if kind in (kinds or {kind}) and str(size) in (sizes or {str(size)})]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of a round of the bare loop")
    parser.add_argument("--only", default="", help="formats and sizes, separated by commas")
    parser.add_argument("--noise", type=float, default=3.0, help="noise of the photos, in levels of 256 (0: smooth)")
    parser.add_argument("--beside", type=Path, help="another checkout to run in the same rounds")
    parser.add_argument("--distributed", action="store_true", help="also measure the distributed backends")
    parser.add_argument("up", nargs="*", help="further arguments for safelight up, after --")
    options = parser.parse_args()
    load = " / ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{CORES} cores, {options.rounds} alternating rounds, noise {options.noise:g}, load before {load}\n")
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="safelight-benchmark-")))
        bare = {name: Bare(name, directory / name) for name in ("vips", "turbo")}
        for each in bare.values():
            await each.start()
            stack.push_async_callback(each.stop)
        ours = {}
        for name, tree in {"safelight": None, **({"beside": options.beside} if options.beside else {})}.items():
            started = await stack.enter_async_context(system(*(options.up if tree is None else []), tree=tree))
            ours[name] = Ours(started, await stack.enter_async_context(Client.connect(started.master)))
        if options.distributed:
            started = await stack.enter_async_context(on_servers(directory / "cluster"))
            ours["distributed"] = Ours(started, await stack.enter_async_context(Client.connect(started.master)))
        cases = [Case(bare, ours, size, kind, options.noise) for size, kind in chosen(options.only)]
        print("| format | MP | MB | n | | photos/s | vips | ratio | each round | turbo | ratio | each round |")
        print("| --- " * 12 + "|")
        costs = []
        for case in cases:
            await case.measure(options.rounds, options.seconds)
            for name in ours:
                print(case.row(name), flush=True)
                costs += case.costs(name) if name != "distributed" else []
        print("\n| format | MP | | program | processor ms a photo | flushes | context switches | MB at the end |")
        print("| --- " * 8 + "|")
        print("\n".join(costs), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
