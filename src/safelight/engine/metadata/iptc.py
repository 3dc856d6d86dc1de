"""IPTC-IIM 4.2, and Photoshop's image resources that contain it in a JPEG."""

from __future__ import annotations

import struct

_PHOTOSHOP = b"Photoshop 3.0\0"
_IIM_RESOURCE = 0x0404
_LONGEST = 4096
# An allow list of record 2: titles, authors and contents of a photo. It excludes places, previews, contacts, programs
# and the orientation.
_ALLOWED = frozenset(
    {0, 3, 4, 5, 7, 8, 10, 12, 15, 20, 22, 25, 30, 35, 37, 38, 40, 42, 55, 60, 62, 63, 65, 70, 75, 80, 85}
    | {105, 110, 115, 116, 118, 120, 121, 122, 135}
)
_PLACES = frozenset({26, 27, 90, 92, 95, 100, 101})


def carried(block: bytes, *, position: bool) -> bytes | None:
    """Copy the allowed fields as bare IIM, from a block that is bare or inside image resources; None for none.

    `position`: include the places.
    """
    allowed = _ALLOWED | _PLACES if position else _ALLOWED
    found = bytearray()
    for record, dataset, value in _datasets(_bare(block)):
        described = record == 2 and dataset in allowed
        if (described or (record, dataset) == (1, 90)) and len(value) <= _LONGEST and b"\xff\xd8\xff" not in value:
            found += struct.pack(">BBBH", 0x1C, record, dataset, len(value)) + value
    return bytes(found) or None


def as_resource(iim: bytes) -> bytes:
    """Wrap IIM in the form that a JPEG's APP13 segment has."""
    head = b"8BIM" + struct.pack(">H", _IIM_RESOURCE) + b"\0\0" + struct.pack(">I", len(iim))
    return _PHOTOSHOP + head + iim + b"\0" * (len(iim) % 2)


def _bare(block: bytes) -> bytes:
    if block[:1] == b"\x1c":
        return block
    at = len(_PHOTOSHOP) if block.startswith(_PHOTOSHOP) else 0
    while block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        number = int.from_bytes(block[at + 4 : at + 6], "big")
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2
        size = int.from_bytes(block[start : start + 4], "big")
        if number == _IIM_RESOURCE:
            return block[start + 4 : start + 4 + size]
        at = start + 4 + size + size % 2
    return b""


def _datasets(iim: bytes) -> list[tuple[int, int, bytes]]:
    found, at = [], 0
    while at + 5 <= len(iim) and iim[at] == 0x1C:
        record, dataset, size = struct.unpack_from(">BBH", iim, at + 1)
        if size & 0x8000:
            break  # an extended size, which only previews need
        found.append((record, dataset, iim[at + 5 : at + 5 + size]))
        at += 5 + size
    return found
