"""Write an OSv image as a disk that boots by BIOS, from a boot image that the user provides.

Sector 0 holds OSv's boot sector and the partition table. The command line follows. The compressed kernel is at 64 KiB,
the root file system (second partition) at the next multiple of 2 MiB and the configuration (third partition) after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drumhead.blobs import replacing
from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.layout import BLOCK
from drumhead.filesystem.rofs.root import partition_table, write_root
from drumhead.filesystem.rofs.writer import rofs_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.records import ImageFiles
    from drumhead.tree import Tree

COMMAND_LINE_SECTORS = 63
KERNEL_START = 64 << 10
ALIGN = 2 << 20


def write_osv_raw(files: ImageFiles, boot_image: bytes, cmdline: str, config: Tree, out: Path) -> None:
    """Write a raw disk to `out`. This blocks the calling thread.

    `boot_image` is OSv's loader.img. Raises UNSUPPORTED if the command line is too long.
    """
    line = cmdline.encode() + b"\0"
    room = COMMAND_LINE_SECTORS * BLOCK
    if len(line) > room:
        raise DrumheadError(
            ErrorCode.UNSUPPORTED, f"the command line has {len(line)} bytes; a disk has room for {room}"
        )
    partitions = []
    with replacing(out) as temporary, temporary.open("w+b") as disk:
        disk.seek(KERNEL_START)
        disk.write(boot_image[KERNEL_START:])
        for write in (lambda: write_root(files.layers, disk), lambda: disk.write(rofs_bytes(config))):
            start = disk.seek(_aligned(disk.tell()))
            write()
            partitions.append((start // BLOCK, (disk.tell() - start) // BLOCK))
        disk.truncate(_aligned(disk.tell()))
        disk.seek(0)
        disk.write(partition_table(partitions, boot_image[:BLOCK]) + line)


def _aligned(place: int) -> int:
    """Return the next offset at which a partition may start."""
    return -(-place // ALIGN) * ALIGN
