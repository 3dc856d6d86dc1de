"""EXIF in a TIFF that libvips has written: it has no way to, though a TIFF's directories are the same as EXIF's."""

from __future__ import annotations

import struct

from safelight.engine.metadata import exif
from safelight.engine.metadata.directory import Structure


def with_exif(file: bytes, block: bytes) -> bytes:
    """Add an EXIF block to a TIFF of one page; what the page says about its pixels stays as it is.

    The page's directory is written again, behind everything else, and the header leads to it. Where the two are not of
    the same kind (BigTIFF, which holds more than 4 GiB), the file is returned as it is.
    """
    structure, told = Structure(file), Structure(block)
    if structure.big or told.big:
        return file
    page = structure.directory(structure.first)
    photo, camera, place = exif.directories(told, structure.order)
    pixels = {tag: (entry.kind, entry.count, page.raw(tag)) for tag, entry in page.entries.items()}
    padding = bytes(len(file) % 2)
    start = len(file) + len(padding)
    added = exif.written(structure.order, photo | pixels, camera, place, start)
    return file[:4] + struct.pack(structure.order + "I", start) + file[8:] + padding + added
