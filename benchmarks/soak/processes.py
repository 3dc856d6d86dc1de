"""Run the system in processes, each in its own network namespace. This needs root; a cut drops packets silently."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from benchmarks.soak.target import Beside, Sample, ask, busy, heard, sample

from safelight.client.master import Client
from support.programs.system import SERVICES, System, system
from support.servers.places import Namespaces, namespaces

LEASE = 3.0
LONGEST = 2.5 * LEASE
"""The longest time, in seconds, for which a program is frozen or cut off."""
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


class Processes:
    """Disturb a system that runs in processes; implement `Target`."""

    lease = LEASE
    kinds = ("kill", "stop", "freeze", "cut")
    lasting = ("freeze", "cut")

    def __init__(self, whole: System, places: Namespaces, client: Client) -> None:
        self._whole = whole
        self._places = places
        self.client = client
        self.url = f"http://{whole.master}"
        self.listen = self.webhook_host = places.host(Namespaces.CLIENT)
        self.headers: dict[str, str] = {}
        self.memory = {"db": 24.0 + 64}  # it fills a cache of 64 MiB
        self.descriptors = {"storage": 24 + 256}  # it keeps its 256 directories of blobs open once it has used them
        self.beside = Beside()
        self.killed: dict[str, float] = {}
        self.stopped: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path) -> AsyncIterator[Self]:
        """Run the system with its data in `directory`."""
        names = {worker: [*SETTINGS["worker"], "--name", worker] for worker in WORKERS}
        async with AsyncExitStack() as stack:
            places = stack.enter_context(namespaces())
            started = system(directory, workers=len(WORKERS), settings=SETTINGS | names, places=places)
            whole = await stack.enter_async_context(started)
            yield cls(whole, places, await stack.enter_async_context(Client.connect(whole.master)))

    async def disturb(self, kind: str, chance: random.Random) -> None:
        await getattr(self, f"_{kind}")(chance)

    def samples(self) -> dict[str, Sample]:
        return {name: sample(program.process.pid) for name, program in self._whole.running.items()}

    async def _kill(self, chance: random.Random) -> None:
        victim = chance.choice([*SERVICES, *WORKERS])
        worker = await busy(self.client, victim, 1) if victim in WORKERS else None
        if worker is not None:
            self.killed.setdefault(worker, time.monotonic())
        await self._whole.kill(victim)
        if worker is not None:
            # Nothing else happens until its tasks must have been leased again. Its successor would return some at once.
            await asyncio.sleep(LEASE + 2)
        await self._whole.start(victim)

    async def _stop(self, chance: random.Random) -> None:
        victim, other = chance.sample(WORKERS, 2)
        await heard(self.client, other)
        await ask(self.client, self.beside)
        if (worker := await busy(self.client, victim, 2)) is not None:
            self.stopped[worker] = time.monotonic()
        await self._whole.running.pop(victim).stop()
        await self._whole.start(victim)

    async def _freeze(self, chance: random.Random) -> None:
        """Suspend one or several programs, and sometimes all of them."""
        everything = [*SERVICES, *WORKERS]
        victims = chance.sample(everything, chance.choice([1, 1, 1, 2, len(everything)]))
        for victim in victims:
            self._whole.running[victim].send(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.5, LONGEST))
        for victim in victims:
            self._whole.running[victim].send(signal.SIGCONT)

    async def _cut(self, chance: random.Random) -> None:
        pairs = chance.sample(PAIRS, chance.choice([1, 1, 2, 3]))
        for pair in pairs:
            self._places.cut(*pair)
        await asyncio.sleep(chance.uniform(0.5, LONGEST))
        for pair in pairs:
            self._places.heal(*pair)
