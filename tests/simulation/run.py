"""Run the simulated system once: faults for some time, then a time without faults, then the checks."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import signal
import traceback
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from safelight.client.master import Client
from safelight.errors import Code, Error
from safelight.wire import ENDED, Event, State, Task
from simulation.clients import Clients
from simulation.faults import Faults
from simulation.mutations import MUTATIONS
from simulation.photos import KILLER, result_of
from simulation.world import PORTS, SECOND_MASTER, World

_SETTLED_WITHIN = 600.0
_CPU_LIMIT = 15.0
"""Seconds of processor time that a run may take, which stops a spinning program."""


class Outcome(NamedTuple):
    """The outcome of a run."""

    seed: int
    violations: list[str]
    lines: list[str]
    tasks: int

    @property
    def digest(self) -> str:
        """Return the digest of the whole history."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def run(seed: int, root: Path, mutation: str | None = None) -> Outcome:
    """Run one seed in this process, which cannot be used for anything else afterwards. Files are below `root`."""
    gc.disable()  # its times are not reproducible
    signal.signal(signal.SIGPROF, _spins)
    signal.setitimer(signal.ITIMER_PROF, _CPU_LIMIT)
    world = World(seed, root)
    if mutation is not None:
        MUTATIONS[mutation]()
    simulated = _Run(world)
    try:
        violations = world.loop.run_until_complete(simulated.run())
    except (Exception, _SpinsError) as error:  # noqa: BLE001 - whatever it is, the seed shows it
        world.note(f"the simulation failed: {error!r}")
        violations = [f"the simulation failed: {error!r}", *traceback.format_exception(error)]
    signal.setitimer(signal.ITIMER_PROF, 0)
    violations += [f"unexpected: {text}" for text in world.unexpected]
    return Outcome(seed, violations, world.lines, len(simulated.clients.record.history.acknowledged))


class _SpinsError(KeyboardInterrupt):
    """The processor time of a run is used up. This exception passes through handlers of ordinary errors."""


def _spins(_number: int, frame: FrameType | None) -> None:
    raise _SpinsError("it spins:\n" + "".join(traceback.format_stack(frame)[-12:]))


