"""Create, check and open data disks with ext4: named volumes, disks of the user, and overlay disks."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from drumhead import host
from drumhead.blobs import TEMPORARY, exclusive, replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.guest import require
from drumhead.guest.contract import Drive, GuestMount
from drumhead.home import entry, expanded, make_private
from drumhead.machine.instances import FLOCK
from drumhead.machine.spec.options import MIN_DISK
from drumhead.machine.volume import ext4
from drumhead.machine.volume.formats import disk_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drumhead.guest import Guest
    from drumhead.home import Home
    from drumhead.machine.records import Instance, VolumeMount

log = logging.getLogger(__name__)

OVERLAY = "overlay.raw"
"""The disk in an instance's directory that the machine writes to."""
OVERLAY_SERIAL = "overlay"
DEFAULT_SIZE = 1 << 30
LEAST_GROWTH = MIN_DISK
"""The least number of bytes by which a volume grows. The end of a disk stays unused if it is too short for the file
system's tables, which take less than this.
"""
LOCK = "disks.lock"
"""A file beside disks that is locked while one of them is created."""
CHECK_TIME = 3600.0
REPAIRED = (0, 1, 2)
"""Exit statuses of e2fsck after which the disk is consistent."""


def volume_path(home: Home, volume: VolumeMount) -> Path:
    """Return the path of a volume's disk: below the home for a named volume, otherwise the path that the user gave."""
    if "/" in volume.source:
        return expanded(volume.source, "write the whole path of the disk")
    return home.volumes / f"{volume.source}.raw"


def refuse_shared_disks(home: Home, volumes: tuple[VolumeMount, ...], name: str, running: Iterable[Instance]) -> None:
    """Check that each disk has one writer or any number of readers. Raises CONFLICT with the other instance's name."""
    wanted = {volume_path(home, volume).resolve(): volume for volume in volumes}
    for instance in running:
        spec = instance.launch.spec
        if not instance.pid or spec.name == name:
            continue
        for theirs in spec.volumes:
            mine = wanted.get(volume_path(home, theirs).resolve())
            if mine is not None and not (mine.readonly and theirs.readonly):
                raise DrumheadError(ErrorCode.CONFLICT, f"volume {mine.source} is in use by {spec.name}; stop it first")


async def open_volumes(
    home: Home, volumes: tuple[VolumeMount, ...], guest: Guest
) -> tuple[tuple[Drive, ...], tuple[GuestMount, ...]]:
    """Return the disks of `volumes` and their mounts. Missing disks are created, uncleanly closed ones are repaired,
    and smaller ones are enlarged.

    Raises UNSUPPORTED if `guest` does not support one of them, CONFLICT if one that needs repair is in use, NOT_FOUND,
    USAGE, HOST_TOOL.
    """
    if len(volumes) > 1:
        require(guest, "second-volume")
    if any(volume.readonly for volume in volumes):
        require(guest, "readonly-volume")
    drives, mounts = [], []
    for number, volume in enumerate(volumes):
        path = volume_path(home, volume)
        if not path.exists():
            if "/" in volume.source:
                raise DrumheadError(
                    ErrorCode.NOT_FOUND, f"there is no disk {path}; a name without a slash creates a new volume"
                )
            await _make_volume(home, path, volume.size or DEFAULT_SIZE, guest)
        form = await asyncio.to_thread(_check_disk, path, volume)
        if form == "raw":
            await asyncio.to_thread(_mend_disk, path, guest, volume)
        if form == "qcow2":
            require(guest, "qcow2-volume")
        serial = f"volume-{number}"
        drives.append(Drive(path=path, format=form, serial=serial, readonly=volume.readonly))
        mounts.append(GuestMount(serial=serial, path=volume.path, readonly=volume.readonly))
    return tuple(drives), tuple(mounts)


def _check_disk(path: Path, volume: VolumeMount) -> Literal["raw", "qcow2"]:
    """Return the format of a disk that a machine can mount. Raises USAGE for others. This blocks the calling thread."""
    if path.is_dir():
        raise DrumheadError(
            ErrorCode.USAGE,
            f"{path} is a directory, and a volume is a disk; a name without a slash creates one "
            f"({path.name or 'data'}:{volume.path}). Files of this host belong in the image",
        )
    form = disk_format(path)
    if form == "raw" and not ext4.is_ext4(path):
        advice = "give one that has, or a name to create one"
        if "/" not in volume.source:  # drumhead has made it, so it is damaged
            advice = (
                f"`e2fsck {path}` may find it again; otherwise put a copy of the disk there, or "
                f"`drumhead volume delete {volume.source}` and begin anew"
            )
        raise DrumheadError(ErrorCode.USAGE, f"the disk {path} has no ext4 file system; {advice}")
    return form


async def create_volume(home: Home, name: str, size: int, guest: Guest) -> None:
    """Create an empty named volume of `size` bytes. Raises CONFLICT if it exists."""
    path = home.volumes / f"{name}.raw"
    if path.exists() or not await _make_volume(home, path, size, guest):
        raise DrumheadError(ErrorCode.CONFLICT, f"the volume {name} already exists; choose another name")


async def _make_volume(home: Home, path: Path, size: int, guest: Guest) -> bool:
    """Create a named volume. Return False if another command has created it in the meantime."""
    make_private(home.volumes)
    return await make_disk(path, size, guest.volume_options)


