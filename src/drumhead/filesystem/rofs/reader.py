"""Read the structure of a layer: the superblock, and the metadata as a tree of files with their blocks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.layout import (
    BLOCK,
    DIRECTORY,
    ENTRY,
    FILE,
    INODE,
    LINK,
    MAGIC,
    MAX_PATH,
    SUPERBLOCK,
    SYMLINK,
    VERSION,
)
from drumhead.tree import Entry, Tree, directory, symlink

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Superblock:
    """Block numbers and counts; see ``layout.SUPERBLOCK``. The contents of files take blocks 1 to `metadata` - 1."""

    metadata: int
    metadata_blocks: int
    entries: int
    links: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Stored(Entry):
    """A file of a layer, with its size and its first block (0 if it is empty)."""

    block: int = 0


def read_superblock(block: bytes, path: Path) -> Superblock:
    """Return the superblock in `block`, which was read from `path`. Raises UNVERIFIED if it is not a superblock."""
    if len(block) < SUPERBLOCK.size:
        raise _damaged(path)
    magic, version, size, *numbers = SUPERBLOCK.unpack_from(block)
    if (magic, version, size) != (MAGIC, VERSION, BLOCK) or numbers[0] < 1:
        raise _damaged(path)
    return Superblock(*numbers)


def read_data_blocks(path: Path) -> int:
    """Return the number of blocks that the contents of a layer's files take. Raises UNVERIFIED."""
    with path.open("rb") as file:
        return read_superblock(file.read(BLOCK), path).metadata - 1


def read_layer(path: Path, start: int = 1) -> tuple[Tree, int]:
    """Return the tree of a layer, with files as ``Stored`` entries, and the block after their contents.

    Block numbers are shifted as if the contents started at block `start`; in the layer they start at 1. This reads only
    the metadata, and blocks the calling thread. Raises UNVERIFIED for a damaged layer.
    """
    with path.open("rb") as file:
        top = read_superblock(file.read(BLOCK), path)
        try:
            return _build(*_read_tables(file, top), start - 1), start + top.metadata - 1
        except (struct.error, IndexError, OverflowError) as error:
            raise _damaged(path) from error


Tables = tuple[list[tuple[int, str]], list[str], list[tuple[int, int, int, int]]]
"""Directory entries (inode number and name), targets of links, and inodes."""


def _read_tables(file: IO[bytes], top: Superblock) -> Tables:
    file.seek(top.metadata * BLOCK)
    metadata = file.read(top.metadata_blocks * BLOCK)
    at = 0
    entries = []
    for _ in range(top.entries):
        number, length = ENTRY.unpack_from(metadata, at)
        at += ENTRY.size + length
        entries.append((number, metadata[at - length : at].decode(errors="surrogateescape")))
    links = []
    for _ in range(top.links):
        (length,) = LINK.unpack_from(metadata, at)
        at += LINK.size + length
        links.append(metadata[at - length : at].decode(errors="surrogateescape"))
    end = at + top.inodes * INODE.size
    if end > len(metadata):
        raise IndexError
    return entries, links, list(INODE.iter_unpack(metadata[at:end]))


def _build(
    entries: list[tuple[int, str]], links: list[str], inodes: list[tuple[int, int, int, int]], shift: int
) -> Tree:
    tree = Tree()
    todo = [("", inodes[0])]
    seen = 0
    for path, (_, _, first, count) in todo:
        seen += count
        if seen > len(entries):  # directories share entries, and could have any number of files
            raise IndexError
        for number, name in entries[first : first + count]:
            inode = inodes[number - 1]
            kind, _, place, size = inode
            here = f"{path}/{name}" if path else name
            if len(here) > MAX_PATH:
                raise IndexError
            if kind == DIRECTORY:
                tree.add(here, directory())
                todo.append((here, inode))
            elif kind == FILE:
                tree.add(here, Stored("file", 0o644, size, block=place + shift if size else 0))
            elif kind == SYMLINK:
                tree.add(here, symlink(links[place]))
            else:
                raise IndexError
    return tree


def _damaged(path: Path) -> DrumheadError:
    return DrumheadError(ErrorCode.UNVERIFIED, f"{path} is not a ROFS layer or is damaged; delete it and compose again")
