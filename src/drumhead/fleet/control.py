"""What the commands do with fleets: bring them up, wait until they are, take them down."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.plan import machine_spec, wanted_machines
from drumhead.fleet.supervisor import all_settled, failures
from drumhead.image.store import ImageStore
from drumhead.machine.instances import Instances
from drumhead.machine.process import process_end
from drumhead.machine.stop import stop_machine
from drumhead.machine.watch import watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from drumhead.fleet.records import Fleet, FleetState
    from drumhead.fleet.store import FleetStore

KEEPER_LOG = "keeper.log"


def check_images(store: FleetStore, fleet: Fleet) -> None:
    """Every member's image is there and has the command that is asked for. Raises NOT_FOUND, USAGE."""
    images = ImageStore(store.home)
    for wanted in wanted_machines(fleet).values():
        machine_spec(fleet.name, wanted, images.find(wanted.member.image, wanted.member.guest))


def start_keeper(store: FleetStore) -> int:
    """A keeper in the background; returns its process id."""
    with (store.directory / KEEPER_LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "drumhead.fleet", store.name],
            env={**os.environ, "DRUMHEAD_HOME": str(store.home.root)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    process.returncode = 0  # known by its id from here on, and meant to outlive us
    return process.pid


async def wait_settled(
    store: FleetStore, fleet: Fleet, keeper: int, *, time_limit: float, show: Callable[[FleetState], None]
) -> None:
    """Wait until the keeper has done what `fleet` asks. Raises GUEST when a machine fails for good, TIMEOUT."""
    ended = asyncio.create_task(process_end(keeper))
    try:
        with watching(store.directory) as changed:
            async with asyncio.timeout(time_limit):
                while not all_settled(state := store.read_state(), fleet):
                    show(state)
                    if ended.done():
                        raise DrumheadError(
                            ErrorCode.GUEST, f"the keeper of {store.name} ended; see {store.directory / KEEPER_LOG}"
                        )
                    wake = asyncio.create_task(changed.wait())
                    await asyncio.wait({wake, ended}, return_when=asyncio.FIRST_COMPLETED)
                    wake.cancel()
                    changed.clear()
                show(state)
    except TimeoutError as error:
        waiting = [name for name, one in store.read_state().machines.items() if one.health != "healthy"]
        raise DrumheadError(
            ErrorCode.TIMEOUT, f"not up within {time_limit:.0f} s: {', '.join(waiting)}; it goes on being tried"
        ) from error
    finally:
        ended.cancel()
    failed = failures(state)
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise DrumheadError(ErrorCode.GUEST, f"fleet {store.name} is not whole: {reasons}")


async def take_down(store: FleetStore) -> list[str]:
    """Stop and delete the machines that carry the fleet's name, and forget the fleet. Returns their names."""
    keeper = store.keeper()
    if keeper:
        # It stops its machines in the reverse order of their start.
        os.kill(keeper, signal.SIGTERM)
        await process_end(keeper)
    instances = Instances(store.home)
    names = [one.launch.spec.name for one in store.instances()]
    await asyncio.gather(*[stop_machine(instances, name) for name in names])
    for name in names:
        instances.delete(name)
    store.delete()
    return names
