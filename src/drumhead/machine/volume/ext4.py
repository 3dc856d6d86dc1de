"""Read ext4 on a raw disk from the host, to find out whether it was unmounted and which files have holes.

Source: the kernel's Documentation/filesystems/ext4. Only files mapped by blocks, as on disks made for
OSv, are examined. Files mapped by extents (made by Linux) describe their holes, and a guest that reads extents handles
them.
"""

from __future__ import annotations

import array
import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUPERBLOCK, MAGIC = 1024, 0xEF53
CLEAN, NEEDS_RECOVERY = 1, 4
WIDE, SCATTERED = 0x80, 0x10
"""Features: descriptors of 64 bytes, and descriptors that do not all follow the superblock (such disks are not
read)."""
REGULAR, KIND = 0x8000, 0xF000
NOT_BY_BLOCKS = 0x10080000
"""Flags of an inode whose blocks are extents, or whose contents are in the inode."""
LARGEST_SIZE = 6
"""The largest power of two by which 1 KiB is multiplied to get the size of a block: 64 KiB."""
INODE_SIZE, FIRST_INODE = 128, 11
"""The size of inodes and the first of files in the oldest format, which does not record them."""
DESCRIPTOR_SIZES = (32, 64, 128, 256, 512, 1024)
DIRECT = 12
"""Direct pointers in an inode. Three more lead to blocks of pointers, one to three levels deep."""


@dataclass(frozen=True, kw_only=True)
class Holes:
    """A file of `blocks` blocks, of which `missing` are holes."""

    inode: int
    blocks: int
    missing: int


@dataclass(frozen=True, kw_only=True)
class Superblock:
    """The superblock of an ext4 file system. Sizes are in bytes, `free` is in blocks."""

    state: int
    features: int
    inodes: int
    blocks: int
    free: int
    first: int
    block_size: int
    group_inodes: int
    first_inode: int
    inode_size: int
    descriptor_size: int

    @property
    def size(self) -> int:
        return self.blocks * self.block_size

    @property
    def was_not_unmounted(self) -> bool:
        """Whether the journal needs a replay or the file system is not marked clean."""
        return self.state != CLEAN or bool(self.features & NEEDS_RECOVERY)


def read_superblock(file: IO[bytes]) -> Superblock | None:
    """Return the superblock of an open disk, or None if there is no ext4, or one that cannot be true."""
    file.seek(SUPERBLOCK)
    block = file.read(SUPERBLOCK)
    if len(block) < SUPERBLOCK or struct.unpack_from("<H", block, 0x38)[0] != MAGIC:
        return None
    inodes, blocks, _, free, _, first, size = struct.unpack_from("<7I", block)
    (features,) = struct.unpack_from("<I", block, 0x60)
    if features & WIDE:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    is_old = struct.unpack_from("<I", block, 0x4C)[0] == 0
    found = Superblock(
        state=struct.unpack_from("<H", block, 0x3A)[0],
        features=features,
        inodes=inodes,
        blocks=blocks,
        free=free,
        first=first,
        block_size=1024 << min(size, LARGEST_SIZE + 1),
        group_inodes=struct.unpack_from("<I", block, 0x28)[0],
        first_inode=FIRST_INODE if is_old else struct.unpack_from("<I", block, 0x54)[0],
        inode_size=INODE_SIZE if is_old else struct.unpack_from("<H", block, 0x58)[0],
        descriptor_size=struct.unpack_from("<H", block, 0xFE)[0] if features & WIDE else 32,
    )
    return found if _is_possible(found, file.seek(0, os.SEEK_END)) else None


def _is_possible(about: Superblock, size: int) -> bool:
    """Return whether a disk of `size` bytes can hold this file system."""
    return (  # a guest may write anything
        about.block_size <= 1024 << LARGEST_SIZE
        and about.size <= size
        and about.first <= 1
        and 8 <= about.group_inodes <= 8 * about.block_size
        and about.inodes > 0
        and about.inodes % about.group_inodes == 0
        and INODE_SIZE <= about.inode_size <= about.block_size
        and about.inode_size & (about.inode_size - 1) == 0
        and about.inodes * about.inode_size <= size
        and about.descriptor_size in DESCRIPTOR_SIZES
    )


