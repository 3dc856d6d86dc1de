"""Data disks: named volumes, disks of the user, and the disk that takes a machine's writes. ext4, made on the host."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumhead import host
from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import require
from drumhead.guest.contract import Drive, GuestMount
from drumhead.machine.volume import ext4

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drumhead.guest import Guest
    from drumhead.home import Home
    from drumhead.machine.records import Instance, VolumeMount

QCOW2_MAGIC = b"QFI\xfb"
MIN_SIZE = 8 << 20
OVERLAY_SERIAL = "overlay"
CHECK_TIME = 3600.0
REPAIRED = (0, 1, 2)
"""e2fsck's statuses for a disk that is good now."""


def volume_path(home: Home, volume: VolumeMount) -> Path:
    """Return where the disk of a volume is: a named one in the home, any other where the user says."""
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
    home: Home, volumes: tuple[VolumeMount, ...], guest: Guest
) -> tuple[tuple[Drive, ...], tuple[GuestMount, ...]]:
    """Return the disks of `volumes`, made where they are missing, mended where a machine was cut off, and their mounts.

    Raises UNSUPPORTED for what `guest` cannot do, NOT_FOUND, USAGE, HOST_TOOL.
    """
    if len(volumes) > 1:
        require(guest, "second-volume")
    drives, mounts = [], []
    for number, volume in enumerate(volumes):
        path = volume_path(home, volume)
        if not path.exists():
            if "/" in volume.source:
                raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no disk {path}; a plain name makes a new volume")
            await make_disk(path, volume.size, guest.volume_options)
        form = disk_format(path)
        if volume.readonly:
            require(guest, "readonly-volume")
        elif form == "raw":
            await asyncio.to_thread(repair_disk, path)
            if "holes" in guest.unsupported:
                await asyncio.to_thread(fill_holes, path)
        if form == "qcow2":
            require(guest, "qcow2-volume")
        serial = f"volume-{number}"
        drives.append(Drive(path=path, format=form, serial=serial, readonly=volume.readonly))
        mounts.append(GuestMount(serial=serial, path=volume.path, readonly=volume.readonly))
    return tuple(drives), tuple(mounts)


async def open_overlay(directory: Path, size: int, guest: Guest) -> Drive:
    """Return the disk of `size` bytes that takes the writes of the machine in `directory`; kept from start to start."""
    path = directory / "overlay.raw"
    if not path.exists():
        await make_disk(path, size, guest.volume_options)
    return Drive(path=path, format="raw", serial=OVERLAY_SERIAL, readonly=False)


def disk_format(path: Path) -> Literal["raw", "qcow2"]:
    with path.open("rb") as file:
        return "qcow2" if file.read(4) == QCOW2_MAGIC else "raw"


def repair_disk(path: Path) -> None:
    """Do for a raw disk whose machine was cut off what a boot of Linux would do: OSv cannot, and has no journal.

    Needs no root. Blocks. Raises HOST_TOOL with e2fsck's words when a disk cannot be mended.
    """
    if not ext4.was_not_unmounted(path):
        return
    try:
        host.run(["e2fsck", "-p", path], timeout=CHECK_TIME, accepted=REPAIRED)
    except DrumheadError:
        # It leaves alone what it may not decide, files without a name among them; -y puts those into lost+found.
        host.run(["e2fsck", "-y", path], timeout=CHECK_TIME, accepted=REPAIRED)


def fill_holes(path: Path) -> None:
    """Give every file of a raw ext4 disk all of its blocks, of zeros, as it reads anyway. Needs no root. Blocks.

    A cut leaves holes where a file's size was flushed and its map was not; Linux leaves them where programs want them.
    Raises UNSUPPORTED when there is no room for them.
    """
    files, free = ext4.find_holes(path)
    if not files:
        return
    missing = sum(file.missing for file in files)
    # Blocks of pointers come on top, one for 256 blocks at most.
    if missing + missing // 128 + 8 * len(files) > free:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"volume {path.stem} has {len(files)} files with holes, which this guest cannot have, and no room to fill"
            f" them ({missing} blocks, {free} are free); remove or copy such files with a machine on Linux",
        )
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as orders:
        orders.writelines(f"fallocate <{file.inode}> 0 {file.blocks - 1}\n" for file in files)
        orders.flush()
        host.run(["debugfs", "-w", "-f", orders.name, path], timeout=CHECK_TIME)
    left, _ = ext4.find_holes(path)
    if left:
        raise DrumheadError(ErrorCode.HOST_TOOL, f"debugfs left holes in {len(left)} files of volume {path.stem}")


async def make_disk(path: Path, size: int, options: tuple[str, ...]) -> None:
    """A new, empty ext4 disk, made with these `options` of mke2fs.

    It takes room on the host only as it fills. Appears whole, by rename.
    """
    if size < MIN_SIZE:
        raise DrumheadError(ErrorCode.USAGE, f"{path.stem} would have {size} bytes; give a volume at least 8M")
    with replacing(path) as temporary:
        with temporary.open("r+b") as file:
            file.truncate(size)
        words = ["-q", "-F", "-t", "ext4", "-m", "0", *options]
        await asyncio.to_thread(host.run, ["mke2fs", *words, temporary])
