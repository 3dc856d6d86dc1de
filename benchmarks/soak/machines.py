"""Run the system in machines: deploy/fleet.yaml with two workers. `drumhead package compose` must have made the
image."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import yaml
from benchmarks.soak.target import Beside, Sample, ask, busy, heard, sample

from drumhead.fleet.store import FleetStore
from drumhead.home import find_home
from drumhead.machine.instances import Instances
from drumhead.machine.qemu.channel import control, monitor
from drumhead.machine.stop import stop_machine
from safelight.access.cluster_key import ClusterKey
from safelight.client.master import Client
from support.programs.ports import free_port
from support.programs.until import until

ROOT = Path(__file__).parents[2]
NAME = "soaked"
_LOOK = 0.002
"""Seconds between two looks at the log of a worker that stops."""
LEASE = 10.0
"""The limit is longer than for processes: an emulated machine on a busy host stands still for seconds."""
LONGEST = 2.5 * LEASE
UP_AGAIN = 300.0
"""Seconds in which machines must boot, including a pause that grows with each restart."""
SERVICES = ("keyvaluestore", "db", "storage", "master")
WORKERS = ("worker", "worker-2")
DRUMHEAD = [sys.executable, "-c", "import sys; from drumhead.cli import main; sys.exit(main())"]
HOST = "10.0.2.2"
"""The address of the host's loopback in a machine."""


