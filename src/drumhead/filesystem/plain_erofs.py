"""Write trees as erofs without compression, which machines mount instead of compressed layers made on this host.

The guest does not have to decompress anything, which is slow in an emulated processor and takes memory for buffers.
The format is described in Linux, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h. All inodes are extended
ones. The contents of each directory, link and file start at a block boundary: directories and links first, then files.
"""

from __future__ import annotations

import posixpath
import stat
import struct
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from drumhead.tree import Entry, Tree

BLOCK = 4096
MAGIC = 0xE0F5E1E2
SUPERBLOCK_OFFSET = 1024
SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI44x")
"""magic, checksum, compatible features, bits of a block, slots, root, inodes, time, nanoseconds, blocks, first block of
the inodes, of attributes, UUID, name, features that a reader has to know."""
INODE = struct.Struct("<HHHHQIIIIQII16x")
"""format, attributes, mode, unused, size, first block, number, owner, group, time, nanoseconds, links."""
EXTENDED_PLAIN = 1
"""An inode of 64 bytes, with contents in consecutive blocks."""
SLOTS = 2
"""The slots of 32 bytes that an inode takes. Inode numbers count slots; number 0 is unused, as it means "no file"."""
ENTRY = struct.Struct("<QHBB")
"""number, offset of the name, type, unused."""
MODES = {"directory": stat.S_IFDIR, "file": stat.S_IFREG, "symlink": stat.S_IFLNK}
TYPES = {"file": 1, "directory": 2, "symlink": 7}


def write_plain_erofs(tree: Tree, path: Path) -> None:
    """Write `tree` to `path`. Equal trees give equal bytes. This blocks the calling thread.

    Only one chunk of one file at a time is in memory. Raises CONFLICT if a file has changed since the tree was made.
    """
    nodes = [("", None), *tree]
    number = {name: index * SLOTS for index, (name, _) in enumerate(nodes, 1)}
    children: defaultdict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for name, entry in tree:
        children[posixpath.dirname(name)].append((name, entry))
    small = {name: _contents(name, entry, children[name], number) for name, entry in nodes if not _is_file(entry)}
    next_block = 1 + blocks((len(nodes) + 1) * INODE.size)
    inodes = bytearray(INODE.size)
    places: dict[str, int] = {}
    sizes = {name: len(small[name]) if name in small else entry.size for name, entry in nodes if entry or name in small}
    for name in [*small, *(name for name, entry in nodes if _is_file(entry))]:
        places[name] = next_block
        next_block += blocks(sizes[name])
    for name, entry in nodes:
        below = sum(one.kind == "directory" for _, one in children[name])
        inodes += _inode(entry, sizes[name], places[name], number[name], below)
    counts = (number[""], len(nodes), 0, 0, next_block)
    superblock = SUPERBLOCK.pack(MAGIC, 0, 0, BLOCK.bit_length() - 1, 0, *counts, 1, 0, bytes(16), bytes(16), 0)
    with path.open("wb") as out:
        out.write(padded(bytes(SUPERBLOCK_OFFSET) + superblock))
        out.write(padded(inodes))
        for contents in small.values():
            out.write(padded(contents))
        for _, entry in nodes:
            if entry and entry.kind == "file":
                out.writelines(entry.chunks())
                out.write(bytes(-entry.size % BLOCK))


def blocks(size: int) -> int:
    """Return how many blocks `size` bytes take."""
    return -(-size // BLOCK)


def padded(contents: bytes | bytearray) -> bytes:
    """Return `contents` with zeros up to the next whole block."""
    return bytes(contents) + bytes(-len(contents) % BLOCK)


def _is_file(entry: Entry | None) -> bool:
    return entry is not None and entry.kind == "file"


def _inode(entry: Entry | None, size: int, block: int, number: int, directories: int) -> bytes:
    """Return the inode of `entry`, or of the root if `entry` is None."""
    kind, mode, uid, gid = (entry.kind, entry.mode, entry.uid, entry.gid) if entry else ("directory", 0o755, 0, 0)
    links = 2 + directories if kind == "directory" else 1
    return INODE.pack(EXTENDED_PLAIN, 0, MODES[kind] | mode, 0, size, block, number, uid, gid, 0, 0, links)


def _contents(name: str, entry: Entry | None, below: list[tuple[str, Entry]], number: dict[str, int]) -> bytes:
    """Return the contents of a directory or of a link."""
    if entry and entry.kind == "symlink":
        return encoded(entry.target)
    listed = [(encoded(posixpath.basename(path)), number[path], TYPES[one.kind]) for path, one in below]
    above = number[posixpath.dirname(name)]
    listed += [(b".", number[name], TYPES["directory"]), (b"..", above, TYPES["directory"])]
    return _directory(sorted(listed))


def _directory(listed: list[tuple[bytes, int, int]]) -> bytes:
    """Return the blocks of a directory, the last one without padding. `listed` is sorted by name for binary search."""
    packed, block, size = bytearray(), list[tuple[bytes, int, int]](), 0
    for one in listed:
        if size + ENTRY.size + len(one[0]) > BLOCK:
            packed += padded(_entries(block))
            block, size = [], 0
        block.append(one)
        size += ENTRY.size + len(one[0])
    return bytes(packed) + _entries(block)


def _entries(block: list[tuple[bytes, int, int]]) -> bytes:
    """Return the entries of one block, followed by their names. A name ends where the next one starts."""
    packed, at = bytearray(), len(block) * ENTRY.size
    for name, number, kind in block:
        packed += ENTRY.pack(number, at, kind, 0)
        at += len(name)
    return bytes(packed) + b"".join(name for name, _, _ in block)


def encoded(text: str) -> bytes:
    """Return a name or a link's target as bytes, even if it is not UTF-8."""
    return text.encode(errors="surrogateescape")
