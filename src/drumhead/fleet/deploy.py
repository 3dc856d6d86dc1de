"""Bring a fleet up, wait until it has settled, and take it down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.lifetime import refuse_stranger
from drumhead.fleet.plan import machine_spec, planned_machines
from drumhead.fleet.supervisor import failures, is_settled
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.process import wait_process
from drumhead.machine.spec.check import check_spec
from drumhead.machine.spec.options import MAX_NAME, usage
from drumhead.machine.stop import delete_machine, stop_machine
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from drumhead.fleet.plan import PlannedMachine
    from drumhead.fleet.records import Fleet, FleetState
    from drumhead.fleet.store import FleetStore

SUPERVISOR_LOG = "supervisor.log"


def check_fleet(store: FleetStore, fleet: Fleet) -> None:
    """Check that every member's image exists and has what the member asks for, and that each machine has a host name
    that no other member and no machine outside the fleet has. Raises NOT_FOUND, USAGE, CONFLICT.
    """
    images, instances = ImageStore(store.home), Instances(store.home)
    machines = planned_machines(fleet).values()
    for wanted in machines:
        _check_name(fleet, wanted)
    for wanted in machines:
        refuse_stranger(instances, fleet.name, wanted.name)
        image = images.find(wanted.member.image, wanted.member.guest)
        try:
            check_spec(store.home, image, machine_spec(fleet.name, wanted, image))
        except DrumheadError as error:
            raise DrumheadError(error.code, f"member {wanted.member_name}: {error.message}") from error


def _check_name(fleet: Fleet, wanted: PlannedMachine) -> None:
    if len(wanted.name) > MAX_NAME:
        raise usage(
            f"member {wanted.member_name}: the host name {wanted.name} would have {len(wanted.name)} characters, and "
            f"{MAX_NAME} are possible; shorten the name of the fleet or of the member"
        )
    if wanted.name in fleet.members:  # the name would lead to this machine, and not to that member
        raise usage(f"member {wanted.name} has the name of a machine of {wanted.member_name}; rename one of them")


def start_supervisor(store: FleetStore) -> int:
    """Start a supervisor in the background and return its process id."""
    with (store.directory / SUPERVISOR_LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "drumhead.fleet", store.name],
            env={**os.environ, "DRUMHEAD_HOME": str(store.home.root)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0  # Popen must not wait for it: it outlives this process
    return process.pid


async def wait_settled(
    store: FleetStore, supervisor: int, *, time_limit: float, show: Callable[[FleetState], None]
) -> None:
    """Wait until the supervisor has brought the machines to the state that the fleet's record describes.

    Another command may change the record meanwhile; then this waits for the new one. Raises GUEST if a machine fails
    for good, TIMEOUT after `time_limit` seconds.
    """
    ended = asyncio.create_task(wait_process(supervisor))
    try:
        with watching(store.directory) as changed:
            async with asyncio.timeout(time_limit):
                while not is_settled(state := store.read_state(), store.read()):
                    show(state)
                    if ended.done():
                        ended = asyncio.create_task(wait_process(_other_supervisor(store)))
                    wake = asyncio.create_task(changed.wait())
                    await asyncio.wait({wake, ended}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
                    changed.clear()
                show(state)
    except TimeoutError as error:
        machines = store.read_state().machines
        waiting = [name for name, one in machines.items() if one.health not in {"healthy", "ended"}]
        raise DrumheadError(
            ErrorCode.TIMEOUT, f"not up within {time_limit:.0f} s: {', '.join(waiting)}; the supervisor keeps trying"
        ) from error
    finally:
        ended.cancel()
    failed = failures(state)
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise DrumheadError(ErrorCode.GUEST, f"fleet {store.name} has failed machines: {reasons}")


def _other_supervisor(store: FleetStore) -> int:
    """Return the supervisor that another `drumhead up` has just started. Raises GUEST if there is none."""
    if not store.wake_supervisor():
        message = f"the supervisor of {store.name} ended; see {store.directory / SUPERVISOR_LOG}"
        raise DrumheadError(ErrorCode.GUEST, message)
    return store.supervisor()


async def take_down(store: FleetStore) -> list[str]:
    """Stop and delete the machines of a fleet and its record. Return the names of the machines."""
    supervisor = store.supervisor()
    if supervisor:
        # The supervisor stops its machines in reverse order of their start.
        os.kill(supervisor, signal.SIGTERM)
        await wait_process(supervisor)
    instances = Instances(store.home)
    names = [one.launch.spec.name for one in store.instances()]
    await asyncio.gather(*[stop_machine(instances, name) for name in names])
    for name in names:
        await delete_machine(instances, name)
    store.delete()
    return names
