"""A distributed system on one machine: real servers, several of every service, workers. Each may be killed and started.

Every program logs into a file of its own. `scripts/cluster` runs this for people.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from safelight.client.base import ServiceClient
from support.etcd import Cluster as Etcd
from support.seaweedfs import Seaweed
from support.system import free_port

KINDS = ("keyvaluestore", "db", "storage", "master", "worker")
"""The programs in the order in which they start; they stop in the opposite one."""

TIMEOUT = 60.0


class Cluster:
    """Programs under names such as `master-2`; each keeps its port and its data over its lives."""

    def __init__(
        self, data: Path, counts: dict[str, int], ports: dict[str, int], options: dict[str, list[str]]
    ) -> None:
        self.names = [f"{kind}-{number}" for kind in KINDS for number in range(1, counts[kind] + 1)]
        self.ports = {name: ports.get(name) or free_port() for name in self.names}
        self.data = data
        self.etcd = Etcd(data, 3)
        self.seaweed = Seaweed(data / "seaweedfs")
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self._options = options

    def addresses(self, kind: str) -> str:
        """Return the `HOST:PORT` of every program of a kind, with commas."""
        return ",".join(f"127.0.0.1:{self.ports[name]}" for name in self.names if name.startswith(f"{kind}-"))

    async def start(self, name: str) -> None:
        """Start a program; it need not be ready yet."""
        kind, _, number = name.partition("-")
        if kind == "etcd":
            await asyncio.to_thread(self.etcd.start, int(number) - 1)
            return
        argv = [] if kind == "keyvaluestore" else [self.addresses("keyvaluestore")]
        argv += ["--port", str(self.ports[name]), "--data", str(self.data / name), "--log-format", "json"]
        argv += self._stores(kind) + self._options.get(kind, [])
        with (self.data / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"safelight.{kind}", *argv,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.seaweed.environment()},
                start_new_session=True,
            )  # fmt: skip

    def _stores(self, kind: str) -> list[str]:
        match kind:
            case "keyvaluestore":
                return ["--store", self.etcd.url]
            case "storage":
                return ["--store", f"{self.seaweed.bucket}/cluster"]
        return []

    async def kill(self, name: str) -> None:
        """Kill a program without warning, and wait until it is gone."""
        kind, _, number = name.partition("-")
        if kind == "etcd":
            await asyncio.to_thread(self.etcd.kill, int(number) - 1)
        else:
            process = self.running.pop(name)
            process.kill()
            await process.wait()

    async def ready(self, name: str) -> None:
        """Wait until a service says that it is ready."""
        async with asyncio.timeout(TIMEOUT), ServiceClient.connect(f"127.0.0.1:{self.ports[name]}") as client:
            while not await client.is_ready(wait=5.0):
                assert self.running[name].returncode is None, self.log(name)
                await asyncio.sleep(0.05)

    def log(self, name: str) -> str:
        """Return the end of a program's log."""
        return (self.data / f"{name}.log").read_text(errors="replace")[-2000:]

    async def open(self) -> None:
        """Start everything, and wait until it is ready."""
        self.data.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            await self.start(f"etcd-{number + 1}")
        await asyncio.to_thread(self.seaweed.start)
        await asyncio.to_thread(self.etcd.wait)
        for name in self.names:
            await self.start(name)
        await asyncio.gather(*(self.ready(name) for name in self.names))

    async def close(self) -> None:
        """Stop everything: first who uses, then what is used."""
        for kind in reversed(KINDS):
            ending = [process for name, process in self.running.items() if name.startswith(f"{kind}-")]
            for process in ending:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            await asyncio.gather(*(_ended(process) for process in ending))
        for number in list(self.etcd.processes):
            await asyncio.to_thread(self.etcd.kill, number)
        await asyncio.to_thread(self.seaweed.stop)


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def cluster(
    data: Path,
    *,
    counts: dict[str, int],
    ports: dict[str, int] | None = None,
    options: dict[str, list[str]] | None = None,
) -> AsyncIterator[Cluster]:
    """Run a cluster for as long as the context lasts. `counts` says how many of each kind."""
    whole = Cluster(data, counts, ports or {}, options or {})
    try:
        await whole.open()
        yield whole
    finally:
        await whole.close()
