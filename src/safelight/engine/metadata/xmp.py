"""XMP packets. They may repeat anything, so they leave only where the position may leave too."""

from __future__ import annotations

import re

_ORIENTATION = re.compile(rb'(:Orientation\s*(?:=\s*["\']|>)\s*)[2-8]')
_DECLARED = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([1-8])\s*["\'<]')
_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails\s*>", re.DOTALL)
_PREVIEWS = re.compile(rb"xmpGImg:image|GImage|photoshop:History|\xff\xd8\xff|JPEG_?DATA", re.IGNORECASE)


def orientation(packet: bytes | None) -> int | None:
    """Return the orientation (as in EXIF, 1 to 8) that a packet declares, None for none."""
    found = _DECLARED.search(packet or b"")
    return int(found[1]) if found else None


def carried(packet: bytes, *, upright: bool) -> bytes | None:
    """Copy a packet without its previews; `upright`: its orientation is obeyed and becomes 1. None for nothing."""
    if b"\0" in packet:
        return None  # UTF-16, in which nothing would be found
    packet = _THUMBNAILS.sub(b"", packet)
    if _PREVIEWS.search(packet):
        return None
    return _ORIENTATION.sub(rb"\g<1>1", packet) if upright else packet
