"""The record of a snapshot, and the devices that saved and resumed machines have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from drumhead.guest.contract import Drive
from drumhead.machine.qemu.command_line import Card, user_netdev
from drumhead.records import Command

if TYPE_CHECKING:
    from pathlib import Path

SAVED_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
"""The MAC addresses of the cards while a machine is saved. A resumed machine replaces them with its own."""
SPARES = 4
"""The number of disks for volumes in every saved machine. They are empty until the machine is resumed."""
SPARE_SIZE = 1 << 20
MEMORY, STATE, RECORD = "memory", "state", "snapshot.json"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a snapshot (snapshots/KEY/snapshot.json). Memory and device state are in files beside it.

    `memory` is in MiB, `created_at` in seconds since the epoch. `interpreter` was started and has imported the modules
    that the image names; an empty argv means that there is none.
    """

    key: str
    image: str
    guest: str
    memory: int
    cpus: int
    created_at: float
    interpreter: Command


def spare_drives(directory: Path, volumes: tuple[Drive, ...] = ()) -> tuple[Drive, ...]:
    """Return the disks for volumes: first `volumes`, then empty disks in `directory` up to SPARES."""
    empty = [
        Drive(path=directory / f"spare-{number}.raw", format="raw", serial=f"spare-{number}", readonly=False)
        for number in range(len(volumes), SPARES)
    ]
    return (*volumes, *empty)


def write_spares(drives: tuple[Drive, ...]) -> None:
    """Create the files of the empty disks among ``spare_drives``. They are sparse and take no space."""
    for drive in drives:
        if drive.serial.startswith("spare-"):
            with drive.path.open("wb") as file:
                file.truncate(SPARE_SIZE)


def saved_cards() -> tuple[Card, ...]:
    """Return the cards of a machine that is saved. They are not connected to a network."""
    first, second = SAVED_MACS
    return Card(netdev="hubport,hubid=0", mac=first), Card(
        netdev=user_netdev((), outgoing=False), mac=second, has_channels=True
    )
