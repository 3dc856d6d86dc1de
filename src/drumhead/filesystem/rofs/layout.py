"""The layout of ROFS version 1. Integers are little-endian; block numbers count 512 bytes from the file system's start.

A superblock is followed by the contents of files and then by the metadata: directory entries, symbolic links and
inodes, packed and padded to a block. A file's contents start at a block and are padded to a block; an empty file has
none. Inodes are numbered from 1, the root. ``.``, ``..``, owners, modes and times are not stored.
"""

from __future__ import annotations

import struct

from drumhead.errors import DrumheadError, ErrorCode

BLOCK = 512
MAGIC = 0xDEADBEAD
VERSION = 1
SUPERBLOCK = struct.Struct("<8Q")
"""Magic, version, block size, first block of the metadata, its blocks, directory entries, symbolic links, inodes."""
INODE = struct.Struct("<4Q")
"""Kind, number, position and count: a file's first block and bytes; a directory's first entry and number of entries;
a symbolic link's index and 1.
"""
ENTRY = struct.Struct("<QH")
"""Inode number and length of the name. The name follows."""
LINK = struct.Struct("<H")
"""Length of the target. The target follows."""
DIRECTORY = 0x4000
FILE = 0x8000
SYMLINK = 0xA000
MAX_NAME = 255
"""The longest name that the guest's readdir(3) returns."""
MAX_PATH = 4095
"""The longest path that the guest can open, in bytes."""
MAX_SHOWN = 200
MOST_INODES = (1 << 31) - 1
"""The limit of the signed 32-bit numbers by which the guest looks inodes up."""


def blocks_of(size: int) -> int:
    """Return the number of blocks that `size` bytes take."""
    return -(-size // BLOCK)


def padding(size: int) -> bytes:
    """Return the zeros that pad `size` bytes to a block."""
    return bytes(-size % BLOCK)


def encode_name(path: str, text: str, limit: int, what: str) -> bytes:
    """Return a name or a link's target as it is stored.

    Raises UNSUPPORTED if the format or the guest does not support it.
    """
    try:
        encoded = text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise refused(path, f"its {what} cannot be encoded") from error
    if not encoded or b"\0" in encoded:
        raise refused(path, f"its {what} is empty or has a zero byte")
    if len(encoded) > limit:
        raise refused(path, f"its {what} has {len(encoded)} bytes, more than the {limit} that ROFS on OSv supports")
    return encoded


def refused(path: str, reason: str) -> DrumheadError:
    """Return the error for an entry at `path` that cannot be stored."""
    shown = path if len(path) <= MAX_SHOWN else f"{path[:MAX_SHOWN]}…"
    return DrumheadError(ErrorCode.UNSUPPORTED, f"{'/' + shown!a}: {reason}; rename it or leave it out")
