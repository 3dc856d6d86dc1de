"""The simulated world: machines that run the real programs, and the parts of the system that the programs use.

Time, randomness, flushes, threads and sockets depend on the seed. They are replaced for the whole process, which ends
with the run; each seed has its own process.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import logging
import os
import random
import shutil
import time
import traceback
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp.connector
import msgspec

from safelight import allinone, serve, settings
from safelight.db.sqlite import database
from safelight.db.sqlite import store as db_store
from safelight.errors import Error
from safelight.worker import __main__ as worker
from safelight.worker import decoder
from simulation.decoder import Decoder
from simulation.disk import Disk, FlushFailedError
from simulation.loop import PROCESS, OneThread, Process, Pump, SimulatedLoop
from simulation.network import Network, Site, listen
from simulation.sqlitevfs import SimulatedVfs

EPOCH = 1_800_000_000.0
PORTS = {"keyvaluestore": 8000, "db": 8001, "storage": 8002, "master": 8003}
SECOND_MASTER, SECOND_PORT = "master-2", 8013
_MAY_FAIL = ("The database cannot",)
"""Errors that a program may log when its disk fails."""
_SETTINGS = {
    "db": ("--retry-first", "0.5s", "--retry-longest", "5s"),
    "storage": ("--scrub-rate", "0"),
    "worker": ("--lease-duration", "5", "--slots", "2", "--time-limit", "20"),
}

_COLLECTS: dict[str, Any] = {"grace": 120.0, "collect_every": 3.0}
"""Garbage is kept longer than requests are repeated in a run, so that only jumps of clocks make it old."""


class World:
    """Machines, their network, and a history of the events."""

    def __init__(self, seed: int, root: Path) -> None:
        self.rng = random.Random(f"safelight {seed}")
        self.more = random.Random(f"more, 4 {seed}")
        """The randomness of later additions, so that the older seeds of `FOUND` stay the same."""
        self.restoring = random.Random(f"copies {seed}")
        """The randomness of restored copies of the database."""
        self.restores = self.restoring.random() < 0.25
        self.restored: list[tuple[float, float]] = []
        """For each restored copy, the times when it was taken and when the database was back."""
        self._masters = random.Random(f"masters {seed}")
        """The randomness of systems with two masters."""
        self.master_ports = [PORTS["master"], *([SECOND_PORT] if self._masters.random() < 0.3 else [])]
        self.collects = self.more.random() < 0.3
        """Whether storage collects garbage every few seconds."""
        self.root = root
        self.loop = SimulatedLoop(random.Random(f"loop {seed}"))
        self.network = Network(self.loop, random.Random(f"network {seed}"))
        self.lines: list[str] = []
        self.machines: dict[str, Machine] = {}
        self.attempts: list[str] = []
        self.vfs: SimulatedVfs | None = None
        self.unexpected: list[str] = []
        """Log lines that no program should ever write."""
        _take_over(self, seed)

    def note(self, text: str) -> None:
        """Add a line to the history."""
        self.lines.append(f"{self.loop.time() - 1000:.6f} {text}".replace(str(self.root), ""))

    @property
    def masters(self) -> str:
        """Return the addresses of all masters in the form that clients accept."""
        return ",".join(f"127.0.0.1:{port}" for port in self.master_ports)

    def some_master(self) -> str:
        """Return the URL of one of the masters."""
        return f"http://127.0.0.1:{self._masters.choice(self.master_ports)}"

    def add(self, name: str) -> Machine:
        """Add a machine whose name says what it runs: a service, `allinone`, or `worker-1`, …"""
        self.machines[name] = made = Machine(self, name)
        return made


class Machine:
    """One program with its disk, which is restarted when it ends."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.process: Process | None = None
        self.starts = 0
        self.wall_offset = 0.0
        self.failing_until = 0.0
        """The time until which flushes fail."""
        self.slow_until = 0.0
        """The time until which flushes in threads are slow."""
        self.die_at_flush: int | None = None
        """How many more flushes the process makes before the power is cut."""
        self.crashes: list[float] = []
        self._services: list[serve.Service] = []
        self._power = False
        self._copies: list[tuple[float, Path]] = []
        """Copies of the database, and the times when they were taken."""
        self._restoring: tuple[float, Path] | None = None

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """Start the program with the remaining state of its disk."""
        before, self.starts = self.process, self.starts + 1
        data = self.world.root / f"{self.name}-{self.starts}"
        if before is None:
            data.mkdir(mode=0o700)
        else:
            assert before.disk is not None
            before.disk.copy(data, power_cut=self._power)
            self._restore(data)
        self.process = process = Process(self.name, self.starts, data)
        process.wall_offset = self.wall_offset
        process.disk = Disk(data, random.Random(self.world.rng.random()), lambda: self._flushing(process))
        self._services = []
        self.world.note(f"start {process}")
        process.context.run(self._begin, process)

    def copy_database(self) -> None:
        """Copy the database in its state after a kill."""
        if self.runs:
            assert self.process is not None
            self.world.note(f"copy the database of {self.process}")
            target = self.world.root / f"copy-{len(self._copies)}"
            shutil.copytree(self._database(self.process.data), target)
            self._copies.append((self.world.loop.time(), target))

    def restore_database(self, away: float) -> None:
        """Kill the program and restart it with one of the copies, which may be newer than the current database."""
        if not self._copies:
            self.copy_database()
        elif self.runs:
            restored = self.world.restoring.choice(self._copies)
            self.copy_database()
            self._restoring = restored
            self.crash(power_cut=False, away=away)

    def _restore(self, data: Path) -> None:
        if self._restoring is None:
            return
        taken, copy = self._restoring
        self._restoring = None
        self.world.note(f"restore the copy of {taken - 1000:.6f}")
        self.world.restored.append((taken, self.world.loop.time()))
        shutil.rmtree(self._database(data))
        shutil.copytree(copy, self._database(data))

    def _database(self, data: Path) -> Path:
        return data / "db" if self.name == "allinone" else data

    def _begin(self, process: Process) -> None:
        task = asyncio.Task(self._run(process), loop=self.world.loop)
        process.keep(task)

    async def _run(self, process: Process) -> None:
        try:
            async with self._program(process) as services:
                self._services = services
                self.world.note(f"running {process}")
                stopping = [asyncio.ensure_future(service.stopping.wait()) for service in services]
                await asyncio.wait(stopping, return_when=asyncio.FIRST_COMPLETED)
        except (Error, OSError) as error:
            self.world.note(f"failed {process}: {error}")
        except SystemExit as error:
            self.world.note(f"failed {process}: exit {error}")
        self.world.note(f"ended {process}")
        process.alive = False
        self._power = False
        self.world.network.gone(process, silently=False)
        self.world.loop.call_later(0.5, self._start_again, process, context=_nobody())

    def _start_again(self, process: Process) -> None:
        if self.process is process:
            self.start()

    def _program(self, process: Process) -> AbstractAsyncContextManager[list[serve.Service]]:
        kind = self.name.partition("-")[0]
        if kind == "allinone":
            return _Several({name: self._config(name, process.data / name) for name in PORTS})
        program = worker if kind == "worker" else allinone.SERVICES[kind]
        return _One(serve.running(kind, self._config(kind, process.data), program.build))

    def _config(self, name: str, data: Path) -> serve.StandaloneConfig:
        collects = _COLLECTS if name == "storage" and self.world.collects else {}
        port = {"port": SECOND_PORT} if self.name == SECOND_MASTER else {}
        return msgspec.structs.replace(_settings(name), data=str(data), **collects, **port)

    def stop(self) -> None:
        """Ask the program to stop, as `POST /shutdown` to one of its services does, and restart it."""
        if self.runs and self._services:
            assert self.process is not None
            service = self.world.rng.choice(self._services)
            self.world.note(f"stop {self.process} by {service.name}")
            self.process.context.copy().run(service.stop)

    def crash(self, *, power_cut: bool, away: float) -> None:
        """Kill the program, or cut its machine's power, and restart it after `away` seconds."""
        process = self.process
        if process is None or not process.alive:
            return
        self.world.note(f"{'cut power of' if power_cut else 'kill'} {process} for {away:.3f}")
        self.crashes.append(self.world.loop.time())
        process.alive = False
        self._power = power_cut
        self.die_at_flush = None
        self.world.network.gone(process, silently=power_cut)
        self.world.loop.call_later(away, self._start_again, process, context=_nobody())

    def freeze(self, seconds: float) -> None:
        """Suspend the program for a time."""
        process = self.process
        if process is not None and process.alive:
            self.world.note(f"freeze {process} for {seconds:.3f}")
            process.freeze()
            self.world.loop.call_later(seconds, process.thaw, self.world.loop, context=_nobody())

    def set_clock(self, offset: float) -> None:
        """Set the machine's wall clock wrong by `offset` seconds."""
        self.world.note(f"clock of {self.name} is {offset:.0f} s off")
        self.wall_offset = offset
        if self.process is not None:
            self.process.wall_offset = offset

    def _flushing(self, process: Process) -> None:
        if not process.alive:
            raise OSError(errno.EIO, "the process is dead")
        if self.die_at_flush is not None:
            self.die_at_flush -= 1
            if self.die_at_flush < 0:
                self.crash(power_cut=True, away=self.world.rng.uniform(0.2, 8.0))
                raise OSError(errno.EIO, "the power was cut")
        if self.world.loop.time() < self.failing_until:
            raise FlushFailedError(errno.EIO, "Input/output error")
        if self.world.loop.in_thread and self.world.loop.time() < self.slow_until:
            self.world.loop.spent += self.world.more.uniform(0.1, 4.0)


