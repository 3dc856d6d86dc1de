"""Whether a TIFF is whole. libtiff shows what it finds of a file that was cut off, often without an error."""

from __future__ import annotations

import struct

from safelight.errors import Code, Error

_OFFSETS, _LENGTHS = {273, 324}, {279, 325}  # of strips, of tiles
_KINDS = {3: "H", 4: "I", 16: "Q"}


def check_complete(data: memoryview) -> None:
    """Read the first directory (TIFF 6.0, section 2; BigTIFF): Error(DAMAGED_IMAGE) if pixels lie past the end."""
    try:
        end = _end_of_pixels(data)
    except struct.error:
        end = len(data) + 1
    if end > len(data):
        raise Error(Code.DAMAGED_IMAGE, "The TIFF file is cut off.")


def _end_of_pixels(data: memoryview) -> int:
    order = "<" if data[0] == ord("I") else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, count, entry, inline = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    (directory,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, directory)
    start = directory + struct.calcsize(count)
    found: dict[str, tuple[int, ...]] = {}
    for at in range(start, start + entries * entry, entry):
        tag, kind, values = struct.unpack_from(order + "HH" + word, data, at)
        if tag in _OFFSETS | _LENGTHS and kind in _KINDS:
            layout = f"{order}{values}{_KINDS[kind]}"
            fits = struct.calcsize(layout) <= entry - inline
            where = at + inline if fits else struct.unpack_from(order + word, data, at + inline)[0]
            found["offsets" if tag in _OFFSETS else "lengths"] = _read(layout, data, where)
    parts = zip(found.get("offsets", ()), found.get("lengths", ()), strict=False)
    return max((offset + length for offset, length in parts), default=0)


def _read(layout: str, data: memoryview, where: int) -> tuple[int, ...]:
    """struct.error, before any memory is taken, for a table that the file cannot hold."""
    if where + struct.calcsize(layout) > len(data):
        raise struct.error
    return struct.unpack_from(layout, data, where)