def is_ext4(disk: Path) -> bool:
    """Return whether a disk holds an ext4 file system (or ext2 or ext3, which the same driver mounts)."""
    with disk.open("rb") as file:
        return read_superblock(file) is not None


def was_not_unmounted(disk: Path) -> bool:
    """Return whether a disk holds an ext4 file system that was not unmounted."""
    with disk.open("rb") as file:
        found = read_superblock(file)
    return found is not None and found.was_not_unmounted


def find_holes(disk: Path) -> tuple[list[Holes], int]:
    """Return the files mapped by blocks that have holes, and the number of free blocks.

    The disk must be consistent. This reads used inodes and blocks of pointers (26 MB for 100,000 files) and blocks the
    calling thread. Raises USAGE for a damaged disk.
    """
    with disk.open("rb") as file:
        found = read_superblock(file)
        if found is None or found.features & SCATTERED:
            return [], 0
        try:
            files = [_holes(file, found, number, inode) for number, inode in _inodes(file, found)]
        except (struct.error, ValueError, IndexError, OverflowError) as error:
            message = f"the ext4 file system on {disk} is damaged; `e2fsck -f {disk}` repairs it"
            raise DrumheadError(ErrorCode.USAGE, message) from error
        return [one for one in files if one is not None and one.missing], found.free


def _inodes(file: IO[bytes], about: Superblock) -> Iterator[tuple[int, bytes]]:
    """Yield used inodes with their numbers, except the inodes of the file system itself."""
    groups = -(-about.inodes // about.group_inodes)
    file.seek((about.first + 1) * about.block_size)
    table = file.read(groups * about.descriptor_size)
    for group in range(groups):
        at = group * about.descriptor_size
        bitmap, start = struct.unpack_from("<II", table, at + 4)
        if about.descriptor_size >= 64:
            high, higher = struct.unpack_from("<II", table, at + 0x24)
            bitmap, start = bitmap | high << 32, start | higher << 32
        file.seek(bitmap * about.block_size)
        used = int.from_bytes(file.read(about.group_inodes // 8), "little")
        file.seek(start * about.block_size)
        inodes = file.read(used.bit_length() * about.inode_size)
        while used:
            place = (used & -used).bit_length() - 1
            used &= used - 1
            number = group * about.group_inodes + place + 1
            if number >= about.first_inode:
                yield number, inodes[place * about.inode_size : (place + 1) * about.inode_size]


def _holes(file: IO[bytes], about: Superblock, number: int, inode: bytes) -> Holes | None:
    mode, links = struct.unpack_from("<H", inode)[0], struct.unpack_from("<H", inode, 0x1A)[0]
    (flags,) = struct.unpack_from("<I", inode, 0x20)
    if mode & KIND != REGULAR or not links or flags & NOT_BY_BLOCKS:
        return None
    size = struct.unpack_from("<I", inode, 4)[0] | struct.unpack_from("<I", inode, 0x6C)[0] << 32
    blocks = -(-size // about.block_size)
    pointers = struct.unpack_from("<15I", inode, 0x28)
    missing, left = pointers[: min(DIRECT, blocks)].count(0), blocks - DIRECT
    for level, pointer in enumerate(pointers[DIRECT:], 1):
        if left <= 0:
            break
        room = (about.block_size // 4) ** level
        missing += _missing(file, about, pointer, level, min(left, room))
        left -= room
    return Holes(inode=number, blocks=blocks, missing=missing)


def _missing(file: IO[bytes], about: Superblock, pointer: int, level: int, count: int) -> int:
    """Return how many of the first `count` content blocks of a block of pointers are holes."""
    if pointer == 0:
        return count
    file.seek(pointer * about.block_size)
    pointers = array.array("I", file.read(about.block_size))
    if level == 1:
        return pointers[:count].count(0)
    room = (about.block_size // 4) ** (level - 1)
    parts = ((pointers[number // room], min(room, count - number)) for number in range(0, count, room))
    return sum(_missing(file, about, one, level - 1, size) for one, size in parts)