class _One:
    def __init__(self, program: AbstractAsyncContextManager[serve.Service]) -> None:
        self._program = program

    async def __aenter__(self) -> list[serve.Service]:
        return [await self._program.__aenter__()]

    async def __aexit__(self, *error: object) -> None:
        await self._program.__aexit__(*error)


class _Several:
    def __init__(self, configs: dict[str, serve.StandaloneConfig]) -> None:
        self._program = allinone.running(configs)

    async def __aenter__(self) -> list[serve.Service]:
        return list((await self._program.__aenter__()).values())

    async def __aexit__(self, *error: object) -> None:
        await self._program.__aexit__(*error)


@cache
def _settings(name: str) -> serve.StandaloneConfig:
    program = worker if name == "worker" else allinone.SERVICES[name]
    argv = [] if name == "keyvaluestore" else [f"127.0.0.1:{PORTS['keyvaluestore']}"]
    argv += ["--port", str(PORTS.get(name, 0)), *_SETTINGS.get(name, ())]
    return settings.load(program.Config, argv, section=name, program=name)


def prepare() -> None:
    """Do slow preparations that are the same for every run, once before all runs."""
    for name in (*PORTS, "worker"):
        _settings(name)
    kinds = [msgspec.Struct]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in kinds[1:]:
        if kind.__module__.startswith("safelight."):
            with suppress(TypeError, NameError):  # not a record that is sent
                msgspec.json.Decoder(kind)


