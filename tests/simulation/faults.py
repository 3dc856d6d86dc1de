"""The faults of a run. Each seed has only some of the kinds, so that faults do not hide one another."""

from __future__ import annotations

import asyncio

from simulation.world import Machine, World

_DAY = 86400.0
_FLUSHING = ("allinone", "db", "db", "db", "storage", "storage", "keyvaluestore")
"""The machines whose power may be cut at a flush; machines that flush more are listed more often."""


class Faults:
    """Cause faults in a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        kinds = [
            self._kill, self._power, self._die_at_flush, self._stop, self._freeze, self._cut, self._tear, self._slow,
            self._disk_fails, self._clock,
        ]  # fmt: skip
        self._kinds = [kind for kind in kinds if world.rng.random() < 0.3] or [world.rng.choice(kinds)]
        if world.more.random() < 0.5:
            self._kinds += world.more.sample([self._lose_answers, self._delay_answers, self._flush_slowly], 2)
        if world.restores:
            self._kinds += [self._restore_database] * 2
        self._pause = world.rng.choice((0.3, 1.0, 2.0))
        self.spared_workers = True
        """Whether no fault has affected a worker or its connection to db."""
        self._timers: list[asyncio.TimerHandle] = []

    async def happen(self, seconds: float) -> None:
        """Cause faults for some seconds."""
        rng, loop = self._world.rng, self._world.loop
        end = loop.time() + seconds
        while True:
            await asyncio.sleep(rng.expovariate(1 / self._pause))
            if loop.time() >= end:
                return
            kind = rng.choice(self._kinds)
            names = list(self._world.machines)
            if kind in (self._freeze, self._cut) and rng.random() < 0.5:
                names = [name for name in names if name.startswith("worker")]
            machine = self._world.machines[rng.choice(names)]
            on_the_way = machine.name.startswith("worker") or machine.name.startswith("master")
            between = (self._cut, self._slow, self._tear, self._lose_answers, self._delay_answers)
            if kind in between or (on_the_way and kind != self._clock):
                self.spared_workers = False
            kind(machine)

    def end(self) -> None:
        """End all faults, and restart what is down."""
        world = self._world
        world.note("peace")
        for timer in self._timers:
            timer.cancel()
        world.network.slow = world.loop.slow_disk = world.network.lossy = world.network.stale = 0.0
        world.network.heal()
        for machine in world.machines.values():
            machine.failing_until, machine.slow_until, machine.die_at_flush = 0.0, 0.0, None
            if machine.process is not None:
                machine.process.thaw(world.loop)

    def _later(self, seconds: float, end: object) -> None:
        self._timers.append(self._world.loop.call_later(seconds, end))

    def _away(self) -> float:
        return self._world.rng.choice((0.1, 1.0, 8.0, 8.0)) * self._world.rng.uniform(0.5, 1.5)

    def _kill(self, machine: Machine) -> None:
        machine.crash(power_cut=False, away=self._away())

    def _power(self, machine: Machine) -> None:
        machine.crash(power_cut=True, away=self._away())

    def _die_at_flush(self, _machine: Machine) -> None:
        flushing = [self._world.machines[name] for name in _FLUSHING if name in self._world.machines]
        machine = self._world.rng.choice(flushing)
        machine.die_at_flush = self._world.rng.randint(0, 5)

    def _stop(self, machine: Machine) -> None:
        machine.stop()

    def _freeze(self, machine: Machine) -> None:
        machine.freeze(self._away())

    def _cut(self, machine: Machine) -> None:
        other = self._world.rng.choice([*self._world.machines, "client-1", "client-3"])
        self._world.note(f"cut {machine.name} from {other}")
        self._world.network.cut(machine.name, other)
        self._later(self._away(), self._world.network.heal)

    def _restore_database(self, _machine: Machine) -> None:
        machine = self._world.machines.get("db") or self._world.machines["allinone"]
        machine.restore_database(self._world.restoring.choice((0.1, 1.0, 5.0)))

    def _tear(self, _machine: Machine) -> None:
        self._world.note("tear a connection")
        self._world.network.tear()

    def _slow(self, _machine: Machine) -> None:
        self._world.note("slow network and disks")
        self._world.network.slow, self._world.loop.slow_disk = 0.5, 0.3
        self._later(self._away(), self._fast)

    def _fast(self) -> None:
        self._world.network.slow = self._world.loop.slow_disk = 0.0

    def _lose_answers(self, _machine: Machine) -> None:
        self._world.note("answers are lost")
        self._world.network.lossy = 0.3
        self._later(self._away(), self._answer)

    def _delay_answers(self, _machine: Machine) -> None:
        self._world.note("answers are late")
        self._world.network.stale = 0.2
        self._later(self._away(), self._answer)

    def _answer(self) -> None:
        self._world.network.lossy = self._world.network.stale = 0.0

    def _flush_slowly(self, machine: Machine) -> None:
        self._world.note(f"flushes of {machine.name} are slow")
        machine.slow_until = self._world.loop.time() + self._away()

    def _disk_fails(self, machine: Machine) -> None:
        self._world.note(f"flushes of {machine.name} fail")
        machine.failing_until = self._world.loop.time() + self._away()

    def _clock(self, machine: Machine) -> None:
        machine.set_clock(self._world.rng.choice((-3600.0, 3600.0, 32 * _DAY, -32 * _DAY, 0.0)))
