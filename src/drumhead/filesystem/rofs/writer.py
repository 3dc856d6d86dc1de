"""Write trees as ROFS in one pass, because the sizes of all files are known before the first byte is written."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drumhead.errors import DrumheadError, ErrorCode
from drumhead.filesystem.rofs.layout import (
    BLOCK,
    DIRECTORY,
    ENTRY,
    FILE,
    INODE,
    LINK,
    MAGIC,
    MAX_NAME,
    MAX_PATH,
    MOST_INODES,
    SUPERBLOCK,
    SYMLINK,
    VERSION,
    blocks_of,
    encode_name,
    padding,
    refused,
)
from drumhead.tree import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from drumhead.tree import Entry, Tree

ZEROS = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Structure:
    """A file system without the contents of its files. `superblock` is one block, `metadata` is a number of blocks."""

    superblock: bytes
    metadata: bytes


def write_rofs(tree: Tree, path: Path, written: Callable[[int], None] | None = None) -> None:
    """Write `tree` to `path` as a complete file system. Equal trees give equal bytes. This blocks the calling thread.

    Only one chunk of one file at a time is in memory. Runs of zeros become holes. `written` is called with the number
    of files and links written so far. Raises UNSUPPORTED for entries that ROFS cannot hold, CONFLICT if a file has
    changed since the tree was made.
    """
    with path.open("wb") as out:
        for chunk in _chunks(tree, written or (lambda _: None)):
            if len(chunk) == CHUNK and chunk == ZEROS:
                out.seek(CHUNK, 1)
            else:
                out.write(chunk)
        out.truncate()


def rofs_bytes(tree: Tree) -> bytes:
    """Return the file system of a small tree as bytes; see ``write_rofs``."""
    return b"".join(_chunks(tree, lambda _: None))


def build_structure(tree: Tree, blocks: Mapping[str, int], end: int) -> Structure:
    """Return the superblock and the metadata of `tree`.

    `blocks` maps every file that is not empty to its first block; the metadata start at block `end`. Inodes are
    numbered level by level and sorted within a directory, so the entries of one directory are contiguous.
    """
    children: defaultdict[str, list[tuple[str, Entry]]] = defaultdict(list)
    for path, node in tree:
        if node.uid or node.gid:
            raise DrumheadError(
                ErrorCode.UNSUPPORTED,
                f"/{path} belongs to {node.uid}:{node.gid}, but OSv's file system stores no owners",
            )
        children[posixpath.dirname(path)].append((path, node))
    entries, links, inodes = bytearray(), bytearray(), bytearray()
    link_count, last = 0, 1
    todo: list[tuple[str, Entry | None]] = [("", None)]
    for number, (path, entry) in enumerate(todo, 1):
        if entry is None or entry.kind == "directory":
            below = children.get(path, [])
            inodes += INODE.pack(DIRECTORY, number, last - 1, len(below))
            entries += _pack_directory(below, last + 1)
            last += len(below)
            todo += below
        elif entry.kind == "file":
            inodes += INODE.pack(FILE, number, blocks.get(path, 0), entry.size)
        else:
            target = encode_name(path, entry.target, MAX_PATH, "target")
            links += LINK.pack(len(target)) + target
            inodes += INODE.pack(SYMLINK, number, link_count, 1)
            link_count += 1
    if last > MOST_INODES:
        raise DrumheadError(ErrorCode.UNSUPPORTED, f"ROFS on OSv does not support {last} files")
    size = len(entries) + len(links) + len(inodes)
    superblock = SUPERBLOCK.pack(MAGIC, VERSION, BLOCK, end, blocks_of(size), last - 1, link_count, last)
    return Structure(superblock + padding(len(superblock)), bytes(entries + links + inodes) + padding(size))


def _pack_directory(below: list[tuple[str, Entry]], first: int) -> bytes:
    """Return the entries of one directory. Its children get inode numbers starting at `first`."""
    packed, names = bytearray(), set()
    for number, (path, _) in enumerate(below, first):
        if len(path) >= MAX_PATH // 4:
            encode_name(path, f"/{path}", MAX_PATH, "path")
        name = encode_name(path, posixpath.basename(path), MAX_NAME, "name")
        if name in names:
            raise refused(path, "another name in its directory has the same bytes")
        names.add(name)
        packed += ENTRY.pack(number, len(name)) + name
    return bytes(packed)


def _chunks(tree: Tree, written: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the bytes of the file system. Files with equal contents share their blocks."""
    blocks: dict[str, int] = {}
    known: dict[tuple[str, int], int] = {}
    contents: list[Entry] = []
    end = 1
    for path, entry in tree:
        if entry.kind == "file" and entry.size:
            key = entry.digest, entry.size
            if key not in known:
                known[key] = end
                contents.append(entry)
                end += blocks_of(entry.size)
            blocks[path] = known[key]
    structure = build_structure(tree, blocks, end)
    count = sum(entry.kind != "directory" for _, entry in tree) - len(contents)
    yield structure.superblock
    for done, entry in enumerate(contents, count + 1):
        yield from entry.chunks()
        yield padding(entry.size)
        written(done)
    yield structure.metadata
