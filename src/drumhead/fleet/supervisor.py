"""Supervise a fleet: start its machines in dependency order and restart those that end, until a signal.

``drumhead up`` is a supervisor in the foreground, and its machines die with it. ``up --detach`` starts one in the
background (``python -m drumhead.fleet NAME``). Its machines outlive it: if it is killed they keep running, and the
next ``up`` takes them over.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from drumhead.errors import DrumheadError, ErrorCode, message_of
from drumhead.fleet.lifetime import End, Lifetime, refuse_stranger
from drumhead.fleet.plan import PlannedMachine, planned_machines, waits_for_end
from drumhead.fleet.records import FleetState, Health, MachineState, Member
from drumhead.fleet.store import CHANGED
from drumhead.image.store import ImageStore
from drumhead.machine.attach import stop_signals
from drumhead.machine.instances import Instances
from drumhead.machine.launch import image_digest
from drumhead.machine.logs import trim_periodically
from drumhead.machine.stop import delete_machine, stop_machine

if TYPE_CHECKING:
    from drumhead.fleet.records import Fleet
    from drumhead.fleet.store import FleetStore

log = logging.getLogger(__name__)

MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 30.0
"""Seconds before a restart. The delay doubles each time until the machine was healthy for MAX_RESTART_DELAY."""
PASSING = {ErrorCode.TIMEOUT, ErrorCode.GUEST, ErrorCode.HOST_TOOL}
"""Errors of a start that a later start may not meet: a busy host, a lack of memory, a full disk."""


class Supervisor:
    """The supervisor of one fleet. ``run`` does all of its work."""

    def __init__(self, store: FleetStore, *, attached: bool) -> None:
        self._store = store
        self._attached = attached
        self._instances = Instances(store.home)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._applied: dict[str, tuple[Member, str]] = {}
        self._states: dict[str, MachineState] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._noted = asyncio.Event()
        self._proven: set[str] = set()
        self._fleet: Fleet = store.read()
        self._revision = 0
        """The revision of the fleet that was applied; `_fleet` is newer while machines that it lacks are stopping."""

    async def run(self) -> None:
        """Supervise the fleet until a stop signal, then stop its machines in reverse dependency order."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(CHANGED, self._changed.set)
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop)
        trimming = asyncio.create_task(trim_periodically(lambda: list(map(self._instances.directory, self._states))))
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
        """Run one task for each machine of the fleet. Leave machines that already match running."""
        wanted = planned_machines(self._fleet)
        # An earlier supervisor may have left machines that the fleet no longer has.
        known = set(self._tasks) | {one.launch.spec.name for one in self._store.instances()}
        await asyncio.gather(*[self._remove(name) for name in known if name not in wanted])
        changed: list[PlannedMachine] = []
        for name, machine in wanted.items():
            current = (msgspec.structs.replace(machine.member, count=1), self._digest(machine))
            health = self._states[name].health if name in self._states else None
            if self._applied.get(name) == current and health not in {None, "failed"}:
                continue
            await self._cancel(name)
            self._applied[name] = current
            self._note(machine, "waiting")
            changed.append(machine)
        self._revision = self._fleet.revision
        for machine in changed:  # only now, so that each knows who waits for it
            self._tasks[machine.name] = asyncio.create_task(self._supervise(machine), name=machine.name)
        self._noted.set()  # somebody may have waited for a member that has no machine any more

    def _digest(self, machine: PlannedMachine) -> str:
        """Return the digest of a machine's image. A deleted one counts as unchanged, because the machine has it."""
        try:
            return image_digest(ImageStore(self._store.home).find(machine.member.image, machine.member.guest))
        except DrumheadError as error:
            log.warning("%s: %s", machine.name, error.message)
            return self._applied[machine.name][1] if machine.name in self._applied else ""

    async def _cancel(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _remove(self, name: str) -> None:
        await self._cancel(name)
        self._states.pop(name, None)
        self._applied.pop(name, None)
        try:
            if _has_machine(self._instances, self._fleet, name):
                await stop_machine(self._instances, name)
                await delete_machine(self._instances, name)
        except DrumheadError as error:
            if error.code not in {ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}:
                raise
            log.warning("%s: another command is deleting it: %s", name, error.message)
        except OSError as error:
            log.warning("%s could not be removed: %s", name, message_of(error))

    async def _supervise(self, machine: PlannedMachine) -> None:
        """Wait for the members that a machine depends on, then run it as often as its restart policy says."""
        delay, restarts = MIN_RESTART_DELAY, 0
        try:
            while not all(self._lets_start(name, machine.member) for name in machine.member.after):
                self._noted.clear()
                await self._noted.wait()
            while True:
                await self._free_volumes(machine)
                end = await self._run_once(machine, restarts)
                policy = machine.member.restart
                if policy == "no" or (policy == "on-failure" and not end.failed):
                    self._note(machine, "failed" if end.failed else "ended", restarts, end.reason)
                    return
                self._note(machine, "restarting", restarts, end.reason)
                delay = next_restart_delay(delay, end.healthy_for)
                log.warning("%s: %s; restarting in %.0f s", machine.name, end.reason, delay)
                await asyncio.sleep(delay)
                restarts += 1
        except DrumheadError as error:
            log.error("%s: %s", machine.name, error.message)  # noqa: TRY400 - the message is complete without a traceback
            self._note(machine, "failed", restarts, error.message)

    async def _run_once(self, machine: PlannedMachine, restarts: int) -> End:
        """Run a machine until it ends. Raises the errors after which there is no use in starting it again."""

        def starting() -> None:
            self._note(machine, "starting", restarts)

        def healthy() -> None:
            self._proven.add(machine.name)
            self._note(machine, "healthy", restarts)

        def remark(reason: str) -> None:
            self._note(machine, self._states[machine.name].health, restarts, reason)

        life = Lifetime(self._store.home, self._fleet.name, machine, attached=self._attached)
        try:
            return await life.run(starting=starting, healthy=healthy, remark=remark)
        except OSError as error:  # the disk of the host is full, for example, and will have room again
            reason = message_of(error)
        except DrumheadError as error:
            refuse_stranger(self._instances, self._fleet.name, machine.name)
            # A first start that needs what another machine has is a mistake; later on, a command may just hold a lock.
            has_run = restarts > 0 or machine.name in self._proven
            if error.code not in PASSING and not (error.code is ErrorCode.CONFLICT and has_run):
                raise
            reason = error.message
        except Exception as error:  # supervision goes on, whatever a machine's files hold
            log.exception("%s: an error of drumhead", machine.name, exc_info=not self._attached)
            reason = f"an error of drumhead ({error!r}); please report it"
        return End(reason=reason, failed=True, healthy_for=0.0)

    def _lets_start(self, name: str, member: Member) -> bool:
        """Return whether all machines of the member `name` are healthy, or have ended if `member` needs their volume.

        A member without machines (``count: 0``) holds nobody up.
        """
        mine = [state.health for state in self._states.values() if state.member == name]
        if not mine:
            return not self._fleet.members[name].count
        enough = {"ended"} if waits_for_end(member, self._fleet.members[name]) else {"healthy", "ended"}
        return enough.issuperset(mine)

    async def _free_volumes(self, machine: PlannedMachine) -> None:
        """Stop machines that have a volume of this one and wait for its end. They run as the fleet was before."""
        for name, other in planned_machines(self._fleet).items():
            known = self._states.get(name)
            if known is None or known.health != "waiting" or machine.member_name not in other.member.after:
                continue
            if waits_for_end(other.member, machine.member) and _has_machine(self._instances, self._fleet, name):
                await stop_machine(self._instances, name)

    def _note(self, machine: PlannedMachine, health: Health, restarts: int = 0, reason: str = "") -> None:
        self._states[machine.name] = MachineState(
            member=machine.member_name, health=health, restarts=restarts, reason=reason
        )
        self._noted.set()
        self._publish()

    def _publish(self) -> None:
        try:
            self._store.write_state(FleetState(revision=self._revision, machines=dict(self._states)))
        except OSError as error:  # the machines are supervised all the same
            log.warning("The state of the fleet cannot be written: %s", message_of(error))

    async def _stop_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        await stop_in_order(self._instances, self._fleet, {name: one.member for name, one in self._states.items()})


def _has_machine(instances: Instances, fleet: Fleet, name: str) -> bool:
    """Return whether there is a machine of this name that belongs to the fleet."""
    found = instances.find(name)
    return found is not None and found.launch.fleet == fleet.name


def next_restart_delay(delay: float, healthy_for: float) -> float:
    """Return the delay in seconds before the next restart. `delay` is the previous one."""
    return MIN_RESTART_DELAY if healthy_for > MAX_RESTART_DELAY else min(delay * 2, MAX_RESTART_DELAY)


async def stop_in_order(instances: Instances, fleet: Fleet, machines: dict[str, str]) -> None:
    """Stop `machines` (name → member) in parallel, but each only after the machines that depend on it."""
    stopped = {member: asyncio.Event() for member in fleet.members}

    async def stop_member(member: str) -> None:
        for other, dependent in fleet.members.items():
            if member in dependent.after:
                await stopped[other].wait()
        mine = [name for name, owner in machines.items() if owner == member and _has_machine(instances, fleet, name)]
        await asyncio.gather(*[stop_machine(instances, name) for name in mine])
        stopped[member].set()

    await asyncio.gather(*map(stop_member, fleet.members))


def is_settled(state: FleetState, fleet: Fleet) -> bool:
    """Return whether the supervisor has applied the fleet: every machine is healthy, has ended for good, or waits in
    vain because one that it depends on has failed for good.
    """
    machines = planned_machines(fleet)
    if state.revision < fleet.revision or machines.keys() != state.machines.keys():
        return False
    failed: set[str] = set()
    for name, machine in machines.items():  # each after the machines that it depends on
        health = state.machines[name].health
        if health == "failed" or (health == "waiting" and not failed.isdisjoint(machine.member.after)):
            failed.add(machine.member_name)
        elif health not in {"healthy", "ended"}:
            return False
    return True


def failures(state: FleetState) -> dict[str, str]:
    """Return the machines that have failed, with their reasons."""
    return {name: one.reason for name, one in state.machines.items() if one.health == "failed"}


def scaled(fleet: Fleet, counts: dict[str, int]) -> Fleet:
    """Return the fleet with the numbers of machines in `counts`."""
    members = {
        name: msgspec.structs.replace(member, count=counts.get(name, member.count))
        for name, member in fleet.members.items()
    }
    return msgspec.structs.replace(fleet, members=members)
