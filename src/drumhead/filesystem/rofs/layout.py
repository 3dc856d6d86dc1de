"""ROFS, version 1, as bytes. Everything is little-endian, in blocks of 512 bytes, counted from the file system's start.

A superblock, the contents of files, then the metadata: directory entries, symbolic links and inodes, one packed after
the other and filled up to a block. A file's contents begin at a block and are filled up to one; an empty file has
none. Inode n is the nth; the first is the root. ``.`` and ``..`` are not stored, nor are owners, modes and times.
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
"""Kind, number, place, count: first block and bytes of a file, first entry and entries of a directory, link and 1."""
ENTRY = struct.Struct("<QH")
"""Inode number and length of the name, which follows."""
LINK = struct.Struct("<H")
"""Length of the target, which follows."""
DIRECTORY = 0x4000
FILE = 0x8000
SYMLINK = 0xA000
MAX_NAME = 255
"""What the guest's readdir(3) can say."""
MAX_PATH = 4095
"""What the guest can open, in bytes."""
MAX_SHOWN = 200
MOST_INODES = (1 << 31) - 1
"""The guest looks inodes up by a signed 32-bit number."""


def blocks_of(size: int) -> int:
    """The blocks that `size` bytes take."""
    return -(-size // BLOCK)


def padding(size: int) -> bytes:
    """The zeros that fill `size` bytes up to a block."""
    return bytes(-size % BLOCK)


def encode_name(path: str, text: str, limit: int, what: str) -> bytes:
    """A name or a link's target as it is stored. Raises UNSUPPORTED for what the format or the guest cannot hold."""
    try:
        encoded = text.encode(errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise refused(path, f"its {what} is no text that a disk can hold") from error
    if not encoded or b"\0" in encoded:
        raise refused(path, f"its {what} is empty or has a zero byte")
    if len(encoded) > limit:
        raise refused(path, f"its {what} has {len(encoded)} bytes, and ROFS on OSv has room for {limit}")
    return encoded


def refused(path: str, reason: str) -> DrumheadError:
    """The error for what cannot be stored at `path`."""
    shown = path if len(path) <= MAX_SHOWN else f"{path[:MAX_SHOWN]}…"
    return DrumheadError(ErrorCode.UNSUPPORTED, f"{'/' + shown!a}: {reason}; rename it or leave it out")
