"""The structure of TIFF files and EXIF blocks: directories of tagged values (TIFF 6.0; BigTIFF)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MOST_ENTRIES = 4096
_MOST_DIRECTORIES = 64
_MOST_VALUES = 1 << 20
_LAYOUTS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_LAYOUTS |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
_SIZES = {kind: struct.calcsize("=" + layout) for kind, layout in _LAYOUTS.items()}
_MAGICS = {42, 43, 85, 0x4F52, 0x5352}  # TIFF, BigTIFF, Panasonic's and Olympus' raw files

Value = tuple[int | float, ...] | bytes


class StructureError(ValueError):
    """An offset or a size that the file cannot hold."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tagged value: its type (TIFF 6.0, section 2), the number of values, and the offset of its bytes.

    `at` is where the entry itself lies.
    """

    kind: int
    count: int
    start: int
    size: int
    at: int


class Directory:
    """One directory at `offset`. `next` is the offset of the next one (0: none)."""

    def __init__(self, structure: Structure, offset: int, entries: dict[int, Entry], following: int) -> None:
        self._structure = structure
        self.offset = offset
        self.entries = entries
        self.next = following

    def __contains__(self, tag: int) -> bool:
        return tag in self.entries

    def raw(self, tag: int) -> bytes:
        """Return the bytes of a value, b"" if it is absent. Raises StructureError if they lie outside the file."""
        entry = self.entries.get(tag)
        if entry is None:
            return b""
        if entry.start + entry.size > len(self._structure.data):
            raise StructureError(f"tag {tag} lies past the end of the file")
        return bytes(self._structure.data[entry.start : entry.start + entry.size])

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the integers of a value, () if it is absent or of another type. Raises StructureError like `raw`."""
        entry = self.entries.get(tag)
        if entry is None or _LAYOUTS.get(entry.kind, "s") not in "BHIQbhiq" or entry.count > _MOST_VALUES:
            return ()
        return struct.unpack(f"{self._structure.order}{entry.count}{_LAYOUTS[entry.kind]}", self.raw(tag))

    def value(self, tag: int, default: int = 0) -> int:
        """Return the first integer of a value."""
        return next(iter(self.values(tag)), default)

    def text(self, tag: int) -> str:
        """Return a text up to its terminating NUL."""
        return self.raw(tag).split(b"\0")[0].decode("latin-1").strip()


class Structure:
    """A TIFF structure. Raises StructureError if the bytes do not begin like one."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data).cast("B")
        head = bytes(self.data[:16])
        if head[:2] not in {b"II", b"MM"} or len(head) < 8:
            raise StructureError("no byte order at the start")
        self.order = "<" if head[:2] == b"II" else ">"
        (self.magic,) = struct.unpack_from(self.order + "H", head, 2)
        if self.magic not in _MAGICS:
            raise StructureError("no TIFF version at the start")
        self.big = self.magic == 43
        if self.big and len(head) < 16:
            raise StructureError("the header is cut off")
        self._word = "Q" if self.big else "I"
        (self.first,) = struct.unpack_from(self.order + self._word, head, 8 if self.big else 4)

    def directory(self, offset: int) -> Directory:
        """Read the directory at an offset. Raises StructureError if it does not fit into the file."""
        count_layout, size, inline = ("Q", 20, 8) if self.big else ("H", 12, 4)
        count = self._number(count_layout, offset)
        if count > _MOST_ENTRIES:
            raise StructureError(f"the directory at byte {offset} has {count} entries")
        start = offset + struct.calcsize("=" + count_layout)
        entries: dict[int, Entry] = {}
        for at in range(start, start + count * size, size):
            tag, kind = self._number("H", at), self._number("H", at + 2)
            values = self._number(self._word, at + 4)
            where = at + (12 if self.big else 8)
            length = _SIZES.get(kind, 1) * values
            start_of_values = where if length <= inline else self._number(self._word, where)
            entries.setdefault(tag, Entry(kind, values, start_of_values, length, at))
        try:
            following = self._number(self._word, start + count * size)
        except StructureError:
            following = 0  # the last directory often lacks it
        return Directory(self, offset, entries, following)

    def chain(self, offset: int | None = None) -> Iterator[Directory]:
        """Read directories in turn, at most a few dozen, starting at an offset or at the first one."""
        offset = self.first if offset is None else offset
        seen: set[int] = set()
        while offset and offset not in seen and len(seen) < _MOST_DIRECTORIES:
            seen.add(offset)
            directory = self.directory(offset)
            yield directory
            offset = directory.next

    def holding_only(self, directory: Directory, tags: frozenset[int]) -> bytes:
        """Return a copy of the file with only this directory, and in it only the values with the given tags."""
        size, count_layout = (20, "Q") if self.big else (12, "H")
        found = (directory.entries[tag] for tag in sorted(directory.entries.keys() & tags))
        kept = [self.data[entry.at : entry.at + size] for entry in found]
        start = len(self.data) + len(self.data) % 2
        head = bytearray(self.data[: 16 if self.big else 8])
        struct.pack_into(self.order + self._word, head, 8 if self.big else 4, start)
        padding = bytes(start - len(self.data))
        count = struct.pack(self.order + count_layout, len(kept))
        return b"".join((head, self.data[len(head) :], padding, count, *kept, bytes(8)))

    def holding(self, directory: Directory, tag: int, values: tuple[int, ...]) -> bytes:
        """Return a copy of the file with other integers for a tag of the directory, as many as it has now."""
        entry = directory.entries[tag]
        written = struct.pack(f"{self.order}{entry.count}{_LAYOUTS[entry.kind]}", *values)
        return b"".join((self.data[: entry.start], written, self.data[entry.start + entry.size :]))

    def _number(self, layout: str, at: int) -> int:
        if at < 0 or at + struct.calcsize("=" + layout) > len(self.data):
            where = "before the beginning" if at < 0 else "past the end"
            raise StructureError(f"an offset leads to byte {at}, {where} of the file")
        return int(struct.unpack_from(self.order + layout, self.data, at)[0])


def reordered(raw: bytes, kind: int, order: str, wanted: str) -> bytes:
    """Convert the bytes of values of a type from one byte order to another."""
    width = struct.calcsize("=" + _LAYOUTS.get(kind, "s")[0])
    if order == wanted or width == 1:
        return raw
    return b"".join(raw[at : at + width][::-1] for at in range(0, len(raw), width))
