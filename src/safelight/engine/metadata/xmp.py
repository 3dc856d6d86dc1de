"""XMP packets. They may repeat any metadata, so they are kept only if the position may be kept too."""

from __future__ import annotations

import re

_LARGEST = 256 << 10  # bytes; a JPEG's packet has at most 64 KiB
_MOST_PREFIXES = 32

# Anyone may have made the packet, so each search takes time in proportion to its length: repetitions are possessive,
# and none is tried again from the middle of what it has passed.
_ORIENTATION = re.compile(rb'(:Orientation\s*+(?:=\s*+["\']|>)\s*+)[2-8]')
_DECLARED = re.compile(rb'tiff:Orientation\s*+(?:=\s*+["\']|>)\s*+([1-8])\s*+["\'<]')
_THUMBNAILS = re.compile(rb"<(xmp:Thumbnails)\b[^<>]*+>")
_TAG_END = re.compile(rb"\s*+>")
_PREVIEWS = re.compile(rb"xmpGImg:image|GImage|photoshop:History|\xff\xd8\xff|JPEG_?DATA", re.IGNORECASE)
# Namespaces that describe other data in the file: a video, depths, a gain map, an extended packet.
_OF_FURTHER_DATA = re.compile(
    rb"""(?<!\s)\s++xmlns:([\w.-]++)\s*+=\s*+["'](?:http://ns\.google\.com/photos/(?!1\.0/panorama/)"""
    rb"""|http://ns\.adobe\.com/(?:hdr-gain-map|xmp/note)/|http://ns\.apple\.com/)[^"']*+["']"""
)


def orientation(packet: bytes | None) -> int | None:
    """Return the orientation (as in EXIF, 1 to 8) that a packet declares, or None."""
    found = _DECLARED.search(packet or b"")
    return int(found[1]) if found else None


def carried(packet: bytes, *, upright: bool) -> bytes | None:
    """Copy a packet without previews, and without descriptions of data that is not kept; None for none.

    `upright`: its orientation has been applied and becomes 1.
    """
    if len(packet) > _LARGEST or b"\0" in packet:
        return None  # with a NUL it is UTF-16, which the searches below cannot read
    shorter = _without_elements(packet, _THUMBNAILS)
    if shorter is None or _PREVIEWS.search(shorter):
        return None
    prefixes = {found[1] for found in _OF_FURTHER_DATA.finditer(shorter)}
    if len(prefixes) > _MOST_PREFIXES:
        return None
    for prefix in prefixes:
        shorter = _without(shorter, prefix)
        if shorter is None:
            return None
    shorter = _OF_FURTHER_DATA.sub(b"", shorter)
    return _ORIENTATION.sub(rb"\g<1>1", shorter) if upright else shorter


def _without(packet: bytes, prefix: bytes) -> bytes | None:
    """Drop the elements and attributes of a prefix; return None if that is not possible."""
    name = re.escape(prefix) + rb":[\w.-]++"
    shorter = _without_elements(packet, re.compile(rb"<(" + name + rb")[^<>]*+>"))
    if shorter is None:
        return None
    kept = re.sub(rb"\s" + name + rb"\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+')", b"", shorter)
    return None if re.search(rb"[<\s/]" + name, kept) else kept


def _without_elements(packet: bytes, tag: re.Pattern[bytes]) -> bytes | None:
    """Drop the elements whose first tag, with the name as its group, matches; return None if one does not end."""
    parts, at = [], 0
    for opening in tag.finditer(packet):
        if opening.start() < at:
            continue  # inside a dropped element
        parts.append(packet[at : opening.start()])
        end = opening.end() if opening[0].endswith(b"/>") else _end(packet, opening[1], opening.end())
        if end is None:
            return None
        at = end
    return b"".join((*parts, packet[at:]))


def _end(packet: bytes, name: bytes, at: int) -> int | None:
    """Return where the next closing tag of a name ends."""
    closing = b"</" + name
    while (found := packet.find(closing, at)) >= 0:
        at = found + len(closing)
        if end := _TAG_END.match(packet, at):
            return end.end()
    return None
