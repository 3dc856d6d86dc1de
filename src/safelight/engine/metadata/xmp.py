"""XMP packets. They may repeat any metadata, so they are kept only if the position may be kept too."""

from __future__ import annotations

import re

_ORIENTATION = re.compile(rb'(:Orientation\s*(?:=\s*["\']|>)\s*)[2-8]')
_DECLARED = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([1-8])\s*["\'<]')
_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails\s*>", re.DOTALL)
_PREVIEWS = re.compile(rb"xmpGImg:image|GImage|photoshop:History|\xff\xd8\xff|JPEG_?DATA", re.IGNORECASE)
# Namespaces that describe other data in the file: a video, depths, a gain map, an extended packet.
_OF_FURTHER_DATA = re.compile(
    rb"""\s+xmlns:([\w.-]+)\s*=\s*["'](?:http://ns\.google\.com/photos/(?!1\.0/panorama/)"""
    rb"""|http://ns\.adobe\.com/(?:hdr-gain-map|xmp/note)/|http://ns\.apple\.com/)[^"']*["']"""
)


def orientation(packet: bytes | None) -> int | None:
    """Return the orientation (as in EXIF, 1 to 8) that a packet declares, or None."""
    found = _DECLARED.search(packet or b"")
    return int(found[1]) if found else None


def carried(packet: bytes, *, upright: bool) -> bytes | None:
    """Copy a packet without previews, and without descriptions of data that is not kept; None for none.

    `upright`: its orientation has been applied and becomes 1.
    """
    if b"\0" in packet:
        return None  # UTF-16, which the search below cannot read
    packet = _THUMBNAILS.sub(b"", packet)
    if _PREVIEWS.search(packet):
        return None
    for prefix in {found[1] for found in _OF_FURTHER_DATA.finditer(packet)}:
        shorter = _without(packet, prefix)
        if shorter is None:
            return None
        packet = shorter
    packet = _OF_FURTHER_DATA.sub(b"", packet)
    return _ORIENTATION.sub(rb"\g<1>1", packet) if upright else packet


def _without(packet: bytes, prefix: bytes) -> bytes | None:
    """Drop the elements and attributes of a prefix; return None if that is not possible."""
    name = re.escape(prefix) + rb":[\w.-]+"
    parts, at = [], 0
    for opening in re.finditer(rb"<(" + name + rb")\b[^<>]*>", packet):
        if opening.start() < at:
            continue  # inside a dropped element
        parts.append(packet[at : opening.start()])
        at = opening.end()
        if not opening[0].endswith(b"/>"):
            closing = re.compile(rb"</" + re.escape(opening[1]) + rb"\s*>").search(packet, at)
            if closing is None:
                return None
            at = closing.end()
    kept = re.sub(rb"\s" + name + rb"\s*=\s*(?:\"[^\"]*\"|'[^']*')", b"", b"".join((*parts, packet[at:])))
    return None if re.search(rb"[<\s/]" + name, kept) else kept
