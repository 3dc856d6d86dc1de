"""The record of a snapshot, and what every machine that is saved or resumed has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from drumhead.guest.contract import Drive
from drumhead.machine.qemu.command_line import Card
from drumhead.records import Command

if TYPE_CHECKING:
    from pathlib import Path

SAVED_MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
"""The addresses of the cards while a machine is saved; a resumed one takes its own."""
SPARES = 4
"""How many disks every saved machine has for volumes. They have no contents until it is resumed."""
SPARE_SIZE = 1 << 20
MEMORY, STATE, RECORD = "memory", "state", "snapshot.json"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """snapshots/KEY/snapshot.json. Its neighbours are the memory and the state of the devices.

    `memory` is in MiB, `created_at` in seconds since the epoch. `interpreter` was started and has imported the modules
    that the image names; without words there is none.
    """

    key: str
    image: str
    guest: str
    memory: int
    cpus: int
    created_at: float
    interpreter: Command


def spare_drives(directory: Path, volumes: tuple[Drive, ...] = ()) -> tuple[Drive, ...]:
    """Return the disks for volumes, `volumes` first. The others are files of `directory`."""
    empty = [
        Drive(path=directory / f"spare-{number}.raw", format="raw", serial=f"spare-{number}", readonly=False)
        for number in range(len(volumes), SPARES)
    ]
    return (*volumes, *empty)


def write_spares(drives: tuple[Drive, ...]) -> None:
    """Create the files of those disks of ``spare_drives`` that are not volumes. They take no space."""
    for drive in drives:
        if drive.serial.startswith("spare-"):
            with drive.path.open("wb") as file:
                file.truncate(SPARE_SIZE)


def saved_cards() -> tuple[Card, ...]:
    """Return the cards of a machine that is saved, which lead nowhere."""
    first, second = SAVED_MACS
    return Card(netdev="hubport,hubid=0", mac=first), Card(netdev="user,restrict=on", mac=second, has_channels=True)
