"""The whole system under load for a long time, while programs are killed and frozen and the network is cut, at random.

    PYTHONPATH=tests python benchmarks/soak.py [--minutes 10] [--seed N] [--calm 20]

Each program has a network namespace of its own (this needs root); a cut drops packets in silence. Clients upload all
the time; what they and every reader are told is judged at the end by the rules of tests/kills/history.py. Nothing may
be lost or published twice, no task may stay in quarantine for what happened to its worker, and at a calm moment memory
and descriptors must be what they were after the first third, from which on nothing is killed any more. Prints one row
for each minute; exits with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from kills.clients import seen_all, settled, upload_until, watch
from kills.history import History
from kills.readers import follow_stream, webhooks
from safelight.client.master import Client
from safelight.wire import State
from support.photos import is_inverse, photo
from support.servers.places import Namespaces, namespaces
from support.system import SERVICES, System, system
from support.until import until

LEASE = 3.0
LONGEST = 2.5 * LEASE
"""Seconds for which something is frozen or cut off at most."""
WORKERS = ("worker-0", "worker-1")
PAIRS = [
    *((worker, service) for worker in WORKERS for service in ("master", "storage", "keyvaluestore")),
    *(("master", service) for service in ("db", "storage", "keyvaluestore")),
    ("storage", "db"),
    (Namespaces.CLIENT, "master"),
]
SETTINGS = {
    "worker": ["--lease-duration", f"{LEASE:g}", "--slots", "1"],
    "master": ["--webhook-allow-private", "--webhook-retry", "1s"],
}
CLIENTS, PAUSE = 3, 0.2
MEMORY = {"db": 24 + 64}
"""How many MiB a program may have more at the end than after the first third; db fills a cache of 64 MiB."""
DESCRIPTORS = {"storage": 24 + 256}
"""The same of descriptors; storage keeps its 256 directories of blobs open once it has used them."""
MORE = 48
"""What the others may have more: connections of the moment, for instance."""


@dataclass(frozen=True)
class Sample:
    """What a program takes: MiB, and descriptors."""

    memory: float
    descriptors: int


def sample(pid: int) -> Sample:
    """Measure a program."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(1 for _ in os.scandir(f"/proc/{pid}/fd")))


