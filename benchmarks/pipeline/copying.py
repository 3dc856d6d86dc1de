"""Measure the services alone: photos per second and processor time, with decoders that only copy.

    python -m benchmarks.pipeline.copying [--rounds 3] [--photos 1500] [--clients 2]

`--clients` processes upload photos of 0.25 megapixels, all different: first to services in one process, and then to
services in separate processes, with one, two and four masters. The worker is the real one, but its decoders return the
photo with a few bytes appended, so the services take nearly all of the time. A process uses about one core. A thousand
divided by the milliseconds that a photo costs the busiest process is therefore the rate that these services allow on a
machine with a core for each process. (Of several masters, the average counts.) Compare this figure. The measured rate
is limited by the cores of this machine, which the clients and the worker use too.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Self

from benchmarks.support.photos import Variants, photos
from benchmarks.support.running import system

from safelight import engine
from safelight.client.master import Client
from safelight.client.requests.uploads import Upload
from safelight.wire import ENDED, State
from safelight.worker import __main__ as worker
from safelight.worker import decoder

_PROBE = engine.Probe(
    format="jpeg", width=577, height=433, frames=1, mode="srgb", bands=3, bits=8, has_alpha=False, has_profile=False,
    orientation=1, progressive=False,
)  # fmt: skip
_FORMS = {
    "in one process": [],
    "separate": ["--separate"],
    "separate, two masters": ["--masters", "2"],
    "separate, four masters": ["--masters", "4"],
}
_TOGETHER = 4
"""How many photos a client sends in one request."""


class Copying:
    """Stand in for a `DecoderPool`: return each photo with a few bytes appended, without decoding it."""

    count, version, protections, restarts = 2, "copies", (), Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def process(self, job: decoder.Job) -> decoder.Result:
        data = (job.source if isinstance(job.source, bytes) else job.source.read_bytes()) + secrets.token_bytes(8)
        made = engine.Output(
            name="image", data=data, format="jpeg", media_type="image/jpeg", extension="jpg", width=577, height=433,
            frames=1,
        )  # fmt: skip
        return decoder.Result(outputs=[made], original=_PROBE, seconds=0.001, peak_memory=None)


def run_worker(keyvaluestore: str, key: str, data: str) -> None:
    decoder.open_pool = lambda _: Copying()  # type: ignore[assignment]
    worker.main([keyvaluestore, "--cluster-key-file", key, "--data", data, "--log-level", "error"])


async def run_client(master: str, part: int, n: int) -> None:
    """Make photos, print `ready`, wait for a line on standard input, and upload the photos over four connections."""
    variants = Variants(photos(0.25, "JPEG"))
    variants.take(part * n)
    files = variants.take(n)
    print("ready", flush=True)
    sys.stdin.readline()
    groups = iter([files[i : i + _TOGETHER] for i in range(0, n, _TOGETHER)])

    async def upload() -> None:
        async with Client.connect(master) as client:
            for group in groups:
                for answer in await client.upload_many([Upload(source=data) for data in group]):
                    assert answer.task is not None, answer.problem

    await asyncio.gather(*(upload() for _ in range(4)))
    print("done", flush=True)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        await process.wait()


class Measured:
    """Run a system in one of the forms, and keep the figures of its rounds."""

    def __init__(self, stack: AsyncExitStack, name: str, argv: list[str], clients: int, photos: int) -> None:
        self._stack = stack
        self.name = name
        self._argv = argv
        self._masters = int(argv[1]) if "--masters" in argv else 1
        self._most = ""
        self._clients = clients
        self._photos = photos
        self._round = 0
        self.rates: list[float] = []
        self.all: list[float] = []
        self.busiest: list[float] = []

    async def start(self) -> None:
        self._system = await self._stack.enter_async_context(system("--workers", "0", *self._argv))
        where = self._system.where
        key, data = f"{self._system.data}/cluster.key", f"{self._system.data}/copying"
        await self._run("worker", where["keyvaluestore"], key, data)
        self._client = await self._stack.enter_async_context(Client.connect(self._system.master))

    async def _run(self, *argv: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.pipeline.copying", *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stack.push_async_callback(_end, process)
        return process

    async def measure(self) -> None:
        n = self._photos // self._clients
        parts = range(self._round * self._clients, (self._round + 1) * self._clients)
        self._round += 1
        clients = [await self._run("client", self._system.master, str(part), str(n)) for part in parts]
        for client in clients:
            assert await client.stdout.readline() == b"ready\n"
        after = (await self._client.summary()).seq
        before, start = self._system.costs(), time.perf_counter()
        for client in clients:
            client.stdin.write(b"go\n")
        await self._ended(after, n * self._clients)
        taken = time.perf_counter() - start
        spent = {name: cost.since(before[name]).cpu for name, cost in self._system.costs().items()}
        for client in clients:
            assert await client.wait() == 0
        count = n * self._clients
        self.rates.append(count / taken)
        self.all.append(sum(spent.values()) / count * 1e3)
        if "master" in spent:
            spent["master"] /= self._masters
        self._most = max(spent, key=lambda name: spent[name])
        self.busiest.append(spent[self._most] / count * 1e3)

    async def _ended(self, after: int, n: int) -> None:
        while n:
            page = await self._client.changes(after, wait=30.0)
            after = page.last
            for event in page.events:
                assert event.state not in ENDED or event.state is State.FINISHED, event
                n -= event.state is State.FINISHED

    def row(self) -> str:
        rate, every, busiest = (statistics.median(each) for each in (self.rates, self.all, self.busiest))
        spread = f"{min(self.busiest):.2f} to {max(self.busiest):.2f}"
        most = f"{busiest:.2f}, {self._most}"
        return f"| {self.name} | {rate:.0f} | {every:.2f} | {most} | {spread} | **{1e3 / busiest:.0f}** |"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=1500, help="photos in a round")
    parser.add_argument("--clients", type=int, default=2, help="how many processes upload")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load before {os.getloadavg()[0]:.1f}\n")
    async with AsyncExitStack() as stack:
        systems = [Measured(stack, *form, options.clients, options.photos) for form in _FORMS.items()]
        for each in systems:
            await each.start()
        for number in range(options.rounds + 1):
            for each in systems if number % 2 == 0 else reversed(systems):
                await each.measure()
        print(
            "| services | photos/s | ms of all services | ms of the busiest process | each round | photos/s it allows |"
        )
        print("| --- " * 6 + "|")
        for each in systems:
            del each.rates[0], each.all[0], each.busiest[0]  # the first round warms up
            print(each.row(), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worker", keyvaluestore, key, data]:
            run_worker(keyvaluestore, key, data)
        case ["client", master, part, n]:
            asyncio.run(run_client(master, int(part), int(n)))
        case _:
            asyncio.run(main())