class _Run:
    def __init__(self, world: World) -> None:
        self.world = world
        self.clients = Clients(world)
        self._record = self.clients.record
        self._waiting_for = ""

    async def run(self) -> list[str]:
        world, rng = self.world, self.world.rng
        names = ["allinone"] if rng.random() < 0.5 else list(PORTS)
        names += [SECOND_MASTER] * (len(world.master_ports) - 1)
        names += [f"worker-{n}" for n in range(1, rng.randint(1, 2) + 1)]
        for name in names:
            world.add(name).start()
        self.clients.begin()
        self._faults = faults = Faults(world)
        await faults.happen(rng.uniform(4.0, 15.0))
        faults.end()
        self._waiting_for = "clients"
        try:
            async with asyncio.timeout(_SETTLED_WITHIN):
                await self.clients.finish()
                await self.clients.spawn("judge", self._settle)
        except TimeoutError:
            world.note(f"not settled in time: {self._waiting_for}")
            return [
                f"waited for {self._waiting_for}: the system has not settled within {_SETTLED_WITHIN:g} s",
                *self._record.broken,
            ]
        return self._judged()

    async def _settle(self) -> None:
        """Wait until every acknowledged task has ended; release photos that real deaths have quarantined."""
        history, last = self._record.history, 0
        async with Client.connect(self.world.masters) as client:
            for call in history.acknowledged:
                assert call.task is not None
                task = await self._ended(client, call.task)
                task = await self._released(client, task)
                if task is None:
                    if self.clients.lost(call.task):
                        history.calls.remove(call)
                    continue
                history.final[task.id], last = task, max(last, task.seq)
                history.saw(task)
                if task.state is State.FINISHED:
                    try:
                        await self._fetch(client, task, self._record.photos[call.photo])
                    except Error as error:
                        self._record.broken.append(f"task {task.id}: {error}")
            for name, kind in self._record.others.items():
                task = await self._ended(client, name)
                if task is None and self.clients.lost(name):
                    continue
                if kind != KILLER:
                    task = await self._released(client, task)
                right = State.QUARANTINED if kind == KILLER else State.FAILED
                if task is None or task.state is not right:
                    self._record.broken.append(f"task {name} of a {kind} photo ended as {task and task.state.name}")
                last = max(last, task.seq if task else 0)
            self._waiting_for = "those who wait for tasks"
            await self.clients.waited()
            self._waiting_for = f"readers of event {last}"
            await self.clients.read_until(last, await _database(client))
        self.clients.end_reading()

    async def _released(self, client: Client, task: Task | None) -> Task | None:
        """Release a task as long as real deaths quarantine it; return it after its end."""
        while task is not None and task.state is State.QUARANTINED:
            await self.clients.read_until(task.seq, await _database(client))
            self._blamed(task)
            try:
                await _again(partial(client.release, task.id))
            except Error as error:
                if error.code is not Code.CONFLICT:  # meanwhile its worker has come back, which excused it
                    raise
            task = await self._ended(client, task.id)
        return task

    async def _ended(self, client: Client, id: str) -> Task | None:
        self._waiting_for = f"task {id}"
        while True:
            try:
                task = await client.wait(id)
            except Error as error:
                if not error.transient:
                    return None
                continue
            assert task.state in ENDED
            return task

    async def _fetch(self, client: Client, task: Task, photo: bytes) -> None:
        async def result() -> bytes:
            async with client.result(task.id) as response:
                return await response.read()

        async def original() -> bytes:
            async with client.original(task.id) as response:
                return await response.read()

        self._record.history.results[task.id] = b""
        found = self._record.history.results[task.id] = await _again(result)
        if found != result_of(photo):
            self._record.broken.append(f"task {task.id} has a wrong result")
        if await _again(original) != photo:
            self._record.broken.append(f"task {task.id} has a wrong original")

    def _blamed(self, task: Task) -> None:
        """Check that a good photo was quarantined only for real faults of its workers."""
        events = [event for event in self._record.readers[0] if event.task == task.id and event.kind == "leased"]
        crashes = sum(len(m.crashes) for name, m in self.world.machines.items() if name.startswith("worker"))
        if crashes < 2 or len(events) < 2:
            self._record.broken.append(f"task {task.id} is quarantined; workers crashed {crashes} times")

    def _judged(self) -> list[str]:
        back = max((back for _, back in self.world.restored), default=0.0)
        self._record.history.sights = [sight for sight in self._record.history.sights if sight.asked >= back]
        first, second = self._record.readers
        if first[: len(second)] != second[: len(first)]:
            self._record.broken.append("two readers have read different events")
        return [*self._record.broken, *self._record.history.violations(), *self._wrongly_blamed(first)]

    def _wrongly_blamed(self, events: list[Event]) -> list[str]:
        """Return the charges against good photos without a fault of the worker or its connection."""
        good = {call.task for call in self._record.history.acknowledged}
        wrong = {"died", "failed", "delayed"} | ({"expired"} if self._faults.spared_workers else set())
        return [
            f"task {event.task} of a good photo has {event.kind}: {event.failure and event.failure.detail}"
            for event in events
            if event.task in good and event.kind in wrong
        ]


async def _database(client: Client) -> str:
    """Return the name by which pages of events call the present database, as db itself says it."""
    return (await _again(partial(client.changes, 0, limit=1))).db


async def _again(call: object) -> object:
    """Repeat a call until it succeeds, as a client does when all faults are over."""
    for _ in range(20):
        try:
            return await call()
        except Error as error:
            if not error.transient:
                raise
            await asyncio.sleep(1.0)
    return await call()
