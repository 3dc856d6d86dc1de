"""Define the system that a soak disturbs."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from safelight.client.master import Client

_HEARD = 120.0
"""Seconds within which a running worker is heard, even on a busy host."""
_BUSY_SOON = 3.0
"""Seconds to wait until a worker that will be ended has tasks."""


@dataclass(frozen=True)
class Sample:
    """The memory (MiB) and the descriptors that a program uses."""

    memory: float
    descriptors: int


def sample(pid: int) -> Sample:
    """Measure a program."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, sum(1 for _ in os.scandir(f"/proc/{pid}/fd")))


@dataclass
class Beside:
    """Seconds that other things took in the same run, with which the end of workers is to be compared."""

    request: list[float] = field(default_factory=list)
    """A request to the master that asks db, from this machine."""
    init: list[float] = field(default_factory=list)
    """An answer of a machine's first process, by which it is told to stop."""
    signal: list[float] = field(default_factory=list)
    """From the request to stop until the worker has logged that it stops."""
    handing: list[float] = field(default_factory=list)
    """From there until it has logged that it hands a task back; what follows is a request to the master."""


async def ask(client: Client, beside: Beside) -> None:
    """Measure some requests that ask db."""
    for _ in range(5):
        begun = time.monotonic()
        await client.summary()
        beside.request.append(time.monotonic() - begun)


class Target(Protocol):
    """A running system that can be disturbed."""

    client: Client
    url: str
    """The master's URL."""
    headers: Mapping[str, str]
    """The credentials for the master."""
    listen: str
    """The address of this machine at which the webhooks' calls arrive."""
    webhook_host: str
    """The address by which the master reaches `listen`."""
    lease: float
    beside: Beside
    kinds: Sequence[str]
    """The faults that may happen, which are names of methods."""
    lasting: Sequence[str]
    """The faults after which the same programs still run, so that their memory can be compared."""
    memory: Mapping[str, float]
    descriptors: Mapping[str, int]
    """How many more MiB and descriptors a program may have at the end, for the programs that grow much."""
    killed: dict[str, float]
    """The workers that were killed, and the times by the monotonic clock."""
    stopped: dict[str, float]
    """The workers that were stopped while the other worker and all services were reachable, and the times."""

    async def disturb(self, kind: str, chance: random.Random) -> None:
        """Cause one fault, wait until it is over, and restart the programs that have ended."""
        ...

    def samples(self) -> dict[str, Sample]:
        """Measure every program."""
        ...


async def heard(client: Client, name: str) -> None:
    """Wait until a worker is heard again."""
    before = None
    async with asyncio.timeout(_HEARD):
        while True:
            seen = [one.last_seen for one in (await client.summary()).workers if named(one.worker.id) == name]
            latest = max(seen, default=0.0)
            before = latest if before is None else before
            if latest > before:
                return
            await asyncio.sleep(0.05)


def named(id: str) -> str:
    """Return the name of a worker, which stays the same over its restarts."""
    return id.rpartition("-")[0]


async def busy(client: Client, name: str, least: int) -> str | None:
    """Wait, for a limited time, until a worker holds that many leases; return its id, which changes with each start."""
    latest = None
    with suppress(TimeoutError):
        async with asyncio.timeout(_BUSY_SOON):
            while latest is None or latest.holding < least:
                seen = [one for one in (await client.summary()).workers if named(one.worker.id) == name]
                latest = max(seen, key=lambda one: one.first_seen, default=None)
                await asyncio.sleep(0.01)
    return None if latest is None else latest.worker.id