def _nobody() -> contextvars.Context:
    """Return a context without a process: code in it belongs to the simulation."""
    return contextvars.Context()


class _Database(database.Database):
    """Run the work of db's thread as steps of the event loop."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pump = Pump(self._loop, self._serve, lambda: not (self._queue.empty() or self._ending))

    def submit(self, work: Any, **options: Any) -> asyncio.Future[Any]:
        future = super().submit(work, **options)
        self._pump.wake()
        return future


class _Log(logging.Handler):
    """Add the programs' warnings to the history."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        if process is None or not process.alive:
            return
        message = record.getMessage()
        if record.exc_info and record.levelno >= logging.ERROR:
            message += f" ({record.exc_info[1]!r})"
            if not record.msg.startswith(_MAY_FAIL):
                trace = "".join(traceback.format_exception(record.exc_info[1]))
                self._world.unexpected.append(f"{process}: {message}\n{trace}")
        self._world.note(f"log {process} {message}")


def _take_over(world: World, seed: int) -> None:
    """Replace the system's time, randomness, flushes, threads and sockets by simulated ones."""
    loop = world.loop

    def wall() -> float:
        process = PROCESS.get()
        return EPOCH + loop.time() + (process.wall_offset if process is not None else 0.0)

    time.monotonic = time.perf_counter = loop.time
    time.time = wall
    time.time_ns = lambda: int(wall() * 1e9)
    time.clock_gettime = lambda _clock: loop.time()
    entropy = random.Random(f"entropy {seed}")
    os.urandom = random._urandom = entropy.randbytes
    random.seed(f"random {seed}")
    os.fsync = _fsync
    database.threading = SimpleNamespace(Thread=OneThread)
    database.Stalls = partial(database.Stalls, loop.time)
    db_store.Database = _Database
    aiohttp.connector.aiohappyeyeballs.start_connection = world.network.start_connection
    serve.listen, serve.Site = listen, Site
    decoder.open_pool = lambda pool: Decoder(pool.count, world)
    world.vfs = SimulatedVfs()
    logging.basicConfig(handlers=[_Log(world)], level=logging.WARNING, force=True)
    asyncio.set_event_loop(loop)


def _fsync(file: Any) -> None:
    process = PROCESS.get()
    if process is not None and process.disk is not None:
        process.disk.flush(file if isinstance(file, int) else file.fileno())
