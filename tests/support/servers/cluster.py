"""A distributed system on one machine: real servers, several of every service, workers. Each may be killed and started.

Every program logs into a file of its own. `scripts/cluster` runs this module for people.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from safelight.client.base import ServiceClient
from support.programs.ports import free_port, reserve
from support.servers.etcd import Cluster as Etcd
from support.servers.places import Loopback, Namespaces, Places
from support.servers.postgres import Server as Postgres
from support.servers.seaweedfs import Seaweed

KINDS = ("keyvaluestore", "db", "storage", "master", "worker")
"""The programs in the order in which they start; they stop in the opposite one."""

TIMEOUT = 60.0
AGAIN = 5.0


class Cluster:
    """Programs with names such as `master-2`; each keeps its port and its data over restarts."""

    def __init__(
        self,
        data: Path,
        counts: dict[str, int],
        options: dict[str, list[str]],
        first_port: int = 0,
        *,
        places: Places | None = None,
        standby: bool = False,
    ) -> None:
        """Describe a cluster. The services listen from `first_port` on, ten ports apart; 0 takes free ports.

        With a `standby`, PostgreSQL has one that has every commit before it is acknowledged.
        """
        self.places = places or Loopback()
        self.names = [f"{kind}-{number}" for kind in KINDS for number in range(1, counts[kind] + 1)]
        self.data = data
        self.etcd = Etcd(data, 3)
        self.etcd.hosts = [self.places.host(f"etcd-{number}") for number in (1, 2, 3)]
        self.etcd.prefixes = [self.places.prefix(f"etcd-{number}") for number in (1, 2, 3)]
        self.seaweed = Seaweed(data / "seaweedfs", **self._place("seaweedfs"))
        self.postgres = Postgres(postgres_directory(data), fsync=True, **self._place("postgresql"))
        self.standby = None
        if standby:
            place = postgres_directory(data / "standby")
            self.standby = Postgres(place, fsync=True, **self._place("standby"))
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self._options = options
        self._recall(data / "ports.json")
        self.ports = {name: _port(name, first_port) for name in self.names}

    def addresses(self, kind: str) -> str:
        """Return the `HOST:PORT` of all programs of a kind, separated by commas."""
        return ",".join(self.address(name) for name in self.names if name.startswith(f"{kind}-"))

    def address(self, name: str) -> str:
        """Return the `HOST:PORT` of a program."""
        return f"{self.places.host(name)}:{self.ports[name]}"

    def _place(self, name: str) -> dict[str, Any]:
        return {"host": self.places.host(name), "prefix": self.places.prefix(name)}

    async def start(self, name: str) -> None:
        """Start a program without waiting until it is ready."""
        kind, _, number = name.partition("-")
        if kind == "etcd":
            await asyncio.to_thread(self.etcd.start, int(number) - 1)
            return
        if kind == "seaweedfs":
            await asyncio.to_thread(self.seaweed.start)
            return
        if kind == "postgresql":
            await asyncio.to_thread(self.postgres.start)
            return
        argv = [] if kind == "keyvaluestore" else [self.addresses("keyvaluestore")]
        if isinstance(self.places, Namespaces):
            argv += ["--host", self.places.host(name), "--open"]
        argv += ["--port", str(self.ports[name]), "--data", str(self.data / name), "--log-format", "json"]
        argv += self._stores(kind) + self._options.get(kind, [])
        with (self.data / f"{name}.log").open("ab") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                *self.places.prefix(name), sys.executable, "-m", f"safelight.{kind}", *argv,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.seaweed.environment()},
                start_new_session=True,
            )  # fmt: skip

    def _recall(self, file: Path) -> None:
        """Reuse the servers' former ports, by which the members of etcd know one another."""
        if file.exists():
            kept: dict[str, Any] = json.loads(file.read_text())
            self.etcd.ports, self.etcd.peers, self.seaweed.ports = kept["etcd"], kept["peers"], kept["seaweedfs"]
            self.postgres.port = kept["postgresql"]
            reserve([*self.etcd.ports, *self.etcd.peers, *self.seaweed.ports.values(), self.postgres.port])
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            kept = {"etcd": self.etcd.ports, "peers": self.etcd.peers, "seaweedfs": self.seaweed.ports}
            kept["postgresql"] = self.postgres.port
            file.write_text(json.dumps(kept))

    def _stores(self, kind: str) -> list[str]:
        match kind:
            case "keyvaluestore":
                return ["--store", self.etcd.url]
            case "db":
                servers = [server for server in (self.postgres, self.standby) if server is not None]
                hosts = ",".join(f"{server.host}:{server.port}" for server in servers)
                return ["--store", f"postgresql://safelight@{hosts}/postgres"]
            case "storage":
                return ["--store", f"{self.seaweed.bucket}/cluster"]
        return []

    async def kill(self, name: str) -> None:
        """Kill a program with SIGKILL, and wait for its end."""
        kind, _, number = name.partition("-")
        if kind == "etcd":
            await asyncio.to_thread(self.etcd.kill, int(number) - 1)
        elif kind == "seaweedfs":
            await asyncio.to_thread(self.seaweed.stop)
        elif kind == "postgresql":
            await asyncio.to_thread(self.postgres.stop)
        else:
            process = self.running.pop(name)
            process.kill()
            await process.wait()

    async def ready(self, name: str) -> None:
        """Wait until a service reports that it is ready."""
        try:
            async with asyncio.timeout(TIMEOUT), ServiceClient.connect(self.address(name)) as client:
                while not await client.is_ready(wait=5.0):
                    assert self.running[name].returncode is None, self.log(name)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{name} was not ready within {TIMEOUT:g} s:\n{self.log(name)}") from None

    def log(self, name: str) -> str:
        """Return the end of a program's log."""
        return (self.data / f"{name}.log").read_text(errors="replace")[-2000:]

    async def open(self) -> None:
        """Start all programs, and wait until they are ready."""
        for number in range(3):
            await self.start(f"etcd-{number + 1}")
        await self.start("seaweedfs")
        if not self.postgres.data.exists():
            await asyncio.to_thread(self.postgres.make)
        await self.start("postgresql")
        if self.standby is not None:
            await asyncio.to_thread(self.standby.follow, self.postgres)
            await asyncio.to_thread(self.standby.start)
            await self.postgres.synchronous()
        await asyncio.to_thread(self.etcd.wait)
        for name in self.names:
            await self.start(name)
        await asyncio.gather(*(self.ready(name) for name in self.names))

    async def close(self) -> None:
        """Stop all programs, each before the programs that it uses."""
        for kind in reversed(KINDS):
            ending = [process for name, process in self.running.items() if name.startswith(f"{kind}-")]
            for process in ending:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
            await asyncio.gather(*(_ended(process) for process in ending))
        for number in list(self.etcd.processes):
            await asyncio.to_thread(self.etcd.kill, number)
        await asyncio.to_thread(self.seaweed.stop)
        for server in (self.postgres, self.standby):
            if server is not None and server.is_running():
                await asyncio.to_thread(server.stop, "fast" if self.standby is None else "immediate")

    async def fail_over(self) -> None:
        """Stop PostgreSQL immediately and permanently, and promote its standby."""
        assert self.standby is not None
        await self.kill("postgresql")
        await asyncio.to_thread(self.standby.promote)