class Machines:
    """Disturb a system that runs in machines; implement `Target`."""

    lease = LEASE
    kinds = ("kill", "stop", "freeze", "cut")
    lasting = ("freeze", "cut")
    listen, webhook_host = "127.0.0.1", HOST

    def __init__(self, store: FleetStore, client: Client, url: str, headers: Mapping[str, str]) -> None:
        self._store = store
        self._instances = Instances(store.home)
        self.client, self.url, self.headers = client, url, headers
        self.descriptors: dict[str, int] = {}
        self.beside = Beside()
        self.killed: dict[str, float] = {}
        self.stopped: dict[str, float] = {}
        self._kills = 0
        # A guest touches its memory only gradually, and a machine may have been restarted meanwhile.
        self.memory = dict.fromkeys((*SERVICES, *WORKERS), 320.0)

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path, guest: str) -> AsyncIterator[Self]:
        """Bring the fleet up in DRUMHEAD_HOME; take it down at the end, with its volumes."""
        home = find_home()
        port = _write_fleet(directory / "fleet.yaml")
        try:
            await _drumhead("up", "--detach", "--guest", guest, "-f", directory / "fleet.yaml")
            store = FleetStore(home, NAME)
            key = ClusterKey(store.secret_files(store.read())["cluster-key"])
            address = f"127.0.0.1:{port}"
            async with Client.connect(address, credentials=key.credentials) as client:
                machines = cls(store, client, f"http://{address}", key.credentials("GET", "/events"))
                await machines._healthy()
                yield machines
        finally:
            await _drumhead("down", NAME)
            for volume in home.volumes.glob(f"{NAME}-*"):
                volume.unlink()

    async def disturb(self, kind: str, chance: random.Random) -> None:
        await getattr(self, f"_{kind}")(chance)
        await self._healthy()

    def samples(self) -> dict[str, Sample]:
        return {name: sample(pid) for name in (*SERVICES, *WORKERS) if (pid := self._pid(name))}

    async def _kill(self, chance: random.Random) -> None:
        """Kill a worker that has tasks, and every second time also any service."""
        self._kills += 1
        victim = chance.choice(WORKERS if self._kills % 2 else SERVICES)
        if victim in WORKERS and (worker := await busy(self.client, f"{NAME}-{victim}", 2)) is not None:
            self.killed.setdefault(worker, time.monotonic())
        before, pid = self._restarts(victim), self._pid(victim)
        assert pid, f"{victim} does not run"
        os.kill(pid, signal.SIGKILL)
        await self._restarted(victim, before)

    async def _stop(self, chance: random.Random) -> None:
        """Stop a worker as stopping its machine does: by SIGTERM in the guest."""
        victim, other = chance.sample(WORKERS, 2)
        await heard(self.client, f"{NAME}-{other}")
        await ask(self.client, self.beside)
        directory = self._instances.directory(f"{NAME}-{victim}")
        begun = time.monotonic()
        await control(directory, {"do": "ping"})
        self.beside.init.append(time.monotonic() - begun)
        worker, before = await busy(self.client, f"{NAME}-{victim}", 2), self._restarts(victim)
        begun = time.monotonic()
        if worker is not None:
            self.stopped[worker] = begun
        watching = asyncio.create_task(self._watch_hand_back(directory / "log", begun))
        await stop_machine(self._instances, f"{NAME}-{victim}", final=False)
        watching.cancel()
        await self._restarted(victim, before)

    async def _watch_hand_back(self, log: Path, begun: float) -> None:
        """Note when a worker that is stopped since `begun` says so, and when it says that it hands a task back."""
        said = b""
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            for mark, found in ((b" is stopping", self.beside.signal), (b"Returned task", self.beside.handing)):
                while mark not in said:
                    await asyncio.sleep(_LOOK)
                    said += file.read()
                found.append(time.monotonic() - begun)
                begun += found[-1]

    async def _freeze(self, chance: random.Random) -> None:
        everything = [*SERVICES, *WORKERS]
        victims = chance.sample(everything, chance.choice([1, 1, 1, 2, len(everything)]))
        pids = [self._pid(victim) for victim in victims]
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.5, LONGEST))
        for pid in filter(None, pids):
            with suppress(ProcessLookupError):  # the supervisor has ended the machine
                os.kill(pid, signal.SIGCONT)

    async def _cut(self, chance: random.Random) -> None:
        """Disconnect one or two machines from the private network."""
        victims = chance.sample([*SERVICES, *WORKERS], chance.choice([1, 1, 2]))
        for victim in victims:
            await self._link(victim, up=False)
        await asyncio.sleep(chance.uniform(0.5, LONGEST))
        for victim in victims:
            await self._link(victim, up=True)

    async def _link(self, name: str, *, up: bool) -> None:
        with suppress(OSError, EOFError):
            async with monitor(self._instances.directory(f"{NAME}-{name}")) as qemu:
                await qemu.execute("set_link", {"name": "net0", "up": up})

    def _pid(self, name: str) -> int:
        found = self._instances.find(f"{NAME}-{name}")
        return found.pid if found is not None else 0

    def _restarts(self, name: str) -> int:
        return self._store.read_state().machines[f"{NAME}-{name}"].restarts

    async def _restarted(self, name: str, before: int) -> None:
        await until(lambda: self._restarts(name) > before, timeout=UP_AGAIN)

    async def _healthy(self) -> None:
        def well() -> bool:
            return all(one.health == "healthy" for one in self._store.read_state().machines.values())

        await until(well, timeout=UP_AGAIN)


def _write_fleet(file: Path) -> int:
    """Write the fleet file of this program; return the host's port that is forwarded to the master."""
    content = yaml.safe_load((ROOT / "deploy/fleet.yaml").read_text()) | {"name": NAME}
    members = content["members"]
    port = free_port()
    for name, member in members.items():
        member["forward"] = [f"{port if name == 'master' else 0}:{member['health']['port']}"]
    members["worker"]["count"] = len(WORKERS)
    members["worker"]["env"] |= {"SAFELIGHT_WORKER_LEASE_DURATION": f"{LEASE:g}"}
    members["master"]["env"] |= {
        "SAFELIGHT_MASTER_WEBHOOK_ALLOW_PRIVATE": "true",
        "SAFELIGHT_MASTER_WEBHOOK_RETRY": "1s",
    }
    file.write_text(yaml.safe_dump(content))
    return port


async def _drumhead(*words: object) -> None:
    command = [*DRUMHEAD, *map(str, words)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command[3:])}: {done.stderr}"
