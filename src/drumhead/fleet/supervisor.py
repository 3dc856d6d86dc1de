"""Keeping a fleet: starting its machines in the order of their health, starting again what ended, until told to stop.

``drumhead up`` is a keeper in the foreground: its machines die with it. ``up --detach`` leaves one in the background
(``python -m drumhead.fleet NAME``), whose machines outlive it: when it is killed they run on, and the next ``up``
takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError
from drumhead.fleet.lifetime import End, Life
from drumhead.fleet.plan import Wanted, wanted_machines
from drumhead.fleet.records import FleetState, Health, MachineState, Member
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.launch import image_digest
from drumhead.machine.logs import keep_trimming
from drumhead.machine.stop import stop_machine

if TYPE_CHECKING:
    from drumhead.fleet.records import Fleet
    from drumhead.fleet.store import FleetStore

log = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before a machine that ended is started again; doubled each time, until it was healthy for LONGEST_PAUSE."""


class Keeper:
    """Works on one fleet; `run` is its whole life."""

    def __init__(self, store: FleetStore, *, attached: bool) -> None:
        self._store = store
        self._attached = attached
        self._instances = Instances(store.home)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bases: dict[str, tuple[Member, str]] = {}
        self._states: dict[str, MachineState] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._healthy = asyncio.Condition()
        self._fleet: Fleet = store.read()

    async def run(self) -> None:
        """Keep the fleet until SIGTERM or SIGINT, then stop its machines, those first that others do not need."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._changed.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        trimming = asyncio.create_task(keep_trimming(lambda: list(map(self._instances.directory, self._states))))
        try:
            while not self._stopping:
                self._changed.clear()
                self._fleet = self._store.read()
                await self._reconcile()
                self._publish()
                await self._changed.wait()
        finally:
            trimming.cancel()
            await self._stop_all()

    def _stop(self) -> None:
        self._stopping = True
        self._changed.set()

    async def _reconcile(self) -> None:
        """Have one task for each machine that the fleet wants. What runs as it should is left running."""
        wanted = wanted_machines(self._fleet)
        # Not only our own: a keeper before us may have left machines that the fleet no longer wants.
        known = set(self._tasks) | {one.launch.spec.name for one in self._store.instances()}
        await asyncio.gather(*[self._remove(name) for name in known if name not in wanted])
        for name, machine in wanted.items():
            basis = (msgspec.structs.replace(machine.member, count=1), self._digest(machine))
            health = self._states[name].health if name in self._states else None
            if self._bases.get(name) == basis and health not in {None, "failed"}:
                continue
            await self._cancel(name)
            self._bases[name] = basis
            self._note(machine, "waiting")
            self._tasks[name] = asyncio.create_task(self._keep(machine), name=name)

    def _digest(self, machine: Wanted) -> str:
        return image_digest(ImageStore(self._store.home).find(machine.member.image, machine.member.guest))

    async def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _remove(self, name: str) -> None:
        await self._cancel(name)
        self._states.pop(name, None)
        self._bases.pop(name, None)
        if self._instances.find(name) is not None:
            await stop_machine(self._instances, name)
            self._instances.delete(name)

    async def _keep(self, machine: Wanted) -> None:
        """Wait for those before a machine; then one life after another, as its policy says."""
        pause, restarts = SHORTEST_PAUSE, 0
        try:
            async with self._healthy:
                await self._healthy.wait_for(lambda: all(map(self._member_is_healthy, machine.member.after)))
            while True:
                end = await self._live_once(machine, restarts)
                policy = machine.member.restart
                if policy == "no" or (policy == "on-failure" and not end.failed):
                    self._note(machine, "failed" if end.failed else "ended", restarts, end.reason)
                    return
                self._note(machine, "restarting", restarts, end.reason)
                pause = next_pause(pause, end.healthy_for)
                log.warning("%s: %s; started again in %.0f s", machine.name, end.reason, pause)
                await asyncio.sleep(pause)
                restarts += 1
        except DrumheadError as error:
            log.error("%s: %s", machine.name, error.message)  # noqa: TRY400 - the sentence says it all
            self._note(machine, "failed", restarts, error.message)

    async def _live_once(self, machine: Wanted, restarts: int) -> End:
        async def healthy() -> None:
            self._note(machine, "healthy", restarts)
            async with self._healthy:
                self._healthy.notify_all()

        life = Life(self._store.home, self._fleet.name, machine, attached=self._attached)
        return await life.run(starting=lambda: self._note(machine, "starting", restarts), healthy=healthy)

    def _member_is_healthy(self, name: str) -> bool:
        mine = [state for state in self._states.values() if state.member == name]
        return bool(mine) and all(state.health in {"healthy", "ended"} for state in mine)

    def _note(self, machine: Wanted, health: Health, restarts: int = 0, reason: str = "") -> None:
        self._states[machine.name] = MachineState(
            member=machine.member_name, health=health, restarts=restarts, reason=reason
        )
        self._publish()

    def _publish(self) -> None:
        self._store.write_state(FleetState(revision=self._fleet.revision, machines=dict(self._states)))

    async def _stop_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        await stop_in_order(self._instances, self._fleet, {name: one.member for name, one in self._states.items()})


def next_pause(pause: float, healthy_for: float) -> float:
    """Seconds before the next start, after a pause of `pause` before the last one."""
    return SHORTEST_PAUSE if healthy_for > LONGEST_PAUSE else min(pause * 2, LONGEST_PAUSE)


async def stop_in_order(instances: Instances, fleet: Fleet, machines: dict[str, str]) -> None:
    """Stop `machines` (name → member): each as soon as nobody is left who comes after it, the others beside it."""
    stopped = {member: asyncio.Event() for member in fleet.members}

    async def stop_member(member: str) -> None:
        for other, what in fleet.members.items():
            if member in what.after:
                await stopped[other].wait()
        mine = [name for name, of in machines.items() if of == member and instances.find(name) is not None]
        await asyncio.gather(*[stop_machine(instances, name) for name in mine])
        stopped[member].set()

    await asyncio.gather(*map(stop_member, fleet.members))


def all_settled(state: FleetState, fleet: Fleet) -> bool:
    """Whether the keeper has done what the fleet asks: every machine is healthy, or has ended for good."""
    names = wanted_machines(fleet).keys()
    return (
        state.revision >= fleet.revision
        and names == state.machines.keys()
        and all(one.health in {"healthy", "ended", "failed"} for one in state.machines.values())
    )


def failures(state: FleetState) -> dict[str, str]:
    """The machines that should run and do not, with the reason."""
    return {name: one.reason for name, one in state.machines.items() if one.health == "failed"}


def scaled(fleet: Fleet, counts: dict[str, int]) -> Fleet:
    """The fleet with other numbers of machines."""
    members = {
        name: msgspec.structs.replace(member, count=counts.get(name, member.count))
        for name, member in fleet.members.items()
    }
    return msgspec.structs.replace(fleet, members=members)
