"""A reader of ROFS, version 1, written from the description of the format. It shares no code with the writer.

It checks all rules of the format: numbers are in bounds, files do not overlap, every inode has exactly one name, and
padding is zero. A violation raises AssertionError.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field


@dataclass
class Rofs:
    """The contents of a disk. Names and targets are bytes; paths have no leading slash."""

    directories: set[bytes] = field(default_factory=set)
    links: dict[bytes, bytes] = field(default_factory=dict)
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """The first block and the size of every file."""
    gaps: int = 0
    """The number of blocks between superblock and metadata that no file uses."""
    source: io.BufferedIOBase | None = None
    start: int = 0

    def read(self, path: bytes) -> bytes:
        """Return a file's bytes; assert that the rest of its last block is zero."""
        first, size = self.places[path]
        self.source.seek(self.start + first * 512)
        contents = self.source.read(size)
        assert len(contents) == size, f"{path} is cut off"
        if size:
            rest = self.source.read(-size % 512)
            assert rest == bytes(-size % 512), f"{path} is not padded with zeros"
        return contents


def read_rofs(source, start: int = 0, length: int | None = None) -> Rofs:
    """Read the file system of `length` bytes at `start` of a binary file; without `length`, it extends to the end."""
    size = source.seek(0, 2)
    length = size - start if length is None else length
    assert start + length <= size
    source.seek(start)
    block = source.read(512)
    magic, version, unit, first, count, entry_count, link_count, inode_count = struct.unpack("<8Q", block[:64])
    assert (magic, version, unit) == (0xDEADBEAD, 1, 512)
    assert block[64:] == bytes(448)
    assert first >= 1
    assert (first + count) * 512 == length, "the metadata are not the end of the file system"
    source.seek(start + first * 512)
    metadata = io.BytesIO(source.read(count * 512))
    entries = []
    for _ in range(entry_count):
        number, name_length = struct.unpack("<QH", metadata.read(10))
        entries.append((number, metadata.read(name_length)))
    targets = [metadata.read(struct.unpack("<H", metadata.read(2))[0]) for _ in range(link_count)]
    inodes = [struct.unpack("<4Q", metadata.read(32)) for _ in range(inode_count)]
    rest = metadata.read()
    assert len(rest) < 512
    assert not rest.strip(b"\0")
    assert all(inode[1] == index for index, inode in enumerate(inodes, 1))
    disk = Rofs(source=source, start=start)
    _walk(disk, entries, targets, inodes)
    disk.gaps = _check_extents(disk, first)
    return disk


def _walk(disk, entries, targets, inodes):
    seen, used_entries, used_links = {1}, set(), set()
    assert inodes[0][0] == 0x4000, "the root is not a directory"
    todo = [(b"", 1)]
    while todo:
        path, number = todo.pop()
        mode, _, place, count = inodes[number - 1]
        if mode == 0x4000:
            disk.directories.add(path)
            assert place + count <= len(entries)
            mine = range(place, place + count)
            assert not used_entries & set(mine), "two directories share entries"
            used_entries.update(mine)
            names = [entries[index][1] for index in mine]
            assert len(set(names)) == len(names), f"{path} has two entries with one name"
            assert names == sorted(names, key=lambda name: name.decode(errors="surrogateescape"))
            for child, name in (entries[index] for index in mine):
                assert name not in {b"", b".", b".."}
                assert not {0, ord("/")} & set(name)
                assert len(name) < 256
                assert 1 <= child <= len(inodes)
                assert child not in seen, "an inode has two names"
                seen.add(child)
                todo.append((path + b"/" * bool(path) + name, child))
        elif mode == 0xA000:
            assert count == 1
            assert place not in used_links
            used_links.add(place)
            assert targets[place]
            disk.links[path] = targets[place]
        else:
            assert mode == 0x8000
            disk.places[path] = (place, count)
    assert len(seen) == len(inodes), "an inode has no name"
    assert len(used_entries) == len(entries), "an entry is in no directory"
    assert len(used_links) == len(targets), "a link target is not used"
    disk.directories.discard(b"")


def _check_extents(disk, end):
    """Check that files lie between superblock and metadata; two overlap only if they have the same extent."""
    extents = sorted({(place, -(-size // 512)) for place, size in disk.places.values() if size})
    at, gaps = 1, 0
    for place, count in extents:
        assert place >= at, "two files overlap"
        gaps += place - at
        at = place + count
    assert at <= end, "a file reaches into the metadata"
    return gaps + end - at


def contents_of(disk: Rofs) -> dict[bytes, tuple[str, bytes]]:
    """Return the contents of a disk: for each path the kind, and a file's bytes or a link's target."""
    return {
        **dict.fromkeys(disk.directories, ("directory", b"")),
        **{path: ("symlink", target) for path, target in disk.links.items()},
        **{path: ("file", disk.read(path)) for path in disk.places},
    }
