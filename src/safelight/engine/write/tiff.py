"""Add metadata to a TIFF that libvips has written.

libvips cannot write EXIF into one, although EXIF has the same structure as TIFF, and it cuts off IPTC after a quarter,
because it gives libtiff the length in units of four bytes.
"""

from __future__ import annotations

import struct

from safelight.engine.metadata import exif
from safelight.engine.metadata.directory import Structure

_IPTC = 0x83BB
_RESOLUTION = {0x011A, 0x011B, 0x0128}
_UNDEFINED = 7  # the type of a value that is only bytes


def with_metadata(file: bytes, block: bytes | None, iim: bytes | None) -> bytes:
    """Add an EXIF block and bare IPTC to a TIFF of one page, without changing the tags that describe its pixels.

    This writes the page's directory again at the end of the file, and lets the header point to it. If the kinds of
    structure differ (BigTIFF, for more than 4 GiB), the file is returned unchanged.
    """
    structure = Structure(file)
    told = Structure(block) if block else None
    if structure.big or (told and told.big):
        return file
    page = structure.directory(structure.first)
    photo, camera, place = exif.directories(told, structure.order) if told else ({}, {}, {})
    pixels = {tag: (entry.kind, entry.count, page.raw(tag)) for tag, entry in page.entries.items()}
    if photo.keys() >= _RESOLUTION:  # the page has a default if libvips read none, as from WebP
        pixels = {tag: entry for tag, entry in pixels.items() if tag not in _RESOLUTION}
    if iim:
        pixels[_IPTC] = (_UNDEFINED, len(iim), iim)
    padding = bytes(len(file) % 2)
    start = len(file) + len(padding)
    added = exif.written(structure.order, photo | pixels, camera, place, start)
    return file[:4] + struct.pack(structure.order + "I", start) + file[8:] + padding + added
