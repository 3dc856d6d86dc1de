"""Add EXIF to a TIFF that libvips has written. libvips cannot do this, although EXIF has the same structure as TIFF."""

from __future__ import annotations

import struct

from safelight.engine.metadata import exif
from safelight.engine.metadata.directory import Structure

_RESOLUTION = {0x011A, 0x011B, 0x0128}


def with_exif(file: bytes, block: bytes) -> bytes:
    """Add an EXIF block to a TIFF of one page, without changing the tags that describe its pixels.

    This writes the page's directory again at the end of the file, and lets the header point to it. If the two are not
    of the same kind (BigTIFF, for more than 4 GiB), the file is returned unchanged.
    """
    structure, told = Structure(file), Structure(block)
    if structure.big or told.big:
        return file
    page = structure.directory(structure.first)
    photo, camera, place = exif.directories(told, structure.order)
    pixels = {tag: (entry.kind, entry.count, page.raw(tag)) for tag, entry in page.entries.items()}
    if photo.keys() >= _RESOLUTION:  # the page has a default if libvips read none, as from WebP
        pixels = {tag: entry for tag, entry in pixels.items() if tag not in _RESOLUTION}
    padding = bytes(len(file) % 2)
    start = len(file) + len(padding)
    added = exif.written(structure.order, photo | pixels, camera, place, start)
    return file[:4] + struct.pack(structure.order + "I", start) + file[8:] + padding + added