def postgres_directory(data: Path) -> Path:
    """Return a directory for PostgreSQL, which refuses to run as root and cannot read root's directories."""
    place = data.resolve() / "postgresql"
    if os.geteuid() == 0:
        place = Path("/var/tmp") / f"safelight-cluster-{hashlib.sha256(str(place).encode()).hexdigest()[:16]}"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _port(name: str, first: int) -> int:
    kind, _, number = name.partition("-")
    return first + KINDS.index(kind) + 10 * (int(number) - 1) if first and kind != "worker" else free_port()


@asynccontextmanager
async def cluster(
    data: Path, *, counts: dict[str, int], options: dict[str, list[str]] | None = None, first_port: int = 0
) -> AsyncIterator[Cluster]:
    """Run a cluster as long as the context lasts. `counts` gives the number of programs of each kind."""
    whole = Cluster(data, counts, options or {}, first_port)
    try:
        await whole.open()
        yield whole
    finally:
        await whole.close()


async def _run(data: Path, counts: dict[str, int], first_port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"Starting; the logs are in {data}/*.log", flush=True)
    starting = asyncio.create_task(_serve(data, counts, first_port, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        print("Stopping", flush=True)
    try:
        return await starting
    except AssertionError as error:
        print(f"It did not start. {error}", file=sys.stderr)
        return 1


async def _serve(data: Path, counts: dict[str, int], first_port: int, stop: asyncio.Event) -> int:
    async with cluster(data, counts=counts, first_port=first_port) as whole:
        for line in _description(whole):
            print(line, flush=True)
        keeping = [asyncio.create_task(_keep(whole, name)) for name in whole.names]
        await stop.wait()
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
    return 0


async def _keep(whole: Cluster, name: str) -> None:
    """Start a program again whenever it has ended, after a moment in which others do its work."""
    while True:
        status = await whole.running[name].wait()
        print(f"{name} has ended with status {status} and starts again in {AGAIN:g} s: {whole.data}/{name}.log")
        await asyncio.sleep(AGAIN)
        await whole.start(name)


def _description(whole: Cluster) -> list[str]:
    lines = [
        f"{'PostgreSQL':14}{whole.postgres.url()}",
        f"{'etcd':14}{whole.etcd.url}",
        f"{'SeaweedFS':14}{whole.seaweed.endpoint} ({whole.seaweed.bucket})",
    ]
    lines += [f"{kind:14}{whole.addresses(kind).replace(',', '  ')}" for kind in KINDS[:-1]]
    workers = sum(name.startswith("worker-") for name in whole.names)
    masters = whole.addresses("master").split(",")
    return [
        *lines,
        f"{'workers':14}{workers}",
        f"The page is at {' and '.join(f'http://{address}' for address in masters)}.",
        f"Commands find the system with --keyvaluestore {whole.addresses('keyvaluestore')}. Ctrl-C stops everything.",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/cluster", description="Run a distributed system on this machine.")
    parser.add_argument("--data", type=Path, default=Path("data/cluster"), help="where everything is kept")
    parser.add_argument("--port", type=int, default=8100, help="the first port of the services; 0 takes free ones")
    parser.add_argument("--instances", type=int, default=2, help="how many of every service")
    parser.add_argument("--workers", type=int, default=2, help="how many workers")
    asked = parser.parse_args()
    several = dict.fromkeys(("keyvaluestore", "db", "storage", "master"), max(1, asked.instances))
    return asyncio.run(_run(asked.data, {**several, "worker": max(0, asked.workers)}, asked.port))


if __name__ == "__main__":
    sys.exit(main())
