"""``drumhead up``, ``down``, ``ps`` and ``scale``: machines that form one application."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from drumhead.cli.flags import FleetFile, Json, Seconds
from drumhead.cli.fleet_logs import Printer, print_while_read
from drumhead.cli.output import notice, print_json, print_table
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.fleet.deploy import check_fleet, start_supervisor, take_down, wait_settled
from drumhead.fleet.file import read_fleet
from drumhead.fleet.plan import planned_machines, shared, with_guest
from drumhead.fleet.records import MAX_COUNT
from drumhead.fleet.store import CHANGED, FleetStore
from drumhead.fleet.supervisor import Supervisor, scaled
from drumhead.home import find_home
from drumhead.machine import process

if TYPE_CHECKING:
    from collections.abc import Callable

    from drumhead.fleet.records import Fleet, FleetState, MachineState
    from drumhead.machine.records import Instance

USUAL_FILES = (Path("fleet.yaml"), Path("deploy/fleet.yaml"))
UP_TIME = 600.0
"""Seconds that a fleet may take to become healthy."""


async def up_command(
    *,
    file: FleetFile = None,
    guest: Annotated[Literal["linux", "osv"] | None, Parameter(name="--guest")] = None,
    detach: Annotated[bool, Parameter(name=["--detach", "-d"], negative="")] = False,
    timeout: Annotated[float, Seconds] = UP_TIME,
) -> None:
    """Start the machines of a fleet file and keep them running.

    Each machine starts when those that it waits for are healthy. The command runs in the foreground until Ctrl-C
    stops the machines, which run on if nobody reads their logs any more. If the fleet is already up, machines whose
    part of the file has changed are replaced.

    Parameters
    ----------
    guest:
        The guest for every member, instead of that in the file.
    detach:
        Return when all machines are healthy, and leave them running.
    timeout:
        The number of seconds that a detached fleet may take to become healthy.
    """
    fleet = _read(file)
    if guest:
        fleet = with_guest(fleet, guest)
    store = FleetStore(find_home(), fleet.name)
    check_fleet(store, fleet)
    supervisor = store.supervisor()
    if not detach and not supervisor:
        await _supervise_here(store, store.write(fleet))
        return
    store.write(fleet)
    if not store.wake_supervisor():
        supervisor = start_supervisor(store)
    await wait_settled(store, supervisor, time_limit=timeout, show=_progress())


async def _supervise_here(store: FleetStore, fleet: Fleet) -> None:
    printer = Printer()
    signal.signal(CHANGED, signal.SIG_IGN)  # other commands send it as soon as the lock is held
    with store.supervising(), printer.logging():
        printing = asyncio.create_task(print_while_read(store, printer))
        try:
            await Supervisor(store, attached=True).run()
        finally:
            printing.cancel()
    await printer.last_notice(f"Fleet {fleet.name} has stopped; `drumhead down {fleet.name}` deletes its machines.")


async def down_command(name: str = "", /, *, file: FleetFile = None) -> None:
    """Stop and delete the machines of a fleet, and no others. Volumes and secrets are kept.

    Parameters
    ----------
    name:
        The name of the fleet; by default that of the fleet file.
    """
    store = _find(name, file)
    store.read()
    for machine in await take_down(store):
        notice(f"Deleted instance: {machine}")


def ps_command(name: str = "", /, *, file: FleetFile = None, json: Json = False) -> None:
    """List the machines of a fleet.

    Parameters
    ----------
    name:
        The name of the fleet; by default that of the fleet file.
    json:
        Print everything that is known, as JSON.
    """
    store = _find(name, file)
    fleet, state = store.read(), store.read_state()
    instances = {one.launch.spec.name: one for one in store.instances()}
    supervised = bool(store.supervisor())
    if json:
        files = {name: str(path) for name, path in store.secret_files(fleet).items()}
        print_json({"fleet": fleet, "supervised": supervised, "state": state, "instances": instances, "secrets": files})
        return
    rows = [
        _row(machine, planned.member_name, state.machines.get(machine), instances.get(machine), supervised=supervised)
        for machine, planned in planned_machines(fleet).items()
    ]
    print_table(("Name", "Member", "State", "Health", "Restarts", "Address", "Uptime", "Ports"), rows)
    if not supervised:
        notice(f"Fleet {fleet.name} has no supervisor; `drumhead up --detach` starts one.")


def _row(
    machine: str, member: str, known: MachineState | None, instance: Instance | None, *, supervised: bool
) -> tuple[str, ...]:
    alive = instance is not None and bool(instance.pid)
    launch = instance.launch if instance else None
    health: str = known.health if known and (supervised or alive) else ""
    if known and known.reason and health in {"waiting", "starting", "healthy"}:
        health = known.reason  # a machine that a full disk has paused is not quite healthy
    return (
        machine,
        member,
        instance.state if instance else "",
        health,
        str(known.restarts) if known else "0",
        launch.address if launch else "",
        f"{process.age(instance.pid):.0f}s" if instance and instance.pid else "",
        ", ".join(f"{one.host_port}->{one.guest_port}" for one in launch.forwards) if launch else "",
    )


async def scale_command(
    *counts: str, name: Annotated[str, Parameter(name="--fleet")] = "", file: FleetFile = None
) -> None:
    """Change how many machines a member has, for example `drumhead scale worker=5`.

    Parameters
    ----------
    counts:
        The new numbers, MEMBER=NUMBER; repeatable.
    name:
        The name of the fleet; by default that of the fleet file.
    """
    store = _find(name, file)
    fleet = store.read()
    wanted = {}
    for text in counts:
        member, _, number = text.partition("=")
        if member not in fleet.members or not re.fullmatch("[0-9]{1,3}", number) or int(number) > MAX_COUNT:
            known = ", ".join(fleet.members)
            raise DrumheadError(
                ErrorCode.USAGE, f"{text!r}: write MEMBER=NUMBER (0 to {MAX_COUNT}); the members are {known}"
            )
        _, reason = shared(fleet.members[member].forwards, fleet.members[member].volumes)
        if int(number) > 1 and reason:
            raise DrumheadError(ErrorCode.USAGE, f"{member}: {reason}")
        wanted[member] = int(number)
    fleet = scaled(fleet, wanted)
    check_fleet(store, fleet)
    supervisor = store.supervisor()
    if not supervisor:
        raise DrumheadError(ErrorCode.CONFLICT, f"fleet {fleet.name} has no supervisor; run `drumhead up` first")
    store.write(fleet)
    store.wake_supervisor()
    await wait_settled(store, supervisor, time_limit=UP_TIME, show=_progress())


def _progress() -> Callable[[FleetState], None]:
    shown: dict[str, str] = {}

    def show(state: FleetState) -> None:
        for name, one in state.machines.items():
            if shown.get(name) != one.health:
                shown[name] = one.health
                notice(f"{name}: {one.health}{f' ({one.reason})' if one.reason else ''}")

    return show


def _read(file: Path | None) -> Fleet:
    found = file or next((path for path in USUAL_FILES if path.is_file()), USUAL_FILES[0])
    return read_fleet(found, str(found))


def _find(name: str, file: Path | None) -> FleetStore:
    return FleetStore(find_home(), name or _read(file).name)
