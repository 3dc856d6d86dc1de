"""What the soak needs of a system that it disturbs."""

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
"""Seconds in which a worker that runs is heard, on a busy host too."""
_BUSY_SOON = 3.0
"""Seconds for which a worker that is to end is waited for until it has something to do."""


@dataclass(frozen=True)
class Sample:
    """What a program takes: MiB, and descriptors."""

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
    """A system that runs and can be disturbed."""

    client: Client
    url: str
    """The master's URL."""
    headers: Mapping[str, str]
    """What shows the master who asks."""
    listen: str
    """The address of this machine at which calls of webhooks are taken."""
    webhook_host: str
    """The address that leads to `listen` from where the master runs."""
    lease: float
    beside: Beside
    kinds: Sequence[str]
    """What may happen to it: methods of the same names."""
    lasting: Sequence[str]
    """Those after which the same programs still run, so that their memory can be compared."""
    memory: Mapping[str, float]
    descriptors: Mapping[str, int]
    """What a program may have more at the end than after the first third, where that is much: MiB, descriptors."""
    killed: dict[str, float]
    """The workers that were killed, and when, by the monotonic clock."""
    stopped: dict[str, float]
    """The workers that were stopped while the other one and all services were within reach, and when."""

    async def disturb(self, kind: str, chance: random.Random) -> None:
        """Let one thing happen, wait until it is over, and start again what has ended."""
        ...

    def samples(self) -> dict[str, Sample]:
        """Measure every program."""
        ...


async def heard(client: Client, name: str) -> None:
    """Wait until a worker is heard anew."""
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
    """Return the name of a worker, which all its lives have in common."""
    return id.rpartition("-")[0]


async def busy(client: Client, name: str, least: int) -> str | None:
    """Wait until a worker holds so many leases, if it soon does; return its id. Each life of a worker has its own."""
    latest = None
    with suppress(TimeoutError):
        async with asyncio.timeout(_BUSY_SOON):
            while latest is None or latest.holding < least:
                seen = [one for one in (await client.summary()).workers if named(one.worker.id) == name]
                latest = max(seen, key=lambda one: one.first_seen, default=None)
                await asyncio.sleep(0.01)
    return None if latest is None else latest.worker.id
