"""Data disks: named volumes, disks of the user, and the disk that takes a machine's writes. ext4, made on the host."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest.contract import Drive, GuestMount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.home import Home
    from drumhead.machine.records import Instance, VolumeMount

QCOW2_MAGIC = b"QFI\xfb"
LEAST_SIZE = 8 << 20
OVERLAY_SERIAL = "overlay"


def volume_path(home: Home, volume: VolumeMount) -> Path:
    """Where the disk of a volume is: a named one in the home, any other where the user says."""
    if "/" in volume.source:
        return Path(volume.source).expanduser().absolute()
    return home.volumes / f"{volume.source}.raw"


def refuse_shared_disks(home: Home, volumes: tuple[VolumeMount, ...], name: str, running: Iterable[Instance]) -> None:
    """A disk has one writer, or any number of readers. Raises CONFLICT naming the instance in the way."""
    wanted = {volume_path(home, volume): volume for volume in volumes}
    for instance in running:
        spec = instance.launch.spec
        if not instance.pid or spec.name == name:
            continue
        for theirs in spec.volumes:
            mine = wanted.get(volume_path(home, theirs))
            if mine is not None and not (mine.readonly and theirs.readonly):
                raise DrumheadError(ErrorCode.CONFLICT, f"volume {mine.source} is in use by {spec.name}; stop it first")


async def open_volumes(
    home: Home, volumes: tuple[VolumeMount, ...]
) -> tuple[tuple[Drive, ...], tuple[GuestMount, ...]]:
    """The disks of `volumes`, made where they are missing, and where the guest mounts them."""
    drives, mounts = [], []
    for number, volume in enumerate(volumes):
        path = volume_path(home, volume)
        if not path.exists():
            if "/" in volume.source:
                raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no disk {path}; a plain name makes a new volume")
            await make_disk(path, volume.size)
        serial = f"volume-{number}"
        drives.append(Drive(path=path, format=disk_format(path), serial=serial, readonly=volume.readonly))
        mounts.append(GuestMount(serial=serial, path=volume.path, readonly=volume.readonly))
    return tuple(drives), tuple(mounts)


async def open_overlay(directory: Path, size: int) -> Drive:
    """The disk of `size` bytes that takes the writes of the machine in `directory`; kept from start to start."""
    path = directory / "overlay.raw"
    if not path.exists():
        await make_disk(path, size)
    return Drive(path=path, format="raw", serial=OVERLAY_SERIAL, readonly=False)


def disk_format(path: Path) -> Literal["raw", "qcow2"]:
    with path.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"


async def make_disk(path: Path, size: int) -> None:
    """A new, empty ext4 disk; it takes room on the host only as it fills. Appears whole, by rename."""
    if size < LEAST_SIZE:
        raise DrumheadError(ErrorCode.USAGE, f"{path.stem} would have {size} bytes; give a volume at least 8M")
    with replacing(path) as temporary:
        with temporary.open("r+b") as file:
            file.truncate(size)
        words = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
        await asyncio.to_thread(host.run, ["mke2fs", *words, temporary])