def delete_volume(home: Home, name: str, instances: Iterable[Instance]) -> None:
    """Delete a named volume and its data. Raises NOT_FOUND, and CONFLICT if an instance uses it."""
    path = entry(home.volumes, name, "volume").with_name(f"{name}.raw")
    if not path.exists():
        raise DrumheadError(ErrorCode.NOT_FOUND, f"there is no volume {name}")
    for instance in instances:
        spec = instance.launch.spec
        if any(volume_path(home, volume) == path for volume in spec.volumes):
            raise DrumheadError(ErrorCode.CONFLICT, f"{spec.name} uses the volume {name}; delete that instance first")
    path.unlink()


def overlay_drive(directory: Path) -> Drive:
    """Return the disk that the machine in `directory` writes to."""
    return Drive(path=directory / OVERLAY, format="raw", serial=OVERLAY_SERIAL, readonly=False)


async def make_overlay(directory: Path, size: int, guest: Guest) -> None:
    """Make the disk of ``overlay_drive``, with `size` bytes. It is kept between starts."""
    if not (directory / OVERLAY).exists():
        await make_disk(directory / OVERLAY, size, guest.volume_options)


def _mend_disk(path: Path, guest: Guest, volume: VolumeMount) -> None:
    """Make a raw disk one that `guest` can mount. A disk that was not unmounted cannot even be mounted read-only."""
    if volume.readonly and not ext4.was_not_unmounted(path):
        return
    with _claimed(path):
        repair_disk(path)
        if not volume.readonly:
            grow_disk(path, volume.size)
        if not volume.readonly and "holes" in guest.unsupported:
            fill_holes(path)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold the lock that QEMU needs for a disk, because changing the disk of a running machine destroys its files.

    Raises CONFLICT if a machine, perhaps of another home, uses the disk, or if another command is preparing it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            # This lock belongs to the open file. One of the process would end as soon as the disk is closed anywhere.
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except BlockingIOError as error:
            message = f"another machine or command uses the disk {path}; stop it first"
            raise DrumheadError(ErrorCode.CONFLICT, message) from error
        yield
    finally:
        os.close(handle)


def repair_disk(path: Path) -> None:
    """Repair a raw disk that was not unmounted, as Linux does at boot. OSv cannot do it and writes no journal.

    This needs no root and blocks the calling thread. Raises HOST_TOOL with e2fsck's message if the repair fails.
    """
    if not ext4.was_not_unmounted(path):
        return
    try:
        host.run(["e2fsck", "-p", path], timeout=CHECK_TIME, accepted=REPAIRED)
    except DrumheadError:
        # -p refuses to decide about some damage, such as files without a name; -y moves those to lost+found.
        host.run(["e2fsck", "-y", path], timeout=CHECK_TIME, accepted=REPAIRED)
        log.warning("The disk %s was damaged. e2fsck has repaired it; files may be missing or in lost+found.", path)


def grow_disk(path: Path, size: int) -> None:
    """Enlarge a consistent raw disk and its file system to `size` bytes, if it is smaller.

    This needs no root and blocks the calling thread. Raises HOST_TOOL.
    """
    with path.open("rb") as file:
        found = ext4.read_superblock(file)
    if found is None or size - found.size < LEAST_GROWTH:
        return
    host.run(["e2fsck", "-f", "-p", path], timeout=CHECK_TIME, accepted=REPAIRED)
    host.run(["resize2fs", path, f"{size >> 10}K"], timeout=CHECK_TIME)


def fill_holes(path: Path) -> None:
    """Fill the holes in the files of a raw ext4 disk with zeros. This needs no root and blocks the calling thread.

    A power cut leaves holes if a file's size was flushed and its map was not; programs on Linux create them on
    purpose. Raises UNSUPPORTED if there is not enough free space.
    """
    files, free = ext4.find_holes(path)
    if not files:
        return
    missing = sum(file.missing for file in files)
    # Blocks of pointers are needed as well, at most one for 256 blocks.
    if missing + missing // 128 + 8 * len(files) > free:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED,
            f"volume {path.stem} has {len(files)} files with holes, which this guest does not support, and not enough"
            f" space to fill them ({missing} blocks, {free} are free); remove or copy these files in a Linux machine",
        )
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs") as orders:
        orders.writelines(f"fallocate <{file.inode}> 0 {file.blocks - 1}\n" for file in files)
        orders.flush()
        host.run(["debugfs", "-w", "-f", orders.name, path], timeout=CHECK_TIME)
    left, _ = ext4.find_holes(path)
    if left:
        raise DrumheadError(ErrorCode.HOST_TOOL, f"debugfs left holes in {len(left)} files of volume {path.stem}")


async def make_disk(path: Path, size: int, options: tuple[str, ...]) -> bool:
    """Create an empty ext4 disk with these `options` of mke2fs. Return False if another command has just created it.

    It takes space on the host only as it fills, and appears complete, by rename.
    """
    if size < MIN_DISK:
        raise DrumheadError(
            ErrorCode.USAGE, f"{path.stem} would have {size} bytes; a disk needs at least {MIN_DISK >> 20}M"
        )
    return await asyncio.to_thread(_make_disk, path, size, options)


def sweep_volumes(home: Home) -> None:
    """Remove the temporary files of commands that were killed while they created a volume."""
    with exclusive(home.volumes / LOCK):
        for file in home.volumes.glob(f"{TEMPORARY}*"):
            file.unlink()


def _make_disk(path: Path, size: int, options: tuple[str, ...]) -> bool:
    # A machine may already write to a disk of this name, so it must not be replaced.
    with exclusive(path.with_name(LOCK)):
        if path.exists():
            return False
        with replacing(path, mode=0o600) as temporary:
            with temporary.open("r+b") as file:
                file.truncate(size)
            host.run(["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", *options, temporary])
    return True
