"""Measure photos per second with 1 to 64 workers and 1 to 4 instances of each service, and with embedded backends.

    PYTHONPATH=tests python -m benchmarks.pipeline.growth [--workers 1,4,16,64] [--instances 1,2,4] [--seconds 5]
        [--work 0.25] [--photo 100000] [--runs 3]

Workers sleep for `--work` seconds per photo instead of decoding it, because there are fewer cores than workers. They
lease from any master and settle the photo itself as its result. Uploads, the db and events are real, but no worker
reads a photo. Photos, each different, are uploaded meanwhile, so that no worker waits for one. The table shows the
photos finished per second, the most that the workers could have finished, and the processor time that the services
took per photo. Where there are more instances than cores, the processor time indicates what more machines would gain.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from safelight.client.master import Client
from safelight.errors import Error
from safelight.wire import Finished, LeaseRequest, Output, WorkerInfo
from support.photos import photo
from support.programs.system import system
from support.servers.cluster import Cluster

_TICKS = os.sysconf("SC_CLK_TCK")
Pids = dict[str, int]
"""Process ids by the names of programs."""
Costs = dict[str, float]
"""Seconds of processor time by service."""


class Load:
    """Run sleeping workers, and the uploads that keep them busy."""

    def __init__(self, clients: list[Client], *, work: float, size: int) -> None:
        self._clients = itertools.cycle(clients)
        self._work = work
        self._size = size
        self.finished = 0
        self.uploaded = 0

    async def worker(self) -> None:
        """Lease photos, sleep and settle them, until cancelled."""
        info = WorkerInfo(id=secrets.token_hex(8), engine="sleeping")
        while True:
            try:
                leases = await next(self._clients).lease(LeaseRequest(worker=info, n=1, wait=10.0))
            except Error:
                continue
            for lease in leases:
                await asyncio.sleep(self._work)
                assert lease.input is not None
                made = Output(name="image", digest=lease.input.digest, size=lease.input.size, media_type="image/png")
                done = Finished(lease=lease.id, outputs=[made], engine="sleeping", seconds=self._work)
                await next(self._clients).settle([done])
                self.finished += 1

    async def uploads(self, ahead: int) -> None:
        """Upload photos until cancelled; pause while more than `ahead` of them are unfinished."""
        base = photo(1)
        while True:
            if self.uploaded - self.finished > ahead:
                await asyncio.sleep(0.02)
                continue
            self.uploaded += 1
            await next(self._clients).upload(base + os.urandom(self._size), filename="photo.png")


async def measure(clients: list[Client], pids: Pids, workers: int, given: argparse.Namespace) -> tuple[float, Costs]:
    """Return the photos finished per second, and the seconds of processor time that each service took per photo."""
    load = Load(clients, work=given.work, size=given.photo)
    tasks = [asyncio.create_task(load.worker()) for _ in range(workers)]
    tasks += [asyncio.create_task(load.uploads(2 * workers + 8)) for _ in range(8)]
    try:
        while load.finished < workers:
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in tasks), [task for task in tasks if task.done()]
        before, cost, start = load.finished, processor(pids), time.perf_counter()
        await asyncio.sleep(given.seconds)
        done, taken = load.finished - before, time.perf_counter() - start
        return done / taken, {name: (now - cost[name]) / max(1, done) for name, now in processor(pids).items()}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def processor(pids: Pids) -> Costs:
    """Return the seconds of processor time that the programs have used, by service."""
    total: Costs = {}
    for name, pid in pids.items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        kind = name.partition("-")[0]
        total[kind] = total.get(kind, 0.0) + (int(fields[11]) + int(fields[12])) / _TICKS
    return total


@asynccontextmanager
async def embedded(data: Path) -> AsyncIterator[tuple[list[Client], Pids]]:
    """Run the services in one process with their embedded backends; yield a client and the process ids."""
    async with system(data, together=True) as whole, Client.connect(whole.master) as client:
        yield [client], {name: program.process.pid for name, program in whole.running.items()}


@asynccontextmanager
async def distributed(data: Path, instances: int) -> AsyncIterator[tuple[list[Client], Pids]]:
    """Run `instances` of each service on PostgreSQL, etcd and SeaweedFS; yield a client per master and process ids."""
    counts = dict.fromkeys(("keyvaluestore", "db", "storage", "master"), instances)
    whole = Cluster(data, {**counts, "worker": 0}, {})
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, whole.postgres.directory, ignore_errors=True)
        stack.push_async_callback(whole.close)
        await whole.open()
        clients = [
            await stack.enter_async_context(Client.connect(address)) for address in whole.addresses("master").split(",")
        ]
        yield clients, {name: process.pid for name, process in whole.running.items()}


async def run(given: argparse.Namespace) -> None:
    workers = [int(each) for each in given.workers.split(",")]
    systems: list[tuple[str, int]] = [("embedded", 1)]
    systems += [("distributed", int(each)) for each in given.instances.split(",")]
    print("| backends | of each service | workers | photos/s, median | at most | processor ms a photo |")
    print("| --- " * 6 + "|")
    for kind, instances in systems:
        with tempfile.TemporaryDirectory(prefix="safelight-benchmark-") as place:
            opened = embedded(Path(place)) if kind == "embedded" else distributed(Path(place), instances)
            async with opened as (clients, pids):
                for count in workers:
                    found = [await measure(clients, pids, count, given) for _ in range(given.runs)]
                    rate = statistics.median(rate for rate, _ in found)
                    costs = {kind: statistics.median(cost[kind] for _, cost in found) * 1000 for kind in found[0][1]}
                    cost = ", ".join(f"{name} {cost:.1f}" for name, cost in costs.items())
                    cost = f"{sum(costs.values()):.1f} ({cost})"
                    most = count / given.work
                    print(f"| {kind} | {instances} | {count} | {rate:.1f} | {most:.0f} | {cost} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", default="1,4,16,64")
    parser.add_argument("--instances", default="1,2,4")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--work", type=float, default=0.25, help="seconds that a worker sleeps for a photo")
    parser.add_argument("--photo", type=int, default=100_000, help="bytes of a photo")
    parser.add_argument("--runs", type=int, default=3)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
