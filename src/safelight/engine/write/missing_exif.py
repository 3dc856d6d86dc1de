"""Complete the EXIF block in a finished JPEG, PNG, WebP or AVIF.

libvips writes EXIF with libexif, which drops the fields that it does not know, such as ratings.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from safelight.engine.metadata import exif
from safelight.engine.read.boxes import boxes
from safelight.engine.read.chunks import SIGNATURE, chunks, made

_PREFIX = b"Exif\0\0"
_APP1 = 0xE1
_SIZES = b"\x44\x40"
"""What libheif writes: offsets, lengths and bases of items take four bytes each."""
_ITEM = struct.Struct(">2H I H 2I")


class _Item(NamedTuple):
    """Where the data of an item lies, in one extent."""

    id: int
    source: int
    base: int
    extents: int
    offset: int
    length: int

    @property
    def start(self) -> int:
        return self.base + self.offset


def completed(file: bytes, format_name: str, block: bytes | None) -> bytes:
    """Add the fields of a block that are missing in the file's own. A file without EXIF is returned unchanged."""
    match format_name:
        case "jpeg":
            return _jpeg(file, block)
        case "png":
            return _png(file, block)
        case "webp":
            return _webp(file, block)
        case "avif":
            return _avif(file, block)
        case _:
            return file


def _jpeg(file: bytes, block: bytes | None) -> bytes:
    at = 2
    while file[at] == 0xFF and 0xE0 <= file[at + 1] <= 0xEF:
        end = at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        if file[at + 1] == _APP1 and file.startswith(_PREFIX, at + 4):
            body = _PREFIX + exif.with_missing(file[at + 4 : end], block)
            return file[: at + 2] + struct.pack(">H", len(body) + 2) + body + file[end:]
        at = end
    return file


def _png(file: bytes, block: bytes | None) -> bytes:
    parts = [SIGNATURE]
    for one in chunks(file):
        content = file[one.start : one.start + one.size]
        is_exif = one.name == b"eXIf"
        parts.append(
            made(one.name, exif.with_missing(content, block))
            if is_exif
            else file[one.start - 8 : one.start + one.size + 4]
        )
    return b"".join(parts)


def _webp(file: bytes, block: bytes | None) -> bytes:
    at = 12
    while at + 8 <= len(file):
        size = int.from_bytes(file[at + 4 : at + 8], "little")
        if file.startswith(b"EXIF", at):
            body = exif.with_missing(file[at + 8 : at + 8 + size], block)  # without the prefix, as WebP has it
            behind = file[at + 8 + size + size % 2 :]
            rest = file[8 : at + 4] + struct.pack("<I", len(body)) + body + bytes(len(body) % 2) + behind
            return file[:4] + struct.pack("<I", len(rest)) + rest
        at += 8 + size + size % 2
    return file


def _avif(file: bytes, block: bytes | None) -> bytes:
    """Write the item again where it lies, and move the items behind it (ISO/IEC 14496-12, 8.11.3)."""
    *_, (name, content) = boxes(memoryview(file))
    table = file.index(b"iloc") + 4
    version, sizes, count = struct.unpack_from(">B3x2sH", file, table)
    items = [_Item(*_ITEM.unpack_from(file, table + 8 + index * _ITEM.size)) for index in range(count)]
    found = [item for item in items if file.startswith(_PREFIX, item.start + 4)]
    usual = name == "mdat" and version == 0 and sizes == _SIZES and all(item.extents == 1 for item in items)
    if not usual or len(found) != 1:
        return file
    start, end = found[0].start, found[0].start + found[0].length
    body = file[start : start + 4] + _PREFIX + exif.with_missing(file[start + 4 : end], block)
    grown, head = len(body) - (end - start), bytearray(file[:start])
    for index, item in enumerate(items):
        base, length = item.base + grown * (item.start > start), item.length + grown * (item is found[0])
        _ITEM.pack_into(head, table + 8 + index * _ITEM.size, *item._replace(base=base, length=length))
    struct.pack_into(">I", head, len(file) - len(content) - 8, len(content) + 8 + grown)
    return bytes(head) + body + file[end:]