class Soak:
    """One run."""

    def __init__(self, whole: System, places: Namespaces, client: Client, seed: int, calm: float) -> None:
        self._whole = whole
        self._places = places
        self._client = client
        self._chance = random.Random(seed)
        self._calm = calm
        self.history = History(lambda number, result: is_inverse(photo(number), result))
        self.counts = {"kill": 0, "freeze": 0, "cut": 0}
        self.killed_workers = 0
        self.recoveries: list[float] = []

    async def run(self, minutes: float, url: str) -> list[str]:
        """Load and disturb the system. Return what went wrong."""
        begun, seconds = time.monotonic(), minutes * 60
        print(f"{'minute':>6} {'uploads':>8} {'kills':>6} {'freezes':>8} {'cuts':>5} {'longest gap':>12}", flush=True)
        stop, numbers = asyncio.Event(), itertools.count()
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession())
            watcher = asyncio.create_task(watch(self._client, self.history))
            stream = asyncio.create_task(follow_stream(http, f"http://{self._whole.master}", self.history))
            uploads = [
                asyncio.create_task(upload_until(stop, self._client, self.history, numbers, webhook=url, pause=PAUSE))
                for _ in range(CLIENTS)
            ]
            await self._disturb(begun + seconds / 3, kills=True, begun=begun)
            before = await self._take_samples()
            await self._disturb(begun + seconds, kills=False, begun=begun)
            after = await self._take_samples()
            stop.set()
            await asyncio.gather(*uploads)
            await settled(self._client, self.history)
            await seen_all(watcher, self.history)
            await self._readers_are_done()
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
        return [*self.history.violations(), *self._blamed(), *_grown(before, after)]

    async def _disturb(self, until: float, *, kills: bool, begun: float) -> None:
        """Do one thing after another until a time, each followed by new uploads."""
        minute = 0
        kinds = itertools.cycle(["kill", "freeze", "cut"] if kills else ["freeze", "cut"])
        while time.monotonic() < until:
            kind = next(kinds)
            await getattr(self, f"_{kind}")()
            self.counts[kind] += 1
            healed = time.monotonic()
            await self._more(2 * CLIENTS)
            self.recoveries.append(time.monotonic() - healed)
            if (passed := int((time.monotonic() - begun) / 60)) > minute:
                minute = passed
                self._report(minute)

    def _report(self, minute: int) -> None:
        done = len(self.history.acknowledged)
        kills, freezes, cuts = self.counts.values()
        print(f"{minute:6} {done:8} {kills:6} {freezes:8} {cuts:5} {max(self.recoveries):10.1f} s", flush=True)

    async def _kill(self) -> None:
        victim = self._chance.choice([*SERVICES, *WORKERS])
        self.killed_workers += victim in WORKERS
        await self._whole.kill(victim)
        await self._whole.start(victim)

    async def _freeze(self) -> None:
        """Suspend one program or several, all of them now and then."""
        everything = [*SERVICES, *WORKERS]
        victims = self._chance.sample(everything, self._chance.choice([1, 1, 1, 2, len(everything)]))
        for victim in victims:
            self._whole.running[victim].send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.5, LONGEST))
        for victim in victims:
            self._whole.running[victim].send(signal.SIGCONT)

    async def _cut(self) -> None:
        pairs = self._chance.sample(PAIRS, self._chance.choice([1, 1, 2, 3]))
        for pair in pairs:
            self._places.cut(*pair)
        await asyncio.sleep(self._chance.uniform(0.5, LONGEST))
        for pair in pairs:
            self._places.heal(*pair)

    async def _more(self, count: int) -> None:
        """Wait for so many more acknowledged uploads."""
        enough = len(self.history.acknowledged) + count
        await until(lambda: len(self.history.acknowledged) >= enough, timeout=90)

    async def _take_samples(self) -> dict[str, Sample]:
        """Measure every program once its memory has settled after the last fault."""
        await asyncio.sleep(self._calm)
        return {name: sample(program.process.pid) for name, program in self._whole.running.items()}

    async def _readers_are_done(self) -> None:
        ends = max(task.seq for task in self.history.final.values())
        finished = {task.id for task in self.history.final.values() if task.state is State.FINISHED}
        await until(lambda: self.history.readers["stream"][-1].seq >= ends, timeout=60)
        await until(lambda: not finished - (self.history.called or {}).keys(), timeout=60)

    def _blamed(self) -> list[str]:
        """Nobody had to release a task from quarantine but for workers that were killed, and no photo has an error.

        A death is taken back when its worker returns, unless another one has finished the task meanwhile.
        """
        errors = sum(task.errors for task in self.history.final.values())
        wrong = [f"{errors} errors were charged, and no photo has any"] if errors else []
        released = sum(event.kind == "released" for event in self.history.events)
        if released > self.killed_workers // 2:
            wrong.append(f"{released} tasks stayed in quarantine, and {self.killed_workers} workers were killed")
        return wrong


def _grown(before: dict[str, Sample], after: dict[str, Sample]) -> list[str]:
    wrong = []
    print(f"\n{'program':>14} {'MiB':>14} {'descriptors':>14}")
    for name, then in before.items():
        now = after[name]
        print(f"{name:>14} {then.memory:6.1f} → {now.memory:5.1f} {then.descriptors:6} → {now.descriptors:5}")
        if now.memory > then.memory + MEMORY.get(name, MORE):
            wrong.append(f"{name} has grown from {then.memory:.0f} to {now.memory:.0f} MiB")
        if now.descriptors > then.descriptors + DESCRIPTORS.get(name, MORE):
            wrong.append(f"{name} had {then.descriptors} descriptors and has {now.descriptors}")
    return wrong


async def soak(minutes: float, seed: int, calm: float) -> bool:
    """Run it; say whether all was well."""
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    async with AsyncExitStack() as stack:
        places = stack.enter_context(namespaces())
        whole = await stack.enter_async_context(
            system(directory, workers=len(WORKERS), settings=SETTINGS, places=places)
        )
        client = await stack.enter_async_context(Client.connect(whole.master))
        run = Soak(whole, places, client, seed, calm)
        url = await stack.enter_async_context(webhooks(run.history, places.host(Namespaces.CLIENT)))
        wrong = await run.run(minutes, url)
    done, times = len(run.history.acknowledged), sorted(run.recoveries)
    print(f"\n{done} photos acknowledged of {len(run.history.calls)} uploads, seed {seed}; {run.counts}")
    print(f"{2 * CLIENTS} more after a fault: {times[len(times) // 2]:.1f} s (median), {times[-1]:.1f} s at most")
    print(*(f"WRONG: {each}" for each in wrong), sep="\n")
    if wrong:
        print(f"The data are in {directory}")
    else:
        shutil.rmtree(directory)
        print("Nothing lost, nothing twice, nobody blamed; every reader has seen all")
    return not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--calm", type=float, default=20, help="seconds without faults before memory is measured")
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(soak(options.minutes, options.seed, options.calm)) else 1)


if __name__ == "__main__":
    main()
