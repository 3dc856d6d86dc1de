"""Start a machine from a snapshot: map the saved memory, load the devices, then configure the guest."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import Configure
from drumhead.machine.process import kill, wait_process
from drumhead.machine.qemu.channel import control, load_state
from drumhead.machine.qemu.command_line import Saved, command_line
from drumhead.machine.qemu.spawn import last_words, spawn
from drumhead.machine.snapshot.records import MEMORY, SAVED_MACS, SPARES, STATE
from drumhead.machine.snapshot.store import Snapshots, snapshot_key

if TYPE_CHECKING:
    from drumhead.guest import Guest
    from drumhead.guest.contract import BootPlan, RunConfig
    from drumhead.home import Home
    from drumhead.machine.qemu.command_line import Card
    from drumhead.machine.records import Launch
    from drumhead.machine.snapshot.records import Snapshot
    from drumhead.records import Image, ImageFiles

CONFIGURE_TIME = 30.0
"""Seconds within which the command of a resumed guest has to run. It takes 0.3 s."""
ENTROPY = 64


def find_snapshot(home: Home, guest: Guest, image: Image, files: ImageFiles, launch: Launch) -> Snapshot | None:
    """Return the snapshot that a machine can be resumed from, or None.

    A machine has to boot if its spec says so, if it is on a network of the host (which has other cards), if it has a
    disk for writes, or if it has more volumes than a snapshot has disks.
    """
    spec = launch.spec
    boots = spec.cold or spec.network != "nat" or image.overlay_size or len(spec.volumes) > SPARES
    if boots or guest.unsupported.get("snapshot") or not home.snapshots.is_dir():
        return None
    key = snapshot_key(guest, image, files, memory=spec.memory, cpus=spec.cpus, accelerator=launch.accelerator)
    return Snapshots(home).find(key)


def _open(state: Path) -> int:
    try:
        return os.open(state, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DrumheadError(ErrorCode.GUEST, f"{state} cannot be opened ({error.strerror})") from error


async def resume(
    home: Home,
    snapshot: Snapshot,
    launch: Launch,
    boot: BootPlan,
    cards: tuple[Card, ...],
    config: RunConfig,
    order: str,
) -> int:
    """Resume a machine, start its command and return QEMU's process id.

    `order` tells the warm interpreter to become the command; it is empty if the command is a new process. Raises GUEST,
    TIMEOUT.
    """
    stored, directory, spec = Snapshots(home).directory(snapshot.key), home.instances / launch.spec.name, launch.spec
    argv = command_line(
        boot,
        name=spec.name,
        memory=spec.memory,
        cpus=spec.cpus,
        accelerator=launch.accelerator,
        cards=cards,
        state=directory,
        saved=Saved(memory=stored / MEMORY, resumed=True),
    )
    state = _open(stored / STATE)
    try:
        pid = await spawn(argv, boot, directory, attached=launch.attached, inherited=(state,))
    finally:
        os.close(state)
    try:
        await load_state(directory, state)
        await control(directory, _request(config, order), time_limit=CONFIGURE_TIME)
    except BaseException as error:
        kill(pid)
        await wait_process(pid)
        if isinstance(error, DrumheadError):
            raise DrumheadError(error.code, f"{error.message} (QEMU: {last_words(directory)})") from error
        raise
    return pid


def _request(config: RunConfig, order: str) -> dict[str, Any]:
    """Return the request that configures the guest after it has resumed."""
    nics = tuple(
        msgspec.structs.replace(nic, saved_mac=saved) for nic, saved in zip(config.nics, SAVED_MACS, strict=True)
    )
    request = Configure(
        config=msgspec.structs.replace(config, nics=nics),
        time=time.time(),
        entropy=secrets.token_hex(ENTROPY),
        order=order,
    )
    return msgspec.structs.asdict(request)
